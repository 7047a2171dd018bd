//! The HTTP API, version 1. Handlers check and translate; they decide nothing and hold no state of their own.

mod agents;
mod blobs;
mod budgets;
mod config;
mod errors;
mod expect;
mod export;
mod guard;
mod instances;
mod logs;
mod notifications;
mod outputs;
mod read;
mod reconcile;
mod rerun;
mod secrets;
mod storage;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn,
    routing::{get, head, post, put},
};
use bursar_model::Clock;
use bursar_store::Reader;
use tokio::sync::watch;

pub use self::{
    budgets::{BudgetAnswer, BudgetChange},
    errors::ApiError,
    expect::{PaysFor, PlanEstimate},
    instances::{EndAnswer, EndRequest},
    notifications::TestRequest,
    outputs::{OutputView, OutputsView},
    read::{Health, OfferView},
    reconcile::{CORRECTIONS_MAX, CorrectAnswer, CorrectRequest, WantedCorrection},
    rerun::{RerunAnswer, RerunRequest},
    storage::{StorageAnswer, check_storage},
    submit::{CancelAnswer, PlanAnswer, PlanRequest, SubmitAnswer, SubmitBatch},
};
use crate::{
    agent_binaries::AgentBinaries, blobs::Blobs, configuration::Configuration, inbox::Inbox, logs::Logs,
    notify::HttpCourier, reconciler::Snapshot, views::Views,
};

/// The largest request: a batch of a few thousand specs. One spec is at most 1 MiB, checked where it is read.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct Api {
    /// To the reconciler.
    pub inbox: Inbox,
    /// What it last published.
    pub snapshot: watch::Receiver<Snapshot>,
    /// Reads the store.
    pub reader: Reader,
    /// The logs of attempts.
    pub logs: Logs,
    /// Packed working folders.
    pub blobs: Blobs,
    /// What the daemon goes by.
    pub configuration: Configuration,
    /// To webhooks, for tests of them.
    pub courier: Arc<HttpCourier>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The agents that rented machines fetch.
    pub agents: Arc<AgentBinaries>,
}

impl Api {
    fn views(&self) -> Views {
        Views::new(self.reader.clone(), self.snapshot.borrow().waiting.clone(), self.clock.now())
    }
}

/// What agents send of one log or of metrics at once: four times what ours do.
const CHUNK_MAX: usize = 1024 * 1024;

/// All routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/experiments", get(read::experiments).post(submit::experiments))
        .route("/v1/experiments/{id}", get(read::experiment))
        .route("/v1/experiments/{id}/explain", get(submit::explain))
        .route("/v1/experiments/{id}/rerun", post(rerun::rerun))
        .route("/v1/experiments/{id}/logs", get(logs::read))
        .route("/v1/experiments/{id}/outputs", get(outputs::list))
        .route("/v1/experiments/{id}/outputs/file", get(outputs::fetch))
        .route("/v1/experiments/{id}/metrics", get(read::metrics))
        .route("/v1/sweeps", get(read::sweeps))
        .route("/v1/sweeps/{id}", get(read::sweep))
        .route("/v1/cancel/{id}", post(submit::cancel))
        .route("/v1/plan", post(submit::plan))
        .route("/v1/offers", get(read::offers))
        .route("/v1/instances", get(read::instances))
        .route("/v1/instances/{id}", get(read::instance))
        .route("/v1/instances/{id}/end", post(instances::end))
        .route("/v1/instances/{id}/allocations", get(read::allocations))
        .route("/v1/budgets", get(read::budgets))
        .route(
            "/v1/budgets/installation",
            put(budgets::set_installations).delete(budgets::lift_installations),
        )
        .route("/v1/budgets/{kind}/{key}", put(budgets::set).delete(budgets::lift))
        .route("/v1/report", get(read::report))
        .route("/v1/reconcile", get(reconcile::own_costs).post(reconcile::correct))
        .route("/v1/report.html", get(read::report_html))
        .route("/v1/report.md", get(read::report_markdown))
        .route("/v1/report.focus", get(export::focus))
        .route("/v1/events", get(read::events))
        .route("/v1/notifications", get(notifications::list))
        .route("/v1/notifications/test", post(notifications::test))
        .route("/v1/config/reload", post(config::reload))
        .route("/v1/storage/check", post(storage::check))
        .route("/v1/health", get(read::health))
        .route("/v1/integrity", get(read::integrity))
        .route("/v1/agent/binary/{arch}", get(agents::binary))
        .route("/v1/agent/register", post(agents::register))
        .route("/v1/agent/sync", post(agents::sync))
        .route("/v1/agent/blobs/{digest}", get(blobs::fetch))
        .route("/v1/blobs/{digest}", head(blobs::is_there).put(blobs::put))
        .merge(deliveries())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn(guard::keep_pages_out))
        .with_state(api)
}

/// What agents deliver piece by piece.
fn deliveries() -> Router<Api> {
    Router::new()
        .route("/v1/agent/logs/{attempt}", post(logs::deliver_log))
        .route("/v1/agent/metrics/{attempt}", post(logs::deliver_metrics))
        .layer(DefaultBodyLimit::max(CHUNK_MAX))
}
