//! A cloud's bill against the books: bills made by hand from what an installation really charged.

use std::{fmt::Write as _, io::Write as _};

use bursar_tests::{Installation, PATIENCE, installation::text, nanos, until};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::books::assert_at_rest;

/// A machine for two, at a cent a second.
const DUO: &str = "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 500ms, heartbeat: 500ms, observe_interval: 300ms}
projects: {red: {budget: 5}, blue: }
providers:
  local:
    type: local
    types:
      duo: {accelerators: \"A100:2\", cpus: 2, memory: 4, on_demand: 36, max_instances: 1}
";

/// Runs an experiment of each of these projects, waits until all is over, and gives the instances that cost something.
fn run_work(installation: &Installation, projects: &[&str]) -> Vec<Value> {
    for project in projects {
        let _ = installation.submit(&format!(
            "name: {project}-work\nproject: {project}\nresources: {{accelerators: A100}}\nrun: sleep 1\n"
        ));
    }
    until("all are over", PATIENCE, || {
        installation.json(&["ls", "--live"]).as_array().unwrap().is_empty().then_some(())
    });
    installation.until_empty();
    let instances = installation.json(&["instances"]);
    let paid: Vec<Value> =
        instances.as_array().unwrap().iter().filter(|instance| instance["cost"] != "0").cloned().collect();
    assert!(!paid.is_empty());
    paid
}

/// Decimal dollars of nano-dollars.
fn dollars(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    format!("{}{}.{:09}", if nanos < 0 { "-" } else { "" }, size / 1_000_000_000, size % 1_000_000_000)
}

/// One row of a bill, whatever its format.
struct Row<'a> {
    cost: i64,
    from: &'a str,
    to: &'a str,
    resource: &'a str,
    /// The instance tag, beside that of the installation. Nothing for what others own.
    instance: Option<&'a str>,
}

/// A row for each instance at its cost and a difference, split over the machine and its disk; and something of others
/// long before and after, so that the bill is whole over everything between.
fn rows(instances: &[Value], difference: i64) -> Vec<Row<'_>> {
    let foreign = |from, to| Row { cost: 7_000_000_000, from, to, resource: "bucket", instance: None };
    let mut rows = vec![
        foreign("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"),
        foreign("2099-12-31T00:00:00Z", "2100-01-01T00:00:00Z"),
    ];
    for instance in instances {
        let (from, to) = (text(&instance["launched_at"]), text(&instance["charged_through"]));
        let machine = Row {
            cost: nanos(&instance["cost"]),
            from,
            to,
            resource: "i-0machine",
            instance: Some(text(&instance["id"])),
        };
        rows.push(Row { cost: difference, resource: "vol-0disk", ..machine });
        rows.push(machine);
    }
    rows
}

