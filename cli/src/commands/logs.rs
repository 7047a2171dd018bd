//! `bursar logs`.

use bursar_daemon::{
    clock::SystemClock,
    logs::{From, LogOf, Logs as LogFiles, NoSuchLog, Which},
    serve::store_path,
    views::{ExperimentDetail, time_range},
};
use bursar_model::Clock;
use futures::StreamExt;

use super::Context;
use crate::{
    args::Logs,
    exit::{Failure, NOT_FOUND, OK, Outcome, USAGE},
    output::{Shown, note},
    source::{Source, failure, segment},
};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

pub(super) async fn run(context: Context, wanted: Logs) -> Outcome {
    if context.json {
        return Err(Failure::new(USAGE, "a log is what the experiment wrote, and that is no JSON")
            .hint("leave --json out"));
    }
    let mut out = Shown::new();
    match context.source().await? {
        Source::Daemon(client) => {
            let mut query = vec![("follow", wanted.follow.to_string()), ("node", wanted.node.to_string())];
            query.extend(wanted.attempt.map(|attempt| ("attempt", attempt)));
            query.extend(wanted.tail.map(|lines| ("tail", lines.to_string())));
            query.extend(wanted.since.map(|since| ("since", since)));
            let path = format!("/v1/experiments/{}/logs", segment(&wanted.name));
            // It says why itself where there is no such experiment.
            if let Ok(detail) = client.get(&format!("/v1/experiments/{}", segment(&wanted.name))).await {
                waits(&detail);
            }
            let mut body = client.stream(&path, &query).await?.bytes_stream();
            while let Some(chunk) = body.next().await {
                out.write(&chunk?)?;
            }
        }
        // No daemon: the files are here, and nothing is added to them.
        source @ Source::Store(_) => {
            let detail = source.experiment(&wanted.name).await?;
            let data_dir = store_path(&context.config).with_file_name("logs");
            let files = LogFiles::new(&data_dir)?;
            let which = Which::find(wanted.attempt.as_deref(), wanted.node, false, &detail);
            let which = which.map_err(|error| match error {
                NoSuchLog::Malformed => Failure::new(USAGE, error.to_string()),
                NoSuchLog::Attempt { .. } | NoSuchLog::Node { .. } => {
                    Failure::new(NOT_FOUND, error.to_string())
                }
            })?;
            let (since, _) = time_range(wanted.since.as_deref(), None, SystemClock.now()).map_err(failure)?;
            let from = From { tail: wanted.tail, since };
            let chosen = detail.attempts.iter().filter(|attempt| which.follows(None, attempt.number));
            for attempt in chosen {
                if let Some(heading) = which.heading(attempt, wanted.node, detail.attempts.len(), false) {
                    out.write(heading.as_bytes())?;
                }
                let of = LogOf { attempt: attempt.id, node: wanted.node };
                let mut offset = files.start(of, from).await?;
                // Ends at the end of the file, which nobody writes to.
                loop {
                    let bytes = files.read(of, offset, CHUNK).await?;
                    if bytes.is_empty() {
                        break;
                    }
                    offset += bytes.len() as u64;
                    out.write(&bytes)?;
                }
            }
        }
    }
    out.end()?;
    Ok(OK)
}

/// Says why there is nothing to read yet, or nothing new: a log that stands still looks like a program that hangs.
fn waits(detail: &ExperimentDetail) {
    let ExperimentDetail { experiment, .. } = detail;
    if experiment.state == "queued" {
        let why = experiment.reason.as_deref().unwrap_or("nothing was decided of it so far");
        note(&format!("{} waits: {why}", experiment.name));
    }
}
