//! What becomes of instances and attempts, one rule each.

use bursar_model::{
    AttemptEnd, AttemptId, AttemptState, BudgetKey, BudgetTerms, DrainReason, Event, ExperimentId,
    ExperimentState, IdleAction, InstanceId, InstanceState, Outcome, Price, Span, StopReason, Usd,
    UtilizationPolicy,
};

use crate::{
    Plan,
    testing::{World, dollars, gpu, offering, per_hour, spec, spot},
};

/// One experiment that runs on an instance at $1.00/h on-demand. The lease is 10 minutes, the allowance 2.
fn running() -> (World, ExperimentId, InstanceId) {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    let experiment = world.queue(&spec(&["T4:1"]));
    world.run();
    let instance = *world.fleet.instances.keys().next().unwrap();
    (world, experiment, instance)
}

fn stops(plan: &Plan) -> Vec<StopReason> {
    let stop = |event: &Event| if let Event::AttemptStopping { why, .. } = event { Some(*why) } else { None };
    plan.events.iter().filter_map(stop).collect()
}

fn state(world: &World, instance: InstanceId) -> &InstanceState {
    &world.fleet.instances[&instance].state
}

#[test]
fn a_lease_is_extended_once_a_third_of_it_is_used_and_not_before() {
    let (mut world, _, instance) = running();
    let due = world.fleet.instances[&instance].lease_until - Span::from_secs(400);
    assert_eq!(world.look().wake_at, Some(due));
    world.pass(Span::from_secs(199));
    assert_eq!(world.step().events, []);
    world.pass(Span::from_secs(1));
    let _ = world.step();
    assert_eq!(world.fleet.instances[&instance].lease_until, world.now + world.settings.lease);
    let held = world.fleet.instances[&instance].held();
    assert!(held >= per_hour(1.0).cost_rounded_up(Span::from_secs(720)), "{held} is held");
}

#[test]
fn near_a_cap_work_is_told_to_stop_early_enough_to_save_itself() {
    let (mut world, experiment, instance) = running();
    world.limit(BudgetKey::Experiment(experiment), 0.21);
    let lease_until = world.fleet.instances[&instance].lease_until;
    world.pass(Span::from_secs(301));
    let plan = world.step();
    assert_eq!(plan.events, [], "nothing is charged for a lease that is not had");
    assert!(plan.wake_at.is_some_and(|at| at < lease_until), "{:?}", plan.wake_at);
    world.pass(Span::from_secs(235));
    assert_eq!(world.step().events, [], "it works for as long as it may");
    world.pass(Span::from_secs(1));
    assert_eq!(stops(&world.step()), [StopReason::Budget], "63 s are left: its grace twice, and a margin");
    assert!(matches!(state(&world, instance), InstanceState::Draining { why: DrainReason::Budget, .. }));
    world.pass(Span::from_secs(5));
    let attempt = world.attempt_of(experiment);
    world.end(attempt, AttemptEnd::Stopped { why: StopReason::Budget });
    let _ = world.step();
    assert!(matches!(state(&world, instance), InstanceState::Terminating { .. }));
    world.sweep_up();
    let budget = &world.fleet.budgets[&BudgetKey::Project("p".into())];
    assert_eq!(budget.held, Usd::ZERO);
    assert!(budget.spent <= dollars(0.21));
}

#[test]
fn a_project_without_money_makes_its_work_wait_instead_of_ending_it() {
    let (mut world, experiment, _) = running();
    world.limit(BudgetKey::Project("p".into()), 0.21);
    world.pass(Span::from_secs(540));
    assert_eq!(stops(&world.step()), [StopReason::Unfunded]);
    world.end(world.attempt_of(experiment), AttemptEnd::Stopped { why: StopReason::Unfunded });
    assert_eq!(world.fleet.experiments[&experiment].state, ExperimentState::Queued);
}

