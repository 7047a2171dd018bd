//! The daemon dies at each boundary of a story in turn, and the story comes to the same end.
//!
//! A boundary is a commit or a call to the cloud. At each the daemon dies before and after it, and while the request is
//! under way; what else is under way by then is lost in one run and arrives in another. It also dies at each moment at
//! which its task is woken, and twice in a row. It is started again at once, so that the next life meets all that the
//! last one left.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{
    BudgetTerms, ExperimentId, ExperimentSpec, Outcome, Scope, Span, SpotPolicy, StopReason, Usd,
};
use bursar_policies::Settings;
use bursar_providers::faulty::{Call, Fault};
use bursar_sim::{Boundary, Job, Scenario, Side, UnderWay, World};
use bursar_store::ExperimentFilter;

const MINUTE: Span = Span::from_secs(60);

/// Every so many boundaries, the daemon dies at one and again at the next.
const PAIR_EVERY: u64 = 3;

/// It dies at one of so many polls: between two boundaries all of them are alike.
const POLL_EVERY: usize = 7;

/// A daemon that dies twice needs three tries for whatever it is asked.
const TRIES_MAX: u32 = 5;

/// What happens in a world, told so that it does not matter when the daemon dies.
#[derive(Clone, Copy)]
struct Story {
    told_by: fn(&mut Teller),
    /// What must be true at the end beside that all ended as without a crash.
    ends_well: fn(&Teller),
}

struct Teller {
    world: World,
    experiments: Vec<ExperimentId>,
    /// What there was to die at until all was over.
    boundaries: Vec<Boundary>,
    polls: u64,
}

/// How often, and where, the daemon dies.
#[derive(Debug, Clone, Copy)]
enum Deaths {
    None,
    At(u64, Side),
    AtBoth((u64, Side), (u64, Side)),
    AtPoll(u64),
}

impl Teller {
    /// Asks the daemon for something, again if it dies over it.
    fn insist<T>(&mut self, mut ask: impl FnMut(&mut World) -> Option<T>) -> T {
        for _ in 0..TRIES_MAX {
            self.world.restart();
            if let Some(answer) = ask(&mut self.world) {
                return answer;
            }
        }
        panic!("{TRIES_MAX} times in vain; found {:?}", self.world.findings());
    }

    fn submit(&mut self, name: &str, spec: &ExperimentSpec) -> ExperimentId {
        let experiment = self.insist(|world| world.submit(name, spec.clone()));
        self.experiments.push(experiment);
        experiment
    }

    fn submit_sweep(&mut self, jobs: &[Job], budget: Option<Usd>, max_parallel: Option<u32>) {
        let spec = firm(jobs[0]);
        let ask =
            |world: &mut World| world.submit_sweep("sweep", spec.clone(), jobs, budget, max_parallel, None);
        // Asked again, it answers with the sweep alone.
        let sweep = self.insist(ask).sweep;
        let trials = ExperimentFilter { sweep, ..ExperimentFilter::default() };
        let found = self.world.reader().experiments(&trials, None, 100).expect("the store reads");
        self.experiments.extend(found.rows.iter().map(|row| row.experiment.id));
    }

    fn wait(&mut self, span: Span) {
        let until = self.world.now() + span;
        while self.world.now() < until {
            self.world.restart();
            self.world.run_for(until.since(self.world.now()));
        }
    }

    /// Waits until something works, or all is over.
    fn until_working(&mut self) {
        let is_due = |world: &World| {
            let fleet = world.fleet();
            fleet.experiments.is_empty()
                || fleet.attempts.values().any(|attempt| attempt.started_at.is_some())
        };
        let deadline = self.world.now() + MINUTE.times(30);
        while !is_due(&self.world) && self.world.now() < deadline {
            self.wait(Span::from_secs(5));
        }
    }

    /// Waits until nothing is left to do.
    fn until_over(&mut self) {
        let is_over = |world: &World| {
            let fleet = world.fleet();
            fleet.experiments.is_empty() && fleet.instances.is_empty()
        };
        let deadline = self.world.now() + Span::from_hours(3);
        while !is_over(&self.world) && self.world.now() < deadline {
            self.wait(Span::from_secs(5));
        }
    }

    fn outcomes(&self) -> Vec<(Option<Outcome>, u32)> {
        let end = |id: &ExperimentId| (self.world.outcome(*id), self.world.finished(*id));
        self.experiments.iter().map(end).collect()
    }

    fn machines(&self) -> usize {
        self.world.with_cloud(|cloud| cloud.launched().len())
    }
}

/// Leases are short, so that a story comes to the end of one soon.
fn brisk() -> Scenario {
    let scenario = Scenario::default();
    let settings = Settings {
        lease: MINUTE.times(4),
        drain_allowance: MINUTE,
        idle_duration: Span::from_secs(30),
        ..scenario.settings
    };
    Scenario { settings, ..scenario }
}

