//! What the API and the commands on it promise: pages are kept out, names are not guessed at, lists say what they leave
//! out, and a wait outlives a restart.

use std::{fs, process::Command};

use bursar_tests::{
    Installation, PATIENCE, Said,
    installation::{QUICK, text},
    processes, program, until,
};
use rustix::process::Signal;

/// Ends when it is told to.
const SLEEPER: &str = "name: twin\nrun: echo begun; exec sleep 600\n";

/// More than one page of a list, and nothing that could run them.
const MANY: &str =
    "name: many\nresources: {accelerators: H100}\nrun: echo $x\nsweep: {matrix: {x: 0..1100}}\n";

#[test]
fn no_web_page_can_submit_or_read() {
    let installation = Installation::started(QUICK);
    let body = br#"{"specs": [{"run": "echo pwned"}]}"#;
    let post = |headers: &str| installation.http_with("POST", "/v1/experiments", headers, body);
    for (status, headers) in [
        ("415", "host: localhost\r\n"),
        ("415", "host: localhost\r\ncontent-type: text/plain\r\n"),
        ("403", "host: localhost\r\ncontent-type: application/json\r\norigin: http://evil.example\r\n"),
        ("403", "host: localhost\r\ncontent-type: application/json\r\norigin: null\r\n"),
        ("421", "host: evil.example\r\ncontent-type: application/json\r\n"),
    ] {
        let answer = post(headers);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let read = installation.http_with("GET", "/v1/experiments", "host: evil.example\r\n", b"");
    assert!(read.starts_with("HTTP/1.1 421"), "{read}");
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
    let answer = post("host: localhost\r\ncontent-type: application/json\r\norigin: http://localhost\r\n");
    assert!(answer.starts_with("HTTP/1.1 201"), "our own pages may: {answer}");
}

#[test]
fn a_name_is_cancelled_only_where_one_live_experiment_or_sweep_has_it() {
    let installation = Installation::started(QUICK);
    let first = installation.submit(SLEEPER);
    let second = installation.submit(SLEEPER);
    let refused = installation.bursar(&["cancel", "twin"]).with_code(1);
    assert!(refused.stderr.contains(&first) && refused.stderr.contains(&second), "{refused:?}");
    let answer = installation.http("POST", "/v1/cancel/twin", b"");
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("ambiguous"), "{answer}");
    assert_eq!(installation.json(&["ls", "--live"]).as_array().unwrap().len(), 2, "neither was touched");

    let _ = installation.bursar(&["cancel", &second]).with_code(0);
    let _ = installation.until_state(&second, "cancelled");
    let said = installation.bursar(&["cancel", "twin"]).with_code(0);
    assert_eq!(said.stdout, "twin: cancelled\n", "the newest is over: it is the older that is meant");
    let _ = installation.until_state(&first, "cancelled");
    let said = installation.bursar(&["cancel", "twin"]).with_code(0);
    assert_eq!(said.stdout, "twin: nothing to cancel, it is over\n");

    let sweep = installation.sweep("name: twin\nrun: exec sleep 600\nsweep: {matrix: {x: [1, 2]}}\n");
    let said = installation.bursar(&["cancel", "twin"]).with_code(0);
    assert_eq!(said.stdout, "twin: 2 experiments cancelled\n");
    let _ = installation.until_sweep_over(&sweep, PATIENCE);
}

#[test]
fn a_plan_for_a_sweep_keeps_to_the_budget_of_the_sweep() {
    let installation = Installation::started(QUICK);
    let spec = "name: grid\nrun: echo hi\nsweep: {matrix: {x: [1, 2]}, budget: 0.000001}\n";
    installation.write("grid.yaml", spec);
    installation.until_on_offer();
    let planned = installation.bursar(&["plan", "grid.yaml"]).with_code(3);
    assert!(planned.stdout.contains("the sweep's budget has no room"), "{planned:?}");
    let _ = installation.bursar(&["sweep", "--wait", "grid.yaml"]).with_code(3);
}

#[test]
fn a_wait_outlives_a_restart_of_the_daemon() {
    let mut installation = Installation::started(QUICK);
    installation
        .write("long.yaml", "name: long\nrun: echo begun; until [ -e \"$GO\" ]; do sleep 0.1; done\n");
    let go = installation.path("go");
    let go_variable = format!("GO={}", go.display());
    let waiting = installation.begin(&["submit", "--wait", "--env", &go_variable, "long.yaml"]);
    until("it runs", PATIENCE, || {
        installation.bursar(&["logs", "long"]).stdout.contains("begun").then_some(())
    });
    installation.kill();
    // Long enough for the wait to notice: it looks several times a second.
    let away = installation.begin(&["ls", "--url", "http://127.0.0.1:1"]);
    assert_eq!(Said::of(away.wait_with_output().unwrap()).code, Some(5));
    installation.start();
    fs::write(go, "").unwrap();
    let said = Said::of(waiting.wait_with_output().unwrap()).with_code(0);
    let told = said.stderr.matches("does not answer; waiting").count();
    assert!(told <= 1, "said at most once: {said:?}");
}

