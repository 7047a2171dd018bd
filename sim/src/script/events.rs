//! The journal in short lines.

use bursar_model::{BudgetAlert, Charge, ChargeClass, Event, InstanceEnd, SetBy, Usd};

use super::names::dollars;

/// Whether an event is bookkeeping, which would hide what a story is about.
pub(super) fn is_bookkeeping(event: &Event) -> bool {
    match event {
        Event::Charged { charge, .. } => charge.class == ChargeClass::Usage,
        Event::SpecAdded { .. }
        | Event::InstanceLaunched { .. }
        | Event::BillingBegan { .. }
        | Event::LeaseExtended { .. }
        | Event::AttemptRecorded { .. }
        | Event::AttemptCheckpointed { .. }
        | Event::MetricsReported { .. }
        | Event::GpuIdle { .. }
        | Event::NotificationQueued { .. }
        | Event::NotificationDelivered { .. }
        | Event::NotificationFailed { .. }
        | Event::ReportReached { .. } => true,
        Event::SweepQueued { .. }
        | Event::ExperimentQueued { .. }
        | Event::CancelRequested { .. }
        | Event::ExperimentEnded { .. }
        | Event::BudgetSet { .. }
        | Event::BudgetWindowBegan { .. }
        | Event::BudgetAlerted { .. }
        | Event::IdleGpuAlerted { .. }
        | Event::InstanceIntended { .. }
        | Event::AgentRegistered { .. }
        | Event::InstanceNoticed { .. }
        | Event::InstanceAtRisk { .. }
        | Event::CallFailed { .. }
        | Event::PriceChanged { .. }
        | Event::InstanceDraining { .. }
        | Event::InstanceTerminating { .. }
        | Event::InstanceGone { .. }
        | Event::AttemptAssigned { .. }
        | Event::AttemptStarted { .. }
        | Event::RungReached { .. }
        | Event::TrialPromoted { .. }
        | Event::AttemptStopping { .. }
        | Event::NodeLost { .. }
        | Event::AttemptEnded { .. }
        | Event::BillCorrected { .. }
        | Event::CapacityRefused { .. }
        | Event::CapacityFound { .. }
        | Event::NotificationDropped { .. } => false,
    }
}

