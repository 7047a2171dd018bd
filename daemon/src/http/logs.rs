//! Logs: delivered by agents, read by people.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bursar_model::{AttemptId, ExperimentId, agent_api::StreamReply};
use futures::{Stream, stream};
use serde::Deserialize;

use super::{
    Api, ApiError,
    agents::{bearer_digest, unauthorized},
};
use crate::{
    inbox::Message,
    logs::{From, LogOf, Which},
    views::time_range,
};

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
    /// Only this attempt, by number, or `all` of them one after another; the newest where none is given, and with `follow`
    /// those after it.
    attempt: Option<String>,
    /// The node whose log it is, by rank; the first unless told.
    node: u32,
    /// Go on until the experiment is over.
    follow: bool,
    /// Only the last so many lines of each attempt.
    tail: Option<u64>,
    /// Only what came since this moment.
    since: Option<String>,
}

pub(super) async fn deliver_log(
    State(api): State<Api>,
    Path(attempt): Path<AttemptId>,
    Query(query): Query<Deliver>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<StreamReply>, ApiError> {
    let of = authorize(&api, attempt, &headers).await?;
    api.logs.append(of, query.offset, body, api.clock.now()).await.map(Json).map_err(not_stored)
}

pub(super) async fn deliver_metrics(
    State(api): State<Api>,
    Path(attempt): Path<AttemptId>,
    Query(query): Query<Deliver>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<StreamReply>, ApiError> {
    let of = authorize(&api, attempt, &headers).await?;
    api.logs.append_points(of, query.offset, body).await.map(Json).map_err(not_stored)
}

/// Only the agent of a node's instance delivers for it.
async fn authorize(api: &Api, attempt: AttemptId, headers: &HeaderMap) -> Result<LogOf, ApiError> {
    let token_digest = bearer_digest(headers)?;
    let node = api.inbox.ask(|reply| Message::AuthorizeLog { token_digest, attempt, reply }).await?;
    node.map(|node| LogOf { attempt, node }).ok_or_else(unauthorized)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` calls it")]
fn not_stored(error: io::Error) -> ApiError {
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "log-not-stored", error.to_string())
}

pub(super) async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<ReadLog>,
) -> Result<Response, ApiError> {
    let ReadLog { attempt, node, follow, tail, since } = query;
    let detail = super::read::find_experiment(&api, &id)?;
    let which = Which::find(attempt.as_deref(), node, follow, &detail)?;
    let (since, _) = time_range(since.as_deref(), None, api.clock.now())?;
    let known = detail.attempts.last().map_or(0, |newest| newest.number);
    let reading = Reading {
        api,
        experiment: detail.experiment.id,
        which,
        node,
        follow,
        from: From { tail, since },
        known,
        attempt: None,
        offset: 0,
        is_over: false,
    };
    let body = Body::from_stream(chunks(reading));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// Where a reader of a log is.
struct Reading {
    api: Api,
    experiment: ExperimentId,
    which: Which,
    node: u32,
    follow: bool,
    from: From,
    /// The attempts that there were at first. What comes later is read from its beginning.
    known: u32,
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
            let bytes =
                self.api.logs.read(self.log_of(attempt), self.offset, CHUNK).await.unwrap_or_default();
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
        let last_read = self.attempt.map(|(_, number)| number);
        let next = detail.attempts.iter().find(|attempt| self.which.follows(last_read, attempt.number));
        let current_is_over = detail
            .attempts
            .iter()
            .all(|attempt| Some(attempt.number) != last_read || attempt.state == "ended");
        if let Some(next) = next.filter(|_| current_is_over) {
            self.attempt = Some((next.id, next.number));
            self.offset = match next.number <= self.known {
                true => self.api.logs.start(self.log_of(next.id), self.from).await.unwrap_or_default(),
                false => 0,
            };
            let heading = self.which.heading(next, self.node, detail.attempts.len(), last_read.is_some());
            return Step::Chunk(heading.unwrap_or_default().into_bytes());
        }
        let all_over = detail.experiment.ended_at.is_some() || self.which.is_one() && current_is_over;
        if all_over || !self.follow {
            self.is_over = true;
            return Step::Chunk(Vec::new());
        }
        Step::Wait
    }

    fn log_of(&self, attempt: AttemptId) -> LogOf {
        LogOf { attempt, node: self.node }
    }
}
