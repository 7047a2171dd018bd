//! Attempts in real containers, run by real Podman, from an image that is made here: a shell and nothing else.

mod registry;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bursar_agent::containers;
use bursar_model::{
    AttemptEnd, Digest, StopReason,
    agent_api::{ContainerWork, RegistryLogin, ReportedState, Work},
};

use crate::{
    LONG, end,
    harness::{Agent, Daemon, runs, wait_for, work},
};

const IMAGE: &str = "localhost/bursar-test-busybox:1";

/// The commands that the tests' scripts use.
const APPLETS: [&str; 24] = [
    "awk", "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "id", "ls", "mkdir", "ps",
    "pwd", "seq", "setsid", "sh", "sleep", "sort", "tail", "touch", "tr", "wc",
];

fn podman() -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", conf());
    command
}

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/containers.conf")
}

/// What Podman answers.
fn ask(arguments: &[&str]) -> String {
    let output = podman().args(arguments).output().expect("tests/run installs podman");
    assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What is in the image.
fn image_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).expect("tests/run installs busybox-static");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    root
}

/// Makes the image, unless an earlier test has.
fn make_image() {
    let exists = podman().args(["image", "exists", IMAGE]).status().expect("tests/run installs podman");
    if exists.success() {
        return;
    }
    let root = image_root();
    let archive = root.path().with_extension("tar");
    let packed = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(&archive).arg(".").status();
    assert!(packed.unwrap().success());
    ask(&["import", "--quiet", archive.to_str().unwrap(), IMAGE]);
    fs::remove_file(archive).unwrap();
}

fn start_agent(daemon: &Daemon) -> Agent {
    make_image();
    daemon.agent_with(|command| {
        command.env("CONTAINERS_CONF", conf()).env("TOP_SECRET_OF_THE_AGENT", "x");
    })
}

fn contained(script: &str) -> Work {
    let container = ContainerWork {
        image: IMAGE.to_owned(),
        memory_mib: 64,
        cpus_milli: 1000,
        ..ContainerWork::default()
    };
    Work { container: Some(container), ..work(script) }
}

/// The ids of all containers of an attempt, ended ones too.
fn containers_of(attempt: bursar_model::AttemptId) -> String {
    ask(&["ps", "--all", "--quiet", "--filter", &format!("label=bursar.attempt={attempt}")])
}

#[tokio::test]
async fn the_same_experiment_gives_the_same_result_in_a_container_and_as_a_process() {
    let mut daemon = Daemon::start(LONG);
    let agent = start_agent(&daemon);
    let workdir = daemon.pack(&[("data.txt", "3\n1\n2\n")]);
    let script = "sort data.txt; cat made; echo \"$LR and $TEXT\"; echo $BURSAR_ATTEMPT; \
                  echo [$CUDA_VISIBLE_DEVICES]; echo err >&2; \
                  test \"$HOME\" = \"$(pwd)\" && test -d \"$TMPDIR\" && echo at home; \
                  echo '{\"step\": 7, \"loss\": 0.5}' >> $BURSAR_METRICS; \
                  echo weights > $BURSAR_CHECKPOINT_DIR/model; echo kept > result; echo [${TOP_SECRET_OF_THE_AGENT-}]; \
                  exit 3";
    let plain = Work {
        setup: Some("echo made by setup > made".to_owned()),
        workdir: Some(workdir),
        envs: [("LR", "0.1"), ("TEXT", "two\nlines and \"quotes\" $HOME")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..work(script)
    };
    let boxed = Work { container: contained("").container, ..plain.clone() };
    let (plain, boxed) = (daemon.order(plain), daemon.order(boxed));
    let mut results = Vec::new();
    for order in [&plain, &boxed] {
        let report = daemon.ended(order.attempt).await;
        let file = fs::read_to_string(agent.attempt_folder(order.attempt).join("work/result")).unwrap();
        let saved = fs::read_to_string(agent.checkpoint_folder(order.experiment).join("model")).unwrap();
        // An engine carries stdout and stderr through a pipe each: what goes to both may change places.
        let log = daemon.log(order.attempt);
        let (err, out): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| *line == "err");
        let told = (out.join("\n"), err.len());
        results.push((told, file, saved, report.metrics.clone(), end(report)));
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].4, AttemptEnd::Exited { code: 3 });
    let expected = "1\n2\n3\nmade by setup\n0.1 and two\nlines and \"quotes\" $HOME\n1\n[]\nat home\n[]";
    assert_eq!(results[0].0, (expected.to_owned(), 1));
    assert_eq!(containers_of(boxed.attempt), "", "its containers are removed when it is over");
}

