//! What an agent may do: what concerns its own instance and its live attempts, and nothing else.

use std::fs;

use bursar_tests::{Installation, PATIENCE, installation::text, until};
use serde_json::{Value, json};

/// Machines that take long to boot, so that the test comes before their agents and plays them.
const SLOW_BOOT: &str = "
policy: {lease: 120s, drain_allowance: 30s, idle_duration: 30s, heartbeat: 500ms, observe_interval: 300ms}
providers:
  local:
    type: local
    types:
      one: {cpus: 1, memory: 2, on_demand: 3.6, boot: 90s}
";

/// An agent of this test's.
struct Agent<'a> {
    installation: &'a Installation,
    instance: String,
    secret: String,
    token: String,
}

/// What came back: the status and the JSON.
type Answer = (u16, Value);

impl<'a> Agent<'a> {
    /// With the one-time secret of an instance, as its machine has it.
    fn of(installation: &'a Installation, instance: &str, token: char) -> Self {
        let secret = installation.path(&format!("data/providers/local/instances/{instance}/secret"));
        Self {
            installation,
            instance: instance.to_owned(),
            secret: fs::read_to_string(secret).unwrap(),
            token: token.to_string().repeat(64),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let kind = if path.contains("/logs/") { "application/octet-stream" } else { "application/json" };
        let headers =
            format!("host: 127.0.0.1\r\ncontent-type: {kind}\r\nauthorization: Bearer {}\r\n", self.token);
        answer(&self.installation.http_with(method, &format!("/v1/agent/{path}"), &headers, body))
    }

    fn register(&self) -> Answer {
        let body = json!({ "instance": self.instance, "secret": self.secret, "token": self.token, "address": "127.0.0.1" });
        self.ask("POST", "register", body.to_string().as_bytes())
    }

    fn sync_for(&self, instance: &str, attempts: &Value) -> Answer {
        let body = json!({ "instance": instance, "attempts": attempts, "wait_ms": 0, "version": 0 });
        self.ask("POST", "sync", body.to_string().as_bytes())
    }

    fn sync(&self, attempts: &Value) -> Answer {
        self.sync_for(&self.instance, attempts)
    }

    fn log(&self, attempt: &str, offset: u64, bytes: &str) -> Answer {
        self.ask("POST", &format!("logs/{attempt}?offset={offset}"), bytes.as_bytes())
    }

    /// Waits for the order to run an attempt, and gives it.
    fn order(&self) -> Value {
        until("there is an order", PATIENCE, || {
            let (_, reply) = self.sync(&json!([]));
            reply["attempts"].as_array()?.iter().find(|order| order["action"]["do"] == "run").cloned()
        })
    }
}

fn answer(text: &str) -> Answer {
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap_or_default())
}

fn running(attempt: &str) -> Value {
    json!([{ "attempt": attempt, "state": { "is": "running", "age_ms": 0 } }])
}

#[test]
fn an_agent_acts_for_its_own_instance_and_its_live_attempts_alone() {
    let installation = Installation::started(SLOW_BOOT);
    fs::create_dir_all(installation.path("one")).unwrap();
    installation.write("one/file", "of one\n");
    let one = installation.submit("name: one\nworkdir: one\nrun: cat file\n");
    let two = installation.submit("name: two\nrun: echo two\n");
    let instances = until("both have a machine", PATIENCE, || {
        let found = installation.cloud_instances();
        (found.len() == 2).then_some(found)
    });
    let [a, b] =
        [(0, 'a'), (1, 'b')].map(|(index, token)| Agent::of(&installation, &instances[index], token));

    // Before it is registered, with a wrong secret, and with the secret of another.
    assert_eq!(a.sync(&json!([])).0, 401);
    assert_eq!(
        Agent { secret: "0".repeat(64), ..Agent::of(&installation, &instances[0], 'a') }.register().0,
        401
    );
    assert_eq!(
        Agent { secret: b.secret.clone(), ..Agent::of(&installation, &instances[0], 'a') }.register().0,
        401
    );
    assert_eq!((a.register().0, b.register().0), (200, 200));
    // The secret is worth nothing any more; the same token again is the same agent, whose answer was lost.
    assert_eq!(Agent::of(&installation, &instances[0], 'c').register().0, 401);
    assert_eq!(a.register().0, 200);

    let [order_a, order_b] = [&a, &b].map(Agent::order);
    let with_archive =
        |order: &Value| order["action"]["work"]["workdir"]["digest"].as_str().map(str::to_owned);
    let (first, second, order, foreign) = match with_archive(&order_a) {
        Some(_) => (&a, &b, order_a, order_b),
        None => (&b, &a, order_b, order_a),
    };
    let attempt = text(&order["attempt"]);
    assert_eq!((text(&order["experiment"]), text(&foreign["experiment"])), (one.as_str(), two.as_str()));
    let blob = format!("blobs/{}", with_archive(&order).unwrap());

    // Every route, with the token of the other instance and with none that anybody knows.
    let nobody = Agent { token: "f".repeat(64), ..Agent::of(&installation, &instances[0], 'f') };
    for other in [second, &nobody] {
        assert_eq!(other.sync_for(&first.instance, &running(attempt)).0, 401);
        assert_eq!(other.log(attempt, 0, "forged\n").0, 401);
        assert_eq!(other.ask("GET", &blob, b"").0, 401);
    }
    let anonymous = "host: 127.0.0.1\r\ncontent-type: application/json\r\n";
    for (method, path) in [("POST", "sync"), ("POST", &*format!("logs/{attempt}?offset=0")), ("GET", &blob)] {
        let body =
            json!({ "instance": first.instance, "attempts": [], "wait_ms": 0, "version": 0 }).to_string();
        let said = installation.http_with(method, &format!("/v1/agent/{path}"), anonymous, body.as_bytes());
        assert_eq!(answer(&said).0, 401, "{path}");
    }
    // A report about the other's attempt under one's own name changes nothing.
    assert_eq!(second.sync(&running(attempt)).0, 200);
    assert!(installation.json(&["show", &one])["attempts"][0]["started_at"].is_null());
    assert_eq!(first.ask("GET", &blob, b"").0, 200);
    assert_eq!(first.ask("GET", &format!("blobs/{}", "0".repeat(64)), b"").0, 401, "of which there is none");
    assert_eq!(first.log(attempt, 0, "true\n").0, 200);

    // What is over stays as it is, whatever comes late.
    assert_eq!(first.sync(&running(attempt)).0, 200);
    let ended = json!([{ "attempt": attempt, "state":
        { "is": "ended", "age_ms": 0, "ran_ms": 1, "end": { "is": "exited", "code": 0 } } }]);
    assert_eq!(first.sync(&ended).0, 200);
    let _ = installation.until_state(&one, "succeeded");
    let before = installation.json(&["show", &one]);
    let late = json!([{ "attempt": attempt, "state": { "is": "running", "age_ms": 0 }, "checkpoint_age_ms": 0,
        "metrics": { "loss": 0.5 } }]);
    assert_eq!(first.sync(&late).0, 200);
    assert_eq!(first.log(attempt, 5, "late\n").0, 401);
    assert_eq!(first.ask("GET", &blob, b"").0, 401);
    let after = installation.json(&["show", &one]);
    assert_eq!(before["attempts"], after["attempts"]);
    assert_eq!(before["experiment"]["metrics"], after["experiment"]["metrics"]);
    assert_eq!(installation.logs(&one), "true\n");
}
