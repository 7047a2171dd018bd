//! What a replay came to, reckoned from its journal alone: a pure fold over events.
//!
//! Every figure is defined in `docs/simulate.md`. Money stays whole nano-dollars; hours and shares are floats that rank
//! and report.

#![expect(
    clippy::float_arithmetic,
    reason = "hours, shares and means for people; money is added as whole numbers"
)]

use std::collections::BTreeMap;

use bursar_model::{
    AttemptEnd, AttemptId, CapacityType, Category, ChargeClass, Deadline, DrainReason, Event, ExperimentId,
    InstanceEnd, InstanceId, OfferingKey, Outcome, Span, SpecId, Timestamp, Usd,
};
use serde::Serialize;

use super::curves::Curves;
use crate::job::Job;

/// What a replay came to. Names bear their units: `usd` are decimal strings, `s` seconds, `hours` hours.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Jobs that were submitted.
    pub jobs: u32,
    /// Jobs that ran to their end.
    pub jobs_finished: u32,
    /// Jobs whose attempts failed.
    pub jobs_failed: u32,
    /// Jobs that were stopped after they had run, such as by a budget.
    pub jobs_stopped: u32,
    /// Jobs that never ran because no budget could pay for them.
    pub jobs_refused: u32,
    /// Jobs that were not over at the end of the replay.
    pub jobs_unfinished: u32,
    /// All that was charged.
    pub cost_usd: Usd,
    /// The part for spot instances.
    pub cost_spot_usd: Usd,
    /// The part for on-demand instances.
    pub cost_on_demand_usd: Usd,
    /// The part that was work.
    pub cost_run_usd: Usd,
    /// The part from launches until work could start.
    pub cost_boot_usd: Usd,
    /// The part for instances with nothing to do.
    pub cost_idle_usd: Usd,
    /// The part for checkpointing, stopping and shutting down.
    pub cost_drain_usd: Usd,
    /// The part that was work lost at interruptions.
    pub cost_lost_usd: Usd,
    /// All that was charged, for each accelerator hour that finished jobs needed; none where none finished.
    pub cost_per_gpu_hour_usd: Option<Usd>,
    /// From the submission to the first start, of the jobs that started: the median.
    pub wait_median_s: Option<f64>,
    /// The 95th percentile of it.
    pub wait_p95_s: Option<f64>,
    /// The longest.
    pub wait_max_s: Option<f64>,
    /// From the submission to the end, of the jobs that finished: the median.
    pub turnaround_median_s: Option<f64>,
    /// The 95th percentile of it.
    pub turnaround_p95_s: Option<f64>,
    /// The longest.
    pub turnaround_max_s: Option<f64>,
    /// Jobs with a deadline.
    pub deadlines: u32,
    /// Those that had not finished by it.
    pub deadlines_missed: u32,
    /// Instances that the cloud took back.
    pub interruptions: u32,
    /// Accelerator hours that finished jobs needed.
    pub gpu_hours_finished: f64,
    /// Accelerator hours in which attempts worked.
    pub gpu_hours_run: f64,
    /// The part that was done again, because no checkpoint covered it.
    pub gpu_hours_lost: f64,
    /// Accelerator hours that were paid for.
    pub gpu_hours_paid: f64,
    /// The part of the paid accelerator hours in which attempts worked; none where none was paid.
    pub utilisation: Option<f64>,
    /// Instances that the cloud gave.
    pub instances_launched: u32,
    /// Launches that the cloud refused.
    pub launches_refused: u32,
    /// The most instances at one time.
    pub fleet_peak: u32,
    /// Instances at a time, on average over the replay.
    pub fleet_mean: f64,
    /// From the start to the end of the replay.
    pub virtual_s: f64,
    /// What it took to compute.
    pub wall_s: f64,
    /// Virtual seconds in a second.
    pub speed_ratio: f64,
    /// Turns that the daemon committed.
    pub commits: u64,
}

/// The fold.
#[derive(Debug, Default)]
pub(super) struct Tally {
    figures: Figures,
    needs: BTreeMap<SpecId, Need>,
    jobs: BTreeMap<ExperimentId, JobTally>,
    attempts: BTreeMap<AttemptId, AttemptTally>,
    instances: BTreeMap<InstanceId, InstanceTally>,
    waits: Vec<Span>,
    turnarounds: Vec<Span>,
    run_millis: i64,
    lost_millis: i64,
    paid_millis: i64,
    finished_millis: i64,
    /// What was charged for each offering.
    costs: BTreeMap<OfferingKey, Usd>,
    curves: Steps,
}

