//! What only reads: lists, details, reports, health.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use bursar_model::{InstanceId, SweepId, Timestamp, UsdPerHour, WaitingOn};
use bursar_store::{Cursor, Dimension, ExperimentFilter, Integrity, ReportFilter, ReportQuery, SweepFilter};
use serde::{Deserialize, Serialize};

use super::{Api, ApiError};
use crate::views::{
    AllocationView, BudgetView, ExperimentDetail, ExperimentView, InstanceView, List, ReportView, SweepView,
};

/// Rows of a list where nobody says how many.
const PAGE_DEFAULT: u32 = 100;

/// An offering in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfferView {
    /// The provider.
    pub provider: String,
    /// Its region.
    pub region: String,
    /// The zone.
    pub zone: String,
    /// The type.
    pub instance_type: String,
    /// `spot` or `on-demand`.
    pub capacity_type: String,
    /// The accelerators, as `A100:8`.
    pub accelerators: Option<String>,
    /// Virtual CPUs.
    pub cpus: String,
    /// Memory in GiB.
    pub memory_gib: String,
    /// The price now; none where it is not known.
    pub price: Option<UsdPerHour>,
    /// Until when it is left alone, because it was refused.
    pub refused_until: Option<Timestamp>,
}

/// Whether the daemon is well.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// Always `ok`: a daemon that cannot answer says nothing.
    pub status: String,
    /// The daemon's version.
    pub version: String,
    /// The time that it goes by.
    pub now: Timestamp,
    /// The installation's name.
    pub installation: String,
    /// Experiments that wait.
    pub queued: u64,
    /// Experiments that run.
    pub running: u64,
    /// Instances that may exist.
    pub live_instances: u64,
    /// Offerings known.
    pub offerings: usize,
    /// Turns that could not be stored since the start.
    pub failed_commits: u64,
    /// Instances with our tag that nobody knew, ended since the start.
    pub orphans: u64,
    /// Why experiments wait: how many for each reason.
    pub waiting: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<String>,
    project: Option<String>,
    sweep: Option<String>,
    user: Option<String>,
    name: Option<String>,
    text: Option<String>,
    live: bool,
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReportParams {
    by: Option<String>,
    since: Option<String>,
    until: Option<String>,
    experiment: Option<String>,
    sweep: Option<String>,
    project: Option<String>,
    user: Option<String>,
    provider: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: u64,
    limit: Option<u32>,
}

