use std::collections::BTreeSet;

use bursar_model::{
    AttemptEnd, BudgetKey, BudgetTerms, Category, DrainReason, Event, ExperimentId, ExperimentSpec,
    InstanceEnd, InstanceId, InstanceState, Offering, Scope, Span, StopReason, Usd, WaitingOn,
};

use crate::{
    Plan,
    testing::{World, gpu, offering, per_hour, spec},
};

fn gang(nodes: u32) -> ExperimentSpec {
    ExperimentSpec { num_nodes: nodes, ..spec(&["T4:1"]) }
}

/// One machine in two zones, the second dearer.
fn zones() -> World {
    let kind = gpu("one", "T4", 1);
    let dearer = Offering { zone: "r1b".into(), ..offering(&kind, 1.5) };
    World::new(vec![offering(&kind, 1.0), dearer])
}

fn launched(plan: &Plan) -> Vec<(InstanceId, String)> {
    let launch = |event: &Event| {
        let Event::InstanceIntended { instance } = event else { return None };
        Some((instance.id, instance.offering.zone.to_string()))
    };
    plan.events.iter().filter_map(launch).collect()
}

fn given_back(plan: &Plan) -> Vec<InstanceId> {
    let given = |event: &Event| {
        let Event::InstanceTerminating { instance, why: DrainReason::Unneeded, .. } = event else {
            return None;
        };
        Some(*instance)
    };
    plan.events.iter().filter_map(given).collect()
}

fn refuse(world: &mut World, instance: InstanceId) {
    let scope = Scope::of(&world.fleet.instances[&instance].offering.key());
    world.apply(&Event::CapacityRefused { scope, failures: 1, until: world.now + Span::from_secs(60) });
    let end = InstanceEnd::Refused { message: "none left".to_owned() };
    world.apply(&Event::InstanceGone { instance, at: world.now, end });
    let _ = world.fleet.take_changes();
}

