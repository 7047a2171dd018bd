//! The bases on which the same hour has a price, and the terms on which a provider bills.
//!
//! Finance asks for four figures of every charge and bursar keeps them apart from the first: what it costs us, what the
//! cloud's bill will say, what the list says, and what the same machine had cost on demand. The names are those of
//! FOCUS (FinOps Open Cost and Usage Specification 1.2: `EffectiveCost`, `ContractedCost`, `ListCost`).

use serde::{Deserialize, Serialize};

use crate::{
    instance::{CloudInstance, CloudState},
    money::{Usd, UsdPerHour},
    name::{ProviderName, Region, TypeName},
    offering::{CapacityType, Offering},
    time::{Period, Span, Timestamp},
};

/// The same thing on each pricing basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByBasis<T> {
    /// What budgets and payers are charged: the contracted price, and the overhead of this installation.
    pub effective: T,
    /// What the cloud's bill says: the list price less the discounts of the account.
    pub contracted: T,
    /// What the provider lists for everybody.
    pub list: T,
    /// What the same machine had cost on demand, all else being equal: what savings are measured against.
    pub on_demand: T,
}

/// Prices of an hour.
pub type Rates = ByBasis<UsdPerHour>;

/// Amounts of money.
pub type Costs = ByBasis<Usd>;

/// What rounding left over, for `UsdPerHour::cost_with_remainder`.
pub type Remainders = ByBasis<i64>;

impl<T> ByBasis<T> {
    /// Each turned into something else.
    pub fn map<U>(self, mut turn: impl FnMut(T) -> U) -> ByBasis<U> {
        let Self { effective, contracted, list, on_demand } = self;
        ByBasis {
            effective: turn(effective),
            contracted: turn(contracted),
            list: turn(list),
            on_demand: turn(on_demand),
        }
    }

    /// Each with its counterpart.
    pub fn zip<U>(self, other: ByBasis<U>) -> ByBasis<(T, U)> {
        ByBasis {
            effective: (self.effective, other.effective),
            contracted: (self.contracted, other.contracted),
            list: (self.list, other.list),
            on_demand: (self.on_demand, other.on_demand),
        }
    }
}

impl Costs {
    /// The same amount on every basis.
    #[must_use]
    pub const fn all(amount: Usd) -> Self {
        Self { effective: amount, contracted: amount, list: amount, on_demand: amount }
    }
}

impl Rates {
    /// The same price on every basis.
    #[must_use]
    pub const fn all(price: UsdPerHour) -> Self {
        Self { effective: price, contracted: price, list: price, on_demand: price }
    }

    /// What these prices cost over a time, with what rounding left over before and leaves over now.
    #[must_use]
    pub fn costs_with_remainders(self, span: Span, remainders: Remainders) -> (Costs, Remainders) {
        let priced = self.zip(remainders).map(|(price, left)| price.cost_with_remainder(span, left));
        (priced.map(|(cost, _)| cost), priced.map(|(_, left)| left))
    }
}

impl std::ops::AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::Add for Costs {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.zip(other).map(|(a, b)| a + b)
    }
}

impl std::ops::Sub for Costs {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip(other).map(|(a, b)| a - b)
    }
}

impl std::ops::Neg for Costs {
    type Output = Self;
    fn neg(self) -> Self {
        self.map(std::ops::Neg::neg)
    }
}

impl std::iter::Sum for Costs {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), std::ops::Add::add)
    }
}

/// What one machine costs an hour by itself: without its disk, which depends on what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Price {
    /// Discounted, with address and overhead: what is compared and held.
    pub effective: UsdPerHour,
    /// As the provider lists it, with its address.
    pub list: UsdPerHour,
}

impl Price {
    /// Without discounts and extras, both are the same.
    #[must_use]
    pub const fn plain(price: UsdPerHour) -> Self {
        Self { effective: price, list: price }
    }
}

/// On which terms a provider rents out a machine, beside its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Terms {
    /// What is billed for how long.
    #[serde(default)]
    pub billing: BillingRules,
    /// What one GiB of disk costs an hour.
    #[serde(default)]
    pub disk_gib: UsdPerHour,
    /// What its public address costs an hour; part of all prices.
    #[serde(default)]
    pub address: UsdPerHour,
    /// What this installation adds for every instance, and the cloud does not bill; part of the effective price.
    #[serde(default)]
    pub overhead: UsdPerHour,
    /// The smallest disk that the image fits on, in GiB.
    #[serde(default)]
    pub disk_min_gib: u32,
}

/// For how much time a provider bills.
///
/// AWS bills Linux instances by the second with a minimum of 60 s, while they run
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-purchasing-options.html>); Compute Engine by the
/// second with a minimum of one minute (<https://cloud.google.com/compute/vm-instance-pricing>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BillingRules {
    /// A started one counts whole. Never nothing.
    pub granularity: Span,
    /// What is billed at least once billing has begun.
    pub minimum: Span,
    /// When billing begins.
    pub starts: BillingStart,
    /// When billing ends.
    pub ends: BillingEnd,
}

/// When billing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BillingStart {
    /// With the launch, by the cloud's record.
    #[default]
    Launch,
    /// Once it runs: one that never came up costs nothing.
    Running,
}

/// When billing ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BillingEnd {
    /// Once it is gone.
    #[default]
    Gone,
    /// As soon as it is told to end, or the cloud begins to take it back.
    Stopping,
}