pub(super) async fn experiments(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<ExperimentView>>, ApiError> {
    let sweep = match &query.sweep {
        Some(named) => Some(find_sweep(&api, named)?.id),
        None => None,
    };
    let filter = ExperimentFilter {
        state: query.state,
        project: query.project.as_deref().map(Into::into),
        sweep,
        user: query.user.as_deref().map(Into::into),
        name: query.name,
        text: query.text,
        ids: Vec::new(),
        live_only: query.live,
    };
    let after = cursor(query.after.as_deref())?;
    Ok(Json(api.views().experiments(&filter, after, query.limit.unwrap_or(PAGE_DEFAULT))?))
}

pub(super) async fn experiment(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<ExperimentDetail>, ApiError> {
    find_experiment(&api, &id).map(Json)
}

pub(super) async fn sweeps(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<SweepView>>, ApiError> {
    let filter = SweepFilter {
        project: query.project.as_deref().map(Into::into),
        name: query.name,
        live_only: query.live,
    };
    let after = cursor(query.after.as_deref())?;
    Ok(Json(api.views().sweeps(&filter, after, query.limit.unwrap_or(PAGE_DEFAULT))?))
}

pub(super) async fn sweep(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<SweepView>, ApiError> {
    find_sweep(&api, &id).map(Json)
}

pub(super) async fn instances(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<InstanceView>>, ApiError> {
    let after = cursor(query.after.as_deref())?;
    Ok(Json(api.views().instances(query.live, after, query.limit.unwrap_or(PAGE_DEFAULT))?))
}

pub(super) async fn allocations(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Vec<AllocationView>>, ApiError> {
    let instance: InstanceId = id.parse().map_err(|_| ApiError::not_found("instance", &id))?;
    Ok(Json(api.views().allocations(instance)?))
}

pub(super) async fn budgets(State(api): State<Api>) -> Result<Json<Vec<BudgetView>>, ApiError> {
    Ok(Json(api.views().budgets()?))
}

pub(super) async fn report(
    State(api): State<Api>,
    Query(params): Query<ReportParams>,
) -> Result<Json<ReportView>, ApiError> {
    let query = report_query(&api, params)?;
    Ok(Json(api.views().report(&query)?))
}

pub(super) async fn events(
    State(api): State<Api>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let entries = api.reader.events(query.after, query.limit.unwrap_or(PAGE_DEFAULT))?;
    let rows: Vec<_> = entries
        .into_iter()
        .map(|entry| serde_json::json!({ "seq": entry.seq, "at": entry.at, "event": entry.event }))
        .collect();
    Ok(Json(serde_json::json!({ "rows": rows })))
}

pub(super) async fn offers(State(api): State<Api>) -> Json<Vec<OfferView>> {
    let market = api.snapshot.borrow().market.clone();
    Json(market.offerings().iter().map(offer_view).collect())
}

pub(super) async fn health(State(api): State<Api>) -> Result<Json<Health>, ApiError> {
    let counts = api.reader.counts()?;
    let snapshot = api.snapshot.borrow().clone();
    let mut waiting = std::collections::BTreeMap::new();
    for reason in snapshot.waiting.values() {
        *waiting.entry(kind_of(reason).to_owned()).or_default() += 1;
    }
    Ok(Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: api.clock.now(),
        installation: api.config.installation.clone(),
        queued: counts.queued,
        running: counts.running,
        live_instances: counts.live_instances,
        offerings: snapshot.market.offerings().len(),
        failed_commits: snapshot.failed_commits,
        orphans: snapshot.orphans,
        waiting,
    }))
}

pub(super) async fn integrity(State(api): State<Api>) -> Result<Json<serde_json::Value>, ApiError> {
    let Integrity { file, wrong_sums, dangling } = api.reader.integrity()?;
    Ok(Json(serde_json::json!({ "file": file, "wrong_sums": wrong_sums, "dangling": dangling })))
}

/// An experiment by its id, or the newest of that name.
pub(super) fn find_experiment(api: &Api, named: &str) -> Result<ExperimentDetail, ApiError> {
    let found = api.reader.resolve(named)?;
    let id = found.first().ok_or_else(|| ApiError::not_found("experiment", named))?;
    api.views().experiment(*id)?.ok_or_else(|| ApiError::not_found("experiment", named))
}

/// A sweep by its id, or the newest of that name.
pub(super) fn find_sweep(api: &Api, named: &str) -> Result<SweepView, ApiError> {
    let missing = || ApiError::not_found("sweep", named);
    match named.parse::<SweepId>() {
        Ok(id) => api.views().sweep(id)?.ok_or_else(missing),
        Err(_) => {
            let filter = SweepFilter { name: Some(named.to_owned()), ..SweepFilter::default() };
            api.views().sweeps(&filter, None, 1)?.rows.into_iter().next().ok_or_else(missing)
        }
    }
}

fn report_query(api: &Api, params: ReportParams) -> Result<ReportQuery, ApiError> {
    let by = params.by.as_deref().unwrap_or("project");
    let by = dimensions(by).map_err(ApiError::bad_request)?;
    let experiment = match &params.experiment {
        Some(named) => Some(find_experiment(api, named)?.experiment.id),
        None => None,
    };
    let sweep = match &params.sweep {
        Some(named) => Some(find_sweep(api, named)?.id),
        None => None,
    };
    Ok(ReportQuery {
        by,
        since: moment("since", params.since.as_deref())?,
        until: moment("until", params.until.as_deref())?,
        filter: ReportFilter {
            experiment,
            sweep,
            project: params.project.as_deref().map(Into::into),
            user: params.user.as_deref().map(Into::into),
            provider: params.provider.as_deref().map(Into::into),
        },
    })
}

/// Dimensions by their names, separated by commas.
///
/// # Errors
/// A sentence that names the unknown one and all that there are.
pub fn dimensions(names: &str) -> Result<Vec<Dimension>, String> {
    let known = || Dimension::ALL.map(|dimension| dimension.to_string()).join(", ");
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            Dimension::ALL
                .into_iter()
                .find(|dimension| dimension.to_string() == name)
                .ok_or_else(|| format!("by: `{name}` is none of {}", known()))
        })
        .collect()
}

fn moment(key: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(|text| text.parse().map_err(|error| ApiError::bad_request(format!("{key}: {error}"))))
        .transpose()
}

fn cursor(text: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    text.map(|text| {
        text.parse().map(Cursor).map_err(|_| ApiError::bad_request("after: not a cursor of this list"))
    })
    .transpose()
}

fn offer_view(offering: &bursar_model::Offering) -> OfferView {
    let kind = &offering.instance_type;
    OfferView {
        provider: offering.provider.to_string(),
        region: offering.region.to_string(),
        zone: offering.zone.to_string(),
        instance_type: kind.name.to_string(),
        capacity_type: offering.capacity_type.to_string(),
        accelerators: kind.accelerators.as_ref().map(|a| format!("{}:{}", a.name, a.count)),
        cpus: thousandths(u64::from(kind.cpus_milli)),
        memory_gib: thousandths(kind.memory_mib * 1000 / 1024),
        price: offering.price,
        refused_until: None,
    }
}

fn thousandths(value: u64) -> String {
    let text = format!("{}.{:03}", value / 1000, value % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn kind_of(reason: &WaitingOn) -> &'static str {
    match reason {
        WaitingOn::Instance { .. } => "instance",
        WaitingOn::Budget { .. } => "budget",
        WaitingOn::SweepParallel { .. } => "sweep-parallel",
        WaitingOn::InstanceLimit { .. } => "instance-limit",
        WaitingOn::Capacity { .. } => "capacity",
        WaitingOn::Ceiling { .. } => "ceiling",
        WaitingOn::UnknownPrice { .. } => "unknown-price",
        WaitingOn::NoOffering { .. } => "no-offering",
        WaitingOn::Backoff { .. } => "backoff",
    }
}