#[test]
fn who_cannot_pay_for_another_lease_leaves_and_the_others_go_on() {
    let mut world = World::new(vec![offering(&gpu("two", "T4", 2), 2.0)]);
    let (wealthy, poor) = (world.queue(&spec(&["T4:1"])), world.queue(&spec(&["T4:1"])));
    world.limit(BudgetKey::Experiment(poor), 0.25);
    world.run();
    let instance = *world.fleet.instances.keys().next().unwrap();
    assert_eq!(world.fleet.attempts.len(), 2, "they share it");
    world.pass(Span::from_secs(540));
    let poor_attempt = world.attempt_of(poor);
    let plan = world.step();
    assert_eq!(stops(&plan), [StopReason::Budget]);
    assert!(matches!(world.fleet.attempts[&poor_attempt].state, AttemptState::Stopping { .. }));
    assert!(matches!(state(&world, instance), InstanceState::Ready { .. }));
    world.pass(Span::from_secs(10));
    world.end(poor_attempt, AttemptEnd::Stopped { why: StopReason::Budget });
    let _ = world.step();
    assert_eq!(world.fleet.instances[&instance].lease_until, world.now + world.settings.lease);
    assert!(matches!(world.fleet.experiments[&wealthy].state, ExperimentState::Running { .. }));
}

#[test]
fn what_loses_instance_after_instance_is_put_apart_and_ends() {
    let mut world = World::new(vec![offering(&gpu("two", "T4", 2), 2.0)]);
    let (suspect, bystander) = (world.queue(&spec(&["T4:1"])), world.queue(&spec(&["T4:1"])));
    world.run();
    world.end(world.attempt_of(suspect), AttemptEnd::InstanceLost { interrupted: false });
    world.pass(Span::from_secs(1));
    world.run();
    let instance_of = |world: &World, id| world.fleet.attempts[&world.attempt_of(id)].nodes[0].instance;
    assert_ne!(instance_of(&world, suspect), instance_of(&world, bystander), "nobody is put beside it");
    for _ in 0..4 {
        world.end(world.attempt_of(suspect), AttemptEnd::InstanceLost { interrupted: false });
        world.pass(Span::from_secs(30));
        world.run();
    }
    assert!(!world.fleet.experiments.contains_key(&suspect), "five in a row are its end");
    assert!(matches!(world.fleet.experiments[&bystander].state, ExperimentState::Running { .. }));
}

#[test]
fn a_launch_that_is_not_settled_within_its_lease_or_that_nobody_needs_is_ended() {
    for cancel in [false, true] {
        let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
        let experiment = world.queue(&spec(&["T4:1"]));
        let _ = world.step();
        let instance = *world.fleet.instances.keys().next().unwrap();
        if cancel {
            world.apply(&Event::CancelRequested { experiment });
        } else {
            world.pass(Span::from_secs(600));
        }
        let _ = world.step();
        assert!(matches!(
            state(&world, instance),
            InstanceState::Terminating { why: DrainReason::Unneeded, .. }
        ));
    }
}

#[test]
fn an_instance_with_nothing_to_do_is_ended_after_idle_duration() {
    let (mut world, experiment, instance) = running();
    world.end(world.attempt_of(experiment), AttemptEnd::Exited { code: 0 });
    world.pass(Span::from_secs(299));
    let _ = world.step();
    assert!(matches!(state(&world, instance), InstanceState::Ready { .. }));
    world.pass(Span::from_secs(1));
    let _ = world.step();
    assert!(matches!(state(&world, instance), InstanceState::Terminating { why: DrainReason::Idle, .. }));
}

#[test]
fn after_a_notice_work_is_told_to_save_itself_while_its_next_instance_boots() {
    let (mut world, experiment, instance) = running();
    world.settings.idle_duration = Span::from_secs(1);
    let gone_at = world.now + Span::from_secs(120);
    world.apply(&Event::InstanceNoticed { instance, gone_at });
    let plan = world.step();
    assert_eq!(stops(&plan), [StopReason::Interrupted]);
    let launched = |plan: &Plan| {
        plan.events.iter().filter(|event| matches!(event, Event::InstanceIntended { .. })).count()
    };
    assert_eq!(launched(&plan), 1, "it is replaced in the same plan");
    world.boot();
    world.boot();
    world.pass(Span::from_secs(10));
    let plan = world.step();
    assert_eq!(launched(&plan), 0, "once");
    let next = world.fleet.instances.values().find(|other| other.id != instance).unwrap().id;
    assert!(matches!(state(&world, next), InstanceState::Ready { .. }), "it is not idle, but awaited");
    assert_eq!(world.fleet.attempts.len(), 1, "and works only once the old attempt has ended");
    world.end(world.attempt_of(experiment), AttemptEnd::Stopped { why: StopReason::Interrupted });
    let _ = world.step();
    assert!(world.fleet.attempts[&world.attempt_of(experiment)].is_on(next));
}

