//! The configuration that the daemon goes by, and how it takes a changed one over while it runs.
//!
//! The loop and the API each work by their own part of it. Both change here and nowhere else: first the loop, in a commit,
//! then what the API reads; and only for a file without a mistake. What only a start can change stays as it was, and
//! whoever asked for the reload is told.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bursar_config::{
    Checked, Config, ConfigFile, Problem, Problems, ReadError, Takeover, read_config, take_over,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::{
    inbox::{CommitFailed, Inbox, Message, StandingBudget, Stands, Stopping},
    notify::HttpCourier,
    reconciler::chain,
    rules::Rules,
    views::budget_name,
};

/// What the daemon goes by. Copies are the same.
#[derive(Debug, Clone)]
pub struct Configuration(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Read again by a reload; none where the daemon was started without one, and one is looked for as at a start.
    file: Option<PathBuf>,
    current: watch::Sender<Arc<Config>>,
    inbox: Inbox,
    courier: Arc<HttpCourier>,
    /// One at a time: the loop and the API must not be left with different ones.
    reloading: Mutex<()>,
}

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file that was read; none where there is none and the defaults stand.
    pub file: Option<PathBuf>,
    /// The keys that changed and count from now on.
    pub changed: Vec<String>,
    /// The keys that changed and count from the next start on.
    pub needs_restart: Vec<String>,
    /// The budgets whose terms are not those of the file, each with the reason.
    pub standing: Vec<String>,
    /// What looks wrong in the file but may be meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// Why nothing was reloaded. The configuration is the one before then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be used.
    #[error(transparent)]
    Unusable(#[from] ReadError),
    /// The file says nothing, as one does that is being written: taken over, it would lift every budget.
    #[error("{} is empty: write it whole, then reload; a restart would go by the defaults", .0.display())]
    Empty(PathBuf),
    /// A webhook needs what the system does not have.
    #[error("the system has no certificates to verify webhooks by: install `ca-certificates`")]
    NoCertificates(#[source] reqwest::Error),
    /// The daemon is stopping.
    #[error(transparent)]
    Stopping(#[from] Stopping),
    /// The store did not take it.
    #[error(transparent)]
    NotStored(#[from] CommitFailed),
}

impl Configuration {
    /// What the daemon was started with.
    #[must_use]
    pub fn new(started_with: ConfigFile, inbox: Inbox, courier: Arc<HttpCourier>) -> Self {
        let ConfigFile { file, config } = started_with;
        let current = watch::Sender::new(Arc::new(config));
        Self(Arc::new(Shared { file, current, inbox, courier, reloading: Mutex::new(()) }))
    }

    /// What counts now.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        self.0.current.borrow().clone()
    }

    /// Reads the file again and goes by it. Goes on to its end though whoever asked does not wait for it.
    ///
    /// # Errors
    /// When the file cannot be used, or the loop does not take it. Nothing has changed then; the log says why.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let this = self.clone();
        let reloading = tokio::spawn(async move {
            let reloaded = this.take_over().await;
            match &reloaded {
                Ok(Reloaded { changed, needs_restart, .. }) => {
                    info!(?changed, "the configuration was read again");
                    for key in needs_restart {
                        warn!(%key, "changed in the configuration; it counts from the next start on");
                    }
                }
                Err(refused) => log(refused),
            }
            reloaded
        });
        // It ends early only with the daemon.
        reloading.await.unwrap_or(Err(ReloadError::Stopping(Stopping)))
    }

    async fn take_over(&self) -> Result<Reloaded, ReloadError> {
        let Shared { file, current, inbox, courier, reloading } = &*self.0;
        let _one_at_a_time = reloading.lock().await;
        let Checked { value: ConfigFile { file, config }, warnings } = read_config(file.as_deref())?;
        if let Some(path) = file.as_ref().filter(|path| is_empty(path)) {
            return Err(ReloadError::Empty(path.clone()));
        }
        let Takeover { config, changed, needs_restart } = take_over(&self.current(), config);
        courier.prepare_for(&config.notifications).map_err(ReloadError::NoCertificates)?;
        let rules = Box::new(Rules::of(&config));
        let standing = inbox.ask(|reply| Message::Reload { rules, reply }).await??;
        current.send_replace(Arc::new(config));
        let standing = standing.iter().map(sentence).collect();
        Ok(Reloaded { file, changed, needs_restart, standing, warnings })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an empty file is a fine configuration at a start, and only there"
)]
fn is_empty(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim().is_empty())
}

fn sentence(StandingBudget { key, why }: &StandingBudget) -> String {
    let budget = budget_name(key);
    match why {
        Stands::SetByHand => {
            format!("{budget}: as set by hand, until the configuration says something new about it")
        }
        Stands::HasWork => format!("{budget}: no longer in the configuration, but there is work under it"),
    }
}

fn log(refused: &ReloadError) {
    const STANDS: &str = "not reloaded: the daemon goes by the configuration before";
    if let ReloadError::Unusable(ReadError::Invalid(Problems(problems))) = refused {
        for problem in problems {
            warn!(%problem, "{STANDS}");
        }
    } else {
        warn!(error = %chain(refused), "{STANDS}");
    }
}
