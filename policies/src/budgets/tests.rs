//! What budgets do to work, one rule each. An instance costs $1.00/h, its lease is 10 minutes and the allowance 2.

use std::sync::Arc;

use bursar_model::{
    AttemptState, BudgetAlert, BudgetKey, BudgetTerms, DrainReason, Estimate, Event, ExperimentId,
    ExperimentState, InstanceState, OnExhausted, Schedule, Span, StopReason, UserName, WaitingOn,
};

use crate::{
    Plan,
    testing::{World, dollars, gpu, offering, spec},
};

fn project() -> BudgetKey {
    BudgetKey::Project("p".into())
}

fn terms(limit: f64, on_exhausted: OnExhausted) -> BudgetTerms {
    BudgetTerms { on_exhausted, ..BudgetTerms::of(dollars(limit)) }
}

fn world() -> World {
    World::new(vec![offering(&gpu("one", "T4", 1), 1.0)])
}

fn alerts(plan: &Plan) -> Vec<BudgetAlert> {
    let alert =
        |event: &Event| if let Event::BudgetAlerted { alert, .. } = event { Some(*alert) } else { None };
    plan.events.iter().filter_map(alert).collect()
}

fn state_of(world: &World, experiment: ExperimentId) -> AttemptState {
    world.fleet.attempts[&world.attempt_of(experiment)].state.clone()
}

/// Steps of a minute until the experiment's attempt stops.
fn minutes_until_it_stops(world: &mut World, experiment: ExperimentId) -> i64 {
    for minute in 0..600 {
        if matches!(state_of(world, experiment), AttemptState::Stopping { .. }) {
            return minute;
        }
        world.pass(Span::from_secs(60));
        let _ = world.step();
    }
    panic!("it never stops")
}

#[test]
fn a_new_window_pays_for_work_that_waited() {
    let mut world = world();
    let day = Schedule::parse("day", None).unwrap();
    world.set_terms(project(), BudgetTerms { schedule: Some(day), ..BudgetTerms::of(dollars(0.3)) });
    let experiment = world.queue(&spec(&["T4:1"]));
    world.run();
    minutes_until_it_stops(&mut world, experiment);
    let attempt = world.attempt_of(experiment);
    world.end(attempt, bursar_model::AttemptEnd::Stopped { why: StopReason::Unfunded });
    let _ = world.step();
    world.sweep_up();
    let plan = world.step();
    assert!(matches!(plan.waiting[..], [(_, WaitingOn::Budget(_))]), "{plan:?}");
    let window = world.fleet.budgets[&project()].window.unwrap();
    assert!(plan.wake_at.unwrap() <= window.to, "it plans when the money comes");

    let spent = world.fleet.budgets[&project()].spent;
    assert!(spent > dollars(0.15) && spent <= dollars(0.3), "{spent}");
    world.now = window.to;
    let plan = world.step();
    assert!(plan.events.iter().any(|event| matches!(event, Event::InstanceIntended { .. })));
    let budget = &world.fleet.budgets[&project()];
    assert_eq!((budget.spent, budget.window.unwrap().from), (dollars(0.0), window.to));
}

#[test]
fn late_charges_of_the_time_before_a_window_do_not_count_in_it() {
    let mut world = world();
    let day = Schedule::parse("day", None).unwrap();
    world.set_terms(project(), BudgetTerms { schedule: Some(day), ..BudgetTerms::of(dollars(5.0)) });
    let _ = world.queue(&spec(&["T4:1"]));
    let midnight = world.fleet.budgets[&project()].window.unwrap().to;
    world.now = midnight - Span::from_secs(100);
    world.run();
    let instance = *world.fleet.instances.keys().next().unwrap();
    // Heard before midnight; charged after it, when the lease is renewed.
    world.pass(Span::from_secs(300));
    let _ = world.step();
    let meter = &world.fleet.instances[&instance].meter;
    assert_eq!(meter.through, world.now);
    let of_the_day =
        bursar_model::UsdPerHour::from_nanos(1_000_000_000).cost_rounded_up(Span::from_secs(200));
    let spent = world.fleet.budgets[&project()].spent;
    assert!((spent - of_the_day).as_nanos().abs() <= 1, "{spent}");
    assert!(meter.costs.effective > spent);
}