/// What changed when: the raw material of curves.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) cost: Vec<(Timestamp, i64)>,
    pub(super) spot: Vec<(Timestamp, i64)>,
    pub(super) on_demand: Vec<(Timestamp, i64)>,
    pub(super) queue: Vec<(Timestamp, i64)>,
}

/// What a job asks for, as far as figures need it.
#[derive(Debug, Clone, Copy)]
struct Need {
    deadline: Option<Deadline>,
    duration: Span,
}

#[derive(Debug)]
struct JobTally {
    queued_at: Timestamp,
    started: bool,
    waiting: bool,
    /// Of its newest attempt.
    gpus: i64,
    deadline: Option<Timestamp>,
    duration: Span,
}

#[derive(Debug)]
struct AttemptTally {
    experiment: ExperimentId,
    instance: InstanceId,
    gpus: i64,
    started_at: Option<Timestamp>,
    saved_at: Option<Timestamp>,
}

#[derive(Debug)]
struct InstanceTally {
    offering: OfferingKey,
    gpus: i64,
    /// Counted in the fleet.
    counted: bool,
    charged_until: Option<Timestamp>,
}

impl Tally {
    /// The next event, in the order of the journal.
    pub(super) fn see(&mut self, event: &Event) {
        match event {
            Event::SpecAdded { id, spec } => {
                let duration = Job::of_envs(&spec.envs).duration;
                self.needs.insert(*id, Need { deadline: spec.deadline, duration });
            }
            Event::ExperimentQueued { experiment } => {
                let need = self.needs.get(&experiment.spec);
                let queued_at = experiment.queued_at;
                self.figures.jobs += 1;
                self.curves.queue.push((queued_at, 1));
                let job = JobTally {
                    queued_at,
                    started: false,
                    waiting: true,
                    gpus: 0,
                    deadline: need.and_then(|need| Some(need.deadline?.moment(queued_at))),
                    duration: need.map_or(Span::ZERO, |need| need.duration),
                };
                self.figures.deadlines += u32::from(job.deadline.is_some());
                self.jobs.insert(experiment.id, job);
            }
            Event::AttemptAssigned { attempt, .. } => {
                let gpus = i64::from(attempt.amounts.accelerators) * attempt.nodes.len() as i64;
                let tally = AttemptTally {
                    experiment: attempt.experiment,
                    instance: attempt.nodes[0].instance,
                    gpus,
                    started_at: None,
                    saved_at: None,
                };
                self.attempts.insert(attempt.id, tally);
                if let Some(job) = self.jobs.get_mut(&attempt.experiment) {
                    job.gpus = gpus;
                }
            }
            Event::AttemptStarted { attempt, at } => self.started(*attempt, *at),
            Event::AttemptCheckpointed { attempt, at, .. } => {
                if let Some(attempt) = self.attempts.get_mut(attempt) {
                    attempt.saved_at = Some(*at);
                }
            }
            Event::AttemptEnded { attempt, at, end, .. } => self.attempt_ended(*attempt, *at, end),
            Event::ExperimentEnded { experiment, at, outcome } => self.job_ended(*experiment, *at, outcome),
            Event::InstanceIntended { instance } => {
                let gpus = i64::from(instance.offering.instance_type.amounts().accelerators);
                let offering = instance.offering.key();
                self.instances.insert(
                    instance.id,
                    InstanceTally { offering, gpus, counted: false, charged_until: None },
                );
            }
            Event::InstanceLaunched { cloud, .. } => self.fleet_changes(cloud.instance, cloud.launched_at, 1),
            Event::InstanceGone { instance, at, end } => {
                match end {
                    InstanceEnd::Refused { .. } => self.figures.launches_refused += 1,
                    // Where it was told ahead, bursar may have ended it before the cloud did.
                    InstanceEnd::Interrupted | InstanceEnd::Terminated { why: DrainReason::Interrupted } => {
                        self.figures.interruptions += 1;
                    }
                    InstanceEnd::Terminated { .. } | InstanceEnd::Vanished => {}
                }
                self.fleet_changes(*instance, *at, -1);
            }
            Event::Charged { charge, .. } | Event::BillCorrected { charge } => self.charged(charge),
            Event::SweepQueued { .. }
            | Event::CancelRequested { .. }
            | Event::BudgetSet { .. }
            | Event::BudgetWindowBegan { .. }
            | Event::BudgetAlerted { .. }
            | Event::IdleGpuAlerted { .. }
            | Event::AgentRegistered { .. }
            | Event::NodeLost { .. }
            | Event::InstanceNoticed { .. }
            | Event::InstanceAtRisk { .. }
            | Event::CallFailed { .. }
            | Event::LeaseExtended { .. }
            | Event::BillingBegan { .. }
            | Event::PriceChanged { .. }
            | Event::InstanceDraining { .. }
            | Event::InstanceTerminating { .. }
            | Event::AttemptRecorded { .. }
            | Event::MetricsReported { .. }
            | Event::GpuIdle { .. }
            | Event::RungReached { .. }
            | Event::TrialPromoted { .. }
            | Event::AttemptStopping { .. }
            | Event::CapacityRefused { .. }
            | Event::CapacityFound { .. }
            | Event::NotificationQueued { .. }
            | Event::NotificationDelivered { .. }
            | Event::NotificationFailed { .. }
            | Event::NotificationDropped { .. }
            | Event::ReportReached { .. } => {}
        }
    }

