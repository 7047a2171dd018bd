//! Room in budgets: what one plan can still hold, with what it has decided to hold already taken off.

use std::collections::{BTreeMap, BTreeSet};

use crate::meter::cuts;
use bursar_model::{
    Account, Budget, BudgetKey, ExperimentId, OnExhausted, ProjectName, Share, SweepId, Timestamp, Usd,
    UserName,
};
use rustc_hash::FxHashMap;

/// The budgets as a plan sees them while it is made.
///
/// Only those with a limit are kept: one without never refuses anything. A plan asks several times for every
/// experiment, so each level has its own map, by the id as it is and without a key to build.
#[derive(Debug, Default)]
pub struct Room<'a> {
    limited: Vec<Limited<'a>>,
    installation: Option<usize>,
    projects: FxHashMap<&'a ProjectName, usize>,
    users: FxHashMap<&'a UserName, usize>,
    sweeps: FxHashMap<SweepId, usize>,
    experiments: FxHashMap<ExperimentId, usize>,
    cuts: BTreeSet<Timestamp>,
    has_finishing: bool,
}

/// A budget with a limit.
#[derive(Debug)]
struct Limited<'a> {
    key: &'a BudgetKey,
    limit: Usd,
    spent: Usd,
    /// What is held, this plan included. Charges that the plan makes count here too: what matters is the sum.
    held: Usd,
    /// What new launches leave alone, so that what runs can have its next lease.
    kept: Usd,
    /// What starts under it is finished.
    finishes: bool,
}

/// The budget that has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Which.
    pub key: BudgetKey,
    /// Its limit.
    pub limit: Usd,
    /// What was spent.
    pub spent: Usd,
    /// What is held, this plan included.
    pub held: Usd,
    /// What is kept for the next leases of what runs.
    pub kept: Usd,
}

impl<'a> Room<'a> {
    /// The room that these budgets have.
    #[must_use]
    pub fn new(budgets: &'a BTreeMap<BudgetKey, Budget>) -> Self {
        let mut room = Self { cuts: cuts(budgets), ..Self::default() };
        for (key, budget) in budgets {
            let Some(limit) = budget.cap() else { continue };
            let index = room.limited.len();
            room.has_finishing |= budget.on_exhausted() == OnExhausted::FinishRunning;
            room.limited.push(Limited {
                key,
                limit,
                spent: budget.spent.saturating_add(budget.ahead),
                held: budget.held,
                kept: Usd::ZERO,
                finishes: budget.on_exhausted() == OnExhausted::FinishRunning,
            });
            match key {
                BudgetKey::Installation => room.installation = Some(index),
                BudgetKey::Project(name) => drop(room.projects.insert(name, index)),
                BudgetKey::User(name) => drop(room.users.insert(name, index)),
                BudgetKey::Sweep(id) => drop(room.sweeps.insert(*id, index)),
                BudgetKey::Experiment(id) => drop(room.experiments.insert(*id, index)),
            }
        }
        room
    }

    /// Whether no budget has a limit, so that nothing is ever short.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.limited.is_empty()
    }

    /// The narrowest of the budgets above an experiment that cannot take `amount` more for something new, if any.
    #[must_use]
    pub fn short(&self, account: &Account, experiment: ExperimentId, amount: Usd) -> Option<Short> {
        let short = |budget: &&Limited<'_>| budget.left_for_new() < amount;
        self.above(account, experiment).filter(short).last().map(Limited::short)
    }

    /// Whether every budget above an experiment can take `amount` more, what is kept for next leases included.
    #[must_use]
    pub fn has(&self, account: &Account, experiment: ExperimentId, amount: Usd) -> bool {
        self.above(account, experiment).all(|budget| budget.left() >= amount)
    }

    /// Whether `amount` could be held if everything that is held now came back unspent. Where it could not, waiting
    /// does not help; the narrowest budget that says so is given.
    #[must_use]
    pub fn never(&self, account: &Account, experiment: ExperimentId, amount: Usd) -> Option<Short> {
        let never = |budget: &&Limited<'_>| budget.spent.saturating_add(amount) > budget.limit;
        self.above(account, experiment).filter(never).last().map(Limited::short)
    }

    /// The most that every budget above an experiment can still take for something new; `Usd::MAX` where none has a
    /// limit.
    #[must_use]
    pub fn left(&self, account: &Account, experiment: ExperimentId) -> Usd {
        self.above(account, experiment).map(Limited::left_for_new).min().unwrap_or(Usd::MAX)
    }

    /// When windows of budgets began: charges are cut there (see `meter`).
    #[must_use]
    pub fn cuts(&self) -> &BTreeSet<Timestamp> {
        &self.cuts
    }

    /// Whether any budget finishes what it starts.
    #[must_use]
    pub fn has_finishing(&self) -> bool {
        self.has_finishing
    }

    /// Whether a budget above an experiment finishes what it starts, so that money is held for all of it.
    #[must_use]
    pub fn finishes(&self, account: &Account, experiment: ExperimentId) -> bool {
        self.above(account, experiment).any(|budget| budget.finishes)
    }

    /// Keeps `amount` in every budget above the experiment from what is new. What runs may still take it.
    pub fn keep(&mut self, account: &Account, experiment: ExperimentId, amount: Usd) {
        for index in self.indices(account, experiment).into_iter().flatten() {
            self.limited[index].kept += amount;
        }
    }

    /// Takes `amount` (negative gives back) in every budget above the experiment.
    pub fn take(&mut self, account: &Account, experiment: ExperimentId, amount: Usd) {
        for index in self.indices(account, experiment).into_iter().flatten() {
            self.limited[index].held += amount;
        }
    }

    /// Exchanges the holds of an instance's shares for others, if every budget can take the difference.
    ///
    /// # Errors
    /// The first payer whose budgets are short, and which. Nothing was taken then.
    pub fn exchange(
        &mut self,
        before: &BTreeMap<ExperimentId, Share>,
        after: &BTreeMap<ExperimentId, Share>,
    ) -> Result<(), (ExperimentId, Short)> {
        if self.is_unlimited() {
            return Ok(());
        }
        for (payer, share) in before {
            self.take(&share.account, *payer, -share.held);
        }
        for (taken, (payer, share)) in after.iter().enumerate() {
            let short = |budget: &&Limited<'_>| budget.left() < share.held;
            if let Some(short) = self.above(&share.account, *payer).filter(short).last().map(Limited::short) {
                for (payer, share) in after.iter().take(taken) {
                    self.take(&share.account, *payer, -share.held);
                }
                for (payer, share) in before {
                    self.take(&share.account, *payer, share.held);
                }
                return Err((*payer, short));
            }
            self.take(&share.account, *payer, share.held);
        }
        Ok(())
    }

    /// Puts holds back as they were before an exchange, whether or not a budget is over its cap by now.
    pub fn revert(&mut self, before: &BTreeMap<ExperimentId, Share>, after: &BTreeMap<ExperimentId, Share>) {
        for (payer, share) in after {
            self.take(&share.account, *payer, -share.held);
        }
        for (payer, share) in before {
            self.take(&share.account, *payer, share.held);
        }
    }

    /// The budgets with a limit above an experiment, from the widest to the narrowest.
    fn above(&self, account: &Account, experiment: ExperimentId) -> impl Iterator<Item = &Limited<'a>> {
        self.indices(account, experiment).into_iter().flatten().map(|index| &self.limited[index])
    }

    fn indices(&self, account: &Account, experiment: ExperimentId) -> [Option<usize>; 5] {
        let Account { project, user, sweep } = account;
        // Most plans have limits at one or two levels: hashing for an empty map would be most of the work.
        [
            self.installation,
            if self.projects.is_empty() { None } else { self.projects.get(project).copied() },
            if self.users.is_empty() { None } else { self.users.get(user).copied() },
            sweep.and_then(|id| self.sweeps.get(&id).copied()),
            self.experiments.get(&experiment).copied(),
        ]
    }
}

