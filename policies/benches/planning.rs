//! How long a decision takes: one experiment, and whole queues. Figures are in docs/performance.md.
//!
//! The workload is of 64 shapes over 50 machine types, as GPU clouds have them; the shapes are drawn by a generator of
//! our own, so that every run plans the same.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use bursar_model::{
    Accelerators, Account, CapacityType, CheckpointSpec, DataSpec, Estimate, Event, Experiment,
    ExperimentSpec, ExperimentState, Fleet, IdGen, InstanceId, InstanceType, Offering, Params, Resources,
    Retry, Span, SpecId, SpotPolicy, Timestamp, UsdPerHour, id::split_mix,
};
use bursar_policies::{Market, PlanInput, Settings, candidates, plan};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Accelerator, how many, CPUs, GiB of memory, dollars an hour: close to public on-demand list prices.
const TYPES: [(&str, u32, u32, u64, f64); 50] = [
    ("T4", 1, 4, 16, 0.526),
    ("T4", 1, 8, 32, 0.752),
    ("T4", 1, 16, 64, 1.204),
    ("T4", 1, 32, 128, 2.176),
    ("T4", 4, 48, 192, 3.912),
    ("T4", 1, 64, 256, 4.352),
    ("T4", 8, 96, 384, 7.824),
    ("A10G", 1, 4, 16, 1.006),
    ("A10G", 1, 8, 32, 1.212),
    ("A10G", 1, 16, 64, 1.624),
    ("A10G", 1, 32, 128, 2.448),
    ("A10G", 4, 48, 192, 5.672),
    ("A10G", 1, 64, 256, 4.096),
    ("A10G", 4, 96, 384, 8.144),
    ("A10G", 8, 192, 768, 16.288),
    ("L4", 1, 4, 16, 0.8048),
    ("L4", 1, 8, 32, 0.9776),
    ("L4", 1, 16, 64, 1.3232),
    ("L4", 1, 32, 128, 2.0144),
    ("L4", 4, 48, 192, 4.6016),
    ("L4", 4, 96, 384, 6.6752),
    ("L4", 8, 192, 768, 13.3504),
    ("L40S", 1, 4, 32, 1.861),
    ("L40S", 1, 8, 64, 2.242),
    ("L40S", 1, 16, 128, 3.004),
    ("L40S", 4, 48, 384, 10.493),
    ("L40S", 8, 192, 1536, 30.131),
    ("V100", 1, 8, 61, 3.06),
    ("V100", 4, 32, 244, 12.24),
    ("V100", 8, 64, 488, 24.48),
    ("A100", 8, 96, 1152, 21.958),
    ("A100-80GB", 8, 96, 1152, 27.447),
    ("H100", 8, 192, 2048, 55.04),
    ("A100", 1, 12, 85, 3.673),
    ("A100", 2, 24, 170, 7.347),
    ("A100", 4, 48, 340, 14.694),
    ("A100", 8, 96, 680, 29.387),
    ("A100-80GB", 1, 12, 170, 5.069),
    ("A100-80GB", 2, 24, 340, 10.138),
    ("A100-80GB", 4, 48, 680, 20.276),
    ("A100-80GB", 8, 96, 1360, 40.551),
    ("H100", 1, 26, 234, 11.061),
    ("H100", 8, 208, 1872, 88.491),
    ("L4", 1, 4, 16, 0.707),
    ("L4", 1, 8, 32, 0.854),
    ("L4", 1, 16, 64, 1.147),
    ("L4", 2, 24, 96, 1.998),
    ("L4", 4, 48, 192, 3.995),
    ("L4", 8, 96, 384, 7.99),
    ("T4", 1, 8, 30, 0.73),
];

const NAMES: [&str; 6] = ["T4", "L4", "A10G", "A100", "A100-80GB", "H100"];

