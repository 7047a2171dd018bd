//! Errors as RFC 9457 problem documents, with a code that stays the same.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bursar_config::Problems;
use bursar_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::{
    inbox::{CommitFailed, CorrectError, Stopping, SubmitError},
    logs::NoSuchLog,
    reconciler::chain,
    views::ViewError,
};

/// An error as it travels.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// What programs tell errors apart by.
    pub code: String,
    /// What people read.
    pub detail: String,
    /// All that is wrong with a spec, each with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<Problems>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self { status: status.as_u16(), code: code.to_owned(), detail: detail.into(), problems: None }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}

impl From<Stopping> for ApiError {
    fn from(stopping: Stopping) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", stopping.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store", chain(&error))
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Missing { .. } | ViewError::IsSweep(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", error.to_string())
            }
            ViewError::Malformed(detail) => Self::bad_request(detail),
            ViewError::Ambiguous { .. } => Self::new(StatusCode::CONFLICT, "ambiguous", error.to_string()),
            ViewError::Store(error) => error.into(),
        }
    }
}

impl From<NoSuchLog> for ApiError {
    fn from(error: NoSuchLog) -> Self {
        match error {
            NoSuchLog::Malformed => Self::bad_request(error.to_string()),
            NoSuchLog::Attempt { .. } | NoSuchLog::Node { .. } => {
                Self::new(StatusCode::NOT_FOUND, "not-found", error.to_string())
            }
        }
    }
}

impl From<CommitFailed> for ApiError {
    fn from(failed: CommitFailed) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-stored", failed.to_string())
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::KeyReused(_) => Self::new(StatusCode::CONFLICT, "key-reused", error.to_string()),
            SubmitError::NotStored(failed) => failed.into(),
        }
    }
}

impl From<CorrectError> for ApiError {
    fn from(error: CorrectError) -> Self {
        let code = match &error {
            CorrectError::Changed => "charges-changed",
            CorrectError::NotOver(_) => "not-over",
            CorrectError::NeverCharged(_) => "never-charged",
            CorrectError::NotStored(failed) => return failed.clone().into(),
        };
        Self::new(StatusCode::CONFLICT, code, error.to_string())
    }
}

impl From<Problems> for ApiError {
    fn from(problems: Problems) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY.as_u16(),
            code: "invalid-spec".to_owned(),
            detail: problems.to_string(),
            problems: Some(problems),
        }
    }
}
