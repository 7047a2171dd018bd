//! A world: one daemon, one cloud, its machines, and time that goes by when it is told to.

mod judge;

use std::{collections::BTreeSet, sync::Arc};

use bursar_config::Notifications;
use bursar_daemon::{
    effects::Surroundings,
    inbox::{
        Accepted, CancelTarget, CorrectError, Inbox, Message, NewExperiment, NewSweep, SubmitContent,
        SubmitRequest, inbox,
    },
    reconciler::{Parts, Reconciler, Snapshot},
    rules::{Pricing, Rules},
    secrets::InstallationKey,
    views::Views,
};
use bursar_model::{
    AshaRules, BudgetKey, BudgetTerms, Charge, Clock, ExperimentId, ExperimentSpec, InstanceId, InvariantId,
    Outcome, ProviderName, SetBy, Span, SweepId, Timestamp, Usd, UserName, Violation,
};
use bursar_policies::Settings;
use bursar_providers::faulty::FaultyProvider;
use bursar_store::{Durability, OpenOptions, Reader, SqliteStore, StoreError};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    chance::Chance,
    clock::{MachineClock, SimClock},
    cloud::{SimCloud, Troubles},
    ground::Ground,
    job::{Job, spec_id},
    life::{Boundary, End, Life, Lives, Side, UnderWay},
    market::{SimOffering, small_market},
    post::SimPost,
    witness::Witness,
};

/// The cloud is held against what was committed at least so often, whatever the daemon does.
const COMPARE_EVERY: Span = Span::from_secs(30);

/// While something starts or ends the cloud is asked at least so often.
const BUSY_MOST: Span = Span::from_secs(60);

/// The name of the daemon's installation: the tag on its machines.
pub const INSTALLATION: &str = "sim";

/// Pages of the journal that are read; a world writes far fewer events.
const JOURNAL_PAGES_MAX: usize = 10_000;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// When it begins.
    pub epoch: Timestamp,
    /// What the cloud sells.
    pub market: Vec<SimOffering>,
    /// How the daemon plans.
    pub settings: Settings,
    /// How long an agent may wait between two requests.
    pub heartbeat: Span,
    /// The configured budgets.
    pub budgets: Vec<(BudgetKey, Option<Arc<BudgetTerms>>)>,
    /// How each provider bills, and what comes on top of its prices.
    pub pricing: Pricing,
    /// What goes wrong with machines of itself, and how many may be had.
    pub troubles: Troubles,
    /// How often the cloud is asked what exists and what it costs.
    pub observe_interval: Span,
    /// Who is told what.
    pub notifications: Notifications,
    /// Whether each plan is judged by the plan checker.
    pub judges_plans: bool,
    /// Nothing in the world is left to chance: each length of time is the middle of what it may be.
    pub is_calm: bool,
    /// When the store and the cloud are held against what was committed.
    pub checks: Checks,
}

/// When the store and the cloud are held against what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// After every commit: what is wrong is found where it happened.
    EveryCommit,
    /// So often: most of the time goes into what is simulated.
    Every(Span),
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            epoch: Timestamp::from_millis(1_790_000_000_000),
            market: small_market(&"cloud".into()),
            settings: Settings { silence_timeout: Span::from_secs(600), ..Settings::default() },
            heartbeat: Span::from_secs(30),
            budgets: Vec::new(),
            pricing: Pricing::default(),
            troubles: Troubles::default(),
            notifications: Notifications::default(),
            judges_plans: true,
            is_calm: false,
            checks: Checks::EveryCommit,
            observe_interval: Span::from_secs(30),
        }
    }
}

/// A daemon with its surroundings on virtual time.
#[derive(Debug)]
pub struct World {
    // Dropped first, and with it all tasks that hold what is below.
    runtime: Runtime,
    daemon: Option<Daemon>,
    lives: Lives,
    seed: u64,
    scenario: Scenario,
    clock: SimClock,
    ground: Ground,
    cloud: SimCloud,
    /// The ways to the providers, each with the script of what goes wrong on it.
    ways: Vec<Arc<FaultyProvider>>,
    witness: Witness,
    post: SimPost,
    folder: TempDir,
    crashes: u64,
}

