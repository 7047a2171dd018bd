//! Logs: delivered by agents, read by people.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bursar_model::{AttemptId, ExperimentId, agent_api::LogReply};
use futures::{Stream, stream};
use serde::Deserialize;

use super::{
    Api, ApiError,
    agents::{bearer_digest, unauthorized},
};
use crate::inbox::Message;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// How often a followed log is looked at. Quick for the eye, nothing for the disk.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deliver {
    offset: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReadLog {
    /// Only this attempt, by number; all of them, one after another, where none is given.
    attempt: Option<u32>,
    /// Go on until the experiment is over.
    follow: bool,
    /// Only the last so many bytes.
    tail: Option<u64>,
}

pub(super) async fn deliver(
    State(api): State<Api>,
    Path(attempt): Path<AttemptId>,
    Query(query): Query<Deliver>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<LogReply>, ApiError> {
    let token_digest = bearer_digest(&headers)?;
    let owns = api.inbox.ask(|reply| Message::AuthorizeLog { token_digest, attempt, reply }).await?;
    if !owns {
        return Err(unauthorized());
    }
    let reply = api.logs.append(attempt, query.offset, &body).await.map_err(|error| {
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "log-not-stored", error.to_string())
    })?;
    Ok(Json(reply))
}

pub(super) async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<ReadLog>,
) -> Result<Response, ApiError> {
    let experiment = super::read::find_experiment(&api, &id)?.experiment.id;
    let reading = Reading { api, experiment, query, attempt: None, offset: 0, is_over: false };
    let body = Body::from_stream(chunks(reading));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// Where a reader of a log is.
struct Reading {
    api: Api,
    experiment: ExperimentId,
    query: ReadLog,
    attempt: Option<(AttemptId, u32)>,
    offset: u64,
    is_over: bool,
}

fn chunks(reading: Reading) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(reading, |mut reading| async move {
        // Ends when the experiment is over and all was read, or when the client goes away and the stream is dropped.
        loop {
            match reading.next().await {
                Step::Chunk(bytes) => return Some((Ok(bytes.into()), reading)),
                Step::Wait => tokio::time::sleep(FOLLOW_EVERY).await,
                Step::End => return None,
            }
        }
    })
}

enum Step {
    Chunk(Vec<u8>),
    Wait,
    End,
}

impl Reading {
    async fn next(&mut self) -> Step {
        if let Some((attempt, _)) = self.attempt {
            let bytes = self.api.logs.read(attempt, self.offset, CHUNK).await.unwrap_or_default();
            if !bytes.is_empty() {
                self.offset += bytes.len() as u64;
                return Step::Chunk(bytes);
            }
        }
        if self.is_over {
            return Step::End;
        }
        // What is over now has delivered all of its log before: so look at the state first, then read to the end.
        let Ok(Some(detail)) = self.api.views().experiment(self.experiment) else { return Step::End };
        let last_read = self.attempt.map_or(0, |(_, number)| number);
        let next = detail.attempts.iter().find(|attempt| match self.query.attempt {
            Some(wanted) => attempt.number == wanted && last_read == 0,
            None => attempt.number > last_read,
        });
        let current_is_over =
            detail.attempts.iter().all(|attempt| attempt.number != last_read || attempt.state == "ended");
        if let Some(next) = next.filter(|_| current_is_over) {
            let several = self.query.attempt.is_none() && detail.attempts.len() > 1;
            self.attempt = Some((next.id, next.number));
            self.offset = self.start_of(next.id).await;
            if several {
                let on = next.offering.as_deref().unwrap_or("unknown");
                return Step::Chunk(format!("==> attempt {} on {on} <==\n", next.number).into_bytes());
            }
            return Step::Chunk(Vec::new());
        }
        let all_over =
            detail.experiment.ended_at.is_some() || self.query.attempt.is_some() && current_is_over;
        if all_over || !self.query.follow {
            self.is_over = true;
            return Step::Chunk(Vec::new());
        }
        Step::Wait
    }

    async fn start_of(&self, attempt: AttemptId) -> u64 {
        match self.query.tail {
            Some(tail) => self.api.logs.len(attempt).await.unwrap_or(0).saturating_sub(tail),
            None => 0,
        }
    }
}
