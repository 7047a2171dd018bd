//! Attempts as the agent sees them, driven by a clock that moves a fixed bit each time it is asked.

#![expect(clippy::disallowed_methods, reason = "the tests play the agent, whose files these are")]

use std::sync::atomic::Ordering;

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// The agent's side of one experiment, and what its attempts said.
struct Agent {
    folder: TempDir,
    env: TrainEnv,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Agent {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| Some(folder.path().join(name));
        let env = TrainEnv {
            checkpoint_dir: path("checkpoints"),
            metrics: path("out/metrics.jsonl"),
            notice_file: path("notice"),
            terminate: Arc::default(),
        };
        std::fs::create_dir(folder.path().join("checkpoints")).expect("made");
        Self { folder, env, out: Vec::new(), err: Vec::new() }
    }

    /// Runs an attempt of the trial on a clock of 0.1 s a step. `at_step` happens before each step.
    fn attempt(&mut self, seconds: u64, epochs: u64, mut at_step: impl FnMut(u64, &TrainEnv)) -> Ended {
        let mut digits = Digits::load(Distortion::CROOKED_SCAN);
        // Ten steps an epoch, and quick to measure.
        digits.training.truncate(640);
        digits.held_out.truncate(50);
        let trainer = Trainer::new(Settings { lr: 0.05, hidden: 8, seed: 1 }, digits);
        let until = Until { trained: Duration::from_secs(seconds), epochs };
        let voices = Voices { out: &mut self.out, err: &mut self.err };
        let mut session = Session::open(trainer, until, &self.env, voices).expect("opened");
        let (env, mut asked) = (&self.env, 0);
        let clock = || {
            at_step(asked, env);
            asked += 1;
            Duration::from_millis(100 * asked)
        };
        session.train(clock).expect("trained")
    }

    /// What was said since the last time it was asked.
    fn heard(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out)).expect("text")
    }

    fn warned(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.err)).expect("text")
    }

    fn metrics(&self) -> Vec<Value> {
        let path = self.env.metrics.as_deref().expect("set");
        let text = std::fs::read_to_string(path).expect("metrics");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn checkpoint(&self) -> std::path::PathBuf {
        self.folder.path().join("checkpoints/checkpoint.json")
    }

    fn checkpointed_step(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.checkpoint()).ok()?;
        serde_json::from_str::<Value>(&text).expect("JSON")["body"]["step"].as_u64()
    }
}

fn nothing(_: u64, _: &TrainEnv) {}

fn steps(metrics: &[Value]) -> Vec<u64> {
    metrics.iter().map(|line| line["step"].as_u64().expect("a step")).collect()
}

#[test]
fn a_trial_reports_every_half_second_and_at_its_end() {
    let mut agent = Agent::new();
    assert_eq!(agent.attempt(2, 1, nothing), Ended::Finished);
    let metrics = agent.metrics();
    assert_eq!(steps(&metrics), [5, 10, 15, 20]);
    let fields: Vec<&String> = metrics[3].as_object().expect("an object").keys().collect();
    let mut expected = ["step", "epoch", "loss", "accuracy", "trained_seconds"];
    expected.sort_unstable();
    assert!(fields.iter().all(|field| expected.contains(&field.as_str())) && fields.len() == 5, "{fields:?}");
    assert_eq!((&metrics[3]["epoch"], &metrics[3]["trained_seconds"]), (&2.into(), &2.0.into()));
    let heard = agent.heard();
    assert_eq!(heard.lines().count(), 5, "{heard}");
    assert!(heard.starts_with("epoch 0, step 5, 0.5 s of 2.0 s: loss "), "{heard}");
    assert!(heard.lines().last().expect("a line").starts_with("finished: accuracy "), "{heard}");
    assert_eq!(agent.warned(), "");
}

#[test]
fn the_epochs_asked_for_are_made_though_the_time_is_up() {
    let mut agent = Agent::new();
    agent.attempt(0, 3, nothing);
    assert_eq!(agent.metrics().last().expect("a line")["step"], 30);
}

