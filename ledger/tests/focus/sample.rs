//! Charges of every kind, made up by a generator of our own, so that every run writes the same.

use std::collections::BTreeMap;

use bursar_ledger::{
    allocate,
    focus::{FocusAccount, FocusCharge, FocusClass, FocusCosts, FocusInstance, FocusLine, Vendor},
};
use bursar_model::{
    Accelerators, CapacityType, Category, ExperimentId, InstanceId, InstanceType, Period, Span, SweepId,
    Timestamp, TypedId, Usd, UsdPerHour, id::split_mix,
};

/// A charge with its parts, to borrow a `FocusCharge` from.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    id: u64,
    class: FocusClass,
    period: Period,
    place: &'static Place,
    cloud_id: Option<String>,
    kind: InstanceType,
    capacity_type: CapacityType,
    list_price: UsdPerHour,
    contracted_price: UsdPerHour,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    experiment: ExperimentId,
    name: String,
    sweep: Option<SweepId>,
    project: &'static str,
    user: &'static str,
    labels: BTreeMap<String, String>,
    category: Category,
    costs: FocusCosts,
    instance_ms: i64,
}

#[derive(Debug)]
struct Place {
    provider: &'static str,
    vendor: Vendor,
    region: &'static str,
    zone: &'static str,
    /// What the account pays of the list price, in percent.
    contracted_percent: i64,
}

const PLACES: [Place; 4] = [
    Place {
        provider: "aws",
        vendor: Vendor::Aws,
        region: "us-east-1",
        zone: "us-east-1a",
        contracted_percent: 93,
    },
    Place {
        provider: "gcp",
        vendor: Vendor::Gcp,
        region: "europe-west4",
        zone: "europe-west4-b",
        contracted_percent: 100,
    },
    Place {
        provider: "local",
        vendor: Vendor::Local,
        region: "local",
        zone: "local",
        contracted_percent: 100,
    },
    Place {
        provider: "colo",
        vendor: Vendor::Other,
        region: "berlin",
        zone: "berlin-2",
        contracted_percent: 50,
    },
];

/// The name of the machine, accelerators, CPUs in thousandths, MiB, nano-dollars an hour.
type Kind = (&'static str, Option<(&'static str, u32)>, u32, u64, i64);
const KINDS: [Kind; 4] = [
    ("g5.xlarge", Some(("A10G", 1)), 4_000, 16_384, 1_006_000_000),
    ("p4d.24xlarge", Some(("A100", 8)), 96_000, 1_179_648, 32_772_600_000),
    ("c7i.large", None, 2_000, 4_096, 89_250_000),
    ("mini", None, 500, 1_000, 12_500_000),
];

/// The installation whose charges these are.
pub(crate) fn account() -> FocusAccount {
    FocusAccount { id: "inst-7f3a".to_owned(), name: "Vision lab".to_owned() }
}

/// So many charges.
pub(crate) fn charges(count: u64) -> impl Iterator<Item = Sample> {
    (1..=count).map(Sample::new)
}

impl Sample {
    /// The charge of this number: the number decides what it is.
    pub(crate) fn new(id: u64) -> Self {
        let mut dice = Dice(split_mix(id));
        let place = &PLACES[dice.up_to(4) as usize];
        let local = matches!(place.vendor, Vendor::Local);
        let (name, accelerators, cpus_milli, memory_mib, nanos) =
            KINDS[if local { 3 } else { dice.up_to(3) as usize }];
        let kind = InstanceType {
            name: name.into(),
            accelerators: accelerators.map(|(name, count)| Accelerators {
                name: name.into(),
                count,
                memory_gib: None,
            }),
            cpus_milli,
            memory_mib,
            disk_gib: 100,
        };
        let capacity_type = match dice.up_to(if local { 1 } else { 4 }) {
            0 | 1 => CapacityType::OnDemand,
            2 => CapacityType::Spot,
            _ => CapacityType::Reserved,
        };
        // A spot price changes; a machine's other prices are known beforehand.
        let nanos = if capacity_type == CapacityType::Spot {
            nanos * (20 + dice.up_to(30) as i64) / 100
        } else {
            nanos
        };
        let list_price = UsdPerHour::from_nanos(nanos);
        let contracted_price = UsdPerHour::from_nanos(nanos * place.contracted_percent / 100);
        // From 2026-11-25 on, over the end of the month.
        let from = Timestamp::from_millis(1_795_600_000_000 + dice.up_to(1_000_000_000) as i64);
        let period = Period::new(from, from + Span::from_millis(1 + dice.up_to(900_000) as i64));
        let mut sample = Self {
            id,
            class: FocusClass::Usage,
            period,
            place,
            cloud_id: (!local).then(|| format!("i-{id:012x}")),
            kind,
            capacity_type,
            list_price,
            contracted_price,
            lines: Vec::new(),
        };
        match dice.up_to(8) {
            0 => sample.lose_work(&mut dice, Span::from_secs(30)),
            1 => sample.lose_work(&mut dice, Span::from_hours(24 * 9)),
            _ => sample.meter(&mut dice),
        }
        sample
    }

