//! Metrics over time: from files and from what is printed, over attempts and restarts, and what work uses of its machine.

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    until,
};
use serde_json::Value;

fn steps(view: &Value, metric: &str) -> Vec<(f64, f64)> {
    let points = view["metrics"][metric]["points"].as_array().cloned().unwrap_or_default();
    points.iter().map(|point| (point["step"].as_f64().unwrap(), point["value"].as_f64().unwrap())).collect()
}

#[test]
fn a_curve_goes_on_over_an_attempt_that_failed_and_shows_no_step_twice() {
    let installation = Installation::started(QUICK);
    // The first attempt comes to step 40 and has saved 30; the second goes on from there, and prints instead.
    let id = installation.submit(
        "name: curve\nretry: 1\nrun: |\n  saved=$(cat $BURSAR_CHECKPOINT_DIR/at 2>/dev/null || echo 0)\n  \
         for i in $(seq $((saved+1)) 60); do\n    line=\"{\\\"step\\\": $i, \\\"loss\\\": $((1000 - i)), \\\"total_steps\\\": 60}\"\n    \
         if [ $BURSAR_ATTEMPT = 1 ]; then echo \"$line\" >> $BURSAR_METRICS; else echo \"::bursar $line\"; fi\n    \
         [ $i = 30 ] && echo 30 > $BURSAR_CHECKPOINT_DIR/at\n    [ $i = 40 ] && [ $BURSAR_ATTEMPT = 1 ] && exit 1\n  done; exit 0\n",
    );
    let detail = installation.until_state(&id, "succeeded");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 2);
    let view = installation.json(&["metrics", "curve", "loss"]);
    let expected: Vec<(f64, f64)> = (1..=60).map(|step| (f64::from(step), f64::from(1000 - step))).collect();
    assert_eq!(steps(&view, "loss"), expected);
    assert_eq!(view["metrics"]["loss"]["summary"]["min"], 940.0);
    assert!(view["metrics"].get("step").is_none(), "only what was asked for: {view}");

    let few = installation.json(&["metrics", "curve", "loss", "--points", "10"]);
    let few = steps(&few, "loss");
    assert!(few.len() <= 10 && few[0].0 == 1.0 && few[few.len() - 1].0 == 60.0, "{few:?}");

    let plot = installation.bursar(&["metrics", "curve", "loss"]).with_code(0).stdout;
    assert!(plot.contains("999 |") && plot.contains("step 1 to 60") && plot.contains("METRIC"), "{plot}");
    let csv = installation.bursar(&["metrics", "--csv", "curve", "loss"]).with_code(0).stdout;
    assert_eq!(csv.lines().count(), 61);
    assert!(csv.starts_with("metric,at,attempt,step,value\r\n") && csv.contains(",2,60,940\r\n"), "{csv}");
    let missing = installation.bursar(&["metrics", "curve", "lost"]).with_code(4).stderr;
    assert!(missing.contains("loss, step, total_steps"), "{missing}");

    assert_eq!(detail["progress"]["done"], 1.0);
    let shown = installation.bursar(&["show", "curve"]).with_code(0).stdout;
    assert!(shown.contains("100.0 %") && shown.contains("steps/s"), "{shown}");
}

#[test]
fn metrics_of_a_run_are_whole_though_the_daemon_is_killed_meanwhile() {
    let mut installation = Installation::started(QUICK);
    let id = installation.submit(
        "name: steady\nrun: |\n  for i in $(seq 1 3000); do echo \"{\\\"step\\\": $i}\" >> $BURSAR_METRICS; test $((i % 100)) != 0 || sleep 0.1; done\n",
    );
    let _ = installation.until_state(&id, "running");
    for after in [500.0, 1500.0] {
        until("it went on", PATIENCE, || {
            let step = installation.json(&["show", &id])["experiment"]["metrics"]["step"].as_f64();
            step.is_some_and(|step| step >= after).then_some(())
        });
        installation.kill();
        installation.start();
    }
    let _ = installation.until_state(&id, "succeeded");
    let view = installation.json(&["metrics", &id, "step", "--points", "10000"]);
    let expected: Vec<(f64, f64)> = (1..=3000).map(|step| (f64::from(step), f64::from(step))).collect();
    assert_eq!(steps(&view, "step"), expected);
}

