//! What the daemon is told of an attempt.

use std::time::Duration;

use bursar_model::{
    RanWith,
    agent_api::{AttemptReport, ReportedState, Stream},
};
use tokio::time::Instant;

use super::{Attempt, Stage};
use crate::{delivery::Delivery, saver::Saver, wall_clock};

/// What it runs with, and whether the daemon knows.
#[derive(Debug)]
pub(super) enum Record {
    /// Not known yet.
    Open,
    /// To be told; `sent` with the report whose answer is waited for.
    Made { ran_with: RanWith, sent: bool },
    /// The daemon has it.
    Told,
}

impl Attempt {
    /// Its log or its metrics, on their way to the daemon.
    pub(crate) fn delivery(&mut self, stream: Stream) -> &mut Delivery {
        match stream {
            Stream::Log => &mut self.log,
            Stream::Metrics => &mut self.points,
        }
    }

    /// The daemon has answered the newest report.
    pub(crate) fn answered(&mut self) {
        if let Record::Made { sent: true, .. } = self.record {
            self.record = Record::Told;
        }
    }

    /// Where it is, without looking at any file of the experiment.
    pub(crate) fn reported_state(&self, now: Instant) -> ReportedState {
        let since = |moment: Instant| millis(now.saturating_duration_since(moment));
        match (&self.stage, self.started) {
            (Stage::Over { end, at }, started) if self.is_told() => ReportedState::Ended {
                age_ms: since(*at),
                ran_ms: started.map(|started| millis(at.saturating_duration_since(started.at))),
                end: end.clone(),
            },
            (_, Some(started)) => ReportedState::Running { age_ms: since(started.at) },
            (_, None) => ReportedState::Preparing,
        }
    }

    /// All that the daemon wants to know.
    pub(crate) fn report(&mut self, now: Instant) -> AttemptReport {
        AttemptReport {
            attempt: self.id,
            state: self.reported_state(now),
            checkpoint_age_ms: self.checkpoint_age_ms(),
            checkpoint_took_ms: self.saver.as_ref().and_then(Saver::newest).map(|(_, took)| millis(took)),
            metrics: self.metrics.newest().clone(),
            ran_with: match &mut self.record {
                Record::Made { ran_with, sent } => {
                    *sent = true;
                    Some(ran_with.clone())
                }
                Record::Open | Record::Told => None,
            },
            gpu_idle_ms: self.idle_gpus.longest(now).map(millis),
        }
    }

    /// Whether the daemon has all of its log and metrics, or never will.
    pub(super) fn is_told(&self) -> bool {
        self.reported && self.log.is_delivered() && self.points.is_delivered()
    }

    /// Only what this attempt saved counts: an older checkpoint was reported by the attempt that made it.
    fn checkpoint_age_ms(&mut self) -> Option<u64> {
        // Of several nodes the first stores for all.
        let started = self.started.filter(|_| self.work.rank == 0)?;
        let now = wall_clock();
        let saved = match &self.saver {
            // What lies on the instance goes with it.
            Some(saver) if saver.saves() => saver.newest()?.0,
            Some(_) | None => self.checkpoints.newest(now)?,
        };
        (saved > started.wall).then(|| now.since(saved).as_millis().unsigned_abs())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
