//! Whether a plan is sound, judged without the planner's help.
//!
//! It applies the plan's events to a copy of the state and looks at what comes out: legality (S2), budgets (B1, B2),
//! attempts (E1), an answer for everything that waits (E2), and that no ceiling, constraint, refusal or limit is
//! broken (P1). It shares no code with placement and looks at everything the slow way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_ledger::WorstCase;
use bursar_model::{
    Attempt, AttemptState, BudgetKey, CapacityType, Event, Experiment, ExperimentId, ExperimentSpec,
    ExperimentState, Fleet, IdGen, Instance, InstanceState, InvariantId, Resources, SpotPolicy, Standing,
    StopReason, Usd, Violation, invariant,
};

use crate::{Plan, PlanInput, plan};

/// A plan that charges, ends or stops something leaves the placing on it to the next one, and what that launches has
/// to be seen once more: after so many rounds there must be nothing left to do.
const ROUNDS_TO_FIXPOINT: usize = 4;

/// Everything that is wrong with a plan for this input. Empty when all is well.
#[must_use]
pub fn check(input: &PlanInput<'_>, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut found = |invariant, detail| violations.push(Violation { invariant, detail });
    let mut after = input.fleet.clone();
    for event in &plan.events {
        judge(input, &after, event, &mut found);
        if let Err(illegal) = after.apply(event) {
            found(InvariantId::S2, illegal.to_string());
        }
    }
    instance_limit(input, &after, &mut found);
    quotas_hold(input, &after, &mut found);
    nothing_above_its_ceiling(&after, &mut found);
    what_is_over_lands(input, &after, &mut found);
    gangs_are_whole(plan, &after, &mut found);
    sweeps_within_max_parallel(input, &after, &mut found);
    everything_is_answered(input, plan, &after, &mut found);
    violations.extend(new_state_violations(input.fleet, &after));
    violations.extend(fixpoint(input, after));
    violations
}

type Found<'f> = dyn FnMut(InvariantId, String) + 'f;

