//! Telling people: what waits in the outbox is delivered, spending is looked ahead, reports fire.
//!
//! As with all effects, what is to be done follows from the state alone. Each delivery is one call in a task of its own,
//! whose result comes back as a message; nothing is retried inside, the back-off is kept in the state. A crash between
//! a delivery and its commit delivers again, with the same id, by which the receiver can tell.

mod body;
mod failure;
mod letter;
mod lookout;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use bursar_config::{NotificationKind, Notifications, ScheduledReport, Webhook};
use bursar_model::{BudgetAlert, Fleet, Notification, NotificationId, Period, Schedule, Span, Timestamp};
use bursar_policies::outlook::outlook;
use bursar_store::Reader;

pub(crate) use self::failure::{Verdict, judge};
pub use self::webhook::{HttpCourier, TestAnswer};
use crate::inbox::{Inbox, Message};

/// Deliveries under way at once: whoever is told reads no faster, and each holds a connection.
const DELIVERIES_MAX: usize = 4;

/// How often spending is looked ahead. A forecast by the hour is no better for being made by the minute.
const LOOK_EVERY: Span = Span::from_secs(300);

/// Brings a notification to its webhook.
#[async_trait]
pub trait Courier: Send + Sync + fmt::Debug {
    /// Tries once, within bounded time.
    async fn deliver(&self, to: &Webhook, notification: &Notification) -> Result<(), Undelivered>;
}

/// Why a webhook did not take a notification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Undelivered {
    /// For people. Never the address, which may be a secret.
    pub error: String,
    /// The webhook says that the fault is on our side: to try again will hardly help.
    pub refused: bool,
    /// It wants to be left alone for so long.
    pub retry_after: Option<Span>,
}

/// What is under way and what is due. Not durable: after a restart the state demands the same again.
#[derive(Debug)]
pub(crate) struct Notifier {
    courier: Arc<dyn Courier>,
    reader: Reader,
    inbox: Inbox,
    /// One for each webhook at most, so that it hears in order.
    in_flight: BTreeMap<String, NotificationId>,
    /// Taken by their webhook though the store does not say so yet: told again, not sent again.
    delivered: BTreeSet<NotificationId>,
    looking: bool,
    looked_at: Option<Timestamp>,
    firings: Firings,
}

/// Of each report, by its schedule and up to where it has come, when it fires next: worked out once, not at every turn.
type Firings = BTreeMap<String, (Schedule, Timestamp, Option<Timestamp>)>;

/// What an alert of a budget is about.
pub(crate) fn kind_of(alert: BudgetAlert) -> NotificationKind {
    match alert {
        BudgetAlert::Threshold { .. } => NotificationKind::Threshold,
        BudgetAlert::Exhausted => NotificationKind::Exhausted,
        BudgetAlert::Forecast { .. } => NotificationKind::Forecast,
        BudgetAlert::Anomaly { .. } => NotificationKind::Anomaly,
    }
}

/// The webhooks that want to hear of this.
pub(crate) fn who_wants(config: &Notifications, kind: NotificationKind) -> Vec<String> {
    let webhooks = config.webhooks.iter();
    webhooks.filter(|(_, webhook)| webhook.events.contains(&kind)).map(|(name, _)| name.clone()).collect()
}

impl Notifier {
    pub(crate) fn new(courier: Arc<dyn Courier>, reader: Reader, inbox: Inbox) -> Self {
        Self {
            courier,
            reader,
            inbox,
            in_flight: BTreeMap::new(),
            delivered: BTreeSet::new(),
            looking: false,
            looked_at: None,
            firings: BTreeMap::new(),
        }
    }