impl Limited<'_> {
    fn left(&self) -> Usd {
        self.limit.saturating_sub(self.spent).saturating_sub(self.held)
    }

    fn left_for_new(&self) -> Usd {
        self.left().saturating_sub(self.kept)
    }

    fn short(&self) -> Short {
        Short {
            key: self.key.clone(),
            limit: self.limit,
            spent: self.spent,
            held: self.held,
            kept: self.kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::{IdGen, Timestamp};

    use super::*;

    fn account(project: &str) -> Account {
        Account { project: project.into(), user: "ada".into(), sweep: None }
    }

    #[test]
    fn what_a_plan_holds_counts_against_its_next_hold() {
        let id = IdGen::new(1).experiment(Timestamp::default());
        let limited = Budget { spent: Usd::from_dollars(4), ..Budget::limited(Usd::from_dollars(10)) };
        let budgets = BTreeMap::from([(BudgetKey::Project("p".into()), limited)]);
        let mut room = Room::new(&budgets);
        assert_eq!(room.short(&account("p"), id, Usd::from_dollars(6)), None);
        room.take(&account("p"), id, Usd::from_dollars(5));
        let short = room.short(&account("p"), id, Usd::from_dollars(2)).unwrap();
        assert_eq!((short.spent, short.held), (Usd::from_dollars(4), Usd::from_dollars(5)));
        assert_eq!(room.never(&account("p"), id, Usd::from_dollars(2)), None, "held money may come back");
        assert!(room.never(&account("p"), id, Usd::from_dollars(7)).is_some());
        assert_eq!(room.short(&account("other"), id, Usd::from_dollars(99)), None);
    }

    #[test]
    fn an_exchange_that_fails_takes_nothing() {
        let mut ids = IdGen::new(1);
        let (a, b) = (ids.experiment(Timestamp::default()), ids.experiment(Timestamp::default()));
        let limited = |dollars| Budget::limited(Usd::from_dollars(dollars));
        let budgets =
            BTreeMap::from([(BudgetKey::Installation, limited(10)), (BudgetKey::Experiment(b), limited(3))]);
        let mut room = Room::new(&budgets);
        let share =
            |dollars| Share { account: account("p").into(), weight: 1, held: Usd::from_dollars(dollars) };
        let before = BTreeMap::from([(a, share(6))]);
        room.exchange(&BTreeMap::new(), &before).unwrap();

        let (payer, short) =
            room.exchange(&before, &BTreeMap::from([(a, share(1)), (b, share(4))])).unwrap_err();
        assert_eq!((payer, short.key), (b, BudgetKey::Experiment(b)));
        assert_eq!(room.left(&account("p"), a), Usd::from_dollars(4));
        assert_eq!(room.left(&account("p"), b), Usd::from_dollars(3));

        // What goes from one payer to another under one budget needs no more room in it.
        room.exchange(&before, &BTreeMap::from([(a, share(7)), (b, share(3))])).unwrap();
        assert_eq!(room.left(&account("p"), a), Usd::ZERO);
    }
}
