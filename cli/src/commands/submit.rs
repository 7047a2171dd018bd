//! `bursar submit`, `bursar sweep` and `bursar cancel`.

use std::path::Path;

use bursar_config::{Checked, RawSpec, Submission, WorkdirSource, read::environment, read_spec};
use bursar_daemon::http::{CancelAnswer, SubmitAnswer, SubmitBatch};

use super::{Context, show_warnings, wait};
use crate::{
    args::{Cancel, Submit},
    exit::{Failure, OK, Outcome, USAGE},
    git,
    output::{json, line},
    source::segment,
    workdir::{self, Workdirs},
};

pub(super) async fn run(context: Context, submit: Submit, sweeps_only: bool) -> Outcome {
    if submit.dry_run {
        for file in &submit.files {
            let Spec { raw, source, at } = read(&context, &submit, file, sweeps_only)?;
            source.map(workdir::show).transpose().map_err(|failure| failure.at(&at))?;
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
    for Spec { mut raw, source, at } in specs {
        if let Some(source) = source {
            let sent = workdirs.send(&context.client, source).await;
            raw.workdir = Some(sent.map_err(|failure| failure.at(&at))?.into());
        }
        ready.push(raw);
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
            (Some(sweep), _) => wait::sweep(&context.client, sweep).await?,
            (None, Some(experiment)) => wait::experiment(&context.client, *experiment).await?,
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

/// A spec on its way to the daemon.
#[derive(Debug)]
pub(super) struct Spec {
    /// As it travels.
    pub(super) raw: RawSpec,
    /// What its working folder is to be made from.
    source: Option<WorkdirSource>,
    /// Where the file says so.
    at: String,
}

/// Reads a spec and lays the options over it.
pub(super) fn read(context: &Context, submit: &Submit, file: &Path, sweep: bool) -> Result<Spec, Failure> {
    let Checked { value, warnings } =
        read_spec(file, context.known()).map_err(|error| context.spec_unreadable(error))?;
    show_warnings(&warnings);
    if sweep && matches!(value.submission, Submission::Experiment { .. }) {
        return Err(Failure::new(USAGE, format!("{} has no `sweep` section", file.display()))
            .hint("add `sweep: {matrix: {lr: [0.1, 0.01]}}`, or queue it with `bursar submit`"));
    }
    let at = value.problem("workdir", "").position();
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
    Ok(Spec { raw, source: value.source, at })
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
