//! What is told arrives: over failures, over a kill, signed, once.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use bursar_tests::{
    Answer, Installation, PATIENCE, Received, WebhookServer,
    installation::{QUICK, text},
    until,
};
use serde_json::{Value, json};

const DOCUMENTATION: &str = include_str!("../../docs/notifications.md");

/// A cent a second: the first threshold of the budget is reached after three seconds.
fn watched(webhooks: &str) -> String {
    format!(
        "
policy: {{lease: 5s, drain_allowance: 3s, idle_duration: 500ms, heartbeat: 250ms, observe_interval: 300ms}}
budget: {{limit: 3, thresholds: [1, 2]}}
notifications: {{webhooks: {webhooks}}}
providers:
  local:
    type: local
    types:
      dear: {{cpus: 1, memory: 2, on_demand: 36}}
"
    )
}

fn hook(server: &WebhookServer, rest: &str) -> String {
    format!("{{team: {{url: \"{}\", {rest}}}}}", server.url("/hook"))
}

/// The notifications of this webhook that tell of this, by their `about`.
fn told(installation: &Installation, about: &str) -> Vec<Value> {
    let rows = installation.json(&["notifications"]);
    let rows = rows.as_array().unwrap().iter();
    rows.filter(|row| text(&row["about"]).contains(about)).cloned().collect()
}

fn of_percent(received: &Received, percent: u64) -> bool {
    received.json()["data"]["percent"] == percent
}

#[test]
fn what_was_committed_before_a_kill_is_delivered_after_it_signed_and_with_the_same_id() {
    let server = WebhookServer::started();
    server.always(Answer::of(503));
    let mut installation =
        Installation::new(&watched(&hook(&server, "secret: {env: HOOK_KEY}, events: [threshold]")));
    let key = [("HOOK_KEY", "correct horse")];
    installation.start_with(&key);
    let _ = installation.submit("name: costly\nrun: sleep 10\n");
    let refused = server.until_received("a threshold is told of", |received| of_percent(received, 1));
    installation.kill();

    server.always(Answer::of(204));
    installation.start_with(&key);
    let taken = server
        .until_received("it is told again", |received| received.status == 204 && of_percent(received, 1));
    assert_eq!((taken.id(), &taken.body), (refused.id(), &refused.body), "the same message");
    assert_eq!(taken.headers["content-type"], "application/json");
    assert_eq!(taken.line, "POST /hook HTTP/1.1");
    let body = taken.json();
    assert_eq!(body["id"], *taken.id());
    assert_eq!(body["installation"], "test");
    assert_eq!(body["kind"], "threshold");
    assert_eq!(body["data"]["limit"], "3");
    let delivered = until("the store says so", PATIENCE, || {
        let rows = told(&installation, "1% spent");
        (rows.len() == 1 && rows[0]["state"] == "delivered").then(|| rows[0].clone())
    });
    assert_eq!(delivered["id"], *taken.id());
    assert!(installation.ailments().is_empty(), "{:?}", installation.ailments());
    if let Some(is_ours) = verified_by_python("correct horse", &taken, &taken.body) {
        assert!(is_ours);
        assert_eq!(verified_by_python("wrong horse", &taken, &taken.body), Some(false));
        let forged = taken.body.replace("\"3\"", "\"4\"");
        assert_eq!(verified_by_python("correct horse", &taken, &forged), Some(false));
    }
}

/// Runs what the documentation tells receivers to do. `None` where there is no Python.
fn verified_by_python(secret: &str, received: &Received, body: &str) -> Option<bool> {
    let code = DOCUMENTATION.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let code = format!(
        "{code}\nimport json, sys\nm = json.load(sys.stdin)\n\
         print(verify(m['secret'].encode(), m['headers'], m['body'].encode()))\n"
    );
    let mut python = Command::new("python3")
        .args(["-c", &code])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let message = json!({ "secret": secret, "headers": received.headers, "body": body });
    python.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    match String::from_utf8_lossy(&output.stdout).trim() {
        "True" => Some(true),
        "False" => Some(false),
        other => panic!("{other}"),
    }
}

