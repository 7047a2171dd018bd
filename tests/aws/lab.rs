//! The program itself with an account at the peer. What it rents there boots, where a test wants that, as sandboxes by the
//! user data that EC2 was given, and the peer is told when they end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bursar_tests::{
    AwsPeer, Installation, PATIENCE, Said,
    installation::text,
    machine::{Machine, System},
    program,
};
use serde_json::{Value, json};

/// The metadata service, as the user data names it.
const METADATA: &str = "http://169.254.169.254";

/// What the program finds in its environment, besides the endpoint: as every tool of AWS reads it.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "not a secret"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// An installation that rents at a peer of its own.
pub(crate) struct Lab {
    pub(crate) peer: AwsPeer,
    pub(crate) installation: Installation,
    machines: BTreeMap<String, Machine>,
    /// Whether machines reach their metadata service.
    pub(crate) has_metadata: bool,
}

impl Lab {
    /// One whose daemon does not run yet. `policy` and `provider` are what comes on top of this configuration, as YAML
    /// between braces.
    pub(crate) fn new(policy: &str, provider: impl FnOnce(&AwsPeer) -> String) -> Self {
        let peer = AwsPeer::start(&["m7i.large"]);
        let provider = provider(&peer);
        let installation = Installation::new(&format!(
            "agent_binaries: agents\nprojects: {{lab: {{budget: 50}}}}\n\
             policy: {{heartbeat: 500ms, observe_interval: 300ms, idle_duration: 1s, {policy}}}\n\
             providers: {{aws: {{type: aws, instance_types: [m7i.large], {provider}}}}}\n"
        ));
        installation.reconfigure(
            "installation: test\n",
            &format!("installation: test\nurl: {}\n", installation.url()),
        );
        fs::create_dir(installation.path("agents")).unwrap();
        let lab = Self { peer, installation, machines: BTreeMap::new(), has_metadata: true };
        fs::write(lab.agent(), "no machine boots").unwrap();
        lab
    }

    /// The same with an agent that can be booted.
    pub(crate) fn with_machines(policy: &str, provider: impl FnOnce(&AwsPeer) -> String) -> Self {
        let lab = Self::new(policy, provider);
        // A test's agent is mostly symbols, of which each daemon that starts would take the digest.
        let mut strip = Command::new("strip");
        let _ =
            Said::of(strip.arg("-o").arg(lab.agent()).arg(program::agent()).output().unwrap()).with_code(0);
        lab
    }

    fn agent(&self) -> PathBuf {
        self.installation.path("agents").join(format!("bursar-agent-{}", std::env::consts::ARCH))
    }

    pub(crate) fn start(&mut self) {
        let endpoint = self.peer.endpoint();
        let environment: Vec<(&str, &str)> =
            ENVIRONMENT.into_iter().chain([("AWS_ENDPOINT_URL", &endpoint[..])]).collect();
        self.installation.start_with(&environment);
    }

    pub(crate) fn restart(&mut self) {
        self.installation.kill();
        self.start();
    }

    /// Boots what was launched, ends what was terminated, and tells the peer of what has ended by itself.
    pub(crate) fn tend(&mut self) {
        for instance in self.peer.instances() {
            let id = text(&instance["id"]);
            let is_alive = matches!(text(&instance["state"]), "pending" | "running");
            let machine = self.machines.get_mut(id).map(|machine| (machine.is_on(), machine));
            match machine {
                None if is_alive => {
                    let machine = Machine::boot(&self.user_data(&instance), System::Systemd);
                    self.machines.insert(id.to_owned(), machine);
                }
                Some((_, machine)) if !is_alive => machine.cut(),
                Some((false, _)) => {
                    let _ = self.peer.order("shutdown", &json!({ "instance": id }));
                }
                Some(_) | None => {}
            }
        }
    }

    /// What EC2 was given, with the metadata service where this instance finds it.
    fn user_data(&self, instance: &Value) -> String {
        let user_data = STANDARD.decode(text(&instance["user_data"])).unwrap();
        let user_data = String::from_utf8(user_data).unwrap();
        assert!(user_data.contains(METADATA), "{user_data}");
        if !self.has_metadata {
            return user_data.replace(METADATA, "http://127.0.0.1:9");
        }
        let service = self.peer.order("metadata", &json!({ "instance": instance["id"] }));
        user_data.replace(METADATA, text(&service["endpoint"]))
    }

    /// Looks until there is something to see, while machines boot and end.
    pub(crate) fn until_with_machines<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        loop {
            self.tend();
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(began.elapsed() < 2 * PATIENCE, "waited in vain until {what}");
            sleep(Duration::from_millis(25));
        }
    }

    /// The instances that the daemon takes to be alive.
    pub(crate) fn live(&self) -> Vec<Value> {
        self.installation.json(&["instances", "--live", "-n", "1000"]).as_array().cloned().unwrap()
    }

    /// Every launch that ever came to something is one that the store knows, came to it once, and is over.
    pub(crate) fn assert_nothing_is_left(&self, context: &str) {
        let alive = self.peer.alive();
        assert!(alive.is_empty(), "{context}: {alive:#?}");
        self.assert_nothing_is_twice(context);
        let ailments = self.installation.ailments();
        let mut ailments = ailments.iter().filter(|finding| text(&finding["check"]).contains("(B"));
        assert!(ailments.next().is_none(), "{context}: {ailments:#?}");
        for budget in self.installation.json(&["budgets"]).as_array().unwrap() {
            assert_eq!(bursar_tests::nanos(&budget["held"]), 0, "{context}: {budget}");
        }
    }

    /// The same for what still lives.
    pub(crate) fn assert_nothing_is_twice(&self, context: &str) {
        let known = self.installation.json(&["instances", "-n", "5000"]);
        let known: BTreeSet<&str> =
            known.as_array().unwrap().iter().map(|instance| text(&instance["id"])).collect();
        // Those of one call carry the ids of all in one tag.
        let mut of_tag: BTreeMap<String, usize> = BTreeMap::new();
        for instance in self.peer.instances() {
            let tags = &instance["tags"];
            let tag = tags["bursar:together"].as_str().unwrap_or_else(|| text(&tags["bursar:instance"]));
            *of_tag.entry(tag.to_owned()).or_default() += 1;
        }
        let mut seen = BTreeSet::new();
        for (tag, count) in &of_tag {
            let ids: Vec<&str> = tag.split(' ').collect();
            assert!(*count <= ids.len(), "{context}: {count} instances for {ids:?}");
            for id in ids {
                assert!(known.contains(id), "{context}: {id} is unknown to the store");
                assert!(seen.insert(id), "{context}: {id} was launched by two calls");
            }
        }
    }
}
