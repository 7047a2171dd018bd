//! Small worlds for the tests of this crate: a fleet with a market and a clock, in which plans come true.

use std::{collections::BTreeMap, fmt::Write as _, net::Ipv4Addr, sync::Arc};

use bursar_model::{
    Accelerators, Account, Asha, AshaRules, AttemptEnd, AttemptId, BudgetKey, BudgetTerms, CapacityType,
    CheckpointSpec, CloudInstance, CloudState, DataSpec, Event, Experiment, ExperimentId, ExperimentSpec,
    ExperimentState, Fleet, IdGen, InstanceEnd, InstanceId, InstanceState, InstanceType, Node, Offering,
    Params, Resources, Retry, SetBy, Span, SpecId, SpotPolicy, Sweep, SweepId, Timestamp, Usd, UsdPerHour,
};

use bursar_ledger::{Metered, Room};

use crate::{Market, Plan, PlanInput, Settings, attempt_ended, budgets::windows_that_begin, check, plan};

/// A machine type with 8 CPUs and 32 GiB for each of its accelerators.
pub(crate) fn gpu(name: &str, accelerator: &str, count: u32) -> Arc<InstanceType> {
    Arc::new(InstanceType {
        name: name.into(),
        accelerators: Some(Accelerators { name: accelerator.into(), count, memory_gib: Some(16) }),
        cpus_milli: 8_000 * count,
        memory_mib: 32_768 * u64::from(count),
        disk_gib: 1_000,
    })
}

/// A machine type without accelerators.
pub(crate) fn cpu(name: &str, cpus: u32) -> Arc<InstanceType> {
    Arc::new(InstanceType {
        name: name.into(),
        accelerators: None,
        cpus_milli: 1_000 * cpus,
        memory_mib: 4_096 * u64::from(cpus),
        disk_gib: 1_000,
    })
}

#[expect(clippy::float_arithmetic, reason = "tests are read more easily with prices as people write them")]
pub(crate) fn dollars(dollars: f64) -> Usd {
    Usd::from_nanos((dollars * 1e9).round() as i64)
}

pub(crate) fn per_hour(price: f64) -> UsdPerHour {
    UsdPerHour::from_nanos(dollars(price).as_nanos())
}

/// On-demand in the only zone, at so many dollars an hour.
pub(crate) fn offering(kind: &Arc<InstanceType>, price: f64) -> Offering {
    Offering {
        provider: "cloud".into(),
        region: "r1".into(),
        zone: "r1a".into(),
        instance_type: kind.clone(),
        capacity_type: CapacityType::OnDemand,
        price: Some(per_hour(price)),
        list_price: None,
        on_demand_price: Some(per_hour(price)),
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    }
}

/// Spot in the only zone, with the on-demand price beside it.
pub(crate) fn spot(kind: &Arc<InstanceType>, price: f64, on_demand: f64) -> Offering {
    let on_demand_price = offering(kind, on_demand).price;
    Offering { capacity_type: CapacityType::Spot, on_demand_price, ..offering(kind, price) }
}

/// A spec that wants these accelerators (`T4:1`), each an alternative, with one CPU and 1 GiB.
pub(crate) fn spec(accelerators: &[&str]) -> ExperimentSpec {
    let accelerator = |text: &&str| {
        let (name, count) = text.split_once(':').unwrap();
        Accelerators { name: name.into(), count: count.parse().unwrap(), memory_gib: None }
    };
    ExperimentSpec {
        project: "p".into(),
        resources: Resources {
            accelerators: accelerators.iter().map(accelerator).collect(),
            cpus_milli: 1_000,
            memory_mib: 1_024,
            disk_gib: 10,
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
        estimate: None,
        num_nodes: 1,
        labels: BTreeMap::new(),
    }
}

/// A fleet, a market and a clock.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) fleet: Fleet,
    pub(crate) market: Market,
    pub(crate) heard: BTreeMap<InstanceId, Timestamp>,
    pub(crate) settings: Settings,
    started_at: Timestamp,
    ids: IdGen,
}

impl World {
    pub(crate) fn new(offerings: Vec<Offering>) -> Self {
        let now = Timestamp::from_millis(1_800_000_000_000);
        Self {
            now,
            fleet: Fleet::default(),
            market: Market::new(offerings),
            heard: BTreeMap::new(),
            settings: Settings::default(),
            started_at: now,
            ids: IdGen::new(7),
        }
    }

