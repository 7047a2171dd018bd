//! Whole experiments: submitted to the program, run on a machine that boots by what EC2 was given, charged, ended.

use bursar_tests::{PATIENCE, installation::text, nanos, until};
use serde_json::json;

use crate::lab::Lab;

const LONG: &str = "lease: 60s, drain_allowance: 30s";

fn two_regions() -> String {
    "regions: [us-east-1, us-west-2]".to_owned()
}

fn over(lab: &Lab, experiment: &str) -> Option<serde_json::Value> {
    let detail = lab.installation.json(&["show", experiment]);
    (!detail["experiment"]["ended_at"].is_null()).then_some(detail)
}

#[test]
fn an_experiment_runs_on_a_machine_that_boots_by_what_ec2_was_given_and_is_charged() {
    let mut lab = Lab::with_machines(LONG, |_| two_regions());
    lab.start();
    let id = lab.installation.submit(
        "name: first\nproject: lab\nresources: {cpus: 1}\nrun: echo $((6 * 7)) from $(cat /proc/1/comm)\n",
    );
    let detail = lab.until_with_machines("it is over", |lab| over(lab, &id));
    assert_eq!(detail["experiment"]["state"], "succeeded", "{detail:#}\n{}", lab.installation.log());
    assert_eq!(lab.installation.logs(&id), "42 from bwrap\n");
    let calls = lab.peer.calls("RunInstances");
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert_eq!(calls[0]["params"]["MaxCount"], 1);
    let instance = &lab.peer.instances()[0];
    assert_eq!(instance["tags"]["bursar:project"], "lab");
    assert_eq!(instance["tags"]["bursar:experiment"], id.as_str());
    lab.until_with_machines("nothing is left", |lab| lab.live().is_empty().then_some(()));
    lab.assert_nothing_is_left("at the end");
    let report = lab.installation.json(&["report", "--by", "experiment"]);
    let row = &report["rows"][0];
    assert_eq!(row["keys"][0], id.as_str(), "{report:#}");
    // A minute at least, and no more than ten at the price of the list.
    let cost = nanos(&row["cost"]);
    assert!((300_000..=20_000_000).contains(&cost), "{report:#}");
    assert_eq!(cost, nanos(&report["total"]["cost"]));
}

#[test]
fn experiments_of_one_call_each_find_their_own_machine() {
    let mut lab = Lab::with_machines(LONG, |_| "regions: [us-east-1]".to_owned());
    lab.start();
    lab.installation.until_on_offer();
    let sweep = lab.installation.sweep(
        "name: three\nproject: lab\nresources: {cpus: 2}\nrun: echo trial $x\nsweep: {matrix: {x: [1, 2, 3]}}\n",
    );
    let ended = |lab: &Lab| {
        let detail = lab.installation.json(&["show", &sweep]);
        (!detail["sweep"]["ended_at"].is_null()).then_some(detail)
    };
    let detail = lab.until_with_machines("the sweep is over", ended);
    for trial in detail["trials"].as_array().unwrap() {
        assert_eq!(trial["state"], "succeeded", "{detail:#}");
    }
    assert_eq!(lab.peer.calls("RunInstances").len(), 1);
    assert_eq!(lab.peer.instances().len(), 3);
    lab.until_with_machines("nothing is left", |lab| lab.live().is_empty().then_some(()));
    lab.assert_nothing_is_left("at the end");
}

#[test]
fn an_interruption_that_the_queue_tells_is_followed_by_a_machine_elsewhere() {
    let queue = |peer: &bursar_tests::AwsPeer| {
        format!("regions: [us-east-1], interruption_queue: \"{}\"", peer.queue_of_events("warnings"))
    };
    let mut lab = Lab::with_machines(LONG, queue);
    // The agent hears nothing.
    lab.has_metadata = false;
    lab.start();
    let id = lab.installation.submit(
        "name: moved\nproject: lab\nresources: {cpus: 1}\nspot_policy: spot\ncheckpoint: {grace: 1s}\n\
         run: echo begun $BURSAR_ATTEMPT; test $BURSAR_ATTEMPT = 2 || exec sleep 600\n",
    );
    lab.until_with_machines("it runs", |lab| lab.installation.logs(&id).contains("begun 1").then_some(()));
    let first = text(&lab.peer.alive()[0]["id"]).to_owned();
    let _ = lab.peer.order("interrupt", &json!({ "instance": first }));
    let detail = lab.until_with_machines("it is over", |lab| over(lab, &id));
    assert_eq!(detail["experiment"]["state"], "succeeded", "{detail:#}\n{}", lab.installation.log());
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    assert_ne!(attempts[0]["nodes"][0]["instance"], attempts[1]["nodes"][0]["instance"]);
    assert!(text(&attempts[0]["reason"]).contains("interrupt"), "{detail:#}");
    lab.until_with_machines("nothing is left", |lab| lab.live().is_empty().then_some(()));
    lab.assert_nothing_is_left("at the end");
}

#[test]
fn five_refusals_for_lack_of_capacity_cost_five_calls_and_the_sixth_is_a_machine() {
    let mut lab = Lab::new(LONG, |_| two_regions());
    lab.start();
    lab.installation.until_on_offer();
    let fault = json!({ "action": "RunInstances", "times": 5, "code": "InsufficientInstanceCapacity" });
    let _ = lab.peer.order("faults", &fault);
    lab.peer.clear_log();
    let id = lab.installation.submit("name: sixth\nproject: lab\nresources: {cpus: 1}\nrun: sleep 600\n");
    until("there is a machine", PATIENCE, || (!lab.peer.alive().is_empty()).then_some(()));
    let asked: Vec<String> = lab
        .peer
        .calls("RunInstances")
        .iter()
        .map(|call| {
            let market = &call["params"]["InstanceMarketOptions"]["MarketType"];
            format!("{} {market}", call["params"]["Placement"]["AvailabilityZone"])
        })
        .collect();
    assert_eq!(asked.len(), 6, "{asked:?}");
    let mut places = asked.clone();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 6, "never twice in the same place: {asked:?}");
    let others: Vec<serde_json::Value> =
        lab.peer.log().into_iter().filter(|call| call["action"] != "RunInstances").collect();
    assert!(others.iter().all(|call| call["action"] == "DescribeInstances"), "{others:#?}");
    let _ = lab.installation.bursar(&["cancel", &id]).with_code(0);
    lab.installation.until_empty();
    lab.assert_nothing_is_left("at the end");
}
