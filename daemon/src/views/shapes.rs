//! The shapes that people and programs are shown things in, and how they are made of what the store holds.

use std::{collections::BTreeMap, sync::Arc};

use bursar_ledger::{
    BurnDown,
    bill::{Month, OwnCost, OwnMonth},
};
use bursar_model::{
    Asha, AshaMode, Attempt, AttemptState, Boot, Budget, BudgetKey, Category, CloudId, CostEstimate,
    Experiment, ExperimentId, ExperimentSpec, ExperimentState, Instance, InstanceId, InstanceState,
    OnExhausted, Params, Period, RanWith, Rates, Span, Sweep, SweepId, Terms, Timestamp, Usd, UsdPerHour,
    WaitingOn,
};
use bursar_store::{ExperimentRow, InstanceCosts, MonthCosts, Page, ReportRow, SweepRow};
use serde::{Deserialize, Serialize};

use super::{progress::Progress, uncharged::Uncharged};

/// A part of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Give it as `after` for the rows that follow; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An experiment in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExperimentView {
    /// Its id.
    pub id: ExperimentId,
    /// What people call it.
    pub name: String,
    /// The project that pays.
    pub project: String,
    /// Who submitted it.
    pub user: String,
    /// The sweep that it is a trial of.
    pub sweep: Option<SweepId>,
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled`, `stopped` or `refused`.
    pub state: String,
    /// Why it waits, or why it ended so, for people.
    pub reason: Option<String>,
    /// The same for programs, while it waits.
    pub waiting_on: Option<WaitingOn>,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// Its parameters, where it is a trial.
    pub params: Params,
    /// The newest value of each metric.
    pub metrics: BTreeMap<String, f64>,
    /// Its newest checkpoint.
    pub checkpoint_at: Option<Timestamp>,
    /// How long saving took last, where checkpoints are stored beyond their machine: one stored while it ran from the first
    /// look at its files, the one at its end from SIGTERM, so with all that the program itself did to save.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_took: Option<Span>,
    /// Charged so far, in dollars.
    pub cost: Usd,
    /// What it was expected to cost when it was accepted; none where nobody knew.
    #[serde(default)]
    pub expected: Option<CostEstimate>,
}

/// Everything about one experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExperimentDetail {
    /// As in lists.
    pub experiment: ExperimentView,
    /// What was asked for.
    pub spec: Arc<ExperimentSpec>,
    /// Its attempts, the oldest first.
    pub attempts: Vec<AttemptView>,
    /// What its cost went on.
    pub cost_by_category: BTreeMap<Category, Usd>,
    /// What it costs that is not charged yet. None where nothing more comes: the cost is final once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncharged: Option<Uncharged>,
    /// Its budget, where it has one.
    pub budget: Option<Usd>,
    /// How far it is, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// One attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptView {
    /// Its id.
    pub id: bursar_model::AttemptId,
    /// 1 for the first.
    pub number: u32,
    /// Where it ran, by rank.
    pub nodes: Vec<NodeView>,
    /// `assigned`, `running`, `stopping` or `ended`.
    pub state: String,
    /// How it ended or why it stops, for people.
    pub reason: Option<String>,
    /// When it was given to the instance.
    pub assigned_at: Timestamp,
    /// When its work started.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Its newest checkpoint.
    pub checkpoint_at: Option<Timestamp>,
    /// What it ran with, once its agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_with: Option<RanWith>,
}

/// An attempt's part on one instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    /// The instance.
    pub instance: InstanceId,
    /// What that was: provider, zone, type, capacity type.
    pub offering: Option<String>,
    /// The accelerators that it had, by number.
    pub devices: Vec<u32>,
}

/// A sweep in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepView {
    /// Its id.
    pub id: SweepId,
    /// What people call it.
    pub name: String,
    /// The project that pays.
    pub project: String,
    /// Who submitted it.
    pub user: String,
    /// `running` or `ended`.
    pub state: String,
    /// All its trials.
    pub trials: u32,
    /// Those that are not over.
    pub open: u32,
    /// Those that have an attempt now.
    pub running: u32,
    /// The most that it may cost.
    pub budget: Option<Usd>,
    /// Charged so far.
    pub spent: Usd,
    /// Held for leases that run.
    pub held: Usd,
    /// How its trials stand, where they are halved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asha: Option<AshaView>,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When its last trial was over.
    pub ended_at: Option<Timestamp>,
}

/// How the trials of a sweep with asha stand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AshaView {
    /// The metric that they are compared by.
    pub metric: String,
    /// Whether the smallest or the largest is best.
    pub mode: AshaMode,
    /// The metric that says how far they are.
    pub resource: String,
    /// The rungs, from the first.
    pub rungs: Vec<RungView>,
}

/// A rung of asha.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RungView {
    /// The resource at which trials reach it.
    pub resource: u64,
    /// How many have.
    pub reached: usize,
    /// How many were let go on.
    pub promoted: usize,
    /// The best of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestView>,
}

/// The best trial of a rung.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BestView {
    /// Which.
    pub trial: ExperimentId,
    /// What it reported there; none where that was no finite number.
    pub score: Option<f64>,
}

/// An instance in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// Provider, zone, type and capacity type.
    pub offering: String,
    /// The provider.
    pub provider: String,
    /// The zone.
    pub zone: String,
    /// The type.
    pub instance_type: String,
    /// `spot` or `on-demand`.
    pub capacity_type: String,
    /// `intended`, `booting`, `ready`, `draining`, `terminating` or `gone`.
    pub state: String,
    /// Why it goes or how it ended, for people.
    pub reason: Option<String>,
    /// The cloud's name of it.
    pub cloud_id: Option<CloudId>,
    /// The price in force.
    pub price: UsdPerHour,
    /// What an hour costs now on each basis, its disk included.
    pub rates: Rates,
    /// On which terms it is billed.
    pub terms: Terms,
    /// The price that it may reach.
    pub ceiling: UsdPerHour,
    /// Paid for until then.
    pub lease_until: Timestamp,
    /// When billing began.
    pub launched_at: Option<Timestamp>,
    /// How it came up, once its agent registered.
    #[serde(default)]
    pub boot: Option<Arc<Boot>>,
    /// When the cloud takes it back, once it said so.
    #[serde(default)]
    pub notice: Option<Timestamp>,
    /// Why the cloud may take it back soon, once it said so.
    #[serde(default)]
    pub at_risk: Option<String>,
    /// Charged until then.
    pub charged_through: Timestamp,
    /// Charged so far.
    pub cost: Usd,
    /// Held for the rest of its lease.
    pub held: Usd,
    /// Who pays for it now.
    pub payers: Vec<ExperimentId>,
}

/// A budget.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BudgetView {
    /// Which.
    pub budget: String,
    /// What people call the sweep or experiment that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most that may be spent; none has no limit.
    pub limit: Option<Usd>,
    /// Charged so far.
    pub spent: Usd,
    /// Held for leases that run.
    pub held: Usd,
    /// What is neither spent nor held of the limit. Below zero where that was lowered and work is landing.
    pub left: Option<Usd>,
    /// What is spent an hour lately: the basis of the forecast. None where there is nothing to go by.
    pub rate: Option<UsdPerHour>,
    /// What will have been spent by the end of the window, or in 30 days where there is none, if it goes on so.
    pub projected: Option<Usd>,
    /// When what is spent and held would fill the limit, so that nothing more is launched. None where that is later.
    pub full_at: Option<Timestamp>,
    /// When the limit would be spent. None where that is later.
    pub breach_at: Option<Timestamp>,
    /// When its windows begin: a cron expression with its time zone, or a word such as `month`. None counts everything
    /// ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// The window that counts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
    /// What happens when it is used up.
    pub on_exhausted: OnExhausted,
    /// At which parts of the limit somebody is told, in percent.
    pub thresholds: Vec<u16>,
    /// The limit was lowered below what was spent and held, and work is landing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub landing: bool,
}

/// A report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportView {
    /// What the rows are by.
    pub by: Vec<String>,
    /// One row for each combination that occurs.
    pub rows: Vec<ReportLine>,
    /// The sum.
    pub total: ReportLine,
    /// What people call the experiments and sweeps among the keys, by id.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
}

/// One row of a report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportLine {
    /// The values of what the report is by.
    pub keys: Vec<String>,
    /// What it cost.
    pub cost: Usd,
    /// What the cloud's bill says: without the overhead of this installation.
    pub contracted_cost: Usd,
    /// What it cost at listed prices, without discounts.
    pub list_cost: Usd,
    /// What it had cost at on-demand prices.
    pub on_demand_cost: Usd,
    /// What the money went on.
    pub by_category: BTreeMap<Category, Usd>,
    /// Instance time in seconds, shared instances by their parts.
    pub seconds: f64,
    /// What the experiment was expected to cost, in reports by experiment alone and where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_cost: Option<Usd>,
}

/// One payer's part of what an instance cost, by category.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllocationView {
    /// Who pays.
    pub payer: ExperimentId,
    /// What for.
    pub category: Category,
    /// How much.
    pub cost: Usd,
}

/// A budget by the name that `--by` and the API use.
#[must_use]
pub fn budget_name(key: &BudgetKey) -> String {
    match key {
        BudgetKey::Installation => "installation".to_owned(),
        BudgetKey::Project(name) => format!("project {name}"),
        BudgetKey::User(name) => format!("user {name}"),
        BudgetKey::Sweep(id) => format!("sweep {id}"),
        BudgetKey::Experiment(id) => format!("experiment {id}"),
    }
}

pub(super) fn budget_view(
    key: &BudgetKey,
    budget: &Budget,
    name: Option<String>,
    forecast: Option<&BurnDown>,
) -> BudgetView {
    let terms = budget.terms.as_deref();
    BudgetView {
        budget: budget_name(key),
        name,
        limit: budget.limit(),
        spent: budget.spent,
        held: budget.held,
        left: budget.limit().map(|limit| limit.saturating_sub(budget.committed())),
        rate: forecast.map(|forecast| forecast.rate),
        projected: forecast.map(|forecast| forecast.projected),
        full_at: forecast.and_then(|forecast| forecast.full_at),
        breach_at: forecast.and_then(|forecast| forecast.breach_at),
        per: terms.and_then(|terms| terms.schedule.as_ref()).map(ToString::to_string),
        window: budget.window,
        on_exhausted: budget.on_exhausted(),
        thresholds: terms.map(|terms| terms.thresholds.clone()).unwrap_or_default(),
        landing: budget.over() > Usd::ZERO,
    }
}

pub(super) fn list<T, V>(page: Page<T>, view: impl FnMut(T) -> V) -> List<V> {
    List {
        rows: page.rows.into_iter().map(view).collect(),
        next: page.next.map(|cursor| cursor.0.to_string()),
    }
}

pub(super) fn attempt_view(attempt: Attempt, nodes: Vec<NodeView>) -> AttemptView {
    let (state, reason, ended_at) = match &attempt.state {
        AttemptState::Assigned => ("assigned", None, None),
        AttemptState::Running => ("running", None, None),
        AttemptState::Stopping { why, .. } => ("stopping", Some(why.to_string()), None),
        AttemptState::Ended { at, end, node: None } => ("ended", Some(end.to_string()), Some(*at)),
        AttemptState::Ended { at, end, node: Some(node) } => {
            ("ended", Some(format!("node {node}: {end}")), Some(*at))
        }
    };
    AttemptView {
        id: attempt.id,
        number: attempt.number,
        nodes,
        state: state.to_owned(),
        reason,
        assigned_at: attempt.assigned_at,
        started_at: attempt.started_at,
        ended_at,
        checkpoint_at: attempt.checkpoint_at,
        ran_with: attempt.ran_with.map(|ran_with| *ran_with),
    }
}

pub(super) fn sweep_view(row: SweepRow) -> SweepView {
    let SweepRow { sweep, budget } = row;
    let Sweep { id, name, project, user, queued_at, trials, open, running, max_parallel: _, asha, ended_at } =
        sweep;
    SweepView {
        id,
        name: name.to_string(),
        project: project.to_string(),
        user: user.to_string(),
        state: if ended_at.is_some() { "ended" } else { "running" }.to_owned(),
        trials,
        open,
        running,
        budget: budget.limit(),
        spent: budget.spent,
        held: budget.held,
        asha: asha.as_ref().map(asha_view),
        queued_at,
        ended_at,
    }
}

fn asha_view(asha: &Asha) -> AshaView {
    let rungs = asha.rungs.iter().enumerate().map(|(number, rung)| RungView {
        resource: rung.resource,
        reached: rung.standings.len(),
        promoted: rung.standings.values().filter(|standing| standing.promoted).count(),
        best: asha
            .ranking(number)
            .first()
            .map(|(trial, standing)| BestView { trial: *trial, score: standing.score }),
    });
    AshaView {
        metric: asha.rules.metric.clone(),
        mode: asha.rules.mode,
        resource: asha.rules.resource.clone(),
        rungs: rungs.collect(),
    }
}

pub(super) fn instance_view(instance: Instance) -> InstanceView {
    let reason = match &instance.state {
        InstanceState::Intended { .. } if instance.backoff.failures > 0 => {
            Some(format!("the provider failed {} times", instance.backoff.failures))
        }
        InstanceState::Intended { .. } | InstanceState::Booting { .. } | InstanceState::Ready { .. } => None,
        InstanceState::Draining { why, .. } | InstanceState::Terminating { why, .. } => Some(why.to_string()),
        InstanceState::Gone { end, .. } => Some(match end {
            bursar_model::InstanceEnd::Refused { message } => format!("refused: {message}"),
            bursar_model::InstanceEnd::Interrupted => "interrupted by the cloud".to_owned(),
            bursar_model::InstanceEnd::Terminated { why } => why.to_string(),
            bursar_model::InstanceEnd::Vanished => "ended of itself".to_owned(),
        }),
    };
    InstanceView {
        id: instance.id,
        offering: instance.offering.key().to_string(),
        provider: instance.offering.provider.to_string(),
        zone: instance.offering.zone.to_string(),
        instance_type: instance.offering.instance_type.name.to_string(),
        capacity_type: instance.offering.capacity_type.to_string(),
        state: instance.state_name().to_owned(),
        reason,
        price: instance.price.effective,
        rates: instance.rates_at(instance.price),
        terms: *instance.offering.terms,
        ceiling: instance.ceiling,
        lease_until: instance.lease_until,
        launched_at: instance.meter.from,
        notice: instance.notice,
        charged_through: instance.meter.through,
        cost: instance.meter.costs.effective,
        held: instance.held(),
        payers: instance.shares.keys().copied().collect(),
        cloud_id: instance.cloud_id,
        boot: instance.boot,
        at_risk: instance.at_risk,
    }
}

#[expect(clippy::float_arithmetic, reason = "seconds for people; no money is made of them")]
pub(super) fn report_line(row: ReportRow) -> ReportLine {
    let ReportRow { keys, costs, by_category, time } = row;
    ReportLine {
        keys: keys.iter().map(ToString::to_string).collect(),
        cost: costs.effective,
        contracted_cost: costs.contracted,
        list_cost: costs.list,
        on_demand_cost: costs.on_demand,
        by_category: by_category.costs().collect(),
        seconds: time.as_millis() as f64 / 1000.0,
        expected_cost: None,
    }
}

pub(super) fn experiment_view(row: ExperimentRow, waiting_on: Option<&WaitingOn>) -> ExperimentView {
    let ExperimentRow { experiment, spec: _, spent } = row;
    let state = experiment.state_name().to_owned();
    let Experiment {
        id,
        name,
        account,
        spec: _,
        params,
        queued_at,
        state: position,
        attempts,
        failures: _,
        losses: _,
        not_before: _,
        checkpoint_at,
        checkpoint_took,
        metrics,
        cancelled: _,
        expected,
    } = experiment;
    let (reason, ended_at, waiting_on) = match position {
        ExperimentState::Queued => (waiting_on.map(ToString::to_string), None, waiting_on.cloned()),
        ExperimentState::Running { .. } => (None, None, None),
        ExperimentState::Ended { at, outcome } => (outcome.detail(), Some(at), None),
    };
    ExperimentView {
        id,
        name: name.to_string(),
        project: account.project.to_string(),
        user: account.user.to_string(),
        sweep: account.sweep,
        state,
        reason,
        waiting_on,
        queued_at,
        ended_at,
        attempts,
        params,
        metrics,
        checkpoint_at,
        checkpoint_took,
        cost: spent,
        expected,
    }
}

pub(super) fn own_cost(costs: InstanceCosts) -> OwnCost {
    let InstanceCosts { instance, cloud_id, provider, gone, metered, months } = costs;
    let months = months.into_iter().map(|(begin, MonthCosts { usage, correction })| {
        (Month::of(begin), OwnMonth { metered: usage, corrected: correction })
    });
    OwnCost { instance, cloud_id, provider, period: metered, over: gone, months: months.collect() }
}

/// The sum of nothing.
pub(super) fn no_cost() -> ReportLine {
    ReportLine {
        keys: Vec::new(),
        cost: Usd::ZERO,
        contracted_cost: Usd::ZERO,
        list_cost: Usd::ZERO,
        on_demand_cost: Usd::ZERO,
        by_category: BTreeMap::new(),
        seconds: 0.0,
        expected_cost: None,
    }
}
