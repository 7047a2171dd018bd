//! Who runs when, and what those who wait are told.

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    processes::file,
    until,
};

/// One machine at a time.
const NARROW: &str = "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms, max_instances: 1}
providers:
  local:
    type: local
    types:
      only: {cpus: 1, memory: 2, on_demand: 3.6}
";

#[test]
fn the_queue_goes_by_priority_and_then_by_age() {
    let installation = Installation::started(NARROW);
    let (go, order) = (installation.path("go"), installation.path("order"));
    let blocker = installation.submit(&format!(
        "name: blocker\nrun: echo begun; until test -e {}; do sleep 0.1; done\n",
        go.display()
    ));
    installation.until_logged(&blocker, "begun");
    let queued = [("low", -5), ("early", 0), ("late", 0), ("high", 9)].map(|(name, priority)| {
        installation
            .submit(&format!("name: {name}\npriority: {priority}\nrun: echo {name} >> {}\n", order.display()))
    });
    let reason = installation.until_waiting(&queued[0], "instance-limit");
    assert!(reason.contains("max_instances"), "{reason}");
    installation.write("go", "");
    for id in &queued {
        let _ = installation.until_state(id, "succeeded");
    }
    assert_eq!(file(&order), "high\nearly\nlate\nlow\n");
}

#[test]
fn the_same_key_queues_once_and_another_content_is_refused() {
    let mut installation = Installation::started(QUICK);
    installation.write("one.yaml", "name: one\nrun: echo one\n");
    installation.write("two.yaml", "name: two\nrun: echo two\n");
    let first = installation.json(&["submit", "--key", "k1", "one.yaml"]);
    let again = installation.json(&["submit", "--key", "k1", "one.yaml"]);
    assert_eq!((&first[0]["repeated"], &again[0]["repeated"]), (&false.into(), &true.into()));
    assert_eq!(first[0]["experiments"], again[0]["experiments"]);
    let other = installation.bursar(&["submit", "--key", "k1", "two.yaml"]).with_code(1);
    assert!(other.stderr.contains("the key `k1` was used before for another submission"), "{other:?}");

    installation.kill();
    installation.start();
    let later = installation.json(&["submit", "--key", "k1", "one.yaml"]);
    assert_eq!(first[0]["experiments"], later[0]["experiments"], "a key outlives the daemon");
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 1);
    let _ = installation.until_state("one", "succeeded");
}

#[test]
fn a_sweep_runs_as_many_trials_at_once_as_it_may_and_each_once() {
    let installation = Installation::started(QUICK);
    let runs = installation.path("runs");
    let sweep = installation.sweep(&format!(
        "name: grid\nrun: echo \"+ $x $y\" >> {runs}; sleep 0.4; echo \"- $x $y\" >> {runs}\n\
         sweep: {{matrix: {{x: 0..3, y: [a, b]}}, exclude: [{{x: 2, y: b}}], max_parallel: 2}}\n",
        runs = runs.display(),
    ));
    until("a trial waits for the others", PATIENCE, || {
        let trials = installation.json(&["ls", "--sweep", "grid"]);
        let waits =
            |on: &str| trials.as_array().unwrap().iter().any(|trial| trial["waiting_on"]["on"] == *on);
        waits("sweep-parallel").then_some(())
    });
    let detail = installation.until_sweep_over(&sweep, PATIENCE);
    assert!(
        detail["trials"].as_array().unwrap().iter().all(|trial| trial["state"] == "succeeded"),
        "{detail:#}"
    );
    let runs = file(&runs);
    let (mut now, mut most, mut began) = (0, 0, Vec::new());
    for line in runs.lines() {
        if let Some(trial) = line.strip_prefix("+ ") {
            now += 1;
            began.push(trial);
        } else {
            now -= 1;
        }
        most = most.max(now);
    }
    began.sort_unstable();
    assert_eq!(began, ["0 a", "0 b", "1 a", "1 b", "2 a"]);
    assert_eq!(most, 2, "{runs}");
}

