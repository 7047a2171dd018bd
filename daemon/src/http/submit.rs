//! What changes something: submit, cancel; and what would be chosen if one did: plan, explain.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bursar_config::{RawSpec, Submission as CheckedSubmission, read::FILE_BYTES_MAX};
use bursar_model::{
    Account, BudgetKey, ExperimentId, ExperimentSpec, SpecId, SweepId, TypedId, Usd, UserName, WaitingOn,
    Workdir,
};
use bursar_policies::{Candidate, Verdict};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Api, ApiError,
    expect::{Expectations, PlanEstimate, Wanted},
    secrets::have_secrets,
};
use crate::{
    inbox::{Accepted, CandidatesOf, Message, NewExperiment, NewSweep, SubmitContent, SubmitRequest},
    reconciler::chain,
};

/// The most specs in one request: one turn stores them in one transaction.
const BATCH_MAX: usize = 10_000;

/// `POST /v1/experiments`. Header `Idempotency-Key` makes it safe to repeat.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitBatch {
    /// Who submits.
    #[serde(default)]
    pub user: String,
    /// Any number of experiments, or a single sweep.
    pub specs: Vec<RawSpec>,
}

/// What a submission became.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubmitAnswer {
    /// The sweep, where it was one.
    pub sweep: Option<SweepId>,
    /// The experiments, in order. Empty where a sweep is submitted again.
    pub experiments: Vec<ExperimentId>,
    /// True when the key was known: nothing new was made.
    pub repeated: bool,
    /// What the first experiment waits for, for people.
    pub waiting: Option<String>,
    /// The same for programs.
    pub waiting_on: Option<WaitingOn>,
    /// What looks wrong in the specs but may be meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<bursar_config::Problem>,
}

/// `POST /v1/plan`: what would be chosen for a spec now. Changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Who asks.
    #[serde(default)]
    pub user: String,
    /// The experiment or sweep.
    pub spec: RawSpec,
}

/// What would be chosen, and why not the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// How many experiments it would make.
    pub trials: u32,
    /// The cap of the sweep or experiment.
    pub budget: Option<Usd>,
    /// The best first.
    pub candidates: Vec<Candidate>,
    /// What it is expected to cost; none where nobody knows. Of an experiment, as it was when it was accepted.
    #[serde(default)]
    pub estimate: Option<PlanEstimate>,
    /// Nothing says how long it takes, so the candidates are compared by one hour at the speed of the reference.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub time_assumed: bool,
    /// Why it waits or how it ended, where it is an experiment that does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// `queued`, `running`, … where it is an experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// How many experiments a cancellation concerns.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CancelAnswer {
    /// That many; 0 where all were over or cancelled before.
    pub cancelled: usize,
    /// It was cancelled before, and some of it still saves its work.
    #[serde(default)]
    pub stopping: bool,
}

pub(super) async fn experiments(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<SubmitAnswer>), ApiError> {
    let batch: SubmitBatch = parse(&body)?;
    let key = idempotency(&headers, &body)?;
    let user = user_name(&batch.user)?;
    let (content, warnings) = check_batch(&api, batch.specs)?;
    for spec in specs_of(&content) {
        have_secrets(spec).await?;
    }
    have_archives(&api, &content).await?;
    let request = Box::new(SubmitRequest { key, user, content });
    let accepted = api.inbox.ask(|reply| Message::Submit { request, reply }).await??;
    let Accepted { sweep, experiments, repeated, waiting } = accepted;
    let status = if repeated { StatusCode::OK } else { StatusCode::CREATED };
    let answer = SubmitAnswer {
        sweep,
        experiments,
        repeated,
        waiting: waiting.as_ref().map(ToString::to_string),
        waiting_on: waiting,
        warnings,
    };
    Ok((status, Json(answer)))
}