fn judge(input: &PlanInput<'_>, fleet: &Fleet, event: &Event, found: &mut Found<'_>) {
    match event {
        Event::InstanceIntended { instance } => judge_launch(input, fleet, instance, found),
        Event::AttemptAssigned { attempt, .. } => judge_assignment(input, fleet, attempt, found),
        Event::ExperimentEnded { experiment, .. } => {
            if fleet.experiments.get(experiment).is_none_or(Experiment::is_ended) {
                found(InvariantId::E2, format!("{experiment} ends and was over"));
            }
        }
        Event::TrialPromoted { experiment, rung } => judge_promotion(fleet, *experiment, *rung, found),
        Event::Charged { .. }
        | Event::LeaseExtended { .. }
        | Event::InstanceDraining { .. }
        | Event::InstanceTerminating { .. }
        | Event::BudgetAlerted { .. }
        | Event::IdleGpuAlerted { .. }
        | Event::AttemptStopping { .. } => {}
        Event::SpecAdded { .. }
        | Event::SweepQueued { .. }
        | Event::ExperimentQueued { .. }
        | Event::CancelRequested { .. }
        | Event::BudgetSet { .. }
        | Event::BudgetWindowBegan { .. }
        | Event::BillingBegan { .. }
        | Event::BillCorrected { .. }
        | Event::InstanceLaunched { .. }
        | Event::AgentRegistered { .. }
        | Event::InstanceNoticed { .. }
        | Event::InstanceAtRisk { .. }
        | Event::CallFailed { .. }
        | Event::PriceChanged { .. }
        | Event::InstanceGone { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptRecorded { .. }
        | Event::AttemptCheckpointed { .. }
        | Event::MetricsReported { .. }
        | Event::GpuIdle { .. }
        | Event::RungReached { .. }
        | Event::NodeLost { .. }
        | Event::AttemptEnded { .. }
        | Event::CapacityRefused { .. }
        | Event::CapacityFound { .. }
        | Event::NotificationQueued { .. }
        | Event::NotificationDelivered { .. }
        | Event::NotificationFailed { .. }
        | Event::NotificationDropped { .. }
        | Event::ReportReached { .. } => {
            found(InvariantId::P1, format!("a plan says what only the world can say: {event:?}"));
        }
    }
}

fn judge_launch(input: &PlanInput<'_>, fleet: &Fleet, instance: &Instance, found: &mut Found<'_>) {
    let mut wrong = |what: &str| found(InvariantId::P1, format!("{} {what}", instance.id));
    let key = instance.offering.key();
    let listed = input.market.offerings().iter().find(|offering| offering.key() == key);
    if listed != Some(&instance.offering) {
        wrong("is launched from no offering of the market");
    }
    if instance.offering.known_price() != Some(instance.price) {
        wrong("is launched at no known price");
    }
    if instance.ceiling < instance.price.effective {
        wrong("starts above its ceiling");
    }
    if input.settings.max_price.is_some_and(|most| instance.ceiling > most) {
        wrong("may cost more than the configuration's max_price");
    }
    let refused = |(scope, refused): (&bursar_model::Scope, &bursar_model::RefusedScope)| {
        refused.until > input.now && scope.covers(&instance.offering)
    };
    if fleet.refused.iter().any(refused) {
        wrong("is of a part of the market that refused lately");
    }
    if instance.lease_until != input.now + input.settings.lease
        || instance.drain_allowance != input.settings.drain_allowance
    {
        wrong("is not paid for one lease");
    }
    let whole = WorstCase::of_instance(instance)
        .cost(instance.outstanding(instance.meter.through, instance.held_until()));
    if instance.held() < whole {
        wrong("holds less than it may come to cost");
    }
    // Apart from how holds are worked out: what it costs if its price stays as it is, its disk included.
    let billed =
        instance.offering.terms.billing.billed(input.settings.lease + input.settings.drain_allowance);
    if instance.held() < instance.rates_at(instance.price).effective.cost_rounded_up(billed) {
        wrong("holds less than it costs at its price");
    }
    if instance.shares.is_empty() {
        wrong("is launched for nobody");
    }
    let mut rest = instance.offering.instance_type.amounts();
    for payer in instance.shares.keys() {
        let Some(experiment) = fleet.experiments.get(payer) else {
            wrong("is paid for by somebody unknown");
            continue;
        };
        let spec = fleet.spec(experiment);
        if experiment.state != ExperimentState::Queued && !is_moving(fleet, experiment)
            || experiment.not_before.is_some_and(|at| at > input.now)
        {
            wrong("is launched for somebody who does not wait for it");
        }
        if is_paused(fleet, experiment) {
            wrong("is launched for somebody who is paused at a rung");
        }
        if let Some(what) = breaks(spec, instance) {
            wrong(&format!("does not suit {payer}: {what}"));
        }
        match spec.resources.amounts_on(&instance.offering.instance_type) {
            Some(amounts) if rest.fits(amounts) => rest = rest.minus(amounts),
            _ => wrong("is launched for more than fits"),
        }
    }
}

fn judge_assignment(input: &PlanInput<'_>, fleet: &Fleet, attempt: &Attempt, found: &mut Found<'_>) {
    let mut wrong = |what: &str| found(InvariantId::P1, format!("{} {what}", attempt.id));
    let Some(experiment) = fleet.experiments.get(&attempt.experiment) else {
        return wrong("is an attempt of nobody");
    };
    let spec = fleet.spec(experiment);
    let mut places = BTreeSet::new();
    for node in &attempt.nodes {
        let Some(instance) = fleet.instances.get(&node.instance) else {
            return wrong("is assigned to nothing");
        };
        places.insert(instance.offering.key());
        if instance.notice.is_some() {
            wrong("starts on an instance that the cloud takes back");
        }
        if let Some(what) = breaks(spec, instance) {
            wrong(&format!("does not suit its instance: {what}"));
        }
        if spec.resources.amounts_on(&instance.offering.instance_type) != Some(attempt.amounts) {
            wrong("takes something else than its spec says");
        }
        let others = fleet.attempts_on(instance.id).filter_map(|other| other.node_on(instance.id));
        let others: BTreeSet<u32> = others.flat_map(|(_, other)| other.devices.iter().copied()).collect();
        let own: BTreeSet<u32> = node.devices.iter().copied().collect();
        let total = instance.offering.instance_type.amounts().accelerators;
        if own.len() != attempt.amounts.accelerators as usize
            || own.len() != node.devices.len()
            || own.iter().any(|device| *device >= total || others.contains(device))
        {
            wrong("has the wrong accelerators");
        }
    }
    let instances: BTreeSet<_> = attempt.instances().collect();
    if instances.len() != spec.num_nodes as usize || attempt.nodes.len() != instances.len() {
        wrong("has not as many instances as nodes");
    }
    if places.len() > 1 {
        wrong("has nodes of several offerings");
    }
    if experiment.cancelled || experiment.not_before.is_some_and(|at| at > input.now) {
        wrong("starts though its experiment is not to run now");
    }
    if is_paused(fleet, experiment) {
        wrong("starts though its experiment is paused at a rung");
    }
    if attempt.number != experiment.attempts + 1 || attempt.assigned_at != input.now {
        wrong("has the wrong number or time");
    }
}

/// Whether the cloud interrupts what an experiment runs, so that it may be launched for before that has ended.
fn is_moving(fleet: &Fleet, experiment: &Experiment) -> bool {
    let ExperimentState::Running { attempt } = experiment.state else { return false };
    fleet.attempts.get(&attempt).is_some_and(|attempt| {
        matches!(attempt.state, AttemptState::Stopping { why: StopReason::Interrupted, .. })
    })
}

/// Where something is launched for a gang, it has as many instances of that offering by then as it wants nodes.
fn gangs_are_whole(plan: &Plan, after: &Fleet, found: &mut Found<'_>) {
    for event in &plan.events {
        let Event::InstanceIntended { instance } = event else { continue };
        let key = instance.offering.key();
        for payer in instance.shares.keys() {
            let Some(experiment) = after.experiments.get(payer) else { continue };
            let is_one = |other: &&Instance| {
                let takes_work = match other.state {
                    InstanceState::Intended { .. }
                    | InstanceState::Booting { .. }
                    | InstanceState::Ready { .. } => true,
                    InstanceState::Draining { .. }
                    | InstanceState::Terminating { .. }
                    | InstanceState::Gone { .. } => false,
                };
                takes_work && other.shares.contains_key(payer) && other.offering.key() == key
            };
            let have = after.instances.values().filter(is_one).count();
            let nodes = after.spec(experiment).num_nodes as usize;
            if have < nodes {
                found(InvariantId::P1, format!("{payer} wants {nodes} nodes and has only {have} at {key}"));
            }
        }
    }
}

/// A trial goes on only from among the best of its rung, or as the best where nobody else may come.
fn judge_promotion(fleet: &Fleet, trial: ExperimentId, rung: u32, found: &mut Found<'_>) {
    let mut wrong = |what: &str| found(InvariantId::P1, format!("{trial} {what}"));
    let sweep = fleet.experiments.get(&trial).and_then(|experiment| experiment.account.sweep);
    let Some(asha) = sweep.and_then(|id| fleet.sweeps.get(&id)?.asha.as_ref()) else {
        return wrong("is promoted without asha");
    };
    let Some(standings) = asha.rungs.get(rung as usize).map(|rung| &rung.standings) else {
        return wrong("is promoted from no rung");
    };
    let Some(own) = standings.get(&trial) else { return wrong("is promoted without a score") };
    let better = |(id, other): &(&ExperimentId, &Standing)| {
        asha.rules.mode.compare(other.score, own.score).then(id.cmp(&&trial)).is_lt()
    };
    let better = standings.iter().filter(better).count();
    let among_best = (better + 1) * asha.rules.eta as usize <= standings.len();
    // Whoever is not over and has not been there may still come, unless it pauses below for good.
    let may_come = |other: &&Experiment| {
        let id = other.id;
        other.account.sweep == sweep && !other.is_ended() && !other.cancelled && !standings.contains_key(&id)
    };
    if !among_best && (better > 0 || fleet.experiments.values().any(|other| may_come(&other))) {
        wrong("is promoted and not among the best of its rung");
    }
}

fn is_paused(fleet: &Fleet, experiment: &Experiment) -> bool {
    let sweep = experiment.account.sweep.and_then(|id| fleet.sweeps.get(&id));
    sweep.and_then(|sweep| sweep.asha.as_ref()).is_some_and(|asha| asha.is_paused(experiment.id))
}

/// What of a spec an instance does not respect.
fn breaks(spec: &ExperimentSpec, instance: &Instance) -> Option<&'static str> {
    let spot = instance.offering.capacity_type == CapacityType::Spot;
    if spec.spot_policy == SpotPolicy::Spot && !spot || spec.spot_policy == SpotPolicy::OnDemand && spot {
        return Some("spot_policy");
    }
    let notice = instance.offering.notice.filter(|_| spot && !spec.checkpoint.accept_loss);
    if notice.zip(spec.checkpoint.takes).is_some_and(|(given, needed)| given < needed) {
        return Some("checkpoint.grace, which is longer than the notice");
    }
    // Its own ceiling counts, not the price of the moment: nothing else ends it before it is dearer than accepted.
    if spec.max_price.is_some_and(|most| instance.ceiling > most) {
        return Some("max_price");
    }
    let Resources { accelerators: _, cpus_milli: _, memory_mib: _, disk_gib } = spec.resources;
    (disk_gib > instance.disk_gib).then_some("disk_size")
}

