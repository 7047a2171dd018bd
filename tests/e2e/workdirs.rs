//! Working folders that travel: from the folder of whoever submits, through the daemon, onto instances.

use std::{fs, process::Command};

use bursar_tests::{
    Installation,
    installation::{QUICK, text},
};
use serde_json::Value;

/// One machine that stays, so that a later experiment finds what an earlier one left there.
const STAYS: &str = "
policy: {lease: 60s, drain_allowance: 30s, idle_duration: 30s, heartbeat: 500ms, observe_interval: 300ms}
providers:
  local:
    type: local
    types:
      only: {cpus: 1, memory: 2, on_demand: 3.6, max_instances: 1}
";

fn blobs(installation: &Installation) -> Vec<String> {
    let shelves = fs::read_dir(installation.path("data/blobs")).unwrap().map(|shelf| shelf.unwrap().path());
    let files = shelves.flat_map(|shelf| fs::read_dir(shelf).unwrap());
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default()
}

#[test]
fn a_folder_travels_once_and_is_needed_no_longer_where_it_was() {
    let installation = Installation::started(QUICK);
    fs::create_dir_all(installation.path("code/data")).unwrap();
    installation.write("code/train.sh", "echo trained\n");
    installation.write("code/data/huge", "not this\n");
    installation.write("code/.gitignore", "data\n");
    installation.write("a.yaml", "name: one\nworkdir: code\nrun: sh train.sh; ls\n");
    installation.write("b.yaml", "name: two\nworkdir: ./code/\nrun: sh train.sh; ls\n");
    let said = installation.bursar(&["submit", "--dry-run", "a.yaml"]);
    assert!(said.stderr.contains("workdir: 2 files of "), "{said:?}");
    assert_eq!(blobs(&installation), Vec::<String>::new(), "nothing is sent by asking");

    let submit = |file: &str| {
        let answer = installation.json(&["submit", file]);
        text(&answer[0]["experiments"][0]).to_owned()
    };
    let one = submit("a.yaml");
    let sent = blobs(&installation);
    assert_eq!(sent.len(), 1);
    let written = fs::metadata(installation.path("data/blobs").join(&sent[0][..2]).join(&sent[0])).unwrap();
    let two = submit("b.yaml");
    assert_eq!(blobs(&installation), sent, "the same content is the same archive");
    assert_eq!(
        written.len(),
        fs::metadata(installation.path("data/blobs").join(&sent[0][..2]).join(&sent[0])).unwrap().len()
    );
    fs::remove_dir_all(installation.path("code")).unwrap();
    for id in [one, two] {
        let _ = installation.until_state(&id, "succeeded");
        assert_eq!(installation.logs(&id), "trained\ntrain.sh\n");
    }
}

#[test]
fn what_cannot_travel_is_refused_by_the_api_with_a_way_out() {
    let installation = Installation::started(QUICK);
    let submit = |workdir: &str| {
        let spec = format!("{{\"specs\": [{{\"run\": \"true\", \"workdir\": {workdir}}}]}}");
        installation.http("POST", "/v1/experiments", spec.as_bytes())
    };
    for workdir in ["\"/home/me/code\"", "\"https://example.com/repo.git@main\""] {
        let answer = body(&submit(workdir));
        assert_eq!(answer["code"], "invalid-spec", "{answer}");
        assert!(text(&answer["problems"][0]["hint"]).contains("`bursar submit`"), "{answer}");
    }
    let digest = "0".repeat(64);
    let answer = body(&submit(&format!("{{\"archive\": \"{digest}\", \"bytes\": 7}}")));
    assert_eq!((&answer["code"], &answer["status"]), (&Value::from("blob-missing"), &Value::from(422)));
    let bytes = "host: 127.0.0.1\r\ncontent-type: application/octet-stream\r\n";
    let put =
        |name: &str| body(&installation.http_with("PUT", &format!("/v1/blobs/{name}"), bytes, b"content"));
    assert_eq!(put(&digest)["code"], "digest-differs");
    assert_eq!(put("../../etc/passwd")["code"], Value::Null, "that is no route");
    assert_eq!(put("%2e%2e%2fbursar.db")["code"], "bad-request");
    assert_eq!(blobs(&installation), Vec::<String>::new());
}

#[test]
fn a_branch_is_the_commit_that_it_was_when_it_was_submitted() {
    let installation = Installation::started(STAYS);
    let repository = installation.path("repository");
    fs::create_dir_all(&repository).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&repository).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
        assert!(command.args(arguments).output().unwrap().status.success(), "git {arguments:?}");
    };
    let commit = |content: &str| {
        fs::write(repository.join("file"), content).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "x"]);
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    commit("first\n");
    let url = format!("file://{}", repository.display());
    let run = "until test -e GO; do sleep 0.05; done";
    let blocker = installation
        .submit(&format!("run: {}\n", run.replace("GO", &installation.path("go").display().to_string())));
    let id = installation.submit(&format!("workdir: {url}@main\nrun: cat file\n"));
    commit("second\n");
    installation.write("go", "");
    let _ = installation.until_state(&blocker, "succeeded");
    let _ = installation.until_state(&id, "succeeded");
    assert_eq!(installation.logs(&id), "first\n");
    installation.write("none.yaml", format!("workdir: {url}@nowhere\nrun: cat file\n"));
    let said = installation.bursar(&["submit", "none.yaml"]).with_code(4);
    assert!(said.stderr.contains("has no branch or tag `nowhere`"), "{said:?}");
}

#[test]
fn the_second_trial_on_an_instance_starts_without_the_setup_of_the_first() {
    let installation = Installation::started(STAYS);
    fs::create_dir(installation.path("code")).unwrap();
    installation.write("code/requirements.txt", "torch\n");
    let counted = installation.path("setups").display().to_string();
    let sweep = installation.sweep(&format!(
        "name: trials\nworkdir: code\nsetup: echo once >> {counted}; sleep 1.5; cp requirements.txt installed\n\
         sweep: {{matrix: {{lr: [0.1, 0.2, 0.3]}}}}\nrun: cat installed; echo lr $lr\n"
    ));
    let detail = installation.until_sweep_over(&sweep, bursar_tests::PATIENCE);
    assert_eq!(fs::read_to_string(&counted).unwrap(), "once\n");
    let trials = detail["trials"].as_array().unwrap();
    let logs: Vec<String> = trials.iter().map(|trial| installation.logs(text(&trial["id"]))).collect();
    let spared =
        logs.iter().filter(|log| log.starts_with("bursar: setup: done on this instance before")).count();
    assert_eq!(spared, 2, "{logs:?}");
    for (log, lr) in logs.iter().zip(["0.1", "0.2", "0.3"]) {
        assert!(log.ends_with(&format!("torch\nlr {lr}\n")), "{log}");
    }
}
