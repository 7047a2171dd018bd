//! When to begin to stop, so that everything has ended by a hard deadline: the end of the lease, or the moment at which
//! the cloud takes the instance back.

use std::time::Duration;

use tokio::time::Instant;

/// Kept between the last SIGKILL and the deadline, for the kernel to clear up.
pub(crate) const KILL_MARGIN: Duration = Duration::from_millis(300);

/// Kept between the earliest end of the grace and the deadline, for the last of the log to be delivered.
const LANDING_MARGIN: Duration = Duration::from_secs(1);

/// Longer than any lease without renewal, notice or grace. Whatever says more is cut, so that nonsense cannot overflow a
/// clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A moment by which nothing may run any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The moment.
    at: Instant,
    /// The longest time that was ever left until the deadline.
    longest: Duration,
}

impl Deadline {
    /// So long after now.
    pub(crate) fn after(now: Instant, remaining: Duration) -> Self {
        let longest = remaining.min(LONGEST);
        Self { at: now + longest, longest }
    }

    /// The moment.
    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// Moves the deadline to so long after `since`, unless it is later already: an answer that was on its way for long
    /// tells of an earlier end than the true one. Says whether it moved.
    pub(crate) fn extend(&mut self, since: Instant, remaining: Duration) -> bool {
        let remaining = remaining.min(LONGEST);
        let later = since + remaining > self.at;
        if later {
            self.at = since + remaining;
            self.longest = self.longest.max(remaining);
        }
        later
    }

    /// When to send SIGTERM to work that may take `grace` to end. Never in the first half of the time given, so that a
    /// lease or a notice that is shorter than the grace leaves time to work, or for the daemon to decide.
    pub(crate) fn landing(self, grace: Duration) -> Instant {
        let ahead = (grace + LANDING_MARGIN).min(self.longest / 2);
        self.at.checked_sub(ahead).unwrap_or(self.at)
    }

    /// When to send SIGKILL at the latest.
    pub(crate) fn last_kill(self) -> Instant {
        self.at.checked_sub(KILL_MARGIN).unwrap_or(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn work_is_told_to_stop_so_early_that_its_grace_fits() {
        let now = Instant::now();
        assert_eq!(Deadline::after(now, secs(100)).landing(secs(30)), now + secs(69));
    }

    #[test]
    fn a_lease_shorter_than_the_grace_leaves_half_of_it_for_work() {
        let now = Instant::now();
        assert_eq!(Deadline::after(now, secs(20)).landing(secs(30)), now + secs(10));
    }

    #[test]
    fn a_slow_answer_never_shortens_the_lease() {
        let now = Instant::now();
        let mut lease = Deadline::after(now, secs(60));
        assert!(!lease.extend(now + secs(1), secs(40)));
        assert_eq!(lease.at(), now + secs(60));
        assert!(lease.extend(now + secs(10), secs(60)));
        assert_eq!(lease.at(), now + secs(70));
    }

    #[test]
    fn renewals_by_little_near_the_end_keep_the_whole_grace() {
        let now = Instant::now();
        let mut lease = Deadline::after(now, secs(100));
        assert!(lease.extend(now + secs(91), secs(10)));
        assert_eq!(lease.landing(secs(30)), now + secs(70));
    }
}
