//! Working folders on an instance: fetched, unpacked, cached, prepared once; and secrets that stay where they belong.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests, and they look at real files")]

#[expect(dead_code, reason = "the other tests use the rest")]
mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use bursar_model::{
    AttemptEnd, Digest, StopReason, Workdir,
    agent_api::{AttemptReport, ReportedState, Work},
};
use harness::{Daemon, wait_for, work};

const LONG: Duration = Duration::from_secs(600);
const OK: AttemptEnd = AttemptEnd::Exited { code: 0 };

fn end(report: AttemptReport) -> AttemptEnd {
    match report.state {
        ReportedState::Ended { end, .. } => end,
        ReportedState::Preparing | ReportedState::Running { .. } => panic!("it has not ended"),
    }
}

fn not_started(report: AttemptReport) -> String {
    let end = end(report);
    let AttemptEnd::NotStarted { error } = end else { panic!("it was started: {end}") };
    error
}

fn with_setup(setup: &str, run: &str, key: u8) -> Work {
    Work { setup: Some(setup.to_owned()), setup_key: Some(Digest::from_bytes([key; 32])), ..work(run) }
}

#[tokio::test]
async fn an_archive_is_fetched_once_for_all_attempts_that_start_with_it() {
    let mut daemon = Daemon::start(LONG);
    let workdir = daemon.pack(&[("deep/er/file", "text\n"), ("other", "")]);
    let start =
        || Work { workdir: Some(workdir.clone()), ..work("cat deep/er/file; echo mine > deep/er/file") };
    let orders: Vec<_> = (0..4).map(|_| start()).collect();
    let attempts: Vec<_> = orders.into_iter().map(|work| daemon.order(work).attempt).collect();
    let _agent = daemon.agent();
    for attempt in attempts {
        assert_eq!(end(daemon.ended(attempt).await), OK);
        assert_eq!(daemon.log(attempt), "text\n", "each has a copy of its own");
    }
    assert_eq!(daemon.book(|book| book.fetches), 1);
}

#[tokio::test]
async fn an_archive_that_comes_in_pieces_is_fetched_to_its_end_and_checked() {
    let mut daemon = Daemon::start(LONG);
    let workdir = daemon.pack(&[("file", &"all of it ".repeat(10))]);
    daemon.book(|book| book.fetch_bytes_max = 30);
    let whole = daemon.order(Work { workdir: Some(workdir.clone()), ..work("cat file") }).attempt;
    let _agent = daemon.agent();
    assert_eq!(end(daemon.ended(whole).await), OK);
    assert_eq!(daemon.log(whole), "all of it ".repeat(10));
    assert!(daemon.book(|book| book.fetches) > 3);

    // The same length under another name: what came is not what was asked for.
    let Workdir::Archive { digest, bytes } = workdir else { panic!("it is an archive") };
    let other = Digest::from_bytes([9; 32]);
    daemon.book(|book| {
        let blob = book.blobs[&digest].clone();
        book.blobs.insert(other, blob);
    });
    let wrong = Workdir::Archive { digest: other, bytes };
    let damaged = daemon.order(Work { workdir: Some(wrong), ..work("cat file") }).attempt;
    let error = not_started(daemon.ended(damaged).await);
    assert!(error.contains(&format!("what came has the SHA-256 {digest}")), "{error}");
}

#[tokio::test]
async fn an_archive_that_the_daemon_does_not_give_is_told_as_not_started() {
    let mut daemon = Daemon::start(LONG);
    let workdir = Workdir::Archive { digest: Digest::from_bytes([1; 32]), bytes: 7 };
    let attempt = daemon.order(Work { workdir: Some(workdir), ..work("true") }).attempt;
    let _agent = daemon.agent();
    assert_eq!(
        not_started(daemon.ended(attempt).await),
        "the workdir: the daemon refused with 404 Not Found"
    );
}

