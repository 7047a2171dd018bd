//! Which offering: the lowest expected cost among those that satisfy an experiment.
//!
//! The expected cost of one experiment is price × time ÷ how many share the instance. Time is the estimate over the
//! speed of the accelerator, so that only the speed ranks; several experiments of the same shape that wait share an
//! instance as far as they fit. The planner and the table of candidates rank with the same `Score`.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use bursar_ledger::{WorstCase, hold};
use bursar_model::{
    AcceleratorName, Accelerators, Amounts, CapacityType, ExperimentSpec, InstanceType, Offering, Quota,
    RefusedScope, Resources, Scope, Span, SpotPolicy, Timestamp, Usd, UsdPerHour, WaitingOn,
};
use rustc_hash::FxHashMap;

use crate::{
    PlanInput, Settings,
    funding::time_at_speed,
    market::{Firmness, Kind, Market, Shelf, known_price},
    quotas::Quotas,
};

/// What an experiment asks of the market. Experiments with equal wishes are placed alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) resources: &'a Resources,
    pub(crate) spot_policy: SpotPolicy,
    /// Spot might miss its deadline and on-demand would not.
    pub(crate) in_a_hurry: bool,
    /// The highest price that spec and configuration accept.
    pub(crate) ceiling: Option<UsdPerHour>,
    /// How fast which accelerator is; 1.0 unless named.
    pub(crate) speeds: Option<&'a BTreeMap<AcceleratorName, f64>>,
    /// How long a cloud's notice must be for its work to be saved, as far as that is known and matters to it.
    pub(crate) notice: Option<Span>,
    /// Instances that it needs at once.
    pub(crate) nodes: u32,
}

/// The market as a plan sees it, without what was refused lately.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) market: &'a Market,
    refused: Vec<(&'a Scope, Timestamp)>,
    quotas: Quotas,
    drain_allowance: Span,
    /// The cheapest offering of a type that may be asked for: wanted by every shape, worked out once.
    open: RefCell<FxHashMap<(u32, Firmness), Option<u32>>>,
}

/// What a payer can hold, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    pub(crate) left: Usd,
    /// One lease.
    pub(crate) lease: Span,
    /// The work that has to be paid for from the start, at speed 1, where a budget finishes what it starts.
    pub(crate) work: Option<Span>,
    /// What is held beyond that work, for its boot and its landing.
    pub(crate) beyond_work: Span,
}

/// A launch that would do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// The offering's index in the market.
    pub(crate) offering: u32,
    pub(crate) price: UsdPerHour,
    /// The highest price that the instance is let reach.
    pub(crate) ceiling: UsdPerHour,
    /// What one experiment takes of it.
    pub(crate) amounts: Amounts,
    /// How fast one experiment works on it.
    pub(crate) speed: f64,
    /// The disk that comes with it, in GiB.
    pub(crate) disk_gib: u32,
    /// How many such experiments fit.
    pub(crate) places: u32,
    /// How many instances it takes: each of them what one experiment takes of it.
    pub(crate) nodes: u32,
    pub(crate) score: Score,
    /// Something that scores better was left out because the hold for it cannot be had.
    pub(crate) constrained: bool,
}

/// The order of offerings: by cost per experiment, then the smaller commitment, then the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Dollars for an hour of work at speed 1. The bits of a float that is not negative sort as it does.
    cost_bits: u64,
    price: UsdPerHour,
    offering: u32,
}

impl Means {
    /// Money is no object.
    pub(crate) const ANY: Self =
        Self { left: Usd::MAX, lease: Span::ZERO, work: None, beyond_work: Span::ZERO };

    /// How long a launch has to be held on a machine of this speed, without the drain at its end.
    pub(crate) fn held_for(&self, speed: f64) -> Span {
        self.work.map_or(self.lease, |work| (time_at_speed(work, speed) + self.beyond_work).max(self.lease))
    }
}

