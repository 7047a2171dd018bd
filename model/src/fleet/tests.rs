use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::{
    Account, Amounts, Attempt, AttemptEnd, AttemptState, Backoff, BudgetKey, CapacityType, Category, Charge,
    ChargeClass, ChargeLine, CloudInstance, CloudState, Costs, Event, Experiment, ExperimentId,
    ExperimentSpec, ExperimentState, Fleet, IdGen, Instance, InstanceEnd, InstanceState, InstanceType, Meter,
    Node, Offering, Outcome, Paid, Period, Price, Remainders, Retry, Share, Span, SpecId, SpotPolicy,
    Timestamp, Usd, UsdPerHour, invariant,
};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const SPEC: SpecId = SpecId::from_digest([1; 16]);

/// One experiment on one instance, step by step.
struct Course {
    fleet: Fleet,
    ids: IdGen,
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000) + Span::from_secs(secs)
}

fn account() -> Arc<Account> {
    Arc::new(Account { project: "p".into(), user: "ada".into(), sweep: None })
}

impl Course {
    fn new() -> Self {
        Self { fleet: Fleet::default(), ids: IdGen::new(1) }
    }

    fn apply(&mut self, event: Event) {
        self.fleet.apply(&event).unwrap();
        assert_eq!(invariant::check(&self.fleet), []);
    }