#[test]
fn all_nodes_are_launched_in_one_zone_and_begin_together() {
    let mut world = zones();
    let experiment = world.queue(&gang(3));
    let plan = world.step();
    assert_eq!(launched(&plan).iter().map(|(_, zone)| zone.as_str()).collect::<Vec<_>>(), ["r1a"; 3]);
    world.boot();
    world.boot();
    let _ = world.step();
    let attempt = &world.fleet.attempts[&world.attempt_of(experiment)];
    assert_eq!(attempt.instances().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn the_first_node_that_is_there_waits_for_the_last_though_nothing_may_be_idle() {
    let mut world = zones();
    world.settings.idle_duration = Span::ZERO;
    world.queue(&gang(2));
    let first = launched(&world.step())[0].0;
    let cloud = bursar_model::CloudInstance {
        cloud_id: "c".into(),
        instance: first,
        state: bursar_model::CloudState::Running,
        launched_at: world.now,
        running_at: None,
        stopping_at: None,
        notice: None,
    };
    world.apply(&Event::InstanceLaunched { cloud, at: world.now });
    let (at, address) = (world.now, std::net::Ipv4Addr::LOCALHOST.into());
    world.apply(&Event::AgentRegistered {
        instance: first,
        at,
        token_digest: String::new(),
        address,
        host: None,
    });
    world.pass(Span::from_secs(200));
    let plan = world.step();
    assert!(matches!(world.fleet.instances[&first].state, InstanceState::Ready { .. }));
    assert!(world.fleet.attempts.is_empty(), "{plan:?}");
}

#[test]
fn what_the_budget_does_not_pay_for_as_a_whole_is_not_launched_in_part() {
    let mut world = zones();
    world.queue(&gang(1));
    let Some(Event::InstanceIntended { instance }) = world.look().events.pop() else { panic!() };
    let for_one = instance.held();
    let mut world = zones();
    let experiment = world.queue(&gang(2));
    let enough = for_one + for_one;
    world.set_terms(BudgetKey::Installation, BudgetTerms::of(enough - Usd::from_nanos(1)));
    let plan = world.step();
    assert_eq!(launched(&plan), []);
    let [(waiting, WaitingOn::Budget(no_room))] = &plan.waiting[..] else { panic!("{plan:?}") };
    assert_eq!((*waiting, no_room.needed), (experiment, enough));
    world.set_terms(BudgetKey::Installation, BudgetTerms::of(enough));
    assert_eq!(launched(&world.step()).len(), 2);
}

#[test]
fn more_nodes_than_there_may_be_instances_are_waited_for_with_a_reason() {
    let mut world = zones();
    world.settings.max_instances = 2;
    let experiment = world.queue(&gang(3));
    let plan = world.step();
    assert_eq!(plan.waiting, [(experiment, WaitingOn::InstanceLimit { limit: 2 })]);
}

#[test]
fn where_one_node_is_refused_the_others_are_given_back_and_all_are_launched_elsewhere() {
    let mut world = zones();
    world.queue(&gang(2));
    let nodes = launched(&world.step());
    refuse(&mut world, nodes[0].0);
    let plan = world.step();
    assert_eq!(given_back(&plan), [nodes[1].0]);
    assert_eq!(launched(&plan).iter().map(|(_, zone)| zone.as_str()).collect::<Vec<_>>(), ["r1b"; 2]);
}

#[test]
fn where_one_node_is_refused_and_nothing_else_will_do_nothing_half_launched_is_kept() {
    let kind = gpu("one", "T4", 1);
    let mut world = World::new(vec![offering(&kind, 1.0)]);
    let experiment = world.queue(&gang(2));
    let nodes = launched(&world.step());
    world.boot();
    world.boot();
    refuse_in_place(&mut world, nodes[0].0);
    let plan = world.step();
    assert_eq!((launched(&plan), given_back(&plan)), (vec![], vec![nodes[1].0]));
    assert!(matches!(&plan.waiting[..], [(id, WaitingOn::Capacity { .. })] if *id == experiment));
    world.sweep_up();
    world.pass(Span::from_secs(60));
    assert_eq!(launched(&world.step()).len(), 2, "asked for again, all together");
}

/// It came up, ended at once, and its place is left alone.
fn refuse_in_place(world: &mut World, instance: InstanceId) {
    let scope = Scope::of(&world.fleet.instances[&instance].offering.key());
    world.apply(&Event::CapacityRefused { scope, failures: 1, until: world.now + Span::from_secs(60) });
    world.apply(&Event::InstanceGone { instance, at: world.now, end: InstanceEnd::Vanished });
    let _ = world.fleet.take_changes();
}

/// The cloud takes back the instance of its second node, and with that its attempt is over.
fn lose_second_node(world: &mut World, experiment: ExperimentId) {
    let attempt = world.attempt_of(experiment);
    let lost = world.fleet.attempts[&attempt].nodes[1].instance;
    world.end(attempt, AttemptEnd::InstanceLost { interrupted: true });
    world.apply(&Event::InstanceGone { instance: lost, at: world.now, end: InstanceEnd::Interrupted });
    let _ = world.fleet.take_changes();
}

#[test]
fn after_one_node_is_lost_the_others_wait_for_one_more_beside_them() {
    let mut world = zones();
    let experiment = world.queue(&gang(3));
    world.run();
    lose_second_node(&mut world, experiment);
    let plan = world.step();
    assert_eq!(launched(&plan).len(), 1);
    assert_eq!(given_back(&plan), []);
    world.boot();
    world.boot();
    let _ = world.step();
    assert_eq!(world.fleet.attempts[&world.attempt_of(experiment)].nodes.len(), 3);
}

#[test]
fn at_a_notice_to_one_node_all_are_told_to_stop_and_one_more_is_launched() {
    let mut world = zones();
    let experiment = world.queue(&gang(2));
    world.run();
    let attempt = world.attempt_of(experiment);
    let instance = world.fleet.attempts[&attempt].nodes[0].instance;
    let gone_at = world.now + Span::from_secs(120);
    world.apply(&Event::InstanceNoticed { instance, gone_at });
    let plan = world.step();
    let stopping =
        |event: &&Event| matches!(event, Event::AttemptStopping { why: StopReason::Interrupted, .. });
    assert_eq!(plan.events.iter().filter(stopping).count(), 1);
    assert_eq!(launched(&plan).len(), 1);
    world.end(attempt, AttemptEnd::Stopped { why: StopReason::Interrupted });
    world.boot();
    world.boot();
    let _ = world.step();
    let next = &world.fleet.attempts[&world.attempt_of(experiment)];
    assert!(next.nodes.len() == 2 && !next.is_on(instance));
}

#[test]
fn nodes_that_another_gang_leaves_are_taken_at_once() {
    let mut world = zones();
    let first = world.queue(&gang(2));
    world.run();
    let second = world.queue(&gang(2));
    world.settings.max_instances = 2;
    world.end(world.attempt_of(first), AttemptEnd::Exited { code: 0 });
    let plan = world.step();
    assert_eq!(launched(&plan), []);
    assert_eq!(world.fleet.attempts[&world.attempt_of(second)].nodes.len(), 2);
}

#[test]
fn each_node_is_charged_and_what_is_lost_is_lost_on_each() {
    let mut world = zones();
    let experiment = world.queue(&gang(2));
    world.run();
    let attempt = world.attempt_of(experiment);
    world.pass(Span::from_secs(3600));
    let at = world.now.min(world.fleet.instances.values().next().unwrap().paid_until());
    let ran = at.since(world.now - Span::from_secs(3600));
    let end = AttemptEnd::InstanceLost { interrupted: true };
    let events = crate::attempt_ended(&world.fleet, &world.heard, attempt, at, end, Some(1));
    let charges = events.iter().filter_map(|event| {
        let Event::Charged { charge, .. } = event else { return None };
        Some(charge)
    });
    let lost = charges.filter(|charge| charge.lines.iter().any(|line| line.category == Category::Lost));
    assert_eq!(lost.count(), 2);
    for event in &events {
        world.apply(event);
    }
    let spent = world.fleet.budgets[&BudgetKey::Experiment(experiment)].spent;
    let on_each = per_hour(1.0).cost_rounded_up(ran);
    assert!((spent - on_each - on_each).as_nanos().abs() < 10, "{spent}");
    let Some(Event::AttemptEnded { node, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(*node, Some(1));
}

#[test]
fn a_node_that_was_not_heard_of_late_is_not_charged_up_to_the_end_of_the_others() {
    let mut world = zones();
    let experiment = world.queue(&gang(2));
    world.run();
    let attempt = world.attempt_of(experiment);
    let silent = world.fleet.attempts[&attempt].nodes[0].instance;
    world.pass(Span::from_secs(60));
    let heard = world.now;
    world.pass(Span::from_secs(60));
    world.heard.insert(silent, heard);
    let end = AttemptEnd::InstanceLost { interrupted: false };
    let events = crate::attempt_ended(&world.fleet, &world.heard, attempt, world.now, end, Some(1));
    let until = |instance: InstanceId| {
        let charges = events.iter().filter_map(|event| {
            let Event::Charged { charge, .. } = event else { return None };
            (charge.instance == instance).then_some(charge.period.to)
        });
        charges.max()
    };
    assert_eq!(until(silent), Some(heard), "it may have been gone since");
    assert_eq!(until(world.fleet.attempts[&attempt].nodes[1].instance), Some(world.now));
}

#[test]
fn nobody_takes_over_a_node_that_waits_for_the_others_of_its_gang() {
    let mut world = World::new(vec![offering(&gpu("two", "T4", 2), 1.0)]);
    let experiment = world.queue(&ExperimentSpec { num_nodes: 2, ..spec(&[]) });
    world.run();
    lose_second_node(&mut world, experiment);
    // They would use all that the gang pays for and does not use yet.
    for _ in 0..2 {
        world.queue(&spec(&["T4:1"]));
    }
    let plan = world.step();
    assert_eq!(launched(&plan).len(), 1, "the others share it");
    world.boot();
    world.boot();
    assert_eq!(launched(&world.step()), []);
    assert_eq!(world.fleet.attempts[&world.attempt_of(experiment)].nodes.len(), 2);
}