impl<'a> Wish<'a> {
    pub(crate) fn new(
        spec: &'a ExperimentSpec,
        settings: &Settings,
        in_a_hurry: bool,
        checkpoint_took: Option<Span>,
    ) -> Self {
        Self {
            resources: &spec.resources,
            spot_policy: spec.spot_policy,
            in_a_hurry,
            ceiling: spec.max_price.into_iter().chain(settings.max_price).min(),
            speeds: spec
                .estimate
                .as_ref()
                .map(|estimate| &estimate.speeds)
                .filter(|speeds| !speeds.is_empty()),
            notice: notice_needed(spec, checkpoint_took),
            nodes: spec.num_nodes,
        }
    }

    /// Whether a notice there is long enough to save in. Where nobody knows how long it is, nothing is ruled out.
    pub(crate) fn can_save_on(&self, offering: &Offering) -> bool {
        let notice = offering.notice.filter(|_| offering.capacity_type == CapacityType::Spot);
        notice.zip(self.notice).is_none_or(|(given, needed)| given >= needed)
    }

    pub(crate) fn speed(&self, kind: &InstanceType) -> f64 {
        self.speeds.map_or(1.0, |speeds| speed_among(speeds, kind))
    }

    /// The same without a deadline: spot may miss it, and is better than nothing.
    pub(crate) fn at_leisure(&self) -> Self {
        Self { in_a_hurry: false, ..*self }
    }

    /// Whether capacity of this firmness is accepted.
    pub(crate) fn accepts(&self, firmness: Firmness) -> bool {
        match (self.spot_policy, firmness) {
            (SpotPolicy::Auto, Firmness::Spot) => !self.in_a_hurry,
            (SpotPolicy::Auto, Firmness::Firm)
            | (SpotPolicy::Spot, Firmness::Spot)
            | (SpotPolicy::OnDemand, Firmness::Firm) => true,
            (SpotPolicy::Spot, Firmness::Firm) | (SpotPolicy::OnDemand, Firmness::Spot) => false,
        }
    }

    /// The highest price that an instance of this offering is let reach. Spot is not kept above the on-demand price;
    /// a firm price is what it is.
    pub(crate) fn ceiling_of(&self, offering: &Offering, price: UsdPerHour) -> UsdPerHour {
        match offering.capacity_type {
            CapacityType::Spot => {
                self.ceiling.into_iter().chain(offering.on_demand_price).min().unwrap_or(price)
            }
            CapacityType::OnDemand | CapacityType::Reserved => price,
        }
        .max(price)
    }