#[test]
fn what_is_cancelled_or_cannot_pay_for_two_instances_is_not_replaced_while_it_saves() {
    for cancelled in [true, false] {
        let (mut world, experiment, instance) = running();
        if cancelled {
            world.apply(&Event::CancelRequested { experiment });
        } else {
            let held = world.fleet.budgets[&BudgetKey::Installation].committed();
            world.set_terms(BudgetKey::Installation, BudgetTerms::of(held));
        }
        let gone_at = world.now + Span::from_secs(120);
        world.apply(&Event::InstanceNoticed { instance, gone_at });
        let plan = world.step();
        assert!(!plan.events.iter().any(|event| matches!(event, Event::InstanceIntended { .. })));
        assert!(!plan.events.iter().any(|event| matches!(event, Event::ExperimentEnded { .. })));
    }
}

#[test]
fn a_price_above_the_ceiling_moves_the_work() {
    let mut world = World::new(vec![spot(&gpu("one", "T4", 1), 0.4, 1.0)]);
    world.queue(&spec(&["T4:1"]));
    world.run();
    let instance = *world.fleet.instances.keys().next().unwrap();
    for (price, expected) in [(1.0, vec![]), (1.01, vec![StopReason::Moved])] {
        world.apply(&Event::PriceChanged { instance, at: world.now, price: Price::plain(per_hour(price)) });
        assert_eq!(stops(&world.step()), expected, "at {price}");
    }
}

#[test]
fn a_cancelled_experiment_stops_or_never_starts() {
    let (mut world, running, _) = running();
    let waiting = world.queue(&spec(&["T4:1"]));
    for experiment in [running, waiting] {
        world.apply(&Event::CancelRequested { experiment });
    }
    assert_eq!(stops(&world.step()), [StopReason::Cancelled]);
    let ended = &world.fleet.experiments[&waiting].state;
    assert!(matches!(ended, ExperimentState::Ended { outcome: Outcome::Cancelled, .. }), "{ended:?}");
    assert!(matches!(
        world.fleet.attempts[&world.attempt_of(running)].state,
        AttemptState::Stopping { why: StopReason::Cancelled, .. }
    ));
}

#[test]
fn an_attempt_stops_at_its_max_duration() {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    let mut short = spec(&["T4:1"]);
    short.max_duration = Some(Span::from_secs(100));
    world.queue(&short);
    world.run();
    world.pass(Span::from_secs(99));
    assert_eq!(stops(&world.step()), []);
    world.pass(Span::from_secs(1));
    assert_eq!(stops(&world.step()), [StopReason::MaxDuration]);
}

/// An experiment on a GPU that its agent reported idle a minute ago, under this policy of half an hour.
fn idle(action: IdleAction) -> (World, AttemptId) {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    let mut wary = spec(&["T4:1"]);
    // Longer than all that passes here, so that renewals do not matter.
    world.settings.lease = Span::from_hours(10);
    wary.utilization_policy =
        Some(UtilizationPolicy { min_gpu_utilization: 10, time_window: Span::from_secs(1800), action });
    let experiment = world.queue(&wary);
    world.run();
    let attempt = world.attempt_of(experiment);
    world.apply(&Event::GpuIdle { attempt, since: Some(world.now - Span::from_secs(60)) });
    (world, attempt)
}

#[test]
fn an_experiment_whose_gpu_stays_idle_ends_when_the_window_is_over() {
    let (mut world, _) = idle(IdleAction::Stop);
    world.pass(Span::from_secs(1739));
    assert_eq!(stops(&world.step()), []);
    world.pass(Span::from_secs(1));
    assert_eq!(stops(&world.step()), [StopReason::IdleGpu]);
    assert!(!StopReason::IdleGpu.requeues());
}

#[test]
fn a_gpu_that_is_used_again_saves_its_experiment() {
    let (mut world, attempt) = idle(IdleAction::Stop);
    world.apply(&Event::GpuIdle { attempt, since: None });
    world.pass(Span::from_secs(7200));
    assert_eq!(stops(&world.step()), []);
}

#[test]
fn where_nobody_wants_it_stopped_somebody_is_told_once() {
    let (mut world, attempt) = idle(IdleAction::Notify);
    let alerts = |plan: &Plan| {
        plan.events.iter().filter(|event| matches!(event, Event::IdleGpuAlerted { .. })).count()
    };
    world.pass(Span::from_secs(1740));
    let plan = world.step();
    assert_eq!((alerts(&plan), stops(&plan)), (1, vec![]));
    world.pass(Span::from_secs(60));
    world.apply(&Event::GpuIdle { attempt, since: Some(world.now - Span::from_secs(1850)) });
    assert_eq!(alerts(&world.step()), 0);
}

