//! `bursar logs`.

use bursar_daemon::{logs::Logs as LogFiles, serve::store_path};
use futures::StreamExt;

use super::Context;
use crate::{
    args::Logs,
    exit::{Failure, NOT_FOUND, OK, Outcome, USAGE},
    output::Shown,
    source::{Source, segment},
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
            let mut query = vec![("follow", wanted.follow.to_string())];
            query.extend(wanted.attempt.map(|number| ("attempt", number.to_string())));
            query.extend(wanted.tail.map(|bytes| ("tail", bytes.to_string())));
            let path = format!("/v1/experiments/{}/logs", segment(&wanted.name));
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
            let attempts: Vec<_> = detail
                .attempts
                .iter()
                .filter(|attempt| wanted.attempt.is_none_or(|number| attempt.number == number))
                .collect();
            if let (true, Some(number)) = (attempts.is_empty(), wanted.attempt) {
                return Err(Failure::new(NOT_FOUND, format!("there is no attempt {number}")));
            }
            for attempt in &attempts {
                if attempts.len() > 1 {
                    let on = attempt.offering.as_deref().unwrap_or("unknown");
                    out.write(format!("==> attempt {} on {on} <==\n", attempt.number).as_bytes())?;
                }
                let length = files.len(attempt.id).await?;
                let mut offset = wanted.tail.map_or(0, |tail| length.saturating_sub(tail));
                // Ends at the end of the file, which nobody writes to.
                while offset < length {
                    let bytes = files.read(attempt.id, offset, CHUNK).await?;
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