/// Whole numbers that look random and are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0) % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// `types` machine types, variations of the 50, in `zones` zones, on-demand and spot.
#[expect(clippy::float_arithmetic, reason = "the table has prices as price lists do")]
fn market(types: usize, zones: usize) -> Market {
    let mut draw = Draw(7);
    let mut offerings = Vec::with_capacity(types * zones * 2);
    for index in 0..types {
        let (accelerator, count, cpus, memory, dollars) = TYPES[index % TYPES.len()];
        let generation = index / TYPES.len();
        let kind = Arc::new(InstanceType {
            name: format!("t{index}").as_str().into(),
            accelerators: Some(Accelerators { name: accelerator.into(), count, memory_gib: None }),
            cpus_milli: cpus * 1_000 + generation as u32 * 500,
            memory_mib: memory * 1_024 + generation as u64 * 512,
            disk_gib: 4_096,
        });
        for zone in 0..zones {
            let nanos = (dollars * 1e9) as u64 + draw.below(200_000_000) + generation as u64 * 10_000_000;
            let on_demand = UsdPerHour::from_nanos(nanos as i64);
            let spot = UsdPerHour::from_nanos((nanos * (280 + draw.below(440)) / 1_000) as i64);
            for (capacity_type, price) in [(CapacityType::OnDemand, on_demand), (CapacityType::Spot, spot)] {
                offerings.push(Offering {
                    provider: "cloud".into(),
                    region: format!("r{}", zone / 3).as_str().into(),
                    zone: format!("r{}-{}", zone / 3, zone % 3).as_str().into(),
                    instance_type: kind.clone(),
                    capacity_type,
                    price: Some(price),
                    list_price: None,
                    on_demand_price: Some(on_demand),
                    price_since: None,
                    quota: None,
                    notice: None,
                    terms: Arc::default(),
                });
            }
        }
    }
    Market::new(offerings)
}

fn spec(accelerators: &[(&str, u32)], cpus: u32, memory_gib: u64, minutes: i64) -> ExperimentSpec {
    let accelerator =
        |(name, count): &(&str, u32)| Accelerators { name: (*name).into(), count: *count, memory_gib: None };
    ExperimentSpec {
        project: "p".into(),
        resources: Resources {
            accelerators: accelerators.iter().map(accelerator).collect(),
            cpus_milli: cpus * 1_000,
            memory_mib: memory_gib * 1_024,
            disk_gib: 50,
        },
        image: None,
        registry_auth: None,
        seed: None,
        source: None,
        workdir: None,
        setup: None,
        run: "true".to_owned(),
        envs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        spot_policy: SpotPolicy::Auto,
        max_price: None,
        deadline: None,
        budget: None,
        priority: 0,
        retry: Retry::default(),
        max_duration: None,
        utilization_policy: None,
        checkpoint: CheckpointSpec::default(),
        data: DataSpec::default(),
        estimate: Some(Estimate {
            duration: Span::from_secs(minutes * 60),
            on: None,
            speeds: BTreeMap::new(),
        }),
        num_nodes: 1,
        labels: BTreeMap::new(),
    }
}

