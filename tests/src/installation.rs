//! An installation of its own: a folder with a configuration, a store and a small cloud, a port, and a daemon.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio, id as own_pid},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    processes::{self, Running},
    program::{self, Said},
    wait::{PATIENCE, until},
};

/// A small cloud that boots and forgets quickly, for tests that care for neither prices nor leases.
pub const QUICK: &str = "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
projects: {lab: {budget: 50}}
providers:
  local:
    type: local
    types:
      small: {cpus: 1, memory: 2, on_demand: 3.6, spot: 1.2}
";

/// An installation.
#[derive(Debug)]
pub struct Installation {
    folder: TempDir,
    port: u16,
    daemon: Option<Child>,
}

impl Installation {
    /// An installation with this configuration, of which only names, folder and port are filled in. Not started.
    #[must_use]
    pub fn new(configuration: &str) -> Self {
        Self::with_data_dir(configuration, "data")
    }

    /// The same with its data in another folder.
    #[must_use]
    pub fn with_data_dir(configuration: &str, data_dir: &str) -> Self {
        let installation = Self {
            folder: tempfile::Builder::new().prefix("bursar-test-").tempdir().unwrap(),
            port: free_port(),
            daemon: None,
        };
        let port = installation.port;
        installation.write(
            "bursar.yaml",
            format!("installation: test\ndata_dir: {data_dir}\nlisten: 127.0.0.1:{port}\n{configuration}"),
        );
        installation
    }