#[test]
fn what_a_list_leaves_out_is_said_and_can_be_had() {
    let mut installation = Installation::started(QUICK);
    installation.write("many.yaml", MANY);
    let waiting = installation.begin(&["sweep", "--wait", "--json", "many.yaml"]);
    let sweep = until("the sweep is queued", PATIENCE, || {
        let sweeps = installation.json(&["sweeps"]);
        sweeps.get(0).map(|sweep| text(&sweep["id"]).to_owned())
    });
    let count = |rows: &serde_json::Value| rows.as_array().unwrap().len();

    let shown = installation.bursar(&["show", &sweep]).with_code(0);
    assert!(shown.stderr.contains("900 more trials") && shown.stderr.contains("--json"), "{}", shown.stderr);
    let listed = installation.bursar(&["ls"]).with_code(0);
    assert!(
        listed.stderr.contains("there are more than these 50; see them with --limit"),
        "{}",
        listed.stderr
    );
    let listed = installation.bursar(&["ls", "--json", "-n", "7"]).with_code(0);
    assert!(count(&listed.json()) == 7 && listed.stderr.contains("there are more"), "{}", listed.stderr);
    let listed = installation.bursar(&["ls", "--json", "-n", "1100"]).with_code(0);
    assert!(count(&listed.json()) == 1100 && listed.stderr.is_empty(), "{}", listed.stderr);
    assert_eq!(count(&installation.json(&["show", &sweep])["trials"]), 1100);
    let _ = installation.bursar(&["ls", "-n", "0"]).with_code(2);

    let _ = installation.bursar(&["cancel", "many"]).with_code(0);
    let said = Said::of(waiting.wait_with_output().unwrap()).with_code(1);
    assert_eq!(count(&said.json()[0]["trials"]), 1100, "a wait judges all trials");
    installation.stop();
    assert_eq!(count(&installation.json(&["show", &sweep])["trials"]), 1100, "with the daemon down as well");
}

#[test]
fn reports_have_names_beside_ids_and_an_instance_is_shown_by_its_id() {
    let mut installation = Installation::started(QUICK);
    let sweep = installation.sweep("name: named\nrun: sleep 0.2\nsweep: {matrix: {x: [1]}}\n");
    let detail = installation.until_sweep_over(&sweep, PATIENCE);
    installation.until_empty();
    let trial = text(&detail["trials"][0]["id"]).to_owned();
    for is_up in [true, false] {
        if !is_up {
            installation.stop();
        }
        let by = ["report", "--by", "sweep,experiment"];
        let report = installation.json(&by);
        assert_eq!(report["names"][&sweep], "named", "{report:#}");
        assert_eq!(report["names"][&trial], "named-1", "{report:#}");
        let table = installation.bursar(&by).with_code(0).stdout;
        assert!(table.contains("named-1") && table.contains("EXPERIMENT_NAME"), "{table}");
        let csv = installation.bursar(&[&by[..], &["--format", "csv"]].concat()).with_code(0).stdout;
        assert!(csv.starts_with("sweep,sweep_name,experiment,experiment_name,cost,"), "{csv}");

        let instance = text(&installation.json(&["instances"])[0]["id"]).to_owned();
        let shown = installation.json(&["show", &instance]);
        assert_eq!(shown["instance"]["id"], *instance);
        assert_eq!(shown["allocations"][0]["payer"], *trial, "{shown:#}");
        let _ = installation.bursar(&["show", "ins_0000000000000"]).with_code(4);
    }
}

