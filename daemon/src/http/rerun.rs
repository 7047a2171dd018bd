//! `POST /v1/experiments/{id}/rerun`: the same experiment once more.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bursar_config::{RawSpec, Submission};
use bursar_model::{ExperimentId, WaitingOn};
use serde::{Deserialize, Serialize};

use super::{
    Api, ApiError,
    expect::{Expectations, Wanted},
    read::find_experiment,
    secrets::have_secrets,
    submit::{have_archives, idempotency, parse, spec_id, user_name},
};
use crate::{
    inbox::{Accepted, Message, NewExperiment, SubmitContent, SubmitRequest},
    rerun::{Again, again},
};

/// What is to differ from before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerunRequest {
    /// Who asks.
    #[serde(default)]
    pub user: String,
    /// Environment variables, parameters of a trial among them, that have other values.
    #[serde(default)]
    pub envs: BTreeMap<String, String>,
}

/// What a rerun became.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RerunAnswer {
    /// The new experiment.
    pub experiment: ExperimentId,
    /// The one that it repeats.
    pub of: ExperimentId,
    /// What differs, or may differ, from that one: for people, one sentence each.
    pub differs: Vec<String>,
    /// True when the key was known: nothing new was made.
    pub repeated: bool,
    /// What it waits for, for people.
    pub waiting: Option<String>,
    /// The same for programs.
    pub waiting_on: Option<WaitingOn>,
}

pub(super) async fn rerun(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<RerunAnswer>), ApiError> {
    let key = idempotency(&headers, &body)?;
    let RerunRequest { user, envs } = parse(&body)?;
    let user = user_name(&user)?;
    let before = find_experiment(&api, &id)?;
    let config = api.configuration.current();
    let market = api.snapshot.borrow().market.clone();
    let offered = market.offerings().iter().map(|offering| offering.key().to_string()).collect();
    let Again { spec, differs } = again(&before, checked(envs)?, &offered, api.clock.now());
    if !config.projects.contains_key(spec.project.as_str()) {
        return Err(ApiError::bad_request(format!("there is no project `{}` any longer", spec.project)));
    }
    have_secrets(&spec).await?;
    let (name, spec) = (Arc::<str>::from(before.experiment.name.as_str()), Arc::new(spec));
    let wanted = Wanted { name: &name, is_sweep: false, spec: &spec, mates: 1, on: None };
    let expected = Expectations::new(&api).of(wanted)?;
    let new = NewExperiment { name, spec_id: spec_id(&spec)?, spec, expected };
    let content = SubmitContent::Experiments(vec![new]);
    have_archives(&api, &content).await?;
    let request = Box::new(SubmitRequest { key, user, content });
    let accepted = api.inbox.ask(|reply| Message::Submit { request, reply }).await??;
    let Accepted { sweep: _, experiments, repeated, waiting } = accepted;
    let [experiment] = experiments[..] else {
        return Err(ApiError::bad_request("Idempotency-Key: it was used for something else"));
    };
    let status = if repeated { StatusCode::OK } else { StatusCode::CREATED };
    let answer = RerunAnswer {
        experiment,
        of: before.experiment.id,
        differs,
        repeated,
        waiting: waiting.as_ref().map(ToString::to_string),
        waiting_on: waiting,
    };
    Ok((status, Json(answer)))
}

/// Variables as a spec would take them.
fn checked(envs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ApiError> {
    let envs = envs.into_iter().map(|(name, value)| (name, value.as_str().into())).collect();
    let spec = RawSpec { run: Some("true".to_owned()), envs, ..RawSpec::default() };
    match spec.check(None)?.value {
        Submission::Experiment { spec, .. } => Ok(spec.envs),
        Submission::Sweep { .. } => Ok(BTreeMap::new()),
    }
}
