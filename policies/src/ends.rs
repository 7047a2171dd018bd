//! What the end of an attempt, or of one of its nodes, means for its experiment and for what it is charged.

use std::collections::BTreeMap;

use bursar_ledger::{cuts, lost_work, meter};
use bursar_model::{
    Attempt, AttemptEnd, AttemptId, AttemptState, Category, Event, Fleet, Instance, InstanceId, Outcome,
    RunCharge, Span, StopReason, Timestamp,
};

use crate::lifecycle::told_before;

/// After so many instances in a row that were lost under it, with nothing saved, an experiment has failed: most likely it
/// is what kills them.
const LOSSES_MAX: u32 = 5;

/// The events that end a live attempt on all its nodes: their charges up to then, the work that is lost, the end, and the
/// end of its experiment where it is not to be tried again. None for an attempt that is over. `node` is the rank of the
/// one that ended it for all, if it was one. Of several nodes each is charged up to when it was `heard`, at most: its
/// instance may be gone by then.
#[must_use]
pub fn attempt_ended(
    fleet: &Fleet,
    heard: &BTreeMap<InstanceId, Timestamp>,
    attempt: AttemptId,
    at: Timestamp,
    end: AttemptEnd,
    node: Option<u32>,
) -> Vec<Event> {
    let found = fleet
        .attempts
        .get(&attempt)
        .and_then(|attempt| Some((attempt, fleet.experiments.get(&attempt.experiment)?)));
    let Some((attempt, experiment)) = found else { return Vec::new() };
    let retry_limit = fleet.spec(experiment).retry.limit;
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
        AttemptEnd::InstanceLost { interrupted: true } => (None, false, true),
        AttemptEnd::InstanceLost { interrupted: false } => {
            let last = experiment.losses + 1 >= LOSSES_MAX;
            (last.then(|| Outcome::Failed { end: end.clone() }), false, !last)
        }
    };
    let is_one = attempt.nodes.len() == 1;
    for instance in attempt.instances().filter_map(|id| fleet.instances.get(&id)) {
        let heard = heard.get(&instance.id).copied().unwrap_or(instance.meter.through);
        let until = if is_one { at } else { at.min(heard).max(instance.meter.through) };
        close_node(fleet, attempt, instance, until, lost, &mut events);
    }
    let not_before = match &end {
        AttemptEnd::InstanceLost { interrupted: false } => Some(at + backoff_after(experiment.losses)),
        AttemptEnd::InstanceLost { interrupted: true }
        | AttemptEnd::Exited { .. }
        | AttemptEnd::Killed { .. }
        | AttemptEnd::NotStarted { .. }
        | AttemptEnd::Stopped { .. } => failed.then(|| at + backoff_after(experiment.failures)),
    };
    // An instance may have been gone, unseen, when it was given the attempt: it costs nothing from its end on.
    let ended_at = at.max(attempt.assigned_at);
    let node = node.filter(|_| attempt.nodes.len() > 1);
    events.push(Event::AttemptEnded { attempt: attempt.id, at: ended_at, end, node, failed, not_before });
    if let Some(outcome) = outcome {
        events.push(Event::ExperimentEnded { experiment: experiment.id, at, outcome });
    }
    events
}

/// The events that end one node of an attempt of several, because its instance went away: its charge up to then, and the
/// work that is lost on it, unless the attempt was told to stop for good.
#[must_use]
pub fn node_lost(
    fleet: &Fleet,
    attempt: &Attempt,
    instance: InstanceId,
    at: Timestamp,
    end: AttemptEnd,
) -> Vec<Event> {
    let Some(instance) = fleet.instances.get(&instance) else { return Vec::new() };
    let lost = told_before(attempt).is_none_or(StopReason::requeues);
    let mut events = Vec::new();
    close_node(fleet, attempt, instance, at, lost, &mut events);
    events.push(Event::NodeLost { attempt: attempt.id, instance: instance.id, at, end });
    events
}

/// Charges an instance for the last that an attempt ran on it, and for what of its work there is lost.
fn close_node(
    fleet: &Fleet,
    attempt: &Attempt,
    instance: &Instance,
    at: Timestamp,
    lost: bool,
    events: &mut Vec<Event>,
) {
    let live: Vec<&Attempt> = fleet.attempts_on(instance.id).collect();
    let mut ended = attempt.clone();
    let mut charged = instance.clone();
    // Not for more than is held: what it really cost beyond is known once it is gone.
    let until = at.min(instance.held_until());
    if let Some(metered) = meter(instance, live.iter().copied(), until, &cuts(&fleet.budgets)) {
        // The lost part is counted with this last charge in it.
        for charge in metered.charges() {
            let ran = charge.lines.iter().filter(|line| line.category == Category::Run);
            for line in ran.filter(|line| line.payer == attempt.experiment) {
                let node = ended.node_on_mut(instance.id).expect("it is one of the attempt's instances");
                node.ran(RunCharge { period: charge.period, costs: line.costs });
            }
        }
        charged.meter = metered.meter().clone();
        events.extend(metered.into_events());
    }
    if lost && let Some(correction) = lost_work(&charged, &ended) {
        events.extend(correction.into_events());
    }
}

/// 1 s, 2 s, 4 s … up to about 4 minutes between tries of what fails of itself.
fn backoff_after(failures: u32) -> Span {
    Span::from_secs(1 << failures.min(8))
}
