//! What was charged to each budget, counted from the events apart from the budgets' own sums.

use std::collections::BTreeMap;

use bursar_model::{Budget, BudgetKey, Event, Timestamp, Usd};

use crate::cloud::EVER;

/// All charges to budgets that outlive their work: they have windows. The others are recounted at the end.
#[derive(Debug, Default)]
pub(crate) struct Books(BTreeMap<BudgetKey, Vec<(Timestamp, Usd)>>);

impl Books {
    pub(crate) fn enter(&mut self, event: &Event) {
        let (Event::Charged { charge, .. } | Event::BillCorrected { charge }) = event else { return };
        for line in &charge.lines {
            for key in line.account.budgets(line.payer).filter(|key| !key.ends_with_its_work()) {
                self.0.entry(key).or_default().push((charge.period.from, line.costs.effective));
            }
        }
    }

    /// What is wrong with a budget, once all that was ever charged is entered.
    pub(crate) fn judge(&self, key: &BudgetKey, budget: &Budget) -> Option<String> {
        let window = budget.window.unwrap_or(EVER);
        let charged = self.0.get(key).map_or(&[][..], Vec::as_slice);
        let since = |from, to| -> Usd {
            let counts = |(began, _): &&(Timestamp, Usd)| (from..to).contains(began);
            charged.iter().filter(counts).map(|(_, amount)| *amount).sum()
        };
        let counted = (since(window.from, window.to), since(window.to, EVER.to));
        let told = (budget.spent, budget.ahead);
        (counted != told)
            .then(|| format!("{key} counts {told:?} in and after its window, it was {counted:?}"))
    }
}
