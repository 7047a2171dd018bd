//! A sweep with asha: real trials report, pause with their checkpoint, go on, or are stopped early.

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    until,
};

use crate::books::assert_at_rest;

/// Six steps, of which each saves. The loss is the trial's number, and no number at all of the last trial.
const STEPS: &str = r#"
name: halved
checkpoint: {interval: 1s, grace: 2s}
run: |
  step=$(cat "$BURSAR_CHECKPOINT_DIR/step" 2>/dev/null || echo 0)
  echo "from $step"
  loss=$x; if [ "$x" = 8 ]; then loss=NaN; fi
  while [ "$step" -lt 6 ]; do
    sleep 0.3
    step=$((step + 1))
    echo "$step" > "$BURSAR_CHECKPOINT_DIR/new" && mv "$BURSAR_CHECKPOINT_DIR/new" "$BURSAR_CHECKPOINT_DIR/step"
    echo "{\"step\": $step, \"loss\": $loss}" >> "$BURSAR_METRICS"
  done
sweep:
  matrix: {x: 0..9}
  max_parallel: 3
  asha: {metric: loss, mode: min, min: 2, max: 6}
"#;

#[test]
fn the_best_trials_of_a_halved_sweep_run_to_their_ends_and_the_others_say_why_not() {
    let mut installation = Installation::started(QUICK);
    let sweep = installation.sweep(STEPS);
    let paused = until("a trial is paused at a rung", PATIENCE, || {
        let detail = installation.json(&["show", &sweep]);
        let trials = detail["trials"].as_array().unwrap();
        trials.iter().find(|trial| trial["waiting_on"]["on"] == "rung").cloned()
    });
    let reason = text(&paused["reason"]);
    assert!(reason.starts_with("paused by asha as rank ") && reason.contains(" at rung 0, "), "{reason}");
    // Who stands where is not forgotten.
    installation.kill();
    installation.start();
    let detail = installation.until_sweep_over(&sweep, 2 * PATIENCE);

    let trials = detail["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 9);
    let of = |x: i64| trials.iter().find(|trial| trial["params"]["x"] == x).unwrap();
    assert_eq!(of(0)["state"], "succeeded", "{detail:#}");
    let succeeded = trials.iter().filter(|trial| trial["state"] == "succeeded").count();
    assert!((3..=4).contains(&succeeded), "one in three, and one that was overtaken at most: {detail:#}");
    for trial in trials.iter().filter(|trial| trial["state"] != "succeeded") {
        assert_eq!(trial["state"], "stopped", "{detail:#}");
        assert!(text(&trial["reason"]).starts_with("early by asha, rank "), "{detail:#}");
    }
    assert_eq!(of(8)["reason"], "early by asha, rank 9 of 9 at rung 0", "what is no number is the worst");

    // Who paused went on from where it was.
    for trial in trials.iter().filter(|trial| trial["state"] == "succeeded" && trial["attempts"] != 1) {
        let log = installation.logs(text(&trial["id"]));
        let starts: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("from ")).collect();
        assert!(starts[0] == "0" && starts[1..].iter().all(|start| *start != "0"), "{log}");
    }
    let rungs = &detail["sweep"]["asha"]["rungs"];
    assert_eq!((&rungs[0]["reached"], &rungs[1]["resource"]), (&9.into(), &6.into()), "{detail:#}");
    assert_eq!(rungs[0]["best"]["trial"], of(0)["id"]);
    let shown = installation.bursar(&["show", &sweep]).with_code(0).stdout;
    assert!(shown.contains("BEST LOSS"), "{shown}");
    installation.until_empty();
    assert_at_rest(&installation, "after a halved sweep");
}
