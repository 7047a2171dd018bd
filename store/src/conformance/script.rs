//! A small daemon for tests: keeps a fleet, makes legal events and turns them into commits.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{
    Account, Amounts, Asha, AshaMode, AshaRules, Attempt, AttemptEnd, AttemptId, AttemptState, Backoff,
    BudgetAlert, BudgetKey, BudgetTerms, CapacityType, Category, Charge, ChargeClass, ChargeLine,
    CheckpointSpec, CloudInstance, CloudState, CostEstimate, Costs, DataSpec, Digest, DrainReason,
    DropReason, Event, Experiment, ExperimentId, ExperimentSpec, ExperimentState, Fleet, IdGen, Instance,
    InstanceEnd, InstanceId, InstanceState, InstanceType, Meter, Node, Notification, NotificationAbout,
    NotificationId, NotificationState, Offering, Outcome, Paid, ParamValue, Period, Price, RanWith, Refusal,
    Remainders, Resources, Retry, Scope, SetBy, Share, Span, SpecId, SpotPolicy, StopReason, Sweep, SweepId,
    Timestamp, Usd, UsdPerHour, Workdir,
};

use crate::{Commit, Loaded};

/// The scripted daemon.
#[derive(Debug)]
pub struct Script {
    /// What memory holds.
    pub fleet: Fleet,
    /// The time, which moves on with each commit.
    pub now: Timestamp,
    /// The epoch of the commits.
    pub epoch: u64,
    ids: IdGen,
    events: Vec<Event>,
    charged: Vec<Charge>,
}

impl Script {
    /// Goes on from what was loaded.
    #[must_use]
    pub fn new(loaded: Loaded) -> Self {
        let Loaded { fleet, epoch, highest_id, newest_commit: _ } = loaded;
        let now = Timestamp::from_millis(1_795_000_000_000 + epoch as i64 * 86_400_000);
        Self {
            fleet,
            now,
            epoch,
            ids: IdGen::new(highest_id ^ epoch),
            events: Vec::new(),
            charged: Vec::new(),
        }
    }

    /// Applies an event and keeps it for the next commit.
    ///
    /// # Panics
    /// When the event is not legal: the script is wrong then.
    pub fn then(&mut self, event: Event) {
        self.fleet.apply(&event).expect("the script makes legal events");
        self.events.push(event);
    }

    /// All that happened since the last commit.
    pub fn commit(&mut self) -> Commit {
        self.now = self.now + Span::from_secs(1);
        Commit {
            epoch: self.epoch,
            at: self.now,
            events: std::mem::take(&mut self.events),
            changes: self.fleet.take_changes(),
            submissions: Vec::new(),
        }
    }

    /// Queues an experiment with one of some specs, as a trial where there is a sweep.
    pub fn queue(&mut self, name: &str, spec: u8, sweep: Option<SweepId>) -> ExperimentId {
        self.queue_for(name, spec, Account { project: "vision".into(), user: "ada".into(), sweep })
    }

    /// Queues an experiment that this account pays for.
    pub fn queue_for(&mut self, name: &str, spec: u8, account: Account) -> ExperimentId {
        let id = self.ids.experiment(self.now);
        let spec_id = SpecId::from_digest([spec; 16]);
        if !self.fleet.specs.contains_key(&spec_id) {
            self.then(Event::SpecAdded { id: spec_id, spec: Arc::new(a_spec(spec)) });
        }
        let alone = account.sweep.is_none();
        let params = match account.sweep {
            Some(_) => BTreeMap::from([
                ("LR".to_owned(), ParamValue::Float(awkward(spec.into()))),
                ("DEPTH".to_owned(), ParamValue::Int(i64::from(spec))),
                ("KIND".to_owned(), ParamValue::Text("resnet \"50\"".to_owned())),
            ]),
            None => BTreeMap::new(),
        };
        let experiment = Experiment {
            id,
            name: name.into(),
            account: Arc::new(account),
            spec: spec_id,
            params,
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
            // Those of no sweep have an estimate, so that both are stored.
            expected: alone.then(|| CostEstimate {
                expected: Usd::from_nanos(i64::from(spec) + 2),
                low: Usd::ZERO,
                high: Usd::from_dollars(3),
            }),
        };
        self.then(Event::ExperimentQueued { experiment });
        id
    }