#[test]
fn trials_are_compared_by_a_metric_with_the_best_first() {
    let installation = Installation::started(QUICK);
    let sweep = installation.sweep(
        "name: trials\nrun: |\n  test $x = 2 || echo \"::bursar {\\\"acc\\\": 0.$x}\"\nsweep: {matrix: {x: [5, 7, 2, 9]}}\n",
    );
    let _ = installation.until_sweep_over(&sweep, PATIENCE);
    let order = |arguments: &[&str]| {
        let answer = installation.json(arguments);
        let trials = answer["trials"].as_array().unwrap();
        trials.iter().map(|trial| trial["params"]["x"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(order(&["metrics", "trials", "acc", "--best", "max"]), [9, 7, 5, 2]);
    assert_eq!(order(&["metrics", &sweep, "acc"]), [5, 7, 9, 2]);
    let table = installation.bursar(&["metrics", "trials", "acc", "--best", "max"]).with_code(0).stdout;
    assert!(
        table.trim_start().starts_with("ACC") && table.lines().nth(1).unwrap().contains("x=9"),
        "{table}"
    );
    let _ = installation.bursar(&["metrics", "trials"]).with_code(2);
}

#[test]
fn what_an_experiment_uses_of_its_machine_is_measured() {
    let installation = Installation::started(QUICK);
    // One process that is busy beside one that fills 200 MB, in a session of its own.
    let id = installation.submit(
        "name: busy\nrun: |\n  (setsid sh -c 'dd if=/dev/zero bs=200M count=1 2>/dev/null | sleep 8' &)\n  \
         timeout 8 sh -c 'while :; do :; done' || true\n",
    );
    let _ = installation.until_state(&id, "succeeded");
    let view = installation.json(&["metrics", &id]);
    let peak = |name: &str| view["metrics"][name]["summary"]["max"].as_f64().unwrap_or_default();
    assert!((0.2..1.5).contains(&peak("cpu.cores")), "{view}");
    assert!((0.19..1.0).contains(&peak("memory.gib")), "{view}");
    let shown = installation.bursar(&["show", &id]).with_code(0).stdout;
    assert!(shown.contains("uses        cpu.cores "), "{shown}");
    assert_eq!(text(&installation.json(&["show", &id])["experiment"]["state"]), "succeeded");
}

/// Answers as `nvidia-smi` does: of two GPUs the second is idle unless there is a file.
const NVIDIA_SMI: &str = "#!/bin/sh\n\
    [ \"$1\" = --query-gpu=index,utilization.gpu,memory.used ] && [ \"$2\" = --format=csv,noheader,nounits ] || exit 1\n\
    echo '0, 87, 2048'\nif test -e BUSY; then echo '1, 93, 1024'; else echo '1, 3, 1024'; fi\n";

const GPUS: &str = "
policy: {lease: 20s, drain_allowance: 30s, idle_duration: 1s, heartbeat: 500ms, observe_interval: 300ms}
providers:
  local:
    type: local
    types:
      gpus: {accelerators: A100:2, cpus: 2, memory: 4, on_demand: 3.6}
";

/// An installation on a machine that seems to have two GPUs.
fn with_gpus() -> Installation {
    let mut installation = Installation::new(GPUS);
    std::fs::create_dir(installation.path("bin")).unwrap();
    let busy = installation.path("busy").display().to_string();
    installation.write("bin/nvidia-smi", NVIDIA_SMI.replace("BUSY", &busy));
    let program = installation.path("bin/nvidia-smi");
    std::fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", installation.path("bin").display(), std::env::var("PATH").unwrap());
    installation.start_with(&[("PATH", &path)]);
    installation
}

const WARY: &str = "resources: {accelerators: 'A100:2'}\n\
    utilization_policy: {min_gpu_utilization: 10, time_window: 8s}\n\
    run: trap 'echo saved; exit 3' TERM; echo begun; while :; do sleep 0.1; done\n";

#[test]
fn an_experiment_that_leaves_a_gpu_idle_is_told_to_save_and_ends() {
    let mut installation = with_gpus();
    let id = installation.submit(&format!("name: idle\n{WARY}"));
    installation.until_logged(&id, "begun");
    // How long it was idle is known to the agent, whatever becomes of the daemon.
    let path = format!("{}:{}", installation.path("bin").display(), std::env::var("PATH").unwrap());
    installation.kill();
    installation.start_with(&[("PATH", &path)]);
    let detail = installation.until_state(&id, "stopped");
    assert_eq!(detail["experiment"]["reason"], "a GPU stayed idle", "{detail:#}");
    let log = installation.logs(&id);
    assert!(log.starts_with("begun\n") && log.ends_with("saved\n"), "{log}");
    let view = installation.json(&["metrics", &id, "gpu.utilization", "gpu.memory_gib"]);
    assert_eq!(view["metrics"]["gpu.utilization"]["summary"]["mean"], 45.0, "{view}");
    assert_eq!(view["metrics"]["gpu.memory_gib"]["summary"]["last"], 3.0, "{view}");
}

#[test]
fn an_experiment_that_uses_its_gpus_runs_on() {
    let installation = with_gpus();
    installation.write("busy", "");
    let id = installation.submit(&format!("name: busy\nmax_duration: 14s\n{WARY}"));
    let detail = installation.until_state(&id, "stopped");
    assert_eq!(detail["experiment"]["reason"], "max_duration reached", "{detail:#}");
}
