//! What becomes of the instances and attempts that there are: leases, ends, stops. Where new work goes is `placement`'s.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bursar_ledger::{Metered, Room, hold, meter, shares};
use bursar_model::{
    Account, Attempt, AttemptId, AttemptState, BudgetKey, DrainReason, Event, Experiment, ExperimentId,
    ExperimentSpec, ExperimentState, Fleet, IdleAction, Instance, InstanceId, InstanceState, OnExhausted,
    Outcome, Share, Span, StopReason, Timestamp, Usd,
};

use crate::{Plan, PlanInput, budgets, funding::funded_until, utilization::idle_until};

/// Kept between the end of the longest grace and the end of the lease. Longer than the agent's own margin, so that it
/// is the daemon that stops the work and knows why, unless it is down.
const LANDING_MARGIN: Span = Span::from_secs(3);

/// The attempts of each instance, made once a plan.
pub(crate) type Attempts<'a> = BTreeMap<InstanceId, Vec<&'a Attempt>>;

/// What placement must know of the plan so far.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle<'a> {
    /// The live attempts of each instance.
    pub(crate) attempts: Attempts<'a>,
    /// Instances that take no new work any more.
    pub(crate) leaving: BTreeSet<InstanceId>,
    /// Instances that this plan has charged already: their shares are not what the fleet says, so they get new work
    /// from the next plan, which follows at once.
    pub(crate) settled: BTreeSet<InstanceId>,
    /// Experiments that a lowered limit stops, with the budget.
    landing: BTreeMap<ExperimentId, BudgetKey>,
    /// What this plan has told to stop, and why.
    told: BTreeMap<AttemptId, StopReason>,
    /// Budgets for whose sake this plan stops work.
    pub(crate) exhausted: BTreeSet<BudgetKey>,
}

impl<'a> Lifecycle<'a> {
    /// The attempts that end because the cloud takes an instance of theirs back, by experiment. Each goes on elsewhere
    /// from what it saves now, unless it is not to go on at all.
    pub(crate) fn moving(&self, fleet: &'a Fleet) -> BTreeMap<ExperimentId, &'a Attempt> {
        let is_moving = |attempt: &&Attempt| {
            let told = self.told.get(&attempt.id).copied();
            told.or_else(|| told_before(attempt)) == Some(StopReason::Interrupted)
        };
        fleet.attempts.values().filter(is_moving).map(|attempt| (attempt.experiment, attempt)).collect()
    }

    /// Tells an attempt to stop, unless it was told already. Only a move may turn into a final stop: somebody cancels
    /// meanwhile, or its time is over.
    fn stop(
        &mut self,
        input: &PlanInput<'_>,
        plan: &mut Plan,
        attempt: &Attempt,
        why: StopReason,
        at_once: bool,
    ) {
        if attempt.is_ended() {
            return;
        }
        let before = self.told.get(&attempt.id).copied().or_else(|| told_before(attempt));
        if before.is_none_or(|before| before.requeues() && !why.requeues()) {
            self.told.insert(attempt.id, why);
            plan.events.push(Event::AttemptStopping { attempt: attempt.id, at: input.now, why, at_once });
        }
    }
}

/// Why an attempt was told to stop before this plan.
pub(crate) fn told_before(attempt: &Attempt) -> Option<StopReason> {
    match attempt.state {
        AttemptState::Stopping { why, .. } => Some(why),
        AttemptState::Assigned | AttemptState::Running | AttemptState::Ended { .. } => None,
    }
}

/// Plans all that concerns what is there already.
pub(crate) fn plan_lifecycle<'a>(
    input: &PlanInput<'a>,
    room: &mut Room<'_>,
    plan: &mut Plan,
) -> Lifecycle<'a> {
    let mut lifecycle = Lifecycle { landing: budgets::landing(input.fleet), ..Lifecycle::default() };
    // What ended in this very turn is still in the fleet until it is stored.
    for attempt in input.fleet.attempts.values().filter(|attempt| !attempt.is_ended()) {
        for instance in attempt.instances() {
            lifecycle.attempts.entry(instance).or_default().push(attempt);
        }
    }
    end_cancelled(input, plan);
    for instance in input.fleet.instances.values() {
        let live = lifecycle.attempts.remove(&instance.id).unwrap_or_default();
        let events_before = plan.events.len();
        if !plan_instance(input, room, plan, &mut lifecycle, instance, &live) {
            lifecycle.leaving.insert(instance.id);
        }
        if !live.is_empty() {
            lifecycle.attempts.insert(instance.id, live);
        }
        if plan.events.len() > events_before {
            lifecycle.settled.insert(instance.id);
        }
    }
    lifecycle
}