    /// The scheduled reports whose time has come, each with what it covers: all firings that were missed together.
    pub(crate) fn reports_due(
        &mut self,
        config: &Notifications,
        fleet: &Fleet,
        now: Timestamp,
    ) -> Vec<(ScheduledReport, Period)> {
        let due = |report: &ScheduledReport| {
            next_firing(&mut self.firings, fleet, report).filter(|at| *at <= now)?;
            let from = *fleet.reported.get(&report.name)?;
            let to = report.schedule.last_at_or_before(now)?;
            Some((report.clone(), Period::new(from, to)))
        };
        config.reports.iter().filter_map(due).collect()
    }

    /// A delivery has come back.
    pub(crate) fn delivery_done(&mut self, id: NotificationId, is_delivered: bool) {
        self.in_flight.retain(|_, in_flight| *in_flight != id);
        if is_delivered {
            self.delivered.insert(id);
        }
    }

    /// A look ahead has come back.
    pub(crate) fn look_done(&mut self) {
        self.looking = false;
    }

    /// Starts all that is due. Answers with when more will be.
    pub(crate) fn start_due(
        &mut self,
        config: &Notifications,
        fleet: &Fleet,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let deliver_at = self.deliver(config, fleet, now);
        let look_at = self.look(fleet, now);
        let firings = &mut self.firings;
        let reports = config.reports.iter().filter_map(|report| next_firing(firings, fleet, report));
        [deliver_at, look_at].into_iter().flatten().chain(reports).min()
    }

    fn deliver(&mut self, config: &Notifications, fleet: &Fleet, now: Timestamp) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        self.delivered.retain(|id| fleet.outbox.contains_key(id));
        let mut heads: BTreeMap<&str, &Notification> = BTreeMap::new();
        for notification in fleet.outbox.values() {
            heads.entry(&notification.to).or_insert(notification);
        }
        for (to, head) in heads {
            // What was queued for a webhook that is no longer named was dropped with its name.
            let Some(webhook) = config.webhooks.get(to) else { continue };
            if self.in_flight.contains_key(to) {
                continue;
            }
            if let Some(at) = head.backoff.not_before.filter(|at| *at > now) {
                next = Some(next.map_or(at, |before| before.min(at)));
            } else if self.in_flight.len() < DELIVERIES_MAX {
                self.in_flight.insert(to.to_owned(), head.id);
                self.bring(webhook.clone(), head.clone());
            }
        }
        next
    }

    fn bring(&self, to: Webhook, notification: Notification) {
        let (courier, inbox) = (self.courier.clone(), self.inbox.clone());
        let is_delivered = self.delivered.contains(&notification.id);
        tokio::spawn(async move {
            let result = if is_delivered { Ok(()) } else { courier.deliver(&to, &notification).await };
            // Nobody is left to hear it when the daemon stops.
            let _ = inbox.tell(Message::Delivered { notification: notification.id, result }).await;
        });
    }

    /// The look is a task beside the loop: it asks the store a few questions.
    fn look(&mut self, fleet: &Fleet, now: Timestamp) -> Option<Timestamp> {
        if self.looking {
            return None;
        }
        let look_at = self.looked_at.map_or(now, |at| at + LOOK_EVERY);
        if look_at > now {
            return Some(look_at);
        }
        self.looked_at = Some(now);
        let outlook = outlook(fleet);
        if outlook.budgets.is_empty() && outlook.experiments.is_empty() {
            return Some(now + LOOK_EVERY);
        }
        self.looking = true;
        let (reader, inbox) = (self.reader.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let alerts = lookout::alerts(&reader, &outlook, now).await;
            let _ = inbox.tell(Message::Foreseen { alerts }).await;
        });
        None
    }
}

/// When a report fires next, from where it has come to; never before that was laid down.
fn next_firing(known: &mut Firings, fleet: &Fleet, report: &ScheduledReport) -> Option<Timestamp> {
    let reached = *fleet.reported.get(&report.name)?;
    match known.get(&report.name) {
        Some((by, of, at)) if *by == report.schedule && *of == reached => *at,
        Some(_) | None => {
            let at = report.schedule.next_after(reached);
            known.insert(report.name.clone(), (report.schedule.clone(), reached, at));
            at
        }
    }
}