#[test]
fn a_silent_agent_is_given_up() {
    let (mut world, _, instance) = running();
    world.now = world.now + world.settings.silence_timeout;
    let _ = world.step();
    assert!(matches!(
        state(&world, instance),
        InstanceState::Terminating { why: DrainReason::AgentLost, .. }
    ));
}

#[test]
fn an_agent_that_never_comes_is_given_up_after_boot_timeout() {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    world.queue(&spec(&["T4:1"]));
    let _ = world.step();
    world.boot();
    let instance = *world.fleet.instances.keys().next().unwrap();
    world.settings.boot_timeout = Span::from_secs(60);
    world.pass(Span::from_secs(59));
    let _ = world.step();
    assert!(matches!(state(&world, instance), InstanceState::Booting { .. }));
    world.pass(Span::from_secs(1));
    let _ = world.step();
    assert!(matches!(
        state(&world, instance),
        InstanceState::Terminating { why: DrainReason::AgentLost, .. }
    ));
}

#[test]
fn an_instance_that_outlives_what_is_held_is_charged_to_its_last_payer_though_that_is_over() {
    let (mut world, experiment, instance) = running();
    world.end(world.attempt_of(experiment), AttemptEnd::Exited { code: 0 });
    let paid_until = world.fleet.instances[&instance].paid_until();
    world.now = paid_until;
    world.heard.insert(instance, paid_until);
    let _ = world.step();
    let _ = world.fleet.take_changes();
    assert_eq!(world.fleet.instances[&instance].held(), Usd::ZERO);
    assert!(world.fleet.budgets.contains_key(&BudgetKey::Experiment(experiment)));

    world.now = world.now + Span::from_secs(10);
    world.heard.insert(instance, world.now);
    assert!(
        world.charge(instance).is_none(),
        "it is charged no further than it is paid for while it may be gone"
    );
    // As it is charged once the cloud says when it ended.
    let found = &world.fleet.instances[&instance];
    let charged = bursar_ledger::meter(found, std::iter::empty(), world.now, &Default::default()).unwrap();
    charged.into_events().for_each(|event| world.apply(&event));
    world.apply(&Event::InstanceGone { instance, at: world.now, end: bursar_model::InstanceEnd::Vanished });
    let _ = world.fleet.take_changes();
    assert!(!world.fleet.budgets.contains_key(&BudgetKey::Experiment(experiment)));
}

#[test]
fn a_silent_agent_gets_neither_new_work_nor_another_lease_until_it_is_heard() {
    let mut world = World::new(vec![offering(&gpu("two", "T4", 2), 2.0)]);
    world.settings.max_instances = 1;
    world.queue(&spec(&["T4:1"]));
    world.run();
    let instance = *world.fleet.instances.keys().next().unwrap();
    let lease_until = world.fleet.instances[&instance].lease_until;
    world.now = world.now + Span::from_secs(250);
    let second = world.queue(&spec(&["T4:1"]));
    assert_eq!(world.step().events, []);
    world.pass(Span::ZERO);
    let _ = world.step();
    let _ = world.step();
    assert!(world.fleet.instances[&instance].lease_until > lease_until);
    assert!(matches!(world.fleet.experiments[&second].state, ExperimentState::Running { .. }));
}

#[test]
fn what_is_due_to_stop_for_two_reasons_at_once_is_told_once() {
    let mut world = World::new(vec![offering(&gpu("one", "T4", 1), 1.0)]);
    let mut limited = spec(&["T4:1"]);
    limited.max_duration = Some(Span::from_secs(60));
    let experiment = world.queue(&limited);
    world.run();
    let instance = *world.fleet.instances.keys().next().unwrap();
    world.pass(Span::from_secs(60));
    world.apply(&Event::InstanceNoticed { instance, gone_at: world.now + Span::from_secs(120) });
    // `step` checks that every event is legal.
    assert_eq!(stops(&world.step()), [StopReason::MaxDuration]);
    assert!(matches!(
        world.fleet.attempts[&world.attempt_of(experiment)].state,
        AttemptState::Stopping { why: StopReason::MaxDuration, .. }
    ));
}