pub(super) async fn plan(State(api): State<Api>, body: Bytes) -> Result<Json<PlanAnswer>, ApiError> {
    let PlanRequest { user, spec } = parse(&body)?;
    let user = user_name(&user)?;
    let (name, spec, mates, sweep) = match spec.check(Some(&api.configuration.current()))?.value {
        CheckedSubmission::Experiment { name, spec } => (name, spec, 1, None),
        CheckedSubmission::Sweep { name, spec } => {
            let trials = u32::try_from(spec.trials.len()).unwrap_or(u32::MAX);
            (
                name,
                spec.experiment,
                spec.max_parallel.unwrap_or(trials).min(trials),
                Some((trials, spec.budget)),
            )
        }
    };
    have_secrets(&spec).await?;
    let account = Account { project: spec.project.clone(), user, sweep: None };
    let own = spec.budget.clone();
    let is_sweep = sweep.is_some();
    let (trials, budget) = sweep.unwrap_or_else(|| (1, own.clone()));
    // A launch needs room in both budgets, so the smaller one is what a trial has.
    let smaller = [&own, &budget].into_iter().flatten().min_by_key(|terms| terms.cap().unwrap_or(Usd::MAX));
    let smaller = smaller.cloned();
    let limit = budget.and_then(|terms| terms.limit);
    let is_the_sweeps = is_sweep && own != smaller;
    let of =
        CandidatesOf::Spec(Box::new(ExperimentSpec { budget: smaller, ..spec.clone() }), account.clone());
    let mut candidates = api.inbox.ask(|reply| Message::Candidates { of, reply }).await?.unwrap_or_default();
    let on =
        candidates.first().filter(|candidate| candidate.is_chosen()).map(|candidate| &candidate.offering);
    let wanted = Wanted { name: &name, is_sweep, spec: &spec, mates, on };
    let estimate = Expectations::new(&api).plan(wanted, trials, &account, limit)?;
    if is_the_sweeps {
        name_the_sweep(&mut candidates);
    }
    Ok(Json(PlanAnswer {
        trials,
        budget: limit,
        candidates,
        estimate,
        time_assumed: spec.estimate.is_none(),
        waiting: None,
        state: None,
    }))
}

/// Says that it is the sweep's budget that has no room, where the planner was told of one budget and took it for the
/// experiment's own.
fn name_the_sweep(candidates: &mut [Candidate]) {
    for candidate in candidates {
        if let Verdict::NoRoom { budget: budget @ BudgetKey::Experiment(_) } = &mut candidate.verdict {
            // There is no such sweep yet, as there was no such experiment.
            *budget = BudgetKey::Sweep(SweepId::from_u64(0));
        }
    }
}

pub(super) async fn explain(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<PlanAnswer>, ApiError> {
    let detail = super::read::find_experiment(&api, &id)?;
    let of = CandidatesOf::Experiment(detail.experiment.id);
    let candidates = api.inbox.ask(|reply| Message::Candidates { of, reply }).await?.unwrap_or_default();
    Ok(Json(PlanAnswer {
        trials: 1,
        budget: detail.budget,
        candidates,
        estimate: detail.experiment.expected.map(|each| PlanEstimate { each, all: each, pays_for: None }),
        time_assumed: detail.spec.estimate.is_none(),
        waiting: detail.experiment.reason,
        state: Some(detail.experiment.state),
    }))
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<CancelAnswer>, ApiError> {
    let Some(target) = api.views().to_cancel(&id)? else {
        return Ok(Json(CancelAnswer { cancelled: 0, stopping: false }));
    };
    let cancelled = api.inbox.ask(|reply| Message::Cancel { target, reply }).await??;
    Ok(Json(CancelAnswer { cancelled, stopping: cancelled == 0 }))
}

fn check_batch(
    api: &Api,
    specs: Vec<RawSpec>,
) -> Result<(SubmitContent, Vec<bursar_config::Problem>), ApiError> {
    if specs.is_empty() || specs.len() > BATCH_MAX {
        return Err(ApiError::bad_request(format!("specs: 1 to {BATCH_MAX} are taken at once")));
    }
    let only_one = specs.len() == 1;
    let mut experiments = Vec::with_capacity(specs.len());
    let mut warnings = Vec::new();
    // Specs of a batch are often all the same: what was checked just before is not checked and hashed again.
    let mut before: Option<(RawSpec, NewExperiment)> = None;
    let mut expectations = Expectations::new(api);
    let config = api.configuration.current();
    for raw in specs {
        if let Some((same, experiment)) = &before
            && *same == raw
        {
            experiments.push(experiment.clone());
            continue;
        }
        let checked = raw.clone().check(Some(&config))?;
        warnings.extend(checked.warnings);
        match checked.value {
            CheckedSubmission::Experiment { name, spec } => {
                let (name, spec) = (Arc::<str>::from(name), Arc::new(spec));
                let spec_id = spec_id(&spec)?;
                let wanted = Wanted { name: &name, is_sweep: false, spec: &spec, mates: 1, on: None };
                let expected = expectations.of(wanted)?;
                let experiment = NewExperiment { name, spec_id, spec, expected };
                experiments.push(experiment.clone());
                before = Some((raw, experiment));
            }
            CheckedSubmission::Sweep { name, spec } if only_one => {
                let bursar_model::SweepSpec { experiment, trials, budget, max_parallel, asha } = spec;
                let experiment = Arc::new(experiment);
                let count = u32::try_from(trials.len()).unwrap_or(u32::MAX);
                let mates = max_parallel.unwrap_or(count).min(count);
                let wanted = Wanted { name: &name, is_sweep: true, spec: &experiment, mates, on: None };
                let sweep = NewSweep {
                    expected: expectations.of(wanted)?,
                    name: name.into(),
                    spec_id: spec_id(&experiment)?,
                    spec: experiment,
                    trials,
                    budget,
                    max_parallel,
                    asha,
                };
                return Ok((SubmitContent::Sweep(sweep), warnings));
            }
            CheckedSubmission::Sweep { .. } => {
                return Err(ApiError::bad_request("specs: a sweep is submitted on its own"));
            }
        }
    }
    Ok((SubmitContent::Experiments(experiments), warnings))
}

/// The key that makes a request safe to repeat, with the digest of what it was sent with.
pub(super) fn idempotency(headers: &HeaderMap, body: &[u8]) -> Result<Option<(String, [u8; 32])>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=200).contains(&key.len()));
    let key =
        key.ok_or_else(|| ApiError::bad_request("Idempotency-Key: 1 to 200 visible ASCII characters"))?;
    Ok(Some((key.to_owned(), Sha256::digest(body).into())))
}

