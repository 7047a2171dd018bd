//! The agent as a real process with real children, against a daemon that is no more than the wire protocol.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests, and they look at real files")]

mod containers;
mod data;
mod harness;

use std::{collections::BTreeMap, fs, time::Duration};

use bursar_agent::{
    Notice,
    processes::{self, Mark, Which},
    wall_clock,
};
use bursar_model::{
    AttemptEnd, Point, Span, StopReason,
    agent_api::{LOG_BYTES_MAX, ReportedState, Work},
};
use harness::{Daemon, runs, wait_for, work};

const LONG: Duration = Duration::from_secs(600);

fn end(report: bursar_model::agent_api::AttemptReport) -> AttemptEnd {
    match report.state {
        ReportedState::Ended { end, .. } => end,
        ReportedState::Preparing | ReportedState::Running { .. } => panic!("it has not ended"),
    }
}

#[tokio::test]
async fn the_exit_code_and_the_log_come_back() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run("echo out; echo err >&2; exit 3");
    let report = daemon.ended(attempt).await;
    assert!(matches!(report.state, ReportedState::Ended { ran_ms: Some(_), .. }));
    assert_eq!(end(report), AttemptEnd::Exited { code: 3 });
    assert_eq!(daemon.log(attempt), "out\nerr\n");
}

#[tokio::test]
async fn a_missing_command_ends_with_127_and_the_shells_word() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run("no-such-command --flag");
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 127 });
    assert!(daemon.log(attempt).contains("no-such-command"), "{}", daemon.log(attempt));
}

#[tokio::test]
async fn a_setup_that_fails_keeps_run_from_starting() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let order = daemon.order(Work { setup: Some("exit 5".to_owned()), ..work("echo ran") });
    let report = daemon.ended(order.attempt).await;
    assert!(matches!(report.state, ReportedState::Ended { ran_ms: None, .. }));
    assert_eq!(end(report), AttemptEnd::Exited { code: 5 });
    assert_eq!(daemon.log(order.attempt), "bursar: setup: exit code 5; run is not started\n");
}

#[tokio::test]
async fn an_attempt_knows_who_it_is_and_which_devices_are_its_own() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let order = daemon.order(Work {
        setup: Some("echo made > file".to_owned()),
        devices: vec![2, 5],
        envs: BTreeMap::from([
            ("LR".to_owned(), "0.1".to_owned()),
            ("BURSAR_ATTEMPT_ID".to_owned(), "forged".to_owned()),
        ]),
        ..work("cat file; echo $LR; echo $BURSAR_EXPERIMENT_ID $BURSAR_ATTEMPT_ID $BURSAR_ATTEMPT $BURSAR_INSTANCE_ID; \
                echo $CUDA_VISIBLE_DEVICES; pwd; test -d $TMPDIR && test -d $BURSAR_CHECKPOINT_DIR; echo $?")
    });
    daemon.ended(order.attempt).await;
    let expected = format!(
        "made\n0.1\n{} {} 1 {}\n2,5\n{}\n0\n",
        order.experiment,
        order.attempt,
        daemon.instance,
        agent.attempt_folder(order.attempt).join("work").display(),
    );
    assert_eq!(daemon.log(order.attempt), expected);
    let bare = daemon.run("echo [${CUDA_VISIBLE_DEVICES-unset}]");
    daemon.ended(bare).await;
    assert_eq!(daemon.log(bare), "[]\n");
}

#[tokio::test]
async fn the_log_is_complete_and_in_order_though_the_daemon_restarts() {
    let mut daemon = Daemon::start(LONG);
    let mut agent = daemon.agent();
    let attempt = daemon
        .run("for i in $(seq 1 20000); do echo line $i; done; read -t 1 x <> <(:); seq 20001 20100; exit 7");
    daemon.logged(attempt, "line 10\n").await;
    daemon.stop();
    wait_for("the attempt has written everything", || {
        let log = fs::read_to_string(agent.attempt_folder(attempt).join("log")).ok()?;
        log.ends_with("20100\n").then_some(())
    })
    .await;
    assert!(agent.process.try_wait().unwrap().is_none());
    daemon.restart().await;
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 7 });
    let lines: Vec<String> =
        (1..=20000).map(|i| format!("line {i}\n")).chain((20001..=20100).map(|i| format!("{i}\n"))).collect();
    assert!(daemon.log(attempt) == lines.concat());
    assert_eq!(daemon.book(|book| book.registered.len()), 1);
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_after_the_grace() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run("trap 'echo told' TERM; echo $$; while true; do sleep 0.1; done");
    daemon.logged(attempt, "\n").await;
    let pid = daemon.log(attempt);
    daemon.stop_attempt(attempt, Duration::from_millis(700));
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    assert!(daemon.log(attempt).contains("told"));
    assert!(!runs(&pid));
}

