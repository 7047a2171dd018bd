//! Whatever is killed, nothing is lost, run twice or left running.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::{Duration, Instant},
};

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    processes, until,
};
use rustix::process::Signal;

use crate::books::assert_at_rest;

/// A market with interruptions, small leases and a budget, so that a kill finds everything under way.
const LIVELY: &str = "
policy: {lease: 6s, drain_allowance: 3s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms, max_instances: 4}
projects: {lab: {budget: 5}}
providers:
  local:
    type: local
    seed: 3
    interruptions: [1500ms, 4s]
    types:
      small: {cpus: 1, memory: 2, on_demand: 36, spot: 7.2, notice: 1s, boot: 100ms}
      twin: {cpus: 2, memory: 2, on_demand: 60, spot: 13, notice: 1s, boot: 200ms}
";

/// How often the daemon is killed.
const KILLS: u32 = 20;

/// Moments that look random and can be had again: xorshift, as the standard library has no generator.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // A third within the first moments of a daemon, when it loads, looks and decides; the others at any time.
        let most = if self.0.is_multiple_of(3) { 60 } else { 900 };
        Duration::from_millis((self.0 >> 16) % most)
    }
}

/// What a run wrote down of itself: `start` and `stop` with the attempt, its number, and the experiment.
fn attempts_overlapping_or_repeated(runs: &str) -> Vec<String> {
    let mut open: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in runs.lines() {
        let [word, experiment, attempt, process] = line.split(' ').collect::<Vec<_>>()[..] else {
            wrong.push(format!("torn line `{line}`"));
            continue;
        };
        if word == "start" {
            if !seen.insert(attempt) {
                wrong.push(format!("{attempt} was started twice"));
            }
            // An attempt that was killed says no `stop`: then its process is gone by the time of the next.
            if let Some(before) = open.insert(experiment, process)
                && processes::is_running(before.parse().unwrap_or_default())
            {
                wrong.push(format!("{attempt} started while process {before} of {experiment} ran"));
            }
        } else {
            open.remove(experiment);
        }
    }
    wrong
}

fn seed() -> u64 {
    let given = std::env::var("BURSAR_TEST_SEED").ok();
    given.map_or(0x6275_7273_6172, |seed| seed.parse().expect("BURSAR_TEST_SEED is a number"))
}

