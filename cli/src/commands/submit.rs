//! `bursar submit`, `bursar sweep`, `bursar cancel`, and waiting for an end.

use std::{io::IsTerminal, path::Path, time::Duration};

use bursar_config::{Checked, RawSpec, Submission, WorkdirSource, read::environment, read_spec};
use bursar_daemon::{
    http::{CancelAnswer, SubmitAnswer, SubmitBatch},
    views::{ExperimentDetail, ListWanted, SweepView},
};
use bursar_model::{ExperimentId, SweepId};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Context, show_warnings, unreadable};
use crate::{
    args::{Cancel, Submit},
    client::Client,
    exit::{FAILED, Failure, OK, Outcome, REFUSED, UNREACHABLE, USAGE},
    git,
    output::{json, line, note},
    source::{Rows, Source, segment},
    workdir::{self, Workdirs},
};

/// How often a wait looks. The daemon answers from its store, so this costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How long a wait goes on without the daemon: a restart takes seconds, an upgrade by hand not much longer.
const AWAY_MAX: Duration = Duration::from_secs(60);

pub(super) async fn run(context: Context, submit: Submit, sweeps_only: bool) -> Outcome {
    if submit.dry_run {
        for file in &submit.files {
            let (raw, source) = read(&context, &submit, file, sweeps_only)?;
            source.map(workdir::show).transpose()?;
            super::plan::show(&context, raw, false).await?;
        }
        return Ok(OK);
    }
    // All files are read before any is sent: a slip in the last one queues nothing.
    let specs = submit
        .files
        .iter()
        .map(|file| read(&context, &submit, file, sweeps_only))
        .collect::<Result<Vec<_>, _>>()?;
    let several = specs.len() > 1;
    let mut workdirs = Workdirs::default();
    let mut ready = Vec::new();
    for (mut spec, source) in specs {
        if let Some(source) = source {
            spec.workdir = Some(workdirs.send(&context.client, source).await?.into());
        }
        ready.push(spec);
    }
    let mut answers = Vec::new();
    for (index, spec) in ready.into_iter().enumerate() {
        let unnamed = if spec.sweep.is_some() { "sweep" } else { "experiment" };
        let name = spec.name.clone().unwrap_or_else(|| unnamed.to_owned());
        let key = submit.key.as_ref().map(|key| if several { format!("{key}/{index}") } else { key.clone() });
        let batch = SubmitBatch { user: user(), specs: vec![spec] };
        let answer: SubmitAnswer = context.client.post("/v1/experiments", &batch, key.as_deref()).await?;
        show_warnings(&answer.warnings);
        if !context.json {
            line(&accepted_line(&answer, &name))?;
        }
        answers.push(answer);
    }
    if !submit.wait {
        if context.json {
            json(&answers)?;
        }
        return Ok(OK);
    }
    let mut worst = OK;
    let mut ends = Vec::new();
    for answer in answers {
        let (code, end) = match (answer.sweep, answer.experiments.first()) {
            (Some(sweep), _) => wait_for_sweep(&context.client, sweep).await?,
            (None, Some(experiment)) => wait_for_experiment(&context.client, *experiment).await?,
            (None, None) => continue,
        };
        worst = worst.max(code);
        ends.push(end);
    }
    if context.json {
        json(&ends)?;
    }
    Ok(worst)
}

pub(super) async fn cancel(context: Context, wanted: Cancel) -> Outcome {
    let (mut total, mut stopping) = (0, false);
    for name in &wanted.names {
        let path = format!("/v1/cancel/{}", segment(name));
        let answer: CancelAnswer = context.client.post(&path, &(), None).await?;
        if !context.json {
            match answer.cancelled {
                0 if answer.stopping => {
                    line(&format!("{name}: cancelled before; it is saving its work and ends soon"))?;
                }
                0 => line(&format!("{name}: nothing to cancel, it is over"))?,
                1 => line(&format!("{name}: cancelled"))?,
                count => line(&format!("{name}: {count} experiments cancelled"))?,
            }
        }
        total += answer.cancelled;
        stopping |= answer.stopping;
    }
    if context.json {
        json(&CancelAnswer { cancelled: total, stopping })?;
    }
    Ok(OK)
}

/// Reads a spec and lays the options over it; with what its working folder is to be made from.
pub(super) fn read(
    context: &Context,
    submit: &Submit,
    file: &Path,
    sweep: bool,
) -> Result<(RawSpec, Option<WorkdirSource>), Failure> {
    let Checked { value, warnings } = read_spec(file, context.known()).map_err(unreadable("the spec"))?;
    show_warnings(&warnings);
    if sweep && matches!(value.submission, Submission::Experiment { .. }) {
        return Err(Failure::new(USAGE, format!("{} has no `sweep` section", file.display()))
            .hint("add `sweep: {matrix: {lr: [0.1, 0.01]}}`, or queue it with `bursar submit`"));
    }
    let mut raw = value.raw;
    raw.name = submit.name.clone().or(raw.name);
    raw.project = submit.project.clone().or(raw.project);
    for pair in &submit.env {
        let (name, value) = variable("--env", pair)?;
        raw.envs.insert(name.to_owned(), value.into());
    }
    if raw.source.is_none() {
        raw.source = match &value.source {
            Some(WorkdirSource::Folder(folder)) => git::source(folder),
            Some(WorkdirSource::Git { .. }) | None => None,
        };
    }
    // What the options made of it is checked as well, before it travels.
    raw.clone().check(context.known()).map_err(|problems| Failure::new(USAGE, problems.to_string()))?;
    Ok((raw, value.source))
}

