//! One attempt at a trial: resume, train for the time that is left, report twice a second, leave checkpoints.
//!
//! What is done when depends on a clock that is passed in, so that tests drive it without waiting. A report
//! comes after the checkpoint of its step, so that an interruption never takes back what was reported.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::checkpoint::{self, Checkpoint};
use super::trainer::{Score, Trainer};
use super::{Ended, TrainEnv, TrainError};

/// How often the model is measured, checkpointed and reported: often enough to watch, and so rarely that
/// measuring (about 2 ms) and forcing a file to disk cost a small part of the time.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// How often the notice file is looked for. A notice gives seconds to minutes, a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a trial has had enough: both must be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// Of training time, over all attempts.
    pub(super) trained: Duration,
    pub(super) epochs: u64,
}

/// Where the attempt speaks to people.
pub(super) struct Voices<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) err: &'a mut dyn Write,
}

pub(super) struct Session<'a> {
    trainer: Trainer,
    until: Until,
    env: &'a TrainEnv,
    voices: Voices<'a>,
    metrics: Option<std::fs::File>,
    trained: Duration,
    best_correct: u32,
}

impl<'a> Session<'a> {
    /// Resumes from the checkpoint if there is one that fits. Files that cannot be used cost a warning, not the
    /// trial: losing a graph or a resumption is better than losing the result.
    pub(super) fn open(
        trainer: Trainer,
        until: Until,
        env: &'a TrainEnv,
        voices: Voices<'a>,
    ) -> Result<Self, TrainError> {
        let (trained, best_correct) = (Duration::ZERO, 0);
        let mut session = Self { trainer, until, env, voices, metrics: None, trained, best_correct };
        if let Some(path) = &env.metrics {
            match open_metrics(path) {
                Ok(file) => session.metrics = Some(file),
                Err(error) => {
                    session.warn(&format!("no metrics: {} cannot be opened", path.display()), &error)?
                }
            }
        }
        session.resume()?;
        Ok(session)
    }

    /// Trains until the trial or the process is to end. `clock` gives the time since any fixed moment.
    pub(super) fn train(&mut self, mut clock: impl FnMut() -> Duration) -> Result<Ended, TrainError> {
        let mut last = clock();
        let mut reported = last;
        let mut looked: Option<Duration> = None;
        let mut noticed = false;
        // Bounded: each turn trains a step and takes time, and both limits are finite.
        while !self.is_done() {
            self.trainer.step();
            let now = clock();
            self.trained += now.saturating_sub(last);
            last = now;
            if self.env.terminate.load(Ordering::Relaxed) {
                self.save()?;
                self.say(&format!("told to terminate: stopped at {}", self.position()))?;
                return Ok(Ended::Terminated);
            }
            if looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK_EVERY) {
                looked = Some(now);
                let notice = self.env.notice_file.as_deref().is_some_and(Path::exists);
                if notice && !noticed {
                    self.save()?;
                    self.say(&format!("interruption notice: checkpoint written at {}", self.position()))?;
                }
                noticed = notice;
            }
            if now.saturating_sub(reported) >= REPORT_EVERY && !self.is_done() {
                reported = now;
                self.report()?;
            }
        }
        let score = self.report()?;
        let best = self.trainer.accuracy(self.best_correct);
        let position = self.position();
        self.say(&format!("finished: accuracy {:.3} (best {best:.3}) at {position}", score.accuracy))?;
        Ok(Ended::Finished)
    }

    fn is_done(&self) -> bool {
        let Until { trained, epochs } = self.until;
        self.trained >= trained && self.trainer.epochs_done() >= epochs
    }

    fn resume(&mut self) -> Result<(), TrainError> {
        let Some(folder) = &self.env.checkpoint_dir else { return Ok(()) };
        match checkpoint::load(folder, self.trainer.settings()) {
            Ok(None) => Ok(()),
            Ok(Some(Checkpoint { state, epoch, trained_micros, best_correct })) => {
                self.trainer.restore(state);
                self.trained = Duration::from_micros(trained_micros);
                self.best_correct = best_correct;
                let seconds = self.trained.as_secs_f64();
                self.say(&format!("resumed from checkpoint at epoch {epoch} ({seconds:.1} s trained)"))
            }
            Err(error) => self.warn("starting anew", &error),
        }
    }

    /// Measures, and makes the measurement known to the next attempt, the agent and people, in this order.
    fn report(&mut self) -> Result<Score, TrainError> {
        let score = self.trainer.measure();
        self.best_correct = self.best_correct.max(score.correct);
        self.save()?;
        self.append_metrics(score)?;
        let best = self.trainer.accuracy(self.best_correct);
        let of = self.until.trained.as_secs_f64();
        let Score { correct: _, accuracy, loss } = score;
        let position = self.position();
        self.say(&format!(
            "{position} of {of:.1} s: loss {loss:.3}, accuracy {accuracy:.3} (best {best:.3})"
        ))?;
        Ok(score)
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let Some(folder) = &self.env.checkpoint_dir else { return Ok(()) };
        let checkpoint = Checkpoint {
            state: self.trainer.state(),
            epoch: self.trainer.epochs_done(),
            trained_micros: u64::try_from(self.trained.as_micros()).unwrap_or(u64::MAX),
            best_correct: self.best_correct,
        };
        match checkpoint::save(folder, self.trainer.settings(), &checkpoint) {
            Ok(()) => Ok(()),
            Err(error) => {
                let problem = format!("no checkpoint: {} cannot be written", folder.display());
                self.warn(&problem, &error)
            }
        }
    }

    /// One line, one write: the agent reads the file while we append to it, and must not see half a line.
    fn append_metrics(&mut self, score: Score) -> Result<(), TrainError> {
        let Some(file) = &mut self.metrics else { return Ok(()) };
        let line = MetricsLine {
            step: self.trainer.steps_done(),
            epoch: self.trainer.epochs_done(),
            loss: score.loss,
            accuracy: score.accuracy,
            trained_seconds: self.trained.as_secs_f64(),
        };
        let line = serde_json::to_string(&line).expect("numbers always serialize") + "\n";
        match file.write_all(line.as_bytes()) {
            Ok(()) => Ok(()),
            Err(error) => {
                // A second warning would say nothing new.
                self.metrics = None;
                self.warn("no more metrics", &error)
            }
        }
    }

    fn position(&self) -> String {
        let (epoch, step) = (self.trainer.epochs_done(), self.trainer.steps_done());
        format!("epoch {epoch}, step {step}, {:.1} s", self.trained.as_secs_f64())
    }

    fn say(&mut self, line: &str) -> Result<(), TrainError> {
        writeln!(self.voices.out, "{line}").and_then(|()| self.voices.out.flush()).map_err(TrainError::Output)
    }

    fn warn(&mut self, problem: &str, error: &dyn Error) -> Result<(), TrainError> {
        let mut line = format!("warning: {problem}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            line += &format!(": {error}");
            cause = error.source();
        }
        writeln!(self.voices.err, "{line}").and_then(|()| self.voices.err.flush()).map_err(TrainError::Output)
    }
}

/// A line of `BURSAR_METRICS`. Loss and accuracy are those of the held-out images.
#[derive(Serialize)]
struct MetricsLine {
    step: u64,
    epoch: u64,
    loss: f64,
    accuracy: f64,
    trained_seconds: f64,
}

#[expect(clippy::disallowed_methods, reason = "the trainer is a user's program; metrics are its file")]
fn open_metrics(path: &Path) -> io::Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::File::options().append(true).create(true).open(path)
}