#[test]
fn a_daemon_killed_at_twenty_moments_of_a_sweep_loses_nothing_and_runs_nothing_twice() {
    let seed = seed();
    let mut moments = Moments(seed);
    let (mut killed_after, mut hits) = (Vec::new(), 0);
    let mut installation = Installation::started(LIVELY);
    let runs = installation.path("runs");
    let run = format!(
        "name: storm\nproject: lab\ncheckpoint: {{grace: 1s}}\nestimate: {{duration: 2s}}\n\
         run: |\n  runs={runs}\n  say() {{ echo \"$1 $BURSAR_EXPERIMENT_ID $BURSAR_ATTEMPT_ID $$\" >> $runs; }}\n  \
         trap 'told=yes' TERM\n  say start\n  done=$BURSAR_CHECKPOINT_DIR/done\n  \
         i=$(cat $done 2>/dev/null || echo 0)\n  \
         while [ $i -lt 8 ] && [ -z $told ]; do\n    sleep 0.2; i=$((i+1)); echo step $i; echo $i > $done.tmp\n    \
         mv $done.tmp $done || mv $done.tmp $done # The first may have been told to end.\n  done\n  \
         say stop\n  [ $i = 8 ]\nsweep:\n  matrix: {{x: 0..28}}\n  max_parallel: 5\n",
        runs = runs.display(),
    );
    let sweep = installation.sweep(&run);
    for _ in 0..KILLS {
        let moment = moments.next();
        sleep(moment);
        killed_after.push(moment);
        installation.kill();
        hits += u32::from(installation.json(&["show", &sweep])["sweep"]["ended_at"].is_null());
        installation.start();
    }
    let context = format!("BURSAR_TEST_SEED={seed}, killed after {killed_after:?}");
    assert!(hits > KILLS / 2, "{context}: only {hits} kills hit a sweep that ran");
    let detail = installation.until_sweep_over(&sweep, 2 * PATIENCE);
    installation.until_empty();

    let trials = detail["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 28);
    for trial in trials {
        let log = installation.logs(text(&trial["id"]));
        assert_eq!(trial["state"], "succeeded", "{context}: {trial:#}\n{log}");
        // Each step was logged: lost work was done again, work that was saved was not lost.
        for step in 1..=8 {
            assert!(log.contains(&format!("step {step}\n")), "{context}: {trial:#}\n{log}");
        }
        let attempts =
            installation.json(&["show", text(&trial["id"])])["attempts"].as_array().unwrap().clone();
        let succeeded = attempts.iter().filter(|attempt| attempt["reason"] == "exit code 0").count();
        assert_eq!(succeeded, 1, "{context}: {attempts:#?}");
    }
    let wrong = attempts_overlapping_or_repeated(&processes::file(&runs));
    assert!(wrong.is_empty(), "{context}: {wrong:#?}");
    assert_at_rest(&installation, &context);
}

#[test]
fn a_stopped_daemon_leaves_running_work_alone_and_the_next_one_takes_it_up() {
    let mut installation = Installation::started(QUICK);
    let go = installation.path("go");
    let id = installation.submit(&format!(
        "name: steady\nrun: echo begun; until test -e {}; do sleep 0.1; done; echo done\n",
        go.display()
    ));
    installation.until_logged(&id, "begun");
    // The shell's `sleep` comes and goes.
    let lasting = |installation: &Installation| {
        let mut running = installation.running();
        running.retain(|_, command| !command.starts_with("sleep"));
        running.into_keys().collect::<Vec<_>>()
    };
    let before = lasting(&installation);
    installation.stop();
    assert_eq!(lasting(&installation), before);
    // It ends while nobody is there to hear it.
    installation.write("go", "");
    until("the run has ended", PATIENCE, || (lasting(&installation).len() < before.len()).then_some(()));
    installation.start();
    let detail = installation.until_state(&id, "succeeded");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(installation.logs(&id), "begun\ndone\n");
    installation.until_empty();
    assert_at_rest(&installation, "after the restart");
}

#[test]
fn without_a_daemon_every_instance_ends_with_its_lease() {
    let mut installation = Installation::started(LIVELY);
    let id = installation.submit("name: orphan\nproject: lab\nspot_policy: on-demand\ncheckpoint: {grace: 1s}\nrun: |\n  (setsid sleep 600 &)\n  echo begun; trap '' TERM; while :; do sleep 0.2; done\n");
    installation.until_logged(&id, "begun");
    installation.kill();
    assert!(!installation.running().is_empty());
    let killed = Instant::now();
    until("nothing runs", PATIENCE, || installation.running().is_empty().then_some(()));
    // The lease of 6 s, and what a machine waits for an agent that hangs.
    assert!(killed.elapsed() < Duration::from_secs(12), "{:?}", killed.elapsed());
    for instance in installation.cloud_instances() {
        let folder = format!("data/providers/local/instances/{instance}");
        assert!(installation.path(&format!("{folder}/ended.json")).exists(), "{folder}");
        assert!(!installation.path(&format!("{folder}/work")).exists(), "{folder}");
    }
    // The next daemon finds out, and runs the experiment again.
    installation.start();
    until("there is a second attempt", PATIENCE, || {
        (installation.json(&["show", &id])["experiment"]["attempts"] == 2).then_some(())
    });
    let _ = installation.bursar(&["cancel", &id]).with_code(0);
    let _ = installation.until_state(&id, "cancelled");
    installation.until_empty();
    assert_at_rest(&installation, "after a daemon that was dead for a lease");
}

/// Runs an experiment, kills a process of its first instance, and waits until it has ended well on another.
fn survives_the_kill_of(what: &str) {
    let installation = Installation::started(QUICK);
    let marker = installation.path("second");
    let id = installation.submit(&format!(
        "name: survivor\nrun: |\n  (setsid sleep 600 &)\n  echo begun; test $BURSAR_ATTEMPT = 2 || exec sleep 600; touch {}\n",
        marker.display()
    ));
    installation.until_logged(&id, "begun");
    let first = installation.running();
    let victim = first.iter().find(|(_, line)| line.lines().nth(1) == Some(what));
    let (pid, _) = victim.unwrap_or_else(|| panic!("no `{what}` among {first:#?}"));
    processes::signal(*pid, Signal::KILL);
    let detail = installation.until_state(&id, "succeeded");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    assert_eq!(attempts[0]["reason"], "the instance was lost");
    assert_ne!(attempts[0]["nodes"][0]["instance"], attempts[1]["nodes"][0]["instance"]);
    let left: Vec<_> = first.keys().filter(|pid| processes::is_running(**pid)).collect();
    assert!(left.is_empty(), "of the first instance there run {left:?} of {first:#?}");
    installation.until_empty();
    assert_at_rest(&installation, what);
}

#[test]
fn a_killed_agent_takes_its_machine_along_and_the_experiment_runs_on_another() {
    survives_the_kill_of("agent");
}

#[test]
fn a_killed_machine_takes_everything_along_and_the_experiment_runs_on_another() {
    survives_the_kill_of("local-host");
}