/// Keeps in the room what each instance that works, or is about to, needs for its next lease. Otherwise a launch would
/// take the money with which running work could go on, and stop it in the middle.
pub(crate) fn keep_for_renewals(input: &PlanInput<'_>, leaving: &BTreeSet<InstanceId>, room: &mut Room<'_>) {
    if room.is_unlimited() {
        return;
    }
    for instance in input.fleet.instances.values() {
        let works = match instance.state {
            InstanceState::Intended { .. } | InstanceState::Booting { .. } => true,
            InstanceState::Ready { .. } => instance.idle_since.is_none(),
            InstanceState::Draining { .. }
            | InstanceState::Terminating { .. }
            | InstanceState::Gone { .. } => false,
        };
        if !works || leaving.contains(&instance.id) {
            continue;
        }
        let renewed_at = (instance.lease_until - renewal_ahead(input)).max(input.now);
        let paid_until = renewed_at + input.settings.lease + instance.drain_allowance;
        let end = paid_until.max(instance.held_until());
        let outstanding = instance.outstanding(instance.meter.through, end);
        for (payer, share) in hold::with_holds(instance, instance.shares.clone(), outstanding) {
            let held = instance.shares.get(&payer).map_or(Usd::ZERO, |share| share.held);
            room.keep(&share.account, payer, share.held.saturating_sub(held).max(Usd::ZERO));
        }
    }
}

/// Experiments that were cancelled while they wait are over.
fn end_cancelled(input: &PlanInput<'_>, plan: &mut Plan) {
    for experiment in input.fleet.experiments.values() {
        if experiment.cancelled && experiment.state == ExperimentState::Queued {
            plan.events.push(Event::ExperimentEnded {
                experiment: experiment.id,
                at: input.now,
                outcome: Outcome::Cancelled,
            });
        }
    }
}

/// Plans one instance. False when it takes no new work.
fn plan_instance(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    lifecycle: &mut Lifecycle<'_>,
    instance: &Instance,
    live: &[&Attempt],
) -> bool {
    if land(input, room, plan, lifecycle, instance, live) {
        return false;
    }
    match instance.state {
        InstanceState::Intended { .. } | InstanceState::Booting { .. }
            if instance.price.effective > instance.ceiling =>
        {
            end(input, room, plan, instance, live, DrainReason::Ceiling);
            false
        }
        InstanceState::Intended { .. } => {
            // The next call is due at its back-off, whatever is planned. Past its lease nothing pays for what the launch
            // would make, so that from then on its end is asked for instead.
            if input.now >= instance.lease_until || is_unneeded(input, instance) {
                end(input, room, plan, instance, live, DrainReason::Unneeded);
                return false;
            }
            plan.wake(instance.lease_until);
            true
        }
        InstanceState::Booting { at } => {
            let give_up = at + input.settings.boot_timeout;
            if input.now >= give_up {
                end(input, room, plan, instance, live, DrainReason::AgentLost);
                return false;
            }
            if is_unneeded(input, instance) {
                end(input, room, plan, instance, live, DrainReason::Unneeded);
                return false;
            }
            plan.wake(give_up);
            extend_when_due(input, room, plan, lifecycle, instance, live)
        }
        InstanceState::Ready { since } => {
            stop_where_due(input, plan, lifecycle, instance, live);
            if let Some(why) = reason_to_leave(input, plan, instance, live, since) {
                leave(input, room, plan, lifecycle, instance, live, why);
                return false;
            }
            if is_quiet(input, instance) {
                // It cannot hear of another lease. Should it be well, its next word brings it one.
                if input.now >= instance.lease_until {
                    end(input, room, plan, instance, live, DrainReason::AgentLost);
                    return false;
                }
                plan.wake(instance.lease_until);
                return true;
            }
            extend_when_due(input, room, plan, lifecycle, instance, live)
        }
        InstanceState::Draining { since, why } => {
            stop_where_due(input, plan, lifecycle, instance, live);
            if why == DrainReason::Asked {
                // Whoever asked did not tell what runs there: that follows, and is told again after a restart.
                for attempt in live {
                    lifecycle.stop(input, plan, attempt, StopReason::Moved, false);
                }
            }
            let patience = since + input.settings.drain_allowance;
            if live.is_empty() || input.now >= patience || input.now >= instance.paid_until() {
                end(input, room, plan, instance, live, why);
            } else {
                plan.wake(patience.min(instance.paid_until()));
            }
            false
        }
        InstanceState::Terminating { .. } | InstanceState::Gone { .. } => false,
    }
}

