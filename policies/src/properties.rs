//! What must be true of every plan, over random worlds and over what becomes of them.
#![expect(clippy::float_arithmetic, reason = "prices are made up of tenths of a dollar")]

use std::sync::Arc;

use bursar_ledger::{Metered, quote};
use bursar_model::{
    AttemptEnd, BillingRules, BudgetKey, BudgetTerms, CapacityType, CheckpointSpec, Event, ExperimentId,
    ExperimentSpec, ExperimentState, Offering, OnExhausted, Price, Quota, QuotaUse, Schedule, Scope, Span,
    SpotPolicy, Terms, WaitingOn,
};
use proptest::prelude::*;

use crate::{
    Verdict, candidates,
    testing::{World, cpu, gpu, offering, per_hour, spec, spot},
};

/// What happens to a world between two plans.
#[derive(Debug, Clone)]
enum Happening {
    Queue(Box<ExperimentSpec>, bool),
    Boot,
    Pass(i64),
    End(prop::sample::Index, AttemptEnd),
    Notice(prop::sample::Index),
    Price(prop::sample::Index, f64),
    Refuse(prop::sample::Index, i64),
    Cancel(prop::sample::Index),
    Budget(BudgetKey, BudgetTerms),
    SweepUp,
}

fn offerings() -> impl Strategy<Value = Vec<Offering>> {
    let kind =
        (prop::sample::select(vec!["T4", "L4", "A100", ""]), prop::sample::select(vec![1_u32, 2, 4, 8]));
    // As a cloud bills: by the second, a minute at least, with a disk and an overhead.
    let billed = Terms {
        billing: BillingRules::PER_SECOND,
        disk_gib: per_hour(0.002),
        address: per_hour(0.005),
        overhead: per_hour(0.01),
        disk_min_gib: 20,
    };
    let terms = prop_oneof![Just(Terms::default()), Just(billed)];
    let listed = (kind, 0_u32..60, any::<bool>(), terms);
    let listed = listed.prop_map(|((accelerator, count), price, is_spot, terms)| {
        let name = format!("{accelerator}x{count}");
        let kind =
            if accelerator.is_empty() { cpu(&name, 4 * count) } else { gpu(&name, accelerator, count) };
        let notice = (is_spot && price % 2 == 1).then_some(Span::from_secs(30));
        let price = f64::from(price) / 10.0;
        let listed = if is_spot { spot(&kind, price, price * 2.0) } else { offering(&kind, price) };
        quote(Offering { notice, ..listed }, &terms, &[])
    });
    // Spot counts in a quota of the account now and then.
    (prop::collection::vec(listed, 0..14), prop::option::weighted(0.3, 0_u32..40)).prop_map(
        |(mut offered, limit)| {
            for offering in offered.iter_mut().filter(|one| one.capacity_type == CapacityType::Spot) {
                let quota = |limit| Arc::new(Quota { name: "spot".into(), title: "All spot".into(), limit });
                let units = offering.instance_type.cpus_milli / 1000;
                offering.quota = limit.map(|limit| QuotaUse { quota: quota(limit), units });
            }
            offered
        },
    )
}

fn specs() -> impl Strategy<Value = ExperimentSpec> {
    let accelerators =
        prop::sample::subsequence(vec!["T4:1", "T4:2", "L4:1", "L4:4", "A100:1", "A100:8"], 0..3);
    let policy = prop::sample::select(vec![
        SpotPolicy::Auto,
        SpotPolicy::Auto,
        SpotPolicy::Spot,
        SpotPolicy::OnDemand,
    ]);
    let money = (prop::option::weighted(0.2, 1_u32..60), prop::option::weighted(0.2, 1_u32..30));
    let project = prop::sample::select(vec!["p", "p", "q"]);
    let nodes = prop::sample::select(vec![1_u32, 1, 1, 2, 3]);
    (accelerators, policy, money, 1_u32..9, -1_i32..2, project, nodes).prop_map(
        |(accelerators, policy, (max_price, budget), cpus, priority, project, num_nodes)| ExperimentSpec {
            project: project.into(),
            spot_policy: policy,
            max_price: max_price.map(|tenths| per_hour(f64::from(tenths) / 10.0)),
            budget: budget
                .map(|tenths| Arc::new(BudgetTerms::of(crate::testing::dollars(f64::from(tenths) / 10.0)))),
            priority,
            num_nodes,
            checkpoint: CheckpointSpec {
                takes: (cpus % 3 == 0).then_some(Span::from_secs(60)),
                ..CheckpointSpec::default()
            },
            resources: bursar_model::Resources { cpus_milli: 500 * cpus, ..spec(&accelerators).resources },
            ..spec(&accelerators)
        },
    )
}