    fn queue(&mut self) -> ExperimentId {
        let spec = ExperimentSpec {
            project: "p".into(),
            resources: Default::default(),
            image: None,
            registry_auth: None,
            seed: None,
            source: None,
            workdir: None,
            setup: None,
            run: "true".into(),
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
            checkpoint: Default::default(),
            data: crate::spec::DataSpec::default(),
            estimate: None,
            num_nodes: 1,
            labels: BTreeMap::new(),
        };
        self.apply(Event::SpecAdded { id: SPEC, spec: Arc::new(spec) });
        let id = self.ids.experiment(at(0));
        let experiment = Experiment {
            id,
            name: "e".into(),
            account: account(),
            spec: SPEC,
            params: BTreeMap::new(),
            queued_at: at(0),
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
        self.apply(Event::ExperimentQueued { experiment });
        id
    }

    fn launch(&mut self, payer: ExperimentId) -> Instance {
        let kind = InstanceType {
            name: "t".into(),
            accelerators: None,
            cpus_milli: 1000,
            memory_mib: 1024,
            disk_gib: 10,
        };
        let price = UsdPerHour::from_nanos(3_600_000_000);
        let share = Share { account: account(), weight: 1000, held: Usd::from_dollars(2) };
        let instance = Instance {
            id: self.ids.instance(at(0)),
            offering: Offering {
                provider: "c".into(),
                region: "r".into(),
                zone: "z".into(),
                instance_type: Arc::new(kind),
                capacity_type: CapacityType::OnDemand,
                price: Some(price),
                list_price: None,
                on_demand_price: Some(price),
                price_since: None,
                quota: None,
                notice: None,
                terms: Arc::default(),
            },
            state: InstanceState::Intended { at: at(0) },
            cloud_id: None,
            disk_gib: 10,
            ceiling: price,
            price: Price::plain(price),
            earlier_prices: Vec::new(),
            lease_until: at(600),
            drain_allowance: Span::from_secs(60),
            funded_until: None,
            shares: BTreeMap::from([(payer, share)]),
            meter: Meter {
                from: None,
                through: at(0),
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
        };
        self.apply(Event::InstanceIntended { instance: Box::new(instance.clone()) });
        instance
    }

    fn assign(&mut self, experiment: ExperimentId, instance: &Instance) -> Event {
        let attempt = Attempt {
            id: self.ids.attempt(at(10)),
            experiment,
            number: 1,
            nodes: vec![Node::new(instance.id, Vec::new())],
            amounts: Amounts { accelerators: 0, cpus_milli: 1000, memory_mib: 512 },
            assigned_at: at(10),
            state: AttemptState::Assigned,
            started_at: None,
            checkpoint_at: None,
            ran_with: None,
            idle_gpu: None,
        };
        let paid = Paid { shares: instance.shares.clone(), funded_until: None };
        Event::AttemptAssigned { attempt, paid: BTreeMap::from([(instance.id, paid)]) }
    }

    fn held(&self) -> Usd {
        self.fleet.budgets.get(&BudgetKey::Project("p".into())).cloned().unwrap_or_default().held
    }
}

#[test]
fn what_an_instance_holds_is_held_in_every_budget_above_until_it_is_gone() {
    let mut course = Course::new();
    let experiment = course.queue();
    let instance = course.launch(experiment);
    assert_eq!(course.held(), Usd::from_dollars(2));
    let end = InstanceEnd::Refused { message: "no capacity".into() };
    course.apply(Event::InstanceGone { instance: instance.id, at: at(1), end });
    assert_eq!(course.held(), Usd::ZERO);
    assert_eq!(course.fleet.budgets[&BudgetKey::Installation].held, Usd::ZERO);
}

#[test]
fn a_charge_moves_money_from_held_to_spent_and_must_meet_the_last_one() {
    let mut course = Course::new();
    let experiment = course.queue();
    let instance = course.launch(experiment);
    let cloud = CloudInstance {
        cloud_id: "i-1".into(),
        instance: instance.id,
        state: CloudState::Running,
        launched_at: at(5),
        running_at: None,
        stopping_at: None,
        notice: None,
    };
    course.apply(Event::InstanceLaunched { cloud, at: at(6) });
    let charge = |from, to, dollars| {
        let amount = Usd::from_dollars(dollars);
        let line = ChargeLine {
            payer: experiment,
            account: account(),
            category: Category::Run,
            costs: Costs::all(amount),
        };
        Event::Charged {
            charge: Charge {
                instance: instance.id,
                period: Period::new(at(from), at(to)),
                class: ChargeClass::Usage,
                rates: instance.rates_at(instance.price),
                lines: vec![line],
            },
            meter: Meter {
                from: Some(at(5)),
                through: at(to),
                remainders: Remainders::default(),
                costs: Costs::all(Usd::from_dollars(dollars)),
            },
            held: BTreeMap::from([(experiment, Usd::from_dollars(1))]),
        }
    };
    let before = course.fleet.clone();
    assert!(course.fleet.apply(&charge(6, 20, 1)).is_err(), "it leaves a gap");
    assert!(course.fleet.apply(&charge(0, 20, 1)).is_err(), "it overlaps");
    assert_eq!(course.fleet, before, "what is not legal changes nothing");
    course.apply(charge(5, 20, 1));
    let budget = &course.fleet.budgets[&BudgetKey::Project("p".into())];
    assert_eq!((budget.spent, budget.held), (Usd::from_dollars(1), Usd::from_dollars(1)));
}

#[test]
fn an_experiment_has_one_live_attempt_at_most() {
    let mut course = Course::new();
    let experiment = course.queue();
    let instance = course.launch(experiment);
    let too_early = course.assign(experiment, &instance);
    assert!(course.fleet.apply(&too_early).is_err(), "the instance is not ready");
    course.apply(Event::AgentRegistered {
        instance: instance.id,
        at: at(5),
        token_digest: "d".into(),
        address: ADDRESS,
        host: None,
    });
    let first = course.assign(experiment, &instance);
    course.apply(first);
    let second = course.assign(experiment, &instance);
    let before = course.fleet.clone();
    assert!(course.fleet.apply(&second).is_err());
    assert_eq!(course.fleet, before);
}

#[test]
fn what_is_over_leaves_the_live_state_once_it_was_taken_for_the_store() {
    let mut course = Course::new();
    let experiment = course.queue();
    let instance = course.launch(experiment);
    course.apply(Event::AgentRegistered {
        instance: instance.id,
        at: at(5),
        token_digest: "d".into(),
        address: ADDRESS,
        host: None,
    });
    let assigned = course.assign(experiment, &instance);
    course.apply(assigned);
    let attempt = *course.fleet.attempts.keys().next().unwrap();
    assert!(
        course
            .fleet
            .apply(&Event::InstanceGone { instance: instance.id, at: at(9), end: InstanceEnd::Vanished })
            .is_err(),
        "an attempt still runs on it"
    );
    let end = AttemptEnd::Exited { code: 0 };
    course.apply(Event::AttemptEnded {
        attempt,
        at: at(20),
        end,
        node: None,
        failed: false,
        not_before: None,
    });
    course.apply(Event::ExperimentEnded { experiment, at: at(20), outcome: Outcome::Succeeded });
    course.apply(Event::InstanceGone { instance: instance.id, at: at(30), end: InstanceEnd::Vanished });
    let changes = course.fleet.take_changes();
    assert!(changes.experiments.iter().all(|change| !change.live));
    assert!(changes.attempts.iter().all(|change| !change.live));
    assert!(changes.instances.iter().all(|change| !change.live));
    assert!(course.fleet.experiments.is_empty() && course.fleet.attempts.is_empty());
    assert!(course.fleet.instances.is_empty() && course.fleet.specs.is_empty());
    let project = BudgetKey::Project("p".into());
    let user = BudgetKey::User("ada".into());
    assert!(
        course.fleet.budgets.keys().eq([&BudgetKey::Installation, &project, &user]),
        "budgets of what is over go too"
    );
    assert_eq!(course.fleet.take_changes(), Default::default(), "each change is taken once");
}
