//! Budgets that people change while work runs.

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    nanos, until,
};
use serde_json::json;

use crate::books::assert_at_rest;

/// A cent a second; a launch holds 8 cents.
const DEAR: &str = "
policy: {lease: 5s, drain_allowance: 3s, idle_duration: 500ms, heartbeat: 250ms, observe_interval: 300ms}
projects: {lab: {budget: 5}}
providers:
  local:
    type: local
    types:
      dear: {cpus: 1, memory: 2, on_demand: 36}
";

/// Counts on from its checkpoint, and says so.
const COUNTING: &str = "
name: counting
project: lab
checkpoint: {grace: 1s}
run: |
  step=$(cat $BURSAR_CHECKPOINT_DIR/step 2>/dev/null || echo 0); echo \"from $step.\"
  trap 'echo saved at $step; exit 0' TERM
  while :; do sleep 0.1; step=$((step + 1)); echo $step > $BURSAR_CHECKPOINT_DIR/step; done
";

#[test]
fn work_beyond_a_lowered_limit_saves_and_waits_and_goes_on_from_there_once_it_is_raised() {
    let mut installation = Installation::started(DEAR);
    let id = installation.submit(COUNTING);
    installation.until_logged(&id, "from 0.");
    let checkpoint = installation.path(&format!("data/checkpoints/{id}/step"));
    until("it saved a step", PATIENCE, || checkpoint.exists().then_some(()));

    let lowered = installation.json(&["budget", "set", "project", "lab", "--limit", "0.01"]);
    assert_eq!((text(&lowered["before"]["limit"]), text(&lowered["after"]["limit"])), ("5", "0.01"));
    assert_eq!(lowered["stopping"], json!([id]), "{lowered:#}");
    assert_eq!(lowered["after"]["landing"], true, "{lowered:#}");
    // It lands: what is spent and held never rises above what it was, and ends with the work.
    let most = nanos(&lowered["after"]["spent"]) + nanos(&lowered["after"]["held"]);
    let reason = until("it waits for money", PATIENCE, || {
        let budgets = installation.json(&["budgets"]);
        let budget = budgets.as_array().unwrap().iter().find(|row| row["budget"] == "project lab").unwrap();
        assert!(nanos(&budget["spent"]) + nanos(&budget["held"]) <= most, "{budget:#} above {most}");
        let detail = installation.json(&["show", &id]);
        let waits = detail["experiment"]["waiting_on"]["on"] == "budget";
        waits.then(|| text(&detail["experiment"]["reason"]).to_owned())
    });
    let rate = installation.json(&["budgets"])[0]["rate"].clone();
    assert!(rate.is_null(), "nothing is foretold of a budget without a limit: {rate}");
    assert!(reason.starts_with("project lab's budget has no room: "), "{reason}");
    let log = installation.logs(&id);
    assert!(log.contains("saved at "), "it had time to save: {log}");

    // What a person set outlives the daemon, though the file says 5.
    installation.stop();
    installation.start();
    let _ = installation.until_waiting(&id, "budget");
    let raised =
        installation.bursar(&["budget", "set", "project", "lab", "--limit", "4"]).with_code(0).stdout;
    assert!(raised.contains("before  $0.0100") && raised.contains("now     $4.00"), "{raised}");
    let saved: u32 = std::fs::read_to_string(&checkpoint).unwrap().trim().parse().unwrap();
    assert!(saved > 0);
    until("it goes on from its checkpoint", PATIENCE, || {
        installation.logs(&id).contains(&format!("from {saved}.")).then_some(())
    });
    let _ = installation.bursar(&["cancel", &id]).with_code(0);
    let _ = installation.until_state(&id, "cancelled");
    installation.until_empty();
    assert_at_rest(&installation, "after a limit was lowered and raised");
}

#[test]
fn a_lowered_limit_of_an_experiment_ends_it_with_its_checkpoint() {
    let installation = Installation::started(DEAR);
    let id = installation.submit(&format!("{COUNTING}budget: 2\n"));
    installation.until_logged(&id, "from 0.");
    let said =
        installation.bursar(&["budget", "set", "experiment", "counting", "--limit", "0.02"]).with_code(0);
    assert!(said.stdout.contains("1 experiment will be told to save and stop"), "{said:#?}");
    let detail = installation.until_state(&id, "stopped");
    assert_eq!(detail["experiment"]["reason"], "budget exhausted");
    assert!(installation.logs(&id).contains("saved at "));
    let late = installation.bursar(&["budget", "set", "experiment", &id, "--limit", "9"]).with_code(1);
    assert!(late.stderr.contains("pays for nothing any more"), "{late:#?}");
}