/// Stops what a lowered limit does not pay for any longer: work is told to save and stop, and an instance that works for
/// nobody else goes. True when it goes.
fn land(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    lifecycle: &mut Lifecycle<'_>,
    instance: &Instance,
    live: &[&Attempt],
) -> bool {
    if lifecycle.landing.is_empty() {
        return false;
    }
    let lands = |id: &ExperimentId| lifecycle.landing.contains_key(id);
    let takes_work = match instance.state {
        InstanceState::Intended { .. } | InstanceState::Booting { .. } | InstanceState::Ready { .. } => true,
        InstanceState::Draining { .. } | InstanceState::Terminating { .. } | InstanceState::Gone { .. } => {
            false
        }
    };
    if !takes_work || !instance.shares.keys().any(lands) {
        return false;
    }
    let stopped: Vec<&Attempt> = live.iter().copied().filter(|attempt| lands(&attempt.experiment)).collect();
    let goes = if live.is_empty() {
        // Whoever waits for it and could pay gets another.
        true
    } else {
        stopped.len() == live.len()
    };
    let keys: Vec<BudgetKey> =
        instance.shares.keys().filter_map(|id| lifecycle.landing.get(id)).cloned().collect();
    if goes {
        if live.is_empty() {
            end(input, room, plan, instance, live, DrainReason::Budget);
        } else {
            settle(input, room, plan, instance, live);
            let (at, why) = (input.now, DrainReason::Budget);
            plan.events.push(Event::InstanceDraining { instance: instance.id, at, why });
            plan.wake(input.now + input.settings.drain_allowance);
        }
    }
    for attempt in stopped {
        let key = lifecycle.landing[&attempt.experiment].clone();
        stop_for_budget(input, plan, lifecycle, attempt, &key);
    }
    lifecycle.exhausted.extend(keys);
    goes
}

/// Tells an attempt to stop for the sake of a budget.
fn stop_for_budget(
    input: &PlanInput<'_>,
    plan: &mut Plan,
    lifecycle: &mut Lifecycle<'_>,
    attempt: &Attempt,
    key: &BudgetKey,
) {
    lifecycle.stop(input, plan, attempt, budgets::stop_reason(key), stops_at_once(input, key));
}

/// Whether a budget gives no time to save.
fn stops_at_once(input: &PlanInput<'_>, key: &BudgetKey) -> bool {
    let budget = input.fleet.budgets.get(key);
    budget.is_some_and(|budget| budget.on_exhausted() == OnExhausted::Stop)
}

/// Whether an instance's agent was not heard lately, or not yet since the daemon started.
pub(crate) fn is_quiet(input: &PlanInput<'_>, instance: &Instance) -> bool {
    input.heard.get(&instance.id).is_none_or(|heard| input.now.since(*heard) >= input.settings.quiet_after)
}

