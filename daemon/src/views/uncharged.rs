//! What an experiment costs that is not charged to it yet. Instances are charged when something changes of them and when
//! their leases are renewed, so between two charges nothing is known but the prices; and an instance that idles after the
//! end of an experiment is still paid for by it. Whoever reads a cost has to be told of both.

use std::{collections::BTreeSet, iter};

use bursar_ledger::meter;
use bursar_model::{ExperimentId, Instance, Timestamp, Usd};
use serde::{Deserialize, Serialize};

/// What comes on top of what an experiment was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncharged {
    /// About what its parts of its instances cost since they were charged last, at the prices in force.
    pub about: Usd,
    /// Since when, where anything was billed: the earliest of its instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What is held for them: no more than about this is charged before their leases are renewed.
    pub held: Usd,
    /// When the first of their leases ends. By then it is charged.
    pub until: Timestamp,
}

/// Of the live instances that an experiment pays for, at `now`; nothing where there is none, so that its cost is final.
pub(super) fn uncharged(
    experiment: ExperimentId,
    instances: &[Instance],
    now: Timestamp,
) -> Option<Uncharged> {
    let until = instances.iter().map(|instance| instance.lease_until).min()?;
    let (mut about, mut held, mut since) = (Usd::ZERO, Usd::ZERO, None);
    for instance in instances {
        held += instance.shares.get(&experiment).map_or(Usd::ZERO, |share| share.held);
        // Nothing runs beyond what is held for it, whatever the clock says of a daemon that is down.
        let to = now.min(instance.held_until());
        // What for is another question, and the only one that what runs there would answer.
        let Some(metered) = meter(instance, iter::empty(), to, &BTreeSet::new()) else { continue };
        let lines = metered.charges().flat_map(|charge| &charge.lines);
        about += lines.filter(|line| line.payer == experiment).map(|line| line.costs.effective).sum::<Usd>();
        let through = instance.meter.through;
        since = Some(since.map_or(through, |since: Timestamp| since.min(through)));
    }
    Some(Uncharged { about, since, held, until })
}