    /// The shelves on which everything is that might do, each with the alternatives that mean its accelerator.
    fn shelves<'m>(
        &self,
        market: &'m Market,
    ) -> impl Iterator<Item = (&'m Shelf, impl Iterator<Item = &'a Accelerators> + Clone)> {
        let wanted = &self.resources.accelerators;
        let any = wanted.is_empty().then(|| (market.whole_shelf(), &wanted[..]));
        let named = wanted.iter().enumerate().filter_map(|(index, accelerator)| {
            // The same accelerator with other memory is an alternative on the same shelf.
            let known = wanted[..index].iter().any(|before| before.name == accelerator.name);
            if known { None } else { Some((market.shelf(&accelerator.name)?, &wanted[index..])) }
        });
        any.into_iter()
            .chain(named)
            .map(|(shelf, rest)| (shelf, rest.iter().filter(|alternative| alternative.name == rest[0].name)))
    }

    /// The speed that nothing exceeds.
    fn top_speed(&self) -> f64 {
        self.speeds
            .map_or(1.0, |speeds| speeds.values().copied().filter(|s| s.is_finite()).fold(1.0, f64::max))
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(input: &PlanInput<'a>) -> Self {
        let PlanInput { market, fleet, now, settings, .. } = *input;
        Self { quotas: Quotas::of(fleet), ..Self::at(market, &fleet.refused, settings, now) }
    }

    pub(crate) fn at(
        market: &'a Market,
        refused: &'a BTreeMap<Scope, RefusedScope>,
        settings: &Settings,
        now: Timestamp,
    ) -> Self {
        let active = |(scope, refused): (&'a Scope, &RefusedScope)| {
            (refused.until > now).then_some((scope, refused.until))
        };
        let refused = refused.iter().filter_map(active).collect();
        Self {
            market,
            refused,
            quotas: Quotas::default(),
            drain_allowance: settings.drain_allowance,
            open: RefCell::default(),
        }
    }

    /// Until when an offering is left alone, if it is.
    pub(crate) fn refused_until(&self, offering: &Offering) -> Option<Timestamp> {
        self.refused.iter().filter(|(scope, _)| scope.covers(offering)).map(|(_, until)| *until).max()
    }

    /// Whether so many of an offering may be asked for now.
    pub(crate) fn is_open(&self, offering: &Offering, count: u32) -> bool {
        self.refused_until(offering).is_none() && self.quotas.allow(offering, count)
    }

    /// So many of an offering are launched: what is left of its quota may do for less from now on.
    pub(crate) fn take(&self, offering: &Offering, count: u32) {
        if self.quotas.take(offering, count) {
            self.open.borrow_mut().clear();
        }
    }

    /// The quota that does not allow so many of an offering, what is in use of it, and what they would take.
    pub(crate) fn quota_lacking(&self, offering: &Offering, count: u32) -> Option<(Arc<Quota>, u32, u32)> {
        self.quotas.lacking(offering, count)
    }

    /// The cheapest offering of a type of which one may be asked for.
    fn open(&self, index: u32, firmness: Firmness) -> Option<u32> {
        let priced = self.market.kind(index).offerings(firmness);
        let first = priced.first().copied()?;
        if self.refused.is_empty() && self.market.offering(first).quota.is_none() {
            return Some(first);
        }
        *self.open.borrow_mut().entry((index, firmness)).or_insert_with(|| {
            priced.iter().copied().find(|offering| self.is_open(self.market.offering(*offering), 1))
        })
    }

    /// The same for this wish: only where a notice matters or several are needed may it be another.
    fn open_to(&self, wish: &Wish<'_>, index: u32, firmness: Firmness) -> Option<u32> {
        if wish.nodes == 1 && (wish.notice.is_none() || firmness == Firmness::Firm) {
            return self.open(index, firmness);
        }
        self.market.kind(index).offerings(firmness).iter().copied().find(|offering| {
            let offering = self.market.offering(*offering);
            wish.can_save_on(offering) && self.is_open(offering, wish.nodes)
        })
    }

    /// The best offering for one of `mates` experiments with this wish.
    pub(crate) fn choose(&self, wish: &Wish<'_>, mates: u32, means: Means) -> Option<Choice> {
        let choice = self.choose_among(wish, mates, means);
        if choice.is_none() && wish.in_a_hurry {
            return self.choose_among(&wish.at_leisure(), mates, means);
        }
        choice
    }

    fn choose_among(&self, wish: &Wish<'_>, mates: u32, means: Means) -> Option<Choice> {
        let mut best: Option<Choice> = None;
        let mut best_of_all: Option<Score> = None;
        let top_speed = wish.top_speed();
        for (shelf, alternatives) in wish.shelves(self.market) {
            for firmness in [Firmness::Spot, Firmness::Firm].into_iter().filter(|f| wish.accepts(*f)) {
                for row in shelf.rows(firmness) {
                    let at_best = Score::new(row.price, top_speed, mates, 0);
                    let beaten = best.is_some_and(|best| at_best.cost_bits > best.score.cost_bits);
                    if beaten || wish.ceiling.is_some_and(|ceiling| row.price > ceiling) {
                        // The rows after it cost at least as much.
                        break;
                    }
                    let Some(amounts) = row.amounts(wish.resources, alternatives.clone()) else { continue };
                    let Some(index) = self.open_to(wish, row.kind, firmness) else { continue };
                    let Some(choice) = self.choice_of(wish, index, amounts, mates) else { continue };
                    best_of_all = Some(best_of_all.map_or(choice.score, |score| score.min(choice.score)));
                    let better = best.is_none_or(|best| choice.score < best.score);
                    if better && self.can_be_held(&choice, mates, means) {
                        best = Some(choice);
                    }
                }
            }
        }
        best.map(|best| Choice { constrained: best_of_all.is_some_and(|score| score < best.score), ..best })
    }

    /// The launch that an offering would be, unless its price is unknown or above the ceiling.
    pub(crate) fn choice_of(
        &self,
        wish: &Wish<'_>,
        index: u32,
        amounts: Amounts,
        mates: u32,
    ) -> Option<Choice> {
        let offering = self.market.offering(index);
        let price = known_price(offering)?;
        if wish.ceiling.is_some_and(|ceiling| price > ceiling) {
            return None;
        }
        let kind = &offering.instance_type;
        let places = places_on(kind, amounts);
        let speed = wish.speed(kind);
        Some(Choice {
            offering: index,
            price,
            ceiling: wish.ceiling_of(offering, price),
            amounts,
            speed,
            disk_gib: wish.resources.disk_gib.max(offering.terms.disk_min_gib),
            places,
            nodes: wish.nodes,
            score: Score::new(price, speed, places.min(mates), index),
            constrained: false,
        })
    }

    /// Whether these means suffice for a launch.
    pub(crate) fn can_be_held(&self, choice: &Choice, mates: u32, means: Means) -> bool {
        // Without a limit nothing has to be worked out.
        means.left == Usd::MAX || self.hold(choice, mates, means) <= means.left
    }

    /// What the first of `mates` experiments holds for a launch, for all its nodes: its own part of each, and what the
    /// others leave over.
    pub(crate) fn hold(&self, choice: &Choice, mates: u32, means: Means) -> Usd {
        let kind = &self.market.offering(choice.offering).instance_type;
        let part = kind.weight_of(choice.amounts);
        let others = part.saturating_mul(choice.places.min(mates).max(1) - 1);
        let total = kind.weight().max(others.saturating_add(part));
        let whole =
            self.worst_case(choice).cost_of_launch(means.held_for(choice.speed) + self.drain_allowance);
        let each = hold::part_of(whole, total - others, total);
        Usd::from_nanos(each.as_nanos().saturating_mul(i64::from(choice.nodes)))
    }

    /// What a launch may come to cost.
    pub(crate) fn worst_case(&self, choice: &Choice) -> WorstCase {
        let offering = self.market.offering(choice.offering);
        WorstCase::of(offering, choice.disk_gib, choice.ceiling, self.drain_allowance)
    }

    /// The least that a launch for one experiment alone has to hold, on whatever may ever be asked for.
    pub(crate) fn least_hold(&self, wish: &Wish<'_>, means: Means) -> Option<Usd> {
        let wish = wish.at_leisure();
        let accepted = self.suitable(&wish).filter(|(index, _)| self.accepted(&wish, *index));
        let choices = accepted.filter_map(|(index, amounts)| self.choice_of(&wish, index, amounts, 1));
        choices.map(|choice| self.hold(&choice, 1, means)).min()
    }

    /// Why nothing on the market may be asked for.
    pub(crate) fn why_none(&self, wish: &Wish<'_>) -> WaitingOn {
        let wish = &wish.at_leisure();
        let (mut unpriced, mut refused, mut lowest, mut refused_until) = (0, 0, None, None);
        let mut over_quota = None;
        let mut wrong_capacity = false;
        for (index, _) in self.suitable(wish) {
            let offering = self.market.offering(index);
            if !self.accepted(wish, index) {
                wrong_capacity = true;
                continue;
            }
            let Some(price) = known_price(offering) else {
                unpriced += 1;
                continue;
            };
            lowest = Some(lowest.map_or(price, |lowest: UsdPerHour| lowest.min(price)));
            if wish.ceiling.is_some_and(|ceiling| price > ceiling) {
                continue;
            }
            over_quota = over_quota.or_else(|| self.quota_lacking(offering, wish.nodes));
            if let Some(until) = self.refused_until(offering) {
                refused += 1;
                refused_until = Some(refused_until.map_or(until, |first: Timestamp| first.min(until)));
            }
        }
        if let Some(until) = refused_until {
            return WaitingOn::Capacity { offerings: refused, until };
        }
        if let Some((quota, used, needed)) = over_quota {
            return WaitingOn::Quota { quota, used, needed };
        }
        if let (Some(lowest), Some(ceiling)) = (lowest, wish.ceiling) {
            return WaitingOn::Ceiling { lowest, ceiling };
        }
        if unpriced > 0 {
            return WaitingOn::UnknownPrice { offerings: unpriced };
        }
        WaitingOn::NoOffering { missing: self.missing(wish, wrong_capacity).into() }
    }

    /// Every offering that is big enough, with what the experiment takes of it. Looks at all types: for reasons, not
    /// for choices.
    pub(crate) fn suitable(&self, wish: &Wish<'_>) -> impl Iterator<Item = (u32, Amounts)> {
        let resources = wish.resources;
        self.market.kinds().iter().flat_map(move |kind: &Kind| {
            let amounts = resources.amounts_on(&kind.instance_type);
            amounts.into_iter().flat_map(move |amounts| {
                let of_kind =
                    [kind.offerings(Firmness::Spot), kind.offerings(Firmness::Firm), &kind.unpriced];
                of_kind.into_iter().flatten().map(move |index| (*index, amounts))
            })
        })
    }

    fn accepted(&self, wish: &Wish<'_>, index: u32) -> bool {
        let offering = self.market.offering(index);
        wish.accepts(Firmness::of(offering.capacity_type)) && wish.can_save_on(offering)
    }

    /// What no offering has, in words.
    fn missing(&self, wish: &Wish<'_>, wrong_capacity: bool) -> String {
        if self.market.offerings().is_empty() {
            return "no provider lists anything".to_owned();
        }
        if wrong_capacity {
            let wanted = if wish.spot_policy == SpotPolicy::OnDemand { "on-demand" } else { "spot" };
            let notice = wish.notice.filter(|_| wish.spot_policy != SpotPolicy::OnDemand);
            let notice = notice.map(|needed| format!(" with a notice of {needed}, which saving takes"));
            let notice = notice.unwrap_or_default();
            return format!("none of those that are big enough is {wanted}{notice}");
        }
        let kinds = self.market.kinds();
        match kinds.iter().map(|kind| too_small(wish.resources, &kind.instance_type)).min_by_key(Vec::len) {
            Some(closest) if kinds.len() == 1 || closest.len() == 1 => closest.join(" and "),
            _ => wanted(wish.resources),
        }
    }
}

