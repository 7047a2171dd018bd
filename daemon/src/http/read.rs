//! What only reads: lists, details, reports, health.

use std::path::PathBuf;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use bursar_model::{InstanceId, Offering, RefusedScope, Scope, Timestamp, UsdPerHour, Violation, WaitingOn};
use bursar_store::{Integrity, StoreError};
use serde::{Deserialize, Serialize};

use super::{Api, ApiError};
use crate::{
    reports::{self, SpendReport},
    views::{
        AllocationView, BudgetView, ExperimentDetail, ExperimentView, InstanceView, List, ListWanted,
        MetricsView, MetricsWanted, ReportView, ReportWanted, SweepView, ViewError,
    },
};

/// Events in an answer where nobody says how many.
const EVENTS_DEFAULT: u32 = 100;

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
    /// Where its store and all else of it is, which tells it from others of that name.
    #[serde(default)]
    pub data_dir: PathBuf,
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
    /// Instances with our tag that nobody knew, since the start. They are ended.
    pub orphans: u64,
    /// Those of them that are still there.
    pub orphans_left: usize,
    /// When the newest of them was found out.
    pub orphan_at: Option<Timestamp>,
    /// Invariants that the daemon found broken in itself since the start, the first few: a fault of bursar.
    pub violations: Vec<Violation>,
    /// Why experiments wait: how many for each reason.
    pub waiting: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: u64,
    limit: Option<u32>,
}

pub(super) async fn experiments(
    State(api): State<Api>,
    Query(wanted): Query<ListWanted>,
) -> Result<Json<List<ExperimentView>>, ApiError> {
    let views = api.views();
    aside(move || views.experiments(&wanted)).await
}