    /// Queues a sweep and its trials, of which the first has climbed a rung and the second has reported no number.
    pub fn sweep(&mut self, trials: u8) -> SweepId {
        let (metric, resource) = ("loss".to_owned(), "step".to_owned());
        let rules = AshaRules { metric, mode: AshaMode::Min, resource, eta: 2, min: 1, max: 4 };
        let id = self.ids.sweep(self.now);
        let sweep = Sweep {
            id,
            name: "lr".into(),
            project: "vision".into(),
            user: "ada".into(),
            queued_at: self.now,
            trials: trials.into(),
            open: trials.into(),
            running: 0,
            max_parallel: Some(2),
            asha: Some(Asha::new(rules)),
            ended_at: None,
        };
        self.then(Event::SweepQueued { sweep });
        self.then(Event::BudgetSet {
            key: BudgetKey::Sweep(id),
            terms: Some(Arc::new(BudgetTerms::of(Usd::from_dollars(20)))),
            by: SetBy::Spec,
            window: None,
            counted: None,
        });
        for trial in 0..trials {
            let experiment = self.queue(&format!("lr-{trial}"), trial % 3, Some(id));
            let score = (trial == 0).then_some(0.1);
            if trial < 2 {
                self.then(Event::RungReached { experiment, rung: 0, score, cost: Usd::from_nanos(7) });
            }
            if trial == 0 {
                self.then(Event::TrialPromoted { experiment, rung: 0 });
            }
        }
        id
    }

    /// Brings up an instance that these experiments pay for in equal parts.
    pub fn instance(&mut self, payers: &[ExperimentId]) -> InstanceId {
        self.instance_at((self.fleet.instances.len() % 3) as u8, payers)
    }

    /// Brings one up at one of some places.
    pub fn instance_at(&mut self, place: u8, payers: &[ExperimentId]) -> InstanceId {
        let id = self.intend(place, payers);
        self.launch(id);
        self.then(Event::AgentRegistered {
            instance: id,
            at: self.now,
            token_digest: "b2".to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            host: None,
        });
        id
    }

    /// Runs an attempt of a queued experiment on an instance.
    pub fn run(&mut self, experiment: ExperimentId, instance: InstanceId) -> AttemptId {
        let attempt = self.assign(experiment, instance);
        self.then(Event::AttemptStarted { attempt, at: self.now });
        attempt
    }

    /// Charges an instance for some time, to all that have a share of it, for this.
    pub fn charge(&mut self, instance: InstanceId, span: Span, category: Category) -> Charge {
        let found = &self.fleet.instances[&instance];
        let rates = found.rates_at(found.price);
        let total = i64::from(found.total_weight());
        let lines: Vec<_> = found
            .shares
            .iter()
            .map(|(payer, share)| {
                let part = span.times(share.weight.into()).divided_by(total);
                ChargeLine {
                    payer: *payer,
                    account: share.account.clone(),
                    category,
                    costs: rates.map(|price| price.cost_rounded_up(part)),
                }
            })
            .collect();
        let period = Period::new(found.meter.through, found.meter.through + span);
        let charge = Charge { instance, period, class: ChargeClass::Usage, rates, lines };
        let meter =
            Meter { through: period.to, costs: found.meter.costs + charge.costs(), ..found.meter.clone() };
        let held =
            found.shares.iter().map(|(payer, share)| (*payer, share.held.saturating_sub(Usd::from_nanos(1))));
        let held = held.collect();
        self.charged.push(charge.clone());
        self.then(Event::Charged { charge: charge.clone(), meter, held });
        charge
    }

    /// Mends the charge that a number stands for by a part of what it cost, be its instance over or not.
    pub fn correct(&mut self, pick: usize) {
        if self.charged.is_empty() {
            return;
        }
        let charge = self.charged[pick % self.charged.len()].clone();
        let part = |cost: Usd| Usd::from_nanos(cost.as_nanos() / 7 * (pick as i64 % 5 - 2));
        let lines =
            charge.lines.iter().map(|line| ChargeLine { costs: line.costs.map(part), ..line.clone() });
        let charge = Charge { class: ChargeClass::Correction, lines: lines.collect(), ..charge };
        self.then(Event::BillCorrected { charge });
    }

    /// Ends an attempt.
    pub fn end_attempt(&mut self, attempt: AttemptId, end: AttemptEnd) {
        let failed = matches!(end, AttemptEnd::Killed { .. });
        let not_before = failed.then_some(self.now + Span::from_secs(30));
        self.then(Event::AttemptEnded { attempt, at: self.now, end, node: None, failed, not_before });
    }

