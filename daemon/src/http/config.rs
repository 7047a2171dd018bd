//! The configuration of the daemon that runs.

use axum::{Json, extract::State, http::StatusCode};
use bursar_config::ReadError;

use super::{Api, ApiError};
use crate::{
    configuration::{ReloadError, Reloaded},
    reconciler::chain,
};

pub(super) async fn reload(State(api): State<Api>) -> Result<Json<Reloaded>, ApiError> {
    Ok(Json(api.configuration.reload().await?))
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let (status, code) = match error {
            ReloadError::Unusable(ReadError::Invalid(problems)) => {
                return Self { code: "invalid-config".to_owned(), ..problems.into() };
            }
            ReloadError::Empty(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-config"),
            ReloadError::Unusable(ReadError::NotFound(_)) => (StatusCode::NOT_FOUND, "not-found"),
            ReloadError::Unusable(ReadError::TooLarge(_) | ReadError::NotUtf8 { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid-config")
            }
            ReloadError::Unusable(ReadError::Unreadable { .. }) | ReloadError::NoCertificates(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "not-reloaded")
            }
            ReloadError::Stopping(stopping) => return stopping.into(),
            ReloadError::NotStored(failed) => return failed.into(),
        };
        Self::new(status, code, chain(&error))
    }
}
