//! `bursar simulate`, as people call it.

use bursar_tests::{
    Installation,
    installation::{QUICK, text},
};

const JOBS: &str = "submit_s,duration_s,gpus,gpu,deadline_s,team\n0,7200,1,A100,10800,a\n60,3600,8,A100,,b\n";

#[test]
fn policies_are_compared_side_by_side_and_the_page_needs_nothing_else() {
    let installation = Installation::new(QUICK);
    installation.write("jobs.csv", JOBS);
    installation.write("next.yaml", "data_dir: state\npolicy: {idle_duration: 30m}\n");
    let configs = ["--config", "bursar.yaml", "--config", "next.yaml"];
    let files = ["--jobs", "jobs.csv", "--html", "compared.html", "--csv", "compared.csv"];
    let found = installation.json(&[&["simulate", "fleet"][..], &configs, &files].concat());
    let runs = found["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for (run, config) in runs.iter().zip(["bursar.yaml", "next.yaml"]) {
        assert_eq!(text(&run["config"]), config);
        assert_eq!(run["violations"].as_array().unwrap().len(), 0, "{run:#}");
        let (figures, alone) = (&run["figures"], &run["on_demand_alone"]);
        assert_eq!((&figures["jobs_finished"], &figures["deadlines"]), (&2.into(), &1.into()));
        let dollars = |of: &serde_json::Value| text(&of["cost_usd"]).parse::<f64>().unwrap();
        assert!(dollars(figures) < dollars(alone), "{run:#}");
    }
    let notes = found["notes"].to_string();
    assert!(notes.contains("team") && notes.contains("providers of the configuration"), "{notes}");
    let read = |name: &str| std::fs::read_to_string(installation.path(name)).unwrap();
    let page = read("compared.html");
    assert!(page.contains("<svg") && !page.contains("://"), "nothing is fetched");
    // A header, and two rows for each policy.
    assert_eq!(read("compared.csv").lines().count(), 5);
}

#[test]
fn files_that_are_wrong_are_told_with_their_lines() {
    let installation = Installation::new(QUICK);
    installation.write("jobs.csv", "submit_s,duration_s,gpus\n0,soon,1\n0,60,-1\n");
    let said = installation.bursar(&["simulate", "fleet", "--jobs", "jobs.csv"]).with_code(2);
    assert!(said.stderr.contains("line 2: duration_s `soon`"), "{said:?}");
    assert!(said.stderr.contains("line 3: gpus `-1`"), "{said:?}");
    let _ = installation.bursar(&["simulate", "fleet", "--jobs", "nowhere.csv"]).with_code(2);
}

#[test]
fn a_seed_of_chaos_says_what_it_did() {
    let installation = Installation::new(QUICK);
    let found = installation.json(&["simulate", "chaos", "--seeds", "3", "--jobs", "1"]);
    assert_eq!((&found["seeds"], found["violations"].as_array().unwrap().len()), (&1.into(), 0));
    assert!(found["turns"].as_u64().unwrap() > 100 && found["faults"].as_u64().unwrap() > 10, "{found:#}");
    let _ = installation.bursar(&["simulate", "chaos", "--seeds", "5..5"]).with_code(2);
}
