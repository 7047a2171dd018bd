//! Whether a world is well: while it goes on, and when all should be over.

use std::collections::BTreeSet;

use bursar_model::{Budget, Event, Experiment, ExperimentId, InstanceId, InvariantId, Span, WaitingOn};

use super::{INSTALLATION, World};
use crate::{cloud::ROUNDING, witness::Closed};

impl World {
    /// Runs until everything is over, and judges what is left. Nothing may go wrong any more.
    pub fn settle(&mut self, within: Span) {
        let until = self.now() + within;
        while !self.is_settled() && self.now() < until {
            self.restart();
            self.run_for(Span::from_secs(60));
        }
        for stray in self.with_cloud(|cloud| cloud.strays_of(INSTALLATION)) {
            self.report(InvariantId::O1, format!("{stray} runs and nobody ever asked for it"));
        }
        if !self.is_settled() {
            let fleet = self.witness.fleet();
            let waiting = self.daemon.as_ref().map(|daemon| daemon.snapshot.borrow().waiting.clone());
            let experiments: Vec<_> = fleet.experiments.values().map(|e| (e.id, e.state_name())).collect();
            let instances: Vec<_> = fleet.instances.values().map(|i| (i.id, i.state_name())).collect();
            self.report(
                InvariantId::E2,
                format!("not over: {experiments:?} {instances:?}, waiting: {waiting:?}"),
            );
            return;
        }
        self.judge_the_books();
        // Planning again changes nothing: an hour of looking brings no event but those that the time of day brings.
        let newest = self.reader().counts().expect("the store reads").newest_event;
        self.run_for(Span::from_hours(1));
        let after = self.reader().events(newest, 1000).expect("the store reads");
        if let Some(first) = after.iter().find(|entry| !is_of_the_time(entry.event.get())) {
            self.report(InvariantId::E2, format!("after all was over: {}", first.event));
        }
    }

    /// How many experiments are not over.
    #[must_use]
    pub fn open(&self) -> usize {
        self.witness.with_fleet(|fleet| fleet.experiments.len())
    }

    /// Whether every experiment is over and no instance exists.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.witness.with_fleet(|fleet| fleet.experiments.is_empty() && fleet.instances.is_empty())
    }

    /// Looks once more at everything, however seldom that was done before: at the books of all that is gone as well.
    pub fn judge(&self) {
        self.with_cloud(|_| self.witness.compare_with_cloud());
        self.judge_the_books();
    }

    /// Whether the books know an experiment, over or not.
    pub(crate) fn knows(&self, experiment: ExperimentId) -> bool {
        matches!(self.reader().experiment(experiment), Ok(Some(_)))
    }

    /// Nothing runs, and what is not over waits for somebody to raise a budget that outlives it, or for trials of its
    /// sweep that do.
    fn is_settled(&self) -> bool {
        let fleet = self.witness.fleet();
        let Some(daemon) = &self.daemon else { return false };
        let waiting = daemon.snapshot.borrow().waiting.clone();
        let waits_for_money = |experiment: &ExperimentId| {
            let Some(WaitingOn::Budget(no_room)) = waiting.get(experiment) else { return false };
            let has_cap = |budget: &Budget| budget.terms.as_ref().is_some_and(|terms| terms.cap().is_some());
            !no_room.key.ends_with_its_work() && fleet.budgets.get(&no_room.key).is_some_and(has_cap)
        };
        let waits_for_others = |experiment: &Experiment| {
            let is_one = |other: &&Experiment| {
                other.account.sweep == experiment.account.sweep && waits_for_money(&other.id)
            };
            matches!(waiting.get(&experiment.id), Some(WaitingOn::Rung { .. }))
                && fleet.experiments.values().any(|other| is_one(&other))
        };
        fleet.experiments.values().all(|waits| waits_for_money(&waits.id) || waits_for_others(waits))
            && fleet.instances.is_empty()
            && self.with_cloud(|cloud| cloud.running().is_empty() && cloud.strays_of(INSTALLATION).is_empty())
    }

    /// What the cloud wants for every machine stands in the books of its instance, and what never ran cost nothing.
    fn judge_the_books(&self) {
        let closed = self.witness.closed();
        for (instance, Closed { booked, excess_max, deficit_max, never_ran }) in &closed {
            let (least, most) = self.with_cloud(|cloud| cloud.bounds(*instance));
            let wrong = if *never_ran {
                *booked > *excess_max
            } else {
                *booked > most + ROUNDING + *excess_max
                    || booked.saturating_add(*deficit_max) < least - ROUNDING
            };
            if wrong {
                self.report(
                    InvariantId::L1,
                    format!("{instance} costs {least} to {most} by the cloud and {booked} by the books"),
                );
            }
        }
        let running = self.with_cloud(|cloud| cloud.running());
        let known = |id: &InstanceId| closed.contains_key(id) || running.contains(id);
        let live = self.witness.with_fleet(|fleet| fleet.instances.keys().copied().collect::<BTreeSet<_>>());
        for instance in self.cloud.launched().into_iter().filter(|id| !known(id) && !live.contains(id)) {
            self.report(InvariantId::O1, format!("{instance} ran and is in no book"));
        }
        match self.reader().integrity() {
            Ok(integrity) if integrity.is_sound() => {}
            found => self.report(InvariantId::L1, format!("{found:?}")),
        }
    }

    /// Notes what is wrong.
    pub(crate) fn report(&self, invariant: InvariantId, detail: String) {
        self.ground.report(invariant, detail);
    }
}

/// Whether an event, as JSON, comes by the time of day, whatever is planned: windows of budgets, and what is told.
fn is_of_the_time(event: &str) -> bool {
    let event = serde_json::from_str::<Event>(event);
    matches!(
        event,
        Ok(Event::BudgetWindowBegan { .. }
            | Event::BudgetAlerted { .. }
            | Event::NotificationQueued { .. }
            | Event::NotificationDelivered { .. }
            | Event::NotificationFailed { .. }
            | Event::NotificationDropped { .. }
            | Event::ReportReached { .. })
    )
}
