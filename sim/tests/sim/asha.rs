//! Sweeps that are halved.

use bursar_model::{
    AshaMode, AshaRules, ExperimentId, ExperimentSpec, Outcome, Span, SpotPolicy, StopReason, Usd,
};
use bursar_sim::{Job, Scenario, World};

const DAY: Span = Span::from_hours(24);

fn rules() -> AshaRules {
    let (metric, resource) = ("loss".to_owned(), "step".to_owned());
    AshaRules { metric, mode: AshaMode::Min, resource, eta: 3, min: 10, max: 270 }
}

/// Trials of four and a half hours with each loss once, good and bad ones taking turns; the first is the best.
fn jobs(trials: i32) -> Vec<Job> {
    let of = |number: i32| Job { loss: Some(number * 8 % trials), ..Job::lasting(Span::from_secs(270 * 60)) };
    (0..trials).map(of).collect()
}

/// On-demand, so that costs can be told beforehand.
fn firm(job: Job) -> ExperimentSpec {
    ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..job.spec() }
}

/// A sweep of 27 trials on machines for one at a dollar an hour, six of which run at once, to its end.
fn sweep_within(budget: Usd) -> (World, Vec<ExperimentId>) {
    let mut scenario = Scenario::default();
    scenario.market.retain(|sold| sold.offering.instance_type.amounts().accelerators == 1);
    let mut world = World::new(1, scenario);
    let jobs = jobs(27);
    let sweep = world
        .submit_sweep("sweep", firm(jobs[0]), &jobs, Some(budget), None, Some(rules()))
        .expect("the daemon is up");
    world.settle(DAY.times(10));
    assert_eq!(world.findings(), []);
    assert_eq!(sweep.experiments.len(), 27);
    let (bill, _) = world.with_cloud(|cloud| cloud.whole_bill());
    assert!(bill <= budget, "{bill}");
    (world, sweep.experiments)
}

fn count(world: &World, trials: &[ExperimentId], wanted: impl Fn(&Outcome) -> bool) -> usize {
    trials.iter().filter(|trial| wanted(&world.outcome(**trial).expect("all is over"))).count()
}

#[test]
fn a_halved_sweep_finds_the_best_trial_for_an_eighth_of_the_cost_of_all() {
    // All to their ends would take 27 times 4.5 hours at a dollar each; 810 of these 7,290 minutes are 13.50.
    let (world, trials) = sweep_within(Usd::from_dollars(15));
    assert_eq!(world.outcome(trials[0]), Some(Outcome::Succeeded));
    assert_eq!(count(&world, &trials, |outcome| matches!(outcome, Outcome::Pruned { .. })), 26);
}

#[test]
fn a_budget_ends_a_halved_sweep_where_the_rest_would_not_reach_another_rung() {
    let (world, trials) = sweep_within(Usd::from_dollars(5));
    let stopped = |outcome: &Outcome| *outcome == Outcome::Stopped { why: StopReason::Budget };
    assert!(count(&world, &trials, stopped) > 0);
    assert!(count(&world, &trials, |outcome| matches!(outcome, Outcome::Refused { .. })) > 0);
    assert_eq!(count(&world, &trials, |outcome| *outcome == Outcome::Succeeded), 0);
}

#[test]
fn a_daemon_that_dies_again_and_again_still_finds_the_best_trial() {
    let mut world = World::new(1, Scenario::default());
    let jobs = jobs(9);
    let sweep = world
        .submit_sweep("sweep", firm(jobs[0]), &jobs, None, None, Some(rules()))
        .expect("the daemon is up");
    for _ in 0..40 {
        world.run_for(Span::from_secs(400));
        world.crash();
        world.restart();
    }
    world.settle(DAY.times(2));
    assert_eq!(world.findings(), []);
    assert_eq!(world.outcome(sweep.experiments[0]), Some(Outcome::Succeeded));
    assert_eq!(count(&world, &sweep.experiments, |outcome| *outcome == Outcome::Succeeded), 1);
}