/// Caps of all kinds: over everything or by the hour, and with each way to end work.
fn budgets() -> impl Strategy<Value = (BudgetKey, BudgetTerms)> {
    let keys = vec![
        BudgetKey::Installation,
        BudgetKey::Project("p".into()),
        BudgetKey::User(bursar_model::UserName::new("ada")),
    ];
    let ends = vec![OnExhausted::CheckpointAndStop, OnExhausted::Stop, OnExhausted::FinishRunning];
    let terms = (1_u32..100, any::<bool>(), prop::sample::select(ends));
    (prop::sample::select(keys), terms).prop_map(|(key, (tenths, hourly, on_exhausted))| {
        let schedule = hourly.then(|| Schedule::parse("hour", None).unwrap());
        let limit = crate::testing::dollars(f64::from(tenths) / 10.0);
        (key, BudgetTerms { schedule, on_exhausted, ..BudgetTerms::of(limit) })
    })
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let end = prop::sample::select(vec![
        AttemptEnd::Exited { code: 0 },
        AttemptEnd::Exited { code: 1 },
        AttemptEnd::InstanceLost { interrupted: true },
    ]);
    let one = prop_oneof![
        4 => (specs(), any::<bool>()).prop_map(|(spec, in_sweep)| Happening::Queue(Box::new(spec), in_sweep)),
        3 => Just(Happening::Boot),
        3 => (1_i64..400).prop_map(Happening::Pass),
        2 => (any::<prop::sample::Index>(), end).prop_map(|(index, end)| Happening::End(index, end)),
        1 => any::<prop::sample::Index>().prop_map(Happening::Notice),
        1 => (any::<prop::sample::Index>(), 0.1_f64..12.0).prop_map(|(index, price)| Happening::Price(index, price)),
        1 => (any::<prop::sample::Index>(), 1_i64..600).prop_map(|(index, secs)| Happening::Refuse(index, secs)),
        1 => any::<prop::sample::Index>().prop_map(Happening::Cancel),
        1 => budgets().prop_map(|(key, terms)| Happening::Budget(key, terms)),
        1 => Just(Happening::SweepUp),
    ];
    prop::collection::vec(one, 1..40)
}

fn happen(world: &mut World, sweep: bursar_model::SweepId, happening: Happening) {
    match happening {
        Happening::Queue(spec, in_sweep) => {
            let sweep = Some(sweep).filter(|_| in_sweep);
            if sweep.is_some_and(|id| world.fleet.sweeps.contains_key(&id)) {
                world.fleet.sweeps.get_mut(&sweep.unwrap()).unwrap().open += 1;
                world.queue_in(&spec, sweep);
            } else {
                world.queue(&spec);
            }
        }
        Happening::Boot => world.boot(),
        Happening::Pass(secs) => world.pass(Span::from_secs(secs)),
        Happening::End(index, end) => {
            let ids: Vec<_> = world.fleet.attempts.keys().copied().collect();
            if !ids.is_empty() {
                let attempt = *index.get(&ids);
                if world.fleet.attempts[&attempt].started_at.is_none() {
                    world.apply(&Event::AttemptStarted { attempt, at: world.now });
                }
                world.end(attempt, end);
            }
        }
        Happening::Notice(index) => {
            let ids: Vec<_> = world.fleet.instances.keys().copied().collect();
            if !ids.is_empty() {
                let gone_at = world.now + Span::from_secs(120);
                world.apply(&Event::InstanceNoticed { instance: *index.get(&ids), gone_at });
            }
        }
        Happening::Price(index, price) => {
            let ids: Vec<_> = world.fleet.instances.keys().copied().collect();
            if !ids.is_empty() {
                // As the daemon does it: charged at the old price up to the change.
                let id = *index.get(&ids);
                for event in world.charge(id).into_iter().flat_map(Metered::into_events) {
                    world.apply(&event);
                }
                // Above the ceiling a charge could exceed what is held: that is for the reconciler to keep short.
                let price = per_hour(price).min(world.fleet.instances[&id].ceiling);
                world.apply(&Event::PriceChanged { instance: id, at: world.now, price: Price::plain(price) });
            }
        }
        Happening::Refuse(index, secs) => {
            if !world.market.offerings().is_empty() {
                let scope = Scope::of(&index.get(world.market.offerings()).key());
                let until = world.now + Span::from_secs(secs);
                world.apply(&Event::CapacityRefused { scope, failures: 1, until });
            }
        }
        Happening::Cancel(index) => {
            let ids: Vec<ExperimentId> = world.fleet.experiments.keys().copied().collect();
            if !ids.is_empty() {
                world.apply(&Event::CancelRequested { experiment: *index.get(&ids) });
            }
        }
        Happening::Budget(key, terms) => world.set_terms(key, terms),
        Happening::SweepUp => world.sweep_up(),
    }
}

