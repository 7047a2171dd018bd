//! Holds: money set aside before it can be spent.
//!
//! A hold is the ceiling price over the time that is paid for but not charged yet. As charges grow the hold shrinks by
//! at least as much, so `spent + held` never rises between two decisions of ours, whatever the cloud does and whether
//! or not the daemon lives: the instance ends itself when what is held is used up.

use std::collections::BTreeMap;

use bursar_model::{
    CapacityType, ExperimentId, Instance, InstanceType, Offering, Share, Span, Usd, UsdPerHour,
};

/// Kept on top of each share's hold while any is left. Splitting a charge rounds each part by less than one
/// nano-dollar; a thousand charges within one lease are far more than there ever are.
const ROUNDING: Usd = Usd::from_nanos(1_000);

/// What an instance may come to cost at worst.
///
/// Up to its ceiling while it works. A spot price that passes the ceiling has the instance drained; until that is over
/// it costs what it costs. Clouds keep spot prices at or below the on-demand price of the same machine, so that is what
/// the drain holds. Should a provider break that rule, or sell spot without any on-demand price to go by, the books tell
/// the truth and invariant B1 reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstCase {
    ceiling: UsdPerHour,
    while_draining: UsdPerHour,
    drain_allowance: Span,
}

impl WorstCase {
    /// Of an instance of this offering that is drained above `ceiling`.
    #[must_use]
    pub fn of(offering: &Offering, ceiling: UsdPerHour, drain_allowance: Span) -> Self {
        let while_draining = match offering.capacity_type {
            CapacityType::Spot => offering.on_demand_price.map_or(ceiling, |price| price.max(ceiling)),
            // These prices are agreed on at the launch.
            CapacityType::OnDemand | CapacityType::Reserved => ceiling,
        };
        Self { ceiling, while_draining, drain_allowance }
    }

    /// Of this instance.
    #[must_use]
    pub fn of_instance(instance: &Instance) -> Self {
        Self::of(&instance.offering, instance.ceiling, instance.drain_allowance)
    }

    /// What so much time costs at worst, the drain at its end included. Rounded up.
    #[must_use]
    pub fn cost(self, time: Span) -> Usd {
        let drain = time.min(self.drain_allowance);
        let working = time.saturating_sub(drain);
        self.ceiling.cost_rounded_up(working).saturating_add(self.while_draining.cost_rounded_up(drain))
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
    Usd::from_nanos(part as i64) + ROUNDING
}

/// The shares with their holds made anew for the time that is paid for and not charged.
#[must_use]
pub fn with_holds(
    instance: &Instance,
    mut shares: BTreeMap<ExperimentId, Share>,
    uncharged: Span,
) -> BTreeMap<ExperimentId, Share> {
    fill(WorstCase::of_instance(instance), &instance.offering.instance_type, &mut shares, uncharged);
    shares
}

/// Makes the holds of all shares of an instance of this type for so much time.
pub fn fill(
    worst: WorstCase,
    kind: &InstanceType,
    shares: &mut BTreeMap<ExperimentId, Share>,
    uncharged: Span,
) {
    let sum: u32 = shares.values().map(|share| share.weight).sum();
    let total = sum.max(kind.weight());
    let whole = worst.cost(uncharged);
    for share in shares.values_mut() {
        share.held = part_of(whole, share.weight, total);
    }
}