pub(super) async fn experiment(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<ExperimentDetail>, ApiError> {
    find_experiment(&api, &id).map(Json)
}

pub(super) async fn metrics(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(wanted): Query<MetricsWanted>,
) -> Result<Json<MetricsView>, ApiError> {
    let detail = find_experiment(&api, &id)?;
    aside(move || MetricsView::read(&api.logs, &detail, &wanted).map_err(unreadable)).await
}

pub(super) async fn sweeps(
    State(api): State<Api>,
    Query(wanted): Query<ListWanted>,
) -> Result<Json<List<SweepView>>, ApiError> {
    let views = api.views();
    aside(move || views.sweeps(&wanted)).await
}

pub(super) async fn sweep(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<SweepView>, ApiError> {
    Ok(Json(api.views().find_sweep(&id)?))
}

pub(super) async fn instances(
    State(api): State<Api>,
    Query(wanted): Query<ListWanted>,
) -> Result<Json<List<InstanceView>>, ApiError> {
    let views = api.views();
    aside(move || views.instances(&wanted)).await
}

pub(super) async fn instance(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<InstanceView>, ApiError> {
    Ok(Json(api.views().instance(instance_id(&id)?)?))
}

pub(super) async fn allocations(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Vec<AllocationView>>, ApiError> {
    let (views, id) = (api.views(), instance_id(&id)?);
    aside(move || views.allocations(id)).await
}

pub(super) async fn budgets(State(api): State<Api>) -> Result<Json<Vec<BudgetView>>, ApiError> {
    let views = api.views();
    aside(move || views.budgets()).await
}

pub(super) async fn report(
    State(api): State<Api>,
    Query(wanted): Query<ReportWanted>,
) -> Result<Json<ReportView>, ApiError> {
    let views = api.views();
    aside(move || views.report(&wanted)).await
}

/// The same as a page, for browsers and for keeping.
pub(super) async fn report_html(
    State(api): State<Api>,
    Query(wanted): Query<ReportWanted>,
) -> Result<impl IntoResponse, ApiError> {
    written(api, wanted, "text/html; charset=utf-8", reports::html).await
}

/// The same for pull requests and chat.
pub(super) async fn report_markdown(
    State(api): State<Api>,
    Query(wanted): Query<ReportWanted>,
) -> Result<impl IntoResponse, ApiError> {
    written(api, wanted, "text/markdown; charset=utf-8", reports::markdown).await
}

async fn written(
    api: Api,
    wanted: ReportWanted,
    kind: &'static str,
    write: fn(&SpendReport) -> String,
) -> Result<impl IntoResponse, ApiError> {
    let (views, config) = (api.views(), api.configuration.current());
    let text = aside(move || views.spend_report(&wanted, &config.installation).map(|report| write(&report)));
    let Json(text) = text.await?;
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

pub(super) async fn events(
    State(api): State<Api>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<serde_json::Value>, ApiError> {
    aside(move || {
        let entries = api.reader.events(query.after, query.limit.unwrap_or(EVENTS_DEFAULT))?;
        let rows: Vec<_> = entries
            .into_iter()
            .map(|entry| serde_json::json!({ "seq": entry.seq, "at": entry.at, "event": entry.event }))
            .collect();
        Ok::<_, StoreError>(serde_json::json!({ "rows": rows }))
    })
    .await
}

pub(super) async fn offers(State(api): State<Api>) -> Result<Json<Vec<OfferView>>, ApiError> {
    let snapshot = api.snapshot.borrow().clone();
    let now = api.clock.now();
    aside(move || {
        let refused: Vec<_> = snapshot.refused.iter().filter(|(_, refused)| refused.until > now).collect();
        let offers = snapshot.market.offerings().iter();
        Ok::<_, StoreError>(offers.map(|offering| offer_view(offering, &refused)).collect())
    })
    .await
}

pub(super) async fn health(State(api): State<Api>) -> Result<Json<Health>, ApiError> {
    let counts = api.reader.counts()?;
    let config = api.configuration.current();
    let snapshot = api.snapshot.borrow().clone();
    let mut waiting = std::collections::BTreeMap::new();
    for reason in snapshot.waiting.values() {
        *waiting.entry(kind_of(reason).to_owned()).or_default() += 1;
    }
    Ok(Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: api.clock.now(),
        installation: config.installation.clone(),
        data_dir: config.data_dir.clone(),
        queued: counts.queued,
        running: counts.running,
        live_instances: counts.live_instances,
        offerings: snapshot.market.offerings().len(),
        failed_commits: snapshot.failed_commits,
        orphans: snapshot.orphans,
        orphans_left: snapshot.orphans_left,
        orphan_at: snapshot.orphan_at,
        violations: snapshot.violations.to_vec(),
        waiting,
    }))
}

pub(super) async fn integrity(State(api): State<Api>) -> Result<Json<Integrity>, ApiError> {
    aside(move || api.reader.integrity()).await
}

/// An experiment by its id, or the newest of that name.
pub(super) fn find_experiment(api: &Api, named: &str) -> Result<ExperimentDetail, ApiError> {
    Ok(api.views().find_experiment(named)?)
}

/// Answers on a thread of its own what may take long: lists, reports, and reading the whole store would keep one of
/// the two workers, and with it the reconciler and the agents, waiting. Looking one thing up is done at once instead.
pub(super) async fn aside<T, E>(
    ask: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<Json<T>, ApiError>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    let answer = tokio::task::spawn_blocking(ask).await;
    // What panicked has printed why.
    let failed =
        |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the question was not answered");
    answer.map_err(failed)?.map(Json).map_err(Into::into)
}

fn unreadable(error: std::io::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", error.to_string())
}

fn instance_id(id: &str) -> Result<InstanceId, ViewError> {
    id.parse().map_err(|_| ViewError::missing("instance", id))
}

fn offer_view(offering: &Offering, refused: &[(&Scope, &RefusedScope)]) -> OfferView {
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
        refused_until: refused
            .iter()
            .filter(|(scope, _)| scope.covers(offering))
            .map(|(_, refused)| refused.until)
            .max(),
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
        WaitingOn::Quota { .. } => "quota",
        WaitingOn::Capacity { .. } => "capacity",
        WaitingOn::Ceiling { .. } => "ceiling",
        WaitingOn::UnknownPrice { .. } => "unknown-price",
        WaitingOn::NoOffering { .. } => "no-offering",
        WaitingOn::Rung { .. } => "rung",
        WaitingOn::RungBudget { .. } => "rung-budget",
        WaitingOn::Backoff { .. } => "backoff",
    }
}
