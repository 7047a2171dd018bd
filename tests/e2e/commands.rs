//! The command line's own promises: what options do, where input comes from, what goes to which stream.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use bursar_tests::{
    Installation, PATIENCE, Said,
    installation::{QUICK, text},
    processes, program, until,
};
use rustix::process::Signal;

#[test]
fn options_of_submit_lie_over_the_file() {
    let installation = Installation::started(QUICK);
    installation.write("base.yaml", "name: base\nenvs: {LR: 0.1, KEEP: kept}\nrun: echo $LR $KEEP\n");
    let said = installation
        .bursar(&["submit", "--wait", "--name", "other", "--project", "lab", "--env", "LR=0.5", "base.yaml"])
        .with_code(0);
    assert!(said.stdout.starts_with("exp_") && said.stdout.contains("  other"), "{said:?}");
    assert_eq!(installation.logs("other"), "0.5 kept\n");
    assert_eq!(installation.json(&["show", "other"])["experiment"]["project"], "lab");

    let refused = installation.bursar(&["submit", "--project", "nowhere", "base.yaml"]).with_code(2);
    assert!(refused.stderr.contains("`nowhere`"), "{refused:?}");
    let refused = installation.bursar(&["submit", "--env", "NOVALUE", "base.yaml"]).with_code(2);
    assert!(refused.stderr.contains("NAME=VALUE"), "{refused:?}");
    let refused = installation.bursar(&["sweep", "base.yaml"]).with_code(2);
    assert!(refused.stderr.contains("has no `sweep` section"), "{refused:?}");
}

#[test]
fn specs_come_from_standard_input_and_several_files_are_all_or_nothing() {
    let installation = Installation::started(QUICK);
    let mut command = program::command(&installation.path("."));
    command.args(["--config", "bursar.yaml", "submit", "--wait", "-"]);
    let piped = |command: &mut Command| {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"name: piped\nrun: echo through\n").unwrap();
        Said::of(child.wait_with_output().unwrap())
    };
    let _ = piped(&mut command).with_code(0);
    assert_eq!(installation.logs("piped"), "through\n");

    installation.write("fine.yaml", "name: fine\nrun: echo fine\n");
    installation.write("odd.yaml", "name: odd\nran: echo odd\n");
    let _ = installation.bursar(&["submit", "fine.yaml", "odd.yaml"]).with_code(2);
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 1, "a slip in the last queues nothing");
}

#[test]
fn a_cancelled_sweep_ends_all_its_trials_and_no_others() {
    let installation = Installation::started(QUICK);
    let bystander = installation.submit("name: bystander\nrun: sleep 1; echo unharmed\n");
    let sweep = installation
        .sweep("name: grid\nrun: echo begun; exec sleep 600\nsweep: {matrix: {x: 0..6}, max_parallel: 2}\n");
    until("two trials run", PATIENCE, || {
        (installation.json(&["ls", "--sweep", &sweep, "--state", "running"]).as_array().unwrap().len() == 2)
            .then_some(())
    });
    let said = installation.bursar(&["cancel", "grid"]).with_code(0);
    assert_eq!(said.stdout, "grid: 6 experiments cancelled\n");
    let detail = installation.until_sweep_over(&sweep, PATIENCE);
    let trials = detail["trials"].as_array().unwrap();
    assert!(trials.iter().all(|trial| trial["state"] == "cancelled"), "{detail:#}");
    let _ = installation.until_state(&bystander, "succeeded");
}

#[test]
fn lists_show_what_is_asked_for_the_newest_first() {
    let installation = Installation::started(QUICK);
    let first = installation.submit("name: alpha\nproject: lab\nrun: echo a\n");
    let second = installation.submit("name: beta\nrun: exit 1\n");
    let _ = installation.until_state(&first, "succeeded");
    let _ = installation.until_state(&second, "failed");
    let ids = |arguments: &[&str]| -> Vec<String> {
        let rows = installation.json(arguments);
        rows.as_array().unwrap().iter().map(|row| text(&row["id"]).to_owned()).collect()
    };
    assert_eq!(ids(&["ls"]), [&*second, &first]);
    assert_eq!(ids(&["ls", "-n", "1"]), [&*second]);
    assert_eq!(ids(&["ls", "--state", "failed"]), [&*second]);
    assert_eq!(ids(&["ls", "--project", "lab"]), [&*first]);
    assert_eq!(ids(&["ls", "alph"]), [&*first]);
    assert_eq!(ids(&["ls", "--live"]), Vec::<String>::new());
    let empty = installation.bursar(&["ls", "--live"]).with_code(0);
    assert!(
        empty.stdout.is_empty() && empty.stderr.contains("no experiment is like that"),
        "only data goes to stdout"
    );
    let table = installation.bursar(&["ls"]).with_code(0);
    assert!(table.stderr.is_empty(), "{table:?}");
    assert!(table.stdout.lines().next().is_some_and(|line| line.contains("NAME")), "{table:?}");
}

/// A daemon in an empty folder, of which nothing is left whatever becomes of the test.
struct Bare {
    home: tempfile::TempDir,
    address: String,
    daemon: Child,
}

impl Bare {
    fn start() -> Self {
        let home = tempfile::Builder::new().prefix("bursar-bare-").tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = program::command(home.path());
        command.env("BURSAR_LISTEN", &address).arg("serve").stdin(Stdio::null()).stderr(Stdio::null());
        let daemon = command.spawn().unwrap();
        until("the daemon answers", PATIENCE, || TcpStream::connect(&address).ok());
        Self { home, address, daemon }
    }

    fn bursar(&self, arguments: &[&str]) -> Said {
        let mut command = program::command(self.home.path());
        Said::of(command.env("BURSAR_LISTEN", &self.address).args(arguments).output().unwrap())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Its one instance would wait 5 minutes for more work.
        for pid in processes::marked(&[self.home.path().display().to_string()]).keys() {
            processes::signal(*pid, Signal::KILL);
        }
    }
}

#[test]
fn without_a_configuration_this_machine_runs_experiments() {
    let bare = Bare::start();
    std::fs::write(bare.home.path().join("e.yaml"), "run: echo hello\n").unwrap();
    let said = bare.bursar(&["submit", "--wait", "e.yaml"]).with_code(0);
    assert!(said.stdout.contains("  experiment"), "{said:?}");
    assert_eq!(bare.bursar(&["logs", "experiment"]).stdout, "hello\n");
    assert!(bare.home.path().join(".local/state/bursar/bursar.db").exists());
}

#[test]
fn a_daemon_stops_though_somebody_follows_a_log() {
    let mut installation = Installation::started(QUICK);
    let id = installation.submit("name: talker\nrun: echo begun; exec sleep 600\n");
    installation.until_logged(&id, "begun");
    let mut following = installation.begin(&["logs", "-f", &id]);
    installation.stop();
    let _ = following.wait().unwrap();
    installation.start();
    let _ = installation.bursar(&["cancel", &id]).with_code(0);
    let _ = installation.until_state(&id, "cancelled");
}
