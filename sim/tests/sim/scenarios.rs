//! One thing that goes wrong at a time, where it has to be done at every commit or judged by more than people are shown.
//! What a person would tell in a few lines is in `tests/scenarios`.

use std::sync::Arc;

use bursar_model::{
    BudgetTerms, ExperimentId, ExperimentSpec, IdGen, Instance, InstanceId, Outcome, Scope, Span, SpotPolicy,
    StopReason, Usd,
};
use bursar_providers::{
    ErrorKind,
    faulty::{Call, Fault},
};
use bursar_sim::{Job, Scenario, Troubles, World, small_market};
use bursar_store::InstanceFilter;

const DAY: Span = Span::from_hours(24);

fn minutes(minutes: i64) -> Span {
    Span::from_secs(minutes * 60)
}

fn world() -> World {
    World::new(1, Scenario::default())
}

/// On-demand, so that the cloud takes nothing back of itself.
fn firm(job: Job) -> ExperimentSpec {
    ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..job.spec() }
}

fn submit(world: &mut World, name: &str, spec: ExperimentSpec) -> ExperimentId {
    world.submit(name, spec).expect("the daemon is up")
}

fn settle(mut world: World) -> World {
    world.settle(DAY);
    assert_eq!(world.findings(), []);
    world
}

fn instances(world: &World) -> Vec<Instance> {
    world.reader().instances(&InstanceFilter::default(), None, 100).expect("the store reads").rows
}

fn the_only_machine(world: &World) -> InstanceId {
    match world.with_cloud(|cloud| cloud.running())[..] {
        [only] => only,
        ref others => panic!("{others:?} run"),
    }
}

#[test]
fn an_experiment_runs_to_its_end_and_costs_what_the_cloud_wants() {
    let mut world = world();
    let experiment = submit(&mut world, "one", firm(Job::lasting(minutes(90))));
    let world = settle(world);
    assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
    assert_eq!(world.finished(experiment), 1);
    let (bill, _) = world.with_cloud(|cloud| cloud.whole_bill());
    let booked: Usd = instances(&world).iter().map(|instance| instance.meter.costs.effective).sum();
    assert_eq!(booked, bill);
}

#[test]
fn a_launch_that_may_have_worked_is_not_given_up_because_later_calls_are_refused() {
    for refusal in [ErrorKind::Throttled { retry_after: None }, ErrorKind::Unavailable, ErrorKind::Auth] {
        let mut world = world();
        world.faults().inject(Call::Launch, Fault::LoseReply);
        for _ in 0..3 {
            world.faults().inject(Call::Launch, Fault::Refuse(refusal.clone()));
        }
        submit(&mut world, "one", firm(Job::lasting(minutes(30))));
        let world = settle(world);
        assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), 1, "{refusal:?}");
    }
}

#[test]
fn a_launch_refused_after_one_whose_reply_was_lost_leaves_nothing_that_runs() {
    let scope = Scope::of(&Scenario::default().market[0].offering.key());
    let refusals =
        [ErrorKind::InsufficientCapacity(scope.clone()), ErrorKind::Quota(scope), ErrorKind::Invalid];
    for (lost, launched) in [(Fault::LoseReply, 2), (Fault::LoseRequest, 1)] {
        for refusal in &refusals {
            let mut world = world();
            world.faults().inject(Call::Launch, lost.clone());
            world.faults().inject(Call::Launch, Fault::Refuse(refusal.clone()));
            submit(&mut world, "one", firm(Job::lasting(minutes(30))));
            let world = settle(world);
            assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), launched, "{lost:?} {refusal:?}");
            let (bill, _) = world.with_cloud(|cloud| cloud.whole_bill());
            let booked: Usd = instances(&world).iter().map(|instance| instance.meter.costs.effective).sum();
            // The launch of which nobody heard may be counted until its end was listed; one that never was costs nothing.
            assert!(launched == 2 || booked == bill, "{booked} {bill}");
        }
    }
}

#[test]
fn a_launch_whose_answer_was_not_stored_is_not_given_up_for_later_refusals() {
    let mut world = world();
    submit(&mut world, "one", firm(Job::lasting(minutes(30))));
    // It is on its way; the turn that takes its answer in finds the disk full.
    world.refuse_commits(1);
    for _ in 0..3 {
        world.run_for(Span::from_millis(300));
        world.faults().inject(Call::Launch, Fault::Refuse(ErrorKind::Throttled { retry_after: None }));
    }
    let world = settle(world);
    assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), 1);
}

#[test]
fn a_machine_that_hangs_is_ended_before_its_money_is_used_up() {
    let mut world = world();
    let experiment = submit(&mut world, "one", firm(Job::lasting(minutes(60))));
    world.run_for(minutes(20));
    let machine = the_only_machine(&world);
    world.with_cloud(|cloud| cloud.hang(machine));
    let world = settle(world);
    let ended = world.with_cloud(|cloud| cloud.ended(machine)).expect("the daemon ended it");
    let paid_until = instances(&world).iter().find(|i| i.id == machine).expect("it is known").paid_until();
    assert!(ended <= paid_until, "{ended} {paid_until}");
    assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
}

#[test]
fn a_machine_that_somebody_ends_by_hand_costs_no_failure() {
    let mut world = world();
    let experiment = submit(&mut world, "one", firm(Job::lasting(minutes(60))));
    world.run_for(minutes(20));
    let machine = the_only_machine(&world);
    world.with_cloud(|cloud| cloud.end_by_hand(machine));
    let world = settle(world);
    assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
    assert_eq!(world.finished(experiment), 1);
}

