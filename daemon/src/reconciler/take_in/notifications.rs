//! What webhooks are told: queued in the very commit of what it tells of, and crossed off when it was taken.

use bursar_config::NotificationKind;
use bursar_model::{
    AttemptId, Backoff, BudgetAlert, BudgetKey, DropReason, Event, Notification, NotificationAbout,
    NotificationId, NotificationState, Timestamp,
};
use bursar_store::Store;

use crate::{
    notify::{Undelivered, Verdict, judge, kind_of, who_wants},
    reconciler::{Reconciler, Turn},
    rules::Rules,
};

/// Notifications that wait for one webhook. Beyond, the oldest are dropped: a webhook that was away is told the newest.
const WAITING_MAX: usize = 1000;

impl<S: Store> Reconciler<S> {
    /// What it takes to tell those whom these rules name: a webhook that they no longer name is told nothing more; a new
    /// report covers the time from the last firing of its schedule on.
    pub(super) fn telling_to_set(&self, rules: &Rules, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let config = &rules.notifications;
        for notification in self.fleet.outbox.values().filter(|notification| notification.is_waiting()) {
            if !config.webhooks.contains_key(&notification.to) {
                let (notification, why) = (notification.id, DropReason::NoWebhook);
                events.push(Event::NotificationDropped { notification, at: now, why });
            }
        }
        for report in self.fleet.reported.keys() {
            if !config.reports.iter().any(|configured| configured.name == *report) {
                events.push(Event::ReportReached { report: report.clone(), until: None });
            }
        }
        for report in &config.reports {
            if !self.fleet.reported.contains_key(&report.name) {
                let until = Some(report.schedule.last_at_or_before(now).unwrap_or(now));
                events.push(Event::ReportReached { report: report.name.clone(), until });
            }
        }
        events
    }

    /// Queues the reports whose time has come.
    pub(in crate::reconciler) fn fire_reports(&mut self, now: Timestamp, turn: &mut Turn) {
        for (report, period) in self.notifier.reports_due(&self.rules.notifications, &self.fleet, now) {
            let reached = Event::ReportReached { report: report.name.clone(), until: Some(period.to) };
            self.record(reached, turn);
            for to in report.to {
                let (name, by) = (report.name.clone(), report.by.clone());
                self.queue_notification(to, NotificationAbout::Report { name, by, period }, now, turn);
            }
        }
    }

    /// Queues what an alert says, for each webhook that wants to hear of it.
    pub(in crate::reconciler) fn queue_alert(
        &mut self,
        key: &BudgetKey,
        alert: BudgetAlert,
        at: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(budget) = self.fleet.budgets.get(key) else { return };
        let name = match key {
            BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) => None,
            BudgetKey::Sweep(id) => self.fleet.sweeps.get(id).map(|sweep| sweep.name.clone()),
            BudgetKey::Experiment(id) => {
                self.fleet.experiments.get(id).map(|experiment| experiment.name.clone())
            }
        };
        let about = NotificationAbout::Budget {
            key: key.clone(),
            name,
            alert,
            limit: budget.limit(),
            spent: budget.spent,
            held: budget.held,
            window: budget.window,
        };
        for to in who_wants(&self.rules.notifications, kind_of(alert)) {
            self.queue_notification(to, about.clone(), at, turn);
        }
    }

    /// Queues that a GPU stays idle, for each webhook that wants to hear of it.
    pub(in crate::reconciler) fn queue_idle_gpu(
        &mut self,
        attempt: AttemptId,
        at: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(attempt) = self.fleet.attempts.get(&attempt) else { return };
        let Some(experiment) = self.fleet.experiments.get(&attempt.experiment) else { return };
        let policy = self.fleet.spec(experiment).utilization_policy;
        let Some((idle, policy)) = attempt.idle_gpu.zip(policy) else { return };
        let about = NotificationAbout::IdleGpu {
            experiment: experiment.id,
            name: experiment.name.clone(),
            since: idle.since,
            min_gpu_utilization: policy.min_gpu_utilization,
        };
        for to in who_wants(&self.rules.notifications, NotificationKind::IdleGpu) {
            self.queue_notification(to, about.clone(), at, turn);
        }
    }

    fn queue_notification(&mut self, to: String, about: NotificationAbout, at: Timestamp, turn: &mut Turn) {
        let mut waiting = self.fleet.outbox.values().filter(|other| other.to == to && other.is_waiting());
        let oldest = waiting.next().map(|oldest| oldest.id);
        if let Some(notification) = oldest.filter(|_| waiting.count() + 1 >= WAITING_MAX) {
            self.record(Event::NotificationDropped { notification, at, why: DropReason::TooMany }, turn);
        }
        let notification = Notification {
            id: self.ids.notification(at),
            at,
            to,
            about,
            state: NotificationState::Waiting,
            backoff: Backoff::default(),
            error: None,
        };
        self.record(Event::NotificationQueued { notification: Box::new(notification) }, turn);
    }

    /// What a look ahead came to. Told once: the state may have changed since it was begun.
    pub(super) fn foreseen(
        &mut self,
        alerts: Vec<(BudgetKey, BudgetAlert)>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        self.notifier.look_done();
        for (key, alert) in alerts {
            if self.fleet.budgets.get(&key).is_some_and(|budget| !budget.was_told(alert)) {
                self.record(Event::BudgetAlerted { key, at: now, alert }, turn);
            }
        }
    }

    /// What a delivery came to.
    pub(super) fn delivered(
        &mut self,
        id: NotificationId,
        result: Result<(), Undelivered>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        self.notifier.delivery_done(id, result.is_ok());
        // It may have been dropped while it was under way.
        let Some(notification) = self.fleet.outbox.get(&id).filter(|found| found.is_waiting()) else {
            return;
        };
        match result {
            Ok(()) => self.record(Event::NotificationDelivered { notification: id, at: now }, turn),
            Err(failure) => {
                let Verdict { backoff, dropped } = judge(notification, &failure, now);
                let error = failure.error;
                self.record(Event::NotificationFailed { notification: id, error, backoff }, turn);
                if let Some(why) = dropped {
                    self.record(Event::NotificationDropped { notification: id, at: now, why }, turn);
                }
            }
        }
    }
}