    /// Ends an experiment that has no attempt.
    pub fn end(&mut self, experiment: ExperimentId, outcome: Outcome) {
        self.then(Event::ExperimentEnded { experiment, at: self.now, outcome });
    }

    /// Takes one step of a history that any number stands for: some event that is legal now, or none.
    pub fn step(&mut self, number: u64) {
        let pick = (number >> 8) as usize;
        let queued: Vec<_> = self.ids_of(|e| (e.state == ExperimentState::Queued).then_some(e.id));
        let one = |ids: &[ExperimentId]| (!ids.is_empty()).then(|| ids[pick % ids.len()]);
        match number % 22 {
            0..3 => {
                self.queue(&format!("e{}", pick % 7), (pick % 5) as u8, None);
            }
            3 => {
                self.sweep((pick % 4 + 1) as u8);
            }
            4 | 5 => {
                let payers: Vec<_> = queued.iter().copied().take(pick % 3 + 1).collect();
                if pick.is_multiple_of(4) {
                    self.intend((pick % 3) as u8, &payers);
                } else {
                    self.instance(&payers);
                }
            }
            6..9 => {
                let ready = self.fleet.instances.values().find(|i| {
                    matches!(i.state, InstanceState::Ready { .. })
                        && self.fleet.free_on(i).fits(ATTEMPT_AMOUNTS)
                });
                if let (Some(experiment), Some(instance)) = (one(&queued), ready.map(|i| i.id)) {
                    self.run(experiment, instance);
                }
            }
            9 => {
                if let Some(experiment) = one(&queued) {
                    let (limit, spent, needed) =
                        (Usd::from_dollars(3), Usd::from_nanos(7), Usd::from_dollars(4));
                    let why =
                        Refusal::Budget { key: BudgetKey::Project("vision".into()), limit, spent, needed };
                    let outcome = [Outcome::Cancelled, Outcome::Refused { why }][pick % 2].clone();
                    self.then(Event::CancelRequested { experiment });
                    self.end(experiment, outcome);
                }
            }
            10..15 => self.step_attempt(number % 22, pick),
            15..19 => self.step_instance(number % 22, pick),
            19 => self.step_notification(pick),
            20 => {
                let before = self.fleet.reported.get("weekly").copied();
                let until = Some(before.unwrap_or(self.now).max(self.now) + Span::from_secs(1));
                let until = until.filter(|_| !pick.is_multiple_of(3));
                self.then(Event::ReportReached { report: "weekly".to_owned(), until });
            }
            _ => {
                let scope = Scope::of(&an_offering((pick % 3) as u8).key());
                if pick.is_multiple_of(5) {
                    self.then(Event::CapacityFound { scope });
                } else {
                    let until = self.now + Span::from_secs(60);
                    self.then(Event::CapacityRefused { scope, failures: pick as u32 % 9, until });
                }
            }
        }
    }

    /// Queues a notification.
    pub fn notify(&mut self) -> NotificationId {
        let id = self.ids.notification(self.now);
        let about = NotificationAbout::Budget {
            key: BudgetKey::Project("vision".into()),
            name: None,
            alert: BudgetAlert::Threshold { percent: 80 },
            limit: Some(Usd::from_dollars(20)),
            spent: Usd::from_nanos(16_000_000_001),
            held: Usd::from_dollars(1),
            window: None,
        };
        let to = "team \"vision\"".to_owned();
        let state = NotificationState::Waiting;
        let notification =
            Notification { id, at: self.now, to, about, state, backoff: Backoff::default(), error: None };
        self.then(Event::NotificationQueued { notification: Box::new(notification) });
        id
    }

    fn step_notification(&mut self, pick: usize) {
        // What was told in this very turn is still there until it is stored.
        let waiting = self.fleet.outbox.values().filter(|notification| notification.is_waiting());
        let Some(notification) = waiting.map(|notification| notification.id).nth(pick % 3) else {
            self.notify();
            return;
        };
        let at = self.now;
        self.then(match pick % 4 {
            0 => Event::NotificationDelivered { notification, at },
            1 => Event::NotificationDropped { notification, at, why: DropReason::TooOld },
            _ => Event::NotificationFailed {
                notification,
                error: "it said 500 \"oh\"".to_owned(),
                backoff: Backoff { failures: pick as u32 % 9, not_before: Some(at + Span::from_secs(1)) },
            },
        });
    }

