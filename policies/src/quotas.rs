//! Quotas, held like money: what a plan launches fits into what the account may have, so that many launches at once do not
//! run into one limit, each to learn of it by itself.

use std::{cell::RefCell, sync::Arc};

use bursar_model::{Fleet, Offering, Quota};
use rustc_hash::FxHashMap;

/// What of each quota is in use, by instances and by the launches of a plan.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    used: RefCell<FxHashMap<Arc<str>, u32>>,
}

impl Quotas {
    /// What the instances use that there are, or may be.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let quotas = Self::default();
        for instance in fleet.instances.values().filter(|instance| instance.is_live()) {
            quotas.take(&instance.offering, 1);
        }
        quotas
    }

    /// Whether so many more of an offering are allowed.
    pub(crate) fn allow(&self, offering: &Offering, count: u32) -> bool {
        self.lacking(offering, count).is_none()
    }

    /// The quota that does not allow it, what is in use of it, and what it would take.
    pub(crate) fn lacking(&self, offering: &Offering, count: u32) -> Option<(Arc<Quota>, u32, u32)> {
        let takes = offering.quota.as_ref()?;
        let used = self.used.borrow().get(&takes.quota.name).copied().unwrap_or(0);
        let needed = takes.units.saturating_mul(count);
        (used.saturating_add(needed) > takes.quota.limit).then(|| (takes.quota.clone(), used, needed))
    }

    /// So many more of an offering are launched. Says whether that uses anything up.
    pub(crate) fn take(&self, offering: &Offering, count: u32) -> bool {
        let Some(takes) = &offering.quota else { return false };
        let mut used = self.used.borrow_mut();
        let used = used.entry(takes.quota.name.clone()).or_default();
        *used = used.saturating_add(takes.units.saturating_mul(count));
        true
    }
}
