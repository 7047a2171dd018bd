//! What the simulated cloud sells, and at what price at what time.

use std::sync::Arc;

use bursar_model::{
    Accelerators, CapacityType, InstanceType, Offering, Period, ProviderName, Span, Timestamp, Usd,
    UsdPerHour,
};

use crate::{chance::Chance, series::Series};

/// A price stands for so long: spot prices move a few times an hour.
const PRICE_STEP: Span = Span::from_secs(600);

/// A price that comes later than this after a time was never charged for it.
const LEARNED_LATE: Span = Span::from_hours(24);

/// One thing that the cloud sells.
#[derive(Debug, Clone)]
pub struct SimOffering {
    /// What it is; its price is the first of the course.
    pub offering: Offering,
    /// How many can run at once.
    pub capacity: SimCapacity,
    /// How the price moves.
    pub prices: SimPrices,
    /// How the cloud takes machines back by chance, if it does.
    pub interruptions: Option<Interruptions>,
}

/// How the price of an offering moves.
#[derive(Debug, Clone)]
pub enum SimPrices {
    /// It does not.
    Fixed,
    /// By chance at each step, by up to so many thousandths.
    Walk {
        /// How many.
        swing_per_mille: u32,
    },
    /// As it once did.
    Replay(Arc<Series<UsdPerHour>>),
}

/// How many machines of an offering can run at once.
#[derive(Debug, Clone)]
pub enum SimCapacity {
    /// Always so many.
    Steady(u32),
    /// As many as once could. When it falls below what runs, the youngest machines are taken back.
    Replay {
        /// How many from when on.
        counts: Arc<Series<u32>>,
        /// How long before the end they are told, if at all.
        notice: Option<Span>,
    },
}

impl SimCapacity {
    pub(crate) fn at(&self, at: Timestamp) -> u32 {
        match self {
            Self::Steady(count) => *count,
            Self::Replay { counts, .. } => counts.at(at),
        }
    }
}

/// How the cloud takes machines back.
#[derive(Debug, Clone, Copy)]
pub struct Interruptions {
    /// A machine lives so long on average.
    pub every: Span,
    /// How long before the end it is told, if at all.
    pub notice: Option<Span>,
}

/// The price of an offering over time: as told, or a seeded walk between half of the first price and the on-demand
/// price, until somebody sets it.
#[derive(Debug)]
pub(crate) struct Prices {
    /// Since when each price is in force, in order. The first is there from the start.
    points: Vec<(Timestamp, UsdPerHour)>,
    floor: i64,
    cap: i64,
    swing_per_mille: u32,
    chance: Chance,
}

impl Prices {
    pub(crate) fn new(of: &SimOffering, began: Timestamp, chance: Chance) -> Self {
        let first = of.offering.price.unwrap_or_default();
        // A spot price above on-demand is what no cloud asks: so the default ceiling is never passed unseen.
        let cap = of.offering.on_demand_price.unwrap_or(first).as_nanos();
        let (swing_per_mille, points) = match &of.prices {
            SimPrices::Fixed => (0, vec![(began, first)]),
            SimPrices::Walk { swing_per_mille } => (*swing_per_mille, vec![(began, first)]),
            SimPrices::Replay(series) => (0, series.points().to_vec()),
        };
        Self { points, floor: first.as_nanos() / 2, cap, swing_per_mille, chance }
    }

    pub(crate) fn at(&mut self, at: Timestamp) -> UsdPerHour {
        self.in_force(at).1
    }

    /// Since when the price of a moment is in force.
    pub(crate) fn since(&mut self, at: Timestamp) -> Timestamp {
        self.in_force(at).0
    }

    /// From then on the price is this one and moves no more.
    pub(crate) fn set(&mut self, at: Timestamp, price: UsdPerHour) {
        self.walk_to(at);
        self.swing_per_mille = 0;
        self.points.retain(|(since, _)| *since < at);
        self.points.push((at, price));
    }

    /// What a machine cost over a period, by the cloud's own reckoning: each price for its time, rounded down once.
    pub(crate) fn cost(&mut self, period: Period) -> Usd {
        self.walk_to(period.to);
        let (mut cost, mut remainder) = (Usd::ZERO, 0);
        let first = self.points.partition_point(|(since, _)| *since <= period.from).saturating_sub(1);
        let points = &self.points[first..];
        let ends = points.iter().skip(1).map(|(since, _)| *since).chain([period.to]);
        for ((since, price), end) in points.iter().zip(ends) {
            let part = Period::new((*since).max(period.from), end.min(period.to));
            let (amount, rest) = price.cost_with_remainder(part.span(), remainder);
            (cost, remainder) = (cost + amount, rest);
        }
        cost
    }