fn instance_limit(input: &PlanInput<'_>, after: &Fleet, found: &mut Found<'_>) {
    let count = |fleet: &Fleet| fleet.instances.values().filter(|instance| instance.is_live()).count();
    let limit = input.settings.max_instances as usize;
    if count(after) > limit.max(count(input.fleet)) {
        found(InvariantId::P1, format!("{} instances are more than {limit}", count(after)));
    }
}

/// No plan takes more of a quota than there is, though the provider may have lowered it below what is in use.
fn quotas_hold(input: &PlanInput<'_>, after: &Fleet, found: &mut Found<'_>) {
    let used = |fleet: &Fleet| {
        let mut used: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let live = fleet.instances.values().filter(|instance| instance.is_live());
        for takes in live.filter_map(|instance| instance.offering.quota.as_ref()) {
            *used.entry(takes.quota.name.clone()).or_default() += takes.units;
        }
        used
    };
    let before = used(input.fleet);
    let limits: BTreeMap<&Arc<str>, u32> = input
        .market
        .offerings()
        .iter()
        .filter_map(|offering| offering.quota.as_ref())
        .map(|takes| (&takes.quota.name, takes.quota.limit))
        .collect();
    for (name, used) in used(after) {
        let Some(limit) = limits.get(&name) else { continue };
        if used > (*limit).max(before.get(&name).copied().unwrap_or(0)) {
            found(InvariantId::P1, format!("{used} are more than the quota {name} of {limit}"));
        }
    }
}