#[tokio::test]
async fn what_setup_made_in_one_container_serves_the_next_and_may_name_itself_by_where_it_was_made() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    // As the scripts of a virtual environment do.
    let setup = "mkdir bin; printf '#!%s/bin/sh\\necho from the tool\\n' $PWD > bin/tool; ln -s /bin/sh bin/sh; \
                 chmod +x bin/tool; echo in setup";
    let (setup, setup_key) = (Some(setup.to_owned()), Some(Digest::from_bytes([1; 32])));
    let mut logs = Vec::new();
    for _ in 0..2 {
        let order = daemon.order(Work { setup: setup.clone(), setup_key, ..contained("bin/tool") });
        assert_eq!(end(daemon.ended(order.attempt).await), AttemptEnd::Exited { code: 0 });
        logs.push(daemon.log(order.attempt));
        daemon.forget(order.attempt);
    }
    assert_eq!(logs[0], "in setup\nfrom the tool\n");
    assert!(logs[1].starts_with("bursar: setup: done on this instance before"), "{}", logs[1]);
    assert!(logs[1].ends_with("\nfrom the tool\n"), "{}", logs[1]);
}

#[tokio::test]
async fn what_an_attempt_runs_with_is_told_once_and_names_the_image_by_its_digest() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    let attempt = daemon.order(contained("sleep 600")).attempt;
    let ran_with = daemon.until("it is told", |book| book.reports.get(&attempt)?.ran_with.clone()).await;
    assert!(ran_with.runtime.starts_with("podman "), "{ran_with:?}");
    let digest = ran_with.image.unwrap();
    assert!(digest.starts_with("localhost/bursar-test-busybox@sha256:"), "{digest}");
    ask(&["image", "exists", &digest]);
    daemon
        .until("it is not told again", |book| book.reports[&attempt].ran_with.is_none().then_some(()))
        .await;
}

#[tokio::test]
async fn more_memory_than_was_asked_for_ends_an_attempt_and_the_log_says_so() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    // A line without an end is held in memory as a whole.
    let attempt = daemon.order(contained("tr '\\0' x < /dev/zero | sort")).attempt;
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 137 });
    assert!(daemon.log(attempt).contains("more than the 64 MiB of memory"), "{}", daemon.log(attempt));
}

#[tokio::test]
async fn a_container_writes_nowhere_but_where_it_may_and_has_no_privileges() {
    let mut daemon = Daemon::start(LONG);
    let agent = start_agent(&daemon);
    let order = daemon.order(contained(
        "for folder in / /bin /etc /tmp /dev/shm . $TMPDIR $BURSAR_CHECKPOINT_DIR; do \
             touch $folder/x 2>/dev/null && echo y || echo n; done; \
         grep -E '^(NoNewPrivs|CapEff|CapBnd)' /proc/self/status | tr -d '\\t'; ls /tmp | grep -c other; id -u",
    ));
    daemon.ended(order.attempt).await;
    let none = "0000000000000000";
    let user = rustix::process::geteuid().as_raw();
    let expected = format!("n\nn\nn\ny\ny\ny\ny\ny\nCapEff:{none}\nCapBnd:{none}\nNoNewPrivs:1\n0\n{user}\n");
    assert_eq!(daemon.log(order.attempt), expected);
    let written = fs::metadata(agent.attempt_folder(order.attempt).join("work/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&written), user, "it belongs to the agent's user");
}

#[tokio::test]
async fn sigterm_reaches_every_process_of_a_container_once_so_that_it_saves() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    // The outer shell dies of SIGTERM at once; the inner one saves its work first.
    let attempt = daemon.order(contained(
        "sh -c 'trap \"echo told; sleep 1; echo saved; exit\" TERM; echo up; while true; do sleep 0.1; done'; echo on",
    ));
    let attempt = attempt.attempt;
    daemon.logged(attempt, "up\n").await;
    daemon.stop_attempt(attempt, Duration::from_secs(20));
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    assert_eq!(daemon.log(attempt).replace("Terminated\n", ""), "up\ntold\nsaved\n");
    assert_eq!(containers_of(attempt), "");
}

#[tokio::test]
async fn a_container_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    let attempt =
        daemon.order(contained("trap 'echo told' TERM; echo up; while true; do sleep 0.1; done")).attempt;
    daemon.logged(attempt, "up\n").await;
    daemon.stop_attempt(attempt, Duration::from_millis(700));
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    assert_eq!(daemon.log(attempt).replace("Terminated\n", ""), "up\ntold\n");
    assert_eq!(containers_of(attempt), "");
}

#[tokio::test]
async fn nothing_of_a_forgotten_container_runs_on_though_it_cleared_its_environment() {
    let mut daemon = Daemon::start(LONG);
    let agent = start_agent(&daemon);
    // Another attempt runs beside it, so that strays are not taken for its own.
    let beside = daemon.run("echo up; exec sleep 600");
    let script = "setsid env -i /bin/sh -c 'echo up; while true; do echo $$ >> beat; sleep 0.05; done' & exec env -i sleep 600";
    let attempt = daemon.order(contained(script)).attempt;
    daemon.logged(beside, "up\n").await;
    daemon.logged(attempt, "up\n").await;
    let beat = agent.attempt_folder(attempt).join("work/beat");
    wait_for("it beats", || beat.exists().then_some(())).await;
    daemon.forget(attempt);
    wait_for("its folder is removed, which is when nothing of it runs", || (!beat.exists()).then_some(()))
        .await;
    assert_eq!(containers_of(attempt), "");
}