#[test]
fn a_lowered_limit_lands_the_youngest_work_until_the_rest_fits() {
    let mut world = world();
    world.limit(project(), 5.0);
    let first = world.queue(&spec(&["T4:1"]));
    world.run();
    world.pass(Span::from_secs(60));
    let second = world.queue(&spec(&["T4:1"]));
    world.run();
    // Each holds 12 minutes, $0.20.
    world.limit(project(), 0.25);
    assert!(world.fleet.budgets[&project()].landing.is_some());
    let plan = world.step();
    assert!(matches!(state_of(&world, second), AttemptState::Stopping { why: StopReason::Unfunded, .. }));
    assert_eq!(state_of(&world, first), AttemptState::Running);
    let draining = |event: &Event| matches!(event, Event::InstanceDraining { why: DrainReason::Budget, .. });
    assert!(plan.events.iter().any(draining), "{plan:?}");
    assert_eq!(alerts(&plan), [BudgetAlert::Exhausted]);

    let attempt = world.attempt_of(second);
    world.end(attempt, bursar_model::AttemptEnd::Stopped { why: StopReason::Unfunded });
    let _ = world.step();
    world.sweep_up();
    let _ = world.step();
    assert_eq!(world.fleet.budgets[&project()].landing, None, "it has landed");
    assert_eq!(world.fleet.experiments[&second].state, ExperimentState::Queued, "it waits for money");
    assert_eq!(state_of(&world, first), AttemptState::Running);
}

#[test]
fn what_lands_on_a_shared_instance_leaves_the_others_running_and_paying() {
    let mut world = World::new(vec![offering(&gpu("two", "T4", 2), 2.0)]);
    let mut poor = spec(&["T4:1"]);
    poor.project = "poor".into();
    let rich = world.queue(&spec(&["T4:1"]));
    let poor = world.queue(&poor);
    world.run();
    assert_eq!(world.fleet.instances.len(), 1);
    world.limit(BudgetKey::Project("poor".into()), 0.01);
    let _ = world.step();
    assert!(matches!(state_of(&world, poor), AttemptState::Stopping { .. }));
    assert_eq!(state_of(&world, rich), AttemptState::Running);
    let attempt = world.attempt_of(poor);
    world.pass(Span::from_secs(5));
    world.end(attempt, bursar_model::AttemptEnd::Stopped { why: StopReason::Unfunded });
    let _ = world.step();
    let _ = world.step();
    let budget = &world.fleet.budgets[&BudgetKey::Project("poor".into())];
    assert_eq!(budget.held, dollars(0.0), "who runs has taken over the part");
    assert_eq!(state_of(&world, rich), AttemptState::Running);
}

#[test]
fn an_instance_on_its_way_goes_when_its_money_is_taken_away() {
    let mut world = world();
    let _ = world.queue(&spec(&["T4:1"]));
    let _ = world.step();
    world.limit(project(), 0.01);
    let _ = world.step();
    let state = &world.fleet.instances.values().next().unwrap().state;
    assert!(matches!(state, InstanceState::Terminating { why: DrainReason::Budget, .. }), "{state:?}");
}

#[test]
fn a_budget_that_stops_at_once_lets_work_run_longer_and_gives_no_time_to_save() {
    let run = |on_exhausted| {
        let mut world = world();
        world.settings.drain_allowance = Span::from_secs(60);
        let mut slow_to_save = spec(&["T4:1"]);
        slow_to_save.checkpoint.grace = Span::from_secs(55);
        world.set_terms(project(), terms(0.3, on_exhausted));
        let experiment = world.queue(&slow_to_save);
        world.run();
        let minutes = minutes_until_it_stops(&mut world, experiment);
        let AttemptState::Stopping { at_once, .. } = state_of(&world, experiment) else { unreachable!() };
        (minutes, at_once)
    };
    let (saves, at_once) = run(OnExhausted::CheckpointAndStop);
    assert!(!at_once);
    let (stops, at_once) = run(OnExhausted::Stop);
    assert!(at_once);
    assert!(stops > saves, "{stops} {saves}");
}