    pub(crate) fn input(&self) -> PlanInput<'_> {
        let Self { now, fleet, market, heard, settings, started_at, ids: _ } = self;
        PlanInput { now: *now, fleet, market, heard, started_at: *started_at, settings }
    }

    pub(crate) fn limit(&mut self, key: BudgetKey, limit: f64) {
        self.set_terms(key, BudgetTerms::of(dollars(limit)));
    }

    pub(crate) fn set_terms(&mut self, key: BudgetKey, terms: BudgetTerms) {
        let window = terms.schedule.as_ref().map(|schedule| schedule.window_at(self.now));
        let (terms, by) = (Some(Arc::new(terms)), SetBy::Configuration);
        self.apply(&Event::BudgetSet { key, terms, by, window, counted: None });
    }

    pub(crate) fn sweep(&mut self, trials: u32, max_parallel: Option<u32>) -> SweepId {
        self.sweep_with(trials, max_parallel, None)
    }

    pub(crate) fn sweep_with(
        &mut self,
        trials: u32,
        max_parallel: Option<u32>,
        asha: Option<AshaRules>,
    ) -> SweepId {
        let id = self.ids.sweep(self.now);
        let sweep = Sweep {
            id,
            name: "sweep".into(),
            project: "p".into(),
            user: "ada".into(),
            queued_at: self.now,
            trials,
            open: trials,
            running: 0,
            max_parallel,
            asha: asha.map(Asha::new),
            ended_at: None,
        };
        self.apply(&Event::SweepQueued { sweep });
        id
    }

    pub(crate) fn queue(&mut self, spec: &ExperimentSpec) -> ExperimentId {
        self.queue_in(spec, None)
    }

    pub(crate) fn queue_in(&mut self, spec: &ExperimentSpec, sweep: Option<SweepId>) -> ExperimentId {
        let known = self.fleet.specs.iter().find(|(_, live)| *live.spec == *spec).map(|(id, _)| *id);
        let id = self.ids.experiment(self.now);
        let spec_id = known.unwrap_or_else(|| {
            let mut bytes = [0; 16];
            bytes[8..].copy_from_slice(&bursar_model::TypedId::as_u64(id).to_be_bytes());
            SpecId::from_digest(bytes)
        });
        if known.is_none() {
            self.apply(&Event::SpecAdded { id: spec_id, spec: Arc::new(spec.clone()) });
        }
        if let Some(terms) = &spec.budget {
            self.set_terms(BudgetKey::Experiment(id), BudgetTerms::clone(terms));
        }
        let experiment = Experiment {
            id,
            name: "x".into(),
            account: Arc::new(Account { project: spec.project.clone(), user: "ada".into(), sweep }),
            spec: spec_id,
            params: Params::new(),
            queued_at: self.now,
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
        id
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, event: &Event) {
        self.fleet.apply(event).unwrap();
    }

    /// Plans, without consequences.
    pub(crate) fn look(&self) -> Plan {
        plan(&self.input(), &mut self.ids.clone())
    }

    /// Plans, checks the plan, and makes it true.
    #[track_caller]
    pub(crate) fn step(&mut self) -> Plan {
        let mut ids = self.ids.clone();
        for event in windows_that_begin(&self.fleet.budgets, self.now) {
            self.apply(&event);
        }
        let plan = plan(&self.input(), &mut ids);
        assert_eq!(plan, self.look(), "the same input gives the same plan");
        let violations = check(&self.input(), &plan);
        assert!(violations.is_empty(), "{violations:#?}\n{}", render(&plan));
        self.ids = ids;
        for event in &plan.events {
            self.apply(event);
        }
        plan
    }

    /// Time passes, and every agent is heard at the end of it, unless its lease ended it before.
    pub(crate) fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        for instance in self.fleet.instances.values() {
            if matches!(instance.state, InstanceState::Ready { .. } | InstanceState::Draining { .. }) {
                self.heard.insert(instance.id, self.now.min(instance.paid_until()));
            }
        }
    }

    /// What was intended boots, what boots is ready.
    pub(crate) fn boot(&mut self) {
        let ids: Vec<InstanceId> = self.fleet.instances.keys().copied().collect();
        for id in ids {
            match self.fleet.instances[&id].state {
                InstanceState::Intended { .. } => {
                    let cloud = CloudInstance {
                        cloud_id: id.to_string().as_str().into(),
                        instance: id,
                        state: CloudState::Pending,
                        launched_at: self.now,
                        running_at: None,
                        stopping_at: None,
                        notice: None,
                    };
                    self.apply(&Event::InstanceLaunched { cloud, at: self.now });
                }
                InstanceState::Booting { .. } => {
                    self.apply(&Event::AgentRegistered {
                        instance: id,
                        at: self.now,
                        token_digest: String::new(),
                        host: None,
                        address: Ipv4Addr::LOCALHOST.into(),
                    });
                    self.heard.insert(id, self.now);
                }
                InstanceState::Ready { .. }
                | InstanceState::Draining { .. }
                | InstanceState::Terminating { .. }
                | InstanceState::Gone { .. } => {}
            }
        }
    }

    /// Launches and boots until all that this plan wants runs.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        let _ = self.step();
        self.boot();
        self.boot();
        let _ = self.step();
        let assigned: Vec<AttemptId> = self.fleet.attempts.keys().copied().collect();
        for attempt in assigned {
            if self.fleet.attempts[&attempt].started_at.is_none() {
                self.apply(&Event::AttemptStarted { attempt, at: self.now });
            }
        }
    }

    /// What an instance is to be charged now.
    pub(crate) fn charge(&self, instance: InstanceId) -> Option<Metered> {
        let live: Vec<_> = self.fleet.attempts_on(instance).collect();
        let room = Room::new(&self.fleet.budgets);
        crate::lifecycle::charge(&self.input(), &room, &self.fleet.instances[&instance], &live)
    }

    /// An attempt ends, as its agent says.
    #[track_caller]
    pub(crate) fn end(&mut self, attempt: AttemptId, end: AttemptEnd) {
        let instance = &self.fleet.instances[&self.fleet.attempts[&attempt].nodes[0].instance];
        // The instance ended itself by the end of what is paid for, and the attempt with it.
        let at = self.now.min(instance.paid_until());
        let events = attempt_ended(&self.fleet, &self.heard, attempt, at, end, None);
        for event in &events {
            self.apply(event);
        }
        let _ = self.fleet.take_changes();
    }

    /// What is to be terminated is gone, by the cloud's word.
    #[track_caller]
    pub(crate) fn sweep_up(&mut self) {
        let terminating = |i: &&bursar_model::Instance| matches!(i.state, InstanceState::Terminating { .. });
        let ids: Vec<InstanceId> = self.fleet.instances.values().filter(terminating).map(|i| i.id).collect();
        for id in ids {
            let lost: Vec<AttemptId> = self.fleet.attempts_on(id).map(|attempt| attempt.id).collect();
            for attempt in lost {
                self.end(attempt, AttemptEnd::InstanceLost { interrupted: true });
            }
            self.apply(&Event::InstanceGone { instance: id, at: self.now, end: InstanceEnd::Vanished });
        }
        let _ = self.fleet.take_changes();
    }

    /// The attempt of an experiment.
    #[track_caller]
    pub(crate) fn attempt_of(&self, experiment: ExperimentId) -> AttemptId {
        let state = &self.fleet.experiments[&experiment].state;
        let ExperimentState::Running { attempt } = state else {
            panic!("{experiment} does not run: {state:?}")
        };
        *attempt
    }
}

