//! A month of charges with sums that were worked out by hand: events as the daemon makes them, a real store, and reports
//! by every dimension. The arithmetic stands beside the figures, so that a person can check it with a pencil.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bursar_ledger::{Metered, cuts, hold, meter, quote, shares};
use bursar_model::{
    Accelerators, Account, Amounts, Attempt, AttemptEnd, AttemptId, AttemptState, Backoff, BillingRules,
    CapacityType, Category, CheckpointSpec, CloudInstance, CloudState, Costs, DataSpec, Discount, Event,
    Experiment, ExperimentId, ExperimentSpec, ExperimentState, Fleet, IdGen, Instance, InstanceEnd,
    InstanceId, InstanceState, InstanceType, Meter, Node, Offering, Paid, Params, Price, Remainders,
    Resources, Retry, Span, SpecId, SpotPolicy, Terms, Timestamp, Usd,
};
use bursar_policies::attempt_ended;
use bursar_store::{Commit, Dimension, OpenOptions, ReportQuery, ReportRow, SqliteStore, Store};

/// 2026-11-01T00:00:00Z.
const MONTH: Timestamp = Timestamp::from_millis(1_793_491_200_000);

fn at(day: i64, hour: i64, minute: i64) -> Timestamp {
    MONTH + Span::from_secs(((day - 1) * 24 + hour) * 3600 + minute * 60)
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// A store has no outside: it answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => unreachable!("SQLite answers inline"),
    }
}

/// What happens in the month, step by step.
struct Month {
    fleet: Fleet,
    events: Vec<Event>,
    ids: IdGen,
}

impl Month {
    fn new() -> Self {
        Self { fleet: Fleet::default(), events: Vec::new(), ids: IdGen::new(1) }
    }

    fn then(&mut self, event: Event) {
        self.fleet.apply(&event).unwrap();
        self.events.push(event);
    }

