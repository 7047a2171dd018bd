//! What experiments left behind: what there is, and its content, read from the store for whoever has no access to that.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bursar_model::agent_api::StoreAccess;
use bursar_storage::{OutputFile, Outputs, Place, StorageError, explain, newest_outputs, open_output};
use serde::{Deserialize, Serialize};

use super::{Api, ApiError};
use crate::data::{outputs_of, unlock};

/// `GET /v1/experiments/{id}/outputs`: what the newest attempt that stored outputs stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputsView {
    /// The files, in order.
    pub files: Vec<OutputView>,
    /// What the spec names and was not there.
    pub missing: Vec<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    /// From the working folder.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of its content, in hex.
    pub sha256: String,
    /// The number of the attempt that stored it.
    pub attempt: u32,
    /// In which place of which store.
    pub store: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The path of an output.
    path: String,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<OutputsView>, ApiError> {
    let mut view = OutputsView::default();
    for (place, outputs) in stored(&api, &id).await? {
        let Outputs { attempt, id: _, files, missing } = outputs;
        view.missing.extend(missing);
        view.files.extend(files.into_iter().map(|OutputFile { path, size, sha256 }| OutputView {
            path,
            size,
            sha256,
            attempt,
            store: place.to_string(),
        }));
    }
    view.files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Json(view))
}

pub(super) async fn fetch(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    for (place, outputs) in stored(&api, &id).await? {
        if let Some(file) = outputs.files.iter().find(|file| file.path == wanted.path) {
            let content = open_output(&place, &outputs, file).await.map_err(failed)?;
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, file.size.to_string()),
            ];
            return Ok((headers, Body::from_stream(content)).into_response());
        }
    }
    Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "no-such-output",
        format!("there is no output `{}`", wanted.path),
    ))
}

/// The newest outputs in each place that the experiment's are stored in.
async fn stored(api: &Api, id: &str) -> Result<Vec<(Place, Outputs)>, ApiError> {
    let detail = super::read::find_experiment(api, id)?;
    let config = api.configuration.current();
    let storage = config.storage.as_ref();
    let mut places: Vec<StoreAccess> =
        outputs_of(&detail.spec, detail.experiment.id, storage).into_values().collect();
    places.sort_by(|one, other| one.url.cmp(&other.url));
    places.dedup();
    let mut stored = Vec::new();
    for mut access in places {
        let locked = |why| ApiError::new(StatusCode::BAD_GATEWAY, "store", why);
        unlock(&mut access, storage).await.map_err(locked)?;
        let place = Place::open(&access).map_err(failed)?;
        let newest = newest_outputs(&place).await.map_err(failed)?;
        stored.extend(newest.map(|outputs| (place, outputs)));
    }
    Ok(stored)
}

fn failed(error: StorageError) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "store", explain(&error))
}
