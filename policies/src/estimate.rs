//! What an experiment is expected to cost, before anything of it has run.
//!
//! Let `T` be the time that its `estimate` says, at its speed on the offering, and `p` what that machine and its disk cost
//! an hour; for several nodes, all below is as many times as much. Of a machine on which `n` of its kind fit, of which `m` wait, each pays `1 / min(n, m)`; by its own amounts
//! it pays `s`.
//!
//! - **expected** `= p × (T + lost) / min(n, m)`. On spot one interruption a day of work is reckoned with; each loses half a
//!   checkpoint interval, or half of `T` where no interval is named. Whatever the hazard is, the market bounds what it
//!   costs: spot at `p` is bought because it is cheaper than on-demand at `o`, so `lost <= T × (o / p - 1)`. On firm capacity
//!   nothing is lost.
//! - **low** `= p × T × s`: nothing goes wrong, and others pay for the rest of the machine.
//! - **high** `= ceiling × (T + restart)`: the price rises to the ceiling that is enforced, nobody shares, and it starts once
//!   more, with an interval lost, or with all of `T` where it saves nothing on the way.
//!
//! Boot, idle and drain are not foreseen one by one: they depend on who else runs. They are learned with everything else
//! that estimates get wrong: from eight of the project's finished experiments on, the interval reaches at least from the
//! 10th to the 90th percentile of what actual costs were of expected ones, so that four of five should lie in it.
//!
//! Without an `estimate` nothing is known of `T`. Then finished experiments of the same name, or trials of sweeps of the same
//! name, speak for it where there are three: their median, and their 10th to 90th percentile.
//!
//! Decisions do not hang on any of this: caps are kept by holds.

use std::collections::BTreeMap;

use bursar_model::{
    CapacityType, CostEstimate, ExperimentSpec, OfferingKey, RefusedScope, Scope, Span, Timestamp, Usd,
    UsdPerHour,
};

use crate::{
    Market, Settings,
    choice::{Choice, Means, View, Wish, is_in_a_hurry},
    funding::time_at_speed,
};

/// How long work on spot is reckoned to go on without an interruption, until hazards are learned.
const BETWEEN_INTERRUPTIONS: Span = Span::from_hours(24);
/// With fewer finished experiments than these, the 10th percentile is the least of a handful.
const KEPT_MIN: usize = 8;
/// With fewer peers than these there is no middle.
const PEERS_MIN: usize = 3;
/// Finished experiments that are looked at, the newest: what held long ago may hold no more.
pub const KEPT_MAX: usize = 50;

/// What is known before an experiment runs.
#[derive(Debug, Clone, Copy)]
pub struct Prospect<'a> {
    /// The time now.
    pub now: Timestamp,
    /// What can be rented.
    pub market: &'a Market,
    /// What was refused lately.
    pub refused: &'a BTreeMap<Scope, RefusedScope>,
    /// What the configuration says.
    pub settings: &'a Settings,
    /// The experiment.
    pub spec: &'a ExperimentSpec,
    /// How many of its kind may run at once, itself included: they share machines as far as they fit.
    pub mates: u32,
    /// Where it would run, where that is known; else the offering that the planner would choose, budgets aside.
    pub on: Option<&'a OfferingKey>,
    /// What became of others.
    pub past: &'a Past,
}

/// What became of experiments that have succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Of the same project: what each was expected to cost, and did.
    pub kept: Vec<(Usd, Usd)>,
    /// Of the same name, or of sweeps of the same name: what each cost.
    pub peers: Vec<Usd>,
}

/// What the experiment is expected to cost; nothing where nobody knows, or nothing that would do is on offer.
#[must_use]
pub fn estimate(prospect: &Prospect<'_>) -> Option<CostEstimate> {
    let Prospect { spec, past, .. } = *prospect;
    let Some(asked) = &spec.estimate else { return among_peers(&past.peers) };
    let choice = choice(prospect)?;
    let cost = on_offering(prospect, &choice, asked.duration).times(choice.nodes);
    Some(widened(cost, &past.kept))
}

fn choice(prospect: &Prospect<'_>) -> Option<Choice> {
    let Prospect { now, market, refused, settings, spec, mates, on, past: _ } = *prospect;
    let view = View::at(market, refused, settings, now);
    let wish = Wish::new(spec, settings, is_in_a_hurry(spec, now, now), None);
    match on {
        None => view.choose(&wish, mates, Means::ANY),
        Some(key) => {
            let index = market.index_of(key)?;
            let amounts = spec.resources.amounts_on(&market.offering(index).instance_type)?;
            view.choice_of(&wish, index, amounts, mates)
        }
    }
}