    fn queue(&mut self, name: &str, project: &str, user: &str, at: Timestamp) -> ExperimentId {
        let spec = ExperimentSpec {
            project: project.into(),
            resources: Resources::default(),
            image: None,
            registry_auth: None,
            seed: None,
            source: None,
            workdir: None,
            setup: None,
            run: "train".to_owned(),
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
        };
        let id = self.ids.experiment(at);
        let mut digest = [0; 16];
        digest[0] = project.len() as u8;
        let spec_id = SpecId::from_digest(digest);
        self.then(Event::SpecAdded { id: spec_id, spec: Arc::new(spec) });
        let account = Arc::new(Account { project: project.into(), user: user.into(), sweep: None });
        let experiment = Experiment {
            id,
            name: name.into(),
            account,
            spec: spec_id,
            params: Params::new(),
            queued_at: at,
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
        self.then(Event::ExperimentQueued { experiment });
        id
    }

    /// Intends and launches an instance for these experiments, each of which wants one accelerator of two, or both.
    fn launch(
        &mut self,
        capacity_type: CapacityType,
        payers: &[ExperimentId],
        launched_at: Timestamp,
        running_at: Timestamp,
    ) -> InstanceId {
        let offering = offering(capacity_type);
        let part = Amounts { accelerators: 2 / payers.len() as u32, cpus_milli: 1_000, memory_mib: 1_024 };
        let accounts: Vec<Arc<Account>> =
            payers.iter().map(|id| self.fleet.experiments[id].account.clone()).collect();
        let wanted: Vec<_> = payers.iter().zip(&accounts).map(|(id, account)| (*id, account, part)).collect();
        let price = offering.known_price().unwrap();
        let mut instance = Instance {
            id: self.ids.instance(launched_at),
            ceiling: offering.on_demand_price.unwrap(),
            state: InstanceState::Intended { at: launched_at },
            cloud_id: None,
            disk_gib: 100,
            price,
            earlier_prices: Vec::new(),
            lease_until: launched_at + Span::from_hours(3),
            drain_allowance: Span::from_secs(60),
            funded_until: None,
            shares: shares::at_launch(&offering.instance_type, &wanted),
            meter: Meter {
                from: None,
                through: launched_at,
                remainders: Remainders::default(),
                costs: Costs::default(),
            },
            token_digest: None,
            boot: None,
            address: None,
            idle_since: None,
            notice: None,
            at_risk: None,
            together: None,
            backoff: Backoff::default(),
            offering,
        };
        let outstanding = instance.outstanding(launched_at, instance.held_until());
        instance.shares = hold::with_holds(&instance, instance.shares.clone(), outstanding);
        let id = instance.id;
        self.then(Event::InstanceIntended { instance: Box::new(instance) });
        let cloud = CloudInstance {
            cloud_id: format!("i-{id}").as_str().into(),
            instance: id,
            state: CloudState::Running,
            launched_at,
            running_at: Some(running_at),
            stopping_at: None,
            notice: None,
        };
        self.then(Event::InstanceLaunched { cloud, at: running_at });
        id
    }

    fn charge(&mut self, id: InstanceId, until: Timestamp) {
        let live: Vec<&Attempt> = self.fleet.attempts_on(id).collect();
        let cuts = cuts(&self.fleet.budgets);
        let charged = meter(&self.fleet.instances[&id], live.into_iter(), until, &cuts);
        charged.into_iter().flat_map(Metered::into_events).for_each(|event| self.then(event));
    }

    fn register(&mut self, id: InstanceId, at: Timestamp) {
        self.charge(id, at);
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let token_digest = "d".to_owned();
        self.then(Event::AgentRegistered { instance: id, at, token_digest, address, host: None });
    }

    fn start(
        &mut self,
        experiment: ExperimentId,
        id: InstanceId,
        accelerators: u32,
        at: Timestamp,
    ) -> AttemptId {
        let attempt = Attempt {
            id: self.ids.attempt(at),
            experiment,
            number: 1,
            nodes: vec![Node::new(id, Vec::new())],
            amounts: Amounts { accelerators, cpus_milli: 1_000, memory_mib: 1_024 },
            assigned_at: at,
            state: AttemptState::Assigned,
            started_at: None,
            checkpoint_at: None,
            ran_with: None,
            idle_gpu: None,
        };
        let (attempt_id, shares) = (attempt.id, self.fleet.instances[&id].shares.clone());
        let paid = BTreeMap::from([(id, Paid { shares, funded_until: None })]);
        self.then(Event::AttemptAssigned { attempt, paid });
        self.then(Event::AttemptStarted { attempt: attempt_id, at });
        attempt_id
    }

    fn end(&mut self, attempt: AttemptId, at: Timestamp, end: AttemptEnd) {
        attempt_ended(&self.fleet, &BTreeMap::new(), attempt, at, end, Some(0))
            .into_iter()
            .for_each(|event| self.then(event));
    }

    fn store(mut self, path: &Path) -> SqliteStore {
        let mut store = SqliteStore::open(path, OpenOptions::default()).unwrap();
        let epoch = now(store.load()).unwrap().epoch;
        let changes = self.fleet.take_changes();
        let (at, submissions) = (at(30, 0, 0), Vec::new());
        now(store.commit(&Commit { epoch, at, events: self.events, changes, submissions })).unwrap();
        store
    }
}

/// $1.00/h on demand, $0.30/h spot, as listed. 10 % off on demand; $0.005/h for the address, $0.0001/h for a GiB of disk
/// (100 of them: $0.01/h), and $0.02/h of overhead.
///
/// | $/h       | effective                   | contracted | list  |
/// | on demand | 0.90+0.005+0.02+0.01= 0.935 | 0.915      | 1.015 |
/// | spot 0.30 | 0.30+0.005+0.02+0.01= 0.335 | 0.315      | 0.315 |
/// | spot 0.50 |                       0.535 | 0.515      | 0.515 |
fn offering(capacity_type: CapacityType) -> Offering {
    let listed = Offering {
        provider: "aws".into(),
        region: "us-east-1".into(),
        zone: "us-east-1a".into(),
        instance_type: Arc::new(InstanceType {
            name: "g2".into(),
            accelerators: Some(Accelerators { name: "T4".into(), count: 2, memory_gib: None }),
            cpus_milli: 8_000,
            memory_mib: 32_768,
            disk_gib: 100,
        }),
        capacity_type,
        price: Some(if capacity_type == CapacityType::Spot { "0.3" } else { "1" }.parse().unwrap()),
        list_price: None,
        on_demand_price: Some("1".parse().unwrap()),
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    };
    let terms = Terms {
        billing: BillingRules::PER_SECOND,
        disk_gib: "0.0001".parse().unwrap(),
        address: "0.005".parse().unwrap(),
        overhead: "0.02".parse().unwrap(),
        disk_min_gib: 0,
    };
    let discount =
        Discount { capacity_type: Some(CapacityType::OnDemand), millionths: 100_000, ..Discount::default() };
    quote(listed, &terms, &[discount])
}

fn november() -> (Month, [ExperimentId; 3]) {
    let mut month = Month::new();
    let alone = month.queue("alone", "vision", "ada", at(2, 9, 59));
    let one = month.queue("one", "speech", "bob", at(15, 22, 59));
    let two = month.queue("two", "vision", "ada", at(15, 22, 59));

    // On demand from 10:05 (launched at 10:00) to 12:41: 0.1 h boot, 2 h run, 0.5 h idle. It took until 12:43:30 to go,
    // which the cloud does not count.
    let first = month.launch(CapacityType::OnDemand, &[alone], at(2, 10, 0), at(2, 10, 5));
    month.register(first, at(2, 10, 11));
    let attempt = month.start(alone, first, 2, at(2, 10, 11));
    month.end(attempt, at(2, 12, 11), AttemptEnd::Exited { code: 0 });
    month.charge(first, at(2, 12, 41));
    month.then(Event::InstanceGone { instance: first, at: at(2, 12, 43), end: InstanceEnd::Vanished });

    // Spot, shared by two, from 23:00 over midnight to 01:30, when the cloud takes it. The price rises at 00:30. The one
    // saved at 01:00, the other at 00:00.
    let second = month.launch(CapacityType::Spot, &[one, two], at(15, 23, 0), at(15, 23, 0));
    month.register(second, at(15, 23, 30));
    let attempts = [one, two].map(|id| month.start(id, second, 1, at(15, 23, 30)));
    let price = Price { effective: "0.525".parse().unwrap(), list: "0.505".parse().unwrap() };
    month.then(Event::PriceChanged { instance: second, at: at(16, 0, 30), price });
    month.then(Event::AttemptCheckpointed { attempt: attempts[0], at: at(16, 1, 0), took: None });
    month.then(Event::AttemptCheckpointed { attempt: attempts[1], at: at(16, 0, 0), took: None });
    for attempt in attempts {
        month.end(attempt, at(16, 1, 30), AttemptEnd::InstanceLost { interrupted: true });
    }
    month.then(Event::InstanceGone { instance: second, at: at(16, 1, 30), end: InstanceEnd::Interrupted });
    (month, [alone, one, two])
}

fn report(store: &SqliteStore, by: &[Dimension]) -> Vec<ReportRow> {
    store.reader().report(&ReportQuery { by: by.to_vec(), ..ReportQuery::default() }).unwrap()
}

fn by(store: &SqliteStore, dimension: Dimension) -> BTreeMap<String, Usd> {
    report(store, &[dimension])
        .into_iter()
        .map(|row| (row.keys[0].to_string(), row.costs.effective))
        .collect()
}

fn sums(expected: &[(&str, &str)]) -> BTreeMap<String, Usd> {
    expected.iter().map(|(key, amount)| ((*key).to_owned(), usd(amount))).collect()
}

#[test]
fn a_month_comes_to_what_was_worked_out_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (month, [alone, one, two]) = november();
    let store = month.store(&folder.path().join("bursar.db"));

