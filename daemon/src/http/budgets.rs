//! Budgets that people change while the daemon runs.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use bursar_config::{Checked, Problem, raw::RawBudget};
use bursar_model::{BudgetKey, BudgetTerms, ExperimentId, SetBy};
use serde::{Deserialize, Serialize};

use super::{
    Api, ApiError,
    submit::{parse, user_name},
};
use crate::{
    inbox::{Message, SetBudgetError},
    views::{BudgetView, ViewError},
};

/// `PUT /v1/budgets/installation` and `/v1/budgets/{kind}/{key}`: what is to be other than it is. What is not named stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetChange {
    /// Who says so.
    #[serde(default)]
    pub user: String,
    /// The new terms.
    pub terms: RawBudget,
}

/// What a change came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BudgetAnswer {
    /// The budget as it was.
    pub before: BudgetView,
    /// The budget as it is now.
    pub after: BudgetView,
    /// The experiments that work and are told to stop, because the limit is below what is spent and held.
    pub stopping: Vec<ExperimentId>,
    /// What looks wrong in the new terms but may be meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LiftQuery {
    user: String,
}

pub(super) async fn set(
    State(api): State<Api>,
    Path((kind, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<BudgetAnswer>, ApiError> {
    let key = find(&api, &kind, &key)?;
    change(&api, key, &body).await
}

pub(super) async fn set_installations(
    State(api): State<Api>,
    body: Bytes,
) -> Result<Json<BudgetAnswer>, ApiError> {
    change(&api, BudgetKey::Installation, &body).await
}

pub(super) async fn lift(
    State(api): State<Api>,
    Path((kind, key)): Path<(String, String)>,
    Query(query): Query<LiftQuery>,
) -> Result<Json<BudgetAnswer>, ApiError> {
    let key = find(&api, &kind, &key)?;
    lay_down(&api, key, None, &query.user, Vec::new()).await
}

pub(super) async fn lift_installations(
    State(api): State<Api>,
    Query(query): Query<LiftQuery>,
) -> Result<Json<BudgetAnswer>, ApiError> {
    lay_down(&api, BudgetKey::Installation, None, &query.user, Vec::new()).await
}

async fn change(api: &Api, key: BudgetKey, body: &[u8]) -> Result<Json<BudgetAnswer>, ApiError> {
    let BudgetChange { user, terms } = parse(body)?;
    let before = api.reader.budget(&key)?.and_then(|budget| budget.terms);
    let before = before.map_or_else(|| none_yet(&key), Arc::unwrap_or_clone);
    let Checked { value, warnings } = terms.change(before, key.ends_with_its_work())?;
    lay_down(api, key, Some(Arc::new(value)), &user, warnings).await
}

/// What a change starts from where nothing was laid down. Most experiments have a budget and nobody wants to hear of each.
fn none_yet(key: &BudgetKey) -> BudgetTerms {
    let terms = BudgetTerms::default();
    match key {
        BudgetKey::Experiment(_) => BudgetTerms { thresholds: Vec::new(), ..terms },
        BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) | BudgetKey::Sweep(_) => terms,
    }
}

async fn lay_down(
    api: &Api,
    key: BudgetKey,
    terms: Option<Arc<BudgetTerms>>,
    user: &str,
    warnings: Vec<Problem>,
) -> Result<Json<BudgetAnswer>, ApiError> {
    let by = SetBy::Person { user: user_name(user)? };
    let before = api.views().budget(&key)?;
    let message = |reply| Message::SetBudget { key: key.clone(), terms, by, reply };
    let stopping = api.inbox.ask(message).await??;
    let after = api.views().budget(&key)?;
    Ok(Json(BudgetAnswer { before, after, stopping, warnings }))
}

/// The budget that is meant. A slip in a project's name would lay down a limit that nothing ever counts in.
fn find(api: &Api, kind: &str, named: &str) -> Result<BudgetKey, ApiError> {
    let key = api.views().to_limit(kind, named)?;
    match &key {
        BudgetKey::Project(name)
            if !api.configuration.current().projects.contains_key(name)
                && api.reader.budget(&key)?.is_none() =>
        {
            Err(ViewError::missing("project", named).into())
        }
        BudgetKey::User(name) => user_name(name.as_str()).map(|_| key),
        BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::Sweep(_) | BudgetKey::Experiment(_) => {
            Ok(key)
        }
    }
}

impl From<SetBudgetError> for ApiError {
    fn from(error: SetBudgetError) -> Self {
        match error {
            SetBudgetError::Over(_) => Self::new(StatusCode::CONFLICT, "over", error.to_string()),
            SetBudgetError::NotStored(failed) => failed.into(),
        }
    }
}
