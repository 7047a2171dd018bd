//! How long a turn takes that charges and renews every one of many running instances. Figures are in
//! docs/performance.md.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use bursar_ledger::{cuts, meter};
use bursar_model::{
    Accelerators, Account, Attempt, BudgetKey, BudgetTerms, CapacityType, CheckpointSpec, CloudInstance,
    CloudState, DataSpec, Event, Experiment, ExperimentSpec, ExperimentState, Fleet, IdGen, InstanceId,
    InstanceType, Offering, Params, Resources, Retry, Schedule, SetBy, Span, SpecId, SpotPolicy, Timestamp,
    Usd, UsdPerHour,
};
use bursar_policies::{Market, PlanInput, Settings, plan};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const INSTANCES: usize = 10_000;
const BEGAN: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn market() -> Market {
    let kind = Arc::new(InstanceType {
        name: "t".into(),
        accelerators: Some(Accelerators { name: "T4".into(), count: 1, memory_gib: None }),
        cpus_milli: 4_000,
        memory_mib: 16_384,
        disk_gib: 100,
    });
    let offering = Offering {
        provider: "cloud".into(),
        region: "r".into(),
        zone: "z".into(),
        instance_type: kind,
        capacity_type: CapacityType::Spot,
        price: Some(UsdPerHour::from_nanos(312_345_678)),
        list_price: None,
        on_demand_price: Some(UsdPerHour::from_nanos(1_012_345_678)),
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    };
    Market::new(vec![offering])
}

fn spec() -> ExperimentSpec {
    ExperimentSpec {
        project: "p".into(),
        resources: Resources {
            accelerators: vec![Accelerators { name: "T4".into(), count: 1, memory_gib: None }],
            cpus_milli: 4_000,
            memory_mib: 8_192,
            disk_gib: 50,
        },
        image: None,
        registry_auth: None,
        seed: None,
        source: None,
        workdir: None,
        setup: None,
        run: "work".to_owned(),
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
        estimate: None,
        num_nodes: 1,
        labels: BTreeMap::new(),
    }
}

/// So many experiments of 16 projects, each of which runs on an instance of its own, under caps by the month.
struct Running {
    fleet: Fleet,
    market: Market,
    settings: Settings,
    heard: BTreeMap<InstanceId, Timestamp>,
}

impl Running {
    fn new() -> Self {
        let mut running = Self {
            fleet: Fleet::default(),
            market: market(),
            settings: Settings { max_instances: u32::MAX, ..Settings::default() },
            heard: BTreeMap::new(),
        };
        let mut ids = IdGen::new(1);
        running.set_budgets();
        running.queue(&mut ids);
        running.plan_at(BEGAN, &mut ids);
        let intended: Vec<InstanceId> = running.fleet.instances.keys().copied().collect();
        for id in intended {
            running.boot(id);
        }
        running.plan_at(BEGAN, &mut ids);
        let _ = running.fleet.take_changes();
        running
    }

    fn apply(&mut self, event: &Event) {
        self.fleet.apply(event).expect("it is legal");
    }

    fn set_budgets(&mut self) {
        let month = Schedule::parse("month", None).expect("it is a schedule");
        let projects = (0..16).map(|number| BudgetKey::Project(format!("p{number}").as_str().into()));
        for key in projects.chain([BudgetKey::Installation]) {
            let terms = BudgetTerms {
                schedule: Some(month.clone()),
                ..BudgetTerms::of(Usd::from_dollars(1_000_000))
            };
            let window = Some(month.window_at(BEGAN));
            let (terms, by) = (Some(Arc::new(terms)), SetBy::Configuration);
            self.apply(&Event::BudgetSet { key, terms, by, window, counted: None });
        }
    }

    fn queue(&mut self, ids: &mut IdGen) {
        let spec_id = SpecId::from_digest([1; 16]);
        self.apply(&Event::SpecAdded { id: spec_id, spec: Arc::new(spec()) });
        let accounts: Vec<Arc<Account>> = (0..16)
            .map(|number| {
                let project = format!("p{number}").as_str().into();
                Arc::new(Account { project, user: "ada".into(), sweep: None })
            })
            .collect();
        for number in 0..INSTANCES {
            let experiment = Experiment {
                id: ids.experiment(BEGAN),
                name: "e".into(),
                account: accounts[number % 16].clone(),
                spec: spec_id,
                params: Params::new(),
                queued_at: BEGAN,
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
            self.apply(&Event::ExperimentQueued { experiment });
        }
    }

    fn boot(&mut self, id: InstanceId) {
        let cloud = CloudInstance {
            cloud_id: id.to_string().as_str().into(),
            instance: id,
            state: CloudState::Running,
            launched_at: BEGAN,
            running_at: None,
            stopping_at: None,
            notice: None,
        };
        self.apply(&Event::InstanceLaunched { cloud, at: BEGAN });
        self.apply(&Event::AgentRegistered {
            instance: id,
            at: BEGAN,
            token_digest: String::new(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            host: None,
        });
        self.heard.insert(id, BEGAN);
    }

    fn input(&self, now: Timestamp) -> PlanInput<'_> {
        let Self { fleet, market, settings, heard } = self;
        PlanInput { now, fleet, market, heard, started_at: BEGAN, settings }
    }

    fn plan_at(&mut self, now: Timestamp, ids: &mut IdGen) {
        for event in plan(&self.input(now), ids).events {
            self.apply(&event);
        }
    }
}

fn metering(criterion: &mut Criterion) {
    let mut running = Running::new();
    let now = BEGAN + Span::from_secs(300);
    running.heard.values_mut().for_each(|heard| *heard = now);
    let attempts: BTreeMap<InstanceId, &Attempt> =
        running.fleet.attempts.values().map(|attempt| (attempt.nodes[0].instance, attempt)).collect();
    assert_eq!(attempts.len(), INSTANCES, "all of them run");
    let cuts = cuts(&running.fleet.budgets);
    criterion.bench_function("10,000 running instances charged", |bencher| {
        bencher.iter(|| {
            let charged = running.fleet.instances.values().filter_map(|instance| {
                meter(instance, attempts.get(&instance.id).copied().into_iter(), now, &cuts)
            });
            black_box(charged.count())
        });
    });
    let renewals = plan(&running.input(now), &mut IdGen::new(2)).events;
    assert_eq!(renewals.len(), 2 * INSTANCES, "each is charged and renewed");
    criterion.bench_function("10,000 running instances charged and renewed by a plan", |bencher| {
        bencher.iter(|| plan(black_box(&running.input(now)), &mut IdGen::new(2)));
    });
    criterion.bench_function("the same, applied", |bencher| {
        bencher.iter_batched(
            || running.fleet.clone(),
            |mut fleet| {
                for event in &renewals {
                    fleet.apply(event).expect("it is legal");
                }
                fleet
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).without_plots();
    targets = metering
}
criterion_main!(benches);
