//! What a checkpoint consists of, and in which order checkpoints of an experiment count.

use std::path::{Component, Path};

use bursar_model::AttemptId;
use serde::{Deserialize, Serialize};

use crate::StorageError;

/// Which of an experiment's checkpoints counts for more: that of the later attempt, then the later one of the attempt.
/// A stale attempt's clock or delay changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rank {
    /// The attempt, 1 for the experiment's first.
    pub(crate) attempt: u32,
    /// Which of the attempt's, 1 for its first.
    pub(crate) sequence: u32,
}

impl Rank {
    /// The name of its manifest.
    pub(crate) fn name(self) -> String {
        format!("manifests/{:08}-{:08}.json", self.attempt, self.sequence)
    }

    /// From the last part of such a name.
    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let (attempt, sequence) = file_name.strip_suffix(".json")?.split_once('-')?;
        Some(Self { attempt: attempt.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// A checkpoint: all of its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of this form.
    pub(crate) version: u32,
    pub(crate) rank: Rank,
    /// Who stored it, for people.
    pub(crate) by: AttemptId,
    pub(crate) files: Vec<FileEntry>,
}

impl Manifest {
    pub(crate) const VERSION: u32 = 1;

    /// Reads a manifest; one that no restore could follow is damaged.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| StorageError::damaged(name, error))?;
        if manifest.version != Self::VERSION {
            return Err(StorageError::damaged(name, format!("version {} is unknown", manifest.version)));
        }
        match manifest.files.iter().find(|file| !stays_inside(&file.path)) {
            Some(file) => {
                Err(StorageError::damaged(name, format!("`{}` leads out of its folder", file.path)))
            }
            None => Ok(manifest),
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.files.iter().flat_map(|file| &file.parts)
    }
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Relative to the folder, with `/`.
    pub(crate) path: String,
    /// Permissions.
    pub(crate) mode: u32,
    /// When it was last changed, in milliseconds since 1970: programs look for their newest checkpoint by it.
    pub(crate) modified_ms: i64,
    /// What it points at, where it is a symbolic link: `latest` is one more often than not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    /// Its content, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Part>,
}

impl FileEntry {
    pub(crate) fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }
}

/// A piece of a file, by its content. Named by the attempt that stored it too, so that whatever a stale attempt removes,
/// it never removes what its successor stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The attempt that stored it.
    pub(crate) attempt: u32,
    /// Of its content, in hex.
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: u64,
}

impl Part {
    pub(crate) fn name(&self) -> String {
        format!("parts/{:08}/{}", self.attempt, self.sha256)
    }
}

/// Whether a path is relative and never goes up: what a store says must not write elsewhere.
pub(crate) fn stays_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use bursar_model::TypedId;

    use super::*;

    #[test]
    fn later_attempts_count_for_more_than_later_checkpoints() {
        let rank = |attempt, sequence| Rank { attempt, sequence };
        assert!(rank(2, 1) > rank(1, 900) && rank(2, 2) > rank(2, 1));
        let name = rank(12, 3).name();
        assert_eq!(Rank::parse(name.strip_prefix("manifests/").unwrap()), Some(rank(12, 3)));
        assert_eq!(Rank::parse("notes.txt"), None);
    }

    #[test]
    fn a_manifest_that_leads_out_of_its_folder_is_damaged() {
        for path in ["../x", "/etc/passwd", "a/../../x", ""] {
            let file = FileEntry {
                path: path.to_owned(),
                mode: 0o644,
                modified_ms: 0,
                link: None,
                parts: Vec::new(),
            };
            let rank = Rank { attempt: 1, sequence: 1 };
            let by = AttemptId::from_u64(1);
            let manifest = Manifest { version: 1, rank, by, files: vec![file] };
            let bytes = serde_json::to_vec(&manifest).unwrap();
            assert!(matches!(Manifest::parse("m", &bytes), Err(StorageError::Damaged { .. })), "{path}");
        }
    }
}
