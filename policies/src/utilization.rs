//! GPUs that stay idle: what an experiment's `utilization_policy` says of them.
//!
//! An agent says for how long a GPU has been idle, in each report anew, so a report that is lost changes nothing and a
//! restart begins no new window. The state keeps since when; what happens when the window is over is planned like the end
//! of a `max_duration`.

use bursar_model::{Attempt, AttemptState, Event, Span, Timestamp, UtilizationPolicy};

/// Shorter idle times are not written down: between two batches every GPU is idle for a moment.
const NOTED_AFTER: Span = Span::from_secs(60);

/// Ages are measured by the agent and travel; one that is later by more was busy in between.
const JITTER: Span = Span::from_secs(2);

/// What there is to write down of a report that a GPU of this attempt has been idle for so long; none where all are used.
#[must_use]
pub fn gpu_idle_noted(
    attempt: &Attempt,
    policy: &UtilizationPolicy,
    idle_for: Option<Span>,
    now: Timestamp,
) -> Option<Event> {
    let noted_after = NOTED_AFTER.min(policy.time_window.divided_by(2));
    let since = idle_for.filter(|idle_for| *idle_for >= noted_after).map(|idle_for| now - idle_for);
    let differs = match (attempt.idle_gpu, since) {
        (Some(known), Some(since)) => since > known.since + JITTER,
        (known, since) => known.is_some() != since.is_some(),
    };
    differs.then_some(Event::GpuIdle { attempt: attempt.id, since })
}

/// Until when a GPU of this attempt may go on to be idle; nothing while all are used, and of an attempt that stops anyway.
pub(crate) fn idle_until(attempt: &Attempt, policy: &UtilizationPolicy) -> Option<Timestamp> {
    let runs = attempt.state == AttemptState::Running;
    attempt.idle_gpu.filter(|_| runs).map(|idle| idle.since + policy.time_window)
}

#[cfg(test)]
mod tests {
    use bursar_model::{Amounts, IdGen, IdleAction, IdleGpu, Node};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn attempt(idle_gpu: Option<IdleGpu>) -> Attempt {
        let mut ids = IdGen::new(1);
        Attempt {
            id: ids.attempt(NOW),
            experiment: ids.experiment(NOW),
            number: 1,
            nodes: vec![Node::new(ids.instance(NOW), vec![0])],
            amounts: Amounts { accelerators: 1, cpus_milli: 1000, memory_mib: 1024 },
            assigned_at: NOW - Span::from_hours(2),
            state: AttemptState::Running,
            started_at: None,
            checkpoint_at: None,
            idle_gpu,
            ran_with: None,
        }
    }

    #[test]
    fn idleness_is_written_down_once_and_its_end_too() {
        let policy = |seconds| UtilizationPolicy {
            min_gpu_utilization: 10,
            time_window: Span::from_secs(seconds),
            action: IdleAction::Stop,
        };
        let idle = |ago| Some(IdleGpu { since: NOW - Span::from_secs(ago), told: false });
        let noted = |known, window, idle_for: Option<i64>| {
            let idle_for = idle_for.map(Span::from_secs);
            let event = gpu_idle_noted(&attempt(known), &policy(window), idle_for, NOW)?;
            let Event::GpuIdle { since, .. } = event else { panic!("{event:?}") };
            Some(since.map(|since| NOW.since(since).as_millis() / 1000))
        };
        assert_eq!(noted(None, 1800, None), None);
        assert_eq!(noted(None, 1800, Some(59)), None, "a moment");
        assert_eq!(noted(None, 1800, Some(60)), Some(Some(60)));
        assert_eq!(noted(None, 10, Some(5)), Some(Some(5)), "of a short window half of it");
        assert_eq!(noted(idle(90), 1800, Some(91)), None, "known");
        assert_eq!(noted(idle(90), 1800, Some(70)), Some(Some(70)), "it was busy in between");
        assert_eq!(noted(idle(90), 1800, Some(3)), Some(None));
        assert_eq!(noted(idle(90), 1800, None), Some(None));
    }
}