impl Score {
    #[expect(clippy::float_arithmetic, reason = "it ranks; no amount is made of it")]
    fn new(price: UsdPerHour, speed: f64, sharing: u32, offering: u32) -> Self {
        let cost = price.as_nanos().max(0) as f64 / (speed * f64::from(sharing.max(1)));
        Self { cost_bits: cost.to_bits(), price, offering }
    }
}

/// How fast an experiment works on a machine; 1.0 unless its estimate says otherwise.
pub(crate) fn speed_on(spec: &ExperimentSpec, kind: &InstanceType) -> f64 {
    spec.estimate.as_ref().map_or(1.0, |estimate| speed_among(&estimate.speeds, kind))
}

fn speed_among(speeds: &BTreeMap<AcceleratorName, f64>, kind: &InstanceType) -> f64 {
    let named = kind.accelerators.as_ref().and_then(|has| speeds.get(&has.name));
    // A speed that is no speed would make a machine free or the order undefined.
    named.copied().filter(|speed| speed.is_finite() && *speed > 0.0).unwrap_or(1.0)
}

/// How long saving takes, by the spec or by what was measured, whichever is longer: a measurement may have been of the
/// sending alone. Nothing where the spec accepts the loss.
fn notice_needed(spec: &ExperimentSpec, checkpoint_took: Option<Span>) -> Option<Span> {
    // In whole seconds, so that trials that differ by milliseconds are placed alike.
    let took = checkpoint_took.map(|took| Span::from_secs(took.as_millis().saturating_add(999) / 1000));
    spec.checkpoint.takes.max(took).filter(|_| !spec.checkpoint.accept_loss)
}