/// On-demand, so that the cloud takes nothing back of itself.
fn firm(job: Job) -> ExperimentSpec {
    ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..job.spec() }
}

impl Story {
    fn run(self, deaths: Deaths, under_way: UnderWay) -> Teller {
        let world = World::new(1, brisk());
        world.set_under_way(under_way);
        match deaths {
            Deaths::None => {}
            Deaths::At(boundary, side) => world.crash_at(boundary, side),
            Deaths::AtBoth(first, second) => {
                world.crash_at(first.0, first.1);
                world.crash_at(second.0, second.1);
            }
            Deaths::AtPoll(poll) => world.crash_at_poll(poll),
        }
        let mut teller = Teller { world, experiments: Vec::new(), boundaries: Vec::new(), polls: 0 };
        (self.told_by)(&mut teller);
        teller.until_over();
        teller.boundaries = teller.world.boundaries();
        teller.polls = teller.world.polls();
        teller.world.settle(Span::from_hours(24));
        teller
    }

    /// Runs it without a crash, and then with each.
    fn holds_wherever_the_daemon_dies(self) {
        let calm = self.run(Deaths::None, UnderWay::Lost);
        assert_eq!(calm.world.findings(), []);
        (self.ends_well)(&calm);
        let deaths = every_death(&calm);
        let mut broken = BTreeMap::new();
        for (deaths, under_way) in &deaths {
            let teller = self.run(*deaths, *under_way);
            let findings = teller.world.findings();
            let (ends, machines) = (teller.outcomes(), teller.machines());
            if !findings.is_empty() || ends != calm.outcomes() || machines != calm.machines() {
                let place = format!("{deaths:?}, requests under way {under_way:?}");
                broken.insert(place, format!("{machines} machines, {ends:?}, found {findings:?}"));
            } else {
                (self.ends_well)(&teller);
            }
        }
        eprintln!("{} crash points at {} boundaries", deaths.len(), calm.boundaries.len());
        assert!(
            broken.is_empty(),
            "{} of {} deaths did not end as {:?} on {} machines: {broken:#?}",
            broken.len(),
            deaths.len(),
            calm.outcomes(),
            calm.machines(),
        );
    }
}

/// Each side of each boundary. What else is under way may make a difference beside a commit or a call that changes the
/// cloud, so there it is lost and arrives; elsewhere they take turns. Some polls, and some pairs of neighbours.
fn every_death(calm: &Teller) -> Vec<(Deaths, UnderWay)> {
    let mut all = Vec::new();
    for (number, boundary) in (1..).zip(&calm.boundaries) {
        let sides = boundary.sides();
        let only_asks = matches!(boundary, Boundary::Call(Call::List | Call::Offerings));
        for side in sides {
            match side {
                // What asks for nothing that lasts may as well be lost.
                Side::During if only_asks => {}
                // A request that is lost on its way is one that was never sent.
                Side::During => all.push((Deaths::At(number, *side), UnderWay::Arrives)),
                Side::Before | Side::After if only_asks => {
                    all.push((Deaths::At(number, *side), fate(number)));
                }
                Side::Before | Side::After => {
                    let fates = [UnderWay::Lost, UnderWay::Arrives];
                    all.extend(fates.map(|fate| (Deaths::At(number, *side), fate)));
                }
            }
        }
        if number.is_multiple_of(PAIR_EVERY) {
            let first = (number, sides[(number / PAIR_EVERY) as usize % sides.len()]);
            let second = (number + 1, [Side::Before, Side::After][(number / 2 % 2) as usize]);
            all.push((Deaths::AtBoth(first, second), fate(number / PAIR_EVERY)));
        }
    }
    let polls = (1..=calm.polls).step_by(POLL_EVERY);
    all.extend(polls.map(|poll| (Deaths::AtPoll(poll), fate(poll / POLL_EVERY as u64))));
    all
}

fn fate(number: u64) -> UnderWay {
    if number.is_multiple_of(2) { UnderWay::Lost } else { UnderWay::Arrives }
}

fn all_succeed_once(teller: &Teller) {
    for end in teller.outcomes() {
        assert_eq!(end, (Some(Outcome::Succeeded), 1));
    }
}

