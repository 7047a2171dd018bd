//! Logs: whole and in order whatever is killed, readable from the end or since a moment, and not kept for ever.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    time::Duration,
};

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    until,
};

#[test]
fn twenty_megabytes_are_logged_once_and_in_order_though_the_daemon_is_killed_meanwhile() {
    let mut installation = Installation::started(QUICK);
    // 400,000 lines of 50 bytes, and a last one after a pause, so that the log is followed beyond its bulk.
    let id = installation.submit(
        "name: talker\nrun: seq -f 'line %06.0f of a log that must not lose any of it' 400000; sleep 1; echo end\n",
    );
    for part in [1, 5, 10] {
        until(&format!("{part} MB have come"), PATIENCE, || {
            (log_bytes(&installation) > part << 20).then_some(())
        });
        installation.kill();
        installation.start();
    }
    let _ = installation.until_state(&id, "succeeded");
    let log = installation.logs(&id);
    let mut lines = log.lines();
    for number in 1..=400_000 {
        let expected = format!("line {number:06} of a log that must not lose any of it");
        assert_eq!(lines.next(), Some(&*expected));
    }
    assert_eq!((lines.next(), lines.next()), (Some("end"), None));
}

/// What there is of all logs.
fn log_bytes(installation: &Installation) -> u64 {
    let files = fs::read_dir(installation.path("data/logs")).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "log"));
    logs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[test]
fn many_that_print_as_fast_as_they_can_keep_no_agent_from_reporting() {
    let installation = Installation::started(
        "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
providers:
  local:
    type: local
    types:
      box: {cpus: 8, memory: 16, on_demand: 3.6}
",
    );
    // Forty megabytes each, as fast as the disk takes them, and then they stay until the counter was heard.
    const BYTES: u64 = 40_000_000;
    let stop = installation.path("stop");
    let printing: Vec<String> = (0..4)
        .map(|number| {
            installation.submit(&format!(
                "name: loud-{number}\nrun: yes 'all work and no play' | head -c {BYTES}; until test -e {}; do sleep 0.1; done\n",
                stop.display()
            ))
        })
        .collect();
    // One beside them counts, and what it counts is known while they print.
    let counting = installation.submit(
        "name: quiet\nrun: |\n  for i in $(seq 1 300); do echo \"{\\\"step\\\": $i}\" >> $BURSAR_METRICS; sleep 0.1; done\n",
    );
    for reached in [1.0, 10.0, 20.0] {
        until("the counter's reports arrive", PATIENCE, || {
            let step = installation.json(&["show", &counting])["experiment"]["metrics"]["step"].as_f64();
            step.is_some_and(|step| step >= reached).then_some(())
        });
    }
    until("all of it has arrived", 2 * PATIENCE, || (log_bytes(&installation) >= 4 * BYTES).then_some(()));
    installation.write("stop", "");
    for id in &printing {
        let detail = installation.until_state(id, "succeeded");
        let attempts = detail["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{detail:#}");
        let log = installation.path(&format!("data/logs/{}.log", text(&attempts[0]["id"])));
        assert_eq!(fs::metadata(log).unwrap().len(), BYTES);
    }
}

#[test]
fn a_log_is_read_from_its_end_since_a_moment_and_by_attempt() {
    let installation = Installation::started(QUICK);
    let id = installation.submit(
        "name: twice\nretry: 1\nrun: echo attempt $BURSAR_ATTEMPT; seq 3; test $BURSAR_ATTEMPT = 2\n",
    );
    let _ = installation.until_state(&id, "succeeded");
    installation.until_empty();
    let read = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["logs", &id].iter().chain(arguments).copied().collect();
        installation.bursar(&arguments).with_code(0).stdout
    };
    assert_eq!(read(&[]), "attempt 2\n1\n2\n3\n", "the newest attempt, though its instance is gone");
    assert_eq!(read(&["--attempt", "1"]), "attempt 1\n1\n2\n3\n");
    assert_eq!(read(&["--tail", "2"]), "2\n3\n");
    assert_eq!(read(&["--tail", "1", "--follow"]), "3\n");
    assert_eq!(read(&["--since", "1h"]), "attempt 2\n1\n2\n3\n");
    assert_eq!(read(&["--since", "2999-01-01"]), "");
    let all = read(&["--attempt", "all", "--tail", "1"]);
    assert!(all.starts_with("==> attempt 1 on local/") && all.ends_with("<==\n3\n"), "{all}");
    let wrong = installation.bursar(&["logs", &id, "--since", "soon"]).with_code(2).stderr;
    assert!(wrong.contains("`soon` is no time"), "{wrong}");
    let _ = installation.bursar(&["logs", &id, "--attempt", "last"]).with_code(2);
}