#[test]
fn a_webhook_that_stumbles_is_told_each_threshold_once() {
    let server = WebhookServer::started();
    let later = Answer { headers: "retry-after: 2\r\n".to_owned(), ..Answer::of(429) };
    server.then([Answer::of(500), later, Answer::of(500)]);
    let installation = Installation::started(&watched(&hook(&server, "events: [threshold]")));
    let _ = installation.submit("name: costly\nrun: sleep 12\n");
    let delivered = until("both thresholds are told of", 2 * PATIENCE, || {
        let rows = told(&installation, "spent");
        let all = rows.iter().all(|row| row["state"] == "delivered");
        (all && rows.len() == 2).then_some(rows)
    });
    // The newest first; the first had to be tried four times, and the second waited for it.
    assert_eq!(delivered[1]["tries"], 4, "{delivered:#?}");
    assert!(text(&delivered[1]["error"]).starts_with("it answered 500"), "{delivered:#?}");
    assert_eq!(delivered[0]["tries"], 1);
    let received = server.received();
    let order: Vec<_> = received.iter().map(|received| (received.status, received.id())).collect();
    let (first, second) = (text(&delivered[1]["id"]), text(&delivered[0]["id"]));
    assert_eq!(order, [(500, first), (429, first), (500, first), (200, first), (200, second)]);
    let stamps: Vec<i64> =
        received.iter().map(|received| received.headers["bursar-timestamp"].parse().unwrap()).collect();
    assert!(stamps[2] - stamps[1] >= 2, "it asked to be left alone for two seconds: {stamps:?}");
}

#[test]
fn a_test_says_what_came_back() {
    let server = WebhookServer::started();
    let slow = server.url("/slow");
    let webhooks = format!(
        "{{team: {{url: \"{}\", format: slack}}, nobody: {{url: \"http://127.0.0.1:1/\"}}, \
         keyless: {{url: \"{slow}\", secret: {{env: NO_SUCH_KEY}}}}}}",
        server.url("/hook")
    );
    let configuration = format!("{QUICK}notifications: {{webhooks: {webhooks}}}\n");
    let installation = Installation::started(&configuration);
    let test = |name: &str| installation.bursar(&["notifications", "test", name]);

    let said = test("team").with_code(0);
    assert_eq!(said.stdout, "team took the test: it answered 200 OK\n");
    let message = &server.received()[0];
    assert!(text(&message.json()["text"]).starts_with("*bursar can write here*\n"), "{message:?}");
    assert!(!message.headers.contains_key("bursar-signature"), "there is no key");

    let gone = Answer { body: "no_service".to_owned(), ..Answer::of(410) };
    let moved = Answer { headers: format!("location: {slow}\r\n"), ..Answer::of(302) };
    let late = Answer { after: Duration::from_secs(15), ..Answer::of(200) };
    for (answer, expected) in [
        (gone, "it answered 410 Gone: no_service"),
        (moved, "it answered 302 Found, and redirections are not followed"),
        (late, "no answer within 10 s"),
    ] {
        server.then([answer]);
        let said = test("team").with_code(1);
        assert_eq!(said.stdout, format!("team did not take the test: {expected}\n"));
    }
    let said = test("nobody").with_code(1);
    assert!(said.stdout.starts_with("nobody did not take the test: "), "{said:?}");
    assert!(!said.stdout.contains("127.0.0.1:1"), "the address may be a secret: {said:?}");
    let said = test("keyless").with_code(1);
    assert!(said.stdout.contains("no environment variable NO_SUCH_KEY"), "{said:?}");
    let said = test("teem").with_code(4);
    assert!(said.stderr.contains("there is no webhook `teem`"), "{said:?}");
    assert_eq!(server.received().len(), 4, "nothing went to where it was redirected, or without its key");
    assert!(installation.json(&["notifications"]).as_array().unwrap().is_empty(), "a test leaves nothing");
}