/// What an option says of a variable.
pub(super) fn variable<'a>(option: &str, pair: &'a str) -> Result<(&'a str, &'a str), Failure> {
    let wrong = || Failure::new(USAGE, format!("{option} {pair}: not of the form NAME=VALUE"));
    pair.split_once('=').ok_or_else(wrong)
}

/// Who submits: the login name.
pub(crate) fn user() -> String {
    let environment = environment();
    ["BURSAR_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| environment.get(*name))
        .cloned()
        .unwrap_or_default()
}

fn accepted_line(answer: &SubmitAnswer, name: &str) -> String {
    let waiting = answer.waiting.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    let again = if answer.repeated { " (the same as before)" } else { "" };
    match (answer.sweep, answer.experiments.as_slice()) {
        (Some(sweep), []) => format!("{sweep}  {name}{again}"),
        (Some(sweep), trials) => format!("{sweep}  {name}: {} trials{waiting}", trials.len()),
        (None, experiments) => {
            let ids: Vec<String> = experiments.iter().map(ToString::to_string).collect();
            format!("{}  {name}{again}{waiting}", ids.join(" "))
        }
    }
}

pub(super) async fn wait_for_experiment(
    client: &Client,
    id: ExperimentId,
) -> Result<(u8, serde_json::Value), Failure> {
    let bar = spinner();
    let mut shown = String::new();
    let mut watched = Watched::new(client);
    // Ends with the experiment; whoever waits may stop with Ctrl-C, which cancels nothing.
    loop {
        let detail: ExperimentDetail = watched.look(&format!("/v1/experiments/{id}")).await?;
        let experiment = &detail.experiment;
        let why = experiment.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let now = format!("{} {}{why}, {}", experiment.name, experiment.state, experiment.cost.rounded());
        if let Some(bar) = &bar {
            bar.set_message(now);
            bar.tick();
        } else if shown != experiment.state {
            note(&now);
            shown.clone_from(&experiment.state);
        }
        if experiment.ended_at.is_some() {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            note(&format!(
                "{} {}{why}, cost {}",
                experiment.name,
                experiment.state,
                experiment.cost.rounded()
            ));
            return Ok((code_of(&experiment.state), serde_json::to_value(detail)?));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn wait_for_sweep(client: &Client, id: SweepId) -> Result<(u8, serde_json::Value), Failure> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} trials  {msg}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let mut shown = None;
    let mut watched = Watched::new(client);
    // Ends with the sweep; whoever waits may stop with Ctrl-C, which cancels nothing.
    loop {
        let sweep: SweepView = watched.look(&format!("/v1/sweeps/{id}")).await?;
        let ended = sweep.trials - sweep.open;
        let message = format!("{} running, {} spent", sweep.running, sweep.spent.rounded());
        if let Some(bar) = &bar {
            bar.set_length(u64::from(sweep.trials));
            bar.set_position(u64::from(ended));
            bar.set_message(message);
        } else if shown != Some(ended) {
            note(&format!("{}: {ended}/{} trials, {message}", sweep.name, sweep.trials));
            shown = Some(ended);
        }
        if sweep.ended_at.is_some() {
            if let Some(bar) = bar {
                bar.finish();
            }
            let all = ListWanted { sweep: Some(id.to_string()), ..ListWanted::default() };
            let Rows { rows: trials, more: _ } =
                Source::Daemon(client.clone()).experiments(all, usize::MAX).await?;
            let code = trials.iter().map(|trial| code_of(&trial.state)).max().unwrap_or(OK);
            return Ok((code, serde_json::json!({ "sweep": sweep, "trials": trials })));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at one thing again and again, through restarts of the daemon.
struct Watched<'a> {
    client: &'a Client,
    told: bool,
}

impl<'a> Watched<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, told: false }
    }

    async fn look<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let began = Instant::now();
        // Ends with an answer, or when the daemon has been away for too long.
        loop {
            match self.client.get(path).await {
                Err(failure) if failure.code == UNREACHABLE && began.elapsed() < AWAY_MAX => {
                    if !self.told {
                        note(&format!(
                            "the daemon does not answer; waiting up to {} s for it",
                            AWAY_MAX.as_secs()
                        ));
                        self.told = true;
                    }
                }
                answer => {
                    self.told = false;
                    return answer;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn code_of(state: &str) -> u8 {
    match state {
        "succeeded" => OK,
        "refused" | "stopped" => REFUSED,
        _ => FAILED,
    }
}

fn spinner() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(ProgressBar::new_spinner)
}