#[test]
fn a_plan_shows_the_chosen_offering_and_why_the_others_lost_and_launches_nothing() {
    let installation = Installation::started(
        "policy: {drain_allowance: 30s}\nproviders:\n  local:\n    type: local\n    types:\n      \
         small: {accelerators: \"T4:1\", cpus: 1, memory: 1, spot: 1.0, on_demand: 3.0}\n      \
         gpu: {accelerators: \"T4:1\", cpus: 4, memory: 8, on_demand: 9.0}\n      \
         gold: {accelerators: \"T4:1\", cpus: 4, memory: 8, on_demand: 90}\n",
    );
    installation.write(
        "gpu.yaml",
        "name: gpu\nresources: {accelerators: T4, memory: 4}\nmax_price: 10\nestimate: {duration: 2h}\nrun: echo hi\n",
    );
    // The first answer may come before the providers have said what they offer.
    until("the market is known", PATIENCE, || {
        (installation.json(&["offers"]).as_array().unwrap().len() == 4).then_some(())
    });
    let table = installation.bursar(&["plan", "gpu.yaml"]).with_code(0).stdout;
    let row =
        |name: &str| table.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{table}"));
    let chosen = row("/gpu/on-demand");
    assert!(chosen.starts_with("->") && chosen.ends_with("chosen") && chosen.contains("$9.00"), "{table}");
    assert!(chosen.contains("2.00h") && chosen.contains("$18.00"), "{table}");
    assert!(row("/gold/on-demand").ends_with("above the ceiling of $10.00/h"), "{table}");
    assert!(row("/small/spot").contains("too small: "), "{table}");

    installation.write("huge.yaml", "name: huge\nresources: {accelerators: \"A100:64\"}\nrun: echo never\n");
    let refused = installation.bursar(&["plan", "huge.yaml"]).with_code(3);
    assert!(refused.stderr.contains("no machine on offer has any of the accelerators"), "{refused:?}");
    installation.write("many.yaml", "name: many\nresources: {accelerators: \"T4:64\"}\nrun: echo never\n");
    let refused = installation.bursar(&["plan", "many.yaml"]).with_code(3);
    assert!(refused.stdout.contains("too small: "), "{refused:?}");
    let _ = installation.bursar(&["submit", "--dry-run", "gpu.yaml"]).with_code(0);
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
    assert_eq!(installation.json(&["instances"]).as_array().unwrap().len(), 0);
}

#[test]
fn what_nobody_offers_waits_with_the_reason_until_it_is_cancelled() {
    let installation = Installation::started(QUICK);
    let id = installation.submit("name: huge\nresources: {accelerators: \"A100:64\"}\nrun: echo never\n");
    let reason = installation.until_waiting(&id, "no-offering");
    assert!(reason.contains("A100"), "{reason}");
    let explained = installation.bursar(&["explain", "huge"]).with_code(0).stdout;
    assert_eq!(explained, format!("huge is queued: {reason}\n"));
    let _ = installation.bursar(&["cancel", &id]).with_code(0);
    let _ = installation.until_state(&id, "cancelled");
}