    /// An installation whose daemon runs.
    #[must_use]
    pub fn started(configuration: &str) -> Self {
        let mut installation = Self::new(configuration);
        installation.start();
        installation
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with these variables in the daemon's environment.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut command = program::command(self.folder.path());
        command.args(["serve", "--config", "bursar.yaml"]).envs(environment.iter().copied());
        let daemon =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let daemon = self.daemon.insert(daemon);
        let port = self.port;
        until("the daemon answers", PATIENCE, || {
            let ended = daemon.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended at once: {ended:?}");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }

    /// Runs a daemon that is expected to end of itself.
    #[must_use]
    pub fn serve(&self) -> Said {
        self.bursar(&["serve"])
    }

    /// Tells the daemon to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not, or reports a failure.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon that runs");
        processes::signal(pid(&daemon), Signal::TERM);
        let status = until("the daemon stops", PATIENCE, || daemon.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    /// Tells the daemon by a signal to read its configuration again.
    ///
    /// # Panics
    /// When it does not run.
    pub fn hang_up(&self) {
        processes::signal(pid(self.daemon.as_ref().expect("a daemon that runs")), Signal::HUP);
    }

    /// Changes its configuration: this text becomes that one.
    ///
    /// # Panics
    /// When the first does not stand there.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let before = fs::read_to_string(self.path("bursar.yaml")).unwrap();
        assert!(before.contains(from), "no `{from}` in {before}");
        self.write("bursar.yaml", before.replace(from, to));
    }

    /// Kills the daemon, which has no say in it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon that runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Where its daemon answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A path in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in its folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// What the daemon logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Runs a command of the program on this installation.
    ///
    /// # Panics
    /// When the program cannot be run.
    #[must_use]
    pub fn bursar(&self, arguments: &[&str]) -> Said {
        let mut command = program::command(self.folder.path());
        command.args(["--config", "bursar.yaml"]).args(arguments).stdin(Stdio::null());
        Said::of(command.output().unwrap())
    }

    /// What a reading command answers.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.bursar(&arguments).with_code(0).json()
    }

    /// Starts a command that goes on by itself.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = program::command(self.folder.path());
        command.args(["--config", "bursar.yaml"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Queues an experiment and answers with its id.
    #[must_use]
    pub fn submit(&self, spec: &str) -> String {
        let answer = self.queue(spec);
        text(&answer[0]["experiments"][0]).to_owned()
    }

    /// Queues a sweep and answers with its id.
    #[must_use]
    pub fn sweep(&self, spec: &str) -> String {
        let answer = self.queue(spec);
        text(&answer[0]["sweep"]).to_owned()
    }

    /// Waits until an experiment is in this state, and answers with all about it.
    ///
    /// # Panics
    /// When it ends in another state, or does not come to it in time.
    #[must_use]
    pub fn until_state(&self, experiment: &str, state: &str) -> Value {
        until(&format!("{experiment} is {state}"), PATIENCE, || {
            let detail = self.json(&["show", experiment]);
            let now = text(&detail["experiment"]["state"]);
            let is_over = !detail["experiment"]["ended_at"].is_null();
            assert!(!is_over || now == state, "{experiment} should be {state}: {detail:#}");
            (now == state).then_some(detail)
        })
    }

    /// Waits until an experiment waits for something, and answers with the reason for people.
    #[must_use]
    pub fn until_waiting(&self, experiment: &str, on: &str) -> String {
        until(&format!("{experiment} waits on {on}"), PATIENCE, || {
            let detail = self.json(&["show", experiment]);
            let found = detail["experiment"]["waiting_on"]["on"] == *on;
            found.then(|| text(&detail["experiment"]["reason"]).to_owned())
        })
    }

    /// Waits until a sweep is over, and answers with it and its trials.
    #[must_use]
    pub fn until_sweep_over(&self, sweep: &str, within: Duration) -> Value {
        until(&format!("{sweep} is over"), within, || {
            let detail = self.json(&["show", sweep]);
            (!detail["sweep"]["ended_at"].is_null()).then_some(detail)
        })
    }

    /// Waits until no instance may exist any more.
    pub fn until_empty(&self) {
        until("every instance is gone", PATIENCE, || {
            self.json(&["instances", "--live"]).as_array().unwrap().is_empty().then_some(())
        });
    }

    /// Waits until the daemon knows what is on offer: it answers before it has asked.
    pub fn until_on_offer(&self) {
        until("something is on offer", PATIENCE, || {
            (!self.json(&["offers"]).as_array().unwrap().is_empty()).then_some(())
        });
    }

    /// An experiment's whole log, of all its attempts.
    #[must_use]
    pub fn logs(&self, experiment: &str) -> String {
        self.bursar(&["logs", "--attempt", "all", experiment]).with_code(0).stdout
    }

    /// Waits until an experiment's log has this in it.
    pub fn until_logged(&self, experiment: &str, what: &str) {
        until(&format!("{experiment} logs `{what}`"), PATIENCE, || {
            self.logs(experiment).contains(what).then_some(())
        });
    }

    /// An answer of the API as it comes, head and body.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    pub fn http(&self, method: &str, path: &str, body: &[u8]) -> String {
        self.http_with(method, path, "host: 127.0.0.1\r\ncontent-type: application/json\r\n", body)
    }

    /// The same with these header lines instead of those that a program sends.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    pub fn http_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        // A request that is too large may be answered and cut off before all of it was sent.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The ids of all instances that the local provider ever made and still has on record, by its own folders.
    #[must_use]
    pub fn cloud_instances(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("data/providers/local/instances")) else {
            return Vec::new();
        };
        let mut ids: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        ids.sort();
        ids
    }

    /// Every process of its instances: their machines, agents, and experiments.
    #[must_use]
    pub fn running(&self) -> Running {
        let mut marks = processes::instance_marks(&self.cloud_instances());
        marks.push(self.folder.path().join("data/providers").display().to_string());
        processes::marked(&marks)
    }

    /// What `doctor` finds not to be well.
    #[must_use]
    pub fn ailments(&self) -> Vec<Value> {
        let findings = self.bursar(&["doctor", "--json"]).json();
        let findings = findings["findings"].as_array().unwrap();
        findings.iter().filter(|finding| finding["ok"] != true).cloned().collect()
    }

    fn queue(&self, spec: &str) -> Value {
        let name = format!("spec-{}.yaml", next_number());
        self.write(&name, spec);
        self.json(&["submit", &name])
    }
}

/// Nothing of it is left, whatever became of the test; what helps to understand a failure is shown.
impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if thread::panicking() {
            eprintln!("---- the daemon's log\n{}", self.log());
        }
        let folder = self.folder.path().display().to_string();
        // Each round ends all that there is; what they start meanwhile ends in the next.
        for _ in 0..20 {
            let running = processes::marked(std::slice::from_ref(&folder));
            for pid in running.keys() {
                processes::signal(*pid, Signal::KILL);
            }
            if running.is_empty() {
                break;
            }
        }
    }
}

/// The text in a JSON value.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A file's bytes anywhere below a folder contain this text: the paths of such files.
#[must_use]
pub fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
            {
                found.push(path);
            }
        }
    }
    found
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn next_number() -> u16 {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// A port that nobody listens on and that nobody is given by chance: below those that the system hands out, or a
/// connection of another test could take it while a daemon is down. Processes start at different places.
fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    let start = own_pid().wrapping_mul(16).wrapping_add(u32::from(next_number()));
    let ports = (0..COUNT).map(|step| FIRST + (start.wrapping_add(step)) % COUNT);
    let mut ports = ports.map(|port| u16::try_from(port).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port among 22,000")
}
