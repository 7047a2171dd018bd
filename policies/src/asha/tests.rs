#![expect(clippy::float_arithmetic, reason = "budgets are made up of cents")]

use bursar_model::{AshaMode, AshaRules, AttemptEnd, AttemptId, AttemptState, Span};
use proptest::prelude::*;

use super::*;
use crate::testing::{World, cpu, dollars, offering, render, spec};

fn rules(eta: u32, min: u64, max: u64) -> AshaRules {
    let (metric, resource) = ("loss".to_owned(), "step".to_owned());
    AshaRules { metric, mode: AshaMode::Min, resource, eta, min, max }
}

/// A sweep with asha in a world with one large machine, whose trials report what they are told to.
struct Race {
    world: World,
    sweep: SweepId,
    trials: Vec<ExperimentId>,
}

impl Race {
    fn new(rules: AshaRules, trials: usize, max_parallel: Option<u32>, budget: Option<f64>) -> Self {
        let mut world = World::new(vec![offering(&cpu("large", 64), 1.0)]);
        let sweep = world.sweep_with(trials as u32, max_parallel, Some(rules));
        if let Some(limit) = budget {
            world.limit(BudgetKey::Sweep(sweep), limit);
        }
        let trials = (0..trials).map(|_| world.queue_in(&spec(&[]), Some(sweep))).collect();
        Self { world, sweep, trials }
    }

    fn asha(&self) -> &Asha {
        self.world.fleet.sweeps[&self.sweep].asha.as_ref().unwrap()
    }

    /// Plans until nothing is left to plan; what is told to stop does, what was ended leaves.
    fn settle(&mut self) -> Vec<Plan> {
        let mut plans = Vec::new();
        // As many rounds as it takes to launch, boot, assign and stop, and some.
        for _ in 0..12 {
            let plan = self.world.step();
            let at_rest = plan.events.is_empty();
            plans.push(plan);
            self.world.boot();
            self.world.boot();
            let stopping = |attempt: &&Attempt| matches!(attempt.state, AttemptState::Stopping { .. });
            let told: Vec<(AttemptId, AttemptState)> = self
                .world
                .fleet
                .attempts
                .values()
                .filter(stopping)
                .map(|a| (a.id, a.state.clone()))
                .collect();
            for (attempt, state) in told {
                let AttemptState::Stopping { why, .. } = state else { continue };
                self.world.end(attempt, AttemptEnd::Stopped { why });
            }
            if at_rest {
                return plans;
            }
        }
        panic!("planning does not come to rest: {}", render(plans.last().unwrap()));
    }

    fn running(&self) -> Vec<ExperimentId> {
        let runs = |e: &&Experiment| matches!(e.state, ExperimentState::Running { .. });
        self.world.fleet.experiments.values().filter(runs).map(|e| e.id).collect()
    }

    /// A running trial reports that it has come to its rung.
    fn report(&mut self, trial: ExperimentId, loss: f64) {
        self.world.pass(Span::from_secs(10));
        let step = self.asha().rungs[self.asha().rung_of(trial)].resource;
        let metrics = BTreeMap::from([("step".to_owned(), step as f64), ("loss".to_owned(), loss)]);
        let attempt = &self.world.fleet.attempts[&self.world.attempt_of(trial)];
        let events = rung_reached(&self.world.fleet, &self.world.heard, attempt, &metrics, self.world.now);
        assert!(matches!(events.last(), Some(Event::RungReached { .. })), "{events:?}");
        for event in events {
            self.world.apply(&event);
        }
    }

    fn finish(&mut self, trial: ExperimentId) {
        let attempt = self.world.attempt_of(trial);
        self.world.end(attempt, AttemptEnd::Exited { code: 0 });
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "one kind is looked for")]
    fn outcomes(plans: &[Plan]) -> BTreeMap<ExperimentId, Outcome> {
        let ended = plans.iter().flat_map(|plan| &plan.events).filter_map(|event| match event {
            Event::ExperimentEnded { experiment, outcome, .. } => Some((*experiment, outcome.clone())),
            _ => None,
        });
        ended.collect()
    }
}

