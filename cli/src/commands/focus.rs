//! `bursar report --format focus`: every charge as rows of FOCUS, written as they come.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use bursar_daemon::{
    reports::focus::{Billing, export},
    views::time_range,
};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::Context;
use crate::{
    args::Report,
    exit::{FAILED, Failure, OK, Outcome, USAGE},
    output::{Shown, note},
    source::{Source, failure},
};

pub(super) async fn run(context: Context, wanted: Report) -> Outcome {
    let Report { by: _, since, until, experiment, sweep, project, user, label, format: _, output } = wanted;
    if experiment.or(sweep).or(project).or(user).is_some() || !label.is_empty() {
        return Err(Failure::new(USAGE, "a FOCUS export has the charges of everybody, because shared ones are whole")
            .hint("choose rows by its columns x_Project, x_SweepId, x_ExperimentId; only --since and --until choose here"));
    }
    if context.json {
        return Err(Failure::new(USAGE, "a FOCUS export is CSV").hint("leave --json out"));
    }
    let mut sink = Sink::open(output)?;
    match context.source().await? {
        Source::Daemon(client) => {
            let mut query = Vec::new();
            query.extend(since.map(|since| ("since", since)));
            query.extend(until.map(|until| ("until", until)));
            let mut body = client.stream("/v1/report.focus", &query).await?.bytes_stream();
            while let Some(chunk) = body.next().await {
                let broke = |error| Failure::new(FAILED, format!("the export broke off: {error}"));
                sink.write_all(&chunk.map_err(broke)?)?;
            }
        }
        Source::Store(views) => {
            let range = time_range(since.as_deref(), until.as_deref(), views.now()).map_err(failure)?;
            let buffered = BufWriter::with_capacity(BUFFER, &mut sink);
            export(views.reader(), &Billing::of(&context.config), range, buffered)?.flush()?;
        }
    }
    sink.finish()
}

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

/// Where an export goes, with its progress where a person looks on.
struct Sink {
    to: To,
    progress: Option<ProgressBar>,
}

enum To {
    Stdout(Shown),
    /// A file beside the wanted one until it is whole: half an export looks like one.
    File {
        file: File,
        partial: Partial,
        wanted: PathBuf,
    },
}

/// A file that goes where it is not kept.
struct Partial(PathBuf);

impl Drop for Partial {
    #[expect(clippy::disallowed_methods, reason = "what this command began it takes away")]
    fn drop(&mut self) {
        // Gone already where it became the wanted file.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Sink {
    fn open(wanted: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(wanted) = wanted else {
            let shown = (!io::stdout().is_terminal()).then(progress).flatten();
            return Ok(Self { to: To::Stdout(Shown::new()), progress: shown });
        };
        let mut partial = wanted.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| unwritable(&wanted, &error))?;
        Ok(Self { to: To::File { file, partial: Partial(partial), wanted }, progress: progress() })
    }

    #[expect(clippy::disallowed_methods, reason = "the file that was asked for is made here")]
    fn finish(self) -> Outcome {
        if let Some(progress) = self.progress {
            progress.finish_and_clear();
        }
        match self.to {
            To::Stdout(shown) => shown.end()?,
            To::File { file, partial, wanted } => {
                let bytes = file.metadata()?.len();
                drop(file);
                std::fs::rename(&partial.0, &wanted).map_err(|error| unwritable(&wanted, &error))?;
                note(&format!("{bytes} bytes written to {}", wanted.display()));
            }
        }
        Ok(OK)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::Stdout(shown) => shown.write(bytes).map_err(|failure| io::Error::other(failure.message))?,
            To::File { file, .. } => file.write_all(bytes)?,
        }
        if let Some(progress) = &self.progress {
            progress.inc(bytes.len() as u64);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn progress() -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {bytes} written, {bytes_per_sec}");
        ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(FAILED, format!("{} cannot be written: {error}", path.display()))
}