/// Whether everybody for whom an instance was launched is over before it is ready.
fn is_unneeded(input: &PlanInput<'_>, instance: &Instance) -> bool {
    let is_over = |payer: &ExperimentId| {
        input
            .fleet
            .experiments
            .get(payer)
            .is_none_or(|experiment| experiment.is_ended() || experiment.cancelled)
    };
    instance.shares.keys().all(is_over)
}

/// Why a ready instance should go, if it should.
fn reason_to_leave(
    input: &PlanInput<'_>,
    plan: &mut Plan,
    instance: &Instance,
    live: &[&Attempt],
    ready_since: Timestamp,
) -> Option<DrainReason> {
    if instance.notice.is_some() {
        return Some(DrainReason::Interrupted);
    }
    if instance.price.effective > instance.ceiling {
        return Some(DrainReason::Ceiling);
    }
    // Silence counts from when the daemon could first have heard.
    let heard = input.heard.get(&instance.id).copied().unwrap_or(ready_since).max(input.started_at);
    let lost_at = heard + input.settings.silence_timeout;
    if input.now >= lost_at {
        return Some(DrainReason::AgentLost);
    }
    plan.wake(lost_at);
    let idle_since = instance.idle_since.filter(|_| live.is_empty());
    if let Some(idle_since) = idle_since {
        let expiry = idle_since + input.settings.idle_duration;
        let awaited_until = expiry.max(idle_since + input.settings.boot_timeout);
        if input.now < expiry {
            plan.wake(expiry);
        } else if input.now < awaited_until && is_awaited(input, instance, ready_since) {
            plan.wake(awaited_until);
        } else {
            return Some(DrainReason::Idle);
        }
    }
    None
}

/// Whether an instance on which nothing runs is kept for somebody who cannot begin yet: who still saves elsewhere, or whose
/// other nodes are on their way. Both take about as long as a boot.
fn is_awaited(input: &PlanInput<'_>, instance: &Instance, ready_since: Timestamp) -> bool {
    let never_worked = instance.idle_since == Some(ready_since);
    let awaits = |payer: &ExperimentId| {
        let Some(experiment) = input.fleet.experiments.get(payer) else { return false };
        match experiment.state {
            ExperimentState::Running { attempt } => {
                let attempt = input.fleet.attempts.get(&attempt);
                attempt.is_some_and(|attempt| {
                    told_before(attempt) == Some(StopReason::Interrupted) && !attempt.is_on(instance.id)
                })
            }
            ExperimentState::Queued => {
                let is_due = experiment.not_before.is_none_or(|at| at <= input.now) && !experiment.cancelled;
                let nodes = input.fleet.spec(experiment).num_nodes as usize;
                is_due
                    && (nodes > 1 || never_worked)
                    && siblings(input.fleet, instance, *payer).count() >= nodes
            }
            ExperimentState::Ended { .. } => false,
        }
    };
    instance.shares.keys().any(awaits)
}

/// The instances of the same offering that take work, now or soon, and are paid for by this experiment.
fn siblings<'a>(
    fleet: &'a Fleet,
    instance: &'a Instance,
    payer: ExperimentId,
) -> impl Iterator<Item = &'a Instance> {
    fleet.instances.values().filter(move |other| {
        let takes_work = match other.state {
            InstanceState::Intended { .. } | InstanceState::Booting { .. } | InstanceState::Ready { .. } => {
                true
            }
            InstanceState::Draining { .. }
            | InstanceState::Terminating { .. }
            | InstanceState::Gone { .. } => false,
        };
        takes_work && other.shares.contains_key(&payer) && other.offering.key() == instance.offering.key()
    })
}