fn on_offering(prospect: &Prospect<'_>, choice: &Choice, duration: Span) -> CostEstimate {
    let Prospect { market, spec, mates, .. } = *prospect;
    let offering = market.offering(choice.offering);
    let kind = &offering.instance_type;
    let disk = offering.terms.disk_gib.times(choice.disk_gib);
    let time = time_at_speed(duration, choice.speed);
    let interval = spec.checkpoint.interval.map(|interval| interval.min(time));

    let lost = match offering.capacity_type {
        CapacityType::Spot => {
            let each = interval.unwrap_or(time).divided_by(2);
            let likely = part(each.as_millis(), time.as_millis(), BETWEEN_INTERRUPTIONS.as_millis());
            let bound = offering.on_demand_price.map_or(i64::MAX, |on_demand| {
                let dearer = on_demand.as_nanos().saturating_sub(choice.price.as_nanos()).max(0);
                part(time.as_millis(), dearer, choice.price.as_nanos())
            });
            Span::from_millis(likely.min(bound))
        }
        CapacityType::OnDemand | CapacityType::Reserved => Span::ZERO,
    };
    let sharing = i64::from(choice.places.min(mates).max(1));
    let whole = |price: UsdPerHour, time: Span| (price + disk).cost_rounded_up(time);
    let part_of = |amount: Usd, of: i64, all: i64| Usd::from_nanos(part(amount.as_nanos(), of, all));

    let own = i64::from(kind.weight_of(choice.amounts)).min(i64::from(kind.weight()));
    CostEstimate {
        expected: part_of(whole(choice.price, time + lost), 1, sharing),
        low: part_of(whole(choice.price, time), own, i64::from(kind.weight())),
        high: whole(choice.ceiling, time + interval.unwrap_or(time)),
    }
}

/// The interval as wide as the project's estimates were off.
fn widened(estimate: CostEstimate, kept: &[(Usd, Usd)]) -> CostEstimate {
    /// Ratios are counted in these.
    const MILLION: i64 = 1_000_000;
    let ratio = |(expected, actual): &(Usd, Usd)| {
        (*expected > Usd::ZERO).then(|| part(actual.as_nanos(), MILLION, expected.as_nanos()))
    };
    let mut ratios: Vec<i64> = kept.iter().filter_map(ratio).collect();
    if ratios.len() < KEPT_MIN {
        return estimate;
    }
    ratios.sort_unstable();
    let of_expected = |ratio: i64| Usd::from_nanos(part(estimate.expected.as_nanos(), ratio, MILLION));
    CostEstimate {
        expected: estimate.expected,
        low: estimate.low.min(of_expected(percentile(&ratios, 10))),
        high: estimate.high.max(of_expected(percentile(&ratios, 90))),
    }
}

fn among_peers(peers: &[Usd]) -> Option<CostEstimate> {
    if peers.len() < PEERS_MIN {
        return None;
    }
    let mut costs = peers.to_vec();
    costs.sort_unstable();
    Some(CostEstimate {
        expected: percentile(&costs, 50),
        low: percentile(&costs, 10),
        high: percentile(&costs, 90),
    })
}