#[test]
fn a_terminated_attempt_is_resumed_where_it_stopped_and_ends_as_if_uninterrupted() {
    let mut whole = Agent::new();
    whole.attempt(3, 1, nothing);

    let mut agent = Agent::new();
    let terminate = |step, env: &TrainEnv| env.terminate.store(step == 12, Ordering::Relaxed);
    assert_eq!(agent.attempt(3, 1, terminate), Ended::Terminated);
    assert_eq!((Ended::Terminated.exit_code(), agent.checkpointed_step()), (143, Some(12)));
    assert!(agent.heard().ends_with("told to terminate: stopped at epoch 1, step 12, 1.2 s\n"));
    agent.env.terminate.store(false, Ordering::Relaxed);
    assert_eq!(agent.attempt(3, 1, nothing), Ended::Finished);
    assert!(agent.heard().starts_with("resumed from checkpoint at epoch 1 (1.2 s trained)\n"));

    // All but the time is the same; the clock's first bit belongs to no step.
    let weights = |agent: &Agent| {
        let text = std::fs::read_to_string(agent.checkpoint()).expect("a checkpoint");
        let body = serde_json::from_str::<Value>(&text).expect("JSON")["body"].clone();
        (body["step"].clone(), body["weights"].clone(), body["momentum"].clone(), body["rng"].clone())
    };
    assert!(weights(&agent) == weights(&whole));
}

#[test]
fn a_finished_trial_that_is_started_again_only_says_its_result() {
    let mut agent = Agent::new();
    agent.attempt(1, 1, nothing);
    agent.heard();
    assert_eq!(agent.attempt(1, 1, nothing), Ended::Finished);
    assert_eq!(steps(&agent.metrics()), [5, 10, 10]);
    let heard = agent.heard();
    assert_eq!(heard.lines().count(), 3, "{heard}");
}

