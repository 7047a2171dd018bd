//! `bursar demo-train`: a small real training program, which `bursar demo` runs as its experiments.
//!
//! A demo of sleeping shell scripts would prove little. This one fits a neural network to 1797 handwritten
//! digits, keeps to the same contract with the agent as any user's program (checkpoints, metrics, interruption
//! notice, SIGTERM), and its trials differ in a result that matters, the accuracy on images held out. It is
//! part of the binary so that the demo needs no Python, no download and no network.
//!
//! The parts: [`data`] is the task, [`mlp`] the model, [`trainer`] steps, [`session`] an attempt under a clock,
//! [`checkpoint`] the file between attempts.

#![expect(clippy::float_arithmetic, reason = "this module is a model trainer")]

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use self::data::{Digits, Distortion};
use self::session::{Session, Until, Voices};
use self::trainer::{Settings, Trainer};

mod checkpoint;
mod data;
mod mlp;
mod rng;
mod session;
#[cfg(test)]
mod tests;
mod trainer;

/// Train a small neural network on handwritten digits
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TrainArgs {
    /// Learning rate
    #[arg(long, default_value_t = 0.05, value_parser = learning_rate)]
    pub(crate) lr: f32,
    /// Hidden units
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) hidden: u16,
    /// Seed of the first weights, the order of the images and their distortions
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Training time in seconds, over all attempts
    #[arg(long, default_value_t = 5.0, value_parser = training_seconds)]
    pub(crate) seconds: f64,
    /// Passes over the training images that are made even if the time is up
    #[arg(long, default_value_t = 1)]
    pub(crate) epochs: u32,
}

/// What the agent tells an experiment. All of it is optional: without an agent the program simply trains.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrainEnv {
    /// `BURSAR_CHECKPOINT_DIR`: a folder that survives the attempt.
    pub(crate) checkpoint_dir: Option<PathBuf>,
    /// `BURSAR_METRICS`: JSON lines are appended to this file.
    pub(crate) metrics: Option<PathBuf>,
    /// `BURSAR_NOTICE_FILE`: once this file exists, the machine is about to be taken away.
    pub(crate) notice_file: Option<PathBuf>,
    /// Set on SIGTERM: leave a checkpoint and end.
    pub(crate) terminate: Arc<AtomicBool>,
}

/// How an attempt that went well ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The trial has its result.
    Finished,
    /// Told to stop; another attempt goes on from the checkpoint.
    Terminated,
}

/// Why an attempt ended without a result. There is little: most unusable files only cost a warning. But a
/// folder for checkpoints that cannot be there is said at once, before an interruption shows it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainError {
    #[error("training output cannot be written")]
    Output(#[source] io::Error),
    #[error("folder for checkpoints {} cannot be made", path.display())]
    CheckpointFolder { path: PathBuf, source: io::Error },
}

/// Trains as told, for the time that earlier attempts left.
#[expect(
    clippy::disallowed_methods,
    reason = "the trainer measures its own training time, outside the daemon"
)]
pub(crate) fn run(
    args: &TrainArgs,
    env: &TrainEnv,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ended, TrainError> {
    if let Some(path) = &env.checkpoint_dir {
        std::fs::create_dir_all(path)
            .map_err(|source| TrainError::CheckpointFolder { path: path.clone(), source })?;
    }
    let TrainArgs { lr, hidden, seed, seconds, epochs } = *args;
    let settings = Settings { lr, hidden: usize::from(hidden), seed };
    let trainer = Trainer::new(settings, Digits::load(Distortion::CROOKED_SCAN));
    let until = Until { trained: Duration::from_secs_f64(seconds), epochs: u64::from(epochs) };
    let mut session = Session::open(trainer, until, env, Voices { out, err })?;
    let started = Instant::now();
    session.train(|| started.elapsed())
}

impl TrainEnv {
    /// Reads the variables and takes over SIGTERM, so call it once, in the process that trains.
    pub(crate) fn of_process() -> io::Result<Self> {
        let terminate = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&terminate))?;
        Ok(Self {
            checkpoint_dir: variable("BURSAR_CHECKPOINT_DIR"),
            metrics: variable("BURSAR_METRICS"),
            notice_file: variable("BURSAR_NOTICE_FILE"),
            terminate,
        })
    }
}

impl Ended {
    /// 143 is 128 + SIGTERM, what a shell reports for a process that the signal ended: stopped, not failed.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Finished => 0,
            Self::Terminated => 143,
        }
    }
}

/// An empty variable counts as none: that is how a shell unsets one for a single command.
#[expect(
    clippy::disallowed_methods,
    reason = "the trainer is a user's program; its contract is the environment"
)]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
}

fn learning_rate(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 100.0 => Ok(rate),
        Ok(_) | Err(_) => Err("a learning rate is a number above 0 and at most 100".to_owned()),
    }
}

fn training_seconds(text: &str) -> Result<f64, String> {
    const DAY: f64 = 86_400.0;
    match text.parse() {
        Ok(seconds) if (0.0..=DAY).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("training time is a number of seconds from 0 to 86400".to_owned()),
    }
}
