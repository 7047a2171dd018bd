//! The budget that the cloud's bill is held against, window by window: promise 2 as the cloud would see it.

use std::sync::Arc;

use bursar_model::{BudgetTerms, Period, Schedule, Timestamp, Usd};

use crate::cloud::{EVER, ROUNDING, SimCloud};

/// A cap on all that the cloud bills.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cap {
    /// `None` where there is none.
    cap: Option<Usd>,
    schedule: Option<Schedule>,
    /// What was billed and held when it was set may land until its window ends.
    landing: Usd,
    landing_until: Timestamp,
    /// What was charged by then for time across the begin of that window. A charge counts where it begins, and from then on
    /// charges are cut at windows.
    straddling: Usd,
}

impl Cap {
    pub(crate) fn of(terms: Option<&Arc<BudgetTerms>>) -> Self {
        Self {
            cap: terms.and_then(|terms| terms.cap()),
            schedule: terms.and_then(|terms| terms.schedule.clone()),
            ..Self::default()
        }
    }

    fn window(&self, now: Timestamp) -> Period {
        self.schedule.as_ref().map_or(EVER, |schedule| schedule.window_at(now))
    }

    /// The same, set while work runs: what is billed and held by then may land. What is not charged yet is in both, so
    /// that this is more than may land, by the charges of a lease at most.
    pub(crate) fn set_while_running(
        self,
        cloud: &SimCloud,
        now: Timestamp,
        held: Usd,
        charged_across: impl FnOnce(Timestamp) -> Usd,
    ) -> Self {
        let window = self.window(now);
        let (_, most) = cloud.bounds_of_all(window);
        let straddling = charged_across(window.from);
        Self { landing: most + held, landing_until: window.to, straddling, ..self }
    }

    /// What is wrong where the bill of the present window is above what it may be.
    pub(crate) fn judge(&self, cloud: &SimCloud, now: Timestamp) -> Option<String> {
        let cap = self.cap?;
        let most = if now < self.landing_until { self.landing.max(cap + self.straddling) } else { cap };
        let window = self.window(now);
        let (least, _) = cloud.bounds_of_all(window);
        let least = least - cloud.bill_of_hung(window);
        (least > most + ROUNDING).then(|| format!("the cloud wants {least} at least of a limit of {most}"))
    }
}
