//! Many launches at once, under the rates that AWS keeps and where there is not enough for all.

use std::collections::BTreeMap;

use bursar_tests::{PATIENCE, nanos, until};
use serde_json::{Value, json};

use crate::lab::Lab;

#[test]
fn of_a_crowd_of_experiments_each_gets_a_machine_or_a_reason_and_nothing_is_left_over() {
    crowd(60, 40);
}

/// Ending a hundred and thirty machines takes EC2's rates half a minute, and more where others build.
#[test]
#[ignore = "a minute or two"]
fn of_two_hundred_experiments_each_gets_a_machine_or_a_reason_and_nothing_is_left_over() {
    crowd(200, 130);
}

/// So many experiments, and so many machines in one region.
fn crowd(experiments: usize, machines: usize) {
    let spot = machines * 3 / 4;
    let policy = "lease: 600s, drain_allowance: 30s, max_instances: 300";
    let mut lab = Lab::new(policy, |_| "regions: [us-east-1]".to_owned());
    let _ = lab.peer.order("throttle", &json!({ "rules": "usual" }));
    // So many of one zone as spot, and on demand so many of all.
    let limits = json!({ "limits": [
        { "zone": "us-east-1a", "lifecycle": "spot", "instances": spot * 3 / 4 },
        { "zone": "us-east-1b", "lifecycle": "spot", "instances": 0 },
        { "lifecycle": "spot", "instances": spot },
        { "lifecycle": "on-demand", "instances": machines - spot },
    ] });
    let _ = lab.peer.order("capacity", &limits);
    lab.start();
    lab.installation.until_on_offer();
    lab.peer.clear_log();
    let sweep = lab.installation.sweep(&format!(
        "name: crowd\nproject: lab\nresources: {{cpus: 2}}\nrun: sleep 600\nsweep: {{matrix: {{x: 0..{experiments}}}}}\n"
    ));
    let states = until("all that there is was given out, and the others know why", 2 * PATIENCE, || {
        let live = lab.live();
        let is_there = |instance: &&Value| instance["cloud_id"].is_string();
        if lab.peer.alive().len() != machines || live.iter().filter(is_there).count() != live.len() {
            return None;
        }
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        let listed = lab.installation.json(&["ls", "-n", "1000"]);
        for experiment in listed.as_array()? {
            let on = experiment["waiting_on"]["on"].as_str().unwrap_or("nothing");
            *states.entry(on.to_owned()).or_default() += 1;
        }
        let refused: usize = states.iter().filter(|(on, _)| is_clear(on)).map(|(_, count)| count).sum();
        (refused >= experiments - machines).then_some(states)
    });
    assert_eq!(states.values().sum::<usize>(), experiments, "{states:?}");
    lab.assert_nothing_is_twice("while they live");
    let calls = lab.peer.calls("RunInstances");
    println!("{} calls of RunInstances; waiting: {states:?}", calls.len());
    // What is held is what the live ones hold.
    let held: i64 = lab.live().iter().map(|instance| nanos(&instance["held"])).sum();
    let budgets = lab.installation.json(&["budgets"]);
    let of_lab =
        budgets.as_array().unwrap().iter().find(|budget| budget["budget"].to_string().contains("lab"));
    assert_eq!(nanos(&of_lab.unwrap_or_else(|| panic!("{budgets:#}"))["held"]), held);
    // A call that is refused for several of them is one refusal.
    let log = lab.installation.log();
    let refusals = log.lines().filter(|line| line.contains(" refused scope="));
    let mut pools: Vec<&str> =
        refusals.filter_map(|line| line.split("scope=").nth(1)?.split(' ').next()).collect();
    let told = pools.len();
    pools.sort_unstable();
    pools.dedup();
    assert!(told <= 2 * pools.len(), "{told} refusals of {pools:?}");
    assert!(held > 0);
    let _ = lab.installation.bursar(&["cancel", &sweep]).with_code(0);
    until("every instance is gone", 2 * PATIENCE, || lab.live().is_empty().then_some(()));
    lab.assert_nothing_is_left("at the end");
}

/// Reasons that say what is lacking, as against those that say that something is under way.
fn is_clear(on: &str) -> bool {
    on.contains("capacity") || on.contains("refused") || on.contains("quota")
}
