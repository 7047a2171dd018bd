//! Holds: money set aside before it can be spent.
//!
//! A hold is the ceiling price over the time that may still be billed. As charges grow the hold shrinks by at least as
//! much, so `spent + held` never rises between two decisions of ours, whatever the cloud does and whether or not the
//! daemon lives: the instance ends itself when what is held is used up.

use std::collections::BTreeMap;

use bursar_model::{
    BillingRules, CapacityType, ExperimentId, Instance, InstanceType, Offering, Share, Span, Usd, UsdPerHour,
};

/// Kept on top of each share's hold while any is left. Splitting a charge rounds each part by less than one
/// nano-dollar; a thousand charges within one lease are far more than there ever are.
const ROUNDING: Usd = Usd::from_nanos(1_000);

/// What an instance may come to cost at worst.
///
/// Up to its ceiling while it works. A spot price that passes the ceiling has the instance drained; until that is over
/// it costs what it costs. Clouds keep spot prices at or below the on-demand price of the same machine, so that is what
/// the drain holds. Should a provider break that rule, or sell spot without any on-demand price to go by, the books tell
/// the truth and invariant B1 reports it. The disk costs the same throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstCase {
    ceiling: UsdPerHour,
    while_draining: UsdPerHour,
    drain_allowance: Span,
    billing: BillingRules,
}

impl WorstCase {
    /// Of an instance of this offering with so much disk that is drained above `ceiling`.
    #[must_use]
    pub fn of(offering: &Offering, disk_gib: u32, ceiling: UsdPerHour, drain_allowance: Span) -> Self {
        let while_draining = match offering.capacity_type {
            CapacityType::Spot => offering.on_demand_price.map_or(ceiling, |price| price.max(ceiling)),
            // These prices are agreed on at the launch.
            CapacityType::OnDemand | CapacityType::Reserved => ceiling,
        };
        let disk = offering.terms.disk_gib.times(disk_gib);
        Self {
            ceiling: ceiling + disk,
            while_draining: while_draining + disk,
            drain_allowance,
            billing: offering.terms.billing,
        }
    }

    /// Of this instance.
    #[must_use]
    pub fn of_instance(instance: &Instance) -> Self {
        let Instance { offering, disk_gib, ceiling, drain_allowance, .. } = instance;
        Self::of(offering, *disk_gib, *ceiling, *drain_allowance)
    }

    /// What so much billed time costs at worst, the drain at its end included. Rounded up.
    #[must_use]
    pub fn cost(self, time: Span) -> Usd {
        let drain = time.min(self.drain_allowance);
        let working = time.saturating_sub(drain);
        self.ceiling.cost_rounded_up(working).saturating_add(self.while_draining.cost_rounded_up(drain))
    }

    /// What a launch costs at worst that is over after so much time, by the provider's billing rules.
    #[must_use]
    pub fn cost_of_launch(self, time: Span) -> Usd {
        self.cost(self.billing.billed(time))
    }
}

/// The part of a hold that one share takes, rounded up.
#[must_use]
pub fn part_of(whole: Usd, weight: u32, total_weight: u32) -> Usd {
    if whole == Usd::ZERO {
        return Usd::ZERO;
    }
    let product = i128::from(whole.as_nanos()) * i128::from(weight);
    let part = -(-product).div_euclid(i128::from(total_weight.max(1)));
    Usd::from_nanos(part as i64).saturating_add(ROUNDING)
}

/// The shares with their holds made anew for so much time that may still be billed.
#[must_use]
pub fn with_holds(
    instance: &Instance,
    mut shares: BTreeMap<ExperimentId, Share>,
    outstanding: Span,
) -> BTreeMap<ExperimentId, Share> {
    let whole = WorstCase::of_instance(instance).cost(outstanding);
    fill(whole, &instance.offering.instance_type, &mut shares);
    shares
}

/// Splits what is held for an instance of this type among its shares.
pub fn fill(whole: Usd, kind: &InstanceType, shares: &mut BTreeMap<ExperimentId, Share>) {
    let sum: u32 = shares.values().map(|share| share.weight).sum();
    let total = sum.max(kind.weight());
    for share in shares.values_mut() {
        share.held = part_of(whole, share.weight, total);
    }
}
