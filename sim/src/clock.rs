//! The time of a world, and what the daemon's machine takes it for.

use std::cell::Cell;

use bursar_model::{Clock, Span, Timestamp};
use tokio::time::Instant;

use crate::ground::Ground;

/// The time is asked for no more often than this without going on. A daemon that finds something to do for ever at one
/// moment would hang the world, for virtual time goes on only when everybody rests.
const ASKED_AT_ONCE_MAX: u32 = 100_000;

thread_local! {
    /// What this thread was told last, and how often. A world is one thread.
    static ASKED: Cell<(Timestamp, u32)> = Cell::default();
}

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
        let now = self.epoch + Span::from_millis(i64::try_from(run).unwrap_or(i64::MAX));
        let (told, times) = ASKED.get();
        let times = if told == now { times + 1 } else { 0 };
        ASKED.set((now, times));
        assert!(times < ASKED_AT_ONCE_MAX, "time stands still at {now}: somebody is busy without end");
        now
    }
}

/// The clock of the daemon's machine, which may be wrong. The cloud and its machines go by the true time.
#[derive(Debug, Clone)]
pub(crate) struct MachineClock {
    pub(crate) true_time: SimClock,
    pub(crate) ground: Ground,
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.ground.error_of_clock().shown(self.true_time.now())
    }
}

/// By how much the clock of the daemon's machine is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClockError {
    ahead_millis: i64,
    /// The least and the most that it ever was.
    least: i64,
    most: i64,
}

impl ClockError {
    pub(crate) fn step(&mut self, millis: i64) {
        self.ahead_millis += millis;
        self.least = self.least.min(self.ahead_millis);
        self.most = self.most.max(self.ahead_millis);
    }

    fn shown(self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.as_millis() + self.ahead_millis)
    }

    /// The books may tell of so much time more or less than the cloud does for any machine: the daemon's time is never
    /// further ahead than its machine's ever was, nor further behind.
    pub(crate) fn spread(self) -> Span {
        Span::from_millis(self.most - self.least)
    }
}
