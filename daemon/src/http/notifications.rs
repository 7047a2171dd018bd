//! What webhooks were told, and whether one works.

use axum::{
    Json,
    extract::{Query, State},
};
use bursar_model::IdGen;
use serde::{Deserialize, Serialize};

use super::{Api, ApiError, read::aside};
use crate::{
    notify::TestAnswer,
    views::{List, ListWanted, NotificationView, ViewError},
};

/// Which webhook is to be tested.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// Its name in the configuration.
    pub webhook: String,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(wanted): Query<ListWanted>,
) -> Result<Json<List<NotificationView>>, ApiError> {
    let views = api.views();
    aside(move || views.notifications(&wanted)).await
}

/// Sends a test and answers with what came back, whether it was taken or not.
pub(super) async fn test(
    State(api): State<Api>,
    Json(TestRequest { webhook }): Json<TestRequest>,
) -> Result<Json<TestAnswer>, ApiError> {
    let now = api.clock.now();
    // No notification of the outbox has it: those count on from the highest id of the store.
    let id = IdGen::new(now.as_millis().unsigned_abs()).notification(now);
    let config = api.configuration.current();
    let to = config.notifications.webhooks.get(&webhook);
    let to = to.ok_or_else(|| ViewError::missing("webhook", &webhook))?;
    Ok(Json(api.courier.test(&webhook, to, id).await))
}