#[tokio::test]
async fn the_grace_is_for_all_processes_of_an_attempt_not_only_its_shell() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    // The outer shell dies of SIGTERM at once; the inner one saves its work first.
    let attempt = daemon.run(
        "bash -c 'trap \"sleep 1; echo saved; exit\" TERM; echo up; while true; do sleep 0.1; done'; true",
    );
    daemon.logged(attempt, "up\n").await;
    daemon.stop_attempt(attempt, Duration::from_secs(20));
    daemon.ended(attempt).await;
    assert!(daemon.log(attempt).contains("saved\n"), "{}", daemon.log(attempt));
}

#[tokio::test]
async fn a_daemonised_grandchild_does_not_outlive_its_attempt() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run("setsid sh -c 'echo $$; exec sleep 600' & sleep 0.3; exit 0");
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 0 });
    let pid = daemon.log(attempt);
    assert!(pid.trim().parse::<i32>().is_ok(), "{pid}");
    assert!(!runs(&pid));
}

#[tokio::test]
async fn a_process_that_left_its_session_and_its_environment_ends_with_the_last_attempt_there() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    // What runs beside it keeps all of its own, in a session of its own or in its environment's.
    let beside = daemon.run(
        "(setsid sh -c 'env -i sleep 600 & echo $!; echo $$; wait' &)\n\
         (env -i sh -c 'echo $$; exec sleep 600' &)\n echo up; exec sleep 600",
    );
    daemon.logged(beside, "up\n").await;
    let others: Vec<String> = wait_for("all of the other's processes say who they are", || {
        let log = daemon.log(beside);
        let pids = log.lines().filter(|line| line.parse::<i32>().is_ok()).map(str::to_owned);
        Some(pids.collect::<Vec<_>>()).filter(|pids| pids.len() == 3)
    })
    .await;
    let stray = "sh -c 'echo $$; exec sleep 600' &";
    let attempt = daemon.run(&format!("env -i PATH=$PATH setsid {stray} read -t 0.5 x <> <(:); exit 0"));
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 0 });
    let pid = daemon.log(attempt);
    assert!(pid.trim().parse::<i32>().is_ok(), "{pid}");
    // Whose it is cannot be told from what runs beside, and nothing of that may be harmed.
    for other in others.iter().chain([&pid]) {
        assert!(runs(other), "{other}: {}", daemon.log(beside));
    }
    daemon.stop_attempt(beside, Duration::ZERO);
    daemon.ended(beside).await;
    for other in others.iter().chain([&pid]) {
        assert!(!runs(other), "{other}");
    }
}

#[tokio::test]
async fn an_order_to_end_for_good_outdoes_one_to_move() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run("trap 'echo told' TERM; echo up; while true; do sleep 0.05; done");
    daemon.logged(attempt, "up\n").await;
    daemon.stop_attempt_because(attempt, StopReason::Moved, Duration::from_secs(600));
    daemon.logged(attempt, "told\n").await;
    daemon.stop_attempt_because(attempt, StopReason::Cancelled, Duration::ZERO);
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
}

#[tokio::test]
async fn a_log_without_end_fills_neither_the_disk_nor_the_daemon() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    daemon.change(|book| book.log_bytes_max = 1_000_000);
    let attempt = daemon.run("head -c 300000000 /dev/zero; echo said");
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 0 });
    let log = fs::metadata(agent.attempt_folder(attempt).join("log")).unwrap();
    assert!(log.len() <= LOG_BYTES_MAX + 1, "{}", log.len());
    let shipped = daemon.book(|book| book.logs[&attempt].len());
    assert!((1_000_001..2_000_000).contains(&shipped), "{shipped}");
}

