//! What the demo came to, for people and for programs.

use bursar_daemon::views::{
    AllocationView, ExperimentView, InstanceView, ListWanted, ReportView, ReportWanted, SweepView, Views,
};
use bursar_model::{SweepId, Usd};
use serde_json::{Value, json};

use super::play::trials;
use crate::{
    commands::report_text,
    exit::{FAILED, Failure},
    output::render,
};

/// The metric that trials are compared by.
const METRIC: &str = "accuracy";

/// What the books say.
#[derive(Debug)]
pub(crate) struct Summary {
    sweep: SweepView,
    trials: Vec<ExperimentView>,
    instances: Vec<(InstanceView, Vec<AllocationView>)>,
    report: ReportView,
    /// Instances that were not gone at the end.
    pub(crate) leaked: usize,
}

impl Summary {
    /// Reads it from the store.
    pub(super) fn read(views: &Views, sweep: SweepId) -> Result<Self, Failure> {
        let trials = trials(views, sweep)?;
        let view =
            views.sweep(sweep)?.ok_or_else(|| Failure::new(FAILED, "the sweep is not in the store"))?;
        let mut instances = Vec::new();
        let all = ListWanted { limit: Some(1000), ..ListWanted::default() };
        for instance in views.instances(&all)?.rows.into_iter().rev() {
            let allocations = views.allocations(instance.id)?;
            instances.push((instance, allocations));
        }
        let report = views.report(&ReportWanted {
            by: Some("instance-type,capacity-type".to_owned()),
            sweep: Some(sweep.to_string()),
            ..ReportWanted::default()
        })?;
        let leaked = instances.iter().filter(|(instance, _)| instance.state != "gone").count();
        Ok(Self { sweep: view, trials, instances, report, leaked })
    }

    /// For programs. Money as decimal strings in dollars.
    pub(super) fn to_json(&self) -> Value {
        let trials: Vec<Value> = self
            .trials
            .iter()
            .map(|trial| {
                json!({
                    "experiment": trial.id,
                    "state": trial.state,
                    "reason": trial.reason,
                    "attempts": trial.attempts,
                    "cost": trial.cost,
                    "metric": trial.metrics.get(METRIC),
                })
            })
            .collect();
        let instances: Vec<Value> = self
            .instances
            .iter()
            .map(|(instance, allocations)| {
                json!({ "id": instance.id, "cost": instance.cost, "allocations": allocations })
            })
            .collect();
        json!({
            "sweep": self.sweep.id,
            "budget": self.sweep.budget,
            "spent": self.sweep.spent,
            "held": self.sweep.held,
            "trials": trials,
            "instances": instances,
            "on_demand_cost": self.report.total.on_demand_cost,
            "leaked": self.leaked,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("\n");
        text.push_str(&self.trial_table());
        text.push_str("\n\n");
        if let Some(best) = self.best() {
            let params: Vec<String> =
                best.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let accuracy = best.metrics.get(METRIC).copied().unwrap_or_default();
            text.push_str(&format!(
                "Best trial: {} ({}) with accuracy {accuracy:.3}\n\n",
                best.name,
                params.join(", ")
            ));
        }
        text.push_str(&report_text(&self.report));
        let (spent, on_demand) = (self.sweep.spent, self.report.total.on_demand_cost);
        let saved = percent_saved(spent, on_demand);
        text.push_str(&format!(
            "\n\nSpent {} of the {} budget, never more. On-demand only would have cost {}{saved}.\n",
            spent.rounded(),
            self.sweep.budget.unwrap_or_default().rounded(),
            on_demand.rounded(),
        ));
        let interrupted = self.trials.iter().filter(|trial| trial.attempts > 1).count();
        text.push_str(&format!(
            "{interrupted} interrupted trial{} resumed from a checkpoint; {} of {} instances still run.",
            if interrupted == 1 { "" } else { "s" },
            self.leaked,
            self.instances.len()
        ));
        text
    }

    fn trial_table(&self) -> String {
        let rows = self
            .trials
            .iter()
            .map(|trial| {
                let params: Vec<String> =
                    trial.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let metric =
                    trial.metrics.get(METRIC).map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
                vec![
                    trial.name.clone(),
                    params.join(" "),
                    trial.state.clone(),
                    trial.attempts.to_string(),
                    metric,
                    trial.cost.rounded(),
                    trial.reason.clone().unwrap_or_default(),
                ]
            })
            .collect();
        render(&["trial", "parameters", "state", "tries", METRIC, "cost", "reason"], rows, &[3, 4, 5])
    }

    fn best(&self) -> Option<&ExperimentView> {
        self.trials
            .iter()
            .filter(|trial| trial.state == "succeeded")
            .filter(|trial| trial.metrics.contains_key(METRIC))
            .max_by(|a, b| a.metrics[METRIC].total_cmp(&b.metrics[METRIC]))
    }
}

fn percent_saved(spent: Usd, on_demand: Usd) -> String {
    let (spent, on_demand) = (spent.as_nanos(), on_demand.as_nanos());
    if on_demand <= spent || on_demand == 0 {
        return String::new();
    }
    format!(" ({} % saved)", (on_demand - spent) * 100 / on_demand)
}
