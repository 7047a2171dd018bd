//! What an agent is told when its instance boots: one JSON file, so that a command line needs a single argument and a
//! secret never stands in one.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bursar_model::{InstanceId, Span, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{AgentError, containers::Engine, folder, notice::NoticeSource, wall_clock};

/// All that an agent has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Where the daemon answers, such as `http://127.0.0.1:7733`.
    pub daemon_url: String,
    /// Which instance this is.
    pub instance: InstanceId,
    /// The file that holds the one-time secret; nobody else should be able to read it.
    pub secret_file: PathBuf,
    /// Attempts get their folders here. Gone with the instance.
    pub work_dir: PathBuf,
    /// Each experiment gets a folder for its checkpoints here. Survives the instance.
    pub checkpoint_root: PathBuf,
    /// Where the cloud says that it takes the instance back.
    pub notice: NoticeSource,
    /// When the first lease ends.
    pub lease_until: Timestamp,
    /// Where other nodes reach this one. Unless it is told, the address by which the daemon is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Where to write the end of each renewed lease, for whoever ends an instance whose agent hangs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_file: Option<PathBuf>,
    /// The machine's shutdown timer: holds the second since its boot at which the lease ends, and is written anew with each
    /// renewal. It counts from the start as well, so that a machine whose clock is wrong runs no longer than it is paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer_file: Option<PathBuf>,
    /// Whether the machine is the agent's to power off when it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub power_off: bool,
    /// What runs containers here; none takes Podman, or else Docker, whichever is on the `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_engine: Option<Engine>,
}

impl AgentSettings {
    /// Reads the settings file.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, AgentError> {
        let text = read_text(path)?;
        serde_json::from_str(&text).map_err(|source| AgentError::Settings { path: path.to_owned(), source })
    }

    /// Reads the one-time secret.
    pub(crate) fn secret(&self) -> Result<String, AgentError> {
        read_text(&self.secret_file).map(|text| text.trim().to_owned())
    }

    /// How long the first lease lasts from now on: by the clock, or by the shutdown timer where that ends sooner.
    pub(crate) fn first_lease(&self) -> Duration {
        let by_clock = self.lease_until.since(wall_clock()).to_std();
        let timer = self.timer_file.as_deref().and_then(|path| read_text(path).ok());
        let ends_at = timer.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        ends_at.map_or(by_clock, |at| by_clock.min(at.saturating_sub(since_boot())))
    }

    /// Writes down the end of a renewed lease for those who end the machine should this agent hang. Nothing is lost where
    /// that fails: the machine then ends with the lease before.
    pub(crate) fn write_lease(&self, remaining: Duration) {
        let span = Span::from_millis(i64::try_from(remaining.as_millis()).unwrap_or(i64::MAX));
        let files = [
            (&self.lease_file, (wall_clock() + span).to_string()),
            (&self.timer_file, (since_boot() + remaining).as_secs().to_string()),
        ];
        for (path, text) in files {
            if let Some(path) = path
                && let Err(error) = folder::replace(path, &text)
            {
                tracing::warn!(path = %path.display(), %error, "the lease cannot be written down");
            }
        }
    }
}

/// How long the machine has run, as `/proc/uptime` counts it: no step of its clock changes that.
fn since_boot() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or_default())
}

#[expect(clippy::disallowed_methods, reason = "the edge: these files are how an instance talks to its agent")]
fn read_text(path: &Path) -> Result<String, AgentError> {
    std::fs::read_to_string(path).map_err(|source| AgentError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test writes a real timer")]
    fn the_first_lease_ends_by_the_clock_or_by_the_timer_whichever_is_sooner() {
        let folder = tempfile::tempdir().unwrap();
        let timer = folder.path().join("timer");
        let settings = |lease: i64| AgentSettings {
            daemon_url: String::new(),
            instance: "ins_0000000000001".parse().unwrap(),
            secret_file: PathBuf::new(),
            work_dir: PathBuf::new(),
            checkpoint_root: PathBuf::new(),
            notice: NoticeSource::File { path: PathBuf::new() },
            lease_until: wall_clock() + Span::from_secs(lease),
            address: None,
            lease_file: None,
            container_engine: None,
            timer_file: Some(timer.clone()),
            power_off: false,
        };
        let secs = |lease| settings(lease).first_lease().as_secs_f64().round();
        assert_eq!(secs(1000), 1000.0, "there is no timer");
        settings(0).write_lease(Duration::from_secs(50));
        assert!((48.0..=50.0).contains(&secs(1000)));
        assert_eq!(secs(20), 20.0);
        std::fs::write(&timer, "0").unwrap();
        assert_eq!(secs(20), 0.0);
    }
}