    fn started(&mut self, attempt: AttemptId, at: Timestamp) {
        let Some(attempt) = self.attempts.get_mut(&attempt) else { return };
        attempt.started_at = Some(at);
        let Some(job) = self.jobs.get_mut(&attempt.experiment) else { return };
        if !job.started {
            job.started = true;
            self.waits.push(at.since(job.queued_at));
        }
        if std::mem::take(&mut job.waiting) {
            self.curves.queue.push((at, -1));
        }
    }

    fn attempt_ended(&mut self, attempt: AttemptId, at: Timestamp, end: &AttemptEnd) {
        let Some(AttemptTally { experiment, instance: _, gpus, started_at, saved_at }) =
            self.attempts.remove(&attempt)
        else {
            return;
        };
        if let Some(started_at) = started_at {
            let kept_until = match end {
                AttemptEnd::Exited { .. } => at,
                AttemptEnd::Killed { .. }
                | AttemptEnd::NotStarted { .. }
                | AttemptEnd::Stopped { .. }
                | AttemptEnd::InstanceLost { .. } => saved_at.unwrap_or(started_at).min(at),
            };
            self.run_millis += gpus * at.since(started_at).as_millis();
            self.lost_millis += gpus * at.since(kept_until.max(started_at)).as_millis();
        }
        // It waits again, unless its end follows at once.
        if let Some(job) = self.jobs.get_mut(&experiment)
            && !std::mem::replace(&mut job.waiting, true)
        {
            self.curves.queue.push((at, 1));
        }
    }

    fn job_ended(&mut self, experiment: ExperimentId, at: Timestamp, outcome: &Outcome) {
        let Some(job) = self.jobs.remove(&experiment) else { return };
        if job.waiting {
            self.curves.queue.push((at, -1));
        }
        let figures = &mut self.figures;
        let count = match outcome {
            Outcome::Succeeded => &mut figures.jobs_finished,
            Outcome::Failed { .. } => &mut figures.jobs_failed,
            Outcome::Refused { .. } => &mut figures.jobs_refused,
            Outcome::Stopped { .. } | Outcome::Cancelled | Outcome::Pruned { .. } => {
                &mut figures.jobs_stopped
            }
        };
        *count += 1;
        let succeeded = *outcome == Outcome::Succeeded;
        if succeeded {
            self.turnarounds.push(at.since(job.queued_at));
            self.finished_millis += job.gpus * job.duration.as_millis();
        }
        let in_time = job.deadline.is_none_or(|deadline| succeeded && at <= deadline);
        figures.deadlines_missed += u32::from(!in_time);
    }

    fn fleet_changes(&mut self, instance: InstanceId, at: Timestamp, by: i64) {
        let Some(tally) = self.instances.get_mut(&instance) else { return };
        // A launch may be told twice, and what was refused never came.
        let counts = by > 0;
        if std::mem::replace(&mut tally.counted, counts) == counts {
            return;
        }
        self.figures.instances_launched += u32::from(counts);
        match tally.offering.capacity_type {
            CapacityType::Spot => self.curves.spot.push((at, by)),
            CapacityType::OnDemand | CapacityType::Reserved => self.curves.on_demand.push((at, by)),
        }
    }