#[test]
fn what_is_read_without_a_daemon_is_the_same() {
    let mut installation = Installation::started(QUICK);
    let id =
        installation.submit("name: done\nrun: |\n  seq 5; echo '::bursar {\"step\": 1, \"loss\": 0.5}'\n");
    let _ = installation.until_state(&id, "succeeded");
    let ask = |installation: &Installation| {
        [&["logs", "--tail", "3", "--since", "1h", "done"][..], &["metrics", "--csv", "done", "loss"]]
            .map(|arguments| installation.bursar(arguments).with_code(0).stdout)
    };
    let before = ask(&installation);
    assert!(before[0].starts_with("4\n5\n::bursar"), "{before:?}");
    installation.stop();
    assert_eq!(ask(&installation), before);
}

#[test]
fn logs_of_what_has_ended_go_when_they_are_old_and_those_of_what_runs_stay() {
    let mut installation = Installation::started(&format!("{QUICK}logs: {{keep: 1h}}\n"));
    let go = installation.path("go");
    let running = installation.submit(&format!(
        "name: running\nrun: echo begun; until test -e {}; do sleep 0.1; done\n",
        go.display()
    ));
    installation.until_logged(&running, "begun");
    let ended = installation
        .submit("name: ended\nrun: |\n  echo all of it; echo '{\"loss\": 1}' >> $BURSAR_METRICS\n");
    let _ = installation.until_state(&ended, "succeeded");
    assert_eq!(installation.logs(&ended), "all of it\n");
    installation.stop();
    // As if all of it had been written two hours ago.
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    for file in fs::read_dir(installation.path("data/logs")).unwrap() {
        fs::File::options().append(true).open(file.unwrap().path()).unwrap().set_modified(old).unwrap();
    }
    installation.start();
    until("the old log is gone", PATIENCE, || installation.logs(&ended).is_empty().then_some(()));
    assert_eq!(installation.logs(&running), "begun\n");
    assert!(installation.log().contains("removed old logs"), "{}", installation.log());
    let metrics = installation.json(&["metrics", &ended]);
    assert!(metrics["metrics"].as_object().unwrap().is_empty(), "{metrics}");
    assert_eq!(text(&installation.json(&["show", &ended])["experiment"]["state"]), "succeeded");
    installation.write("go", "");
    let _ = installation.until_state(&running, "succeeded");
}

#[test]
fn a_log_that_does_not_exist_is_an_error_that_says_which_do() {
    let mut installation = Installation::started(QUICK);
    let id = installation.submit("name: once\nrun: echo once\n");
    let _ = installation.until_state(&id, "succeeded");
    let refused = |installation: &Installation| {
        for (arguments, why) in [
            (["--attempt", "9"], "once has no attempt 9: there is but the first"),
            (["--node", "9"], "once has no node 9: its nodes are 0 alone"),
        ] {
            let said = installation.bursar(&[&["logs", "once"][..], &arguments].concat()).with_code(4);
            assert!(said.stderr.contains(why), "{}", said.stderr);
        }
        let said = installation.bursar(&["logs", "once", "--attempt", "last"]).with_code(2);
        assert!(said.stderr.contains("a number or `all`"), "{}", said.stderr);
    };
    refused(&installation);
    let said = installation.bursar(&["logs", "once", "--tail", "abc"]).with_code(2);
    assert!(said.stderr.contains("`abc` is no number of lines, such as 20"), "{}", said.stderr);
    installation.stop();
    refused(&installation);
}

#[test]
fn whoever_follows_what_waits_is_told_why_and_once() {
    let installation = Installation::started(QUICK);
    let id = installation.submit("name: giant\nresources: {cpus: 64}\nrun: echo never\n");
    let _ = installation.until_waiting(&id, "no-offering");
    let mut following = installation.begin(&["logs", "-f", "giant"]);
    let mut stderr = BufReader::new(following.stderr.take().unwrap());
    let mut first = String::new();
    stderr.read_line(&mut first).unwrap();
    assert!(first.starts_with("giant waits: "), "{first}");
    let _ = installation.bursar(&["cancel", "giant"]).with_code(0);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!((following.wait().unwrap().success(), rest.as_str()), (true, ""));
    let large = installation.submit("name: large\nresources: {cpus: 64}\nrun: echo never\n");
    let _ = installation.until_waiting(&large, "no-offering");
    let said = installation.bursar(&["logs", "large"]).with_code(0);
    assert!(said.stderr.starts_with("large waits: "), "{}", said.stderr);
}
