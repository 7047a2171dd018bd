//! What work is expected to cost before it runs, and what it did.

use bursar_tests::{
    Installation,
    installation::{QUICK, text},
    nanos,
};

/// A cent for ten seconds; on spot a third of it.
const FIRM: &str = "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
projects: {lab: {budget: 50}, poor: {budget: 0.012}}
providers:
  local:
    type: local
    types:
      small: {cpus: 1, memory: 2, on_demand: 3.6}
";

/// A daemon that knows its first prices: before, there is nothing to estimate with.
fn with_prices(configuration: &str) -> Installation {
    let installation = Installation::started(configuration);
    installation.until_on_offer();
    installation
}

#[test]
fn a_plan_says_what_it_is_expected_to_cost_and_for_how_many_trials_the_budget_pays() {
    let installation = with_prices(FIRM);
    let sweep = "name: grid\nproject: lab\nrun: sleep 1\nestimate: {duration: 1s}\n\
                 checkpoint: {interval: 500ms}\nsweep: {matrix: {x: 0..81}, max_parallel: 1, budget: 0.0275}\n";
    installation.write("grid.yaml", sweep);
    let said = installation.bursar(&["plan", "grid.yaml"]);
    let shown = said.stdout.lines().rev().take(2).collect::<Vec<_>>();
    assert_eq!(
        shown,
        [
            "the sweep's budget has $0.0275 left, which pays for about 27 of 81 trials",
            "expected cost: $0.0010 ($0.0010–$0.0015) a trial, $0.0810 ($0.0810–$0.1215) for all 81",
        ],
        "{said:#?}"
    );
    let dry = installation.bursar(&["submit", "--dry-run", "grid.yaml"]);
    assert!(dry.stdout.contains("pays for about 27 of 81 trials"), "{dry:#?}");
    let json = installation.bursar(&["plan", "grid.yaml", "--json"]).json();
    assert_eq!(text(&json["estimate"]["each"]["expected"]), "0.001");
    assert_eq!(text(&json["estimate"]["all"]["high"]), "0.1215");
    assert_eq!(json["estimate"]["pays_for"]["trials"], 27);

    installation.write("poor.yaml", "name: one\nproject: poor\nrun: sleep 1\nestimate: {duration: 30s}\n");
    let poor = installation.bursar(&["plan", "poor.yaml"]).stdout;
    assert!(
        poor.contains("the budget of project poor has $0.0120 left, which does not pay for all of it"),
        "{poor}"
    );
    installation.write("silent.yaml", "name: silent\nrun: sleep 1\n");
    let silent = installation.bursar(&["plan", "silent.yaml"]).with_code(0).stdout;
    assert!(silent.contains("expected cost: unknown; say how long it takes"), "{silent}");
}

#[test]
fn an_estimate_is_kept_and_held_against_the_cost_also_after_a_restart() {
    let mut installation = with_prices(FIRM);
    let id = installation.submit("name: told\nproject: lab\nrun: sleep 1\nestimate: {duration: 1s}\n");
    let silent = installation.submit("name: silent\nproject: lab\nrun: sleep 0.1\n");
    let _ = installation.until_state(&id, "succeeded");
    let _ = installation.until_state(&silent, "succeeded");
    installation.until_empty();
    installation.stop();
    installation.start();
    let detail = installation.json(&["show", &id])["experiment"].clone();
    assert_eq!(text(&detail["expected"]["expected"]), "0.001");
    assert!(installation.json(&["show", &silent])["experiment"]["expected"].is_null());
    let percent = nanos(&detail["cost"]) * 100 / 1_000_000;
    let shown = installation.bursar(&["show", &id]).with_code(0).stdout;
    assert!(
        shown.contains(&format!("expected    $0.0010 ($0.0010–$0.0020); it cost {percent} % of that\n")),
        "{shown}"
    );
    let report = installation.json(&["report", "--by", "experiment"]);
    for row in report["rows"].as_array().unwrap() {
        let expected = row["expected_cost"].as_str();
        assert_eq!(expected, (row["keys"][0] == *id).then_some("0.001"), "{report:#}");
    }
    let page = installation.bursar(&["report", "--format", "html"]).with_code(0).stdout;
    assert!(page.contains("Estimate against actual cost"));
}

#[test]
fn three_that_finished_speak_for_the_next_of_their_name() {
    let installation = with_prices(QUICK);
    let spec = "name: habit\nspot_policy: on-demand\nrun: sleep 0.2\n";
    let mut costs = Vec::new();
    for _ in 0..3 {
        installation.write("habit.yaml", spec);
        assert!(installation.bursar(&["plan", "habit.yaml"]).stdout.contains("unknown"));
        let id = installation.submit(spec);
        let _ = installation.until_state(&id, "succeeded");
        costs.push(id);
    }
    installation.until_empty();
    let mut costs: Vec<i64> =
        costs.iter().map(|id| nanos(&installation.json(&["show", id])["experiment"]["cost"])).collect();
    costs.sort_unstable();
    let each = installation.bursar(&["plan", "habit.yaml", "--json"]).json()["estimate"]["each"].clone();
    let told = ["low", "expected", "high"].map(|key| nanos(&each[key]));
    assert_eq!(told.to_vec(), costs, "{each:#}");
}

#[test]
fn an_instance_is_shown_with_its_prices_on_every_basis_and_its_terms() {
    let installation = with_prices(
        "policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}\n\
         pricing: {discounts: [{provider: local, percent: 50}]}\n\
         providers:\n  local:\n    type: local\n    billing: {granularity: 1s, minimum: 2s}\n    types:\n      \
         small: {cpus: 1, memory: 2, on_demand: 3.6, spot: 1.2}\n",
    );
    let id = installation.submit("name: one\nspot_policy: spot\nrun: exec sleep 600\n");
    let _ = installation.until_state(&id, "running");
    let instance = installation.json(&["instances"])[0].clone();
    assert_eq!(text(&instance["rates"]["list"]), "1.2");
    let shown = installation.bursar(&["show", text(&instance["id"])]).with_code(0).stdout;
    assert!(
        shown.contains(
            "price       $0.6000/h effective, $0.6000/h contracted, $1.20/h list, $1.80/h on demand"
        ),
        "{shown}"
    );
    assert!(
        shown.contains("billed      from the launch until when it is gone, in units of 1s, at least 2s"),
        "{shown}"
    );
    let _ = installation.bursar(&["cancel", &id]).with_code(0);
}
