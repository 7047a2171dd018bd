//! From what sources say to what the simulated cloud sells.
//!
//! Sources have holes. What is missing is filled in by rules that are few and said aloud: each that was used leaves a
//! note, and so does everything that is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_model::{
    AcceleratorName, Accelerators, CapacityType, InstanceType, Offering, Period, Resources, Span, Timestamp,
    UsdPerHour, Zone,
};

use super::{
    jobs::Workload,
    sources::{Counts, Facts, Kind, Place, PricePoint, Sources},
};
use crate::{
    chance::Chance,
    market::{Interruptions, SimCapacity, SimOffering, SimPrices},
    series::Series,
};

/// Spot without a history of interruptions: a machine lives for a day on average. Published rates of AWS are below 5 to
/// above 20 % a month (<https://aws.amazon.com/ec2/spot/instance-advisor/>), so this is on the safe side.
const SPOT_LIFE: Span = Span::from_hours(24);

/// On-demand of which nobody says how many there are: more than any installation may have.
const PLENTY: u32 = 100_000;

/// Where a type's CPUs and memory are unknown: for each accelerator, or for a machine without any.
const CPUS_MILLI: u32 = 8_000;
const MEMORY_MIB: u64 = 64 * 1024;

/// Disks are no part of a replay.
const DISK_GIB: u32 = 65_536;

/// More notes of one kind are counted, not listed.
const NOTES_MAX: usize = 6;

/// What is wanted of sources.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The moment at which the replay begins; else that at which the oldest trace does.
    pub from: Option<Timestamp>,
    /// How much time is replayed; else as much as the traces have.
    pub span: Option<Span>,
    /// For how many machines a trace stands that asked for one.
    pub depth: u32,
    /// What spot costs where only the on-demand price is known, in percent of that.
    pub spot_percent: u32,
    /// The accelerators that jobs may use that name none; all where it is empty.
    pub kinds: BTreeSet<AcceleratorName>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { from: None, span: None, depth: 16, spot_percent: 35, kinds: BTreeSet::new() }
    }
}

/// What is sold during a replay.
#[derive(Debug, Clone)]
pub struct Market {
    /// The offerings.
    pub offerings: Vec<SimOffering>,
    /// When it begins, and until when something is known of it.
    pub period: Period,
    /// The accelerators that jobs may use that name none.
    pub kinds: BTreeSet<AcceleratorName>,
    /// What was left out and what was assumed, for people.
    pub notes: Vec<String>,
}

/// Notes by what they say, each with those of which it is said.
#[derive(Debug, Default)]
struct Notes(BTreeMap<String, BTreeSet<String>>);

impl Notes {
    fn add(&mut self, note: &str, of: impl ToString) {
        self.0.entry(note.to_owned()).or_default().insert(of.to_string());
    }

    fn into_lines(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(note, of)| {
            let shown: Vec<&str> = of.iter().take(NOTES_MAX).map(String::as_str).collect();
            let more = of.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{note}: {}{more}", shown.join(", "))
        })
    }
}

impl Market {
    /// What sources say of the time that is wanted, as far as the jobs could use it. Accelerators that people write
    /// otherwise, such as `a100`, get the names that the sources have.
    #[must_use]
    pub fn from_sources(sources: &Sources, wanted: &Wanted, workload: &mut Workload) -> Self {
        workload.rename(&sources.facts.values().filter_map(|facts| facts.gpu.clone()).collect());
        let period = period(sources, wanted, workload);
        let mut builder = Builder { sources, wanted, period, notes: Notes::default() };
        let types = builder.types(workload);
        let counted = types.keys().any(|kind| builder.counts(kind, CapacityType::Spot, None).is_some());
        let mut offerings = Vec::new();
        for (kind, instance_type) in &types {
            for place in builder.places(kind) {
                builder.sell(kind, instance_type, &place, counted, &mut offerings);
            }
        }
        let mut notes = sources.notes.clone();
        notes.extend(builder.notes.into_lines());
        Self { kinds: kinds_of(&offerings, wanted), offerings, period, notes }
    }