#[test]
fn a_budget_that_finishes_what_it_starts_holds_the_whole_estimate_first() {
    let mut world = world();
    let mut long = spec(&["T4:1"]);
    long.estimate = Some(Estimate { duration: Span::from_hours(2), on: None, speeds: Default::default() });
    world.set_terms(project(), terms(3.0, OnExhausted::FinishRunning));
    let first = world.queue(&long);
    let second = world.queue(&long);
    world.run();
    assert_eq!(state_of(&world, first), AttemptState::Running);
    assert!(world.fleet.budgets[&project()].held > dollars(2.0));
    let plan = world.look();
    assert!(matches!(plan.waiting[..], [(id, WaitingOn::Budget(_))] if id == second), "{plan:?}");
    // It runs to the end of its estimate without a word of the budget.
    for _ in 0..119 {
        world.pass(Span::from_secs(60));
        let _ = world.step();
    }
    assert_eq!(state_of(&world, first), AttemptState::Running);
    let attempt = world.attempt_of(first);
    world.end(attempt, bursar_model::AttemptEnd::Exited { code: 0 });
    assert!(world.fleet.budgets[&project()].spent <= dollars(3.0));
}

#[test]
fn a_mark_does_not_stop_work_and_is_told_of_once() {
    let mut world = world();
    world.set_terms(project(), terms(0.1, OnExhausted::NotifyOnly));
    let experiment = world.queue(&spec(&["T4:1"]));
    world.run();
    let mut told = Vec::new();
    for _ in 0..60 {
        world.pass(Span::from_secs(60));
        told.extend(alerts(&world.step()));
        told.extend(alerts(&world.step()));
    }
    assert_eq!(state_of(&world, experiment), AttemptState::Running);
    assert!(world.fleet.budgets[&project()].spent > dollars(0.9));
    let percents: Vec<u16> = told
        .iter()
        .map(|alert| if let BudgetAlert::Threshold { percent } = alert { *percent } else { 0 })
        .collect();
    assert!(percents.is_sorted() && percents.ends_with(&[100]), "{told:?}");
    assert!(percents.windows(2).all(|pair| pair[0] < pair[1]), "each is told once: {told:?}");
}

#[test]
fn a_users_budget_counts_over_all_projects() {
    let mut world = world();
    world.limit(BudgetKey::User(UserName::new("ada")), 0.3);
    let mut elsewhere = spec(&["T4:1"]);
    elsewhere.project = "other".into();
    let first = world.queue(&spec(&["T4:1"]));
    let second = world.queue(&elsewhere);
    world.run();
    assert_eq!(state_of(&world, first), AttemptState::Running);
    let plan = world.look();
    let [(id, WaitingOn::Budget(no_room))] = &plan.waiting[..] else { panic!("{plan:?}") };
    assert_eq!((*id, &no_room.key), (second, &BudgetKey::User(UserName::new("ada"))));
}

#[test]
fn raising_a_limit_lets_waiting_work_start_and_forgets_that_it_was_exhausted() {
    let mut world = world();
    world.limit(project(), 0.01);
    let experiment = world.queue(&spec(&["T4:1"]));
    let plan = world.step();
    assert_eq!(alerts(&plan), [BudgetAlert::Exhausted]);
    assert_eq!(alerts(&world.step()), [], "it is told once");
    world.set_terms(project(), BudgetTerms::clone(&Arc::new(BudgetTerms::of(dollars(1.0)))));
    assert!(world.fleet.budgets[&project()].told.is_nothing());
    world.run();
    assert_eq!(state_of(&world, experiment), AttemptState::Running);
}