#[test]
fn an_experiment_that_runs_to_its_end() {
    Story {
        told_by: |teller| {
            teller.submit("one", &firm(Job::lasting(MINUTE.times(2))));
        },
        ends_well: |teller| {
            all_succeed_once(teller);
            assert_eq!(teller.machines(), 1);
        },
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn an_interruption_with_notice() {
    Story {
        told_by: |teller| {
            teller.submit("one", &firm(Job::lasting(MINUTE.times(4))));
            teller.until_working();
            teller.wait(MINUTE);
            for machine in teller.world.with_cloud(|cloud| cloud.running()) {
                teller.world.with_cloud(|cloud| cloud.interrupt(machine, Some(MINUTE.times(2))));
            }
        },
        ends_well: |teller| {
            all_succeed_once(teller);
            assert_eq!(teller.machines(), 2);
        },
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn a_launch_whose_reply_is_lost_and_then_its_repetition() {
    Story {
        told_by: |teller| {
            teller.world.faults().inject(Call::Launch, Fault::LoseReply);
            teller.world.faults().inject(Call::Launch, Fault::LoseRequest);
            one_minute(teller);
        },
        ends_well: |teller| {
            all_succeed_once(teller);
            assert_eq!(teller.machines(), 1);
        },
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn calls_that_take_long() {
    Story {
        told_by: |teller| {
            for seconds in [20, 1, 7] {
                for call in [Call::Launch, Call::Terminate, Call::List] {
                    teller.world.faults().inject(call, Fault::Delay(Span::from_secs(seconds)));
                }
            }
            one_minute(teller);
        },
        ends_well: |teller| {
            all_succeed_once(teller);
            assert_eq!(teller.machines(), 1);
        },
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn a_refused_launch_and_the_next_best_offer() {
    Story {
        told_by: |teller| {
            let scope = Scope::of(&Scenario::default().market[0].offering.key());
            let until = teller.world.now() + Span::from_hours(24);
            teller.world.with_cloud(|cloud| cloud.sell_out(&scope, until));
            one_minute(teller);
        },
        ends_well: all_succeed_once,
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn a_sweep_that_shares_a_machine() {
    Story {
        told_by: |teller| teller.submit_sweep(&[Job::lasting(MINUTE); 3], None, Some(2)),
        ends_well: all_succeed_once,
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn a_sweep_whose_budget_lands_it() {
    const BUDGET: Usd = Usd::from_nanos(200_000_000);
    Story {
        told_by: |teller| {
            teller.submit_sweep(&[Job::lasting(Span::from_hours(9))], Some(BUDGET), None);
        },
        ends_well: |teller| {
            let (bill, doubt) = teller.world.with_cloud(|cloud| cloud.whole_bill());
            assert!(bill <= BUDGET + doubt, "{bill}");
            let why = StopReason::Budget;
            assert_eq!(teller.outcomes(), [(Some(Outcome::Stopped { why }), 0)]);
        },
    }
    .holds_wherever_the_daemon_dies();
}

#[test]
fn an_experiment_that_is_cancelled_while_it_works() {
    Story {
        told_by: |teller| {
            let budget = Some(Arc::new(BudgetTerms::of(Usd::from_dollars(9))));
            let spec = ExperimentSpec { budget, ..firm(Job::lasting(Span::from_hours(1))) };
            let experiment = teller.submit("one", &spec);
            teller.until_working();
            teller.insist(|world| world.cancel(experiment).then_some(()));
        },
        ends_well: |teller| assert_eq!(teller.outcomes(), [(Some(Outcome::Cancelled), 0)]),
    }
    .holds_wherever_the_daemon_dies();
}

/// The sequence is that of the things that the daemon does: what it wants is stored before it asks for it.
#[test]
fn the_boundaries_of_a_story_are_its_commits_and_all_its_calls() {
    let mut world = World::new(1, brisk());
    world.submit("one", firm(Job::lasting(MINUTE))).expect("the daemon is up");
    world.settle(Span::from_hours(24));
    let boundaries = world.boundaries();
    let first = |of: Boundary| boundaries.iter().position(|boundary| *boundary == of).expect("there is one");
    assert!(first(Boundary::Commit) < first(Boundary::Call(Call::Launch)));
    assert!(first(Boundary::Call(Call::Launch)) < first(Boundary::Call(Call::Terminate)));
    for call in [Call::List, Call::Offerings] {
        assert!(boundaries.contains(&Boundary::Call(call)));
    }
    let commits = boundaries.iter().filter(|boundary| **boundary == Boundary::Commit).count();
    assert_eq!(commits as u64, world.commits());
}

#[test]
fn a_request_that_is_under_way_when_the_daemon_dies_arrives_or_is_lost_as_told() {
    for (under_way, machines) in [(UnderWay::Lost, 0), (UnderWay::Arrives, 1)] {
        let calm = Story { told_by: one_minute, ends_well: all_succeed_once }.run(Deaths::None, under_way);
        let is_launch = |boundary: &Boundary| *boundary == Boundary::Call(Call::Launch);
        let launch = calm.boundaries.iter().position(is_launch).expect("there is one") as u64 + 1;
        let mut world = World::new(1, brisk());
        world.set_under_way(under_way);
        world.crash_at(launch, Side::During);
        world.submit("one", firm(Job::lasting(MINUTE))).expect("the daemon is up");
        assert!(!world.run_for(MINUTE), "the daemon dies over its launch");
        world.run_for(MINUTE);
        assert!(!world.is_up());
        assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), machines, "{under_way:?}");
    }
}

fn one_minute(teller: &mut Teller) {
    teller.submit("one", &firm(Job::lasting(MINUTE)));
}
