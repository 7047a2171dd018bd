//! The time of a world.

use bursar_model::{Clock, Span, Timestamp};
use tokio::time::Instant;

/// Tells virtual time: a moment in history plus what tokio's paused clock has run since. Only inside the world's runtime.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    began: Instant,
    epoch: Timestamp,
}

impl SimClock {
    /// A clock that shows `epoch` now.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { began: Instant::now(), epoch }
    }

    /// When tokio reaches this moment.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.began + at.since(self.epoch).to_std()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let run = self.began.elapsed().as_millis();
        self.epoch + Span::from_millis(i64::try_from(run).unwrap_or(i64::MAX))
    }
}
