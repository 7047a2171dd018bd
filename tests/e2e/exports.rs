//! What finance gets: the FOCUS export of an installation that lived through sharing, failing and interruptions.

use std::{collections::BTreeMap, path::Path};

use bursar_tests::{Installation, PATIENCE, installation::text, nanos, until};
use serde_json::Value;

use crate::books::assert_at_rest;

/// Rows of a table in CSV, by column.
fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn sum<'r>(rows: impl Iterator<Item = &'r BTreeMap<String, String>>, column: &str) -> i64 {
    rows.map(|row| nanos(&Value::from(row[column].as_str()))).sum()
}

#[test]
fn a_focus_export_has_every_charge_and_sums_to_the_report() {
    let mut installation = Installation::started(
        "policy: {lease: 5s, drain_allowance: 3s, idle_duration: 500ms, heartbeat: 250ms, observe_interval: 300ms}\n\
         projects: {red: {}, blue: {}}\nproviders:\n  local:\n    type: local\n    interruptions: [2500ms]\n    types:\n      \
         trio: {accelerators: \"A100:3\", cpus: 3, memory: 4, on_demand: 98.765432101, spot: 33.3, max_instances: 1}\n",
    );
    let empty = installation.bursar(&["report", "--format", "focus"]).with_code(0).stdout;
    assert!(empty.starts_with("BillingAccountId,") || empty.lines().count() == 1, "{empty}");
    for (project, team, run) in [
        ("red", "a", "sleep 3"),
        ("blue", "b, \"c\"", "sleep 1.1"),
        ("red", "a", "sleep 0.4; exit 3"),
        ("blue", "a", "sleep 0.2"),
    ] {
        let _ = installation.submit(&format!(
            "name: part\nproject: {project}\nlabels: {{team: '{team}'}}\nretry: 1\n\
             resources: {{accelerators: A100}}\nrun: {run}\n"
        ));
    }
    until("all are over", 2 * PATIENCE, || {
        let live = installation.json(&["ls", "--live"]);
        live.as_array().unwrap().is_empty().then_some(())
    });
    installation.until_empty();
    assert_at_rest(&installation, "after sharing");

    let file = installation.path("focus.csv");
    let focus = ["report", "--format", "focus", "--output", file.to_str().unwrap()];
    let said = installation.bursar(&focus).with_code(0);
    assert!(said.stdout.is_empty() && said.stderr.contains("bytes written to"), "{said:?}");
    let export = std::fs::read_to_string(&file).unwrap();
    let piped = installation.bursar(&["report", "--format", "focus"]).with_code(0).stdout;
    assert_eq!(piped, export);
    let answer = installation.http("GET", "/v1/report.focus", b"");
    assert!(answer.contains("content-type: text/csv"), "{answer:.300}");

    let all = rows(&export);
    for (by, column) in
        [("project", "x_Project"), ("experiment", "x_ExperimentId"), ("category", "x_Category")]
    {
        let report = installation.json(&["report", "--by", by]);
        for row in report["rows"].as_array().unwrap() {
            let of_key = || all.iter().filter(|cells| cells[column] == text(&row["keys"][0]));
            for (cost, focus) in
                [("cost", "EffectiveCost"), ("contracted_cost", "ContractedCost"), ("list_cost", "ListCost")]
            {
                assert_eq!(sum(of_key(), focus), nanos(&row[cost]), "{focus} of {row}");
            }
        }
        assert_eq!(sum(all.iter(), "EffectiveCost"), nanos(&report["total"]["cost"]));
    }
    assert!(all.iter().any(|row| !row["AllocatedMethodId"].is_empty()), "a shared charge is allocated");
    assert!(all.iter().all(|row| row["ProviderName"] == all[0]["ProviderName"]));

    // A time in the middle has a part of the rows, and two parts are the whole.
    let middle = all[all.len() / 2]["ChargePeriodStart"].clone();
    let part = |option: &str| {
        rows(&installation.bursar(&["report", "--format", "focus", option, &middle]).with_code(0).stdout)
    };
    let (before, after) = (part("--until"), part("--since"));
    assert!(!after.is_empty() && before.len() + after.len() == all.len());

    // The store of a daemon that is down says the same to the last byte.
    installation.stop();
    assert_eq!(installation.bursar(&["report", "--format", "focus"]).with_code(0).stdout, export);
    for wrong in [&["--project", "red"], &["--label", "team=a"], &["--since", "soon"]] {
        let mut arguments = vec!["report", "--format", "focus", "--output", "half.csv"];
        arguments.extend(*wrong);
        let _ = installation.bursar(&arguments).with_code(2);
        assert!(!installation.path("half.csv").exists() && !installation.path("half.csv.partial").exists());
    }
    // `tests/run` gives it to validators that we did not write.
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("focus.csv"), export).unwrap();
}
