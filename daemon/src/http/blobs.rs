//! Packed working folders: put by those who submit, fetched by the agents that need them.

use std::io;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bursar_model::Digest;
use futures::stream;
use tokio::io::AsyncReadExt;

use super::{
    Api, ApiError,
    agents::{bearer_digest, unauthorized},
};
use crate::{blobs::PutError, inbox::Message, reconciler::chain};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// `HEAD /v1/blobs/{digest}`: whether it is there. It is kept for a month from now on.
pub(super) async fn is_there(State(api): State<Api>, Path(digest): Path<String>) -> Result<(), ApiError> {
    match wanted(&api, parsed(&digest)?).await? {
        Some(_) => Ok(()),
        None => Err(missing(&digest)),
    }
}

/// `PUT /v1/blobs/{digest}`: takes it in, if its content has that digest.
pub(super) async fn put(
    State(api): State<Api>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let digest = parsed(&digest)?;
    api.blobs.put(digest, body.into_data_stream()).await.map_err(|error| {
        let (status, code) = match &error {
            PutError::Differs(_) => (StatusCode::UNPROCESSABLE_ENTITY, "digest-differs"),
            PutError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            PutError::BrokeOff => (StatusCode::BAD_REQUEST, "broke-off"),
            PutError::Io(_) => (StatusCode::INSUFFICIENT_STORAGE, "blob-not-stored"),
        };
        ApiError::new(status, code, chain(&error))
    })?;
    Ok(StatusCode::CREATED)
}

/// `GET /v1/agent/blobs/{digest}`, for the instance that has an attempt with it; with `Range: bytes=N-` from there on.
pub(super) async fn fetch(
    State(api): State<Api>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let token_digest = bearer_digest(&headers)?;
    let digest = parsed(&digest)?;
    if !api.inbox.ask(|reply| Message::AuthorizeBlob { token_digest, digest, reply }).await? {
        return Err(unauthorized());
    }
    let offset = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).and_then(first_byte);
    let from = offset.unwrap_or(0);
    let opened = api.blobs.open(digest, from).await;
    let (file, bytes) = opened.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { missing(&digest.to_string()) } else { unread(&error) }
    })?;
    if from > bytes {
        return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "no-such-range", "it is shorter"));
    }
    let left = bytes - from;
    // Ends with the file: each step reads on.
    let body = Body::from_stream(stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, io::Error>((read > 0).then_some((chunk, file)))
    }));
    let length = [(header::CONTENT_LENGTH, left.to_string())];
    Ok(match offset {
        None => (StatusCode::OK, length, body).into_response(),
        Some(_) => {
            let range = format!("bytes {from}-{}/{bytes}", bytes.saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, length, [(header::CONTENT_RANGE, range)], body).into_response()
        }
    })
}

/// How large a blob is that a submission names; it is kept for a month from now on.
pub(super) async fn wanted(api: &Api, digest: Digest) -> Result<Option<u64>, ApiError> {
    api.blobs.want(digest, api.clock.now()).await.map_err(|error| unread(&error))
}

fn parsed(digest: &str) -> Result<Digest, ApiError> {
    digest.parse().map_err(|error: bursar_model::workdir::NoDigest| ApiError::bad_request(error.to_string()))
}

fn missing(digest: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "blob-missing", format!("there is no archive {digest} here"))
}

fn unread(error: &io::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "blob-not-read", error.to_string())
}

/// Of `bytes=N-`, which is all that agents ask for.
fn first_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}