/// A plan as people would tell it, with short names for ids in the order in which they come up.
#[expect(clippy::wildcard_enum_match_arm, reason = "what placement does not plan is told as it is")]
pub(crate) fn render(plan: &Plan) -> String {
    let mut text = String::new();
    for event in &plan.events {
        let line = match event {
            Event::InstanceIntended { instance } => {
                let mut line = format!(
                    "launch {} as {} at {} up to {}, {} GiB of disk, for",
                    instance.id,
                    instance.offering.key(),
                    instance.price.effective.rounded(),
                    instance.ceiling.rounded(),
                    instance.disk_gib
                );
                for (payer, share) in &instance.shares {
                    write!(line, " {payer} ({}, {} held)", share.weight, share.held.rounded()).unwrap();
                }
                line
            }
            Event::AttemptAssigned { attempt, paid } => {
                let mut line = format!("assign {}", attempt.experiment);
                for Node { instance, devices, .. } in &attempt.nodes {
                    write!(line, " to {instance} on {devices:?}, paid by").unwrap();
                    for (payer, share) in &paid[instance].shares {
                        write!(line, " {payer} ({}, {} held)", share.weight, share.held.rounded()).unwrap();
                    }
                }
                line
            }
            Event::Charged { charge, .. } => {
                format!("charge {} {}", charge.instance, charge.costs().effective.rounded())
            }
            Event::ExperimentEnded { experiment, outcome, .. } => format!("end {experiment}: {outcome}"),
            other => format!("{other:?}"),
        };
        writeln!(text, "{line}").unwrap();
    }
    for (experiment, reason) in &plan.waiting {
        writeln!(text, "{experiment} waits: {reason}").unwrap();
    }
    short_names(&text)
}

fn short_names(text: &str) -> String {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let is_id = word.len() == 17 && ["exp_", "ins_", "att_", "swp_"].iter().any(|p| word.starts_with(p));
        if is_id && !names.iter().any(|(id, _)| id == word) {
            let count = counts.entry(word[..3].to_owned()).or_default();
            *count += 1;
            names.push((word.to_owned(), format!("{}{count}", &word[..3])));
        }
    }
    names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
}
