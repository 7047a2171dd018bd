//! When an experiment last saved its work: the newest complete file in its folder for checkpoints.

use std::{fs, path::Path, time::SystemTime};

/// How many files and folders are looked at, so that a folder full of shards cannot hold up the agent.
const ENTRIES_MAX: usize = 20_000;

/// The newest time of change among the files that are complete: hidden names and `*.tmp` are still being written.
pub(crate) fn newest(folder: &Path) -> Option<SystemTime> {
    let mut newest = None;
    let mut folders = vec![folder.to_owned()];
    let mut entries = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return newest;
            }
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(b".") || name.ends_with(b".tmp") {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                newest = newest.max(metadata.modified().ok());
            }
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
    fn a_file_that_is_still_being_written_is_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.tmp"), "").unwrap();
        fs::write(folder.path().join(".model"), "").unwrap();
        assert_eq!(newest(folder.path()), None);
        fs::create_dir(folder.path().join("step-1")).unwrap();
        fs::write(folder.path().join("step-1/model"), "").unwrap();
        assert!(newest(folder.path()).is_some());
    }

    #[test]
    fn a_folder_that_is_not_there_holds_no_checkpoint() {
        assert_eq!(newest(Path::new("/no/such/folder")), None);
    }
}