#[test]
fn the_best_third_goes_on_in_place_and_the_others_pause_with_a_reason() {
    let mut race = Race::new(rules(3, 1, 9), 6, None, None);
    race.settle();
    let trials = race.trials.clone();
    assert_eq!(race.running(), trials);

    race.report(trials[0], 0.5);
    race.report(trials[1], 0.4);
    let plans = race.settle();
    assert_eq!(race.running(), trials[2..], "of fewer than three nobody is the best third");
    let reasons: Vec<String> =
        plans.last().unwrap().waiting.iter().map(|(_, reason)| reason.to_string()).collect();
    assert_eq!(
        reasons,
        [
            "paused by asha as rank 2 of 2 at rung 0, where 1 in 3 goes on: at this rank once 6 have reported",
            "paused by asha as rank 1 of 2 at rung 0, where 1 in 3 goes on: at this rank once 3 have reported",
        ]
    );

    let attempt = race.world.attempt_of(trials[2]);
    race.report(trials[2], 0.3);
    let plans = race.settle();
    assert_eq!(race.world.attempt_of(trials[2]), attempt, "who is the best goes on without a stop");
    // Six come to the rung at most, so that two go on: the worst of three will never be one of them.
    let pruned = |rank, of| Outcome::Pruned { rung: 0, rank, of };
    assert_eq!(Race::outcomes(&plans), BTreeMap::from([(trials[0], pruned(3, 3))]));

    race.report(trials[3], 0.1);
    let plans = race.settle();
    assert_eq!(Race::outcomes(&plans), BTreeMap::from([(trials[1], pruned(3, 4))]));
    assert_eq!(race.running(), trials[2..], "who was let go on and overtaken runs on");
}

#[test]
fn a_paused_trial_goes_on_when_worse_ones_come_and_starts_before_new_ones() {
    let mut race = Race::new(rules(2, 1, 8), 6, Some(1), None);
    race.settle();
    let trials = race.trials.clone();
    race.report(trials[0], 0.5);
    race.settle();
    assert_eq!(race.running(), [trials[1]], "a new trial starts when nobody can go on");
    race.report(trials[1], 0.6);
    race.settle();
    assert_eq!(race.running(), [trials[0]], "the one that paused is the better half now");
    race.report(trials[0], 0.45);
    race.settle();
    assert_eq!(race.running(), [trials[2]]);
}

#[test]
fn a_trial_whose_instance_leaves_as_it_pauses_is_told_to_stop_once() {
    let mut race = Race::new(rules(3, 1, 9), 3, None, None);
    race.settle();
    let trial = race.trials[0];
    race.report(trial, 0.5);
    let instance = *race.world.fleet.instances.keys().next().unwrap();
    race.world.apply(&Event::InstanceNoticed { instance, gone_at: race.world.now + Span::from_secs(60) });
    // Where the plan tells anybody to stop twice, that is illegal and found.
    let plan = race.world.step();
    let told = |event: &&Event| matches!(event, Event::AttemptStopping { .. });
    assert_eq!(plan.events.iter().filter(told).count(), 3, "{}", render(&plan));
}

#[test]
fn the_highest_rung_goes_first() {
    let mut race = Race::new(rules(2, 1, 8), 8, Some(1), None);
    let mut reached = Vec::new();
    for loss in 0..6 {
        race.settle();
        let trial = race.running()[0];
        reached.push((race.trials.iter().position(|id| *id == trial).unwrap(), race.asha().rung_of(trial)));
        race.report(trial, f64::from(loss));
    }
    // 0 and 1 at rung 0; then 0 climbs; 2 and 3 let 2 climb, with whom two are at rung 1 and 0 climbs again.
    assert_eq!(reached, [(0, 0), (1, 0), (0, 1), (2, 0), (3, 0), (1, 1)]);
    race.settle();
    assert_eq!(race.asha().rung_of(race.running()[0]), 2, "of those who may go on the highest does");
}

#[test]
fn a_sweep_smaller_than_eta_still_has_a_winner() {
    let mut race = Race::new(rules(4, 1, 16), 2, None, None);
    race.settle();
    let trials = race.trials.clone();
    race.report(trials[0], 0.5);
    race.report(trials[1], f64::NAN);
    let plans = race.settle();
    assert_eq!(race.running(), [trials[0]]);
    let pruned = Outcome::Pruned { rung: 0, rank: 2, of: 2 };
    assert_eq!(Race::outcomes(&plans)[&trials[1]], pruned);
    race.report(trials[0], 0.4);
    race.settle();
    assert_eq!(race.running(), [trials[0]], "the only one at a rung that nobody can come to any more");
}

