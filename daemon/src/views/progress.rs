//! How far an experiment is, how long it takes yet, and what it will have cost: from what it reports.

use bursar_model::{Point, Span, Timestamp, Usd};
use serde::{Deserialize, Serialize};

use super::shapes::{AttemptView, ExperimentView};

/// The metric that says which part is done, from 0 to 1.
const PROGRESS: &str = "progress";

/// The metric that says how many steps there are in all.
const TOTAL_STEPS: &str = "total_steps";

/// How far an experiment is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Which part is done, from 0 to 1.
    pub done: f64,
    /// How long it takes yet, if it goes on as it went, what was lost on the way included. None before there is anything to
    /// go by, and when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<Span>,
    /// What it will have cost then. As above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_at_end: Option<Usd>,
    /// Steps a second of running, where it counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_per_second: Option<f64>,
}

/// By `progress`, or `step` of `total_steps`; nothing where it reports neither.
#[expect(clippy::float_arithmetic, reason = "an outlook for people, which decides nothing")]
pub(super) fn progress(
    experiment: &ExperimentView,
    attempts: &[AttemptView],
    now: Timestamp,
) -> Option<Progress> {
    let metric = |name: &str| experiment.metrics.get(name).copied().filter(|value| value.is_finite());
    let by_steps = || Some(metric(Point::STEP)? / metric(TOTAL_STEPS).filter(|total| *total > 0.0)?);
    let done = metric(PROGRESS).or_else(by_steps)?.clamp(0.0, 1.0);
    let ran = attempts.iter().filter_map(|attempt| {
        let started = attempt.started_at?;
        Some(attempt.ended_at.unwrap_or(now).since(started).as_millis().max(0))
    });
    let ran_ms = ran.sum::<i64>() as f64;
    let goes_on = experiment.ended_at.is_none() && done > 0.0 && ran_ms > 0.0;
    let to_come = (1.0 - done) / done;
    let rounded = |value: f64| value.round() as i64;
    Some(Progress {
        done,
        remaining: goes_on.then(|| Span::from_millis(rounded(ran_ms * to_come))),
        cost_at_end: goes_on.then(|| Usd::from_nanos(rounded(experiment.cost.as_nanos() as f64 / done))),
        steps_per_second: metric(Point::STEP).filter(|_| ran_ms > 0.0).map(|step| step / ran_ms * 1000.0),
    })
}