/// An event in a few words.
pub(super) fn line(event: &Event) -> String {
    match event {
        Event::SpecAdded { .. } => "a new spec".to_owned(),
        Event::SweepQueued { sweep } => format!("{} is queued, {} trials", sweep.name, sweep.trials),
        Event::ExperimentQueued { experiment } => format!("{} is queued", experiment.name),
        Event::CancelRequested { experiment } => format!("{experiment} is cancelled"),
        Event::ExperimentEnded { experiment, outcome, .. } => format!("{experiment} {outcome}"),
        Event::BudgetSet { key, terms, by, .. } => {
            let limit = terms.as_ref().and_then(|terms| terms.limit);
            let limit = limit.map_or_else(|| "no limit".to_owned(), Usd::rounded);
            format!("{key} has {limit}, by {}", setter(by))
        }
        Event::BudgetWindowBegan { key, window } => format!("{key} begins anew, until {}", window.to),
        Event::BudgetAlerted { key, alert, .. } => format!("{key}: {}", news(alert)),
        Event::InstanceIntended { instance } => {
            let (key, held) = (instance.offering.key(), instance.held().rounded());
            format!("{} is intended as {key}, {held} held for it", instance.id)
        }
        Event::InstanceLaunched { cloud, .. } => format!("{} is launched", cloud.instance),
        Event::AgentRegistered { instance, .. } => format!("{instance} is ready"),
        Event::InstanceNoticed { instance, gone_at } => format!("{instance} will be taken back at {gone_at}"),
        Event::InstanceAtRisk { instance, why } => format!("{instance} may be taken back: {why}"),
        Event::CallFailed { instance, backoff } => {
            format!("a call about {instance} fails, {} in a row", backoff.failures)
        }
        Event::LeaseExtended { instance, until, .. } => format!("{instance} is leased until {until}"),
        Event::BillingBegan { instance, at } => format!("{instance} is billed since {at}"),
        Event::PriceChanged { instance, price, .. } => {
            format!("{instance} costs {} now", price.effective.rounded())
        }
        Event::InstanceDraining { instance, why, .. } => format!("{instance} drains: {why}"),
        Event::InstanceTerminating { instance, why, .. } => format!("{instance} is to end: {why}"),
        Event::InstanceGone { instance, end, .. } => format!("{instance} is gone: {}", ending(end)),
        Event::AttemptAssigned { attempt, .. } => {
            let on: Vec<String> = attempt.instances().map(|id| id.to_string()).collect();
            format!("{} is given to {}", attempt.id, on.join(", "))
        }
        Event::AttemptStarted { attempt, .. } => format!("{attempt} starts"),
        Event::AttemptRecorded { attempt, ran_with } => format!("{attempt} runs with {}", ran_with.runtime),
        Event::AttemptCheckpointed { attempt, at, .. } => format!("{attempt} has saved as of {at}"),
        Event::MetricsReported { attempt, .. } => format!("{attempt} reports metrics"),
        Event::GpuIdle { attempt, since: Some(_) } => format!("a GPU of {attempt} is idle"),
        Event::GpuIdle { attempt, since: None } => format!("all GPUs of {attempt} are used"),
        Event::IdleGpuAlerted { attempt, .. } => format!("a GPU of {attempt} stays idle"),
        Event::RungReached { experiment, rung, score, .. } => {
            let score = score.map_or_else(|| "no number".to_owned(), |score| score.to_string());
            format!("{experiment} reaches rung {rung} with {score}")
        }
        Event::TrialPromoted { experiment, rung } => format!("{experiment} goes on from rung {rung}"),
        Event::AttemptStopping { attempt, why, at_once, .. } => {
            let how = if *at_once { " at once" } else { "" };
            format!("{attempt} is to stop{how}: {why}")
        }
        Event::NodeLost { attempt, instance, end, .. } => {
            format!("{attempt} loses its node on {instance}: {end}")
        }
        Event::AttemptEnded { attempt, end, node: None, .. } => format!("{attempt} ends: {end}"),
        Event::AttemptEnded { attempt, end, node: Some(node), .. } => {
            format!("{attempt} ends by its node {node}: {end}")
        }
        Event::Charged { charge, .. } => charged("is charged", charge),
        Event::BillCorrected { charge } => charged("is corrected by its bill by", charge),
        Event::CapacityRefused { scope, until, .. } => {
            format!("{scope} is refused, left alone until {until}")
        }
        Event::CapacityFound { scope } => format!("{scope} can be had again"),
        Event::NotificationQueued { notification } => format!("{} is to be told", notification.to),
        Event::NotificationDelivered { .. } => "a notification is delivered".to_owned(),
        Event::NotificationFailed { error, .. } => format!("a notification fails: {error}"),
        Event::NotificationDropped { why, .. } => format!("a notification is dropped: {why}"),
        Event::ReportReached { report, .. } => format!("the report {report} is made"),
    }
}

fn setter(by: &SetBy) -> &'static str {
    match by {
        SetBy::Configuration => "the configuration",
        SetBy::Spec => "its spec",
        SetBy::Clock => "the clock",
        SetBy::Person { .. } => "a person",
    }
}

fn news(alert: &BudgetAlert) -> String {
    match alert {
        BudgetAlert::Threshold { percent } => format!("{percent} % is spent"),
        BudgetAlert::Exhausted => "it is used up".to_owned(),
        BudgetAlert::Forecast { breach_at } => format!("it will be used up at {breach_at}"),
        BudgetAlert::Anomaly { expected, .. } => {
            format!("it costs far more than the {} that was expected", expected.rounded())
        }
    }
}

fn ending(end: &InstanceEnd) -> String {
    match end {
        InstanceEnd::Refused { message } => format!("refused, {message}"),
        InstanceEnd::Interrupted => "interrupted by the cloud".to_owned(),
        InstanceEnd::Terminated { why } => format!("terminated, {why}"),
        InstanceEnd::Vanished => "ended of itself".to_owned(),
    }
}

fn charged(how: &str, charge: &Charge) -> String {
    let parts = charge
        .lines
        .iter()
        .map(|line| format!("{} {} {}", line.payer, line.category, dollars(line.costs.effective)));
    let parts: Vec<String> = parts.collect();
    format!("{} {how} {}: {}", charge.instance, dollars(charge.costs().effective), parts.join(", "))
}