    /// The least and the most that the ledger may make of a period: any price that it may have known may have counted.
    pub(crate) fn bounds(&self, period: Period) -> (Usd, Usd) {
        let (low, high) = self.known_by(period.to + LEARNED_LATE);
        (low.cost_with_remainder(period.span(), 0).0, high.cost_rounded_up(period.span()))
    }

    fn known_by(&self, at: Timestamp) -> (UsdPerHour, UsdPerHour) {
        let known = self.points.iter().filter(|(since, _)| *since <= at).map(|(_, price)| *price);
        (known.clone().min().unwrap_or_default(), known.max().unwrap_or_default())
    }

    /// What the ledger may be wrong by over a period, at most. It learns prices late, the later the longer it was dead
    /// or the cloud was down, and charges what nobody vouched for at the newest, so that any price may have counted.
    pub(crate) fn doubt(&self, period: Period) -> Usd {
        let (low, high) = self.known_by(period.to + LEARNED_LATE);
        let spread = UsdPerHour::from_nanos(high.as_nanos() - low.as_nanos());
        spread.cost_rounded_up(period.span())
    }

    fn in_force(&mut self, at: Timestamp) -> (Timestamp, UsdPerHour) {
        self.walk_to(at);
        let after = self.points.partition_point(|(since, _)| *since <= at);
        self.points[after.saturating_sub(1)]
    }

    /// No price of it is above this.
    pub(crate) fn most(&self) -> UsdPerHour {
        let highest = self.points.iter().map(|(_, price)| *price).max().unwrap_or_default();
        highest.max(UsdPerHour::from_nanos(self.cap))
    }

    fn walk_to(&mut self, until: Timestamp) {
        while self.swing_per_mille > 0 {
            let Some((since, last)) =
                self.points.last().copied().filter(|(since, _)| *since + PRICE_STEP <= until)
            else {
                return;
            };
            let swing = i64::from(self.swing_per_mille);
            let moved = 1000 - swing + self.chance.below(2 * swing as u64 + 1) as i64;
            let next = (last.as_nanos() / 1000 * moved).clamp(self.floor.min(self.cap), self.cap);
            self.points.push((since + PRICE_STEP, UsdPerHour::from_nanos(next)));
        }
    }
}

/// A cloud in two zones with machines of 1 and 4 accelerators: on-demand at fixed prices, spot at moving ones that the
/// cloud takes back after an hour or two, in one zone with two minutes of notice, in the other with none or 30 s.
#[must_use]
pub fn small_market(provider: &ProviderName) -> Vec<SimOffering> {
    let mut offerings = Vec::new();
    for (name, count, on_demand_cents, spot_cents) in [("g1", 1, 100, 35), ("g4", 4, 380, 130)] {
        let instance_type = Arc::new(InstanceType {
            name: name.into(),
            accelerators: Some(Accelerators { name: "T4".into(), count, memory_gib: Some(16) }),
            cpus_milli: 8_000 * count,
            memory_mib: 32_768 * u64::from(count),
            disk_gib: 1_000,
        });
        for (zone, notice_secs) in [("z1", Some(120)), ("z2", (count == 1).then_some(30))] {
            let on_demand_price = cents(on_demand_cents);
            let offering = |capacity_type, price| Offering {
                provider: provider.clone(),
                region: "r".into(),
                zone: zone.into(),
                instance_type: instance_type.clone(),
                capacity_type,
                price: Some(price),
                list_price: None,
                on_demand_price: Some(on_demand_price),
                price_since: None,
                quota: None,
                notice: None,
                terms: Arc::default(),
            };
            offerings.push(SimOffering {
                offering: offering(CapacityType::OnDemand, on_demand_price),
                capacity: SimCapacity::Steady(3),
                prices: SimPrices::Fixed,
                interruptions: None,
            });
            offerings.push(SimOffering {
                offering: offering(CapacityType::Spot, cents(spot_cents)),
                capacity: SimCapacity::Steady(2),
                prices: SimPrices::Walk { swing_per_mille: 200 },
                interruptions: Some(Interruptions {
                    every: Span::from_secs(5400),
                    notice: notice_secs.map(Span::from_secs),
                }),
            });
        }
    }
    offerings
}

fn cents(cents: i64) -> UsdPerHour {
    UsdPerHour::from_nanos(cents * 10_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_of_a_whole_is_that_of_its_parts_to_the_rounding() {
        let began = Timestamp::from_millis(1_800_000_000_000);
        for of in small_market(&"cloud".into()) {
            let mut prices = Prices::new(&of, began, Chance::new(7));
            let at = |secs| began + Span::from_secs(secs);
            let whole = prices.cost(Period::new(at(17), at(9_000)));
            let parts =
                prices.cost(Period::new(at(17), at(4_001))) + prices.cost(Period::new(at(4_001), at(9_000)));
            assert!((whole - parts).as_nanos().abs() <= 1, "{whole:?} {parts:?}");
            assert!(prices.at(at(9_000)) <= of.offering.on_demand_price.unwrap());
        }
    }
}