/// The nearest-rank percentile of values in order, of which there is at least one.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> T {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// `value × of / all`, rounded down and held at the ends of the range.
fn part(value: i64, of: i64, all: i64) -> i64 {
    let product = i128::from(value) * i128::from(of) / i128::from(all.max(1));
    product.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bursar_model::{CheckpointSpec, Estimate, Offering};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{dollars, gpu, offering, per_hour, spec, spot};

    fn taking(hours: i64, interval: Option<Span>) -> ExperimentSpec {
        let on_what = Estimate { duration: Span::from_hours(hours), on: None, speeds: BTreeMap::new() };
        ExperimentSpec {
            estimate: Some(on_what),
            checkpoint: CheckpointSpec { interval, ..CheckpointSpec::default() },
            ..spec(&["T4:1"])
        }
    }

    fn of(offerings: Vec<Offering>, spec: &ExperimentSpec, mates: u32, past: &Past) -> Option<CostEstimate> {
        estimate(&Prospect {
            now: Timestamp::from_millis(0),
            market: &Market::new(offerings),
            refused: &BTreeMap::new(),
            settings: &Settings::default(),
            spec,
            mates,
            on: None,
            past,
        })
    }

    fn between(low: f64, expected: f64, high: f64) -> Option<CostEstimate> {
        Some(CostEstimate { expected: dollars(expected), low: dollars(low), high: dollars(high) })
    }

    #[test]
    fn on_demand_costs_its_price_for_its_time_or_once_more_of_what_is_not_saved() {
        let market = || vec![offering(&gpu("t4", "T4", 1), 2.0)];
        assert_eq!(of(market(), &taking(10, None), 1, &Past::default()), between(20.0, 20.0, 40.0));
        let hourly = Some(Span::from_hours(1));
        assert_eq!(of(market(), &taking(10, hourly), 1, &Past::default()), between(20.0, 20.0, 22.0));
    }

    #[test]
    fn spot_reckons_with_an_interruption_a_day_and_reaches_its_ceiling() {
        let market = || vec![spot(&gpu("t4", "T4", 1), 1.0, 3.0)];
        // 48 hours: two interruptions, each of which loses half an hour; at worst the on-demand price for 49 hours.
        let hourly = Some(Span::from_hours(1));
        assert_eq!(of(market(), &taking(48, hourly), 1, &Past::default()), between(48.0, 49.0, 147.0));
        // Nobody would buy spot that loses more than it saves: 48 hours × (1.25 - 1), not two times 24.
        let dear = vec![spot(&gpu("t4", "T4", 1), 1.0, 1.25)];
        assert_eq!(of(dear, &taking(48, None), 1, &Past::default()), between(48.0, 60.0, 120.0));
    }

    #[test]
    fn those_who_share_a_machine_expect_their_part_and_at_worst_all_of_it() {
        let market = || vec![offering(&gpu("t4-4", "T4", 4), 4.0)];
        let hourly = Some(Span::from_hours(1));
        assert_eq!(of(market(), &taking(10, hourly), 81, &Past::default()), between(10.0, 10.0, 44.0));
        assert_eq!(of(market(), &taking(10, hourly), 2, &Past::default()), between(10.0, 20.0, 44.0));
        assert_eq!(of(market(), &taking(10, hourly), 1, &Past::default()), between(10.0, 40.0, 44.0));
    }

    #[test]
    fn the_interval_is_as_wide_as_estimates_of_the_project_were_off_once_there_are_eight() {
        let market = || vec![offering(&gpu("t4", "T4", 1), 1.0)];
        let kept = |count: usize| Past {
            kept: (1..=count).map(|tenths| (dollars(1.0), dollars(0.3 * tenths as f64))).collect(),
            peers: Vec::new(),
        };
        let hourly = Some(Span::from_hours(1));
        assert_eq!(of(market(), &taking(10, hourly), 1, &kept(7)), between(10.0, 10.0, 11.0));
        assert_eq!(of(market(), &taking(10, hourly), 1, &kept(10)), between(3.0, 10.0, 27.0));
    }

    #[test]
    fn without_an_estimate_three_peers_speak_and_two_do_not() {
        let market = || vec![offering(&gpu("t4", "T4", 1), 1.0)];
        let peers =
            |costs: &[f64]| Past { peers: costs.iter().copied().map(dollars).collect(), kept: Vec::new() };
        let silent = spec(&["T4:1"]);
        assert_eq!(of(market(), &silent, 1, &peers(&[5.0, 4.0])), None);
        assert_eq!(of(market(), &silent, 1, &peers(&[5.0, 9.0, 4.0])), between(4.0, 5.0, 9.0));
    }

    #[test]
    fn an_offering_without_a_price_is_never_what_is_expected() {
        let kind = gpu("t4", "T4", 1);
        let hole = |price| Offering { price, zone: "r1b".into(), ..offering(&kind, 1.0) };
        for price in [None, Some(per_hour(0.0))] {
            let both = vec![offering(&kind, 2.0), hole(price)];
            assert_eq!(of(both, &taking(10, None), 1, &Past::default()), between(20.0, 20.0, 40.0));
            assert_eq!(of(vec![hole(price)], &taking(10, None), 1, &Past::default()), None);
        }
    }

    #[test]
    fn what_is_estimated_is_the_offering_that_was_chosen() {
        let market =
            Market::new(vec![offering(&gpu("t4", "T4", 1), 2.0), offering(&gpu("big", "T4", 1), 5.0)]);
        let dear = market.offerings().iter().find(|offering| offering.price == Some(per_hour(5.0))).unwrap();
        let spec = Arc::new(taking(1, Some(Span::from_hours(1))));
        let found = estimate(&Prospect {
            now: Timestamp::from_millis(0),
            market: &market,
            refused: &BTreeMap::new(),
            settings: &Settings::default(),
            spec: &spec,
            mates: 1,
            on: Some(&dear.key()),
            past: &Past::default(),
        });
        assert_eq!(found, between(5.0, 5.0, 10.0));
    }

    proptest! {
        #[test]
        fn the_interval_holds_what_is_expected(
            hours in 1_i64..2000, price in 1_i64..100_000, times in 1_i64..20, interval in prop::option::of(1_i64..100),
            mates in 1_u32..100, ratios in prop::collection::vec(1_i64..5_000, 0..20),
        ) {
            let kind = gpu("t4-4", "T4", 4);
            let price_of = |cents: i64| Some(UsdPerHour::from_nanos(cents * 10_000_000));
            let offered = Offering { price: price_of(price), on_demand_price: price_of(price * times), ..spot(&kind, 1.0, 1.0) };
            let kept = ratios.iter().map(|ratio| (Usd::from_nanos(1000), Usd::from_nanos(*ratio))).collect();
            let past = Past { kept, peers: Vec::new() };
            let spec = taking(hours, interval.map(Span::from_hours));
            let CostEstimate { expected, low, high } = of(vec![offered], &spec, mates, &past).unwrap();
            prop_assert!(Usd::ZERO < low && low <= expected && expected <= high, "{low} {expected} {high}");
        }
    }
}
