//! Who pays for which part of an instance, as attempts come and go.
//!
//! Every part of an instance has a payer at all times. What an attempt uses is paid by its experiment. What nobody uses
//! is paid by the experiment that used it last (or that the instance was launched for), until the next lease: from
//! then on those who still run pay for it, because they are why the instance still is.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{Account, Amounts, Attempt, ExperimentId, Instance, InstanceType, Share, Usd};

use crate::allocate::allocate;

/// The shares of a new instance: what each experiment that it is launched for needs; the first pays for the rest.
#[must_use]
pub fn at_launch(
    kind: &InstanceType,
    wanted: &[(ExperimentId, &Arc<Account>, Amounts)],
) -> BTreeMap<ExperimentId, Share> {
    let used: u32 = wanted.iter().map(|(.., amounts)| kind.weight_of(*amounts)).sum();
    let mut rest = kind.weight().saturating_sub(used);
    let mut shares = BTreeMap::new();
    for (experiment, account, amounts) in wanted {
        add(&mut shares, *experiment, account, kind.weight_of(*amounts) + std::mem::take(&mut rest));
    }
    shares
}

/// The shares once one more experiment uses part of the instance: it takes over parts that nobody uses, its own first,
/// then the largest.
#[must_use]
pub fn at_assignment<'a>(
    instance: &Instance,
    live: impl Iterator<Item = &'a Attempt>,
    experiment: ExperimentId,
    account: &Arc<Account>,
    amounts: Amounts,
) -> BTreeMap<ExperimentId, Share> {
    let mut shares = instance.shares.clone();
    let used = used_weights(&instance.offering.instance_type, live);
    let mut wanted = instance.offering.instance_type.weight_of(amounts);
    add(&mut shares, experiment, account, wanted);

    let unused_of = |shares: &BTreeMap<ExperimentId, Share>, payer: ExperimentId| {
        let own_use = used.get(&payer).copied().unwrap_or(0);
        let new_use =
            if payer == experiment { instance.offering.instance_type.weight_of(amounts) } else { 0 };
        shares.get(&payer).map_or(0, |share| share.weight.saturating_sub(own_use + new_use))
    };
    // Each round empties one payer's unused part or ends the need: no more rounds than payers.
    for _ in 0..=shares.len() {
        let giver =
            shares.keys().copied().filter(|payer| unused_of(&shares, *payer) > 0).max_by_key(|payer| {
                (*payer == experiment, unused_of(&shares, *payer), std::cmp::Reverse(*payer))
            });
        let Some(giver) = giver.filter(|_| wanted > 0) else { break };
        let given = unused_of(&shares, giver).min(wanted);
        wanted -= given;
        shares.get_mut(&giver).expect("a giver has a share").weight -= given;
    }
    shares.retain(|_, share| share.weight > 0);
    shares
}

/// The shares for the next lease: those who run pay for what nobody uses, by what they use; where nobody runs, all
/// stays as it is.
#[must_use]
pub fn at_renewal<'a>(
    instance: &Instance,
    live: impl Iterator<Item = &'a Attempt>,
    accounts: impl Fn(ExperimentId) -> Option<Arc<Account>>,
) -> BTreeMap<ExperimentId, Share> {
    let kind = &instance.offering.instance_type;
    let used = used_weights(kind, live);
    let in_use: u32 = used.values().sum();
    if in_use == 0 {
        return instance.shares.clone();
    }
    let rest = kind.weight().saturating_sub(in_use);
    let weights: Vec<u32> = used.values().copied().collect();
    // Weights are whole numbers, as nano-dollars are: the same exact split serves.
    let extra = allocate(Usd::from_nanos(i64::from(rest)), &weights);
    let mut shares = BTreeMap::new();
    for ((payer, weight), extra) in used.into_iter().zip(extra) {
        let known = instance.shares.get(&payer).map(|share| share.account.clone());
        if let Some(account) = known.or_else(|| accounts(payer)) {
            add(&mut shares, payer, &account, weight + extra.as_nanos() as u32);
        }
    }
    shares
}

/// What each experiment's attempt uses.
pub(crate) fn used_weights<'a>(
    kind: &InstanceType,
    live: impl Iterator<Item = &'a Attempt>,
) -> BTreeMap<ExperimentId, u32> {
    live.map(|attempt| (attempt.experiment, kind.weight_of(attempt.amounts))).collect()
}

fn add(shares: &mut BTreeMap<ExperimentId, Share>, payer: ExperimentId, account: &Arc<Account>, weight: u32) {
    shares
        .entry(payer)
        .or_insert_with(|| Share { account: account.clone(), weight: 0, held: Usd::ZERO })
        .weight += weight;
}
