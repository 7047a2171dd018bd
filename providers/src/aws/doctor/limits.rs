//! Which quotas of the account keep what is on offer from being launched, and the request to raise each. Pure.
//!
//! A new account may run nothing that has a GPU. Whoever wants one family of types only need not care for the quotas of the
//! others, so that a quota that is too small is told, and is a fault only where nothing with a GPU is left, or nothing at all.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{Offering, Quota, Region};

use super::judge::Judged;

const QUOTAS: &str = "quotas";

/// A quota, and the types that count in it.
#[derive(Debug)]
struct Counted {
    region: Region,
    quota: Arc<Quota>,
    /// What the smallest type takes, and the largest.
    least: u32,
    most: u32,
    has_accelerators: bool,
}

pub(super) fn judged(offerings: &[Offering]) -> Vec<Judged> {
    let mut by_name: BTreeMap<&str, Counted> = BTreeMap::new();
    for offering in offerings {
        let Some(used) = &offering.quota else { continue };
        let counted = by_name.entry(&used.quota.name).or_insert_with(|| Counted {
            region: offering.region.clone(),
            quota: used.quota.clone(),
            least: used.units,
            most: used.units,
            has_accelerators: false,
        });
        counted.least = counted.least.min(used.units);
        counted.most = counted.most.max(used.units);
        counted.has_accelerators |= offering.instance_type.accelerators.is_some();
    }
    let all = || by_name.values();
    let has = |accelerators: bool, open: bool| {
        all().any(|one| one.has_accelerators == accelerators && (!open || !one.is_shut()))
    };
    let is_fault = (has(true, false) && !has(true, true)) || (has(false, false) && !has(false, true));
    let mut judged: Vec<Judged> = Vec::new();
    for one in all().filter(|one| one.is_shut()) {
        let Counted { region, quota, least, .. } = one;
        let (limit, title) = (quota.limit, &quota.title);
        let is_needed = is_fault && !has(one.has_accelerators, true);
        let detail =
            format!("`{title}` is {limit} vCPUs, and the smallest type that counts there takes {least}");
        judged.push(if is_needed {
            Judged::ill(QUOTAS, Some(region), detail, one.request())
        } else {
            Judged::well(QUOTAS, Some(region), format!("{detail}; to raise it: {}", one.request()))
        });
    }
    if judged.is_empty() && !by_name.is_empty() {
        judged.push(Judged::well(QUOTAS, None, "each has room for some type"));
    }
    judged
}

impl Counted {
    /// No type fits.
    fn is_shut(&self) -> bool {
        self.quota.limit < self.least
    }

    /// For one of the largest.
    fn request(&self) -> String {
        let code = self.quota.name.rsplit('/').next().unwrap_or_default();
        format!(
            "`aws service-quotas request-service-quota-increase --region {} --service-code ec2 --quota-code {code} \
             --desired-value {}`",
            self.region, self.most
        )
    }
}
