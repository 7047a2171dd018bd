//! Budgets hold at every moment, and every nano-dollar is on the books once.

use std::time::Duration;

use bursar_tests::{Installation, PATIENCE, installation::text, nanos, until};
use serde_json::Value;

use crate::books::assert_at_rest;

/// A cent a second; a launch holds 8 cents.
const DEAR: &str = "
policy: {lease: 5s, drain_allowance: 3s, idle_duration: 500ms, heartbeat: 250ms, observe_interval: 300ms}
budget: {limit: 3}
projects: {lab: {budget: 1.5}}
providers:
  local:
    type: local
    types:
      dear: {cpus: 1, memory: 2, on_demand: 36}
";

/// Of a budget or a sweep: within its limit, held money included.
fn assert_within_limit(budget: &Value, limit: &str) {
    let (limit, spent, held) = (&budget[limit], nanos(&budget["spent"]), nanos(&budget["held"]));
    assert!(held >= 0 && spent >= 0, "{budget}");
    assert!(limit.is_null() || spent + held <= nanos(limit), "{budget}");
}

#[test]
fn a_capped_sweep_stays_below_its_cap_all_along_and_refuses_the_rest_with_the_reason() {
    let installation = Installation::started(DEAR);
    let sweep = installation.sweep(
        "name: capped\nproject: lab\ncheckpoint: {grace: 1s}\nrun: sleep 1; echo done $x\n\
         sweep: {matrix: {x: 0..60}, max_parallel: 3, budget: 0.24}\n",
    );
    let mut samples = 0;
    let detail = until("the sweep is over", 2 * PATIENCE, || {
        for budget in installation.json(&["budgets"]).as_array().unwrap() {
            assert_within_limit(budget, "limit");
        }
        let detail = installation.json(&["show", &sweep]);
        assert_within_limit(&detail["sweep"], "budget");
        samples += 1;
        (!detail["sweep"]["ended_at"].is_null()).then_some(detail)
    });
    assert!(samples > 10, "looked only {samples} times");
    let trials = detail["trials"].as_array().unwrap();
    let count = |state: &str| trials.iter().filter(|trial| trial["state"] == *state).count();
    assert!(count("succeeded") >= 5, "{detail:#}");
    assert!(count("refused") >= 1, "{detail:#}");
    assert_eq!(count("succeeded") + count("refused") + count("stopped"), 60, "{detail:#}");
    for trial in trials.iter().filter(|trial| trial["state"] == "refused") {
        let reason = text(&trial["reason"]);
        assert!(
            reason.starts_with("the sweep's budget has ") && reason.contains("of $0.2400 left"),
            "{reason}"
        );
        assert_eq!(trial["cost"], "0");
        assert_eq!(trial["attempts"], 0);
    }
    let spent: i64 = trials.iter().map(|trial| nanos(&trial["cost"])).sum();
    installation.until_empty();
    let after = installation.json(&["show", &sweep]);
    let trials = after["trials"].as_array().unwrap();
    assert_eq!(
        trials.iter().map(|trial| nanos(&trial["cost"])).sum::<i64>(),
        nanos(&after["sweep"]["spent"])
    );
    assert!(spent <= nanos(&after["sweep"]["spent"]));
    assert_at_rest(&installation, "after a capped sweep");
}

#[test]
fn an_experiment_is_stopped_with_its_checkpoint_before_its_budget_is_passed() {
    let installation = Installation::started(DEAR);
    let id = installation.submit(
        "name: lander\nbudget: 0.12\ncheckpoint: {grace: 1s}\n\
         run: trap 'touch $BURSAR_CHECKPOINT_DIR/saved; echo saved; exit 0' TERM; echo begun; while :; do sleep 0.1; done\n",
    );
    let detail = installation.until_state(&id, "stopped");
    assert_eq!(detail["experiment"]["reason"], "budget exhausted");
    assert!(installation.logs(&id).ends_with("saved\n"), "{}", installation.logs(&id));
    assert!(installation.path(&format!("data/checkpoints/{id}/saved")).exists());
    installation.until_empty();
    let cost = nanos(&installation.json(&["show", &id])["experiment"]["cost"]);
    assert!((40_000_000..=120_000_000).contains(&cost), "cost {cost} of 120,000,000");
    assert_at_rest(&installation, "after a landing");
}