    /// A market by chance: machines of 1, 4 and 8 accelerators of each kind that the jobs name in three zones, spot at
    /// prices that walk and in numbers that come and go.
    #[must_use]
    pub fn generated(seed: u64, wanted: &Wanted, workload: &Workload) -> Self {
        let mut chance = Chance::new(seed).child(0x6d61_726b);
        let from = wanted.from.unwrap_or(Timestamp::from_millis(1_790_000_000_000));
        let span = wanted.span.unwrap_or_else(|| last_submission(workload));
        let period = Period::new(from, from + span);
        let (mut kinds, some_name_none) = workload.kinds();
        kinds.extend(wanted.kinds.iter().cloned());
        if kinds.is_empty() && some_name_none {
            kinds.insert("GPU".into());
        }
        let sizes = |kind: &AcceleratorName| [1, 4, 8].map(|count| (Some(kind.clone()), count));
        let types = kinds.iter().flat_map(sizes).chain(std::iter::once((None, 0)));
        let mut offerings = Vec::new();
        for (kind, count) in types {
            let name = kind
                .as_ref()
                .map_or_else(|| "cpu8".to_owned(), |kind| format!("{kind}x{count}").to_lowercase());
            let facts = Facts { gpu: kind, gpus: Some(count), ..Facts::default() };
            let instance_type = Arc::new(facts.instance_type(&name));
            // Three dollars for an accelerator, forty cents for a machine without.
            let on_demand_price = UsdPerHour::from_nanos(if count > 0 {
                i64::from(count) * 3_000_000_000
            } else {
                400_000_000
            });
            for zone in ["a", "b", "c"] {
                let part = 250 + chance.below(200) as i64;
                let spot_price = UsdPerHour::from_nanos(on_demand_price.as_nanos() / 1000 * part);
                let offering = |capacity_type, price| Offering {
                    provider: "cloud".into(),
                    region: "r1".into(),
                    zone: Zone::new(&format!("r1-{zone}")),
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
                    capacity: SimCapacity::Steady(PLENTY),
                    prices: SimPrices::Fixed,
                    interruptions: None,
                });
                let counts = come_and_go(&mut chance, period, wanted.depth);
                offerings.push(SimOffering {
                    offering: offering(CapacityType::Spot, spot_price),
                    capacity: SimCapacity::Replay {
                        counts: Arc::new(counts),
                        notice: Some(Span::from_secs(120)),
                    },
                    prices: SimPrices::Walk { swing_per_mille: 15 },
                    interruptions: None,
                });
            }
        }
        let notes = vec![format!("the market is generated by chance, from the seed {seed}")];
        Self { kinds: kinds_of(&offerings, wanted), offerings, period, notes }
    }

    /// Whether some machine is large enough.
    #[must_use]
    pub fn fits(&self, resources: &Resources) -> bool {
        self.offerings.iter().any(|sold| resources.amounts_on(&sold.offering.instance_type).is_some())
    }

    /// The same without spot.
    #[must_use]
    pub fn on_demand_alone(&self) -> Self {
        let mut market = self.clone();
        market.offerings.retain(|sold| sold.offering.capacity_type != CapacityType::Spot);
        market
    }
}

struct Builder<'a> {
    sources: &'a Sources,
    wanted: &'a Wanted,
    period: Period,
    notes: Notes,
}

