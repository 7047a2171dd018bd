use bursar_ledger::ExpectedCost;
use bursar_model::{
    BudgetAlert, BudgetKey, BudgetTerms, CostEstimate, Event, ExperimentId, Period, Span, Timestamp, Usd,
};

use super::outlook;
use crate::testing::{World, dollars, gpu, offering, spec};

/// An instance costs $4.00 an hour.
fn world() -> World {
    World::new(vec![offering(&gpu("one", "T4", 1), 4.0)])
}

fn project() -> BudgetKey {
    BudgetKey::Project("p".into())
}

/// An experiment that has run for so many minutes.
fn running_for(world: &mut World, minutes: i64) -> ExperimentId {
    let experiment = world.queue(&spec(&["T4:1"]));
    world.run();
    for _ in 0..minutes {
        world.pass(Span::from_secs(60));
        let _ = world.step();
    }
    experiment
}

fn tell(world: &mut World, key: &BudgetKey, alert: BudgetAlert) {
    let event = Event::BudgetAlerted { key: key.clone(), at: world.now, alert };
    world.fleet.apply(&event).unwrap();
}

/// What it was all spent in: the time since the world began.
fn recent(world: &World, began: Timestamp) -> [(Period, Usd); 1] {
    [(Period::new(began, world.now), world.fleet.budgets[&project()].spent)]
}

#[test]
fn spending_that_goes_on_is_said_to_use_a_budget_up_once_a_window() {
    let mut world = world();
    let began = world.now;
    world.limit(project(), 40.0);
    running_for(&mut world, 90);
    let ahead = outlook(&world.fleet).budgets;
    let [budget] = &ahead[..] else { panic!("{ahead:?}") };
    let alert = budget.alert(&recent(&world, began), began, world.now);
    // $6 of $40 in an hour and a half: the rest lasts eight and a half hours more.
    let Some(BudgetAlert::Forecast { breach_at }) = alert else { panic!("{alert:?}") };
    let hours = breach_at.since(world.now).as_millis() / 3_600_000;
    assert!((8..=9).contains(&hours), "{hours}");
    // With a day's row instead, which began long before the installation did, nothing changes.
    let midnight = began - Span::from_hours(12);
    let of_day = [(Period::new(midnight, midnight + Span::from_hours(24)), recent(&world, began)[0].1)];
    assert_eq!(budget.alert(&of_day, began, world.now), alert);

    tell(&mut world, &project(), alert.unwrap());
    assert!(outlook(&world.fleet).budgets.is_empty(), "somebody was told");
}

#[test]
fn a_budget_that_lasts_or_that_nobody_watches_is_no_matter() {
    let mut world = world();
    let began = world.now;
    let unwatched = BudgetTerms { thresholds: Vec::new(), ..BudgetTerms::of(dollars(40.0)) };
    world.set_terms(BudgetKey::Installation, unwatched);
    world.limit(project(), 40_000.0);
    running_for(&mut world, 90);
    let ahead = outlook(&world.fleet).budgets;
    let [budget] = &ahead[..] else { panic!("{ahead:?}") };
    assert_eq!(budget.key, project());
    assert_eq!(budget.alert(&recent(&world, began), began, world.now), None);
}

#[test]
fn an_experiment_far_above_its_estimate_is_told_of_once() {
    let mut world = world();
    let experiment = running_for(&mut world, 33);
    let expected = CostEstimate { expected: dollars(0.7), low: dollars(0.5), high: dollars(1.3) };
    world.fleet.experiments.get_mut(&experiment).unwrap().expected = Some(expected);
    // Half an hour is $2.20: less than a dollar above what it should not exceed.
    assert_eq!(outlook(&world.fleet).experiments[0].alert(None), None);
    for _ in 0..4 {
        world.pass(Span::from_secs(60));
        let _ = world.step();
    }
    let so_far = outlook(&world.fleet).experiments;
    let [found] = &so_far[..] else { panic!("{so_far:?}") };
    let alert = found.alert(None).unwrap();
    assert_eq!(alert, BudgetAlert::Anomaly { expected: dollars(0.7), high: dollars(1.3) });

    let key = BudgetKey::Experiment(experiment);
    tell(&mut world, &key, alert);
    assert!(outlook(&world.fleet).experiments.is_empty(), "somebody was told");
    world.limit(key, 100.0);
    assert!(outlook(&world.fleet).experiments.is_empty(), "another limit is no other cost");
}

#[test]
fn an_experiment_without_an_estimate_is_held_against_its_peers() {
    let mut world = world();
    let experiment = running_for(&mut world, 40);
    let so_far = outlook(&world.fleet).experiments;
    let [found] = &so_far[..] else { panic!("{so_far:?}") };
    assert_eq!(found.id, experiment);
    assert_eq!(found.alert(None), None);
    let peers = ExpectedCost { expected: dollars(1.0), high: dollars(1.35) };
    assert_eq!(
        found.alert(Some(peers)),
        Some(BudgetAlert::Anomaly { expected: peers.expected, high: peers.high })
    );
}