/// Whether spot may miss the deadline where on-demand would not. One interruption is reckoned with: it costs what was
/// done since the last checkpoint, or everything where no interval is named. Without an estimate nothing is known.
pub(crate) fn is_in_a_hurry(spec: &ExperimentSpec, queued_at: Timestamp, now: Timestamp) -> bool {
    let (Some(deadline), Some(estimate)) = (spec.deadline, &spec.estimate) else { return false };
    let left = deadline.moment(queued_at).since(now);
    let lost = spec.checkpoint.interval.unwrap_or(estimate.duration);
    left < estimate.duration + lost && left >= estimate.duration
}

/// How many experiments of this size fit into an empty machine.
pub(crate) fn places_on(kind: &InstanceType, part: Amounts) -> u32 {
    let all = kind.amounts();
    let by_accelerators = all.accelerators.checked_div(part.accelerators);
    let by_cpus = all.cpus_milli.checked_div(part.cpus_milli);
    let by_memory =
        all.memory_mib.checked_div(part.memory_mib).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    // What asks for nothing at all has a machine to itself: any other number would be made up.
    [by_accelerators, by_cpus, by_memory].into_iter().flatten().min().unwrap_or(1)
}

/// What an experiment needs and a type does not have.
pub(crate) fn too_small(resources: &Resources, kind: &InstanceType) -> Vec<String> {
    let Resources { accelerators, cpus_milli, memory_mib, disk_gib } = resources;
    let has = kind.accelerators.as_ref();
    let mut missing = Vec::new();
    if !accelerators.is_empty() && !has.is_some_and(|has| accelerators.iter().any(|want| want.fit_into(has)))
    {
        missing.push(alternatives(resources));
    }
    if kind.cpus_milli < *cpus_milli {
        missing.push(cpus(*cpus_milli));
    }
    if kind.memory_mib < *memory_mib {
        missing.push(memory(*memory_mib));
    }
    if kind.disk_gib < *disk_gib {
        missing.push(format!("{disk_gib} GiB of disk"));
    }
    missing
}

fn wanted(resources: &Resources) -> String {
    let mut parts = Vec::new();
    if !resources.accelerators.is_empty() {
        parts.push(alternatives(resources));
    }
    parts.extend([cpus(resources.cpus_milli), memory(resources.memory_mib)]);
    if resources.disk_gib > 0 {
        parts.push(format!("{} GiB of disk", resources.disk_gib));
    }
    format!("{} in one machine", parts.join(" with "))
}

fn alternatives(resources: &Resources) -> String {
    let text = |want: &bursar_model::Accelerators| match want.memory_gib {
        Some(memory) => format!("{}:{memory}GB:{}", want.name, want.count),
        None => format!("{}:{}", want.name, want.count),
    };
    resources.accelerators.iter().map(text).collect::<Vec<_>>().join(" or ")
}

fn cpus(milli: u32) -> String {
    let (whole, part) = (milli / 1000, milli % 1000);
    match part {
        0 => format!("{whole} CPUs"),
        _ => format!("{whole}.{} CPUs", format!("{part:03}").trim_end_matches('0')),
    }
}

fn memory(mib: u64) -> String {
    if mib.is_multiple_of(1024) {
        format!("{} GiB of memory", mib / 1024)
    } else {
        format!("{mib} MiB of memory")
    }
}
