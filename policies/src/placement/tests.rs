//! Golden plans: small worlds in, plans and reasons out.

use std::sync::Arc;

use bursar_model::{
    AttemptEnd, BudgetKey, Deadline, Estimate, Event, ExperimentState, Instance, Offering, Outcome, Quota,
    QuotaUse, Scope, Span, SpotPolicy, Together, WaitingOn,
};

use crate::Plan;
use crate::testing::{World, cpu, dollars, gpu, offering, per_hour, render, spec, spot};

fn t4s() -> World {
    let (one, four) = (gpu("one", "T4", 1), gpu("four", "T4", 4));
    World::new(vec![
        offering(&one, 1.0),
        spot(&one, 0.4, 1.0),
        offering(&four, 3.0),
        spot(&four, 1.2, 3.0),
        offering(&cpu("cpu", 8), 0.3),
    ])
}

#[test]
fn one_experiment_gets_the_cheapest_that_fits_and_many_share_what_is_cheapest_for_each() {
    let mut world = t4s();
    for _ in 0..6 {
        world.queue(&spec(&["T4:1"]));
    }
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn whoever_an_instance_was_launched_for_gets_it() {
    let mut world = t4s();
    let first = world.queue(&spec(&["T4:1"]));
    let _ = world.step();
    let mut urgent = spec(&["T4:1"]);
    urgent.priority = 9;
    world.boot();
    world.boot();
    let second = world.queue(&urgent);
    let plan = world.step();
    insta::assert_snapshot!(render(&plan));
    assert!(matches!(world.fleet.experiments[&first].state, ExperimentState::Running { .. }));
    assert_eq!(world.fleet.experiments[&second].state, ExperimentState::Queued);
}

#[test]
fn free_places_are_taken_by_priority_then_age_before_anything_is_launched() {
    let mut world = t4s();
    world.settings.max_instances = 1;
    let old = world.queue(&spec(&["T4:1"]));
    world.run();
    let (younger, urgent) = (world.queue(&spec(&["T4:1"])), {
        let mut urgent = spec(&["T4:1"]);
        urgent.priority = 1;
        world.queue(&urgent)
    });
    assert!(world.step().events.is_empty());
    world.pass(Span::from_secs(60));
    world.end(world.attempt_of(old), AttemptEnd::Exited { code: 0 });
    let plan = world.step();
    insta::assert_snapshot!(render(&plan));
    assert!(matches!(world.fleet.experiments[&urgent].state, ExperimentState::Running { .. }));
    assert_eq!(world.fleet.experiments[&younger].state, ExperimentState::Queued);
}

#[test]
fn every_reason_to_wait_is_told() {
    let mut world = t4s();
    world.market = crate::Market::new(
        world.market.offerings().iter().cloned().chain([offering(&gpu("free", "L4", 1), 0.0)]).collect(),
    );
    world.settings.max_instances = 1;
    let mut wanted =
        vec![spec(&["T4:1"]), spec(&["T4:8"]), spec(&["A100:1"]), spec(&["L4:1"]), spec(&["T4:4"])];
    let mut cheap = spec(&["T4:1"]);
    cheap.max_price = Some(per_hour(0.1));
    let mut cpu_spot = spec(&[]);
    cpu_spot.spot_policy = SpotPolicy::Spot;
    cpu_spot.resources.cpus_milli = 64_000;
    wanted.extend([cheap, cpu_spot]);
    for spec in &wanted {
        world.queue(spec);
    }
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn refused_parts_of_the_market_are_left_alone_until_their_time() {
    let mut world = t4s();
    world.queue(&spec(&["T4:1"]));
    let scope = |zone: Option<&str>, name: Option<&str>| Scope {
        provider: "cloud".into(),
        region: None,
        zone: zone.map(Into::into),
        instance_type: name.map(Into::into),
        capacity_type: None,
    };
    let until = world.now + Span::from_secs(60);
    world.apply(&Event::CapacityRefused { scope: scope(None, Some("one")), failures: 1, until });
    let bigger = render(&world.look());
    world.apply(&Event::CapacityRefused { scope: scope(Some("r1a"), None), failures: 1, until });
    let none = world.look();
    assert_eq!(none.wake_at, Some(until));
    insta::assert_snapshot!(format!("{bigger}---\n{}", render(&none)));
    world.pass(Span::from_secs(60));
    assert_eq!(world.step().events.len(), 1);
}

#[test]
fn a_launch_that_no_budget_can_hold_waits_or_is_refused() {
    let mut world = t4s();
    let sweep = world.sweep(2, None);
    // A lease with its allowance is 12 minutes: a fifth of the hourly price.
    world.limit(BudgetKey::Sweep(sweep), 0.15);
    let trials =
        [world.queue_in(&spec(&["T4:1"]), Some(sweep)), world.queue_in(&spec(&["T4:1"]), Some(sweep))];
    world.limit(BudgetKey::Project("p".into()), 0.21);
    world.queue(&spec(&["T4:1"]));
    world.queue(&spec(&["T4:1"]));
    let plan = world.step();
    insta::assert_snapshot!(render(&plan));
    for trial in trials {
        let ended = &world.fleet.experiments[&trial].state;
        assert!(
            matches!(ended, ExperimentState::Ended { outcome: Outcome::Refused { .. }, .. }),
            "{ended:?}"
        );
    }
}

#[test]
fn what_cannot_be_held_together_is_held_apart_or_by_fewer() {
    let mut world =
        World::new(vec![offering(&gpu("one", "T4", 1), 1.0), offering(&gpu("four", "T4", 4), 3.0)]);
    world.limit(BudgetKey::Installation, 0.45);
    for _ in 0..4 {
        world.queue(&spec(&["T4:1"]));
    }
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn a_sweep_runs_at_most_max_parallel_trials() {
    let mut world = t4s();
    let sweep = world.sweep(5, Some(2));
    for _ in 0..5 {
        world.queue_in(&spec(&["T4:1"]), Some(sweep));
    }
    insta::assert_snapshot!(render(&world.step()));
    world.run();
    assert_eq!(world.fleet.sweeps[&sweep].running, 2);
}

#[test]
fn different_experiments_share_a_launch_of_the_same_plan() {
    let mut world = World::new(vec![offering(&gpu("four", "T4", 4), 3.0), offering(&cpu("cpu", 8), 0.3)]);
    let mut roomy = spec(&["T4:2"]);
    roomy.resources.disk_gib = 500;
    world.queue(&spec(&["T4:1"]));
    world.queue(&roomy);
    world.queue(&spec(&[]));
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn near_its_deadline_an_experiment_goes_on_demand() {
    let mut world = t4s();
    let mut hurried = spec(&["T4:1"]);
    hurried.estimate =
        Some(Estimate { duration: Span::from_hours(2), on: None, speeds: std::collections::BTreeMap::new() });
    hurried.deadline = Some(Deadline::After(Span::from_hours(3)));
    world.queue(&hurried);
    hurried.deadline = Some(Deadline::After(Span::from_hours(5)));
    world.queue(&hurried);
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn a_faster_accelerator_is_worth_its_price() {
    let mut world =
        World::new(vec![offering(&gpu("t4", "T4", 1), 1.0), offering(&gpu("a100", "A100", 1), 3.0)]);
    let mut fast = spec(&["T4:1", "A100:1"]);
    let speeds = [("T4".into(), 1.0), ("A100".into(), 4.0)].into();
    fast.estimate = Some(Estimate { duration: Span::from_hours(8), on: Some("T4".into()), speeds });
    world.queue(&fast);
    world.queue(&spec(&["T4:1", "A100:1"]));
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn several_assigned_at_once_get_their_own_accelerators_and_shares() {
    let mut world = World::new(vec![offering(&gpu("four", "T4", 4), 3.0)]);
    for _ in 0..3 {
        world.queue(&spec(&["T4:1"]));
    }
    let _ = world.step();
    world.boot();
    world.pass(Span::from_secs(30));
    world.boot();
    world.pass(Span::from_secs(5));
    insta::assert_snapshot!(render(&world.step()));
}

#[test]
fn a_trial_takes_over_a_part_that_its_sweep_holds_already() {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    let sweep = world.sweep(2, None);
    world.limit(BudgetKey::Sweep(sweep), 0.21);
    let first = world.queue_in(&spec(&["T4:1"]), Some(sweep));
    let second = world.queue_in(&spec(&["T4:1"]), Some(sweep));
    world.run();
    world.pass(Span::from_secs(60));
    assert!(world.step().events.is_empty(), "it waits for what its sweep holds");
    world.end(world.attempt_of(first), AttemptEnd::Exited { code: 0 });
    let _ = world.step();
    assert!(matches!(world.fleet.experiments[&second].state, ExperimentState::Running { .. }));
    assert!(world.fleet.budgets[&BudgetKey::Sweep(sweep)].held <= dollars(0.21));
}

#[test]
fn an_experiment_without_accelerators_keeps_off_dear_machines() {
    let mut world = World::new(vec![offering(&gpu("four", "T4", 4), 3.0), offering(&cpu("cpu", 8), 0.3)]);
    world.queue(&spec(&["T4:1"]));
    world.run();
    world.queue(&spec(&[]));
    let plan = world.step();
    assert!(render(&plan).contains("launch ins1 as cloud/r1a/cpu"), "{}", render(&plan));
}

#[test]
fn a_launch_leaves_what_runs_the_money_for_its_next_lease() {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    // A lease with its allowance holds 0.20: room for two of them, and not for a third lease.
    world.limit(BudgetKey::Installation, 0.45);
    let first = world.queue(&spec(&["T4:1"]));
    world.run();
    world.pass(Span::from_secs(150));
    world.queue(&spec(&["T4:1"]));
    let plan = world.step();
    assert!(
        !plan.events.iter().any(|event| matches!(event, Event::InstanceIntended { .. })),
        "{}",
        render(&plan)
    );
    insta::assert_snapshot!(render(&plan));
    for _ in 0..3 {
        world.pass(Span::from_secs(150));
        let plan = world.step();
        assert!(
            !plan.events.iter().any(|event| matches!(event, Event::AttemptStopping { .. })),
            "{}",
            render(&plan)
        );
    }
    assert!(matches!(world.fleet.experiments[&first].state, ExperimentState::Running { .. }));
}

#[test]
fn spot_whose_notice_is_too_short_to_save_in_is_not_used() {
    let one = gpu("one", "T4", 1);
    let noticed = |price, zone: &str, secs| Offering {
        zone: zone.into(),
        notice: Some(Span::from_secs(secs)),
        ..spot(&one, price, 1.0)
    };
    let market = vec![noticed(0.2, "a", 30), noticed(0.4, "b", 120), offering(&one, 1.0)];
    let launched = |world: &World| -> Vec<String> {
        let events = world.look().events.into_iter();
        let keys = events.filter_map(|event| {
            if let Event::InstanceIntended { instance } = event {
                Some(instance.offering.key())
            } else {
                None
            }
        });
        keys.map(|key| format!("{} {}", key.zone, key.capacity_type)).collect()
    };
    let mut careful = spec(&["T4:1"]);
    for (takes, accept_loss, expected) in
        [(10, false, "a spot"), (60, false, "b spot"), (300, false, "r1a on-demand"), (300, true, "a spot")]
    {
        careful.checkpoint.takes = Some(Span::from_secs(takes));
        careful.checkpoint.accept_loss = accept_loss;
        let mut world = World::new(market.clone());
        world.queue(&careful);
        assert_eq!(launched(&world), [expected], "{takes} {accept_loss}");
    }
    // What was measured counts too, and who can only have spot is told why it waits.
    let mut world = World::new(market[..1].to_vec());
    let id = world.queue(&spec(&["T4:1"]));
    assert_eq!(launched(&world), ["a spot"]);
    world.fleet.experiments.get_mut(&id).unwrap().checkpoint_took = Some(Span::from_millis(30_001));
    let plan = world.look();
    assert_eq!(launched(&world), Vec::<String>::new());
    let why = plan.waiting[0].1.to_string();
    assert!(why.ends_with("is spot with a notice of 31s, which saving takes"), "{why}");
}

#[test]
fn a_launch_sends_nobody_away_who_waits_for_a_place_on_another() {
    let mut world =
        World::new(vec![offering(&gpu("one", "T4", 1), 1.0), offering(&gpu("four", "T4", 4), 3.0)]);
    world.limit(BudgetKey::Project("p".into()), 1.15);
    world.queue(&spec(&["T4:3"]));
    let _ = world.step();
    // The last place of the four goes to the first, so the second launches. What it keeps from then on for its next
    // lease is not there for a launch, but the first needs none.
    let first = world.queue(&spec(&["T4:1"]));
    world.queue(&spec(&["T4:1"]));
    let plan = world.step();
    assert_eq!(plan.events.len(), 1, "{}", render(&plan));
    let waits_for = |plan: &crate::Plan| plan.waiting.iter().find(|(id, _)| *id == first).cloned();
    assert_eq!(waits_for(&world.look()), waits_for(&plan));
}

fn counted(offering: Offering, name: &str, limit: u32) -> Offering {
    let quota = Quota { name: name.into(), title: "All of them".into(), limit };
    let units = offering.instance_type.cpus_milli / 1000;
    Offering { quota: Some(QuotaUse { quota: Arc::new(quota), units }), ..offering }
}

fn launch(event: &Event) -> Option<&Instance> {
    if let Event::InstanceIntended { instance } = event { Some(instance) } else { None }
}

fn launched(plan: &Plan) -> Vec<&Instance> {
    plan.events.iter().filter_map(launch).collect()
}

#[test]
fn launches_fit_into_quotas_and_what_does_not_goes_elsewhere_or_waits_for_the_quota() {
    let (small, other) = (gpu("small", "T4", 1), gpu("other", "L4", 1));
    let cpus = small.cpus_milli / 1000;
    // Two of the cheap ones are allowed, in two zones that share the quota.
    let cheap = counted(spot(&small, 0.4, 1.0), "here/spot", 2 * cpus + 1);
    let mut world = World::new(vec![
        Offering { zone: "z2".into(), ..cheap.clone() },
        cheap,
        counted(offering(&other, 2.0), "here/firm", cpus),
    ]);
    let experiments: Vec<_> = (0..4).map(|_| world.queue(&spec(&["T4:1", "L4:1"]))).collect();
    let plan = world.step();
    let names: Vec<&str> =
        launched(&plan).iter().map(|one| one.offering.instance_type.name.as_str()).collect();
    assert_eq!(names, ["small", "small", "other"]);
    let Some((waits, WaitingOn::Quota { used, needed, .. })) = plan.waiting.last() else {
        panic!("{:?}", plan.waiting)
    };
    assert_eq!((*waits, *needed), (experiments[3], cpus));
    assert!(*used == 2 * cpus || *used == cpus);
    // What ends makes room.
    world.run();
    world.end(world.attempt_of(experiments[0]), AttemptEnd::Exited { code: 0 });
    let _ = world.step();
    assert!(matches!(world.fleet.experiments[&experiments[3]].state, ExperimentState::Running { .. }));
}

#[test]
fn a_gang_that_does_not_fit_into_a_quota_goes_where_all_of_it_does() {
    let (small, large) = (gpu("small", "T4", 1), gpu("large", "T4", 1));
    let cpus = small.cpus_milli / 1000;
    let mut world = World::new(vec![
        counted(offering(&small, 1.0), "here", 2 * cpus),
        counted(offering(&large, 2.0), "there", 3 * cpus),
    ]);
    let mut three = spec(&["T4:1"]);
    three.num_nodes = 3;
    world.queue(&three);
    let plan = world.step();
    assert!(launched(&plan).iter().all(|one| one.offering.instance_type.name.as_str() == "large"));
    assert_eq!(launched(&plan).len(), 3);
}

#[test]
fn launches_that_are_alike_are_asked_for_by_one_call_and_those_of_a_gang_by_one_of_their_own() {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    for _ in 0..20 {
        world.queue(&spec(&["T4:1"]));
    }
    let mut three = spec(&["T4:1"]);
    three.num_nodes = 3;
    let gang = world.queue(&three);
    let plan = world.step();
    let mut calls: Vec<_> = launched(&plan).iter().map(|one| one.together.clone().unwrap()).collect();
    calls.dedup();
    let sizes: Vec<(usize, bool)> = calls.iter().map(|call| (call.instances.len(), call.whole)).collect();
    assert_eq!(sizes, [(Together::MAX, false), (6, false), (3, true)]);
    for launch in launched(&plan) {
        let call = launch.together.clone().unwrap();
        assert!(call.instances.contains(&launch.id) && call.lease_until == launch.lease_until);
        assert_eq!(call.whole, launch.shares.contains_key(&gang));
    }
}
