//! What an agent is told when its instance boots: one JSON file, so that a command line needs a single argument and a
//! secret never stands in one.

use std::path::{Path, PathBuf};

use bursar_model::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::AgentError;

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
    /// Comes to exist, holding a `Notice`, when the cloud takes the instance back.
    pub notice_file: PathBuf,
    /// When the first lease ends.
    pub lease_until: Timestamp,
    /// Where to write the end of each renewed lease, for whoever ends an instance whose agent hangs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_file: Option<PathBuf>,
}

/// The content of a notice file: the cloud takes the instance back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it will be gone.
    pub gone_at: Timestamp,
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

    /// The notice, once there is one. A file that is still being written is none yet.
    pub(crate) fn notice(&self) -> Option<Notice> {
        serde_json::from_str(&read_text(&self.notice_file).ok()?).ok()
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: these files are how an instance talks to its agent")]
fn read_text(path: &Path) -> Result<String, AgentError> {
    std::fs::read_to_string(path).map_err(|source| AgentError::Read { path: path.to_owned(), source })
}
