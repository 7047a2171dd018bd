//! Money for work that a budget lets finish (`on_exhausted: finish-running`): held for the rest of the estimate, not just
//! for a lease.

use bursar_ledger::Room;
use bursar_model::{
    Experiment, ExperimentId, ExperimentSpec, ExperimentState, Instance, InstanceType, Span, Timestamp,
};

use crate::{PlanInput, choice::speed_on, lifecycle::landing_time};

/// How long an experiment is expected to run, where a budget above it finishes what it starts. Without an estimate nobody
/// knows, and a lease at a time is held as for everybody.
pub(crate) fn work_to_fund(input: &PlanInput<'_>, room: &Room<'_>, experiment: &Experiment) -> Option<Span> {
    let finishes = room.finishes(&experiment.account, experiment.id);
    finishes.then(|| input.fleet.spec(experiment).estimate.as_ref().map(|estimate| estimate.duration))?
}

/// So much work on this machine. Rounded up.
#[expect(
    clippy::float_arithmetic,
    reason = "a speed is a ratio; the time is rounded up to whole milliseconds"
)]
pub(crate) fn time_at_speed(work: Span, speed: f64) -> Span {
    Span::from_millis((work.as_millis() as f64 / speed).ceil() as i64)
}

/// What is held beyond the work for a boot, where a budget finishes what it starts: clouds take a minute or two.
const BOOT_ALLOWANCE: Span = Span::from_secs(120);

/// What is held beyond the work itself from the launch on: the boot, and the time before the end of a lease in which work
/// would be told to land.
pub(crate) fn beyond_work(input: &PlanInput<'_>, spec: &ExperimentSpec) -> Span {
    input.settings.boot_timeout.min(BOOT_ALLOWANCE) + landing_time(spec)
}

/// Until when money is to be held for an instance beyond its lease: until the last of those that it is paid by is
/// expected to have finished. `more` is about to join them.
pub(crate) fn funded_until(
    input: &PlanInput<'_>,
    room: &Room<'_>,
    instance: &Instance,
    more: Option<&Experiment>,
) -> Option<Timestamp> {
    if !room.has_finishing() {
        return None;
    }
    let payers = instance.shares.keys().filter_map(|id: &ExperimentId| input.fleet.experiments.get(id));
    let finished = payers.filter_map(|payer| match payer.state {
        // Who waits for it was funded when it was launched; that time does not move with the clock.
        ExperimentState::Queued => instance.funded_until,
        ExperimentState::Running { .. } | ExperimentState::Ended { .. } => {
            finished_at(input, room, instance, payer)
        }
    });
    finished.chain(more.and_then(|experiment| finished_at(input, room, instance, experiment))).max()
}

fn finished_at(
    input: &PlanInput<'_>,
    room: &Room<'_>,
    instance: &Instance,
    experiment: &Experiment,
) -> Option<Timestamp> {
    let work = work_to_fund(input, room, experiment)?;
    let started_at = match experiment.state {
        ExperimentState::Queued => input.now,
        ExperimentState::Running { attempt } => {
            let attempt = input.fleet.attempts.get(&attempt)?;
            // Paid here for an earlier attempt, it works elsewhere now.
            attempt.is_on(instance.id).then(|| attempt.started_at.unwrap_or(input.now))?
        }
        ExperimentState::Ended { .. } => return None,
    };
    let kind: &InstanceType = &instance.offering.instance_type;
    let spec: &ExperimentSpec = input.fleet.spec(experiment);
    Some(started_at + time_at_speed(work, speed_on(spec, kind)) + landing_time(spec))
}