#[test]
fn a_trial_that_others_wait_for_and_that_fails_is_not_waited_for() {
    let mut race = Race::new(rules(3, 1, 9), 2, None, None);
    race.settle();
    let trials = race.trials.clone();
    race.report(trials[0], 0.5);
    race.settle();
    assert_eq!(race.running(), [trials[1]]);
    let attempt = race.world.attempt_of(trials[1]);
    race.world.end(attempt, AttemptEnd::Exited { code: 1 });
    race.settle();
    assert_eq!(race.running(), [trials[0]]);
}

/// A sweep on paper: who stands where is made up, and nothing has run.
struct Books {
    world: World,
    sweep: SweepId,
    trials: Vec<ExperimentId>,
    max_parallel: Option<u32>,
    left: f64,
}

impl Books {
    /// Trials with these scores at rung 0, which took a dollar each, or new ones. One in two goes on from there.
    fn new(scores: &[Option<f64>], left: f64) -> Self {
        let mut world = World::new(Vec::new());
        let sweep = world.sweep_with(scores.len() as u32, None, Some(rules(2, 1, 4)));
        let trials = scores.iter().map(|_| world.queue_in(&spec(&[]), Some(sweep))).collect();
        let mut books = Self { world, sweep, trials, max_parallel: None, left };
        for (number, score) in scores.iter().enumerate() {
            if let Some(score) = score {
                books.reached(number, 0, *score);
            }
        }
        books
    }

    fn reached(&mut self, number: usize, rung: u32, score: f64) {
        let (experiment, cost) = (self.trials[number], dollars(f64::from(rung) + 1.0));
        self.world.apply(&Event::RungReached { experiment, rung, score: Some(score), cost });
    }

    fn promote(&mut self, number: usize) {
        self.world.apply(&Event::TrialPromoted { experiment: self.trials[number], rung: 0 });
    }

    fn decide(&self) -> Decisions {
        let fleet = &self.world.fleet;
        let asha = fleet.sweeps[&self.sweep].asha.as_ref().unwrap();
        let trials = fleet.experiments.iter().map(|(id, experiment)| {
            let started = asha.rungs[0].standings.contains_key(id);
            let spent = if started { dollars(1.0) } else { Usd::ZERO };
            let (rung, paused) = (asha.rung_of(*id), asha.is_paused(*id));
            (*id, Trial { experiment, rung, paused, started, spent })
        });
        let (max_parallel, left) = (self.max_parallel, Some(dollars(self.left)));
        Halver { asha, max_parallel, trials: trials.collect(), left }.decide()
    }
}

#[test]
fn no_more_go_on_than_may_run_at_once_and_of_those_the_highest() {
    let mut books = Books::new(&[Some(0.1), Some(0.2), Some(0.3), Some(0.4), Some(0.5), Some(0.6)], 100.0);
    for (number, score) in [(0, 0.2), (1, 0.1)] {
        books.promote(number);
        books.reached(number, 1, score);
    }
    let both = [(books.trials[1], 1), (books.trials[2], 0)];
    assert_eq!(books.decide().promoted, both, "the better half of either rung");
    books.max_parallel = Some(1);
    let decisions = books.decide();
    assert_eq!(decisions.promoted, both[..1]);
    assert_eq!(decisions.held_back[&books.trials[2]], WaitingOn::SweepParallel { limit: 1 });
}

#[test]
fn a_trial_goes_on_only_if_the_rest_of_the_budget_brings_it_to_its_next_rung() {
    // Rung 0 took a dollar, so rung 1 with twice the resource is expected to take two: one more.
    let books = Books::new(&[Some(0.1), Some(0.2)], 1.0);
    assert_eq!(books.decide().promoted, [(books.trials[0], 0)]);

    let books = Books::new(&[Some(0.1), Some(0.2)], 0.99);
    let decisions = books.decide();
    assert_eq!(decisions.promoted, []);
    assert_eq!(
        decisions.ended,
        BTreeMap::from([
            (books.trials[0], Outcome::Stopped { why: StopReason::Budget }),
            (books.trials[1], Outcome::Pruned { rung: 0, rank: 2, of: 2 })
        ]),
        "nobody is under way, so nothing will come back"
    );
}