/// Each millisecond from the launch to the end: what a provider without rules of its own bills.
impl Default for BillingRules {
    fn default() -> Self {
        Self {
            granularity: Span::from_millis(1),
            minimum: Span::ZERO,
            starts: BillingStart::Launch,
            ends: BillingEnd::Gone,
        }
    }
}

impl BillingRules {
    /// By the second, a minute at least, while it runs: AWS and Google Cloud.
    pub const PER_SECOND: Self = Self {
        granularity: Span::from_secs(1),
        minimum: Span::from_secs(60),
        starts: BillingStart::Running,
        ends: BillingEnd::Stopping,
    };

    /// For how long so much time is billed.
    #[must_use]
    pub fn billed(&self, time: Span) -> Span {
        let unit = self.granularity.as_millis().max(1);
        let started = time.as_millis().div_euclid(unit) + i64::from(time.as_millis().rem_euclid(unit) > 0);
        Span::from_millis(started.saturating_mul(unit)).max(self.minimum)
    }

    /// Until when an instance is billed that was billed from `from` on and ended then.
    #[must_use]
    pub fn billed_until(&self, from: Timestamp, ended: Timestamp) -> Timestamp {
        from + self.billed(ended.since(from))
    }

    /// What may still be billed of an instance that is billed up to `through` and ends at `end` at the latest. Where its
    /// billing has not begun, `through` is the earliest at which it may.
    #[must_use]
    pub fn outstanding(&self, from: Option<Timestamp>, through: Timestamp, end: Timestamp) -> Span {
        match from {
            Some(from) => self.billed_until(from, end).since(through),
            // However late it begins, it is billed for no more than this.
            None => self.billed(end.since(through)),
        }
    }

    /// Since when the cloud bills an instance, once it does.
    #[must_use]
    pub fn began(&self, cloud: &CloudInstance) -> Option<Timestamp> {
        match (self.starts, &cloud.state) {
            (BillingStart::Launch, _) => Some(cloud.launched_at),
            (BillingStart::Running, CloudState::Pending) => None,
            // A cloud that does not say since when it runs is taken to bill from the launch: never too little.
            (BillingStart::Running, CloudState::Running) => {
                Some(cloud.running_at.unwrap_or(cloud.launched_at))
            }
            // It may have been told to end before it ran.
            (BillingStart::Running, CloudState::Stopping | CloudState::Gone { .. }) => cloud.running_at,
        }
    }

    /// When the cloud stopped billing an instance that is gone since `gone_at`.
    #[must_use]
    pub fn ended(&self, cloud: &CloudInstance, gone_at: Timestamp) -> Timestamp {
        match self.ends {
            BillingEnd::Gone => gone_at,
            BillingEnd::Stopping => cloud.stopping_at.unwrap_or(gone_at).min(gone_at),
        }
    }
}

/// A discount that an account has on listed prices. What is `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Discount {
    /// At this provider.
    pub provider: Option<ProviderName>,
    /// In this region.
    pub region: Option<Region>,
    /// Of this type; a `*` at the end stands for anything.
    pub instance_type: Option<TypeName>,
    /// On spot or on-demand capacity.
    pub capacity_type: Option<CapacityType>,
    /// How much, in millionths of the listed price. Below a million.
    pub millionths: u32,
}

impl Discount {
    /// Whether it is on this offering.
    #[must_use]
    pub fn is_on(&self, offering: &Offering) -> bool {
        let Self { provider, region, instance_type, capacity_type, millionths: _ } = self;
        let of_type = |wanted: &TypeName| {
            let name = offering.instance_type.name.as_str();
            wanted
                .as_str()
                .strip_suffix('*')
                .map_or_else(|| name == wanted.as_str(), |stem| name.starts_with(stem))
        };
        provider.as_ref().is_none_or(|name| *name == offering.provider)
            && region.as_ref().is_none_or(|name| *name == offering.region)
            && instance_type.as_ref().is_none_or(of_type)
            && capacity_type.is_none_or(|kind| kind == offering.capacity_type)
    }
}

/// A price that was in force until a moment, for time that is not charged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierPrice {
    /// Another one was in force from then on.
    pub until: Timestamp,
    /// What it was.
    pub price: Price,
}

/// A part of a period in which one price was in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// When.
    pub period: Period,
    /// The price.
    pub price: Price,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_unit_counts_whole_and_the_minimum_at_least() {
        let rules = BillingRules::PER_SECOND;
        assert_eq!(rules.billed(Span::ZERO), Span::from_secs(60));
        assert_eq!(rules.billed(Span::from_millis(60_001)), Span::from_secs(61));
        assert_eq!(rules.billed(Span::from_secs(61)), Span::from_secs(61));
        let hourly = BillingRules { granularity: Span::from_hours(1), ..BillingRules::default() };
        assert_eq!(hourly.billed(Span::from_secs(1)), Span::from_hours(1));
        assert_eq!(BillingRules::default().billed(Span::from_millis(7)), Span::from_millis(7));
    }

    #[test]
    fn what_is_outstanding_covers_an_instance_whose_billing_begins_late() {
        let rules = BillingRules::PER_SECOND;
        let (through, end) = (Timestamp::from_millis(0), Timestamp::from_millis(90_500));
        let held = rules.outstanding(None, through, end);
        for late in [0, 1, 30_000, 89_999, 90_500] {
            let from = Timestamp::from_millis(late);
            assert!(rules.outstanding(Some(from), from, end) <= held, "{late}");
        }
    }
}