#[test]
fn what_belongs_to_another_installation_is_left_alone() {
    let mut world = world();
    let foreign = IdGen::new(99).instance(world.now());
    world.with_cloud(|cloud| cloud.add_stray(foreign, "somebody-else"));
    submit(&mut world, "one", firm(Job::lasting(minutes(30))));
    let world = settle(world);
    assert_eq!(world.with_cloud(|cloud| cloud.ended(foreign)), None);
}

#[test]
fn a_full_quota_sends_work_to_another_provider() {
    let everything = Scope {
        provider: "cloud".into(),
        region: None,
        zone: None,
        instance_type: None,
        capacity_type: None,
    };
    let market = ["cloud", "other"].into_iter().flat_map(|name| small_market(&name.into())).collect();
    let troubles = Troubles { quotas: vec![(everything, 1)], ..Troubles::default() };
    let mut world = World::new(1, Scenario { market, troubles, ..Scenario::default() });
    let experiments: Vec<ExperimentId> = (0..3)
        .map(|number| submit(&mut world, &format!("e{number}"), firm(Job::lasting(minutes(30)))))
        .collect();
    let world = settle(world);
    assert!(experiments.iter().all(|id| world.outcome(*id) == Some(Outcome::Succeeded)));
    let used = |name: &str| {
        let is_used =
            |i: &&Instance| i.offering.provider == name.into() && i.meter.costs.effective > Usd::ZERO;
        instances(&world).iter().filter(is_used).count()
    };
    assert_eq!((used("cloud"), used("other")), (1, 2));
}

#[test]
fn a_deposed_daemon_does_nothing_more_and_the_next_one_takes_over() {
    let mut world = world();
    let experiment = submit(&mut world, "one", firm(Job::lasting(minutes(60))));
    world.run_for(minutes(20));
    world.depose();
    // It ends at its next commit.
    assert!(!world.run_for(minutes(20)));
    assert!(!world.is_up());
    world.restart();
    let world = settle(world);
    assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
    assert_eq!(world.reader().attempts_of(experiment).unwrap().len(), 1);
}

#[test]
fn an_agent_quicker_than_the_answer_to_its_launch_makes_no_boot_free_of_charge() {
    let mut world = world();
    world.faults().inject(Call::Launch, Fault::LoseReply);
    submit(&mut world, "one", firm(Job::lasting(minutes(30))));
    world.run_for(Span::from_millis(900));
    let until = world.now() + minutes(8);
    world.with_cloud(|cloud| cloud.go_down(&"cloud".into(), until));
    // The books are held against the bill.
    let world = settle(world);
    assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), 1);
}

#[test]
fn a_daemon_that_never_comes_back_costs_no_more_than_the_lease() {
    let mut world = world();
    submit(&mut world, "one", firm(Job::lasting(DAY)));
    world.run_for(minutes(60));
    let machine = the_only_machine(&world);
    let paid_until = world.fleet().instances[&machine].paid_until();
    world.crash();
    world.run_for(DAY);
    let ended = world.with_cloud(|cloud| cloud.ended(machine)).expect("it powered itself off");
    assert!(ended <= paid_until, "{ended} {paid_until}");
    assert_eq!(world.findings(), []);
}

#[test]
fn a_budget_is_kept_though_the_daemon_dies_and_comes_back() {
    let limit = Some(Usd::from_dollars(2));
    let mut world = world();
    let spec = firm(Job::lasting(Span::from_hours(9)));
    let budget = limit.map(|limit| Arc::new(BudgetTerms::of(limit)));
    let spec = ExperimentSpec { budget, ..spec };
    let experiment = submit(&mut world, "long", spec);
    for _ in 0..4 {
        world.run_for(minutes(20));
        world.crash();
        world.run_for(minutes(5));
        world.restart();
    }
    let world = settle(world);
    assert_eq!(world.outcome(experiment), Some(Outcome::Stopped { why: StopReason::Budget }));
    let (bill, doubt) = world.with_cloud(|cloud| cloud.whole_bill());
    assert!(bill <= Usd::from_dollars(2) + doubt, "{bill}");
    assert!(bill > Usd::from_nanos(1_500_000_000), "most of the budget was used: {bill}");
}

#[test]
fn one_old_listing_makes_nobody_forget_a_machine() {
    let mut world = world();
    submit(&mut world, "one", firm(Job::lasting(minutes(20))));
    world.run_for(minutes(5));
    // The cloud answers as before the launch, once.
    submit(&mut world, "two", firm(Job::lasting(minutes(60))));
    world.run_for(Span::from_millis(1500));
    let list_failed = Fault::Refuse(ErrorKind::Unavailable);
    for _ in 0..60 {
        world.faults().inject(Call::List, list_failed.clone());
    }
    world.run_for(minutes(8));
    world.faults().inject(Call::List, Fault::Stale);
    let world = settle(world);
    assert_eq!(world.with_cloud(|cloud| cloud.launched().len()), 2);
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut world = world();
    let experiment = submit(&mut world, "one", firm(Job::lasting(minutes(30))));
    for _ in 0..6 {
        world.run_for(minutes(2));
        world.refuse_commits(3);
    }
    let world = settle(world);
    assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
    assert_eq!(world.finished(experiment), 1);
}

#[test]
fn a_sweep_shares_machines_and_runs_each_trial_once() {
    let mut world = world();
    let jobs: Vec<Job> = (1..=8).map(|number| Job::lasting(minutes(10 * number))).collect();
    let sweep = world.submit_sweep("sweep", firm(jobs[0]), &jobs, None, Some(4), None).unwrap();
    let world = settle(world);
    for trial in sweep.experiments {
        assert_eq!(world.outcome(trial), Some(Outcome::Succeeded));
        assert_eq!(world.finished(trial), 1);
    }
}