#[tokio::test]
async fn setup_runs_once_for_all_that_need_the_same() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let count = agent.folder.path().join("count");
    let setup = format!(
        "echo once >> {}; sleep 0.3; echo made > made; ln -s made link; pwd > place",
        count.display()
    );
    let params = |value: &str| BTreeMap::from([("LR".to_owned(), value.to_owned())]);
    let trial = |lr| Work {
        params: params(lr),
        ..with_setup(&format!("{setup}; echo lr=$LR"), "cat link; echo $LR; rm made", 1)
    };
    let (one, two) = (trial("0.1"), trial("0.2"));
    let (one, two) = (daemon.order(one).attempt, daemon.order(two).attempt);
    assert_eq!((end(daemon.ended(one).await), end(daemon.ended(two).await)), (OK, OK));
    let third = trial("0.3");
    let third = daemon.order(third).attempt;
    assert_eq!(end(daemon.ended(third).await), OK);
    assert_eq!(fs::read_to_string(count).unwrap(), "once\n");
    assert!(
        daemon.log(third).starts_with("bursar: setup: done on this instance before"),
        "{}",
        daemon.log(third)
    );
    assert!(daemon.log(third).ends_with("made\n0.3\n"), "{}", daemon.log(third));
    let logs = [daemon.log(one), daemon.log(two)];
    assert_eq!(
        logs.iter().filter(|log| log.contains("lr=\n")).count(),
        1,
        "setup sees no parameters: {logs:?}"
    );
}

#[tokio::test]
async fn what_setup_made_may_name_itself_by_where_it_was_made() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    // As the scripts of a virtual environment do.
    let setup = "mkdir bin; printf '#!%s/bin/sh\\necho from the tool\\n' $PWD > bin/tool; ln -s /bin/sh bin/sh; chmod +x bin/tool";
    for _ in 0..2 {
        let attempt = daemon.order(with_setup(setup, "bin/tool", 1)).attempt;
        assert_eq!(end(daemon.ended(attempt).await), OK);
        assert!(daemon.log(attempt).ends_with("from the tool\n"), "{}", daemon.log(attempt));
        daemon.forget(attempt);
    }
}

#[tokio::test]
async fn a_setup_that_fails_is_run_again_by_the_next_from_the_beginning() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let flag = agent.folder.path().join("flag");
    let setup = format!("test ! -e half || exit 9; touch half; test -e {}", flag.display());
    let first = daemon.order(with_setup(&setup, "echo ran", 1)).attempt;
    assert_eq!(end(daemon.ended(first).await), AttemptEnd::Exited { code: 1 });
    daemon.forget(first);
    fs::write(flag, "").unwrap();
    let second = daemon.order(with_setup(&setup, "echo ran", 1)).attempt;
    assert_eq!(end(daemon.ended(second).await), OK);
    assert!(daemon.log(second).ends_with("ran\n"), "{}", daemon.log(second));
}

#[tokio::test]
async fn another_key_is_another_setup() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    for key in [1, 2] {
        let attempt = daemon.order(with_setup("echo in setup", "true", key)).attempt;
        assert_eq!(end(daemon.ended(attempt).await), OK);
        assert_eq!(daemon.log(attempt), "in setup\n");
    }
}

#[tokio::test]
async fn a_secret_is_hidden_in_the_log_and_plain_to_the_experiment() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let secret = "correct-horse-battery";
    let mut leaky = work(&format!(
        "echo \"it is $TOKEN.\"; printf correct-; sleep 0.5; echo horse-battery; test $TOKEN = {secret}; echo $?"
    ));
    leaky.envs = BTreeMap::from([("TOKEN".to_owned(), secret.to_owned())]);
    leaky.secrets = BTreeSet::from(["TOKEN".to_owned()]);
    let attempt = daemon.order(leaky).attempt;
    assert_eq!(end(daemon.ended(attempt).await), OK);
    let stars = "*".repeat(secret.len());
    assert_eq!(daemon.log(attempt), format!("it is {stars}.\n{stars}\n0\n"));
}

/// A repository with two commits; gives their ids.
fn repository(folder: &Path) -> Vec<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(folder).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    ["one", "two"]
        .map(|content| {
            fs::create_dir_all(folder.join("sub")).unwrap();
            fs::write(folder.join("sub/file"), format!("{content}\n")).unwrap();
            git(&["add", "."]);
            git(&["commit", "--quiet", "-m", content]);
            git(&["rev-parse", "HEAD"])
        })
        .to_vec()
}

