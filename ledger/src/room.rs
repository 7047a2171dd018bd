//! Room in budgets: what one plan can still hold, with what it has decided to hold already taken off.

use std::collections::BTreeMap;

use bursar_model::{Account, Budget, BudgetKey, ExperimentId, Share, Usd};

/// The budgets as a plan sees them while it is made.
#[derive(Debug)]
pub struct Room<'a> {
    budgets: &'a BTreeMap<BudgetKey, Budget>,
    /// What this plan adds to each budget's `held`; negative where it gives back.
    planned: BTreeMap<BudgetKey, Usd>,
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
}

impl<'a> Room<'a> {
    /// The room that these budgets have.
    #[must_use]
    pub fn new(budgets: &'a BTreeMap<BudgetKey, Budget>) -> Self {
        Self { budgets, planned: BTreeMap::new() }
    }

    /// The narrowest of the budgets above an experiment that cannot take `amount` more, if any.
    #[must_use]
    pub fn short(&self, account: &Account, experiment: ExperimentId, amount: Usd) -> Option<Short> {
        let mut found = None;
        for key in account.budgets(experiment) {
            let Some(budget) = self.budgets.get(&key) else { continue };
            let Some(limit) = budget.limit else { continue };
            let held = budget.held + self.planned.get(&key).copied().unwrap_or_default();
            if budget.spent.saturating_add(held).saturating_add(amount) > limit {
                found = Some(Short { key, limit, spent: budget.spent, held });
            }
        }
        found
    }

    /// Whether `amount` could be held if everything that is held now came back unspent. Where it could not, waiting
    /// does not help; the budget that says so is given.
    #[must_use]
    pub fn never(&self, account: &Account, experiment: ExperimentId, amount: Usd) -> Option<Short> {
        account.budgets(experiment).find_map(|key| {
            let budget = self.budgets.get(&key)?;
            let limit = budget.limit?;
            (budget.spent.saturating_add(amount) > limit).then(|| Short {
                held: budget.held,
                spent: budget.spent,
                limit,
                key,
            })
        })
    }

    /// Takes `amount` (negative gives back) in every budget above the experiment.
    pub fn take(&mut self, account: &Account, experiment: ExperimentId, amount: Usd) {
        for key in account.budgets(experiment) {
            *self.planned.entry(key).or_default() += amount;
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
        for (payer, share) in before {
            self.take(&share.account, *payer, -share.held);
        }
        let mut taken = Vec::new();
        for (payer, share) in after {
            if let Some(short) = self.short(&share.account, *payer, share.held) {
                for (payer, share) in taken {
                    let share: &Share = share;
                    self.take(&share.account, payer, -share.held);
                }
                for (payer, share) in before {
                    self.take(&share.account, *payer, share.held);
                }
                return Err((*payer, short));
            }
            self.take(&share.account, *payer, share.held);
            taken.push((*payer, share));
        }
        Ok(())
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
        let limited = Budget { limit: Some(Usd::from_dollars(10)), spent: Usd::from_dollars(4), held: Usd::ZERO };
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
}
