//! A daemon that takes a changed configuration over while it runs.

use bursar_tests::{
    Installation, PATIENCE, WebhookServer,
    installation::{QUICK, text},
    until,
};
use serde_json::json;

use crate::books::assert_at_rest;

fn limit(installation: &Installation, budget: &str) -> String {
    let budgets = installation.json(&["budgets"]);
    let found = budgets.as_array().unwrap().iter().find(|row| row["budget"] == budget).cloned();
    found.map_or_else(String::new, |row| text(&row["limit"]).to_owned())
}

#[test]
fn a_changed_file_counts_at_once_for_the_loop_and_the_api_and_work_goes_on() {
    let server = WebhookServer::started();
    let mut installation = Installation::started(QUICK);
    let go = installation.path("go");
    let id = installation.submit(&format!(
        "name: steady\nproject: lab\nrun: echo begun; until test -e {}; do sleep 0.1; done; echo done\n",
        go.display()
    ));
    installation.until_logged(&id, "begun");
    installation.reconfigure("{lab: {budget: 50}}", "{lab: {budget: 40}, new: {budget: 3}}");
    installation.reconfigure(
        "installation: test",
        &format!(
            "installation: test\nnotifications: {{webhooks: {{team: {{url: \"{}\"}}}}}}",
            server.url("/hook")
        ),
    );
    installation.reconfigure("small: {cpus: 1", "small: {cpus: 2");

    let reloaded = installation.json(&["config", "reload"]);
    assert_eq!(reloaded["changed"], json!(["projects.lab", "projects.new", "notifications.webhooks.team"]));
    assert_eq!(reloaded["needs_restart"], json!(["providers.local.types.small"]));
    assert_eq!(
        (limit(&installation, "project lab"), limit(&installation, "project new")),
        ("40".to_owned(), "3".to_owned())
    );
    // The API checks specs and finds webhooks by it.
    let other = installation.submit("name: other\nproject: new\nrun: echo hi\n");
    let _ = installation.until_state(&other, "succeeded");
    let _ = installation.bursar(&["notifications", "test", "team"]).with_code(0);
    let again = installation.bursar(&["config", "reload"]).with_code(0).stdout;
    assert_eq!(
        again,
        "the daemon went by bursar.yaml already\nneeds a restart providers.local.types.small\n"
    );

    installation.write("go", "");
    let detail = installation.until_state(&id, "succeeded");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1);
    installation.until_empty();
    assert_at_rest(&installation, "after two reloads");
    // A start with the same file finds nothing to do.
    let events = installation.http("GET", "/v1/events?after=0&limit=1000", b"").matches("budget-set").count();
    installation.stop();
    installation.start();
    let after = installation.http("GET", "/v1/events?after=0&limit=1000", b"").matches("budget-set").count();
    assert_eq!((events, after), (3, 3));
}

#[test]
fn a_signal_does_the_same_and_what_a_person_set_stands() {
    let installation = Installation::started(QUICK);
    let _ = installation.bursar(&["budget", "set", "project", "lab", "--limit", "7"]).with_code(0);
    installation.reconfigure("idle_duration: 1s", "idle_duration: 2s");
    installation.hang_up();
    until("it was read again", PATIENCE, || {
        installation.log().contains("the configuration was read again").then_some(())
    });
    assert_eq!(limit(&installation, "project lab"), "7");
    let said = installation.bursar(&["config", "reload"]).with_code(0).stdout;
    let stands =
        "stands          project lab: as set by hand, until the configuration says something new about it\n";
    assert!(said.ends_with(stands), "{said}");
    installation.reconfigure("budget: 50", "budget: 8");
    installation.hang_up();
    until("the new limit counts", PATIENCE, || (limit(&installation, "project lab") == "8").then_some(()));
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let installation = Installation::started(QUICK);
    installation.reconfigure("{lab: {budget: 50}}", "{lab: {budget: -5}}");
    installation.reconfigure("idle_duration: 1s", "idle_duration: soon");
    let told = |text: &str| {
        ["bursar.yaml:", "projects.lab.budget.limit: ", "policy.idle_duration: "]
            .iter()
            .all(|what| text.contains(what))
    };
    let said = installation.bursar(&["config", "reload"]).with_code(2);
    assert!(told(&said.stderr), "{said:#?}");
    let answer = installation.http("POST", "/v1/config/reload", b"null");
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("invalid-config"), "{answer}");
    assert!(told(&answer) && answer.contains(r#""key_path":"projects.lab.budget.limit""#), "{answer}");
    installation.hang_up();
    until("the log says it twice", PATIENCE, || {
        let log = installation.log();
        (told(&log) && log.matches("not reloaded").count() == 4).then_some(())
    });
    // Mended, it is taken.
    installation.reconfigure("{lab: {budget: -5}}", "{lab: {budget: 20}}");
    installation.reconfigure("idle_duration: soon", "idle_duration: 1s");
    assert_eq!(limit(&installation, "project lab"), "50");
    assert_eq!(installation.json(&["config", "reload"])["changed"], json!(["projects.lab"]));
    assert_eq!(limit(&installation, "project lab"), "20");
}