fn focus(rows: &[Row<'_>]) -> String {
    let mut bill =
        "BilledCost,EffectiveCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
                    ResourceId,SubAccountId,RegionId,Tags\n"
            .to_owned();
    for Row { cost, from, to, resource, instance } in rows {
        let tags = instance
            .map(|id| format!(r#""{{""bursar:installation"":""test"",""bursar:instance"":""{id}""}}""#));
        let (cost, tags) = (dollars(*cost), tags.unwrap_or_default());
        writeln!(bill, "{cost},{cost},USD,Usage,{from},{to},{resource},111122223333,us-east-1,{tags}")
            .unwrap();
    }
    bill
}

fn cur(rows: &[Row<'_>]) -> String {
    let mut bill = "line_item_usage_account_id,line_item_line_item_type,line_item_usage_start_date,\
                    line_item_usage_end_date,line_item_resource_id,line_item_currency_code,\
                    line_item_unblended_cost,product_region_code,resource_tags\n"
        .to_owned();
    for Row { cost, from, to, resource, instance } in rows {
        let tags = instance.map(|id| {
            format!(r#""{{""user_bursar_installation"":""test"",""user_bursar_instance"":""{id}""}}""#)
        });
        let (cost, tags) = (dollars(*cost), tags.unwrap_or_default());
        writeln!(bill, "111122223333,Usage,{from},{to},{resource},USD,{cost},us-east-1,{tags}").unwrap();
    }
    bill
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// What all experiments cost by a report.
fn total(installation: &Installation) -> i64 {
    nanos(&installation.json(&["report"])["total"]["cost"])
}

fn spent(installation: &Installation, budget: &str) -> i64 {
    let budgets = installation.json(&["budgets"]);
    nanos(&budgets.as_array().unwrap().iter().find(|found| found["budget"] == *budget).unwrap()["spent"])
}

#[test]
fn a_bill_is_shown_then_corrected_to_the_nano_dollar_and_then_nothing_differs() {
    const DIFFERENCE: i64 = 123_456_789;
    let installation = Installation::started(DUO);
    let instances = run_work(&installation, &["red", "blue"]);
    let mut rows = rows(&instances, DIFFERENCE);
    let leak =
        Row { cost: 24_144_000_000, resource: "i-0leak", instance: Some("ins_0000000000000"), ..rows[1] };
    rows.push(leak);
    installation.write("bill.csv", focus(&rows) + "1.5,1.5,USD,Usage,yesterday,today,i-1,,,\n");
    let more = DIFFERENCE * i64::try_from(instances.len()).unwrap();
    let (cost, red, blue) =
        (total(&installation), spent(&installation, "project red"), spent(&installation, "project blue"));

    let dry = installation.bursar(&["reconcile", "--json", "bill.csv"]).with_code(1).json();
    assert_eq!(dry["files"][0]["format"], "focus", "{dry:#}");
    assert_eq!(
        (&dry["files"][0]["rows"], &dry["files"][0]["bad_rows"][0]["line"]),
        (&(rows.len() as u64).into(), &(rows.len() as u64 + 2).into())
    );
    assert_eq!((&dry["differing"], &dry["corrected"]), (&instances.len().into(), &0.into()), "{dry:#}");
    for instance in &instances {
        let compared = &dry["instances"][text(&instance["id"])];
        assert_eq!(compared["metered"], instance["cost"], "{compared:#}");
        assert_eq!(nanos(&compared["cost"]), nanos(&instance["cost"]) + DIFFERENCE, "{compared:#}");
        assert_eq!(
            (&compared["coverage"], &compared["resources"]),
            (&"whole".into(), &2.into()),
            "{compared:#}"
        );
    }
    assert_eq!(dry["leaks"].as_array().unwrap().len(), 1, "{dry:#}");
    assert_eq!(
        (&dry["leaks"][0]["resource"], &dry["leaks"][0]["region"]),
        (&"i-0leak".into(), &"us-east-1".into())
    );
    assert_eq!(total(&installation), cost, "nothing changes without --apply");

    let said = installation.bursar(&["reconcile", "--apply", "bill.csv"]).with_code(1);
    assert!(
        said.stderr.contains("warning: the bill has resources with our tag that nobody here knows"),
        "{said:?}"
    );
    for word in ["bill.csv: FOCUS, ", "1 not understood", "red-work", "blue-work", "i-0leak", " entered"] {
        assert!(said.stdout.contains(word), "{word}: {}", said.stdout);
    }
    assert_eq!(total(&installation), cost + more);
    let (red_now, blue_now) = (spent(&installation, "project red"), spent(&installation, "project blue"));
    assert!(red_now > red && blue_now > blue, "both pay: {red} to {red_now}, {blue} to {blue_now}");
    assert_eq!(red_now + blue_now, red + blue + more);
    assert_at_rest(&installation, "after corrections");

    let again = installation.bursar(&["reconcile", "--apply", "--json", "bill.csv"]).with_code(1).json();
    assert_eq!((&again["differing"], &again["corrected"]), (&0.into(), &0.into()), "{again:#}");
    assert_eq!(again["providers"]["local"], dry["providers"]["local"], "the error of the estimates stays");
    assert_eq!(total(&installation), cost + more);
}

#[test]
fn a_gzipped_cost_and_usage_report_is_compared_without_a_daemon_but_corrected_only_by_one() {
    let mut installation = Installation::started(DUO);
    let instances = run_work(&installation, &["blue"]);
    let cost = total(&installation);
    // In two members, as large exports come.
    let bill = cur(&rows(&instances, -1_000_000));
    let (head, tail) = bill.split_at(bill.len() / 2);
    installation.write("cur.csv.gz", [gzip(head), gzip(tail)].concat());
    let compared = installation.json(&["reconcile", "cur.csv.gz"]);
    assert_eq!(
        (&compared["files"][0]["format"], &compared["differing"]),
        (&"aws-cur".into(), &instances.len().into())
    );

    installation.stop();
    assert_eq!(installation.json(&["reconcile", "cur.csv.gz"]), compared, "the store says the same");
    let said = installation.bursar(&["reconcile", "--apply", "cur.csv.gz"]).with_code(5);
    assert!(said.stderr.contains("hint: start it with `bursar serve`"), "{said:?}");
    assert_eq!(total(&installation), cost);

    installation.start();
    let said = installation.bursar(&["reconcile", "--apply", "cur.csv.gz"]).with_code(0);
    assert!(said.stdout.ends_with(" entered\n"), "{said:?}");
    let said = installation.bursar(&["reconcile", "--apply", "cur.csv.gz"]).with_code(0);
    assert!(said.stdout.ends_with("nothing to correct\n"), "{said:?}");
    let less = 1_000_000 * i64::try_from(instances.len()).unwrap();
    assert_eq!(total(&installation), cost - less);
    assert_at_rest(&installation, "after corrections downwards");

    let said = installation.bursar(&["reconcile", "cur.csv.gz", "./cur.csv.gz"]).with_code(2);
    assert!(said.stderr.contains("was given twice"), "{said:?}");
    let _ = installation.bursar(&["reconcile", "nothing.csv"]).with_code(4);
    installation.write("no-bill.csv", "a,b\n1,2\n");
    let said = installation.bursar(&["reconcile", "no-bill.csv"]).with_code(1);
    assert!(said.stderr.contains("no-bill.csv: the bill has the columns a, b, but FOCUS needs "), "{said:?}");
}

#[test]
fn a_bill_that_passes_a_cap_lets_nothing_new_start() {
    let installation = Installation::started(DUO);
    let instances = run_work(&installation, &["red"]);
    installation.write("bill.csv", focus(&rows(&instances, 6_000_000_000)));
    let _ = installation.bursar(&["reconcile", "--apply", "bill.csv"]).with_code(0);
    let budgets = installation.json(&["budgets"]);
    let red = budgets.as_array().unwrap().iter().find(|found| found["budget"] == "project red").unwrap();
    assert!(nanos(&red["spent"]) > nanos(&red["limit"]) && red["landing"] == true, "{red:#}");

    let spec = |project: &str| {
        format!("name: next\nproject: {project}\nresources: {{accelerators: A100}}\nrun: echo here\n")
    };
    let waiting = installation.submit(&spec("red"));
    let reason = installation.until_waiting(&waiting, "budget");
    assert!(reason.starts_with("project red's budget"), "{reason}");
    let other = installation.submit(&spec("blue"));
    let _ = installation.until_state(&other, "succeeded");
    assert_eq!(installation.json(&["show", &waiting])["experiment"]["attempts"], 0);
    installation.until_empty();
    assert_eq!(installation.ailments(), Vec::<Value>::new(), "landing is told, and is no ailment");
}

#[test]
fn a_correction_that_was_compared_with_other_charges_is_refused_whole() {
    let installation = Installation::started(DUO);
    let instances = run_work(&installation, &["blue"]);
    let (id, cost) = (text(&instances[0]["id"]), total(&installation));
    let month = &text(&instances[0]["launched_at"])[..7];
    let correct = |charged: &str, difference: &str| {
        let one = format!(
            r#"{{"instance":"{id}","month":"{month}","charged":"{charged}","difference":"{difference}"}}"#
        );
        installation.http("POST", "/v1/reconcile", format!(r#"{{"corrections":[{one}]}}"#).as_bytes())
    };
    let charged = text(&instances[0]["cost"]);
    for (charged, difference, status, word) in [
        ("0.000001", "1", "409", "charges-changed"),
        (charged, "0", "400", "bad-request"),
        (charged, "2000000", "400", "bad-request"),
        ("free", "1", "400", "invalid-json"),
    ] {
        let answer = correct(charged, difference);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(word), "{answer}");
    }
    assert_eq!(total(&installation), cost);
    // Several at once that were compared with the same: one is entered.
    let answers: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| correct(charged, "0.5"))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let entered = answers.iter().filter(|answer| answer.ends_with(r#"{"corrected":1}"#)).count();
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 409 ")).count();
    assert_eq!((entered, refused), (1, 3), "{answers:#?}");
    assert_eq!(total(&installation), cost + 500_000_000);
}