impl Builder<'_> {
    /// The types that are known well enough and that some job fits on.
    fn types(&mut self, workload: &Workload) -> BTreeMap<Kind, Arc<InstanceType>> {
        let mut types = BTreeMap::new();
        for (kind, facts) in &self.sources.facts {
            let (provider, name) = kind;
            let shown = format!("{provider}/{name}");
            if facts.gpus.is_none() || facts.gpus > Some(0) && facts.gpu.is_none() {
                self.notes.add("left out, because nobody says what accelerators they have", shown);
                continue;
            }
            let instance_type = Arc::new(facts.instance_type(name.as_str()));
            let any: BTreeSet<AcceleratorName> =
                facts.gpu.iter().filter(|gpu| self.takes(gpu)).cloned().collect();
            let suits = workload.jobs.iter().any(|job| {
                job.gpus <= facts.gpus.unwrap_or(0)
                    && (job.gpus > 0 || facts.gpus == Some(0))
                    && job.spec(&any).resources.amounts_on(&instance_type).is_some()
                    && (job.gpus == 0 || job.gpu.is_some() || !any.is_empty())
            });
            if !suits {
                self.notes.add("left out, because no job fits on them or wants them", shown);
                continue;
            }
            if facts.cpus_milli.is_none() || facts.memory_mib.is_none() {
                self.notes
                    .add("CPUs or memory unknown: 8 and 64 GiB are assumed for each accelerator", shown);
            }
            types.insert(kind.clone(), instance_type);
        }
        types
    }

    fn takes(&self, gpu: &AcceleratorName) -> bool {
        self.wanted.kinds.is_empty() || self.wanted.kinds.contains(gpu)
    }

    /// Where a type is sold: in zones, and in regions of which no zone is known.
    fn places(&self, kind: &Kind) -> BTreeSet<Place> {
        let both = [CapacityType::OnDemand, CapacityType::Spot];
        let prices = both.iter().filter_map(|of| self.sources.prices.get(&(kind.clone(), *of))).flatten();
        let counts = both.iter().filter_map(|of| self.sources.counts.get(&(kind.clone(), *of))).flatten();
        let places: BTreeSet<Place> =
            prices.map(|point| &point.place).chain(counts.map(|counts| &counts.place)).cloned().collect();
        let has_zones =
            |place: &Place| places.iter().any(|other| other.region == place.region && other.zone.is_some());
        places.iter().filter(|place| place.zone.is_some() || !has_zones(place)).cloned().collect()
    }

    fn sell(
        &mut self,
        kind: &Kind,
        instance_type: &Arc<InstanceType>,
        place: &Place,
        counted: bool,
        offerings: &mut Vec<SimOffering>,
    ) {
        let zone = place.zone.clone().unwrap_or_else(|| Zone::new(place.region.as_str()));
        let shown = format!("{}/{zone}/{}", kind.0, kind.1);
        let on_demand = self.price(kind, CapacityType::OnDemand, place, &shown);
        let on_demand_price = on_demand.as_ref().map(|series| series.at(self.period.from));
        let offering = |capacity_type, price| Offering {
            provider: kind.0.clone(),
            region: place.region.clone(),
            zone: zone.clone(),
            instance_type: instance_type.clone(),
            capacity_type,
            price: Some(price),
            list_price: None,
            on_demand_price,
            price_since: None,
            quota: None,
            notice: None,
            terms: Arc::default(),
        };
        if let Some(series) = &on_demand {
            let counts = self.counts(kind, CapacityType::OnDemand, Some(place)).cloned();
            offerings.push(SimOffering {
                offering: offering(CapacityType::OnDemand, series.at(self.period.from)),
                capacity: counts.map_or(SimCapacity::Steady(PLENTY), |counts| self.capacity(&counts, None)),
                prices: course(series.clone()),
                interruptions: None,
            });
        }
        let counts = self.counts(kind, CapacityType::Spot, Some(place)).cloned();
        if counts.is_none() && counted {
            self.notes.add(
                "spot left out, because nobody says how many there were at the time, as of others",
                &shown,
            );
            return;
        }
        let spot = self.price(kind, CapacityType::Spot, place, &shown).or_else(|| {
            // Where neither is known nothing is sold.
            let percent = i64::from(self.wanted.spot_percent);
            let price = UsdPerHour::from_nanos(on_demand_price?.as_nanos() / 100 * percent);
            self.notes.add(&format!("spot price unknown: {percent}% of on-demand is assumed"), &shown);
            Series::new(vec![(self.period.from, price)])
        });
        let Some(series) = spot else {
            self.notes.add("spot left out, because no price is known", &shown);
            return;
        };
        // What the clouds document: two minutes on AWS, up to 30 s on Google Cloud, at least 30 s on Azure.
        let notice = Span::from_secs(if kind.0.as_str() == "aws" { 120 } else { 30 });
        let (capacity, interruptions) = match counts {
            Some(counts) => (self.capacity(&counts, Some(notice)), None),
            None => {
                self.notes.add(
                    "no history of interruptions: spot machines live for a day on average, by chance",
                    &shown,
                );
                let by_chance = Interruptions { every: SPOT_LIFE, notice: Some(notice) };
                (SimCapacity::Steady(self.wanted.depth), Some(by_chance))
            }
        };
        let first = series.at(self.period.from);
        offerings.push(SimOffering {
            offering: offering(CapacityType::Spot, first),
            capacity,
            prices: course(series),
            interruptions,
        });
    }

    /// The prices of a place, or of the nearest of which any are known.
    fn price(
        &mut self,
        kind: &Kind,
        capacity_type: CapacityType,
        place: &Place,
        shown: &str,
    ) -> Option<Series<UsdPerHour>> {
        let points = self.sources.prices.get(&(kind.clone(), capacity_type))?;
        let of = |suits: &dyn Fn(&Place) -> bool| {
            let points = points.iter().filter(|point| suits(&point.place));
            let dated =
                |point: &PricePoint| (point.at.unwrap_or(Timestamp::from_millis(i64::MIN)), point.price);
            Series::new(points.map(dated).collect())
        };
        let in_region = |other: &Place| other.region == place.region;
        let series =
            of(&|other| other == place).or_else(|| of(&|other| in_region(other) && other.zone.is_none()));
        let series = series.or_else(|| {
            let nearest = points
                .iter()
                .map(|point| &point.place)
                .min_by_key(|other| (!in_region(other), (*other).clone()))?;
            self.notes.add(&format!("{capacity_type} price of another zone or region is used"), shown);
            of(&|other| other == nearest)
        })?;
        // What was before the start is not replayed.
        let from = self.period.from;
        let later = series.points().iter().filter(|(at, _)| *at > from).copied();
        Series::new(std::iter::once((from, series.at(from))).chain(later).collect())
    }

    /// The counts that say most of the time that is replayed: dated ones before those that begin with the replay.
    fn counts(&self, kind: &Kind, capacity_type: CapacityType, place: Option<&Place>) -> Option<&Counts> {
        let all = self.sources.counts.get(&(kind.clone(), capacity_type))?;
        let at_place = all.iter().filter(|counts| place.is_none_or(|place| counts.place == *place));
        let known = at_place.filter_map(|counts| Some((overlap(counts, self.period)?, counts)));
        known
            .max_by_key(|(overlap, counts)| (counts.start.is_some(), *overlap, &counts.file))
            .map(|(_, counts)| counts)
    }

    fn capacity(&mut self, counts: &Counts, notice: Option<Span>) -> SimCapacity {
        if counts.start.is_none() && counts.length.is_some() {
            self.notes.add("nobody knows when it began: it begins with the replay", &counts.file);
        }
        let depth = if counts.is_yes_or_no { self.wanted.depth } else { 1 };
        if counts.is_yes_or_no {
            let note = format!("it asked for one machine: where there was one, {depth} can be had");
            self.notes.add(&note, &counts.file);
        }
        let start = counts.start.unwrap_or(self.period.from);
        let points = counts.points.iter().map(|(after, count)| (start + *after, count.saturating_mul(depth)));
        // Before it was watched there were none.
        let none_yet = (start > self.period.from).then_some((self.period.from, 0));
        match Series::new(none_yet.into_iter().chain(points).collect()) {
            Some(counts) if counts.points().len() > 1 => {
                SimCapacity::Replay { counts: Arc::new(counts), notice }
            }
            Some(counts) => SimCapacity::Steady(counts.at(start)),
            None => SimCapacity::Steady(0),
        }
    }
}