    fn charged(&mut self, charge: &bursar_model::Charge) {
        let cost = charge.costs().effective;
        let figures = &mut self.figures;
        figures.cost_usd += cost;
        self.curves.cost.push((charge.period.to, cost.as_nanos()));
        for line in &charge.lines {
            let part = match line.category {
                Category::Run => &mut figures.cost_run_usd,
                Category::Boot => &mut figures.cost_boot_usd,
                Category::Idle => &mut figures.cost_idle_usd,
                Category::Drain => &mut figures.cost_drain_usd,
                Category::Lost => &mut figures.cost_lost_usd,
            };
            *part += line.costs.effective;
        }
        let Some(instance) = self.instances.get_mut(&charge.instance) else { return };
        instance.charged_until = instance.charged_until.max(Some(charge.period.to));
        *self.costs.entry(instance.offering.clone()).or_default() += cost;
        match instance.offering.capacity_type {
            CapacityType::Spot => figures.cost_spot_usd += cost,
            CapacityType::OnDemand | CapacityType::Reserved => figures.cost_on_demand_usd += cost,
        }
        if charge.class == ChargeClass::Usage {
            self.paid_millis += instance.gpus * charge.period.span().as_millis();
        }
    }

    /// The figures and curves of a replay over this time.
    pub(super) fn finish(
        mut self,
        from: Timestamp,
        to: Timestamp,
    ) -> (Figures, Curves, Vec<(OfferingKey, Usd)>) {
        let mut figures = self.figures;
        for job in self.jobs.values() {
            figures.jobs_unfinished += 1;
            figures.deadlines_missed += u32::from(job.deadline.is_some_and(|deadline| deadline < to));
        }
        for attempt in self.attempts.values() {
            // What still runs counts for as long as it is paid for, so that both are of the same time.
            let paid_until =
                self.instances.get(&attempt.instance).and_then(|instance| instance.charged_until);
            let ran = attempt.started_at.zip(paid_until).map_or(Span::ZERO, |(at, until)| until.since(at));
            self.run_millis += attempt.gpus * ran.as_millis();
        }
        [figures.wait_median_s, figures.wait_p95_s, figures.wait_max_s] = percentiles(self.waits);
        [figures.turnaround_median_s, figures.turnaround_p95_s, figures.turnaround_max_s] =
            percentiles(self.turnarounds);
        figures.gpu_hours_finished = hours(self.finished_millis);
        figures.gpu_hours_run = hours(self.run_millis);
        figures.gpu_hours_lost = hours(self.lost_millis);
        figures.gpu_hours_paid = hours(self.paid_millis);
        figures.utilisation =
            (self.paid_millis > 0).then(|| self.run_millis as f64 / self.paid_millis as f64);
        let nanos_per_hour = |millis: i64| {
            i64::try_from(i128::from(figures.cost_usd.as_nanos()) * 3_600_000 / i128::from(millis)).ok()
        };
        figures.cost_per_gpu_hour_usd = (self.finished_millis > 0)
            .then(|| nanos_per_hour(self.finished_millis))
            .flatten()
            .map(Usd::from_nanos);
        let curves = Curves::new(self.curves, from, to);
        figures.fleet_peak = curves.fleet_peak;
        figures.fleet_mean = curves.fleet_mean;
        figures.virtual_s = to.since(from).as_millis() as f64 / 1000.0;
        let mut costs: Vec<(OfferingKey, Usd)> = self.costs.into_iter().collect();
        costs.sort_by_key(|(key, cost)| (std::cmp::Reverse(*cost), key.clone()));
        (figures, curves, costs)
    }
}

/// Median, 95th percentile and maximum in seconds, by nearest rank.
fn percentiles(mut spans: Vec<Span>) -> [Option<f64>; 3] {
    spans.sort_unstable();
    let rank = |percent: usize| (spans.len() * percent).div_ceil(100).saturating_sub(1);
    [50, 95, 100].map(|percent| spans.get(rank(percent)).map(|span| span.as_millis() as f64 / 1000.0))
}

fn hours(millis: i64) -> f64 {
    millis as f64 / 3_600_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let spans = |seconds: &[i64]| seconds.iter().map(|s| Span::from_secs(*s)).collect();
        assert_eq!(percentiles(spans(&[5, 1, 3, 2])), [Some(2.0), Some(5.0), Some(5.0)]);
        assert_eq!(
            percentiles((1..=100).map(Span::from_secs).collect()),
            [Some(50.0), Some(95.0), Some(100.0)]
        );
        assert_eq!(percentiles(Vec::new()), [None, None, None]);
    }
}
