//! Work that outlives its machine and its provider: checkpoints and outputs in S3 (moto's) and in a shared folder.

use std::fs;

use bursar_tests::{
    Installation,
    installation::{files_with, text},
    moto::Moto,
};

/// Two providers that share nothing. The cheaper one takes its first spot instance back.
const TWO_CLOUDS: &str = "
policy: {lease: 30s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 300ms, observe_interval: 300ms}
providers:
  here:
    type: local
    interruptions: [3s]
    types: {small: {cpus: 1, memory: 2, spot: 0.1, notice: 5s, max_instances: 1}}
  there:
    type: local
    types: {large: {cpus: 1, memory: 2, spot: 0.9, notice: 5s}}
";

/// Counts steps and saves each; the attempt that finds some saved goes on for a few more and ends.
const COUNTER: &str = "name: counter
checkpoint: {path: ckpt, grace: 4s}
outputs: [results]
run: |
  step=$(cat ckpt/step 2>/dev/null || echo 0); last=100000; [ $step = 0 ] || last=$((step + 3))
  mkdir -p results; echo from $step | tee results/from
  save() { echo $step > ckpt/step.tmp; mv ckpt/step.tmp ckpt/step; }
  trap 'save; exit 1' TERM
  while [ $step -lt $last ]; do step=$((step + 1)); echo at $step; save; sleep 0.1; done
  echo to $step > results/to
";

/// What was interrupted at one provider goes on at the other, and its outputs come from the store.
fn goes_on_elsewhere(installation: &Installation) {
    // Once the first instance is gone, the cheaper provider has no more to give than the other can start with.
    let id = installation.submit(COUNTER);
    let detail = installation.until_state(&id, "succeeded");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    let log = installation.logs(&id);
    let from: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("from ")).collect();
    let (first, second) = log.split_once("==> attempt 2").unwrap();
    let last = first.lines().rev().find_map(|line| line.strip_prefix("at ")).unwrap();
    assert_eq!(from, ["0", last], "{log}");
    assert!(second.contains("bursar: restored the checkpoint of attempt 1"), "{log}");
    assert!(!detail["experiment"]["checkpoint_took"].is_null(), "{detail:#}");

    let said = installation.bursar(&["outputs", &id, "--to", "fetched"]).with_code(0);
    assert!(said.stdout.contains("results/to"), "{said:#?}");
    let fetched = |name: &str| fs::read_to_string(installation.path("fetched").join(name)).unwrap();
    assert_eq!(fetched("results/from"), format!("from {last}\n"));
    let step: u64 = last.parse().unwrap();
    assert_eq!(fetched("results/to"), format!("to {}\n", step + 3));
    assert_eq!(installation.ailments(), Vec::<serde_json::Value>::new());
}

#[test]
fn an_experiment_that_is_interrupted_resumes_at_another_provider_from_s3() {
    let Some(moto) = Moto::start() else { return };
    let mut installation = Installation::new(&format!("{}{TWO_CLOUDS}", moto.storage()));
    installation.start_with(&[("KEY", "for-moto")]);
    goes_on_elsewhere(&installation);
    let objects = moto.objects();
    let manifests = objects.iter().filter(|name| name.contains("/manifests/")).count();
    assert!((1..=2).contains(&manifests), "{objects:#?}");
    // What opens the store stands nowhere but in the daemon's environment.
    assert_eq!(files_with(&installation.path(""), "for-moto"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn an_experiment_that_is_interrupted_resumes_at_another_provider_from_a_shared_folder() {
    let store = tempfile::tempdir().unwrap();
    let storage = format!("storage: {{url: 'file://{}'}}\n", store.path().display());
    let installation = Installation::started(&format!("{storage}{TWO_CLOUDS}"));
    goes_on_elsewhere(&installation);
}

#[test]
fn spot_whose_notice_is_too_short_is_not_used_and_the_plan_says_so() {
    let installation = Installation::started(
        "policy: {lease: 30s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
providers:
  local: {type: local, types: {small: {cpus: 1, memory: 2, on_demand: 3.6, spot: 1.2, notice: 2s}}}
",
    );
    let careful = installation.submit("name: careful\ncheckpoint: {grace: 5s}\nrun: echo done\n");
    let detail = installation.until_state(&careful, "succeeded");
    assert!(text(&detail["attempts"][0]["nodes"][0]["offering"]).ends_with("/on-demand"), "{detail:#}");
    installation.write("careful.yaml", "name: careful\ncheckpoint: {grace: 5s}\nrun: echo done\n");
    let said = installation.bursar(&["plan", "careful.yaml", "--all"]).with_code(0).stdout;
    assert!(said.contains("a notice of 2s is too short to save in, which takes 5s"), "{said}");

    // What is there already would be used again.
    installation.until_empty();
    let careless =
        installation.submit("name: careless\ncheckpoint: {grace: 5s, accept_loss: true}\nrun: echo done\n");
    let detail = installation.until_state(&careless, "succeeded");
    assert!(text(&detail["attempts"][0]["nodes"][0]["offering"]).ends_with("/spot"), "{detail:#}");
}

#[test]
fn a_store_that_cannot_be_opened_is_said_and_nothing_is_started() {
    let installation = Installation::started(
        "storage: {url: 's3://bucket', credentials: {AWS_ACCESS_KEY_ID: {env: NOT_THERE}}}\n",
    );
    let id = installation.submit("name: locked\nrun: echo never\n");
    let detail = installation.until_state(&id, "failed");
    let why = text(&detail["experiment"]["reason"]);
    assert!(
        why.contains(
            "storage.credentials.AWS_ACCESS_KEY_ID: the daemon has no environment variable NOT_THERE"
        ),
        "{why}"
    );
    assert!(installation.logs(&id).is_empty());
}

#[test]
fn doctor_tries_the_store_and_says_what_is_wrong_with_it() {
    let store = tempfile::tempdir().unwrap();
    let mut installation =
        Installation::new(&format!("storage: {{url: 'file://{}/lab'}}\n", store.path().display()));
    installation.start();
    let said = installation.bursar(&["doctor"]).with_code(0).stdout;
    assert!(
        said.contains("data can be stored   wrote, read and removed a small object in file://"),
        "{said}"
    );
    assert_eq!(fs::read_dir(store.path().join("lab")).unwrap().count(), 0);

    // What became of it shows when it is asked again.
    fs::remove_dir(store.path().join("lab")).unwrap();
    fs::write(store.path().join("lab"), "").unwrap();
    let answer = installation.http("POST", "/v1/storage/check", b"null");
    assert!(answer.contains("cannot write file://"), "{answer}");
    let said = installation.bursar(&["config", "check"]).with_code(2).stderr;
    assert!(said.contains("bursar.yaml:4:16: storage.url: ") && said.contains("/lab is a file"), "{said}");
}

#[test]
fn doctor_says_that_nothing_opens_a_store() {
    // Where this runs in a cloud, its role would be asked for, which takes its time to be refused.
    let installation = Installation::new("storage: {url: 's3://bucket', region: us-east-1}\n");
    let said = installation.bursar(&["doctor"]).with_code(1).stdout;
    assert!(said.contains("FAIL data can be stored   "), "{said}");
    assert!(said.contains("fix: mend `storage` in the configuration"), "{said}");
}
