//! Everything at once: work comes in, and whatever can go wrong does, by seed. Then the faults stop, and all must end
//! well.

use std::sync::Arc;

use bursar_model::{
    AshaMode, AshaRules, BillingRules, BudgetKey, BudgetTerms, ExperimentId, InstanceId, OnExhausted,
    Schedule, Scope, Span, SpotPolicy, Terms, Timestamp, Usd, UsdPerHour, UserName, Violation,
};
use bursar_providers::{
    ErrorKind,
    faulty::{Call, Fault},
};

use crate::{
    chance::Chance,
    job::Job,
    witness::Side,
    world::{Scenario, World},
};

/// How long faults go on. Long enough for leases, interruptions and outages to meet.
const FAULTS_FOR: Span = Span::from_hours(3);

/// After the faults everything is over by then: the longest work, a few interruptions, the longest back-off.
const SETTLES_WITHIN: Span = Span::from_hours(48);

/// More work than this is not submitted: the market has room for about a dozen at once.
const EXPERIMENTS_MAX: usize = 12;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct ChaosReport {
    /// The seed that repeats it.
    pub seed: u64,
    /// Commits of all lives.
    pub commits: u64,
    /// How often the daemon was killed.
    pub crashes: u32,
    /// How many faults were sent.
    pub faults: u32,
    /// Machines that were launched.
    pub machines: usize,
    /// From the first moment to the last.
    pub virtual_time: Span,
    /// What was wrong. Empty when all is well.
    pub findings: Vec<Violation>,
    /// All that happened.
    pub journal: String,
}

/// Runs one seed.
#[must_use]
pub fn chaos(seed: u64) -> ChaosReport {
    let mut chance = Chance::new(seed).child(1);
    // Half of the worlds have less money than work.
    let cap = chance.per_mille(500).then(|| some_terms(&mut chance, Usd::from_dollars(2)));
    let mut budgets = vec![(BudgetKey::Installation, cap)];
    for key in [BudgetKey::Project("p".into()), BudgetKey::User(UserName::new("someone"))] {
        let cap = chance.per_mille(200).then(|| some_terms(&mut chance, Usd::from_dollars(3)));
        budgets.push((key, cap));
    }
    // Half of the clouds bill as AWS does, with disks and addresses, and the installation adds something.
    let terms = if chance.per_mille(500) { as_aws() } else { Terms::default() };
    let scenario = Scenario { budgets, terms, ..Scenario::default() };
    let mut run = Run {
        world: World::new(seed, scenario),
        chance,
        submitted: Vec::new(),
        next_name: 0,
        crashes: 0,
        faults: 0,
        restart_at: None,
    };
    let began = run.world.now();
    while run.world.now() < began + FAULTS_FOR && run.world.findings().is_empty() {
        run.step();
    }
    if run.world.findings().is_empty() {
        run.lift_windows();
        run.world.settle(SETTLES_WITHIN);
    }
    let world = &run.world;
    ChaosReport {
        seed,
        commits: world.commits(),
        crashes: run.crashes,
        faults: run.faults,
        machines: world.with_cloud(|cloud| cloud.launched().len()),
        virtual_time: world.now().since(began),
        findings: world.findings(),
        journal: world.journal().unwrap_or_default(),
    }
}

/// A cap of `least` dollars and up: over everything or with windows, and with each way to end work.
fn some_terms(chance: &mut Chance, least: Usd) -> Arc<BudgetTerms> {
    let ends = [OnExhausted::CheckpointAndStop, OnExhausted::Stop, OnExhausted::FinishRunning];
    let windows = [None, None, Some("hour"), Some("15 */2 * * *"), Some("day")];
    let schedule = chance.pick(&windows).copied().flatten();
    let limit = least + Usd::from_dollars(chance.below(12) as i64);
    Arc::new(BudgetTerms {
        schedule: schedule.map(|text| Schedule::parse(text, None).expect("it is a schedule")),
        on_exhausted: chance.pick(&ends).copied().unwrap_or_default(),
        ..BudgetTerms::of(limit)
    })
}

fn as_aws() -> Terms {
    Terms {
        billing: BillingRules::PER_SECOND,
        disk_gib: UsdPerHour::from_nanos(109_590),
        address: UsdPerHour::from_nanos(5_000_000),
        overhead: UsdPerHour::from_nanos(10_000_000),
    }
}

#[derive(Debug)]
struct Run {
    world: World,
    chance: Chance,
    submitted: Vec<ExperimentId>,
    next_name: usize,
    crashes: u32,
    faults: u32,
    restart_at: Option<Timestamp>,
}