#[tokio::test]
async fn a_repository_is_had_at_the_commit_that_was_asked_for() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let source = tempfile::tempdir().unwrap();
    let url = format!("file://{}", source.path().display());
    let commits = repository(source.path());
    let at = |commit: &str, path: Option<&str>| {
        Some(Workdir::Git {
            url: url.clone(),
            commit: commit.to_owned(),
            path: path.map(str::to_owned),
            token: None,
        })
    };
    let old = daemon.order(Work { workdir: at(&commits[0], None), ..work("cat sub/file; ls -A") }).attempt;
    assert_eq!(end(daemon.ended(old).await), OK, "{}", daemon.log(old));
    assert_eq!(daemon.log(old), "one\nsub\n", "without its history");
    let new = daemon.order(Work { workdir: at(&commits[1], Some("sub")), ..work("cat file") }).attempt;
    assert_eq!(end(daemon.ended(new).await), OK);
    assert_eq!(daemon.log(new), "two\n");
    let none = daemon.order(Work { workdir: at(&"0".repeat(40), None), ..work("true") }).attempt;
    let error = not_started(daemon.ended(none).await);
    assert_eq!(error, format!("{url} has no commit {}", "0".repeat(40)));
}

#[tokio::test]
async fn the_token_of_a_repository_is_on_no_command_line_and_in_no_file() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    // Takes the connection and never answers, so that git can be looked at while it fetches.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/repo.git", silent.local_addr().unwrap());
    let token = "ghp_0123456789abcdef";
    let workdir = Workdir::Git {
        url: url.clone(),
        commit: "0".repeat(40),
        path: None,
        token: Some("TOKEN".to_owned()),
    };
    let mut fetching = Work { workdir: Some(workdir), ..work("true") };
    fetching.envs = BTreeMap::from([("TOKEN".to_owned(), token.to_owned())]);
    daemon.order(fetching);
    let asked_with = |pid: &str, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let contains =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    wait_for("git fetches with the token in its environment", || {
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        pids.filter(|pid| contains(&asked_with(pid, "cmdline"), &url))
            .any(|pid| contains(&asked_with(&pid, "environ"), token))
            .then_some(())
    })
    .await;
    for entry in fs::read_dir("/proc").unwrap() {
        let pid = entry.unwrap().file_name().into_string().unwrap();
        assert!(!contains(&asked_with(&pid, "cmdline"), token), "process {pid}");
    }
    let found = Command::new("grep").args(["-rl", token]).arg(agent.folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[tokio::test]
async fn an_attempt_that_waits_for_another_s_setup_is_cancelled_at_once() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let first = daemon.order(with_setup("echo begun; exec sleep 600", "true", 1)).attempt;
    daemon.logged(first, "begun\n").await;
    let second = daemon.order(with_setup("echo never", "true", 1)).attempt;
    daemon.logged(second, "waiting for it\n").await;
    daemon.stop_attempt(second, LONG);
    assert_eq!(end(daemon.ended(second).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    daemon.forget(second);
    wait_for("its folder is gone", || (!agent.attempt_folder(second).exists()).then_some(())).await;
    daemon.stop_attempt(first, Duration::ZERO);
    assert_eq!(end(daemon.ended(first).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    daemon.forget(first);
    let third = daemon.order(with_setup("echo in setup", "true", 1)).attempt;
    assert_eq!(end(daemon.ended(third).await), OK);
    assert!(daemon.log(third).ends_with("in setup\n"), "{}", daemon.log(third));
}

#[tokio::test]
async fn an_attempt_whose_repository_does_not_answer_is_cancelled_at_once() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo.git", silent.local_addr().unwrap());
    let workdir = Workdir::Git { url: url.clone(), commit: "0".repeat(40), path: None, token: None };
    let attempt = daemon.order(Work { workdir: Some(workdir), ..work("true") }).attempt;
    let fetches = || {
        let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
        pids.filter(|path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).contains(&url))
            .count()
    };
    wait_for("git fetches", || (fetches() > 0).then_some(())).await;
    daemon.stop_attempt(attempt, LONG);
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    wait_for("git is gone", || (fetches() == 0).then_some(())).await;
}