/// `count` specs of distinct shapes, a tenth without accelerators, a third with any kind of them.
fn shapes(count: usize) -> Vec<ExperimentSpec> {
    let mut draw = Draw(11);
    let mut shapes: Vec<ExperimentSpec> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    // Most draws are new: so many more than are wanted always suffice for the counts below.
    for _ in 0..count * 100 {
        if shapes.len() == count {
            break;
        }
        let count_wanted = draw.one_of(&[0_u32, 1, 1, 1, 1, 1, 2, 4, 8, 8]);
        let each = count_wanted.max(1);
        let (cpus, memory) = if count > 64 {
            (1 + draw.below(u64::from(4 * each)) as u32, 1 + draw.below(u64::from(8 * each)))
        } else {
            (draw.one_of(&[1, 2, 4]) * each, draw.one_of(&[2, 4, 8]) * u64::from(each))
        };
        let any: Vec<(&str, u32)> = NAMES.iter().map(|name| (*name, count_wanted)).collect();
        let wanted = match (count_wanted, draw.below(3)) {
            (0, _) => Vec::new(),
            (_, 0) => any,
            _ => vec![(draw.one_of(&NAMES), count_wanted)],
        };
        // More shapes than cores and gibibytes can tell apart differ in the mebibytes.
        let mut shape = spec(&wanted, cpus, memory, 60);
        if count > 64 {
            shape.resources.memory_mib += draw.below(1_000);
        }
        let fits = TYPES.iter().any(|(name, has, has_cpus, has_memory, _)| {
            (wanted.is_empty() || wanted.iter().any(|(want, count)| want == name && count <= has))
                && *has_cpus >= cpus
                && *has_memory > memory
        });
        if fits && seen.insert(shape.resources.clone()) {
            shapes.push(shape);
        }
    }
    assert_eq!(shapes.len(), count);
    shapes
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// A fleet with nothing but a queue: `count` experiments of these shapes, each of its own length.
fn queued(count: usize, shapes: &[ExperimentSpec]) -> Fleet {
    let (mut fleet, mut ids, mut draw) = (Fleet::default(), IdGen::new(1), Draw(3));
    let account = Arc::new(Account { project: "p".into(), user: "ada".into(), sweep: None });
    for index in 0..count {
        let shape = if shapes.len() == count { index } else { draw.below(shapes.len() as u64) as usize };
        let minutes = 10 + draw.below(40) as i64;
        let number = (shape * 1_000 + minutes as usize) as u128;
        let id = SpecId::from_digest((number * 0x9e37_79b9_7f4a_7c15).to_be_bytes());
        if !fleet.specs.contains_key(&id) {
            let estimate =
                Estimate { duration: Span::from_secs(minutes * 60), on: None, speeds: BTreeMap::new() };
            let spec = ExperimentSpec { estimate: Some(estimate), ..shapes[shape].clone() };
            fleet.apply(&Event::SpecAdded { id, spec: Arc::new(spec) }).expect("a new spec");
        }
        let experiment = Experiment {
            id: ids.experiment(now()),
            name: "x".into(),
            account: account.clone(),
            spec: id,
            params: Params::new(),
            queued_at: now(),
            state: ExperimentState::Queued,
            attempts: 0,
            failures: 0,
            losses: 0,
            not_before: None,
            checkpoint_at: None,
            checkpoint_took: None,
            metrics: BTreeMap::new(),
            cancelled: false,
            expected: None,
        };
        fleet.apply(&Event::ExperimentQueued { experiment }).expect("a new experiment");
    }
    fleet
}

fn bench_plan(criterion: &mut Criterion, name: &str, market: &Market, fleet: &Fleet, max_instances: u32) {
    let settings = Settings { max_instances, ..Settings::default() };
    let heard: BTreeMap<InstanceId, Timestamp> = BTreeMap::new();
    let input =
        PlanInput { now: now(), fleet, market, heard: &heard, started_at: now(), settings: &settings };
    let first = plan(&input, &mut IdGen::new(1));
    eprintln!("{name}: {} launches, {} wait", first.events.len(), first.waiting.len());
    criterion.bench_function(name, |bencher| {
        bencher.iter_batched(
            || IdGen::new(1),
            |mut ids| plan(black_box(&input), &mut ids),
            BatchSize::PerIteration,
        );
    });
}

fn planning(criterion: &mut Criterion) {
    // 1,383 types in 30 zones, as spot and on-demand: 82,980 offerings.
    let large = market(1_383, 30);
    let anywhere: Vec<(&str, u32)> = NAMES.iter().map(|name| (*name, 1)).collect();
    bench_plan(
        criterion,
        "one of 83,000 offerings",
        &large,
        &queued(1, &[spec(&[("A100", 1)], 4, 16, 60)]),
        100,
    );
    bench_plan(
        criterion,
        "one of 83,000 offerings, six alternatives",
        &large,
        &queued(1, &[spec(&anywhere, 4, 16, 60)]),
        100,
    );
    bench_plan(
        criterion,
        "one of 83,000 offerings, no accelerator",
        &large,
        &queued(1, &[spec(&[], 64, 200, 60)]),
        100,
    );

    let small = market(50, 14);
    let few = shapes(64);
    bench_plan(criterion, "1,000 of 64 shapes, 50 types", &small, &queued(1_000, &few), 1_000_000);
    let ten_thousand = queued(10_000, &few);
    bench_plan(criterion, "10,000 of 64 shapes, 50 types", &small, &ten_thousand, 1_000_000);
    bench_plan(criterion, "10,000 at the instance limit", &small, &ten_thousand, 0);
    bench_plan(criterion, "10,000 and an empty market", &Market::default(), &ten_thousand, 100);
    let diverse = shapes(20_000);
    bench_plan(
        criterion,
        "20,000 of 20,000 shapes, 400 types",
        &market(400, 14),
        &queued(20_000, &diverse),
        1_000_000,
    );
    bench_plan(
        criterion,
        "100,000 of 64 shapes, 83,000 offerings",
        &large,
        &queued(100_000, &few),
        1_000_000,
    );

    let settings = Settings::default();
    let (heard, fleet) = (BTreeMap::new(), Fleet::default());
    let input = PlanInput {
        now: now(),
        fleet: &fleet,
        market: &large,
        heard: &heard,
        started_at: now(),
        settings: &settings,
    };
    let account = Account { project: "p".into(), user: "ada".into(), sweep: None };
    criterion.bench_function("table of candidates, 83,000 offerings", |bencher| {
        bencher.iter(|| candidates(black_box(&input), &spec(&[("A100", 1)], 4, 16, 60), &account, 20));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).without_plots();
    targets = planning
}
criterion_main!(benches);