#[test]
fn what_is_under_way_has_its_money_before_anybody_else() {
    // The best two of four may go on. One runs already and needs a dollar more; so two dollars bring both to rung 1.
    let standings = [Some(0.1), Some(0.2), Some(0.3), Some(0.4)];
    let mut books = Books::new(&standings, 2.0);
    books.promote(0);
    assert_eq!(books.decide().promoted, [(books.trials[1], 0)]);

    books.left = 1.5;
    let decisions = books.decide();
    assert_eq!(decisions.promoted, []);
    let reason = WaitingOn::RungBudget { left: dollars(0.5), expected: dollars(1.0) };
    assert_eq!(decisions.held_back[&books.trials[1]], reason, "it may turn out that the other needs less");
    assert!(!decisions.ended.contains_key(&books.trials[1]));
}

#[test]
fn new_trials_start_as_far_as_the_money_goes_and_the_rest_is_refused_in_the_end() {
    let books = Books::new(&[None, None, None], 0.0);
    assert_eq!(books.decide(), Decisions::default(), "nothing is known of what they cost");

    // Rung 1 takes the first dollar, two new trials the next two.
    let books = Books::new(&[Some(0.1), Some(0.2), None, None, None], 3.5);
    let decisions = books.decide();
    assert_eq!(decisions.promoted, [(books.trials[0], 0)]);
    let waits: Vec<_> = decisions.held_back.keys().copied().collect();
    assert_eq!(waits, [books.trials[1], books.trials[4]]);

    let books = Books::new(&[Some(0.1), Some(0.2), None], 0.5);
    let why = Refusal::FirstRung { left: dollars(0.5), expected: dollars(1.0) };
    assert_eq!(books.decide().ended[&books.trials[2]], Outcome::Refused { why });
}

/// One way in which a race may go: how large the sweep is, what each trial reports, who reports next.
#[derive(Debug, Clone)]
struct Course {
    rules: AshaRules,
    max_parallel: Option<u32>,
    budget: Option<f64>,
    losses: Vec<f64>,
    turns: Vec<prop::sample::Index>,
}