/// What became dearer than it may is left.
fn nothing_above_its_ceiling(after: &Fleet, found: &mut Found<'_>) {
    for Instance { id, state, price, ceiling, .. } in after.instances.values() {
        let is_left = match state {
            InstanceState::Intended { .. } | InstanceState::Booting { .. } | InstanceState::Ready { .. } => {
                false
            }
            InstanceState::Draining { .. }
            | InstanceState::Terminating { .. }
            | InstanceState::Gone { .. } => true,
        };
        if !is_left && price.effective > *ceiling {
            found(
                InvariantId::P1,
                format!("{id} is kept at {}, above its ceiling {ceiling}", price.effective),
            );
        }
    }
}

/// Where a limit was lowered below what is spent and held, nobody works on whose stop would be needed to get below it.
fn what_is_over_lands(input: &PlanInput<'_>, after: &Fleet, found: &mut Found<'_>) {
    // What a plan charges may be less than what was held for it, and land all that was over.
    let still_over = |key: &BudgetKey| after.budgets.get(key).is_some_and(|budget| budget.over() > Usd::ZERO);
    for (key, budget) in input.fleet.budgets.iter().filter(|(key, _)| still_over(key)) {
        // What runs on a machine that is being ended stops with it.
        let works = |attempt: &Attempt| {
            let ends = |on: &Instance| matches!(on.state, InstanceState::Terminating { .. });
            matches!(attempt.state, AttemptState::Assigned | AttemptState::Running)
                && !attempt.instances().filter_map(|id| after.instances.get(&id)).any(ends)
        };
        let goes_on = |payer: &ExperimentId| match after.experiments.get(payer).map(|payer| &payer.state) {
            Some(ExperimentState::Running { attempt }) => after.attempts.get(attempt).is_some_and(works),
            Some(ExperimentState::Queued | ExperimentState::Ended { .. }) | None => false,
        };
        let shares = input.fleet.instances.values().flat_map(|instance| &instance.shares);
        let held_on: Usd = shares
            .filter(|(payer, share)| goes_on(payer) && share.account.budgets(**payer).any(|at| at == *key))
            .map(|(_, share)| share.held)
            .sum();
        if held_on > Usd::ZERO && budget.over() > budget.held - held_on {
            let over = budget.over();
            found(InvariantId::P1, format!("{key} is over by {over} and work that holds {held_on} goes on"));
        }
    }
}

