//! `bursar serve`.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};
use tracing_subscriber::EnvFilter;

use super::{programs, read};
use crate::{
    args::{Global, Serve},
    exit::{OK, Outcome},
    output::{note, wants_colours},
};

/// One for the reconciler's turns and one for everything else: the daemon runs beside other work.
const WORKERS: usize = 2;

pub(super) fn run(global: &Global, serve: &Serve) -> Outcome {
    let started_with = read(global.config.as_deref())?;
    init_logging(global.verbose, serve.log_json);
    match &started_with.file {
        Some(file) => tracing::info!(config = %file.display(), "starting"),
        None => note("note: no configuration found; offering this machine. See `bursar serve --help`"),
    }
    let programs = programs()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let reload = Arc::new(Notify::new());
        let reloading = reload.clone();
        tokio::spawn(async move {
            // Ends with the first signal to stop.
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    _ = hangup.recv() => reloading.notify_one(),
                }
            }
            // The daemon may have ended of itself meanwhile.
            let _ = stop.send(true);
        });
        let ready = |address| note(&format!("bursar is ready at http://{address}"));
        bursar_daemon::serve::serve(started_with, &programs, stopping, reload, ready).await?;
        Ok(OK)
    })
}

/// Logs to standard error: warnings and what changes, more with `-v`, or as `RUST_LOG` says.
pub(crate) fn init_logging(verbose: u8, json: bool) {
    let level = match verbose {
        0 => "info",
        1 => "info,bursar=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    if json {
        builder.json().init()
    } else {
        builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr()) && wants_colours()).init()
    }
}