#[tokio::test]
async fn a_checkpoint_whose_time_lies_in_the_future_was_saved_when_it_was_first_seen() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run("touch -d '1 hour' $BURSAR_CHECKPOINT_DIR/model; exec sleep 600");
    let age = async |least: u64| {
        daemon
            .until("the checkpoint is so old", |book| {
                book.reports.get(&attempt)?.checkpoint_age_ms.filter(|age| *age >= least)
            })
            .await
    };
    age(0).await;
    // Heartbeats later it is older than one, and not saved anew.
    age(900).await;
}

#[tokio::test]
async fn at_the_end_of_the_lease_everything_is_killed_and_the_agent_exits() {
    let mut daemon = Daemon::start(Duration::from_secs(4));
    let mut agent = daemon.agent();
    let attempt = daemon.run(
        "trap 'echo told' TERM; echo $$; (trap '' TERM; setsid sleep 600) & while true; do sleep 0.1; done",
    );
    daemon.logged(attempt, "\n").await;
    let pid = daemon.log(attempt);
    daemon.stop();
    assert!(agent.exited().await.success());
    assert!(!runs(&pid));
    let log = fs::read_to_string(agent.attempt_folder(attempt).join("log")).unwrap();
    assert!(log.contains("told"));
    let marked = format!("BURSAR_ATTEMPT_ID={attempt}");
    let mark = Mark { variable: marked, session: None, container: None };
    assert!(processes::find(Which::Marked(&mark)).is_empty());
}

#[tokio::test]
async fn an_agent_that_is_killed_takes_the_shell_with_it() {
    let mut daemon = Daemon::start(LONG);
    let mut agent = daemon.agent();
    let attempt = daemon.run("echo $$; exec sleep 600");
    daemon.logged(attempt, "\n").await;
    let pid = daemon.log(attempt);
    assert!(runs(&pid));
    agent.process.kill().unwrap();
    wait_for("the child is gone", || (!runs(&pid)).then_some(())).await;
}

#[tokio::test]
async fn an_attempt_that_is_no_longer_listed_is_killed_and_its_folder_removed() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let attempt = daemon.run("trap '' TERM; echo $$; while true; do sleep 0.1; done");
    daemon.logged(attempt, "\n").await;
    let pid = daemon.log(attempt);
    daemon.forget(attempt);
    wait_for("the folder is gone", || (!agent.attempt_folder(attempt).exists()).then_some(())).await;
    assert!(!runs(&pid));
}

#[tokio::test]
async fn stopping_what_never_started_is_answered_as_stopped() {
    let mut daemon = Daemon::start(LONG);
    let attempt = daemon.run("echo never");
    daemon.stop_attempt(attempt, Duration::ZERO);
    let _agent = daemon.agent();
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Cancelled });
    assert_eq!(daemon.log(attempt), "");
}

#[tokio::test]
async fn metrics_and_checkpoints_are_reported_to_the_end() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run(
        "sleep 0.1; touch $BURSAR_CHECKPOINT_DIR/model; echo '{\"step\": 1, \"loss\": 0.5}' >> $BURSAR_METRICS; \
         echo '{\"step\": 2}' >> $BURSAR_METRICS",
    );
    let report = daemon.ended(attempt).await;
    assert!(report.checkpoint_age_ms.is_some());
    assert_eq!(report.metrics, BTreeMap::from([("loss".to_owned(), 0.5), ("step".to_owned(), 2.0)]));
}

#[tokio::test]
async fn a_checkpoint_of_an_earlier_attempt_is_not_reported_again() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let order = daemon.order(work("sleep 0.3; cat $BURSAR_CHECKPOINT_DIR/model"));
    let folder = agent.checkpoint_folder(order.experiment);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model"), "from before\n").unwrap();
    // Older than the attempt by any clock, however coarse the file system's is.
    let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(folder.join("model")).unwrap().set_modified(an_hour_ago).unwrap();
    let report = daemon.ended(order.attempt).await;
    assert_eq!(report.checkpoint_age_ms, None);
    assert_eq!(daemon.log(order.attempt), "from before\n");
}