/// Of two experiments that want the same for the same money, the one that comes first does not wait for a place that
/// the other gets.
fn order_is_kept(world: &World, plan: &crate::Plan) -> Result<(), TestCaseError> {
    let without_place = |id: &ExperimentId| {
        plan.waiting.iter().any(|(waiting, why)| {
            waiting == id && !matches!(why, WaitingOn::Instance { .. } | WaitingOn::Backoff { .. })
        })
    };
    let queued: Vec<_> = world
        .fleet
        .experiments
        .values()
        .filter(|e| e.state == ExperimentState::Queued && !e.cancelled)
        .collect();
    let launched =
        |id: ExperimentId| world.fleet.instances.values().any(|instance| instance.shares.contains_key(&id));
    for first in &queued {
        for second in &queued {
            // What has its instance already is not displaced; budgets of its own make an experiment different.
            let comparable = first.spec == second.spec
                && first.account == second.account
                && (first.queued_at, first.id) < (second.queued_at, second.id)
                && world.fleet.spec(first).budget.is_none()
                && second.not_before.is_none()
                && !launched(second.id);
            if comparable && without_place(&first.id) {
                prop_assert!(
                    without_place(&second.id)
                        || plan.events.iter().any(|event| matches!(event, Event::ExperimentEnded { experiment, .. } if *experiment == second.id)),
                    "{} waits and {} does not",
                    first.id,
                    second.id
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_sound_whatever_happens(
        offerings in offerings(),
        queued in prop::collection::vec((specs(), any::<bool>()), 0..12),
        (installation, project, trials) in (10_u32..200, prop::option::of(2_u32..60), prop::option::of(1_u32..40)),
        max_instances in 1_u32..6,
        max_parallel in prop::option::of(1_u32..3),
        happenings in happenings(),
    ) {
        let mut world = World::new(offerings);
        world.settings.max_instances = max_instances;
        world.limit(BudgetKey::Installation, f64::from(installation) / 10.0);
        if let Some(tenths) = project {
            world.limit(BudgetKey::Project("p".into()), f64::from(tenths) / 10.0);
        }
        let sweep = world.sweep(0, max_parallel);
        if let Some(tenths) = trials {
            world.limit(BudgetKey::Sweep(sweep), f64::from(tenths) / 10.0);
        }
        let start = queued.into_iter().map(|(spec, in_sweep)| Happening::Queue(Box::new(spec), in_sweep));
        for happening in start {
            happen(&mut world, sweep, happening);
        }
        for happening in happenings {
            let plan = world.look();
            order_is_kept(&world, &plan)?;
            // Makes it true, and fails where `check` finds anything.
            let _ = world.step();
            happen(&mut world, sweep, happening);
            for (key, budget) in &world.fleet.budgets {
                // What was committed when the limit was lowered may land, and not a nano-dollar more.
                prop_assert!(
                    budget.ceiling().is_none_or(|most| budget.committed() <= most),
                    "{key}: {budget:?}"
                );
            }
        }
        let _ = world.step();
    }

    #[test]
    fn the_table_of_candidates_chooses_as_the_planner_does(
        offerings in offerings(),
        spec in specs(),
        limit in prop::option::of(1_u32..30),
        refused in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut world = World::new(offerings);
        if let Some(tenths) = limit {
            world.limit(BudgetKey::Project("p".into()), f64::from(tenths) / 10.0);
        }
        if let Some(index) = refused.filter(|_| !world.market.offerings().is_empty()) {
            happen(&mut world, bursar_model::TypedId::from_u64(0), Happening::Refuse(index, 60));
        }
        let account = bursar_model::Account { project: spec.project.clone(), user: "ada".into(), sweep: None };
        let table = candidates(&world.input(), &spec, &account, usize::MAX);
        let chosen: Vec<_> = table.iter().filter(|row| row.verdict == Verdict::Chosen).collect();
        world.queue(&spec);
        let mut launched = std::collections::BTreeMap::new();
        for event in world.look().events {
            if let Event::InstanceIntended { instance } = event {
                *launched.entry(instance.offering.key()).or_insert(bursar_model::Usd::ZERO) += instance.held();
            }
        }
        prop_assert_eq!(
            chosen.iter().map(|row| (row.offering.clone(), row.hold)).collect::<Vec<_>>(),
            launched.into_iter().map(|(key, held)| (key, Some(held))).collect::<Vec<_>>()
        );
        prop_assert!(table.iter().skip(1).all(|row| row.verdict != Verdict::Chosen), "chosen comes first");
    }
}
