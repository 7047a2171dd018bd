//! What becomes of the instances and attempts that there are: leases, ends, stops. Where new work goes is `placement`'s.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bursar_ledger::{Metered, Room, hold, lost_work, meter, shares};
use bursar_model::{
    Account, Attempt, AttemptEnd, AttemptState, DrainReason, Event, Experiment, ExperimentId,
    ExperimentState, Instance, InstanceId, InstanceState, Outcome, Share, Span, StopReason, Timestamp, Usd,
};

use crate::{Plan, PlanInput};

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
}

/// Plans all that concerns what is there already.
pub(crate) fn plan_lifecycle<'a>(
    input: &PlanInput<'a>,
    room: &mut Room<'_>,
    plan: &mut Plan,
) -> Lifecycle<'a> {
    let mut lifecycle = Lifecycle::default();
    // What ended in this very turn is still in the fleet until it is stored.
    for attempt in input.fleet.attempts.values().filter(|attempt| !attempt.is_ended()) {
        lifecycle.attempts.entry(attempt.instance).or_default().push(attempt);
    }
    end_cancelled(input, plan);
    for instance in input.fleet.instances.values() {
        let live = lifecycle.attempts.get(&instance.id).map_or(&[][..], Vec::as_slice);
        let events_before = plan.events.len();
        if !plan_instance(input, room, plan, instance, live) {
            lifecycle.leaving.insert(instance.id);
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
        let renewed_at = (instance.lease_until - input.settings.lease.divided_by(2)).max(input.now);
        let paid_until = renewed_at + input.settings.lease + instance.drain_allowance;
        let uncharged = paid_until.since(instance.meter.through);
        for (payer, share) in hold::with_holds(instance, instance.shares.clone(), uncharged) {
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
    instance: &Instance,
    live: &[&Attempt],
) -> bool {
    match instance.state {
        // The next call is due at its back-off, whatever is planned.
        InstanceState::Intended { .. } => true,
        InstanceState::Booting { at } => {
            let give_up = at + input.settings.boot_timeout;
            if input.now >= give_up {
                end(input, room, plan, instance, live, DrainReason::AgentLost);
                return false;
            }
            plan.wake(give_up);
            extend_when_due(input, room, plan, instance, live)
        }
        InstanceState::Ready { since } => {
            stop_where_due(input, plan, live);
            if let Some(why) = reason_to_leave(input, plan, instance, live, since) {
                leave(input, room, plan, instance, live, why);
                return false;
            }
            extend_when_due(input, room, plan, instance, live)
        }
        InstanceState::Draining { since, why } => {
            stop_where_due(input, plan, live);
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
    if instance.price > instance.ceiling {
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
        if input.now >= expiry {
            return Some(DrainReason::Idle);
        }
        plan.wake(expiry);
    }
    None
}

/// Tells everything on an instance to stop; where nothing runs, ends it at once.
fn leave(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
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
        DrainReason::Budget => StopReason::Budget,
        DrainReason::Idle
        | DrainReason::Ceiling
        | DrainReason::AgentLost
        | DrainReason::Unneeded
        | DrainReason::Operator => StopReason::Moved,
    };
    for attempt in live.iter().filter(|attempt| may_stop(attempt, stop)) {
        plan.events.push(Event::AttemptStopping { attempt: attempt.id, at: input.now, why: stop });
    }
    plan.wake(input.now + input.settings.drain_allowance);
}

/// Asks for the end of an instance from now on. What still runs on it is over when the cloud says that it is gone.
fn end(
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
fn stop_where_due(input: &PlanInput<'_>, plan: &mut Plan, live: &[&Attempt]) {
    for attempt in live {
        let Some(experiment) = input.fleet.experiments.get(&attempt.experiment) else { continue };
        if let Some(why) = reason_to_stop(input, plan, attempt, experiment)
            && may_stop(attempt, why)
        {
            plan.events.push(Event::AttemptStopping { attempt: attempt.id, at: input.now, why });
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
    let limit = input.fleet.spec(experiment).max_duration?;
    let until = attempt.started_at? + limit;
    if input.now >= until {
        return Some(StopReason::MaxDuration);
    }
    plan.wake(until);
    None
}

fn may_stop(attempt: &Attempt, why: StopReason) -> bool {
    match attempt.state {
        AttemptState::Assigned | AttemptState::Running => true,
        AttemptState::Stopping { why: before, .. } => before.requeues() && !why.requeues(),
        AttemptState::Ended { .. } => false,
    }
}

/// Extends a lease whose second half has begun. Where no budget pays for more, what runs is told to stop early enough
/// to save its work. False when the instance takes no new work.
fn extend_when_due(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    instance: &Instance,
    live: &[&Attempt],
) -> bool {
    let due = instance.lease_until - input.settings.lease.divided_by(2);
    if input.now < due {
        plan.wake(due);
        return true;
    }
    if extend_lease(input, room, plan, instance, live) {
        return true;
    }
    // The landing: what is held lasts until the lease ends. Work goes on until its own grace before that.
    let grace = live
        .iter()
        .filter_map(|attempt| input.fleet.experiments.get(&attempt.experiment))
        .map(|experiment| input.fleet.spec(experiment).checkpoint.grace)
        .max()
        .unwrap_or_default();
    let ahead = (grace + LANDING_MARGIN).min(input.settings.lease.divided_by(2));
    let land_at = instance.lease_until - ahead;
    if input.now >= land_at {
        leave(input, room, plan, instance, live, DrainReason::Budget);
    } else {
        plan.wake(land_at);
        // Budgets get room when other work ends; asked again at half of what is left.
        plan.wake(input.now + Span::from_millis(land_at.since(input.now).as_millis() / 2 + 1));
    }
    false
}

/// Pays for another lease from now on, if the budgets of those who should pay, or else of those who paid so far, can.
fn extend_lease(
    input: &PlanInput<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    instance: &Instance,
    live: &[&Attempt],
) -> bool {
    let until = input.now + input.settings.lease;
    if until <= instance.lease_until {
        return true;
    }
    let through = metered_through(input, instance);
    let uncharged = (until + instance.drain_allowance).since(through);
    let account_of =
        |id| input.fleet.experiments.get(&id).map(|experiment: &Experiment| experiment.account.clone());
    let charged = charge(input, instance, live);
    if let Some(metered) = &charged {
        enter(room, instance, metered);
    }
    let before = shares_after(instance, charged.as_ref());
    let renewed = shares::at_renewal(instance, live.iter().copied(), account_of);
    for candidate in [renewed, instance.shares.clone()] {
        let after = hold::with_holds(instance, candidate, uncharged);
        if room.exchange(&before, &after).is_ok() {
            plan.events.extend(charged.map(Metered::into_event));
            plan.events.push(Event::LeaseExtended { instance: instance.id, until, shares: after });
            plan.wake(until - input.settings.lease.divided_by(2));
            return true;
        }
    }
    // What was charged only for this is not charged after all.
    if let Some(metered) = &charged {
        leave_out(room, instance, metered);
    }
    false
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
    if let Some(metered) = charge(input, instance, live) {
        enter(room, instance, &metered);
        plan.events.push(metered.into_event());
    }
}

/// What an instance is to be charged now, if anything.
pub(crate) fn charge(input: &PlanInput<'_>, instance: &Instance, live: &[&Attempt]) -> Option<Metered> {
    meter(instance, live.iter().copied(), metered_through(input, instance))
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
    let charged = metered.charge.lines.iter().map(|line| (&*line.account, line.payer, line.amount));
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
    heard.min(input.now).max(instance.meter.through)
}

/// The events that end an attempt: its charge up to then, the work that is lost, the end, and the end of its experiment
/// where it is not to be tried again. `live` are the attempts on the instance, this one among them.
#[must_use]
pub fn attempt_ended(
    instance: &Instance,
    live: &[&Attempt],
    attempt: &Attempt,
    experiment: &Experiment,
    retry_limit: u32,
    at: Timestamp,
    end: AttemptEnd,
) -> Vec<Event> {
    let mut events = Vec::new();
    // What was told to stop for good stays stopped, however its process took it.
    let end = match (&attempt.state, end) {
        (AttemptState::Stopping { why, .. }, AttemptEnd::InstanceLost { .. }) if !why.requeues() => {
            AttemptEnd::Stopped { why: *why }
        }
        (_, end) => end,
    };
    let (outcome, failed, lost) = match &end {
        AttemptEnd::Exited { code: 0 } => (Some(Outcome::Succeeded), false, false),
        AttemptEnd::Exited { .. } | AttemptEnd::Killed { .. } | AttemptEnd::NotStarted { .. } => {
            let last = experiment.failures >= retry_limit;
            (last.then(|| Outcome::Failed { end: end.clone() }), true, !last)
        }
        AttemptEnd::Stopped { why } if why.requeues() => (None, false, true),
        AttemptEnd::Stopped { why: StopReason::Cancelled } => (Some(Outcome::Cancelled), false, false),
        AttemptEnd::Stopped { why } => (Some(Outcome::Stopped { why: *why }), false, false),
        AttemptEnd::InstanceLost { .. } => (None, false, true),
    };
    let mut charged = instance.clone();
    let mut ended = attempt.clone();
    if let Some(metered) = meter(instance, live.iter().copied(), at) {
        // The lost part is counted with this last charge in it.
        let mut scratch = ScratchCharge { attempt: &mut ended };
        scratch.note(&metered);
        charged.meter = metered.meter.clone();
        events.push(metered.into_event());
    }
    if lost && let Some(correction) = lost_work(&charged, &ended, at) {
        events.push(correction.into_event());
    }
    let not_before = failed.then(|| at + backoff_after(experiment.failures));
    // An instance may have been gone, unseen, when it was given the attempt: it costs nothing from its end on.
    let ended_at = at.max(attempt.assigned_at);
    events.push(Event::AttemptEnded { attempt: attempt.id, at: ended_at, end, failed, not_before });
    if let Some(outcome) = outcome {
        events.push(Event::ExperimentEnded { experiment: experiment.id, at, outcome });
    }
    events
}

/// 1 s, 2 s, 4 s … up to about 4 minutes between tries of what fails of itself.
fn backoff_after(failures: u32) -> Span {
    Span::from_secs(1 << failures.min(8))
}

/// Adds a charge that is not applied yet to an attempt's unsaved work.
struct ScratchCharge<'a> {
    attempt: &'a mut Attempt,
}

impl ScratchCharge<'_> {
    fn note(&mut self, metered: &bursar_ledger::Metered) {
        for line in &metered.charge.lines {
            if line.payer == self.attempt.experiment && line.category == bursar_model::Category::Run {
                self.attempt.unsaved.push(bursar_model::RunCharge {
                    period: metered.charge.period,
                    amount: line.amount,
                    on_demand_amount: line.on_demand_amount,
                });
            }
        }
    }
}