#[tokio::test]
async fn kill_9_of_the_agent_leaves_no_container_after_whoever_clears_up() {
    let mut daemon = Daemon::start(LONG);
    let mut agent = start_agent(&daemon);
    let attempt = daemon.order(contained("echo up; exec env -i sleep 600")).attempt;
    daemon.logged(attempt, "up\n").await;
    agent.process.kill().unwrap();
    agent.process.wait().unwrap();
    assert_ne!(containers_of(attempt), "", "the container outlives the agent: somebody has to clear up");
    let pid = ask(&["inspect", "--format", "{{.State.Pid}}", containers_of(attempt).trim()]);
    assert!(runs(&pid));
    clear_up(&daemon, &agent).await;
    assert_eq!(containers_of(attempt), "");
    assert!(!runs(&pid));
}

/// As whoever looks after an instance does when its agent is dead.
async fn clear_up(daemon: &Daemon, agent: &Agent) {
    containers::remove_all(&agent.folder.path().join("work"), daemon.instance).await.unwrap();
}

#[tokio::test]
async fn the_daemons_absence_does_not_disturb_a_container() {
    let mut daemon = Daemon::start(LONG);
    let agent = start_agent(&daemon);
    let attempt =
        daemon.order(contained("echo up; while [ ! -e go ]; do sleep 0.05; done; echo went")).attempt;
    daemon.logged(attempt, "up\n").await;
    daemon.stop();
    fs::write(agent.attempt_folder(attempt).join("work/go"), "").unwrap();
    wait_for("it went on", || {
        let log = fs::read_to_string(agent.attempt_folder(attempt).join("log")).ok()?;
        log.ends_with("went\n").then_some(())
    })
    .await;
    daemon.restart().await;
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 0 });
}

#[tokio::test]
async fn an_image_that_cannot_be_had_ends_the_attempt_and_is_named() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    let mut wanted = contained("true");
    let image = "localhost:1/no/such-image:2";
    wanted.container.as_mut().unwrap().image = image.to_owned();
    let attempt = daemon.order(wanted).attempt;
    let report = daemon.ended(attempt).await;
    assert!(matches!(report.state, ReportedState::Ended { ran_ms: None, .. }));
    let AttemptEnd::NotStarted { error } = end(report) else { panic!("it was started") };
    assert!(error.starts_with(&format!("podman cannot pull {image}: ")), "{error}");
}

#[tokio::test]
async fn no_value_of_the_environment_stands_in_a_command_line() {
    let mut daemon = Daemon::start(LONG);
    let _agent = start_agent(&daemon);
    let mut wanted = contained("echo up $TOKEN $HOME_TOKEN; exec sleep 600");
    for name in ["TOKEN", "HOME_TOKEN"] {
        wanted.envs.insert(name.to_owned(), "hunter-two".to_owned());
    }
    let attempt = daemon.order(wanted).attempt;
    daemon.logged(attempt, "up hunter-two hunter-two\n").await;
    let lines: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect();
    assert!(lines.iter().any(|line| line.contains(&attempt.to_string())), "its client is among them");
    assert!(!lines.iter().any(|line| line.contains("hunter-two")));
}

#[tokio::test]
async fn everything_ends_with_the_lease_though_the_engine_hangs() {
    let mut daemon = Daemon::start(Duration::from_secs(6));
    make_image();
    let bin = tempfile::tempdir().unwrap();
    let real = Command::new("sh").args(["-c", "command -v podman"]).stdout(Stdio::piped()).output().unwrap();
    let real = String::from_utf8(real.stdout).unwrap();
    let fake = bin.path().join("podman");
    let script = format!("#!/bin/sh\ncase $1 in ps|rm) exec sleep 600;; esac\nexec {} \"$@\"\n", real.trim());
    fs::write(&fake, script).unwrap();
    fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let mut agent = daemon.agent_with(|command| {
        command.env("CONTAINERS_CONF", conf()).env("PATH", path);
    });
    let attempt = daemon.order(contained("trap '' TERM; echo up; while true; do sleep 0.1; done")).attempt;
    daemon.logged(attempt, "up\n").await;
    let pid = ask(&["inspect", "--format", "{{.State.Pid}}", containers_of(attempt).trim()]);
    daemon.stop();
    agent.exited().await;
    assert!(!runs(&pid), "nothing of the container runs");
    clear_up(&daemon, &agent).await;
}
