//! Everything at once: work comes in, and whatever can go wrong does, by seed.
//!
//! There are two kinds of runs. In a *liveness* run the faults stop, and from then on all must end well: every
//! experiment over or waiting for money, no machine running, nothing left to plan, and the cloud's bill in the books. In
//! a *safety* run the faults never stop; nothing need ever get done, but no invariant may break meanwhile.

mod faults;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use bursar_daemon::rules::Pricing;
use bursar_model::{
    BillingRules, BudgetKey, BudgetTerms, OnExhausted, ProviderName, Schedule, Scope, Span, Terms, Timestamp,
    Usd, UsdPerHour, UserName, Violation,
};

use self::{faults::FaultKind, work::Work};
use crate::{
    chance::Chance,
    cloud::Troubles,
    market::small_market,
    world::{Scenario, World},
};

/// How long faults go on in a liveness run. Long enough for leases, interruptions and outages to meet.
const FAULTS_FOR: Span = Span::from_hours(3);

/// How long a safety run is: work comes in all the time.
const SAFETY_RUN: Span = Span::from_hours(9);

/// One world in so many is a safety run.
const SAFETY_EVERY: u64 = 5;

/// After the faults everything is over by then: the longest work, a few interruptions, the longest back-off.
const SETTLES_WITHIN: Span = Span::from_hours(48);

/// What a run is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChaosKind {
    /// Whatever goes on going wrong, no invariant breaks.
    Safety,
    /// When things stop going wrong, everything ends well.
    Liveness,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct ChaosReport {
    /// The seed that repeats it.
    pub seed: u64,
    /// What it was to show.
    pub kind: ChaosKind,
    /// Turns that were committed, in all lives of the daemon.
    pub commits: u64,
    /// How often the daemon died.
    pub crashes: u64,
    /// How many faults there were of each kind, by name.
    pub faults: BTreeMap<&'static str, u64>,
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
    let kind = if seed % SAFETY_EVERY == SAFETY_EVERY - 1 { ChaosKind::Safety } else { ChaosKind::Liveness };
    let scenario = some_scenario(&mut chance);
    let clock_steps = chance.per_mille(250);
    let mut run = Run {
        world: World::new(seed, scenario),
        work: Work::new(kind, chance.child(1)),
        chance,
        faults: BTreeMap::new(),
        restart_at: None,
        clock_steps,
        clock_ahead: 0,
    };
    let began = run.world.now();
    let lasts = if kind == ChaosKind::Safety { SAFETY_RUN } else { FAULTS_FOR };
    while run.world.now() < began + lasts && run.world.findings().is_empty() {
        run.step();
    }
    if kind == ChaosKind::Liveness && run.world.findings().is_empty() {
        run.end_the_faults();
        run.world.settle(SETTLES_WITHIN);
    }
    let Run { world, faults, work, .. } = run;
    work.judge(&world);
    world.judge();
    ChaosReport {
        seed,
        kind,
        commits: world.commits(),
        crashes: world.crashes(),
        faults,
        machines: world.with_cloud(|cloud| cloud.launched().len()),
        virtual_time: world.now().since(began),
        findings: world.findings(),
        journal: world.journal().unwrap_or_default(),
    }
}

/// A world that has not gone wrong yet: of one or two providers, that bill in one way or another, with or without
/// budgets and quotas.
fn some_scenario(chance: &mut Chance) -> Scenario {
    // Half of the worlds have less money than work.
    let cap = chance.per_mille(500).then(|| some_terms(chance, Usd::from_dollars(2)));
    let mut budgets = vec![(BudgetKey::Installation, cap)];
    for key in [BudgetKey::Project("p".into()), BudgetKey::User(UserName::new("someone"))] {
        let cap = chance.per_mille(200).then(|| some_terms(chance, Usd::from_dollars(3)));
        budgets.push((key, cap));
    }
    let mut names: Vec<ProviderName> = vec!["cloud".into()];
    if chance.per_mille(300) {
        names.push("other".into());
    }
    // Half of the clouds bill as AWS does, with disks and addresses, and the installation adds something.
    let terms = |chance: &mut Chance| if chance.per_mille(500) { as_aws() } else { Terms::default() };
    let pricing = Pricing {
        terms: names.iter().map(|name| (name.clone(), terms(chance))).collect(),
        ..Pricing::default()
    };
    let quota = |name: &ProviderName, most| {
        let everything = Scope {
            provider: name.clone(),
            region: None,
            zone: None,
            instance_type: None,
            capacity_type: None,
        };
        (everything, most)
    };
    let quotas = names.iter().filter(|_| chance.per_mille(300)).map(|name| quota(name, 6));
    Scenario {
        market: names.iter().flat_map(small_market).collect(),
        budgets,
        pricing,
        troubles: Troubles {
            quotas: quotas.collect(),
            // The second of two launches many at once.
            together: names.get(1).cloned().into_iter().collect(),
            ..Troubles::default()
        },
        ..Scenario::default()
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
        ..Terms::default()
    }
}

#[derive(Debug)]
struct Run {
    world: World,
    work: Work,
    chance: Chance,
    faults: BTreeMap<&'static str, u64>,
    restart_at: Option<Timestamp>,
    /// Whether the clock of the daemon's machine steps in this world.
    clock_steps: bool,
    /// By how many milliseconds it is ahead of the true time.
    clock_ahead: i64,
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
        if self.chance.per_mille(220) {
            self.work.submit(&mut self.world);
            return;
        }
        let kind = FaultKind::some(&mut self.chance, self.clock_steps);
        if self.inflict(kind) {
            *self.faults.entry(kind.name()).or_default() += 1;
        }
    }

    fn died(&mut self) {
        // Now and then it stays away for longer than a lease.
        let most = if self.chance.per_mille(200) { 5400 } else { 300 };
        self.restart_at = Some(self.later(Span::from_secs(most)));
    }
}