#[test]
fn what_a_change_does_not_name_stays_as_it_is_and_windows_come_and_go() {
    let installation = Installation::started(QUICK);
    let set = |arguments: &[&str]| {
        installation.json(&[&["budget", "set", "project", "lab"], arguments].concat())["after"].clone()
    };
    let monthly = set(&["--per", "month", "--timezone", "Europe/Berlin", "--thresholds", "80,50"]);
    assert_eq!(monthly["limit"], "50");
    assert_eq!(monthly["per"], "month (Europe/Berlin)");
    assert_eq!(monthly["thresholds"], json!([50, 80]));
    assert!(!monthly["window"]["to"].is_null(), "{monthly:#}");
    let stopping = set(&["--on-exhausted", "stop", "--limit", "$7.5"]);
    assert_eq!((&stopping["limit"], &stopping["on_exhausted"]), (&json!("7.5"), &json!("stop")));
    assert_eq!(stopping["per"], "month (Europe/Berlin)");
    let ever = set(&["--per", "total"]);
    assert!(ever["per"].is_null() && ever["window"].is_null(), "{ever:#}");
    assert_eq!(ever["thresholds"], json!([50, 80]));

    let table = installation.bursar(&["budgets"]).with_code(0).stdout;
    let row = table.lines().find(|line| line.starts_with("project lab")).unwrap();
    assert!(row.contains("$7.50") && row.contains("total") && row.ends_with("stop"), "{table}");
    let lifted = installation.json(&["budget", "lift", "project", "lab"]);
    assert_eq!((text(&lifted["before"]["limit"]), lifted["after"]["limit"].is_null()), ("7.5", true));
}

#[test]
fn a_change_that_makes_no_sense_is_refused_with_what_would() {
    let installation = Installation::started(QUICK);
    let _ =
        installation.sweep("name: grid\nrun: exec sleep 600\nsweep: {matrix: {x: 0..2}, max_parallel: 1}\n");
    for (arguments, code, says) in [
        (&["sweep", "grid", "--limit", "5", "--per", "month"][..], 2, "has no periods"),
        (&["sweep", "grid", "--thresholds", "50"], 2, "such as `limit: 100`"),
        (&["project", "lab", "--limit", "0"], 2, "a budget of 0 pays for nothing"),
        (&["project", "lab", "--limit", "lots"], 2, "is not an amount in dollars"),
        (&["project", "lab", "--per", "fortnight"], 2, "is no schedule"),
        (&["project", "lab", "--per", "month", "--timezone", "Berlin"], 2, "did you mean Europe/Berlin?"),
        (&["project", "lab", "--thresholds", "0"], 2, "is not between 1 and 1000"),
        (&["project", "lba", "--limit", "5"], 4, "there is no project `lba`"),
        (&["sweep", "grit", "--limit", "5"], 4, "there is no sweep `grit`"),
        (&["project", "--limit", "5"], 2, "say which project"),
        (&["installation", "all", "--limit", "5"], 2, "leave it out"),
        (&["project", "lab"], 2, "required"),
        (&["project", "lab", "--timezone", "UTC"], 2, "required"),
    ] {
        let said = installation.bursar(&[&["budget", "set"], arguments].concat()).with_code(code);
        assert!(said.stderr.contains(says), "{arguments:?}: {}", said.stderr);
    }
    let twin = installation.submit("name: twin\nrun: exec sleep 600\n");
    let other = installation.submit("name: twin\nrun: exec sleep 600\n");
    let said = installation.bursar(&["budget", "lift", "experiment", "twin"]).with_code(1);
    assert!(said.stderr.contains(&twin) && said.stderr.contains(&other), "{said:#?}");
    let budget = installation.json(&["budgets"]);
    let lab = budget.as_array().unwrap().iter().find(|row| row["budget"] == "project lab").unwrap();
    assert_eq!(lab["limit"], "50", "nothing of it was laid down");
}