fn courses() -> impl Strategy<Value = Course> {
    let loss =
        prop_oneof![8 => (0_u8..20).prop_map(f64::from), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
    (
        (2_u32..5, 1_u64..4, 2_u64..30),
        prop::option::of(1_u32..5),
        prop::option::of(1_u32..40),
        prop::collection::vec(loss, 1..14),
        prop::collection::vec(any::<prop::sample::Index>(), 80),
    )
        .prop_map(|((eta, min, more), max_parallel, cents, losses, turns)| Course {
            rules: rules(eta, min, min + more),
            max_parallel,
            // Ten seconds of the machine cost about a third of a cent, and a lease of it is held for 20 cents.
            budget: cents.map(|cents| f64::from(cents + 20) / 100.0),
            losses,
            turns,
        })
}

/// Runs a race to its end and gives the outcome of every trial.
fn run(course: &Course) -> Result<BTreeMap<ExperimentId, Outcome>, TestCaseError> {
    let Course { rules, max_parallel, budget, losses, turns } = course;
    let eta = rules.eta as usize;
    let mut race = Race::new(rules.clone(), losses.len(), *max_parallel, *budget);
    let mut outcomes = BTreeMap::new();
    let mut turns = turns.iter().cycle();
    // Every trial reports at most once a rung, and waits at most some leases for money to come back.
    for _ in 0..losses.len() * (race.asha().rungs.len() + 1) + 100 {
        // Every plan is judged by `check` besides: nobody was promoted but from among the best.
        outcomes.extend(Race::outcomes(&race.settle()));
        race.world.sweep_up();
        let Some(sweep) = race.world.fleet.sweeps.get(&race.sweep) else { break };
        let asha = sweep.asha.as_ref().unwrap();
        for (number, rung) in asha.rungs[..asha.last()].iter().enumerate() {
            let ranking = asha.ranking(number);
            let best = &ranking[..rung.standings.len() / eta];
            for (id, standing) in best {
                prop_assert!(
                    standing.promoted
                        || budget.is_some()
                        || max_parallel.is_some()
                        || outcomes.contains_key(id),
                    "{id} is among the best of rung {number} and does not go on"
                );
            }
        }
        let running = race.running();
        if running.is_empty() {
            race.world.pass(Span::from_secs(60));
            continue;
        }
        let trial = *turns.next().unwrap().get(&running);
        let at_last = race.asha().rung_of(trial) == race.asha().last();
        let number = race.trials.iter().position(|id| *id == trial).unwrap();
        race.report(trial, losses[number]);
        if at_last {
            race.finish(trial);
            outcomes.insert(trial, Outcome::Succeeded);
        }
    }
    prop_assert_eq!(outcomes.len(), losses.len(), "every trial ends: {:?}", race.world.fleet.experiments);
    Ok(outcomes)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whoever_reports_when_every_trial_ends_and_the_best_runs_to_the_maximum(course in courses()) {
        let outcomes = run(&course)?;
        prop_assert_eq!(&outcomes, &run(&course)?, "the same reports give the same outcomes");
        let score = |loss: f64| Some(loss).filter(|loss| loss.is_finite());
        let best = (0..course.losses.len())
            .min_by(|a, b| AshaMode::Min.compare(score(course.losses[*a]), score(course.losses[*b])))
            .unwrap();
        // Of the first reports nobody is the best third yet; but the best of all always comes to be.
        if course.budget.is_none() {
            let ids: Vec<ExperimentId> = outcomes.keys().copied().collect();
            prop_assert_eq!(&outcomes[&ids[best]], &Outcome::Succeeded);
        }
    }
}

#[test]
fn when_the_best_report_first_just_one_in_eta_goes_on() {
    let mut race = Race::new(rules(3, 1, 3), 27, None, None);
    race.settle();
    for (number, trial) in race.trials.clone().into_iter().enumerate() {
        race.report(trial, number as f64);
        race.settle();
        let promoted = race.asha().rungs[0].standings.values().filter(|standing| standing.promoted).count();
        assert_eq!(promoted, (number + 1) / 3);
    }
    assert_eq!(race.asha().rungs[0].standings.len(), 27);
}

#[test]
fn reports_of_no_trial_with_asha_reach_nothing() {
    let mut race = Race::new(rules(3, 2, 9), 1, None, None);
    race.settle();
    let trial = race.trials[0];
    let early = BTreeMap::from([("step".to_owned(), 1.0), ("loss".to_owned(), 0.1)]);
    let attempt = race.world.fleet.attempts[&race.world.attempt_of(trial)].clone();
    assert_eq!(rung_reached(&race.world.fleet, &race.world.heard, &attempt, &early, race.world.now), []);
    let other = race.world.queue(&spec(&[]));
    race.settle();
    let late = BTreeMap::from([("step".to_owned(), 9.0), ("loss".to_owned(), 0.1)]);
    let attempt = race.world.fleet.attempts[&race.world.attempt_of(other)].clone();
    assert_eq!(rung_reached(&race.world.fleet, &race.world.heard, &attempt, &late, race.world.now), []);
}

#[test]
fn the_cost_of_a_rung_holds_what_was_not_charged_yet() {
    let mut race = Race::new(rules(3, 1, 9), 1, None, None);
    race.settle();
    let trial = race.trials[0];
    race.world.pass(Span::from_secs(350));
    race.report(trial, 0.1);
    let standing = race.asha().rungs[0].standings[&trial];
    assert_eq!(standing.cost, dollars(0.1), "six minutes at a dollar an hour");
}

#[test]
fn a_rung_is_charged_for_no_more_than_is_held_where_the_clock_has_skipped_ahead() {
    let mut race = Race::new(rules(3, 1, 9), 1, None, None);
    race.settle();
    race.world.now = race.world.now + Span::from_hours(2);
    race.report(race.trials[0], 0.1);
    let instance = race.world.fleet.instances.values().next().unwrap();
    assert_eq!(instance.meter.through, instance.held_until());
}