    fn step_attempt(&mut self, kind: u64, pick: usize) {
        let attempts: Vec<_> = self.fleet.attempts.values().filter(|a| !a.is_ended()).cloned().collect();
        let Some(attempt) = attempts.get(pick % attempts.len().max(1)) else { return };
        let is_stopping = matches!(attempt.state, AttemptState::Stopping { .. });
        match kind {
            10 => self.then(Event::AttemptCheckpointed {
                attempt: attempt.id,
                at: self.now,
                took: (self.now.as_millis() % 2 == 0).then_some(Span::from_secs(2)),
            }),
            11 => {
                let metrics = BTreeMap::from([("loss".to_owned(), awkward(pick))]);
                self.then(Event::MetricsReported { attempt: attempt.id, metrics });
                let ran_with = Box::new(RanWith {
                    bursar: "0.1.0".to_owned(),
                    runtime: "podman 5.0".to_owned(),
                    image: pick.is_multiple_of(2).then(|| format!("image@sha256:{pick:064x}")),
                    system: "Linux".to_owned(),
                    driver: None,
                });
                self.then(Event::AttemptRecorded { attempt: attempt.id, ran_with });
            }
            12 if !is_stopping => {
                self.then(Event::AttemptStopping {
                    attempt: attempt.id,
                    at: self.now,
                    why: StopReason::Moved,
                    at_once: false,
                });
            }
            13 => self.end_attempt(attempt.id, AttemptEnd::Killed { signal: 11 }),
            _ => {
                self.end_attempt(attempt.id, AttemptEnd::Exited { code: 0 });
                self.end(attempt.experiment, Outcome::Succeeded);
            }
        }
    }

    fn step_instance(&mut self, kind: u64, pick: usize) {
        let instances: Vec<_> = self.fleet.instances.values().filter(|i| i.is_live()).cloned().collect();
        let Some(found) = instances.get(pick % instances.len().max(1)) else { return };
        let id = found.id;
        let is_up = matches!(found.state, InstanceState::Ready { .. } | InstanceState::Draining { .. });
        match kind {
            15 if pick.is_multiple_of(4) => self.correct(pick / 4),
            15 if found.meter.from.is_some() => {
                let category = Category::ALL[pick % 5];
                self.charge(id, Span::from_millis((pick % 7_200_000) as i64), category);
            }
            16 => {
                let backoff = Backoff { failures: pick as u32 % 5, not_before: Some(self.now) };
                self.then(Event::CallFailed { instance: id, backoff });
                self.then(Event::PriceChanged {
                    instance: id,
                    at: self.now,
                    price: Price::plain(UsdPerHour::from_nanos(pick as i64 % 9_999)),
                });
                self.then(Event::InstanceNoticed { instance: id, gone_at: self.now });
            }
            17 if is_up => {
                if matches!(found.state, InstanceState::Ready { .. }) {
                    self.then(Event::InstanceDraining {
                        instance: id,
                        at: self.now,
                        why: DrainReason::Ceiling,
                    });
                } else {
                    self.then(Event::InstanceTerminating {
                        instance: id,
                        at: self.now,
                        why: DrainReason::Idle,
                    });
                }
            }
            18 if self.fleet.attempts_on(id).next().is_none() => {
                let end = match found.state {
                    InstanceState::Intended { .. } => {
                        InstanceEnd::Refused { message: "no \"capacity\"".to_owned() }
                    }
                    InstanceState::Terminating { why, .. } => InstanceEnd::Terminated { why },
                    InstanceState::Booting { .. }
                    | InstanceState::Ready { .. }
                    | InstanceState::Draining { .. } => InstanceEnd::Interrupted,
                    InstanceState::Gone { .. } => return,
                };
                self.then(Event::InstanceGone { instance: id, at: self.now, end });
            }
            _ => {
                let until = found.lease_until + Span::from_secs(60);
                let shares = found.shares.clone();
                self.then(Event::LeaseExtended { instance: id, until, funded_until: None, shares });
            }
        }
    }