#[test]
fn an_interrupted_attempt_is_resumed_from_its_checkpoint_on_another_machine() {
    let installation = Installation::started(
        "policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}\n\
         providers:\n  local:\n    type: local\n    interruptions: [1s]\n    types:\n      \
         small: {cpus: 1, memory: 2, spot: 36, notice: 1s}\n",
    );
    let id = installation.submit(
        "name: steps\ncheckpoint: {grace: 1s}\nrun: |\n  saved=$BURSAR_CHECKPOINT_DIR/step\n  \
         step=$(cat $saved 2>/dev/null || echo 0)\n  echo from $step\n  \
         trap 'told=yes' TERM\n  \
         while [ $step -lt 12 ] && [ -z $told ]; do\n    sleep 0.2; step=$((step+1)); echo $step > $saved.tmp\n    \
         mv $saved.tmp $saved || mv $saved.tmp $saved # The first may have been told to end.\n    \
         echo step $step\n  done\n  \
         test -e $BURSAR_NOTICE_FILE && echo noticed\n  [ $step = 12 ]\n",
    );
    let detail = installation.until_state(&id, "succeeded");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    assert_eq!(attempts[0]["reason"], "stopped: interrupted by the cloud");
    assert_ne!(attempts[0]["nodes"][0]["instance"], attempts[1]["nodes"][0]["instance"]);
    assert!(attempts[0]["checkpoint_at"].is_string(), "{detail:#}");
    let log = |number: &str| installation.bursar(&["logs", "--attempt", number, &id]).with_code(0).stdout;
    let (first, second) = (log("1"), log("2"));
    assert!(first.starts_with("from 0\n") && first.contains("noticed\n"), "{first}");
    let steps = |log: &str| {
        log.lines().filter_map(|line| line.strip_prefix("step ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let all: Vec<String> = steps(&first).into_iter().chain(steps(&second)).collect();
    let last = steps(&first).last().cloned().unwrap_or_default();
    assert_eq!(second.lines().next(), Some(&*format!("from {last}")), "{first}{second}");
    assert_eq!(
        all,
        (1..=12).map(|step| step.to_string()).collect::<Vec<_>>(),
        "no step was lost or done twice"
    );
}

#[test]
fn secrets_reach_the_process_and_nothing_else() {
    const BY_ENVIRONMENT: &str = "hunter2-swordfish";
    const BY_FILE: &str = "correct-horse-battery";
    let mut installation = Installation::new(QUICK);
    installation.write("token", format!("{BY_FILE}\n"));
    installation.start_with(&[("LAB_TOKEN", BY_ENVIRONMENT)]);
    let id = installation.submit(&format!(
        "name: holder\nsecrets: {{TOKEN: {{env: LAB_TOKEN}}, KEY: {{file: {}}}}}\n\
         setup: echo \"in setup $TOKEN\"\n\
         run: echo \"$TOKEN\" | rev; echo \"$KEY\" | rev; echo \"$KEY\"; until test -e {}; do sleep 0.1; done\n",
        installation.path("token").display(),
        installation.path("go").display(),
    ));
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    let stars = |text: &str| "*".repeat(text.len());
    let expected = format!(
        "in setup {}\n{}\n{}\n{}\n",
        stars(BY_ENVIRONMENT),
        reversed(BY_ENVIRONMENT),
        reversed(BY_FILE),
        stars(BY_FILE)
    );
    installation.until_logged(&id, &expected);
    // While it runs and when it is over.
    for state in ["running", "succeeded"] {
        if state == "succeeded" {
            installation.write("go", "");
        }
        let _ = installation.until_state(&id, state);
        for secret in [BY_ENVIRONMENT, BY_FILE] {
            let mut found = bursar_tests::installation::files_with(&installation.path("data"), secret);
            // What it writes on its own instance, its own output among it, is its own affair, and goes with the instance.
            found.retain(|path| !path.display().to_string().contains("/work/att_"));
            assert!(found.is_empty(), "{secret} is in {found:?} while it is {state}");
            assert!(!installation.log().contains(secret), "{secret} is in the daemon's log");
            // Processes with the secret in their environment, and none with it where everybody can see it.
            let holders = bursar_tests::processes::marked(&[secret.to_owned()]);
            assert!(!holders.is_empty() || secret == BY_FILE && state == "succeeded", "{state}");
            assert!(!holders.values().any(|command_line| command_line.contains(secret)), "{holders:?}");
            for path in ["", "/explain", "/logs"] {
                let answer = installation.http("GET", &format!("/v1/experiments/{id}{path}"), b"");
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                assert!(!answer.contains(secret), "{answer}");
            }
            let events = installation.http("GET", "/v1/events?limit=1000", b"");
            assert!(events.starts_with("HTTP/1.1 200") && !events.contains(secret), "{events}");
        }
    }
    // One that goes missing later is found when an attempt starts.
    let token = installation.path("token").display().to_string();
    let fickle = installation.submit(&format!(
        "name: fickle\nretry: 1\nsecrets: {{KEY: {{file: {token}}}}}\nrun: rm {token}; exit 1\n"
    ));
    let detail = installation.until_state(&fickle, "failed");
    let reason = text(&detail["experiment"]["reason"]);
    assert!(reason.contains("secret KEY: ") && reason.contains("No such file"), "{reason}");
}

#[test]
fn secrets_that_are_missing_are_told_before_anything_is_queued() {
    let installation = Installation::started(QUICK);
    installation.write(
        "missing.yaml",
        "name: missing\nsecrets: {TOKEN: {env: NOT_THERE}, KEY: {file: /no/such/key}}\nrun: echo never\n",
    );
    for command in ["submit", "plan"] {
        let said = installation.bursar(&[command, "missing.yaml"]).with_code(2).stderr;
        assert!(said.contains("secrets.TOKEN: the daemon has no environment variable NOT_THERE"), "{said}");
        assert!(said.contains("secrets.KEY: /no/such/key: No such file"), "{said}");
        assert!(said.contains("in the environment of `bursar serve`"), "{said}");
    }
    assert_eq!(installation.json(&["ls"]).as_array().map(Vec::len), Some(0));
    // Nobody knows here what the daemon's environment has.
    let said = installation.bursar(&["config", "check", "missing.yaml"]).with_code(0).stderr;
    assert!(said.contains("warning: missing.yaml:2:") && said.contains("NOT_THERE"), "{said}");
}
