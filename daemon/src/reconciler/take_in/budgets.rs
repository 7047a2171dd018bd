//! Terms of budgets: what the configuration lays down at the start, and what people change while the daemon runs.

use std::sync::Arc;

use bursar_model::{
    BudgetKey, BudgetTerms, Charge, ChargeLine, Counted, Event, ExperimentId, Period, SetBy, Timestamp, Usd,
};
use bursar_policies::budgets::{told_to_stop, windows_ahead_of_time};
use bursar_store::{Commit, ReportFilter, ReportQuery, Store, StoreError};
use tracing::{error, warn};

use crate::{
    inbox::SetBudgetError,
    reconciler::{Reconciler, Turn, chain},
};

impl<S: Store> Reconciler<S> {
    /// Lays down what the configuration says. What a person set since then stands until the configuration says something
    /// new; a project or user that it no longer names has no limit from it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub(in crate::reconciler) async fn configure_budgets(
        &mut self,
        named: Vec<(BudgetKey, Option<Arc<BudgetTerms>>)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut turn = Turn::default();
        let lasting = self.fleet.budgets.keys().filter(|key| !key.ends_with_its_work());
        let dropped: Vec<BudgetKey> =
            lasting.filter(|key| !named.iter().any(|(other, _)| other == *key)).cloned().collect();
        // A cap does not go while there is work under it: to lose a line of a file must not let it spend.
        let (kept, dropped): (Vec<_>, Vec<_>) = dropped.into_iter().partition(|key| self.has_work(key));
        for key in kept {
            warn!(%key, "the configuration does not name it any more; its terms stand while it has work");
        }
        for (key, terms) in named.into_iter().chain(dropped.into_iter().map(|key| (key, None))) {
            let configured = self.fleet.budgets.get(&key).and_then(|budget| budget.configured.as_ref());
            if configured != terms.as_ref() {
                self.set_terms(key, terms, SetBy::Configuration, now, &mut turn)?;
            }
        }
        if turn.events.is_empty() {
            return Ok(());
        }
        let changes = self.fleet.take_changes();
        let Turn { events, submissions, .. } = turn;
        self.store.commit(&Commit { epoch: self.epoch, at: now, events, changes, submissions }).await
    }

    fn has_work(&self, key: &BudgetKey) -> bool {
        let is_limited = self.fleet.budgets.get(key).is_some_and(|budget| budget.terms.is_some());
        let mut live = self.fleet.experiments.values();
        is_limited
            && live.any(|experiment| experiment.account.budgets(experiment.id).any(|above| above == *key))
    }

    /// Takes windows back that began while the clock was ahead: they would let charges pass uncounted until they come.
    pub(in crate::reconciler) fn take_windows_back(&mut self, now: Timestamp, turn: &mut Turn) {
        let ahead: Vec<BudgetKey> = windows_ahead_of_time(&self.fleet.budgets, now).cloned().collect();
        for key in ahead {
            let terms = self.fleet.budgets.get(&key).and_then(|budget| budget.terms.clone());
            let schedule = terms.as_ref().and_then(|terms| terms.schedule.as_ref());
            let window = schedule.map(|schedule| schedule.window_at(now));
            warn!(%key, "its window begins in the future: the clock was ahead; counted anew");
            match self.count(&key, window, turn) {
                Ok(counted) => {
                    let (by, counted) = (SetBy::Clock, Some(counted));
                    self.record(Event::BudgetSet { key, terms, by, window, counted }, turn);
                }
                // The next turn tries again.
                Err(unreadable) => error!(error = %chain(&unreadable), "its charges could not be counted"),
            }
        }
    }

    /// Changes the terms of a budget that is live, and says whom that stops.
    pub(super) fn set_budget(
        &mut self,
        key: BudgetKey,
        terms: Option<Arc<BudgetTerms>>,
        by: SetBy,
        now: Timestamp,
        turn: &mut Turn,
    ) -> Result<Vec<ExperimentId>, SetBudgetError> {
        let is_over = match &key {
            BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) => false,
            BudgetKey::Sweep(id) => !self.fleet.sweeps.contains_key(id),
            BudgetKey::Experiment(id) => !self.fleet.experiments.contains_key(id),
        };
        if is_over {
            return Err(SetBudgetError::Over(key));
        }
        self.set_terms(key.clone(), terms, by, now, turn).map_err(|unreadable| {
            SetBudgetError::NotStored(crate::inbox::CommitFailed(chain(&unreadable)))
        })?;
        Ok(told_to_stop(&self.fleet, &key))
    }

    fn set_terms(
        &mut self,
        key: BudgetKey,
        terms: Option<Arc<BudgetTerms>>,
        by: SetBy,
        now: Timestamp,
        turn: &mut Turn,
    ) -> Result<(), StoreError> {
        let schedule_of =
            |terms: &Option<Arc<BudgetTerms>>| terms.as_ref().and_then(|terms| terms.schedule.clone());
        let before = self.fleet.budgets.get(&key);
        let (wanted, had) = (schedule_of(&terms), before.and_then(|budget| schedule_of(&budget.terms)));
        let (window, counted) = if wanted == had {
            (before.and_then(|budget| budget.window), None)
        } else {
            // Another way of counting: what counts now is added up from the charges.
            let window = wanted.map(|schedule| schedule.window_at(now));
            (window, Some(self.count(&key, window, turn)?))
        };
        self.record(Event::BudgetSet { key, terms, by, window, counted }, turn);
        Ok(())
    }

    /// What was charged to a budget in a window and for time after it, or ever.
    fn count(&self, key: &BudgetKey, window: Option<Period>, turn: &Turn) -> Result<Counted, StoreError> {
        let Some(window) = window else {
            return Ok(Counted { spent: self.charged(key, None, None, turn)?, ahead: Usd::ZERO });
        };
        Ok(Counted {
            spent: self.charged(key, Some(window.from), Some(window.to), turn)?,
            ahead: self.charged(key, Some(window.to), None, turn)?,
        })
    }

    fn charged(
        &self,
        key: &BudgetKey,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        turn: &Turn,
    ) -> Result<Usd, StoreError> {
        let filter = ReportFilter::of(key);
        let query = ReportQuery { since, until, filter, ..ReportQuery::default() };
        let stored: Usd = self.store.reader().report(&query)?.iter().map(|row| row.costs.effective).sum();
        // What this very turn has charged is not stored yet.
        let charges = turn.events.iter().filter_map(|event| {
            if let Event::Charged { charge, .. } | Event::BillCorrected { charge } = event {
                Some(charge)
            } else {
                None
            }
        });
        let is_within = |charge: &&Charge| {
            since.is_none_or(|since| charge.period.from >= since)
                && until.is_none_or(|until| charge.period.from < until)
        };
        let counts = |line: &&ChargeLine| line.account.budgets(line.payer).any(|above| above == *key);
        let lines = charges.filter(is_within).flat_map(|charge| &charge.lines).filter(counts);
        Ok(stored + lines.map(|line| line.costs.effective).sum::<Usd>())
    }

    /// Lays down the budget that a spec asks for.
    pub(super) fn set_spec_budget(
        &mut self,
        key: BudgetKey,
        terms: Option<&Arc<BudgetTerms>>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(terms) = terms else { return };
        if let Err(unreadable) = self.set_terms(key, Some(terms.clone()), SetBy::Spec, now, turn) {
            error!(error = %chain(&unreadable), "a budget without windows needs nothing of the store");
        }
    }
}