#[test]
fn a_notice_brings_a_checkpoint_at_once_and_training_goes_on() {
    let mut agent = Agent::new();
    let notice = agent.env.notice_file.clone().expect("set");
    let checkpoint = agent.checkpoint();
    let give = |step, _: &TrainEnv| match step {
        2 => std::fs::write(&notice, "").expect("written"),
        3 => assert!(checkpoint.exists(), "the step after the notice comes after its checkpoint"),
        _ => {}
    };
    assert_eq!(agent.attempt(1, 1, give), Ended::Finished);
    let heard = agent.heard();
    assert!(
        heard.starts_with("interruption notice: checkpoint written at epoch 0, step 2, 0.2 s\n"),
        "{heard}"
    );
    assert_eq!(heard.matches("notice").count(), 1, "{heard}");
    assert_eq!(steps(&agent.metrics()), [5, 10]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_step_is_checkpointed_before_it_is_reported() {
    let mut agent = Agent::new();
    // Neither can be done, so the order of the warnings is the order of the attempts to do them.
    agent.env.checkpoint_dir = Some(agent.folder.path().join("missing"));
    agent.env.metrics = Some("/dev/full".into());
    assert_eq!(agent.attempt(1, 1, nothing), Ended::Finished);
    let warned = agent.warned();
    let problems: Vec<&str> = warned.lines().filter_map(|line| line.split(':').nth(1)).collect();
    assert_eq!(problems, [" no checkpoint", " no more metrics", " no checkpoint"], "{warned}");
}

#[test]
fn the_best_accuracy_of_an_earlier_attempt_is_remembered() {
    let mut agent = Agent::new();
    agent.attempt(1, 1, nothing);
    let folder = agent.env.checkpoint_dir.clone().expect("set");
    let settings = Settings { lr: 0.05, hidden: 8, seed: 1 };
    let saved = checkpoint::load(&folder, settings).expect("readable").expect("there");
    checkpoint::save(&folder, settings, &checkpoint::Checkpoint { best_correct: 50, ..saved })
        .expect("saved");
    agent.attempt(2, 1, nothing);
    let heard = agent.heard();
    assert!(heard.contains("(best 1.000) at epoch 2, step 20"), "{heard}");
}

#[test]
fn a_damaged_checkpoint_is_said_and_training_starts_anew() {
    let mut agent = Agent::new();
    std::fs::write(agent.checkpoint(), "{\"checksum\":").expect("written");
    assert_eq!(agent.attempt(1, 1, nothing), Ended::Finished);
    let warned = agent.warned();
    assert!(warned.starts_with("warning: starting anew: checkpoint "), "{warned}");
    assert!(warned.contains("checkpoint.json is damaged: EOF while parsing"), "{warned}");
    assert_eq!((warned.lines().count(), agent.checkpointed_step()), (1, Some(10)));
}

#[test]
fn files_that_cannot_be_written_cost_a_warning_and_not_the_result() {
    let mut agent = Agent::new();
    let file = agent.folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    agent.env.checkpoint_dir = Some(file.join("checkpoints"));
    agent.env.metrics = Some(file.join("metrics"));
    assert_eq!(agent.attempt(1, 1, nothing), Ended::Finished);
    let warned = agent.warned();
    assert_eq!(warned.matches("warning: no metrics: ").count(), 1, "{warned}");
    assert!(warned.contains("warning: no checkpoint: "), "{warned}");
}

#[test]
fn without_an_agent_it_simply_trains() {
    let args = TrainArgs { lr: 0.05, hidden: 8, seed: 1, seconds: 0.0, epochs: 1 };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = run(&args, &TrainEnv::default(), &mut out, &mut err).expect("trained");
    assert_eq!((ended, ended.exit_code(), err), (Ended::Finished, 0, Vec::new()));
}

#[test]
fn a_checkpoint_folder_that_cannot_be_made_is_said_before_training() {
    let args = TrainArgs { lr: 0.05, hidden: 8, seed: 1, seconds: 0.0, epochs: 1 };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let env = TrainEnv { checkpoint_dir: Some(file), ..TrainEnv::default() };
    let error = run(&args, &env, &mut Vec::new(), &mut Vec::new()).expect_err("refused");
    assert!(matches!(error, TrainError::CheckpointFolder { .. }), "{error}");
}

#[test]
fn arguments_out_of_range_are_refused_with_the_range() {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: TrainArgs,
    }
    let line = |text: &str| Line::try_parse_from(text.split(' '));
    let args =
        line("demo-train --lr 0.1 --hidden 64 --seed 3 --seconds 2.5 --epochs 4").expect("parsed").args;
    assert_eq!((args.lr, args.hidden, args.seed, args.seconds, args.epochs), (0.1, 64, 3, 2.5, 4));
    let defaults = line("demo-train").expect("parsed").args;
    assert_eq!((defaults.lr, defaults.hidden, defaults.epochs), (0.05, 32, 1));
    for (text, range) in [
        ("demo-train --lr 0", "above 0 and at most 100"),
        ("demo-train --lr NaN", "above 0 and at most 100"),
        ("demo-train --hidden 0", "1..=1024"),
        ("demo-train --seconds=-1", "from 0 to 86400"),
        ("demo-train --seconds inf", "from 0 to 86400"),
    ] {
        let error = line(text).expect_err(text).to_string();
        assert!(error.contains(range), "{error}");
    }
}

#[test]
fn the_shipped_digits_are_the_published_ones() {
    let digits = Digits::load(Distortion::NONE);
    assert_eq!((digits.training.len(), digits.held_out.len()), (1415, 1528));
    let mut of_class = [0; data::CLASSES];
    // Each held-out image is there four times.
    digits.training.iter().for_each(|digit| of_class[usize::from(digit.label)] += 4);
    digits.held_out.iter().for_each(|digit| of_class[usize::from(digit.label)] += 1);
    // The class distribution that the publishers give for this file.
    assert_eq!(of_class.map(|count| count / 4), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    let ink: f32 = digits.training[0].image.iter().sum();
    assert_eq!((digits.training[0].label, ink * 16.0), (0, 294.0));
}

#[test]
fn a_distortion_moves_the_ink_but_keeps_about_as_much_of_it() {
    let digits = Digits::load(Distortion::NONE);
    let mut rng = rng::Rng::from_state(5);
    let distortion = Distortion { noise: 0.0, ..Distortion::CROOKED_SCAN };
    let (mut before, mut after) = (0.0, 0.0);
    for digit in &digits.training[..200] {
        let mut image = digit.image;
        distortion.apply(&digit.image, &mut rng, &mut image);
        assert_ne!(image, digit.image);
        before += digit.image.iter().sum::<f32>();
        after += image.iter().sum::<f32>();
    }
    assert!((after / before - 1.0).abs() < 0.1, "{before} {after}");
}

#[test]
fn the_generator_is_splitmix64() {
    let mut rng = rng::Rng::from_state(1_234_567);
    let drawn = [(); 3].map(|()| rng.next_u64());
    // The reference output for this seed.
    assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
}
