//! `POST /v1/instances/{id}/end`: an instance that somebody ends before its time.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{Api, ApiError, submit::parse};
use crate::{
    inbox::{EndInstanceError, Message},
    views::ViewError,
};

/// How it is to end.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndRequest {
    /// Though something runs on it, which is told to save and stop, and goes on elsewhere.
    #[serde(default)]
    pub force: bool,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct EndAnswer {
    /// How many attempts are told to stop.
    pub stopping: usize,
}

pub(super) async fn end(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<EndAnswer>, ApiError> {
    let EndRequest { force } = parse(&body)?;
    let instance = id.parse().map_err(|_| ViewError::missing("instance", &id))?;
    let stopping = api.inbox.ask(|reply| Message::EndInstance { instance, force, reply }).await??;
    Ok(Json(EndAnswer { stopping }))
}

impl From<EndInstanceError> for ApiError {
    fn from(error: EndInstanceError) -> Self {
        let (status, code) = match &error {
            EndInstanceError::NotLive(_) => (StatusCode::NOT_FOUND, "not-found"),
            EndInstanceError::Launching(_) => (StatusCode::CONFLICT, "launching"),
            EndInstanceError::Busy { .. } => (StatusCode::CONFLICT, "busy"),
            EndInstanceError::NotStored(failed) => return failed.clone().into(),
        };
        Self::new(status, code, error.to_string())
    }
}
