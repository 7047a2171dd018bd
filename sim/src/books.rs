//! What was charged to each budget, counted from the events apart from the budgets' own sums.

use std::collections::BTreeMap;

use bursar_model::{Budget, BudgetKey, Event, Period, Timestamp, Usd};

use crate::cloud::EVER;

/// All charges to budgets that outlive their work: they have windows. The others are recounted at the end.
#[derive(Debug, Default)]
pub(crate) struct Books(BTreeMap<BudgetKey, Vec<(Period, Usd)>>);

impl Books {
    pub(crate) fn enter(&mut self, event: &Event) {
        let (Event::Charged { charge, .. } | Event::BillCorrected { charge }) = event else { return };
        for line in &charge.lines {
            for key in line.account.budgets(line.payer).filter(|key| !key.ends_with_its_work()) {
                self.0.entry(key).or_default().push((charge.period, line.costs.effective));
            }
        }
    }

    /// What is wrong with a budget, once all that was ever charged is entered.
    pub(crate) fn judge(&self, key: &BudgetKey, budget: &Budget) -> Option<String> {
        let window = budget.window.unwrap_or(EVER);
        let charged = self.0.get(key).map_or(&[][..], Vec::as_slice);
        let since = |from, to| -> Usd {
            let counts = |(period, _): &&(Period, Usd)| (from..to).contains(&period.from);
            charged.iter().filter(counts).map(|(_, amount)| *amount).sum()
        };
        let counted = (since(window.from, window.to), since(window.to, EVER.to));
        let told = (budget.spent, budget.ahead);
        (counted != told)
            .then(|| format!("{key} counts {told:?} in and after its window, it was {counted:?}"))
    }

    /// What was charged to a budget for time across a moment.
    pub(crate) fn charged_across(&self, key: &BudgetKey, moment: Timestamp) -> Usd {
        let charged = self.0.get(key).map_or(&[][..], Vec::as_slice);
        let across = charged.iter().filter(|(period, _)| period.from < moment && moment < period.to);
        across.map(|(_, amount)| *amount).sum()
    }
}
