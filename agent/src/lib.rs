//! The worker on an instance: it keeps the lease, runs attempts, ships their logs and passes on interruption notices.
//!
//! One thread owns everything. Each *turn* looks at all of it (children that ended, the notice, deadlines, logs, what
//! the daemon last said) and does what is due; a missed or repeated wake-up changes nothing. The daemon is asked in the
//! background and answers with a message. While it cannot be reached, work goes on undisturbed until the lease ends.
//!
//! Three things make sure that nothing outlives its attempt: each attempt is a session of its own, its processes carry
//! its id in their environment, and the agent is the *subreaper* to which daemonised grandchildren come back. Whose a
//! process is that has left its session and cleared its environment cannot be told: it ends with the last attempt on the
//! instance. Should the agent itself be killed, whoever started it has to be the next subreaper.

mod agent;
mod attempt;
mod cache;
mod checkpoints;
pub mod containers;
mod data;
mod deadline;
mod delivery;
mod folder;
mod git;
mod helpers;
mod host;
mod job;
mod link;
mod mask;
mod metrics;
mod notice;
mod points;
mod power;
mod prepare;
pub mod processes;
mod provenance;
mod rendezvous;
mod runtime;
mod saver;
mod settings;
mod shim;
mod tail;
mod unpack;
mod usage;
mod workdir;

use std::{io, path::PathBuf};

use bursar_model::Timestamp;

pub use self::{
    agent::run,
    notice::{Notice, NoticeSource},
    settings::AgentSettings,
    shim::{EXEC_COMMAND, exec_shim, tied_to_this_thread},
};

/// Why an agent could not do its work. Whatever is wrong with one attempt is told to the daemon instead.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file that it needs from the start cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The settings are not what `AgentSettings` says.
    #[error("{path} does not hold an agent's settings")]
    Settings {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The operating system refused something without which nothing works.
    #[error("the system refused {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client")]
    Http(#[source] reqwest::Error),
}

/// The wall clock: only for moments that come from or go to files. Everything else counts on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge: an agent is a process of its own and never simulated"
)]
#[must_use]
pub fn wall_clock() -> Timestamp {
    timestamp(std::time::SystemTime::now())
}

/// A file's time as ours.
#[must_use]
pub fn timestamp(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
