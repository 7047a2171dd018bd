//! The agents' side of the API.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bursar_model::{
    AttemptId, InstanceId, SecretRef,
    agent_api::{Action, RegisterRequest, SyncReply, SyncRequest},
};

use super::{Api, ApiError};
use crate::{
    agent_binaries::AgentBinary,
    data::unlock,
    inbox::{AgentAnswer, Message},
    secrets,
    waiters::REGISTRY_PASSWORD,
};

/// The agent for a kind of machine: no secret, so that a machine which has proved nothing yet can fetch it.
pub(super) async fn binary(
    State(api): State<Api>,
    Path(arch): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(AgentBinary { bytes, sha256 }) = api.agents.of(&arch) else {
        let detail = format!("there is no agent for `{arch}`: build one with deploy/agent/build");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no-agent", detail));
    };
    let etag = format!("\"{sha256}\"");
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let headers = [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::ETAG, etag)];
    Ok((headers, bytes.clone()).into_response())
}

pub(super) async fn register(
    State(api): State<Api>,
    Json(request): Json<RegisterRequest>,
) -> Result<Json<SyncReply>, ApiError> {
    let instance = request.instance;
    let answer = api.inbox.ask(|reply| Message::Register { request, reply }).await?;
    answered(&api, Some(instance), answer).await
}

pub(super) async fn sync(
    State(api): State<Api>,
    headers: HeaderMap,
    Json(request): Json<SyncRequest>,
) -> Result<Json<SyncReply>, ApiError> {
    let token_digest = bearer_digest(&headers)?;
    let instance = request.instance;
    let answer = api.inbox.ask(|reply| Message::Sync { token_digest, request, reply }).await?;
    answered(&api, instance, answer).await
}

/// SHA-256 in hex of the token that a request shows.
pub(super) fn bearer_digest(headers: &HeaderMap) -> Result<String, ApiError> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(secrets::digest)
        .ok_or_else(unauthorized)
}

pub(super) fn unauthorized() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "this is not the token of a live instance")
}

async fn answered(
    api: &Api,
    instance: Option<InstanceId>,
    answer: AgentAnswer,
) -> Result<Json<SyncReply>, ApiError> {
    match answer {
        AgentAnswer::Orders { mut reply, secrets } => {
            let mut missing = BTreeMap::new();
            for (attempt, wanted) in secrets {
                if let Err(why) = fill_in(&mut reply, attempt, &wanted).await {
                    missing.insert(attempt, why);
                }
            }
            open_stores(api, &mut reply, &mut missing).await;
            hold_back(api, instance, &mut reply, missing).await;
            Ok(Json(*reply))
        }
        AgentAnswer::Unauthorized => Err(unauthorized()),
        AgentAnswer::NotStored(failed) => Err(failed.into()),
    }
}

/// Puts an attempt's secrets into its environment, on their way to the agent and nowhere else. What went wrong is for people.
async fn fill_in(
    reply: &mut SyncReply,
    id: AttemptId,
    wanted: &BTreeMap<String, SecretRef>,
) -> Result<(), String> {
    let Some(order) = reply.attempts.iter_mut().find(|order| order.attempt == id) else { return Ok(()) };
    let Action::Run { work: Some(work) } = &mut order.action else { return Ok(()) };
    for (name, secret) in wanted {
        let value = secrets::read(secret).await.map_err(|why| format!("secret {name}: {why}"))?;
        let login = work.container.as_mut().and_then(|container| container.registry.as_mut());
        match login {
            Some(login) if name == REGISTRY_PASSWORD => login.password = value,
            _ => drop(work.envs.insert(name.clone(), value)),
        }
    }
    Ok(())
}

/// Puts what opens the stores to the work that goes out, in the same way.
async fn open_stores(api: &Api, reply: &mut SyncReply, missing: &mut BTreeMap<AttemptId, String>) {
    let config = api.configuration.current();
    for order in &mut reply.attempts {
        let Action::Run { work: Some(work) } = &mut order.action else { continue };
        for place in work.data.accesses_mut() {
            if let Err(why) = unlock(place, config.storage.as_ref()).await {
                missing.entry(order.attempt).or_insert(why);
            }
        }
    }
}

/// Where something cannot be read the order is held back, and the attempt ends with the reason.
async fn hold_back(
    api: &Api,
    instance: Option<InstanceId>,
    reply: &mut SyncReply,
    missing: BTreeMap<AttemptId, String>,
) {
    reply.attempts.retain(|order| !missing.contains_key(&order.attempt));
    let Some(instance) = instance else { return };
    for (attempt, error) in missing {
        // A daemon that stops tells nobody; the next one tries again.
        let _ = api.inbox.tell(Message::SecretMissing { attempt, instance, error }).await;
    }
}
