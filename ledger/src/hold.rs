//! Holds: money set aside before it can be spent.
//!
//! A hold is the ceiling price over the time that is paid for but not charged yet. As charges grow the hold shrinks by
//! at least as much, so `spent + held` never rises between two decisions of ours, whatever the cloud does and whether
//! or not the daemon lives: the instance ends itself when what is held is used up.

use std::collections::BTreeMap;

use bursar_model::{ExperimentId, Instance, InstanceType, Share, Span, Usd, UsdPerHour};

/// Kept on top of each share's hold while any is left. Splitting a charge rounds each part by less than one
/// nano-dollar; a thousand charges within one lease are far more than there ever are.
const ROUNDING: Usd = Usd::from_nanos(1_000);

/// What a launch must hold in all: the worst price for the whole of its first lease.
#[must_use]
pub fn launch_hold(ceiling: UsdPerHour, lease: Span, drain_allowance: Span) -> Usd {
    ceiling.cost_rounded_up(lease + drain_allowance) + ROUNDING
}

/// What each share of an instance must hold so that all of `uncharged` is paid for at the ceiling.
#[must_use]
pub fn holds(
    ceiling: UsdPerHour,
    uncharged: Span,
    shares: &BTreeMap<ExperimentId, Share>,
    total_weight: u32,
) -> BTreeMap<ExperimentId, Usd> {
    let whole = ceiling.cost_rounded_up(uncharged);
    shares.iter().map(|(payer, share)| (*payer, part_of(whole, share.weight, total_weight))).collect()
}

/// The part of a hold that one share takes, rounded up.
#[must_use]
pub fn part_of(whole: Usd, weight: u32, total_weight: u32) -> Usd {
    if whole == Usd::ZERO {
        return Usd::ZERO;
    }
    let product = i128::from(whole.as_nanos()) * i128::from(weight);
    let part = -(-product).div_euclid(i128::from(total_weight.max(1)));
    Usd::from_nanos(part as i64) + ROUNDING
}

/// The shares with their holds made anew for the time that is paid for and not charged.
#[must_use]
pub fn with_holds(
    instance: &Instance,
    mut shares: BTreeMap<ExperimentId, Share>,
    uncharged: Span,
) -> BTreeMap<ExperimentId, Share> {
    fill(instance.ceiling, &instance.offering.instance_type, &mut shares, uncharged);
    shares
}

/// Makes the holds of all shares of an instance of this type for so much time at the ceiling.
pub fn fill(
    ceiling: UsdPerHour,
    kind: &InstanceType,
    shares: &mut BTreeMap<ExperimentId, Share>,
    uncharged: Span,
) {
    let sum: u32 = shares.values().map(|share| share.weight).sum();
    let total = sum.max(kind.weight());
    let whole = ceiling.cost_rounded_up(uncharged);
    for share in shares.values_mut() {
        share.held = part_of(whole, share.weight, total);
    }
}