/// Whether the packed folders that are named are here. They stay: nothing that was wanted now is removed for a month.
pub(super) async fn have_archives(api: &Api, content: &SubmitContent) -> Result<(), ApiError> {
    let specs = specs_of(content);
    let archives = specs.iter().filter_map(|spec| match spec.workdir {
        Some(Workdir::Archive { digest, bytes }) => Some((digest, bytes)),
        Some(Workdir::Git { .. }) | None => None,
    });
    for (digest, bytes) in archives.collect::<BTreeSet<_>>() {
        if super::blobs::wanted(api, digest).await? != Some(bytes) {
            let detail = format!(
                "workdir: there is no archive {digest} of {bytes} bytes here: put it to /v1/blobs first, as `bursar submit` does"
            );
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "blob-missing", detail));
        }
    }
    Ok(())
}

/// The specs of a submission, each that is shared by several experiments in a row once.
fn specs_of(content: &SubmitContent) -> Vec<&Arc<ExperimentSpec>> {
    match content {
        SubmitContent::Experiments(experiments) => {
            let mut specs: Vec<_> = experiments.iter().map(|new| &new.spec).collect();
            specs.dedup_by(|one, other| Arc::ptr_eq(one, other));
            specs
        }
        SubmitContent::Sweep(sweep) => vec![&sweep.spec],
    }
}

/// The content address of a spec. One that would be refused in a file is refused here: every trial's attempt carries it.
pub(super) fn spec_id(spec: &ExperimentSpec) -> Result<SpecId, ApiError> {
    let json = serde_json::to_vec(spec).expect("a spec is plain data");
    if json.len() as u64 > FILE_BYTES_MAX {
        let detail = format!(
            "a spec is larger than {FILE_BYTES_MAX} bytes; put data into files in the working folder"
        );
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
    }
    let digest: [u8; 32] = Sha256::digest(json).into();
    let mut leading = [0; 16];
    leading.copy_from_slice(&digest[..16]);
    Ok(SpecId::from_digest(leading))
}

pub(super) fn user_name(name: &str) -> Result<UserName, ApiError> {
    let name = if name.is_empty() { "unknown" } else { name };
    let valid = name.len() <= 100 && name.chars().all(|c| c.is_alphanumeric() || "-_.@+".contains(c));
    if valid {
        Ok(UserName::new(name))
    } else {
        Err(ApiError::bad_request("user: at most 100 letters, digits and - _ . @ +"))
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid-json", chain(&error)))
}
