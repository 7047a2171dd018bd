//! What becomes of one experiment: how it ends, what it sees, what it leaves in its log.

use std::io::Read;

use bursar_tests::{
    Installation, PATIENCE, Said,
    installation::{QUICK, text},
    until,
};
use serde_json::Value;

/// One machine with two accelerators, so that two experiments share it.
const PAIR: &str = "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
providers:
  local:
    type: local
    types:
      pair: {accelerators: \"A100:2\", cpus: 4, memory: 4, on_demand: 36, max_instances: 1}
";

fn attempts(detail: &Value) -> &Vec<Value> {
    detail["attempts"].as_array().unwrap()
}

#[test]
fn waiting_for_an_experiment_ends_with_the_code_of_its_outcome() {
    let installation = Installation::started(QUICK);
    installation.write("good.yaml", "name: good\nrun: echo fine\n");
    installation.write("bad.yaml", "name: bad\nrun: exit 7\n");
    installation.write("dear.yaml", "name: dear\nbudget: 0.000001\nrun: echo never\n");

    let good = installation.bursar(&["submit", "--wait", "--json", "good.yaml"]).with_code(0).json();
    assert_eq!(good[0]["experiment"]["state"], "succeeded");
    let bad = installation.bursar(&["submit", "--wait", "--json", "bad.yaml"]).with_code(1).json();
    assert_eq!(bad[0]["experiment"]["state"], "failed");
    assert_eq!(bad[0]["experiment"]["reason"], "exit code 7");
    let dear = installation.bursar(&["submit", "--wait", "--json", "dear.yaml"]).with_code(3).json();
    assert_eq!(dear[0]["experiment"]["state"], "refused");
    let reason = text(&dear[0]["experiment"]["reason"]);
    assert!(reason.starts_with("the experiment's budget has $0.000001 of $0.000001 left"), "{reason}");
    assert_eq!(dear[0]["experiment"]["cost"], "0");
}

#[test]
fn an_end_that_is_waited_for_is_said_once_with_what_may_come_on_top_of_its_cost() {
    let installation = Installation::started(&QUICK.replace("idle_duration: 1s", "idle_duration: 10m"));
    installation.write("bad.yaml", "name: bad\nrun: echo broken; exit 7\n");
    let said = installation.bursar(&["submit", "--wait", "bad.yaml"]).with_code(1);
    assert_eq!(said.stderr.matches("exit code 7").count(), 1, "{}", said.stderr);
    assert!(said.stderr.contains("bad failed: exit code 7, cost $"), "{}", said.stderr);
    assert!(said.stderr.contains(" so far; up to $"), "{}", said.stderr);
    let id = said.stdout.split_whitespace().next().unwrap();
    assert!(said.stderr.contains(&format!("hint: `bursar logs {id}`")), "{}", said.stderr);

    // The instance idles on, and somebody has to be told what that costs.
    let shown = installation.bursar(&["show", "bad"]).with_code(0).stdout;
    assert!(
        shown.contains("\n            and about $") && shown.contains(" held; the next charge comes by "),
        "{shown}"
    );
    assert!(!shown.contains("()"), "{shown}");
}

#[test]
fn a_cost_is_final_once_its_instances_are_gone_and_shown_without_empty_brackets() {
    let installation = Installation::started(QUICK);
    let id = installation.submit("name: impossible\nresources: {cpus: 64}\nrun: echo never\n");
    let shown = installation.bursar(&["show", &id]).with_code(0).stdout;
    assert!(shown.contains("cost        $0.00\n"), "{shown}");
    let good = installation.submit("name: good\nrun: echo fine\n");
    let _ = installation.until_state(&good, "succeeded");
    installation.until_empty();
    let detail = installation.json(&["show", &good]);
    assert!(detail["uncharged"].is_null(), "{detail:#}");
    assert_ne!(detail["experiment"]["cost"], "0");
}

#[test]
fn a_followed_log_is_the_whole_log_in_order() {
    let installation = Installation::started(QUICK);
    let run = "for i in $(seq 1 3000); do echo line $i; done; sleep 1; for i in $(seq 3001 6000); do echo line $i >&2; done";
    let id = installation.submit(&format!("name: talker\nrun: {run}\n"));
    let mut following = installation.begin(&["logs", "-f", &id]);
    let mut followed = String::new();
    following.stdout.take().unwrap().read_to_string(&mut followed).unwrap();
    assert!(following.wait().unwrap().success());

    let expected: String = (1..=6000).map(|number| format!("line {number}\n")).collect();
    assert!(followed == expected, "{} bytes of {}", followed.len(), expected.len());
    let detail = installation.json(&["show", &id]);
    assert_eq!(detail["experiment"]["state"], "succeeded", "a followed log ends with its experiment");
    assert!(installation.logs(&id) == expected);
    assert_eq!(
        installation.bursar(&["logs", "--tail", "2", &id]).with_code(0).stdout,
        "line 5999\nline 6000\n"
    );
}

#[test]
fn an_experiment_sees_its_variables_and_a_working_folder_of_its_own() {
    let installation = Installation::started(QUICK);
    std::fs::create_dir(installation.path("code")).unwrap();
    installation.write("code/data.txt", "from the workdir\n");
    let id = installation.submit(
        "name: seer\nworkdir: code\nenvs: {GREETING: hello, NUMBER: 7}\nsetup: echo prepared > made\n\
         run: |\n  echo \"$GREETING $NUMBER\"; cat made data.txt; echo changed > data.txt\n  \
         echo \"$BURSAR_EXPERIMENT_ID attempt $BURSAR_ATTEMPT\"; test -d \"$BURSAR_CHECKPOINT_DIR\" && echo saved\n  \
         echo \"{\\\"loss\\\": 0.25}\" >> \"$BURSAR_METRICS\"\n",
    );
    let detail = installation.until_state(&id, "succeeded");
    let expected = format!("hello 7\nprepared\nfrom the workdir\n{id} attempt 1\nsaved\n");
    assert_eq!(installation.logs(&id), expected);
    assert_eq!(detail["experiment"]["metrics"]["loss"], 0.25);
    let kept = std::fs::read_to_string(installation.path("code/data.txt")).unwrap();
    assert_eq!(kept, "from the workdir\n", "an attempt works on a copy");
}

#[test]
fn two_experiments_on_one_machine_have_different_accelerators() {
    let installation = Installation::started(PAIR);
    let spec = "name: half\nresources: {accelerators: \"A100:1\"}\n\
                run: echo device $CUDA_VISIBLE_DEVICES; until test -e GO; do sleep 0.1; done\n";
    let spec = spec.replace("GO", &installation.path("go").display().to_string());
    let (one, two) = (installation.submit(&spec), installation.submit(&spec));
    installation.until_logged(&one, "device");
    installation.until_logged(&two, "device");
    let mut devices = [installation.logs(&one), installation.logs(&two)];
    devices.sort();
    assert_eq!(devices, ["device 0\n", "device 1\n"]);
    installation.write("go", "");
    let instance =
        |id: &str| attempts(&installation.until_state(id, "succeeded"))[0]["nodes"][0]["instance"].clone();
    assert_eq!(instance(&one), instance(&two));
}

#[test]
fn a_command_that_does_not_exist_fails_with_the_shells_words_in_the_log() {
    let installation = Installation::started(QUICK);
    let id = installation.submit("name: typo\nrun: trian --lr 0.1\n");
    let detail = installation.until_state(&id, "failed");
    assert_eq!(detail["experiment"]["reason"], "exit code 127");
    assert!(installation.logs(&id).contains("trian"), "{}", installation.logs(&id));
}

#[test]
fn a_workdir_that_does_not_exist_is_not_submitted() {
    let installation = Installation::started(QUICK);
    installation.write("lost.yaml", "name: lost\nworkdir: /no/such/folder\nrun: echo never\n");
    let said = installation.bursar(&["submit", "lost.yaml"]).with_code(4);
    assert!(
        said.stderr.contains("error: lost.yaml:2:10: workdir: cannot pack /no/such/folder"),
        "{}",
        said.stderr
    );
    assert_eq!(installation.json(&["ls"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn an_experiment_that_fails_is_tried_again_as_often_as_it_says() {
    let installation = Installation::started(QUICK);
    let stubborn = installation.submit("name: stubborn\nretry: 1\nrun: echo try $BURSAR_ATTEMPT; exit 3\n");
    let lucky = installation.submit("name: lucky\nretry: 1\nrun: test $BURSAR_ATTEMPT = 2\n");
    let detail = installation.until_state(&stubborn, "failed");
    assert_eq!(attempts(&detail).len(), 2);
    assert_eq!(detail["experiment"]["reason"], "exit code 3");
    let log = installation.logs(&stubborn);
    assert!(log.contains("==> attempt 1 on ") && log.contains("try 1\n") && log.contains("try 2\n"), "{log}");
    assert_eq!(installation.bursar(&["logs", "--attempt", "2", &stubborn]).stdout, "try 2\n");
    assert_eq!(attempts(&installation.until_state(&lucky, "succeeded")).len(), 2);
}

#[test]
fn an_attempt_ends_at_its_max_duration() {
    let installation = Installation::started(QUICK);
    let id = installation.submit(
        "name: endless\nmax_duration: 1s\ncheckpoint: {grace: 1s}\nrun: echo begun; exec sleep 600\n",
    );
    let detail = installation.until_state(&id, "stopped");
    assert_eq!(detail["experiment"]["reason"], "max_duration reached");
    assert_eq!(installation.logs(&id), "begun\n");
}

#[test]
fn a_queued_experiment_is_cancelled_without_having_run() {
    let installation = Installation::started(QUICK);
    let id = installation.submit("name: impossible\nresources: {cpus: 64}\nrun: echo never\n");
    let reason = installation.until_waiting(&id, "no-offering");
    assert!(reason.contains("nothing on offer does"), "{reason}");
    let said = installation.bursar(&["cancel", "impossible"]).with_code(0);
    assert_eq!(said.stdout, "impossible: cancelled\n");
    let detail = installation.until_state(&id, "cancelled");
    assert!(attempts(&detail).is_empty());
    assert_eq!(installation.json(&["cancel", &id])["cancelled"], 0, "it is over");
    let _ = installation.bursar(&["cancel", "nobody"]).with_code(4);
}

#[test]
fn a_running_experiment_is_asked_to_end_and_then_made_to() {
    let installation = Installation::started(QUICK);
    let polite = installation.submit(
        "name: polite\nrun: |\n  trap 'echo saving; exit 0' TERM; echo begun; while :; do sleep 0.1; done\n",
    );
    let stubborn = installation.submit(
        "name: stubborn\ncheckpoint: {grace: 1s}\n\
         run: |\n  trap 'echo no' TERM; echo begun; while :; do sleep 0.1; done\n",
    );
    installation.until_logged(&polite, "begun");
    installation.until_logged(&stubborn, "begun");
    let _ = installation.bursar(&["cancel", &polite, &stubborn]).with_code(0);
    let _ = installation.until_state(&polite, "cancelled");
    let _ = installation.until_state(&stubborn, "cancelled");
    // In between the shell may say that its `sleep` was terminated with it.
    let [polite, stubborn] = [installation.logs(&polite), installation.logs(&stubborn)];
    assert!(polite.starts_with("begun\n") && polite.ends_with("saving\n"), "{polite}");
    assert!(stubborn.starts_with("begun\n") && stubborn.ends_with("no\n"), "{stubborn}");
    installation.until_empty();
    let running = installation.running();
    assert!(running.is_empty(), "{running:?}");
}

#[test]
fn whoever_waits_may_go_away_and_the_experiment_goes_on() {
    let installation = Installation::started(QUICK);
    installation.write("slow.yaml", "name: slow\nrun: echo begun; sleep 2; echo done\n");
    let mut waiting = installation.begin(&["submit", "--wait", "slow.yaml"]);
    until("the experiment begins", PATIENCE, || {
        let said = installation.bursar(&["logs", "slow"]);
        said.stdout.contains("begun").then_some(())
    });
    waiting.kill().unwrap();
    let _ = Said::of(waiting.wait_with_output().unwrap());
    let detail = installation.until_state("slow", "succeeded");
    assert_eq!(attempts(&detail).len(), 1);
}

#[test]
fn an_experiment_that_is_over_is_explained_by_what_was_tried_and_what_can_be_done() {
    let installation = Installation::started(QUICK);
    let id = installation.submit("name: stubborn\nretry: 1\nrun: exit 3\n");
    let _ = installation.until_state(&id, "failed");
    let said = installation.bursar(&["explain", "stubborn"]).with_code(0).stdout;
    for part in [
        "stubborn is failed: exit code 3\n",
        "\nit cost $",
        "\nit saved nothing\n",
        "ATTEMPT  INSTANCE",
        "\n      2  ",
        &format!("\nbursar logs --attempt all {id}  "),
        &format!("\nbursar rerun {id}  "),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn an_idle_instance_is_ended_by_hand_and_a_busy_one_only_by_force() {
    let installation = Installation::started(&QUICK.replace("idle_duration: 1s", "idle_duration: 1h"));
    let live = || installation.json(&["instances", "--live"]).as_array().unwrap().clone();
    let first = installation.submit("name: first\nrun: echo done\n");
    let _ = installation.until_state(&first, "succeeded");
    let idle = text(&live()[0]["id"]).to_owned();
    let said = installation.bursar(&["instances", "end", &idle]).with_code(0).stdout;
    assert_eq!(said, format!("{idle}: ends\n"));
    installation.until_empty();
    let shown = installation.json(&["show", &idle]);
    assert_eq!(shown["instance"]["reason"], "ended by hand", "{shown:#}");
    let said = installation.bursar(&["instances", "end", &idle]).with_code(4).stderr;
    assert!(said.contains("it is gone, or never was"), "{said}");

    // What is interrupted goes on from what it saved, on another instance.
    let go = installation.path("go").display().to_string();
    let busy = installation.submit(&format!(
        "name: busy\nrun: |\n  trap 'echo saved > $BURSAR_CHECKPOINT_DIR/step; exit 1' TERM\n  \
         echo attempt $BURSAR_ATTEMPT; until test -e {go}; do sleep 0.1; done\n"
    ));
    installation.until_logged(&busy, "attempt 1");
    let under = text(&live()[0]["id"]).to_owned();
    let said = installation.bursar(&["instances", "end", &under]).with_code(1).stderr;
    assert!(said.contains(&format!("busy runs on {under}: wait for it")), "{said}");
    let said = installation.bursar(&["instances", "end", "--force", &under]).with_code(0).stdout;
    assert_eq!(said, format!("{under}: ends once what runs there has saved and stopped\n"));
    until("it runs elsewhere", PATIENCE, || {
        let detail = installation.json(&["show", &busy]);
        (attempts(&detail).len() == 2 && attempts(&detail)[1]["state"] == "running").then_some(())
    });
    installation.write("go", "");
    let detail = installation.until_state(&busy, "succeeded");
    assert_eq!(attempts(&detail)[0]["reason"], "stopped: moved to another instance", "{detail:#}");
    assert_ne!(attempts(&detail)[1]["nodes"][0]["instance"], *under);
    assert_eq!(installation.ailments(), Vec::<Value>::new());
}