#[test]
fn a_shared_machine_is_paid_by_its_experiments_to_the_last_nano_dollar() {
    let installation = Installation::started(
        "policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}\n\
         projects: {red: , blue: }\n\
         providers:\n  local:\n    type: local\n    types:\n      \
         trio: {accelerators: \"A100:3\", cpus: 3, memory: 4, on_demand: 98.765432101, max_instances: 1}\n",
    );
    for (project, seconds) in [("red", "0.5"), ("blue", "1.1"), ("red", "1.7"), ("blue", "0.2")] {
        let _ = installation.submit(&format!(
            "name: part\nproject: {project}\nresources: {{accelerators: A100}}\nrun: sleep {seconds}\n"
        ));
    }
    until("all are over", PATIENCE, || {
        let live = installation.json(&["ls", "--live"]);
        live.as_array().unwrap().is_empty().then_some(())
    });
    installation.until_empty();
    assert_at_rest(&installation, "after sharing");
    // Only by asking is it learned that there is no second one: that costs nothing.
    let instances = installation.json(&["instances"]);
    let paid = instances.as_array().unwrap().iter().filter(|instance| instance["cost"] != "0").count();
    assert_eq!(paid, 1, "{instances:#}");
    let report = installation.json(&["report", "--by", "project"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{report:#}");
    assert!(rows.iter().all(|row| nanos(&row["cost"]) > 0));

    // The table for spreadsheets says the same to the last digit.
    let csv = installation.bursar(&["report", "--by", "project", "--format", "csv"]).with_code(0).stdout;
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some("project,cost,run,boot,idle,drain,lost,contracted_cost,list_cost,on_demand_cost,seconds")
    );
    for (line, row) in lines.zip(rows) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!((cells[0], cells[1]), (text(&row["keys"][0]), text(&row["cost"])), "{csv}");
        let parts: i64 = cells[2..7].iter().map(|cell| nanos(&Value::from(*cell))).sum();
        assert_eq!(parts, nanos(&row["cost"]), "{csv}");
    }
}

#[test]
fn an_experiment_whose_project_is_spent_waits_or_is_refused_but_never_overspends() {
    let installation = Installation::started(
        "policy: {lease: 5s, drain_allowance: 3s, idle_duration: 300ms, heartbeat: 250ms, observe_interval: 300ms}\n\
         projects: {tiny: {budget: 0.10}}\nproviders:\n  local:\n    type: local\n    types:\n      \
         dear: {cpus: 1, memory: 2, on_demand: 36}\n",
    );
    let spec = "name: pair\nproject: tiny\ncheckpoint: {grace: 1s}\nrun: echo begun; sleep 1\n";
    let (first, second) = (installation.submit(spec), installation.submit(spec));
    installation.until_logged(&first, "begun");
    let reason = installation.until_waiting(&second, "budget");
    assert!(reason.starts_with("project tiny's budget has no room: "), "{reason}");
    let explained = installation.bursar(&["explain", &second]).with_code(0).stdout;
    assert!(explained.contains("local/local-a/dear/on-demand"), "{explained}");
    assert!(explained.contains("project tiny's budget has no room for its hold"), "{explained}");
    let _ = installation.until_state(&first, "succeeded");
    // Held money came back: there was room on the machine of the first, or for one launch more.
    let over = until("the second is over", Duration::from_secs(20), || {
        let detail = installation.json(&["show", &second]);
        (!detail["experiment"]["ended_at"].is_null()).then_some(detail)
    });
    let state = text(&over["experiment"]["state"]);
    assert!(["succeeded", "refused"].contains(&state), "{over:#}");
    installation.until_empty();
    assert_at_rest(&installation, "after a small budget");
}

#[test]
fn work_that_an_interruption_loses_is_a_cost_of_its_own() {
    let installation = Installation::started(
        "policy: {lease: 20s, drain_allowance: 30s, idle_duration: 300ms, heartbeat: 500ms, observe_interval: 300ms}\n\
         providers:\n  local:\n    type: local\n    interruptions: [1500ms]\n    types:\n      \
         small: {cpus: 1, memory: 2, spot: 36, on_demand: 72, notice: 500ms}\n",
    );
    let id = installation.submit("name: careless\nspot_policy: spot\nrun: exec sleep 2\n");
    let detail = installation.until_state(&id, "succeeded");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 2, "{detail:#}");
    installation.until_empty();
    let parts = installation.json(&["show", &id])["cost_by_category"].clone();
    // A cent a second: all of the first attempt, and the second.
    assert!((10_000_000..25_000_000).contains(&nanos(&parts["lost"])), "{parts}");
    assert!((20_000_000..25_000_000).contains(&nanos(&parts["run"])), "{parts}");
    assert_at_rest(&installation, "after an interruption");
}