impl Run {
    fn step(&mut self) {
        let pause = self.chance.span(Span::from_millis(1), Span::from_secs(240));
        if !self.world.run_for(pause) {
            self.died();
        }
        if self.world.is_up() || self.restart_at.is_none_or(|at| at <= self.world.now()) {
            self.world.restart();
            self.restart_at = None;
        }
        match self.chance.below(18) {
            0..=3 => return self.submit(),
            4 => {
                self.world.crash();
                self.died();
            }
            5 => {
                let side = if self.chance.per_mille(500) { Side::Before } else { Side::After };
                let commit = self.world.commits() + 1 + self.chance.below(20);
                self.world.crash_at_commit(commit, side);
            }
            6..=9 => self.call_fault(),
            10 => {
                let until = self.later(Span::from_secs(2400));
                self.world.with_cloud(|cloud| cloud.go_down(until));
            }
            11 => {
                let until = self.later(Span::from_secs(1800));
                let market = Scenario::default().market;
                if let Some(of) = self.chance.pick(&market) {
                    let scope = Scope::of(&of.offering.key());
                    self.world.with_cloud(|cloud| cloud.sell_out(&scope, until));
                }
            }
            12 => {
                let notice = [None, Some(Span::from_secs(30)), Some(Span::from_secs(120))];
                let notice = self.chance.pick(&notice).copied().flatten();
                if let Some(instance) = self.some_machine() {
                    self.world.with_cloud(|cloud| cloud.interrupt(instance, notice));
                }
            }
            13 => {
                let span = self.chance.span(Span::from_secs(5), Span::from_secs(1500));
                if let Some(instance) = self.some_machine() {
                    self.world.cut_off(instance, span);
                }
            }
            14 => self.world.refuse_commits(1 + self.chance.below(3) as u32),
            15 | 16 => {
                let keys = [
                    BudgetKey::Installation,
                    BudgetKey::Project("p".into()),
                    BudgetKey::User(UserName::new("someone")),
                ];
                let key = self.chance.pick(&keys).cloned().unwrap_or(BudgetKey::Installation);
                let terms =
                    self.chance.per_mille(800).then(|| some_terms(&mut self.chance, Usd::from_dollars(1)));
                let _ = self.world.set_budget(key, terms);
            }
            _ => {
                if let Some(experiment) = self.chance.pick(&self.submitted).copied() {
                    self.world.cancel(experiment);
                }
            }
        }
        self.faults += 1;
    }

    /// Somebody looks after the faults and lifts what would begin anew for ever.
    fn lift_windows(&mut self) {
        for key in [
            BudgetKey::Installation,
            BudgetKey::Project("p".into()),
            BudgetKey::User(UserName::new("someone")),
        ] {
            // It may die once more over it, by what was set up before.
            for _ in 0..10 {
                self.world.restart();
                if self.world.set_budget(key.clone(), None) {
                    break;
                }
                let _ = self.world.run_for(Span::from_secs(60));
            }
        }
    }

    fn died(&mut self) {
        self.crashes += 1;
        // Now and then it stays away for longer than a lease.
        let most = if self.chance.per_mille(200) { 5400 } else { 300 };
        self.restart_at = Some(self.later(Span::from_secs(most)));
    }

    fn submit(&mut self) {
        if self.next_name >= EXPERIMENTS_MAX {
            return;
        }
        if self.chance.per_mille(150) {
            return self.submit_sweep();
        }
        let duration = self.chance.span(Span::from_secs(60), Span::from_secs(9000));
        let mut job = Job::lasting(duration);
        job.exit_code = i32::from(self.chance.per_mille(100));
        let mut spec = job.spec();
        let policies = [SpotPolicy::Auto, SpotPolicy::Spot, SpotPolicy::OnDemand];
        spec.spot_policy = self.chance.pick(&policies).copied().unwrap_or_default();
        spec.budget = self.chance.per_mille(200).then(|| Arc::new(BudgetTerms::of(Usd::from_dollars(1))));
        spec.max_duration = self.chance.per_mille(100).then_some(Span::from_secs(3600));
        spec.priority = self.chance.below(3) as i32;
        // Submitted again under the same key where the daemon died over it.
        if let Some(experiment) = self.world.submit(&format!("e{}", self.next_name), spec) {
            self.submitted.push(experiment);
            self.next_name += 1;
        }
    }

    /// A sweep whose trials are halved, some of which fail.
    fn submit_sweep(&mut self) {
        let trials = 2 + self.chance.below(5);
        let jobs: Vec<Job> = (0..trials)
            .map(|_| {
                let mut job = Job::lasting(Span::from_secs(3600));
                job.loss = Some(self.chance.below(100) as i32);
                job.exit_code = i32::from(self.chance.per_mille(100));
                job
            })
            .collect();
        let asha = AshaRules {
            metric: "loss".to_owned(),
            mode: AshaMode::Min,
            resource: "step".to_owned(),
            eta: 2 + self.chance.below(2) as u32,
            min: 4 + self.chance.below(8),
            max: 50,
        };
        let budget = self.chance.per_mille(400).then(|| Usd::from_dollars(1 + self.chance.below(3) as i64));
        let max_parallel = self.chance.per_mille(400).then_some(2);
        let (name, spec) = (format!("s{}", self.next_name), jobs[0].spec());
        if let Some(sweep) = self.world.submit_sweep(&name, spec, &jobs, budget, max_parallel, Some(asha)) {
            self.submitted.extend(sweep.experiments);
            self.next_name += 1;
        }
    }

    fn call_fault(&mut self) {
        let call = [Call::Launch, Call::Launch, Call::Terminate, Call::List, Call::Offerings];
        let call = self.chance.pick(&call).copied().unwrap_or(Call::Launch);
        let delay = self.chance.span(Span::from_millis(1), Span::from_secs(20));
        let retry_after = Some(Span::from_secs(10));
        let mut faults = vec![
            Fault::Refuse(ErrorKind::Throttled { retry_after }),
            Fault::Refuse(ErrorKind::Unavailable),
            Fault::Refuse(ErrorKind::Auth),
            Fault::LoseRequest,
            Fault::LoseReply,
            Fault::Delay(delay),
        ];
        if matches!(call, Call::List | Call::Offerings) {
            faults.push(Fault::Stale);
        }
        for _ in 0..=self.chance.below(4) {
            if let Some(fault) = self.chance.pick(&faults).cloned() {
                self.world.faults().inject(call, fault);
            }
        }
    }

    fn some_machine(&mut self) -> Option<InstanceId> {
        let running = self.world.with_cloud(|cloud| cloud.running());
        self.chance.pick(&running).copied()
    }

    fn later(&mut self, most: Span) -> Timestamp {
        self.world.now() + self.chance.span(Span::from_secs(1), most)
    }
}
