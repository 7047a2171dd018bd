//! What becomes of a notification that was not taken: pure, from what the state says of it and what the webhook said.

use bursar_model::{Backoff, DropReason, Notification, Span, Timestamp};

use super::Undelivered;

/// The pause after the first failure. It doubles with each.
const PAUSE_FIRST: Span = Span::from_secs(1);

/// The longest pause: what is mended is noticed within ten minutes.
const PAUSE_MAX: Span = Span::from_secs(600);

/// The longest pause that a webhook may ask for.
const RETRY_AFTER_MAX: Span = Span::from_hours(1);

/// How long a webhook that is down is waited for, a weekend's night at least: about 150 tries.
const KEPT_FOR: Span = Span::from_hours(24);

/// How long a webhook that refuses is waited for: somebody may mend its address or its key meanwhile. About 20 tries.
const KEPT_FOR_REFUSED: Span = Span::from_hours(2);

/// What is to be done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// When it is tried again.
    pub(crate) backoff: Backoff,
    /// It is not.
    pub(crate) dropped: Option<DropReason>,
}

/// Judges a failure.
pub(crate) fn judge(notification: &Notification, failure: &Undelivered, now: Timestamp) -> Verdict {
    let failures = notification.backoff.failures.saturating_add(1);
    // Ten doublings pass the longest pause.
    let doubled = PAUSE_FIRST.times(1 << (failures - 1).min(10));
    let asked_for = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    let pause = doubled.min(PAUSE_MAX).max(asked_for);
    let age = now.since(notification.at);
    let dropped = if age >= KEPT_FOR {
        Some(DropReason::TooOld)
    } else if failure.refused && age >= KEPT_FOR_REFUSED {
        Some(DropReason::Refused)
    } else {
        None
    };
    Verdict { backoff: Backoff { failures, not_before: Some(now + pause) }, dropped }
}

#[cfg(test)]
mod tests {
    use bursar_model::{IdGen, NotificationAbout, NotificationState, Period};

    use super::*;

    const QUEUED: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    fn failed(failures: u32) -> Notification {
        Notification {
            id: IdGen::new(1).notification(QUEUED),
            at: QUEUED,
            to: "team".to_owned(),
            about: NotificationAbout::Report {
                name: "weekly".to_owned(),
                by: "project".to_owned(),
                period: Period::new(QUEUED, QUEUED),
            },
            state: NotificationState::Waiting,
            backoff: Backoff { failures, not_before: None },
            error: None,
        }
    }

    fn down() -> Undelivered {
        Undelivered { error: "it answered 503".to_owned(), refused: false, retry_after: None }
    }

    #[test]
    fn pauses_double_from_a_second_to_ten_minutes() {
        let pauses: Vec<i64> = [0, 1, 2, 8, 9, 10, 200, u32::MAX]
            .map(|failures| {
                let backoff = judge(&failed(failures), &down(), QUEUED).backoff;
                assert_eq!(backoff.failures, failures.saturating_add(1));
                backoff.not_before.unwrap().since(QUEUED).as_millis() / 1000
            })
            .to_vec();
        assert_eq!(pauses, [1, 2, 4, 256, 512, 600, 600, 600]);
    }

    #[test]
    fn a_webhook_that_wants_to_be_left_alone_is_for_an_hour_at_most() {
        let pause = |seconds, failures| {
            let asked = Undelivered { retry_after: Some(Span::from_secs(seconds)), ..down() };
            judge(&failed(failures), &asked, QUEUED).backoff.not_before.unwrap().since(QUEUED)
        };
        assert_eq!(pause(30, 0), Span::from_secs(30));
        assert_eq!(pause(30, 9), Span::from_secs(512), "our own pause is longer");
        assert_eq!(pause(1_000_000_000, 0), Span::from_hours(1));
    }

    #[test]
    fn what_is_refused_is_given_up_after_two_hours_and_anything_after_a_day() {
        let refused = Undelivered { refused: true, ..down() };
        let after = |failure: &Undelivered, span| judge(&failed(5), failure, QUEUED + span).dropped;
        let minute = Span::from_secs(60);
        assert_eq!(after(&refused, Span::from_hours(2).saturating_sub(minute)), None);
        assert_eq!(after(&refused, Span::from_hours(2)), Some(DropReason::Refused));
        assert_eq!(after(&down(), Span::from_hours(24).saturating_sub(minute)), None);
        assert_eq!(after(&down(), Span::from_hours(24)), Some(DropReason::TooOld));
    }
}
