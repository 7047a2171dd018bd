//! A daemon that is killed and never comes back costs no more than the leases that were paid for: every machine ends
//! itself, and the cloud's own records, priced here anew, stay below every cap. Whoever starts it again in the end finds
//! books that settle to just that.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bursar_model::Timestamp;
use bursar_tests::{
    Installation, PATIENCE,
    installation::text,
    nanos,
    processes::{self, Running},
    until,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::books::assert_at_rest;

/// A cent a second, one experiment a machine. A launch holds 9 cents, for 6 s of lease and 3 s beyond.
const CAPPED: &str = "
policy: {lease: 6s, drain_allowance: 3s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
budget: {limit: 8}
projects:
  tight: {budget: 0.25}
  monthly: {budget: {limit: 0.7, per: month}}
  finishing: {budget: {limit: 3, on_exhausted: finish-running}}
  marked: {budget: {limit: 0.05, on_exhausted: notify-only}}
providers:
  local:
    type: local
    types:
      dear: {cpus: 1, memory: 2, on_demand: 36}
";

/// Nano-dollars of a millisecond at that price.
const PRICE: i64 = 10_000;

/// How long a lease is, and how long after it a machine is ended whose agent does not do so.
const LEASE: Duration = Duration::from_secs(6);
const HUNG_AGENT: Duration = Duration::from_secs(2);

/// Two cores may be busy with other tests.
const SLACK: Duration = Duration::from_secs(4);

/// Goes on for ever, deaf to whoever tells it to end, with a grandchild that has left its session and another that has
/// also cleared its environment.
const ENDLESS: &str = "
checkpoint: {grace: 1s}
run: |
  (setsid sleep 600 &)
  (env -i setsid /bin/sleep 601 &)
  echo begun; trap '' TERM; while :; do sleep 0.2; done
";

/// Experiments under budgets of every kind, all at work.
fn at_work() -> (Installation, Vec<String>) {
    let installation = Installation::started(CAPPED);
    let submit = |what: &str| installation.submit(&format!("{what}{ENDLESS}"));
    let mut experiments = vec![
        submit("name: monthly\nproject: monthly"),
        submit("name: finishing\nproject: finishing\nestimate: {duration: 20s}"),
        submit("name: marked\nproject: marked"),
        submit("name: own\nbudget: 0.6"),
    ];
    let sweep =
        installation.sweep(&format!("name: swept{ENDLESS}sweep: {{matrix: {{x: 0..2}}, budget: 1.2}}\n"));
    let detail = installation.json(&["show", &sweep]);
    experiments
        .extend(detail["trials"].as_array().unwrap().iter().map(|trial| text(&trial["id"]).to_owned()));
    // The one with the least time left comes last.
    experiments.push(submit("name: tight\nproject: tight"));
    for experiment in &experiments {
        installation.until_logged(experiment, "begun");
    }
    (installation, experiments)
}

/// What the cloud bills for each instance, by its own records of when it began and ended.
fn bill(installation: &Installation) -> BTreeMap<String, i64> {
    let instances = installation.cloud_instances().into_iter();
    instances
        .map(|instance| {
            let record = |file: &str, moment: &str| {
                let path = format!("data/providers/local/instances/{instance}/{file}");
                let record: Value =
                    serde_json::from_str(&processes::file(&installation.path(&path))).unwrap();
                text(&record[moment]).parse::<Timestamp>().unwrap()
            };
            let ran = record("ended.json", "at").since(record("machine.json", "launched_at"));
            (instance, ran.as_millis() * PRICE)
        })
        .collect()
}

/// Each budget with what the cloud bills for the instances that it pays for.
fn bill_by_budget(installation: &Installation, experiments: &[String]) -> Vec<(Value, i64)> {
    let bill = bill(installation);
    let mut budgets = BTreeMap::<String, i64>::new();
    for id in experiments {
        let detail = installation.json(&["show", id]);
        let attempts = detail["attempts"].as_array().unwrap();
        let cost: i64 = attempts.iter().map(|attempt| bill[text(&attempt["nodes"][0]["instance"])]).sum();
        let experiment = &detail["experiment"];
        let mut above = vec![
            "installation".to_owned(),
            format!("project {}", text(&experiment["project"])),
            format!("experiment {id}"),
        ];
        above.extend(experiment["sweep"].as_str().map(|sweep| format!("sweep {sweep}")));
        for budget in above {
            *budgets.entry(budget).or_default() += cost;
        }
    }
    let known = installation.json(&["budgets"]);
    let known = known.as_array().unwrap().iter();
    let with_bill =
        |row: &Value| (row.clone(), budgets.get(text(&row["budget"])).copied().unwrap_or_default());
    known.map(with_bill).collect()
}

/// Kills the daemon for good, and what may be done to the machines after it. Everything must be gone by the end of the
/// leases, and the cloud's bill within what the dead daemon's books have set aside for it.
fn nothing_is_left_and_no_cap_is_passed(meanwhile: impl FnOnce(&Running), ends_by: Duration) {
    let (mut installation, experiments) = at_work();
    let tight = experiments.last().unwrap();
    // Into the second lease.
    until("the tightest budget has paid for some seconds", PATIENCE, || {
        let detail = installation.json(&["show", tight]);
        (nanos(&detail["experiment"]["cost"]) >= 30_000_000).then_some(())
    });
    installation.kill();
    let killed = Instant::now();
    let left = installation.running();
    let count = |program: &str| left.values().filter(|line| line.lines().nth(1) == Some(program)).count();
    assert_eq!((count("local-host"), count("agent")), (experiments.len(), experiments.len()), "{left:#?}");
    meanwhile(&left);
    let gone_after = until("nothing runs", PATIENCE, || {
        let running = left.keys().any(|pid| processes::is_running(*pid));
        (!running && installation.running().is_empty()).then(|| killed.elapsed())
    });
    assert!(gone_after < ends_by, "{gone_after:?}");

    // The store of the dead daemon is sound, and has set aside what the cloud bills.
    let ailments = installation.ailments();
    assert!(ailments.iter().all(|ailment| ailment["check"] == "daemon"), "{ailments:#?}");
    let mut capped = 0;
    for (budget, billed) in bill_by_budget(&installation, &experiments) {
        let set_aside = nanos(&budget["spent"]) + nanos(&budget["held"]);
        assert!(billed <= set_aside, "{billed} is billed to {budget:#}");
        if !budget["limit"].is_null() && budget["on_exhausted"] != "notify-only" {
            assert!(set_aside <= nanos(&budget["limit"]), "{budget:#}");
            capped += 1;
        }
    }
    assert!(capped >= 4, "only {capped} budgets have a cap");

    // The next daemon finds out what became of them. What it starts anew is ended, and is on the bill as well.
    installation.start();
    for experiment in &experiments {
        // Those whose budget has no room for another lease may be over by now.
        let _ = installation.bursar(&["cancel", experiment]);
    }
    installation.until_empty();
    assert_at_rest(&installation, "after a daemon that was dead for a lease");
    let billed = bill(&installation);
    let booked = installation.json(&["instances", "-n", "1000"]);
    let booked = booked.as_array().unwrap().iter();
    let booked: BTreeMap<String, i64> = booked
        .map(|row| (text(&row["id"]).to_owned(), nanos(&row["cost"])))
        .filter(|(_, cost)| *cost > 0)
        .collect();
    assert_eq!(booked, billed);
    let budgets = installation.json(&["budgets"]);
    let whole = budgets.as_array().unwrap().iter().find(|row| row["budget"] == "installation").unwrap();
    assert_eq!(nanos(&whole["spent"]), billed.values().sum::<i64>());
}

#[test]
fn when_the_daemon_is_killed_for_good_every_machine_ends_by_its_lease_and_no_cap_is_passed() {
    nothing_is_left_and_no_cap_is_passed(|_| {}, LEASE + SLACK);
}

#[test]
fn nor_when_all_agents_hang_as_well() {
    let deafen = |left: &Running| {
        for (pid, _) in left.iter().filter(|(_, line)| line.lines().nth(1) == Some("agent")) {
            processes::signal(*pid, Signal::STOP);
        }
    };
    nothing_is_left_and_no_cap_is_passed(deafen, LEASE + HUNG_AGENT + SLACK);
}
