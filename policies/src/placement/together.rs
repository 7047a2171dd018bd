//! Which launches of a plan one call may ask for.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{Account, ExperimentId, InstanceId, OfferingKey, Timestamp, Together};

use super::launches::Launch;

/// What launches have in common that one call may ask for: what is rented, and for whom. Those of a gang are by themselves,
/// all or none.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind<'a> {
    offering: OfferingKey,
    disk_gib: u32,
    account: Option<&'a Account>,
    gang: Option<ExperimentId>,
}

/// For each launch those that one call asks for with it, if there are any.
pub(super) fn together(launches: &[Launch<'_>], lease_until: Timestamp) -> Vec<Option<Arc<Together>>> {
    let mut alike: BTreeMap<Kind<'_>, Vec<usize>> = BTreeMap::new();
    for (index, launch) in launches.iter().enumerate() {
        let mut accounts = launch.payers.iter().map(|(_, account, _)| &***account);
        let first = accounts.next();
        let kind = Kind {
            offering: launch.offering.key(),
            disk_gib: launch.disk_gib,
            account: first.filter(|first| accounts.all(|other| other == *first)),
            gang: launch.gang,
        };
        alike.entry(kind).or_default().push(index);
    }
    let mut together = vec![None; launches.len()];
    for (kind, indices) in alike {
        let whole = kind.gang.is_some() && indices.len() <= Together::MAX;
        for call in indices.chunks(Together::MAX).filter(|call| call.len() > 1) {
            let instances: Vec<InstanceId> = call.iter().map(|index| launches[*index].id).collect();
            let one = Arc::new(Together { instances, lease_until, whole });
            for index in call {
                together[*index] = Some(one.clone());
            }
        }
    }
    together
}