impl Facts {
    fn instance_type(&self, name: &str) -> InstanceType {
        let gpus = self.gpus.unwrap_or(0);
        let accelerators = self.gpu.as_ref().filter(|_| gpus > 0);
        let accelerators =
            accelerators.map(|gpu| Accelerators { name: gpu.clone(), count: gpus, memory_gib: None });
        InstanceType {
            name: name.into(),
            accelerators,
            cpus_milli: self.cpus_milli.unwrap_or_else(|| CPUS_MILLI * gpus.max(1)),
            memory_mib: self.memory_mib.unwrap_or_else(|| MEMORY_MIB * u64::from(gpus.max(1))),
            disk_gib: DISK_GIB,
        }
    }
}

/// When a replay of these sources begins and how long it is.
fn period(sources: &Sources, wanted: &Wanted, workload: &Workload) -> Period {
    let counts = || sources.counts.values().flatten();
    let oldest_trace = counts().filter_map(|counts| counts.start).min();
    let dates = || sources.prices.values().flatten().filter_map(|point| point.at);
    let from = wanted.from.or(oldest_trace).or_else(|| dates().min());
    let from = from.unwrap_or(Timestamp::from_millis(1_790_000_000_000));
    let end = |counts: &Counts| Some(counts.start.unwrap_or(from) + counts.length?);
    let begun = counts().filter(|counts| counts.start.is_none_or(|start| start <= from));
    let known_until = begun.filter_map(end).max().filter(|until| *until > from);
    let span = wanted.span.or_else(|| known_until.map(|until| until.since(from)));
    Period::new(from, from + span.unwrap_or_else(|| last_submission(workload)))
}