    /// Shows the charge as the export takes it.
    pub(crate) fn with<R>(&self, see: impl FnOnce(&FocusCharge<'_>) -> R) -> R {
        let lines: Vec<FocusLine<'_>> = self.lines.iter().map(Line::borrowed).collect();
        see(&FocusCharge {
            id: self.id,
            class: self.class,
            period: self.period,
            instance: FocusInstance {
                id: InstanceId::from_u64(self.id << 8),
                cloud_id: self.cloud_id.as_deref(),
                provider: self.place.provider,
                vendor: self.place.vendor,
                region: self.place.region,
                zone: self.place.zone,
                instance_type: &self.kind,
                capacity_type: self.capacity_type,
            },
            list_price: self.list_price,
            contracted_price: self.contracted_price,
            lines: &lines,
        })
    }

    /// One to four lines, of one project or of two.
    fn meter(&mut self, dice: &mut Dice) {
        let count = if dice.up_to(2) == 0 { 1 } else { 2 + dice.up_to(3) as usize };
        let weights: Vec<u32> = (0..count).map(|_| 500 * (1 + dice.up_to(4) as u32)).collect();
        let span = self.period.span();
        let cost = |price: UsdPerHour| allocate(price.cost_with_remainder(span, 0).0, &weights);
        let (list, contracted) = (cost(self.list_price), cost(self.contracted_price));
        // Time is split as money is.
        let ms = allocate(Usd::from_nanos(span.as_millis()), &weights);
        let projects = 1 + dice.up_to(2);
        for at in 0..count {
            let mut line = match self.lines.last() {
                // One experiment may use a part and let another part idle.
                Some(before) if at == 2 => Line { category: Category::Idle, ..before.clone() },
                _ => Line::new(dice, projects, at as u64),
            };
            line.costs = FocusCosts { list: list[at], contracted: contracted[at], effective: contracted[at] };
            line.instance_ms = ms[at].as_nanos();
            self.lines.push(line);
        }
    }

    /// Work that was paid as `run` becomes `lost`, over charges at a price that was another on average.
    fn lose_work(&mut self, dice: &mut Dice, after: Span) {
        self.class = FocusClass::Correction { made_at: self.period.to + after };
        let span = self.period.span();
        let cost = |price: UsdPerHour, percent: i64| {
            UsdPerHour::from_nanos(price.as_nanos() * percent / 100).cost_with_remainder(span, 0).0
        };
        let (list, contracted) = (cost(self.list_price, 97), cost(self.contracted_price, 89));
        let lost = Line {
            category: Category::Lost,
            costs: FocusCosts { list, contracted, effective: contracted },
            instance_ms: span.as_millis(),
            ..Line::new(dice, 2, 0)
        };
        let run = Line {
            category: Category::Run,
            costs: FocusCosts { list: -list, contracted: -contracted, effective: -contracted },
            instance_ms: -span.as_millis(),
            ..lost.clone()
        };
        self.lines = vec![run, lost];
    }
}

impl Line {
    /// The lines of a charge have different numbers `at`, and so different experiments.
    fn new(dice: &mut Dice, projects: u64, at: u64) -> Self {
        let number = 4 * dice.up_to(40) + at;
        let mut labels = BTreeMap::new();
        if dice.up_to(2) == 0 {
            labels.insert("team".to_owned(), "vision".to_owned());
            labels.insert("note".to_owned(), "says \"hello, world\"\nand ü; =1+1".to_owned());
        }
        Self {
            experiment: ExperimentId::from_u64(1_000_000 + number),
            name: format!("train, \"{number}\""),
            sweep: (dice.up_to(3) == 0).then(|| SweepId::from_u64(77)),
            project: ["vision", "speech"][dice.up_to(projects) as usize],
            user: "ada",
            labels,
            category: [Category::Run, Category::Boot, Category::Drain][dice.up_to(3) as usize],
            costs: FocusCosts::default(),
            instance_ms: 0,
        }
    }

    fn borrowed(&self) -> FocusLine<'_> {
        FocusLine {
            experiment: self.experiment,
            experiment_name: &self.name,
            sweep: self.sweep,
            project: self.project,
            user: self.user,
            labels: &self.labels,
            category: self.category,
            costs: self.costs,
            instance_ms: self.instance_ms,
        }
    }
}

struct Dice(u64);

impl Dice {
    /// A number below `end`.
    fn up_to(&mut self, end: u64) -> u64 {
        self.0 = split_mix(self.0);
        self.0 % end
    }
}