    // On demand 2.6 h; spot 1.5 h at the first price and 1 h at the second.
    let total = report(&store, &[]).pop().unwrap();
    let costs = Costs {
        effective: usd("3.4685"),  // 2.6 × 0.935 = 2.431;  1.5 × 0.335 + 0.535 = 1.0375
        contracted: usd("3.3665"), // 2.6 × 0.915 = 2.379;  1.5 × 0.315 + 0.515 = 0.9875
        list: usd("3.6265"),       // 2.6 × 1.015 = 2.639;  the same for spot
        on_demand: usd("4.7685"),  // 5.1 × 0.935
    };
    assert_eq!(total.costs, costs);
    assert_eq!(total.time, Span::from_secs(5 * 3600 + 360));
    let categories = BTreeMap::from([
        (Category::Run, usd("2.255")),   // 2 × 0.935;  0.435 − 0.13375;  0.435 − 0.35125
        (Category::Boot, usd("0.261")),  // 0.1 × 0.935;  0.5 × 0.335
        (Category::Idle, usd("0.4675")), // 0.5 × 0.935
        (Category::Lost, usd("0.485")),  // ½ × 0.5 × 0.535;  ½ × 0.5 × 0.335 + ½ × 0.535
    ]);
    assert_eq!(total.by_category.costs().collect::<BTreeMap<_, _>>(), categories);

    // Each half of the spot instance: 1.0375 ÷ 2 = 0.51875.
    assert_eq!(by(&store, Dimension::Project), sums(&[("speech", "0.51875"), ("vision", "2.94975")]));
    assert_eq!(by(&store, Dimension::User), sums(&[("ada", "2.94975"), ("bob", "0.51875")]));
    let ids = [alone, one, two].map(|id| id.to_string());
    let experiments = [(&*ids[0], "2.431"), (&*ids[1], "0.51875"), (&*ids[2], "0.51875")];
    assert_eq!(by(&store, Dimension::Experiment), sums(&experiments));
    // An hour of the 15th at the first price; on the 16th half an hour more of it, and the second.
    let days = [("2026-11-02", "2.431"), ("2026-11-15", "0.335"), ("2026-11-16", "0.7025")];
    assert_eq!(by(&store, Dimension::Day), sums(&days));
    assert_eq!(by(&store, Dimension::CapacityType), sums(&[("on-demand", "2.431"), ("spot", "1.0375")]));
    assert_eq!(by(&store, Dimension::Provider), sums(&[("aws", "3.4685")]));
    assert!(store.reader().integrity().unwrap().is_sound());
}