#[test]
fn a_limit_that_was_lowered_is_told_and_is_no_fault() {
    let mut installation =
        Installation::started(&QUICK.replace("projects:", "budget: {limit: 40}\nprojects:"));
    let id = installation.submit("name: spender\nproject: lab\nrun: sleep 0.5\n");
    let _ = installation.until_state(&id, "succeeded");
    installation.until_empty();
    installation.stop();
    let configuration = fs::read_to_string(installation.path("bursar.yaml")).unwrap();
    let lowered =
        configuration.replace("limit: 40", "limit: 0.000001").replace("budget: 50", "budget: 0.000002");
    installation.write("bursar.yaml", lowered);
    installation.start();
    installation.until_on_offer();
    let said = installation.bursar(&["doctor"]).with_code(0).stdout;
    for key in ["the installation's budget", "project lab's budget"] {
        let what = format!("{key}: its limit of");
        assert!(said.contains(&what) && said.contains("nothing new starts until it is raised"), "{said}");
    }
    assert!(!said.contains("fault of bursar"), "{said}");
}

#[test]
fn an_orphan_that_was_ended_is_told_and_is_no_failure() {
    let mut installation = Installation::started(QUICK);
    let id = installation.submit(SLEEPER);
    installation.until_logged(&id, "begun");
    // An agent that hears that nobody knows it ends at once; this one hears nothing.
    for (pid, _) in installation.running().iter().filter(|(_, command)| command.contains("\nagent\n")) {
        processes::signal(*pid, Signal::STOP);
    }
    installation.kill();
    for file in ["bursar.db", "bursar.db-wal", "bursar.db-shm"] {
        let _ = fs::remove_file(installation.path("data").join(file));
    }
    installation.start();
    // A provider that should have nothing of ours is asked only now and then.
    let _ = installation.submit(SLEEPER);
    let said = until("the orphan is ended", PATIENCE, || {
        let said = installation.bursar(&["doctor"]);
        said.stdout.contains("none now; 1 ended since the start, the newest found at 20").then_some(said)
    });
    let _ = said.with_code(0);
}

#[test]
fn offers_say_until_when_a_refused_one_is_left_alone() {
    let installation =
        Installation::started(&QUICK.replace("cpus: 1, memory: 2,", "cpus: 1, memory: 2, max_instances: 1,"));
    let _ = [installation.submit(SLEEPER), installation.submit(SLEEPER)];
    until("an offer is refused", PATIENCE, || {
        let offers = installation.json(&["offers"]);
        offers.as_array().unwrap().iter().any(|offer| !offer["refused_until"].is_null()).then_some(())
    });
    let table = installation.bursar(&["offers"]).with_code(0).stdout;
    assert!(table.contains("REFUSED UNTIL"), "{table}");
}

#[test]
fn logs_in_a_pipe_are_what_the_experiment_wrote() {
    let installation = Installation::started(QUICK);
    let id = installation.submit(r#"{name: odd, run: 'printf "\033]0;title\007\033[31mred\n"'}"#);
    let _ = installation.until_state(&id, "succeeded");
    assert_eq!(installation.logs(&id), "\u{1b}]0;title\u{7}\u{1b}[31mred\n");
    let refused = installation.bursar(&["logs", "--json", &id]).with_code(2);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("leave --json out"), "{refused:?}");
}

#[test]
fn commands_that_need_no_daemon_work_in_an_empty_folder() {
    let home = tempfile::tempdir().unwrap();
    let bursar = |prepare: &dyn Fn(&mut Command)| {
        let mut command = program::command(home.path());
        prepare(&mut command);
        Said::of(command.output().unwrap())
    };
    let said = bursar(&|command| {
        command.env("BURSAR_LISTEN", "nowhere").arg("ls");
    });
    let said = said.with_code(2);
    assert!(said.stderr.contains("the configuration has problems\nBURSAR_LISTEN: "), "{said:?}");
    assert!(!said.stderr.contains("the file"), "{said:?}");

    let said = bursar(&|command| {
        command.args(["man", "pages"]);
    });
    let _ = said.with_code(0);
    let page = fs::read_to_string(home.path().join("pages/bursar-submit.1")).unwrap();
    assert!(page.contains("bursar") && page.contains("idempot") || page.contains("same key"), "{page}");
    assert!(!home.path().join("pages/bursar-agent.1").exists(), "what is hidden has no page");
}

#[test]
fn doctor_tells_the_daemon_of_another_installation_from_its_own() {
    let other = Installation::started(QUICK);
    let installation = Installation::new(QUICK);
    let listen = |installation: &Installation| {
        let text = std::fs::read_to_string(installation.path("bursar.yaml")).unwrap();
        text.lines().find(|line| line.starts_with("listen: ")).unwrap().to_owned()
    };
    installation.reconfigure(&listen(&installation), &listen(&other));
    let said = installation.bursar(&["doctor"]).with_code(1).stdout;
    assert!(said.contains("is of another installation: `test` with its data in "), "{said}");
    assert!(said.contains("fix: give this installation another `listen`"), "{said}");
}
