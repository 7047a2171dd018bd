//! One machine, for good. Its states are derived from moments when somebody looks, so no task has to wake up to make
//! them so.

use std::sync::Arc;

use bursar_model::{
    BillingEnd, BillingRules, BillingStart, CloudId, CloudInstance, CloudState, InstanceId, OfferingKey,
    Period, Span, Timestamp,
};
use bursar_providers::{LIST_KEEPS_ENDED, LaunchRequest};
use tokio::sync::Notify;

/// What happened and will happen to a machine.
#[derive(Debug)]
pub(super) struct Record {
    /// Whose it is: nobody else sees it.
    pub(super) installation: String,
    /// What it was asked for with, where it was asked for.
    pub(super) request: Option<LaunchRequest>,
    pub(super) sold_as: OfferingKey,
    pub(super) disk_gib: u32,
    pub(super) launched_at: Timestamp,
    pub(super) runs_from: Timestamp,
    /// From when listings show it.
    pub(super) listed_from: Timestamp,
    /// For how long listings show it as it was before its end.
    pub(super) end_lag: Span,
    /// When the cloud tells that it takes the machine back, and when it does.
    pub(super) notice: Option<(Timestamp, Timestamp)>,
    /// When it is over, and whether the cloud took it.
    pub(super) end: Option<(Timestamp, bool)>,
    pub(super) told_to_end: Option<Timestamp>,
    /// Since when nothing on it answers or acts, its shutdown timer included.
    pub(super) hung_since: Option<Timestamp>,
    /// The agent dies, and the machine with it.
    pub(super) agent_killed: bool,
    /// Nobody asked for it.
    pub(super) stray: bool,
    /// Rung at every change that the machine itself notices.
    pub(super) changed: Arc<Notify>,
}

impl Record {
    /// One that runs at once, of nobody yet.
    pub(super) fn new(sold_as: OfferingKey, launched_at: Timestamp) -> Self {
        Self {
            installation: String::new(),
            request: None,
            sold_as,
            disk_gib: 0,
            launched_at,
            runs_from: launched_at,
            listed_from: launched_at,
            end_lag: Span::ZERO,
            notice: None,
            end: None,
            told_to_end: None,
            hung_since: None,
            agent_killed: false,
            stray: false,
            changed: Arc::new(Notify::new()),
        }
    }

    pub(super) fn take_back(&mut self, told_at: Timestamp, taken_at: Timestamp, told: bool) {
        if told {
            self.notice = Some((told_at, taken_at));
        }
        self.end_by(taken_at, true);
    }

    /// The first end that was set for it is the one that happens.
    pub(super) fn end_by(&mut self, at: Timestamp, interrupted: bool) {
        if self.end.is_none_or(|(before, _)| at < before) {
            self.end = Some((at, interrupted));
        }
        self.changed.notify_one();
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|(at, _)| at <= now)
    }

    pub(super) fn is_hung(&self, now: Timestamp) -> bool {
        self.hung_since.is_some_and(|since| since <= now)
    }

    /// No listing shows it any more.
    pub(super) fn is_history(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|(at, _)| now.since(at) > LIST_KEEPS_ENDED)
    }

    pub(super) fn is_listed(&self, now: Timestamp) -> bool {
        let kept = self.end.is_none_or(|(at, _)| now.since(at) <= LIST_KEEPS_ENDED);
        now >= self.listed_from && kept
    }

    /// The time that is billed by now: reckoned here, apart from how the ledger does it.
    pub(super) fn billed(&self, rules: BillingRules, now: Timestamp) -> Period {
        let over = self.end.map(|(at, _)| at).filter(|at| *at <= now);
        let from = match rules.starts {
            BillingStart::Launch => self.launched_at,
            BillingStart::Running => self.runs_from,
        };
        if from > over.unwrap_or(now) {
            return Period::new(from, from);
        }
        let Some(over) = over else { return Period::new(from, now) };
        let stopped = match rules.ends {
            BillingEnd::Gone => over,
            BillingEnd::Stopping => self.told_to_end.unwrap_or(over).clamp(from, over),
        };
        let unit = rules.granularity.as_millis();
        let mut millis = (stopped.as_millis() - from.as_millis()).max(rules.minimum.as_millis());
        while millis % unit != 0 {
            millis += unit - millis % unit;
        }
        Period::new(from, from + Span::from_millis(millis))
    }

    /// As listings show it.
    pub(super) fn view(&self, instance: InstanceId, now: Timestamp) -> CloudInstance {
        let shown_end = self.end.filter(|(at, _)| *at + self.end_lag <= now);
        // Until then it is shown as it was last.
        let shown_at = self.end.map_or(now, |(at, _)| now.min(at));
        let state = match shown_end {
            Some((at, interrupted)) => CloudState::Gone { at, interrupted },
            None if self.told_to_end.is_some() => CloudState::Stopping,
            None if shown_at < self.runs_from => CloudState::Pending,
            None => CloudState::Running,
        };
        let has_run = shown_at >= self.runs_from;
        CloudInstance {
            cloud_id: CloudId::new(&format!("sim-{instance}")),
            instance,
            state,
            launched_at: self.launched_at,
            running_at: has_run.then_some(self.runs_from),
            stopping_at: self.told_to_end.filter(|at| *at >= self.runs_from),
            notice: self.notice.filter(|(told_at, _)| *told_at <= now).map(|(_, taken_at)| taken_at),
        }
    }
}
