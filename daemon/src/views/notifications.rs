//! What webhooks are told, as it is shown.

use std::collections::BTreeMap;

use bursar_model::{
    BudgetAlert, Notification, NotificationAbout, NotificationId, NotificationState, Span, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    List, ListWanted, ViewError, Views,
    shapes::{budget_name, list},
};
use crate::reports::figures;

/// For how long a webhook may fail before somebody should look.
const FAILING_AFTER: Span = Span::from_hours(1);

/// A notification in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotificationView {
    /// Its id, which the webhook is told with every try.
    pub id: NotificationId,
    /// When it was queued.
    pub at: Timestamp,
    /// The webhook.
    pub to: String,
    /// What it tells of, for people.
    pub about: String,
    /// `waiting`, `delivered` or `dropped`.
    pub state: String,
    /// Tries so far, the one that was taken included.
    pub tries: u32,
    /// Why the last failure failed, or why it was dropped before any try.
    pub error: Option<String>,
    /// When it is tried again.
    pub next_try_at: Option<Timestamp>,
    /// When it was delivered or dropped.
    pub ended_at: Option<Timestamp>,
}

impl Views {
    /// Notifications, the newest first.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn notifications(&self, wanted: &ListWanted) -> Result<List<NotificationView>, ViewError> {
        Ok(list(self.reader.notifications(wanted.cursor()?, wanted.page())?, notification_view))
    }
}

/// The webhooks that have taken nothing for over an hour though they were to, each with the last error. Of the newest
/// notifications, in any order.
#[must_use]
pub fn failing_webhooks(newest: &[Notification], now: Timestamp) -> BTreeMap<String, String> {
    let mut took_at: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for notification in newest {
        if let NotificationState::Delivered { at } = notification.state {
            let took = took_at.entry(&notification.to).or_insert(at);
            *took = at.max(*took);
        }
    }
    let mut failing = BTreeMap::new();
    for notification in newest {
        let is_over = match notification.state {
            NotificationState::Waiting => false,
            NotificationState::Delivered { .. } => continue,
            NotificationState::Dropped { .. } => true,
        };
        let since = took_at.get(notification.to.as_str()).copied().max(Some(notification.at));
        let is_long = since.is_some_and(|since| now.since(since) >= FAILING_AFTER);
        // What was dropped before its webhook took another is over and done with.
        let is_past =
            is_over && took_at.get(notification.to.as_str()).is_some_and(|took| *took > notification.at);
        if let Some(error) = &notification.error
            && is_long
            && !is_past
        {
            failing.entry(notification.to.clone()).or_insert_with(|| error.clone());
        }
    }
    failing
}

fn notification_view(notification: Notification) -> NotificationView {
    let Notification { id, at, to, about, state, backoff, error } = notification;
    let (state, tries, reason, next_try_at, ended_at) = match state {
        NotificationState::Waiting => ("waiting", backoff.failures, None, backoff.not_before, None),
        NotificationState::Delivered { at } => {
            ("delivered", backoff.failures.saturating_add(1), None, None, Some(at))
        }
        NotificationState::Dropped { at, why } => {
            ("dropped", backoff.failures, Some(why.to_string()), None, Some(at))
        }
    };
    let error = match (reason, error) {
        (Some(reason), Some(error)) => Some(format!("{reason}; the last answer: {error}")),
        (reason, error) => reason.or(error),
    };
    let about = about_text(&about);
    NotificationView { id, at, to, about, state: state.to_owned(), tries, error, next_try_at, ended_at }
}

fn about_text(about: &NotificationAbout) -> String {
    match about {
        NotificationAbout::Budget { key, name, alert, .. } => {
            let whose = name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            let what = match alert {
                BudgetAlert::Threshold { percent } => format!("{percent}% spent"),
                BudgetAlert::Exhausted => "used up".to_owned(),
                BudgetAlert::Forecast { breach_at } => {
                    format!("will be used up by {}", figures::moment(*breach_at))
                }
                BudgetAlert::Anomaly { .. } => "costs more than expected".to_owned(),
            };
            format!("{}{whose}: {what}", budget_name(key))
        }
        NotificationAbout::IdleGpu { name, .. } => format!("experiment {name}: a GPU stays idle"),
        NotificationAbout::Report { name, period, .. } => {
            format!("report {name}, {}", figures::period(*period))
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::{Backoff, BudgetKey, DropReason, IdGen, Usd};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    fn told(minutes_ago: i64, state: NotificationState, failures: u32) -> Notification {
        let at = NOW - Span::from_secs(minutes_ago * 60);
        Notification {
            id: IdGen::new(1).notification(at),
            at,
            to: "team".to_owned(),
            about: NotificationAbout::Budget {
                key: BudgetKey::Installation,
                name: None,
                alert: BudgetAlert::Exhausted,
                limit: None,
                spent: Usd::ZERO,
                held: Usd::ZERO,
                window: None,
            },
            state,
            backoff: Backoff { failures, not_before: None },
            error: (failures > 0).then(|| "it answered 503".to_owned()),
        }
    }

    #[test]
    fn a_webhook_fails_when_it_took_nothing_for_an_hour() {
        use NotificationState::{Delivered, Dropped, Waiting};
        let delivered = |minutes_ago: i64| {
            let at = NOW - Span::from_secs(minutes_ago * 60);
            told(minutes_ago + 1, Delivered { at }, 0)
        };
        let dropped = |minutes_ago| told(minutes_ago, Dropped { at: NOW, why: DropReason::TooOld }, 9);
        let fails = |newest: &[Notification]| !failing_webhooks(newest, NOW).is_empty();
        assert!(fails(&[told(60, Waiting, 5)]));
        assert!(!fails(&[told(59, Waiting, 5)]), "it may still come back");
        assert!(!fails(&[told(600, Waiting, 0)]), "it waits its turn, or for the daemon");
        assert!(!fails(&[told(600, Waiting, 5), delivered(10)]), "it takes others");
        assert!(fails(&[told(90, Waiting, 5), delivered(100)]));
        assert!(fails(&[dropped(1500)]));
        assert!(!fails(&[dropped(1500), delivered(1000)]), "it was mended");
    }
}