    fn intend(&mut self, place: u8, payers: &[ExperimentId]) -> InstanceId {
        let id = self.ids.instance(self.now);
        let share = |payer: &ExperimentId| {
            let account = self.fleet.experiments[payer].account.clone();
            (*payer, Share { account, weight: 1000, held: Usd::from_dollars(1) })
        };
        let instance = Instance {
            id,
            offering: an_offering(place),
            state: InstanceState::Intended { at: self.now },
            cloud_id: None,
            disk_gib: 100,
            ceiling: UsdPerHour::from_nanos(3_060_000_001),
            price: Price::plain(UsdPerHour::from_nanos(918_000_007)),
            earlier_prices: Vec::new(),
            lease_until: self.now + Span::from_secs(600),
            drain_allowance: Span::from_secs(60),
            funded_until: None,
            shares: payers.iter().map(share).collect(),
            meter: Meter {
                from: None,
                through: self.now,
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
        self.then(Event::InstanceIntended { instance: Box::new(instance) });
        id
    }

    fn launch(&mut self, instance: InstanceId) {
        let cloud = CloudInstance {
            cloud_id: format!("i-{instance}").as_str().into(),
            instance,
            state: CloudState::Running,
            launched_at: self.now,
            running_at: None,
            stopping_at: None,
            notice: None,
        };
        self.then(Event::InstanceLaunched { cloud, at: self.now });
    }

    fn assign(&mut self, experiment: ExperimentId, instance: InstanceId) -> AttemptId {
        let id = self.ids.attempt(self.now);
        let attempt = Attempt {
            id,
            experiment,
            number: self.fleet.experiments[&experiment].attempts + 1,
            nodes: vec![Node::new(instance, vec![0])],
            amounts: ATTEMPT_AMOUNTS,
            assigned_at: self.now,
            state: AttemptState::Assigned,
            started_at: None,
            checkpoint_at: None,
            ran_with: None,
            idle_gpu: None,
        };
        let account = self.fleet.experiments[&experiment].account.clone();
        let mut shares = self.fleet.instances[&instance].shares.clone();
        shares.insert(experiment, Share { account, weight: 1000, held: Usd::from_dollars(2) });
        let paid = BTreeMap::from([(instance, Paid { shares, funded_until: None })]);
        self.then(Event::AttemptAssigned { attempt, paid });
        id
    }

    fn ids_of(&self, of: impl Fn(&Experiment) -> Option<ExperimentId>) -> Vec<ExperimentId> {
        self.fleet.experiments.values().filter_map(of).collect()
    }
}

const ATTEMPT_AMOUNTS: Amounts = Amounts { accelerators: 1, cpus_milli: 4000, memory_mib: 16_384 };

/// A number whose shortest decimal form is long, to find readers that are off in the last digit.
fn awkward(number: usize) -> f64 {
    format!("0.{number}7331985239840127").parse().expect("it is a decimal number")
}

fn a_spec(number: u8) -> ExperimentSpec {
    ExperimentSpec {
        project: "vision".into(),
        resources: Resources { cpus_milli: 4000, memory_mib: 16_384, ..Resources::default() },
        image: None,
        registry_auth: None,
        seed: None,
        source: None,
        workdir: Some(Workdir::Archive { digest: Digest::from_bytes([7; 32]), bytes: 4096 }),
        setup: Some("pip install -r requirements.txt".to_owned()),
        run: format!("python train.py --fold {number} --out \"$OUT\"\n"),
        envs: BTreeMap::from([("SEED".to_owned(), number.to_string())]),
        secrets: BTreeMap::new(),
        spot_policy: SpotPolicy::Auto,
        max_price: Some(UsdPerHour::from_nanos(4_000_000_000)),
        deadline: None,
        budget: None,
        priority: 0,
        retry: Retry { limit: 2 },
        max_duration: None,
        utilization_policy: None,
        checkpoint: CheckpointSpec::default(),
        data: DataSpec::default(),
        estimate: None,
        num_nodes: 1,
        labels: match number % 3 {
            0 => BTreeMap::new(),
            kind => BTreeMap::from([
                ("team".to_owned(), format!("{kind}")),
                ("goal".to_owned(), "a, b".to_owned()),
            ]),
        },
    }
}

fn an_offering(number: u8) -> Offering {
    let accelerators = bursar_model::Accelerators { name: "A100".into(), count: 4, memory_gib: Some(40) };
    Offering {
        provider: "aws".into(),
        region: format!("us-east-{number}").as_str().into(),
        zone: format!("us-east-{number}a").as_str().into(),
        instance_type: Arc::new(InstanceType {
            name: "p4d".into(),
            accelerators: Some(accelerators),
            cpus_milli: 96_000,
            memory_mib: 1_179_648,
            disk_gib: 1000,
        }),
        capacity_type: CapacityType::Spot,
        price: Some(UsdPerHour::from_nanos(918_000_007)),
        list_price: None,
        on_demand_price: Some(UsdPerHour::from_nanos(3_060_000_001)),
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    }
}