/// Tells everything on an instance to stop; where nothing runs, ends it at once.
fn leave(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    lifecycle: &mut Lifecycle<'_>,
    instance: &Instance,
    live: &[&Attempt],
    why: DrainReason,
) {
    if live.is_empty() || why == DrainReason::AgentLost {
        end(input, room, plan, instance, live, why);
        return;
    }
    settle(input, room, plan, instance, live);
    plan.events.push(Event::InstanceDraining { instance: instance.id, at: input.now, why });
    let stop = match why {
        DrainReason::Interrupted => StopReason::Interrupted,
        DrainReason::Budget
        | DrainReason::Idle
        | DrainReason::Ceiling
        | DrainReason::AgentLost
        | DrainReason::Unneeded
        | DrainReason::LaunchDoubtful
        | DrainReason::Asked => StopReason::Moved,
    };
    for attempt in live {
        lifecycle.stop(input, plan, attempt, stop, false);
    }
    plan.wake(input.now + input.settings.drain_allowance);
}

/// Asks for the end of an instance from now on. What still runs on it is over when the cloud says that it is gone.
pub(crate) fn end(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    instance: &Instance,
    live: &[&Attempt],
    why: DrainReason,
) {
    settle(input, room, plan, instance, live);
    plan.events.push(Event::InstanceTerminating { instance: instance.id, at: input.now, why });
}

/// Attempts that must stop though their instance stays.
fn stop_where_due(
    input: &PlanInput<'_>,
    plan: &mut Plan,
    lifecycle: &mut Lifecycle<'_>,
    instance: &Instance,
    live: &[&Attempt],
) {
    for attempt in live {
        let Some(experiment) = input.fleet.experiments.get(&attempt.experiment) else { continue };
        if let Some(why) = reason_to_stop(input, plan, attempt, experiment) {
            lifecycle.stop(input, plan, attempt, why, false);
        }
        // Once for all of its nodes.
        if attempt.instances().next() == Some(instance.id) {
            tell_of_idle_gpu(input, plan, attempt, experiment);
        }
    }
}

fn reason_to_stop(
    input: &PlanInput<'_>,
    plan: &mut Plan,
    attempt: &Attempt,
    experiment: &Experiment,
) -> Option<StopReason> {
    if experiment.cancelled {
        return Some(StopReason::Cancelled);
    }
    let spec = input.fleet.spec(experiment);
    if let Some(limit) = spec.max_duration {
        let until = attempt.assigned_at + limit;
        if input.now >= until {
            return Some(StopReason::MaxDuration);
        }
        plan.wake(until);
    }
    let policy = spec.utilization_policy.filter(|policy| policy.action == IdleAction::Stop)?;
    let until = idle_until(attempt, &policy)?;
    if input.now >= until {
        return Some(StopReason::IdleGpu);
    }
    plan.wake(until);
    None
}

/// Has somebody told that a GPU stays idle, once an attempt.
fn tell_of_idle_gpu(input: &PlanInput<'_>, plan: &mut Plan, attempt: &Attempt, experiment: &Experiment) {
    let policy = input.fleet.spec(experiment).utilization_policy;
    let Some(policy) = policy.filter(|policy| policy.action == IdleAction::Notify) else { return };
    let Some(until) = idle_until(attempt, &policy) else { return };
    if attempt.idle_gpu.is_some_and(|idle| idle.told) {
        return;
    }
    if input.now >= until {
        plan.events.push(Event::IdleGpuAlerted { attempt: attempt.id, at: input.now });
    } else {
        plan.wake(until);
    }
}

