//! The first thing that a newcomer runs keeps what it promises, and leaves what it says it leaves.

use std::collections::BTreeMap;

use bursar_tests::{
    PATIENCE, Said,
    installation::text,
    nanos,
    processes::{self, file, marked},
    program, until,
};
use rustix::process::Signal;
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_demo_stays_in_its_budget_resumes_refuses_and_leaves_nothing_running() {
    let home = tempfile::Builder::new().prefix("bursar-demo-").tempdir().unwrap();
    let kept = home.path().join("kept");
    let demo = || program::command(home.path());
    let said = Said::of(demo().args(["demo", "--json", "--keep"]).arg(&kept).output().unwrap()).with_code(0);
    let shown = said.json();

    assert_eq!(
        keys(&shown),
        ["budget", "held", "instances", "leaked", "on_demand_cost", "spent", "sweep", "trials"]
    );
    let (budget, spent) = (nanos(&shown["budget"]), nanos(&shown["spent"]));
    assert!(0 < spent && spent <= budget, "{shown:#}");
    assert_eq!(nanos(&shown["held"]), 0);
    assert_eq!(shown["leaked"], 0);
    assert!(nanos(&shown["on_demand_cost"]) > spent, "{shown:#}");

    let trials = shown["trials"].as_array().unwrap();
    assert!(
        trials
            .iter()
            .all(|trial| keys(trial) == ["attempts", "cost", "experiment", "metric", "reason", "state"])
    );
    let mut by_payer: BTreeMap<&str, i64> = BTreeMap::new();
    let mut total = 0;
    for instance in shown["instances"].as_array().unwrap() {
        assert_eq!(keys(instance), ["allocations", "cost", "id"]);
        let mut allocated = 0;
        for part in instance["allocations"].as_array().unwrap() {
            assert_eq!(keys(part), ["category", "cost", "payer"]);
            *by_payer.entry(text(&part["payer"])).or_default() += nanos(&part["cost"]);
            allocated += nanos(&part["cost"]);
        }
        assert_eq!(allocated, nanos(&instance["cost"]), "{instance:#}");
        total += allocated;
    }
    assert_eq!(total, spent, "{shown:#}");
    assert_eq!(trials.iter().map(|trial| nanos(&trial["cost"])).sum::<i64>(), spent);
    for trial in trials {
        let paid = by_payer.get(text(&trial["experiment"])).copied().unwrap_or_default();
        assert_eq!(nanos(&trial["cost"]), paid, "{trial:#}");
    }
    let resumed = |trial: &&Value| trial["attempts"].as_u64() > Some(1) && trial["state"] == "succeeded";
    assert!(trials.iter().any(|trial| resumed(&trial)), "{trials:#?}");
    let refused: Vec<_> = trials.iter().filter(|trial| trial["state"] == "refused").collect();
    assert!(!refused.is_empty(), "{trials:#?}");
    assert!(refused.iter().all(|trial| text(&trial["reason"]).starts_with("the sweep's budget has ")));
    let trained = trials.iter().filter(|trial| trial["state"] == "succeeded");
    assert!(trained.clone().count() > 2);
    assert!(trained.clone().all(|trial| trial["metric"].is_f64()), "{trials:#?}");
    let running = marked(&[kept.display().to_string()]);
    assert!(running.is_empty(), "{running:#?}");

    // What it left is an installation like any other.
    let config = kept.join("bursar.yaml");
    let read = |arguments: &[&str]| {
        let mut command = demo();
        Said::of(command.arg("--config").arg(&config).args(arguments).output().unwrap()).with_code(0)
    };
    let report = read(&["report", "--by", "experiment", "--json"]).json();
    assert_eq!(nanos(&report["total"]["cost"]), spent);
    let resumed = trials.iter().find(resumed).unwrap();
    assert!(
        read(&["logs", "--attempt", "all", text(&resumed["experiment"])])
            .stdout
            .contains("==> attempt 2 on ")
    );
    let mut daemon = demo().arg("--config").arg(&config).arg("serve").spawn().unwrap();
    until("the daemon on what the demo left answers", PATIENCE, || {
        let said = Said::of(demo().arg("--config").arg(&config).args(["doctor"]).output().unwrap());
        (said.code == Some(0)).then_some(())
    });
    processes::signal(i32::try_from(daemon.id()).unwrap(), Signal::TERM);
    assert!(daemon.wait().unwrap().success());
    assert!(!file(&kept.join("daemon.log")).contains(" ERROR "));
}