#[tokio::test]
async fn a_notice_reaches_the_daemon_and_the_experiment() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let attempt = daemon
        .run("echo up; until test -e $BURSAR_NOTICE_FILE; do sleep 0.05; done; cat $BURSAR_NOTICE_FILE");
    daemon.logged(attempt, "up\n").await;
    let notice = Notice { gone_at: wall_clock() + Span::from_secs(120) };
    fs::write(agent.folder.path().join("notice.json"), serde_json::to_string(&notice).unwrap()).unwrap();
    let remaining = daemon.until("the notice was reported", |book| book.notice_remaining_ms).await;
    assert!((100_000..=120_000).contains(&remaining), "{remaining}");
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Exited { code: 0 });
    assert!(daemon.log(attempt).contains("gone_at"));
}

#[tokio::test]
async fn what_saves_and_leaves_on_a_notice_of_itself_has_not_failed() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let attempt = daemon.run("until test -e $BURSAR_NOTICE_FILE; do sleep 0.05; done; exit 1");
    let done = daemon.run("until test -e $BURSAR_NOTICE_FILE; do sleep 0.05; done");
    daemon.until("both run", |book| (book.reports.len() == 2).then_some(())).await;
    let notice = Notice { gone_at: wall_clock() + Span::from_secs(120) };
    fs::write(agent.folder.path().join("notice.json"), serde_json::to_string(&notice).unwrap()).unwrap();
    let left = end(daemon.ended(attempt).await);
    assert_eq!(left, AttemptEnd::Stopped { why: StopReason::Interrupted });
    assert_eq!(end(daemon.ended(done).await), AttemptEnd::Exited { code: 0 });
}

#[tokio::test]
async fn metrics_over_time_come_from_the_file_and_from_what_is_printed_though_the_daemon_restarts() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let attempt = daemon.run(
        "for i in 1 2 3; do echo \"{\\\"step\\\": $i}\" >> $BURSAR_METRICS; done; sleep 1; \
         echo '::bursar {\"step\": 4, \"loss\": 0.5}'; echo '{\"step\": 5}'",
    );
    daemon.until("it has begun", |book| book.reports.get(&attempt).map(|_| ())).await;
    daemon.stop();
    daemon.restart().await;
    let report = daemon.ended(attempt).await;
    assert_eq!(report.metrics, BTreeMap::from([("loss".to_owned(), 0.5), ("step".to_owned(), 4.0)]));
    let points = daemon.book(|book| String::from_utf8(book.points[&attempt].clone()).unwrap());
    let points: Vec<Point> = points.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<f64> = points.iter().filter_map(Point::step).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0]);
    assert!(points.is_sorted_by_key(|point| point.age_ms));
}

#[tokio::test]
async fn on_a_notice_work_is_stopped_in_time_though_the_daemon_is_away() {
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent();
    let attempt = daemon.run("trap 'echo saved; exit 0' TERM; echo up; while true; do sleep 0.05; done");
    daemon.logged(attempt, "up\n").await;
    daemon.stop();
    let notice = Notice { gone_at: wall_clock() + Span::from_secs(3) };
    fs::write(agent.folder.path().join("notice.json"), serde_json::to_string(&notice).unwrap()).unwrap();
    wait_for("the work was saved", || {
        fs::read_to_string(agent.attempt_folder(attempt).join("log")).unwrap().contains("saved").then_some(())
    })
    .await;
    assert!(wall_clock() < notice.gone_at);
    daemon.restart().await;
    assert_eq!(end(daemon.ended(attempt).await), AttemptEnd::Stopped { why: StopReason::Interrupted });
}

#[tokio::test]
async fn sent_home_the_agent_exits() {
    let daemon = Daemon::start(LONG);
    let mut agent = daemon.agent();
    daemon.until("it registered", |book| (!book.registered.is_empty()).then_some(())).await;
    daemon.change(|book| book.power_off = true);
    assert!(agent.exited().await.success());
}

#[tokio::test]
async fn an_idle_agent_asks_once_a_heartbeat() {
    let daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    daemon.until("it asked four times", |book| (book.syncs >= 4).then_some(())).await;
    let before = daemon.book(|book| book.syncs);
    let begun = tokio::time::Instant::now();
    daemon.until("it asked four times more", |book| (book.syncs >= before + 4).then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500));
}