/// How much of a period was watched; none where nothing was.
fn overlap(counts: &Counts, period: Period) -> Option<Span> {
    let start = counts.start.unwrap_or(period.from);
    let end = counts.length.map_or(period.to, |length| start + length).min(period.to);
    let from = start.max(period.from);
    (end > from).then(|| end.since(from))
}

fn last_submission(workload: &Workload) -> Span {
    workload.jobs.last().map_or(Span::ZERO, |job| job.submit) + Span::from_secs(1)
}

fn course(series: Series<UsdPerHour>) -> SimPrices {
    if series.points().len() > 1 { SimPrices::Replay(Arc::new(series)) } else { SimPrices::Fixed }
}

fn kinds_of(offerings: &[SimOffering], wanted: &Wanted) -> BTreeSet<AcceleratorName> {
    let all = offerings.iter().filter_map(|sold| sold.offering.instance_type.accelerators.as_ref());
    let is_wanted = |name: &AcceleratorName| wanted.kinds.is_empty() || wanted.kinds.contains(name);
    all.map(|has| has.name.clone()).filter(is_wanted).collect()
}

/// Numbers that change every few hours, by chance.
fn come_and_go(chance: &mut Chance, period: Period, most: u32) -> Series<u32> {
    let (least, longest) = (Span::from_secs(1800), Span::from_hours(8));
    let mut points = vec![(period.from, most)];
    let mut at = period.from + chance.span(least, longest);
    // At most one in half an hour of the period.
    while at < period.to {
        // One time in four there are none.
        let some = chance.below(u64::from(most) * 4 / 3 + 1) as u32;
        points.push((at, if some > most { 0 } else { some }));
        at = at + chance.span(least, longest);
    }
    Series::new(points).expect("there is a first one")
}
