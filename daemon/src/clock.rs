//! The time that the daemon goes by: the machine's clock, made so that it never runs back.
//!
//! Clocks of machines are put right, by hand and by NTP, and stand still while a machine is suspended. What the daemon
//! writes down has to be in order all the same, over restarts too. So a step back is not followed: time goes on from where
//! it was. A step forward is: after a suspend the clock is right, and leases have run on meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use bursar_model::{Clock, Span, Timestamp};
use tokio::time::Instant;
use tracing::warn;

/// Clocks are put right by less than this all the time.
const STEP_TOLD: Span = Span::from_secs(5);

/// The machine's clock: the one place that asks the machine for the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that all others are given")]
    fn now(&self) -> Timestamp {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that never runs back, over one that may be set. It shows what that one shows, or what has gone by since where
/// that is more.
#[derive(Debug)]
pub struct SteadyClock {
    wall: Arc<dyn Clock>,
    anchor: Mutex<Anchor>,
}

/// Where time is counted from.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    instant: Instant,
    /// What the clock that may be set showed then.
    wall: Timestamp,
    /// What this one showed then.
    time: Timestamp,
}

impl SteadyClock {
    /// Begins no earlier than the newest commit, so that what two lives of a daemon wrote down is in order.
    #[must_use]
    pub fn new(wall: Arc<dyn Clock>, newest_commit: Option<Timestamp>) -> Self {
        let (instant, shows) = (Instant::now(), wall.now());
        let time = newest_commit.map_or(shows, |newest| newest.max(shows));
        if time.since(shows) >= STEP_TOLD {
            warn!(%shows, newest_commit = %time,
                "the machine's clock is behind the newest commit: time goes on from there");
        }
        Self { wall, anchor: Mutex::new(Anchor { instant, wall: shows, time }) }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        // Changed in one step, so that a panic elsewhere leaves nothing half-done.
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let (instant, shows) = (Instant::now(), self.wall.now());
        let went_by = elapsed(anchor.instant, instant);
        let (expected, steady) = (anchor.wall + went_by, anchor.time + went_by);
        let time = steady.max(shows);
        let has_stepped = shows.since(expected).max(expected.since(shows)) >= STEP_TOLD;
        if has_stepped {
            warn!(%expected, %shows, goes_by = %time, "the machine's clock has stepped");
        }
        // Not at every look: each would lose what is less than a millisecond.
        if has_stepped || shows > steady {
            *anchor = Anchor { instant, wall: shows, time };
        }
        time
    }
}

/// What has gone by between two instants.
pub(crate) fn elapsed(since: Instant, until: Instant) -> Span {
    let millis = until.saturating_duration_since(since).as_millis();
    Span::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    /// Runs with tokio's time and is set by hand.
    #[derive(Debug)]
    struct Wall {
        began: Instant,
        ahead_millis: AtomicI64,
    }

    impl Wall {
        fn at_noon() -> Arc<Self> {
            Arc::new(Self { began: Instant::now(), ahead_millis: AtomicI64::new(0) })
        }

        fn step(&self, secs: i64) {
            self.ahead_millis.fetch_add(secs * 1000, Ordering::Relaxed);
        }
    }

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            let run = elapsed(self.began, Instant::now()).as_millis();
            Timestamp::from_millis(NOON.as_millis() + run + self.ahead_millis.load(Ordering::Relaxed))
        }
    }

    async fn pass(secs: u64) {
        tokio::time::advance(std::time::Duration::from_secs(secs)).await;
    }

    fn secs_after_noon(clock: &SteadyClock) -> i64 {
        (clock.now().as_millis() - NOON.as_millis()) / 1000
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_what_the_machine_shows_while_that_is_left_alone() {
        let wall = Wall::at_noon();
        let clock = SteadyClock::new(wall.clone(), None);
        for _ in 0..1000 {
            tokio::time::advance(std::time::Duration::from_micros(7_300)).await;
            assert_eq!(clock.now(), wall.now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_back_is_not_followed_and_time_goes_on_as_fast_as_ever() {
        let wall = Wall::at_noon();
        let clock = SteadyClock::new(wall.clone(), None);
        pass(10).await;
        wall.step(-3600);
        let mut before = clock.now();
        for _ in 0..10_000 {
            tokio::time::advance(std::time::Duration::from_micros(1_900)).await;
            let now = clock.now();
            assert!(now >= before);
            before = now;
        }
        assert_eq!(secs_after_noon(&clock), 29);
        // Put right again, it is where it would have been anyway.
        wall.step(3600);
        assert_eq!(secs_after_noon(&clock), 29);
        pass(1).await;
        assert_eq!(clock.now(), wall.now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_forward_is_followed_and_taken_back_by_nothing() {
        let wall = Wall::at_noon();
        let clock = SteadyClock::new(wall.clone(), None);
        wall.step(7200);
        assert_eq!(secs_after_noon(&clock), 7200);
        wall.step(-7200);
        pass(60).await;
        assert_eq!(secs_after_noon(&clock), 7260);
        // A step that stays behind what it shows already changes nothing; one beyond does.
        wall.step(3600);
        assert_eq!(secs_after_noon(&clock), 7260);
        wall.step(7200);
        assert_eq!(secs_after_noon(&clock), 60 + 10_800);
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_begins_no_earlier_than_the_newest_commit() {
        let wall = Wall::at_noon();
        let commit = NOON + Span::from_secs(500);
        let clock = SteadyClock::new(wall.clone(), Some(commit));
        assert_eq!(clock.now(), commit);
        pass(20).await;
        assert_eq!(secs_after_noon(&clock), 520);
        pass(2).await;
        let next = SteadyClock::new(wall, Some(NOON));
        assert_eq!(secs_after_noon(&next), 22, "an older commit holds nobody back");
    }
}
