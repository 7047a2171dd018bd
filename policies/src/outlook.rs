//! What somebody should be warned of early: budgets that will be used up before their time, and experiments that cost far
//! more than expected. Nothing is decided by it; caps are kept by holds.
//!
//! The state says what to look at. What was spent lately and what like experiments came to is in the store: whoever has
//! read it asks for the alert.

#[cfg(test)]
mod tests;

use std::{cmp::Reverse, sync::Arc};

use bursar_ledger::{BurnDown, ExpectedCost, Spending, anomaly};
use bursar_model::{
    Account, BudgetAlert, BudgetKey, CostEstimate, Experiment, ExperimentId, Fleet, Period, Timestamp, Usd,
};

/// Nothing below this is far more than anybody expected.
const SPENT_MIN: Usd = Usd::from_dollars(1);

/// Experiments that are looked at, the most expensive first: each may need a question to the store.
const EXPERIMENTS_MAX: usize = 1000;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// Budgets of which nobody was told yet that they will be used up.
    pub budgets: Vec<BudgetAhead>,
    /// Experiments of which nobody was told yet that they cost too much.
    pub experiments: Vec<ExperimentSoFar>,
}

/// A budget that may be used up before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetAhead {
    /// Which.
    pub key: BudgetKey,
    limit: Usd,
    spent: Usd,
    held: Usd,
    window: Option<Period>,
    /// When what it pays for began, where that has a beginning.
    began: Option<Timestamp>,
}

/// An experiment that may cost too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentSoFar {
    /// Which.
    pub id: ExperimentId,
    /// Who pays: those of the same sweep or project are its peers.
    pub account: Arc<Account>,
    spent: Usd,
    estimate: Option<ExpectedCost>,
}

/// What there is to look at.
#[must_use]
pub fn outlook(fleet: &Fleet) -> Outlook {
    let budgets = fleet.budgets.iter().filter_map(|(key, budget)| {
        let limit = budget.limit()?;
        let began = match key {
            BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) => None,
            BudgetKey::Sweep(id) => Some(fleet.sweeps.get(id)?.queued_at),
            // It is over within hours, and its cap ends it.
            BudgetKey::Experiment(_) => return None,
        };
        let is_told = budget.told.forecast || budget.told.exhausted;
        let is_open = budget.spent > Usd::ZERO && budget.spent < limit;
        let (key, window) = (key.clone(), budget.window);
        (budget.is_watched() && !is_told && is_open).then_some(BudgetAhead {
            key,
            limit,
            spent: budget.spent,
            held: budget.held,
            window,
            began,
        })
    });
    let mut experiments: Vec<ExperimentSoFar> =
        fleet.experiments.values().filter_map(|experiment| so_far(fleet, experiment)).collect();
    experiments.sort_by_key(|experiment| (Reverse(experiment.spent), experiment.id));
    experiments.truncate(EXPERIMENTS_MAX);
    Outlook { budgets: budgets.collect(), experiments }
}

impl BudgetAhead {
    /// That it will be used up before its window ends, or within 30 days, if spending goes on as in these hours or days.
    /// `since` is when the installation began: nothing is known from before.
    #[must_use]
    pub fn alert(&self, recent: &[(Period, Usd)], since: Timestamp, now: Timestamp) -> Option<BudgetAlert> {
        let Self { key: _, limit, spent, held, window, began } = *self;
        let since = began.map_or(since, |began| began.max(since));
        // On its first day, all that was spent was spent after it began.
        let recent: Vec<_> = recent
            .iter()
            .filter(|(period, _)| period.to > since)
            .map(|(period, amount)| (Period::new(period.from.max(since), period.to), *amount))
            .collect();
        let spending = Spending { limit: Some(limit), spent, held, window, recent: &recent, since, now };
        BurnDown::of(&spending).breach_at.map(|breach_at| BudgetAlert::Forecast { breach_at })
    }
}

impl ExperimentSoFar {
    /// That it costs far more than expected, by its own estimate or by what its peers came to.
    #[must_use]
    pub fn alert(&self, peers: Option<ExpectedCost>) -> Option<BudgetAlert> {
        let found = anomaly(self.spent, self.estimate, peers)?;
        let ExpectedCost { expected, high } = found.expected;
        Some(BudgetAlert::Anomaly { expected, high })
    }
}

fn so_far(fleet: &Fleet, experiment: &Experiment) -> Option<ExperimentSoFar> {
    let budget = fleet.budgets.get(&BudgetKey::Experiment(experiment.id))?;
    let is_due = budget.spent >= SPENT_MIN && !budget.told.anomaly && !experiment.is_ended();
    is_due.then(|| ExperimentSoFar {
        id: experiment.id,
        account: experiment.account.clone(),
        spent: budget.spent,
        estimate: experiment
            .expected
            .map(|CostEstimate { expected, low: _, high }| ExpectedCost { expected, high }),
    })
}