/// Extends a lease of which a third is over. Where not all who should pay for more can, those who cannot are told to
/// stop, early enough to save their work and for the others to go on; where nobody can, the instance goes. False when
/// it takes no new work.
fn extend_when_due(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    lifecycle: &mut Lifecycle<'_>,
    instance: &Instance,
    live: &[&Attempt],
) -> bool {
    let due = instance.lease_until - renewal_ahead(input);
    // What somebody holds whose work has landed goes to those who still run, at once.
    let works = |payer: &&ExperimentId| live.iter().any(|attempt| attempt.experiment == **payer);
    let has_landed = |payer: &&ExperimentId| lifecycle.landing.contains_key(payer) && !works(payer);
    let hands_over = !live.is_empty() && instance.shares.keys().any(|payer| has_landed(&payer));
    if input.now < due && !hands_over {
        plan.wake(due);
        return true;
    }
    let Err(short) = extend_lease(input, room, plan, instance, live) else { return true };

    let land_at = instance.lease_until - landing_ahead(input, live, &short);
    if input.now < land_at {
        plan.wake(land_at);
        // Budgets get room when other work ends; asked again at half of what is left.
        plan.wake(input.now + Span::from_millis(land_at.since(input.now).as_millis() / 2 + 1));
        return false;
    }
    let (stopped, others): (Vec<&Attempt>, Vec<&Attempt>) =
        live.iter().partition(|attempt| short.contains_key(&attempt.experiment));
    if others.is_empty() {
        settle(input, room, plan, instance, live);
        let (at, why) = (input.now, DrainReason::Budget);
        plan.events.push(if live.is_empty() {
            Event::InstanceTerminating { instance: instance.id, at, why }
        } else {
            Event::InstanceDraining { instance: instance.id, at, why }
        });
    }
    for attempt in stopped {
        stop_for_budget(input, plan, lifecycle, attempt, &short[&attempt.experiment]);
    }
    lifecycle.exhausted.extend(short.into_values());
    plan.wake(input.now + input.settings.drain_allowance);
    plan.wake(instance.lease_until);
    false
}

/// How long before its end a lease is extended: early, so that a daemon that is away for a while finds the lease alive.
fn renewal_ahead(input: &PlanInput<'_>) -> Span {
    input.settings.lease.times(2).divided_by(3)
}

/// How long before the end of its lease an experiment is told to stop where it cannot be extended.
pub(crate) fn landing_time(spec: &ExperimentSpec) -> Span {
    spec.checkpoint.grace.times(2) + LANDING_MARGIN
}

/// How long before the end of a lease that cannot be extended work is told to stop: its grace to save, as much again for
/// the others on the instance, whose lease is extended once it has left, and a margin. Where the lease is too short for
/// that, the others may have to move.
fn landing_ahead(
    input: &PlanInput<'_>,
    live: &[&Attempt],
    short: &BTreeMap<ExperimentId, BudgetKey>,
) -> Span {
    let saves =
        |attempt: &&&Attempt| short.get(&attempt.experiment).is_none_or(|key| !stops_at_once(input, key));
    let grace = live
        .iter()
        .filter(saves)
        .filter_map(|attempt| input.fleet.experiments.get(&attempt.experiment))
        .map(|experiment| input.fleet.spec(experiment).checkpoint.grace)
        .max()
        .unwrap_or_default();
    (grace.times(2) + LANDING_MARGIN).min(renewal_ahead(input))
}

/// Pays for another lease from now on, if the budgets of those who should pay, or else of those who paid so far, can.
///
/// # Errors
/// The experiments whose budgets cannot, each with the budget that is short: all that run, or fewer where the rest could
/// pay without them.
fn extend_lease(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    instance: &Instance,
    live: &[&Attempt],
) -> Result<(), BTreeMap<ExperimentId, BudgetKey>> {
    let full = input.now + input.settings.lease;
    if full <= instance.lease_until {
        return Ok(());
    }
    let account_of =
        |id| input.fleet.experiments.get(&id).map(|experiment: &Experiment| experiment.account.clone());
    let charged = charge(input, room, instance, live);
    if let Some(metered) = &charged {
        enter(room, instance, metered);
    }
    let before = shares_after(instance, charged.as_ref());
    let funded_until = funded_until(input, room, instance, None);
    let through = charged.as_ref().map_or(instance.meter.through, |metered| metered.meter().through);
    let held = |shares, until: Timestamp| {
        let held_until = until.max(funded_until.unwrap_or(until)) + instance.drain_allowance;
        hold::with_holds(instance, shares, instance.outstanding(through, held_until))
    };
    // What is held for the whole of some work pays for its lease up to there, though not for a full one beyond.
    let funded = funded_until.filter(|funded| instance.lease_until < *funded && *funded < full);
    let by_use = shares::at_renewal(instance, live.iter().copied(), account_of);
    for until in [Some(full), funded].into_iter().flatten() {
        for candidate in [by_use.clone(), instance.shares.clone()] {
            let after = held(candidate, until);
            if room.exchange(&before, &after).is_ok() {
                plan.events.extend(charged.into_iter().flat_map(Metered::into_events));
                let instance = instance.id;
                plan.events.push(Event::LeaseExtended { instance, until, funded_until, shares: after });
                plan.wake(until - renewal_ahead(input));
                return Ok(());
            }
        }
    }
    // Who is short, and could the rest go on without them? Each round leaves one more out.
    let mut short = BTreeMap::new();
    for _ in 0..=live.len() {
        let able = live.iter().copied().filter(|attempt| !short.contains_key(&attempt.experiment));
        let mut shares = shares::at_renewal(instance, able.clone(), account_of);
        if able.count() == 0 {
            shares = instance.shares.clone();
        }
        let after = held(shares, full);
        match room.exchange(&before, &after) {
            Ok(()) => {
                room.revert(&before, &after);
                break;
            }
            Err((payer, lack)) => {
                if short.insert(payer, lack.key).is_some() {
                    break;
                }
            }
        }
    }
    // What was charged only for this is not charged after all.
    if let Some(metered) = &charged {
        leave_out(room, instance, metered);
    }
    Err(short)
}

