//! The clock of the daemon's machine is set while work runs. The cloud and its machines know nothing of it.

use std::sync::Arc;

use bursar_model::{
    BudgetKey, BudgetTerms, ExperimentId, ExperimentSpec, InstanceId, Outcome, Span, SpotPolicy, Usd,
};
use bursar_providers::faulty::{Call, Fault};
use bursar_sim::{Job, Scenario, World};

const MINUTE: Span = Span::from_secs(60);
const DAY: Span = Span::from_hours(24);

fn at_work(budget: Option<Usd>) -> (World, ExperimentId) {
    let budgets = vec![(BudgetKey::Installation, budget.map(|limit| Arc::new(BudgetTerms::of(limit))))];
    let mut world = World::new(1, Scenario { budgets, ..Scenario::default() });
    let experiment = submit(&mut world, Span::from_hours(2));
    world.run_for(MINUTE.times(20));
    (world, experiment)
}

fn submit(world: &mut World, lasting: Span) -> ExperimentId {
    let job = Job::lasting(lasting);
    let spec = ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..job.spec() };
    world.submit("one", spec).expect("the daemon is up")
}

fn the_only_machine(world: &World) -> InstanceId {
    match world.with_cloud(|cloud| cloud.running())[..] {
        [only] => only,
        ref others => panic!("{others:?} run"),
    }
}

/// It ran to its end on the one machine, in one attempt.
fn ends_well(mut world: World, experiment: ExperimentId) -> World {
    world.settle(DAY);
    assert_eq!(world.findings(), []);
    assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
    assert_eq!(world.reader().attempts_of(experiment).expect("the store reads").len(), 1);
    assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), 1);
    world
}

/// The times of the journal, which are in order.
fn assert_in_order(world: &World) {
    let journal = world.journal().expect("the store reads");
    let times: Vec<&str> = journal.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_clock_that_is_set_ahead_takes_no_work_from_agents_that_are_well() {
    for ahead in [Span::from_secs(40), MINUTE.times(7), Span::from_hours(3), DAY.times(40)] {
        let (world, experiment) = at_work(None);
        world.set_clock_ahead(ahead);
        assert_in_order(&ends_well(world, experiment));
    }
}

#[test]
fn a_clock_that_is_set_back_changes_nothing_within_a_life() {
    let undisturbed = {
        let (world, experiment) = at_work(None);
        ends_well(world, experiment).journal().expect("the store reads")
    };
    let (world, experiment) = at_work(None);
    world.set_clock_back(DAY);
    let journal = ends_well(world, experiment).journal().expect("the store reads");
    assert_eq!(journal, undisturbed);
}

#[test]
fn a_life_that_begins_with_a_clock_that_was_set_back_goes_on_from_the_newest_commit() {
    let (mut world, experiment) = at_work(None);
    world.set_clock_back(Span::from_hours(5));
    world.crash();
    world.run_for(Span::from_secs(90));
    world.restart();
    world.run_for(MINUTE.times(10));
    world.set_clock_ahead(Span::from_hours(5));
    assert_in_order(&ends_well(world, experiment));
}

#[test]
fn a_clock_that_is_set_ahead_and_right_again_keeps_the_books_within_the_error() {
    let (mut world, experiment) = at_work(Some(Usd::from_dollars(30)));
    world.set_clock_ahead(Span::from_hours(4));
    world.run_for(MINUTE.times(30));
    world.set_clock_back(Span::from_hours(4));
    world.run_for(MINUTE.times(5));
    world.crash();
    world.restart();
    let world = ends_well(world, experiment);
    assert_in_order(&world);
    let (bill, _) = world.with_cloud(|cloud| cloud.whole_bill());
    let booked = world.fleet().budgets[&BudgetKey::Installation].spent;
    assert!(
        booked >= bill && booked <= bill + Usd::from_dollars(4) + Usd::from_nanos(10_000),
        "{booked} {bill}"
    );
}

#[test]
fn a_cap_is_kept_though_the_clock_is_set_ahead() {
    for cap in [1, 2, 3] {
        let (mut world, _) = at_work(Some(Usd::from_dollars(cap)));
        world.set_clock_ahead(Span::from_hours(6));
        world.settle(DAY);
        assert_eq!(world.findings(), []);
    }
}

#[test]
fn a_step_makes_nobody_forget_a_machine_that_two_listings_lack() {
    let mut world = World::new(1, Scenario::default());
    world.run_for(MINUTE);
    let experiment = submit(&mut world, Span::from_hours(2));
    world.run_for(Span::from_millis(1500));
    // The newest listing that came is of before the launch.
    let until = world.now() + MINUTE.times(8);
    world.with_cloud(|cloud| cloud.go_down(&"cloud".into(), until));
    world.run_for(MINUTE.times(5));
    let machine = the_only_machine(&world);
    // It comes again, twice. By the clock hours lie in between, in truth less than a minute.
    world.faults().inject(Call::List, Fault::Stale);
    world.run_for(Span::from_secs(31));
    world.faults().inject(Call::List, Fault::Stale);
    world.set_clock_ahead(Span::from_hours(2));
    world.run_for(Span::from_secs(20));
    assert!(world.fleet().instances.contains_key(&machine));
    ends_well(world, experiment);
}

#[test]
fn what_is_launched_while_the_clock_is_ahead_is_billed_from_then_on() {
    let mut world = World::new(1, Scenario::default());
    world.run_for(MINUTE);
    world.set_clock_ahead(DAY);
    let experiment = submit(&mut world, MINUTE.times(30));
    let world = ends_well(world, experiment);
    let (bill, _) = world.with_cloud(|cloud| cloud.whole_bill());
    let booked = world.fleet().budgets[&BudgetKey::Installation].spent;
    // But for what went by from when it was last heard until it was gone: a day is more than that.
    let a_minute = Usd::from_nanos(1_000_000_000 / 60);
    assert!(booked <= bill && booked + a_minute >= bill, "{booked} {bill}");
}