#[derive(Debug)]
struct Daemon {
    life: Life,
    inbox: Inbox,
    snapshot: watch::Receiver<Snapshot>,
    task: JoinHandle<()>,
    /// How many faults of its own it had told of when somebody last looked.
    confessed: usize,
    // The loop ends when nobody could stop it any more.
    _stop: watch::Sender<bool>,
}

impl World {
    /// A world with its daemon running.
    ///
    /// # Panics
    /// When there is no room for a runtime and a temporary file.
    #[must_use]
    pub fn new(seed: u64, scenario: Scenario) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without IO needs nothing that could fail");
        let entered = runtime.enter();
        let clock = SimClock::starting_at(scenario.epoch);
        drop(entered);
        let chance = if scenario.is_calm { Chance::calm() } else { Chance::new(seed) };
        let ground = Ground::new(&chance);
        let cloud = runtime.block_on(async {
            let Scenario { market, pricing, troubles, .. } = scenario.clone();
            SimCloud::new(pricing, market, troubles, clock, ground.clone(), &chance)
        });
        let names: BTreeSet<ProviderName> =
            scenario.market.iter().map(|sells| sells.offering.provider.clone()).collect();
        let way = |name| Arc::new(FaultyProvider::new(Arc::new(cloud.provider(&name, INSTALLATION))));
        let mut world = Self {
            daemon: None,
            crashes: 0,
            lives: Lives::default(),
            seed,
            witness: Witness::new(cloud.clone(), ground.clone(), clock, scenario.checks),
            ways: names.into_iter().map(way).collect(),
            post: SimPost::new(&chance),
            clock,
            ground,
            cloud,
            scenario,
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            runtime,
        };
        world.restart();
        world
    }

    /// The time in it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let _entered = self.runtime.enter();
        self.clock.now()
    }

    /// What it is made of.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Its cloud. Changes that run tasks are made between two stretches of time.
    pub fn with_cloud<T>(&self, change: impl FnOnce(&SimCloud) -> T) -> T {
        let _entered = self.runtime.enter();
        change(&self.cloud)
    }

    /// The script of what goes wrong with calls to the first provider.
    #[must_use]
    pub fn faults(&self) -> &FaultyProvider {
        &self.ways[0]
    }

    /// The same for each provider, by name.
    #[must_use]
    pub fn ways(&self) -> &[Arc<FaultyProvider>] {
        &self.ways
    }

    /// Those who are told.
    #[must_use]
    pub fn post(&self) -> &SimPost {
        &self.post
    }

    /// Whether the daemon runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.daemon.is_some()
    }

    /// How many commits there were.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.witness.commits()
    }

    /// How often the daemon died, was deposed or could not start.
    #[must_use]
    pub fn crashes(&self) -> u64 {
        self.crashes
    }

    /// The boundaries that the daemon has come to so far, over all its lives.
    #[must_use]
    pub fn boundaries(&self) -> Vec<Boundary> {
        self.lives.boundaries()
    }

    /// How often the daemon's task was woken so far, over all its lives.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.lives.polls()
    }

    /// Starts the daemon on the store as it is, where it does not run. Every life has its own ids, as in production.
    pub fn restart(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        let life = self.lives.begin();
        let options = OpenOptions { durability: Durability::Process };
        let store = SqliteStore::open(&self.folder.path().join("bursar.db"), options)
            .expect("the last life's lock ended with it");
        let (inbox, messages) = inbox();
        let providers = self.ways.iter().map(|way| life.reach(way.clone()));
        let parts = Parts {
            store: self.witness.watch(store, life.clone()),
            providers: providers.collect(),
            clock: Arc::new(MachineClock { true_time: self.clock, ground: self.ground.clone() }),
            seed: Chance::new(self.seed).child(life.number()).below(u64::MAX),
            surroundings: Surroundings {
                agents: Arc::default(),
                installation: INSTALLATION.to_owned(),
                daemon_url: "http://daemon".to_owned(),
                key: InstallationKey::from_bytes([7; 32]),
            },
            rules: self.rules(),
            courier: Arc::new(self.post.clone()),
            judge_plans: self.scenario.judges_plans,
        };
        let started = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = life.over() => None,
                started = Reconciler::start(parts, inbox.clone()) => Some(started),
            }
        });
        // It may die, or find the disk full or another leader, while it starts.
        let (reconciler, snapshot) = match started {
            Some(Ok(started)) => started,
            Some(Err(StoreError::Full | StoreError::Deposed { .. })) | None => {
                self.crashes += 1;
                return;
            }
            Some(Err(error)) => {
                self.ground.report(InvariantId::S1, format!("the daemon cannot start: {error}"));
                return;
            }
        };
        let (stop, stopped) = watch::channel(false);
        let task = self.runtime.spawn(life.clone().live(reconciler.run(messages, stopped)));
        self.ground.connect(Some(inbox.clone()));
        self.daemon = Some(Daemon { life, inbox, snapshot, task, confessed: 0, _stop: stop });
    }

    /// What the configuration file says now.
    fn rules(&self) -> Rules {
        let Scenario { settings, heartbeat, observe_interval, budgets, pricing, notifications, .. } =
            self.scenario.clone();
        Rules {
            settings,
            heartbeat,
            orphan_grace: Span::from_secs(60),
            observe_interval,
            observe_interval_busy: observe_interval.divided_by(6).min(BUSY_MOST),
            budgets,
            pricing,
            notifications,
            storage: None,
        }
    }

    /// Changes the configuration, which the next life starts with.
    pub fn configure(&mut self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.scenario);
    }

    /// Changes the configuration and has the daemon go by it. False when it is down, dies or does not store it: its next
    /// life goes by it.
    pub fn reload(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        self.configure(change);
        let rules = Box::new(self.rules());
        matches!(self.ask(|reply| Message::Reload { rules, reply }), Some(Ok(_)))
    }

    /// Kills the daemon. Cloud and machines go on.
    pub fn crash(&mut self) {
        self.hear_confessions();
        let Some(Daemon { life, task, .. }) = self.daemon.take() else { return };
        self.crashes += 1;
        self.ground.connect(None);
        life.end();
        task.abort();
        // It ends as cancelled, and the store's lock with it.
        let ended = self.runtime.block_on(task);
        if let Err(error) = ended.as_ref()
            && error.is_panic()
        {
            self.ground.report(InvariantId::S2, format!("the daemon panicked: {error}"));
        }
    }

    /// Kills the daemon at the boundary of this number, counted from 1 over all its lives.
    pub fn crash_at(&self, boundary: u64, side: Side) {
        self.lives.end_at(End::Boundary(boundary, side));
    }

    /// Kills the daemon at the next boundary of a kind, after so many others of that kind.
    pub fn crash_at_next(&self, boundary: Boundary, after: u32, side: Side) {
        self.lives.end_at_next(boundary, after, side);
    }

    /// Kills the daemon when its task is woken for this time, counted from 1 over all its lives.
    pub fn crash_at_poll(&self, number: u64) {
        self.lives.end_at(End::Poll(number));
    }

    /// What becomes of requests that are under way when the daemon dies, from now on.
    pub fn set_under_way(&self, under_way: UnderWay) {
        self.lives.set_under_way(under_way);
    }

    /// The next so many commits find the disk full.
    pub fn refuse_commits(&self, count: u32) {
        self.witness.refuse_commits(count);
    }

    /// Nothing passes between a machine and the daemon for so long.
    pub fn cut_off(&self, instance: InstanceId, span: Span) {
        self.ground.cut_off(instance, self.now() + span);
    }

    /// From now on so many of a thousand messages of machines arrive twice, and as many late.
    pub fn set_noise(&self, per_mille: u32) {
        self.ground.set_noise(per_mille);
    }

    /// Another daemon takes the store over: this one's next commit is refused for good.
    pub fn depose(&self) {
        self.witness.depose();
    }

    /// Sets the clock of the daemon's machine ahead by so much. The cloud and its machines go on by the true time.
    pub fn set_clock_ahead(&self, by: Span) {
        self.ground.step_clock(by.as_millis());
    }

    /// Sets the clock of the daemon's machine back by so much.
    pub fn set_clock_back(&self, by: Span) {
        self.ground.step_clock(-by.as_millis());
    }

    /// Lets time go by. False when the daemon died meanwhile: at a commit, then it is that moment, or of itself.
    pub fn run_for(&mut self, span: Span) -> bool {
        let until = self.now() + span;
        let compare_every = match self.scenario.checks {
            Checks::EveryCommit => COMPARE_EVERY,
            Checks::Every(span) => span.max(COMPARE_EVERY),
        };
        let (clock, witness) = (self.clock, self.witness.clone());
        let life = self.daemon.as_ref().map(|daemon| daemon.life.clone());
        let task = self.daemon.as_ref().map(|daemon| daemon.task.abort_handle());
        let died = self.runtime.block_on(async {
            while clock.now() < until {
                let next = (clock.now() + compare_every).min(until);
                tokio::select! {
                    biased;
                    () = over(life.as_ref()) => return true,
                    () = tokio::time::sleep_until(clock.instant(next)) => {}
                }
                witness.compare_with_cloud();
                if task.as_ref().is_some_and(AbortHandle::is_finished) {
                    return true;
                }
            }
            false
        });
        self.hear_confessions();
        if died {
            self.crash();
            return false;
        }
        true
    }

    fn hear_confessions(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let violations = daemon.snapshot.borrow().violations.clone();
        let excused = self.witness.has_outlived();
        let judged = |violation: &&Violation| violation.invariant != InvariantId::B1 || !excused;
        for violation in violations.iter().skip(daemon.confessed).filter(judged) {
            self.ground.report(violation.invariant, format!("by the daemon itself: {}", violation.detail));
        }
        daemon.confessed = violations.len();
    }

    /// Submits an experiment by a key. `None` when the daemon is down, dies or does not store it: submit again then.
    pub fn submit(&mut self, name: &str, spec: ExperimentSpec) -> Option<ExperimentId> {
        let spec_id = spec_id(&spec);
        let new = NewExperiment { name: name.into(), spec_id, spec: Arc::new(spec), expected: None };
        let accepted = self.send(name, SubmitContent::Experiments(vec![new]))?;
        accepted.experiments.first().copied()
    }

    /// Submits experiments at once by a key. `None` as [`Self::submit`].
    pub fn submit_all(
        &mut self,
        key: &str,
        specs: Vec<(Arc<str>, ExperimentSpec)>,
    ) -> Option<Vec<ExperimentId>> {
        let new = specs.into_iter().map(|(name, spec)| {
            let spec_id = spec_id(&spec);
            NewExperiment { name, spec_id, spec: Arc::new(spec), expected: None }
        });
        Some(self.send(key, SubmitContent::Experiments(new.collect()))?.experiments)
    }

    /// Submits a sweep of this spec by a key, one trial for each job.
    pub fn submit_sweep(
        &mut self,
        name: &str,
        spec: ExperimentSpec,
        jobs: &[Job],
        budget: Option<Usd>,
        max_parallel: Option<u32>,
        asha: Option<AshaRules>,
    ) -> Option<Accepted> {
        let spec_id = spec_id(&spec);
        let trials = jobs.iter().map(|job| job.params()).collect();
        let sweep = NewSweep {
            name: name.into(),
            spec_id,
            spec: Arc::new(spec),
            trials,
            budget: budget.map(|limit| Arc::new(BudgetTerms::of(limit))),
            max_parallel,
            asha,
            expected: None,
        };
        self.send(name, SubmitContent::Sweep(sweep))
    }

    /// Changes the terms of a budget. False when the daemon is down, dies or does not store it.
    pub fn set_budget(&mut self, key: BudgetKey, terms: Option<Arc<BudgetTerms>>) -> bool {
        let by = SetBy::Person { user: UserName::new("someone") };
        let set = self.ask(|reply| Message::SetBudget { key, terms, by, reply });
        matches!(set, Some(Ok(_)))
    }

    /// Cancels an experiment. False when the daemon is down.
    pub fn cancel(&mut self, experiment: ExperimentId) -> bool {
        self.cancel_target(CancelTarget::Experiment(experiment))
    }

    /// Cancels all open trials of a sweep. False when the daemon is down.
    pub fn cancel_sweep(&mut self, sweep: SweepId) -> bool {
        self.cancel_target(CancelTarget::Sweep(sweep))
    }

    fn cancel_target(&mut self, target: CancelTarget) -> bool {
        self.ask(|reply| Message::Cancel { target, reply }).is_some()
    }

    /// Mends what was charged by what a cloud billed. `None` when the daemon is down.
    pub fn correct(&mut self, charges: Vec<Charge>) -> Option<Result<(), CorrectError>> {
        let as_of = self.daemon.as_ref()?.snapshot.borrow().corrections;
        self.ask(|reply| Message::CorrectByBill { charges, as_of, reply })
    }

    /// What people are shown now.
    #[must_use]
    pub fn views(&self) -> Views {
        let waiting = self.daemon.as_ref().map(|daemon| daemon.snapshot.borrow().waiting.clone());
        Views::new(self.reader(), waiting.unwrap_or_default(), self.now())
    }

    fn send(&mut self, key: &str, content: SubmitContent) -> Option<Accepted> {
        let mut digest = [0; 32];
        digest.iter_mut().zip(key.bytes()).for_each(|(to, from)| *to = from);
        let request =
            SubmitRequest { key: Some((key.to_owned(), digest)), user: UserName::new("someone"), content };
        let accepted = self.ask(|reply| Message::Submit { request: Box::new(request), reply })?.ok()?;
        let reader = self.reader();
        for experiment in &accepted.experiments {
            if matches!(reader.experiment(*experiment), Ok(None)) {
                self.ground.report(InvariantId::E2, format!("{experiment} was accepted and is not stored"));
            }
        }
        Some(accepted)
    }

    fn ask<T>(&mut self, message: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Message) -> Option<T> {
        let Daemon { inbox, life, .. } = self.daemon.as_ref()?;
        let (inbox, life) = (inbox.clone(), life.clone());
        let answered = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = life.over() => None,
                answer = inbox.ask(message) => Some(answer.ok()),
            }
        });
        if answered.is_none() {
            self.crash();
        }
        answered.flatten()
    }

    /// How an experiment ended, if it has.
    #[must_use]
    pub fn outcome(&self, experiment: ExperimentId) -> Option<Outcome> {
        match self.reader().experiment(experiment).ok()??.experiment.state {
            bursar_model::ExperimentState::Ended { outcome, .. } => Some(outcome),
            bursar_model::ExperimentState::Queued | bursar_model::ExperimentState::Running { .. } => None,
        }
    }

    /// How often the work of an experiment came to its end on some machine.
    #[must_use]
    pub fn finished(&self, experiment: ExperimentId) -> u32 {
        self.ground.finished(experiment)
    }

    /// What was found wrong so far. Empty when all is well.
    #[must_use]
    pub fn findings(&self) -> Vec<Violation> {
        self.ground.findings()
    }

    /// The journal as text, one event a line: the same for the same seed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn journal(&self) -> Result<String, StoreError> {
        let reader = self.reader();
        let mut text = String::new();
        let mut after = 0;
        for _ in 0..JOURNAL_PAGES_MAX {
            let page = reader.events(after, 1000)?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for entry in &page {
                let event = serde_json::to_string(&entry.event).expect("events are JSON in the store too");
                text.push_str(&format!("{} {} {event}\n", entry.seq, entry.at));
            }
        }
        Ok(text)
    }

    /// Answers questions about everything that was committed.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::open(&self.folder.path().join("bursar.db")).expect("the store was made at the start")
    }

    /// The state as committed.
    #[must_use]
    pub fn fleet(&self) -> bursar_model::Fleet {
        self.witness.fleet()
    }
}

/// Waits for the end of a life; for ever, where there is none.
async fn over(life: Option<&Life>) {
    match life {
        Some(life) => life.over().await,
        None => std::future::pending().await,
    }
}