/// Charges an instance up to when it was last known to be alive, in the plan and in the plan's room. To be called at
/// most once a plan and instance: the second call would charge twice.
fn settle(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    instance: &Instance,
    live: &[&Attempt],
) {
    if let Some(metered) = charge(input, room, instance, live) {
        enter(room, instance, &metered);
        plan.events.extend(metered.into_events());
    }
}

/// What an instance is to be charged now, if anything.
pub(crate) fn charge(
    input: &PlanInput<'_>,
    room: &Room<'_>,
    instance: &Instance,
    live: &[&Attempt],
) -> Option<Metered> {
    meter(instance, live.iter().copied(), metered_through(input, instance), room.cuts())
}

/// The shares of an instance with what they hold after a charge.
pub(crate) fn shares_after(instance: &Instance, charged: Option<&Metered>) -> BTreeMap<ExperimentId, Share> {
    let mut shares = instance.shares.clone();
    for (payer, held) in charged.into_iter().flat_map(|metered| &metered.held) {
        shares.get_mut(payer).expect("metering keeps the payers").held = *held;
    }
    shares
}

/// Enters a charge into the plan's room: what is spent, and the holds that it lowers.
pub(crate) fn enter(room: &mut Room<'_>, instance: &Instance, metered: &Metered) {
    for (account, payer, change) in changes(instance, metered) {
        room.take(account, payer, change);
    }
}

/// Takes back what `enter` did.
pub(crate) fn leave_out(room: &mut Room<'_>, instance: &Instance, metered: &Metered) {
    for (account, payer, change) in changes(instance, metered) {
        room.take(account, payer, -change);
    }
}

fn changes<'m>(
    instance: &'m Instance,
    metered: &'m Metered,
) -> impl Iterator<Item = (&'m Account, ExperimentId, Usd)> {
    let lines = metered.charges().flat_map(|charge| &charge.lines);
    let charged = lines.map(|line| (&*line.account, line.payer, line.costs.effective));
    let held = instance.shares.iter().filter_map(|(payer, share)| {
        let after = metered.held.get(payer)?;
        Some((&*share.account, *payer, *after - share.held))
    });
    charged.chain(held)
}

/// An instance is charged until it was last heard and no further: should it have ended since, there is nothing to mend.
/// Before the cloud said since when it bills, nothing is charged and all of it is held.
pub(crate) fn metered_through(input: &PlanInput<'_>, instance: &Instance) -> Timestamp {
    if instance.meter.from.is_none() {
        return instance.meter.through;
    }
    let heard = input.heard.get(&instance.id).copied().unwrap_or(instance.meter.through);
    // Nor further than it is paid for: what it really cost beyond is known once it is gone.
    heard.min(input.now).min(instance.held_until()).max(instance.meter.through)
}
