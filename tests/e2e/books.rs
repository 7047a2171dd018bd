//! What must hold of every installation whose work is done, held against the system and recounted from the outside.

use std::collections::BTreeMap;

use bursar_tests::{Installation, installation::text, nanos};
use serde_json::Value;

/// Everything that must hold of an installation at rest, by its own books and by the system's word.
pub(crate) fn assert_at_rest(installation: &Installation, context: &str) {
    let ailments = installation.ailments();
    // A killed daemon's orphan is ended and counted, and is no ailment of the books.
    let ailments: Vec<_> = ailments.iter().filter(|finding| finding["check"] != "no orphans (O1)").collect();
    assert!(ailments.is_empty(), "{context}: {ailments:#?}");
    let running = installation.running();
    assert!(running.is_empty(), "{context}: still running: {running:#?}");
    let known = installation.json(&["instances", "-n", "1000"]);
    let known: BTreeMap<&str, &Value> =
        known.as_array().unwrap().iter().map(|instance| (text(&instance["id"]), instance)).collect();
    for id in installation.cloud_instances() {
        assert!(known.contains_key(id.as_str()), "{context}: {id} is unknown to the store");
    }
    let mut total = 0;
    for (id, instance) in &known {
        let detail = installation.json(&["show", id]);
        let allocated: i64 =
            detail["allocations"].as_array().unwrap().iter().map(|part| nanos(&part["cost"])).sum();
        assert_eq!(allocated, nanos(&instance["cost"]), "{context}: {detail:#}");
        assert_eq!(nanos(&instance["held"]), 0, "{context}: {detail:#}");
        total += allocated;
    }
    for by in ["experiment", "project,category", "instance-type,day"] {
        let report = installation.json(&["report", "--by", by]);
        let rows: i64 = report["rows"].as_array().unwrap().iter().map(|row| nanos(&row["cost"])).sum();
        assert_eq!(rows, total, "{context}: {by}");
        assert_eq!(nanos(&report["total"]["cost"]), total, "{context}: {by}");
    }
    for budget in installation.json(&["budgets"]).as_array().unwrap() {
        assert_eq!(nanos(&budget["held"]), 0, "{context}: {budget}");
        // With `notify-only` the limit is a mark and no cap.
        if !budget["limit"].is_null() && budget["on_exhausted"] != "notify-only" {
            assert!(nanos(&budget["spent"]) <= nanos(&budget["limit"]), "{context}: {budget}");
        }
    }
}
