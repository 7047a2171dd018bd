//! Terms of budgets: what the configuration lays down at the start, and what people change while the daemon runs.

use std::sync::Arc;

use bursar_model::{
    BudgetKey, BudgetTerms, Charge, ChargeLine, Counted, Event, ExperimentId, Period, SetBy, Timestamp, Usd,
};
use bursar_policies::budgets::{told_to_stop, windows_ahead_of_time};
use bursar_store::{ReportFilter, ReportQuery, Store, StoreError};
use tracing::{error, warn};

use crate::{
    inbox::{CommitFailed, SetBudgetError, StandingBudget, Stands},
    reconciler::{Reconciler, Turn, chain},
    rules::Rules,
};

impl<S: Store> Reconciler<S> {
    /// What it takes to lay down the budgets of these rules. What a person set stands until the configuration says
    /// something new; a project or user that it no longer names has no limit from it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn budgets_to_set(
        &self,
        rules: &Rules,
        now: Timestamp,
        turn: &Turn,
    ) -> Result<Vec<Event>, StoreError> {
        let lasting = self.fleet.budgets.keys().filter(|key| !key.ends_with_its_work());
        let is_named = |key: &&BudgetKey| rules.budgets.iter().any(|(other, _)| other == *key);
        // A cap does not go while there is work under it: to lose a line of a file must not let it spend.
        let dropped = lasting.filter(|key| !is_named(key) && !self.has_work(key));
        let named = rules.budgets.iter().map(|(key, terms)| (key, terms.clone()));
        let mut events = Vec::new();
        for (key, terms) in named.chain(dropped.map(|key| (key, None))) {
            let configured = self.fleet.budgets.get(key).and_then(|budget| budget.configured.as_ref());
            if configured != terms.as_ref() {
                events.push(self.new_terms(key.clone(), terms, SetBy::Configuration, now, turn)?);
            }
        }
        Ok(events)
    }

    /// The budgets whose terms are not those of the rules.
    pub(super) fn standing_budgets(&self) -> Vec<StandingBudget> {
        let lasting = self.fleet.budgets.iter().filter(|(key, _)| !key.ends_with_its_work());
        let standing = lasting.filter_map(|(key, budget)| {
            let said = self.rules.budgets.iter().find(|(other, _)| other == key);
            let said = said.and_then(|(_, terms)| terms.as_ref());
            let stands = budget.terms.as_ref() != said;
            let why = if budget.configured.as_ref() == said { Stands::SetByHand } else { Stands::HasWork };
            stands.then(|| StandingBudget { key: key.clone(), why })
        });
        standing.collect()
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
        let event = self
            .new_terms(key.clone(), terms, by, now, turn)
            .map_err(|unreadable| SetBudgetError::NotStored(CommitFailed(chain(&unreadable))))?;
        self.record(event, turn);
        Ok(told_to_stop(&self.fleet, &key))
    }

    /// The event that gives a budget these terms.
    fn new_terms(
        &self,
        key: BudgetKey,
        terms: Option<Arc<BudgetTerms>>,
        by: SetBy,
        now: Timestamp,
        turn: &Turn,
    ) -> Result<Event, StoreError> {
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
        Ok(Event::BudgetSet { key, terms, by, window, counted })
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
        match self.new_terms(key, Some(terms.clone()), SetBy::Spec, now, turn) {
            Ok(event) => self.record(event, turn),
            Err(unreadable) => {
                error!(error = %chain(&unreadable), "a budget without windows needs nothing of the store");
            }
        }
    }
}