fn sweeps_within_max_parallel(input: &PlanInput<'_>, after: &Fleet, found: &mut Found<'_>) {
    for (id, sweep) in &after.sweeps {
        let before = input.fleet.sweeps.get(id).map_or(0, |sweep| sweep.running);
        if sweep.max_parallel.is_some_and(|limit| sweep.running > limit.max(before)) {
            found(InvariantId::P1, format!("{id} runs {} trials, more than its max_parallel", sweep.running));
        }
    }
}

/// Each experiment that was queued runs, has ended, or waits for one thing.
fn everything_is_answered(input: &PlanInput<'_>, plan: &Plan, after: &Fleet, found: &mut Found<'_>) {
    let mut waiting: BTreeSet<ExperimentId> = BTreeSet::new();
    for (id, _) in &plan.waiting {
        if !waiting.insert(*id) {
            found(InvariantId::E2, format!("{id} waits for two things"));
        }
    }
    for (id, experiment) in &input.fleet.experiments {
        let still_waits = after.experiments.get(id).is_some_and(|e| e.state == ExperimentState::Queued);
        let waited = experiment.state == ExperimentState::Queued;
        if waited && still_waits != waiting.contains(id) {
            found(InvariantId::E2, format!("{id}: queued is {still_waits}, has a reason to wait is not"));
        }
    }
}

/// What the state breaks after the plan and did not break before it.
fn new_state_violations(before: &Fleet, after: &Fleet) -> Vec<Violation> {
    // A limit may be lowered below what is spent and held; the plan lands that and is not to blame for it. So a budget
    // is at fault only when the plan raised what it spends and holds.
    let grew = |violation: &Violation| {
        violation.invariant != InvariantId::B1
            || after.budgets.iter().any(|(key, budget)| {
                let was = before.budgets.get(key).cloned().unwrap_or_default();
                budget.over() > Usd::ZERO && budget.committed() > was.committed()
            })
    };
    let known = invariant::check(before);
    invariant::check(after)
        .into_iter()
        .filter(|violation| !known.contains(violation) && grew(violation))
        .collect()
}

/// Once everything is as planned, there is nothing more to plan.
fn fixpoint(input: &PlanInput<'_>, mut fleet: Fleet) -> Vec<Violation> {
    // The ids of these plans are thrown away; they only must not be those of the plan.
    let mut ids = IdGen::new(u64::MAX);
    for _ in 0..ROUNDS_TO_FIXPOINT {
        let again = plan(&PlanInput { fleet: &fleet, ..*input }, &mut ids);
        if again.events.is_empty() {
            return Vec::new();
        }
        for event in &again.events {
            // What is illegal is found where that plan is checked.
            if fleet.apply(event).is_err() {
                return Vec::new();
            }
        }
    }
    let waiting =
        fleet.instances.values().filter(|i| matches!(i.state, InstanceState::Intended { .. })).count();
    let detail = format!("planning does not come to rest; {waiting} launches by then");
    vec![Violation { invariant: InvariantId::P1, detail }]
}
