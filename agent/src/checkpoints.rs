//! When an experiment last saved its work: the newest complete file in its folder for checkpoints.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bursar_model::Timestamp;
use bursar_storage::is_complete;

use crate::timestamp;

/// How many files and folders are looked at, so that a folder full of shards cannot hold up the agent.
const ENTRIES_MAX: usize = 20_000;

/// The folder of an experiment's checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// The times of files that lay in the future when they were first seen, each with when that was: a clock that was
    /// set back or a tool that sets times would otherwise have the work saved anew at every look.
    first_seen: BTreeMap<Timestamp, Timestamp>,
}

impl Checkpoints {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, first_seen: BTreeMap::new() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// When the newest file was saved, as far as can be told `now`: never later. Only complete files count; hidden
    /// names and `*.tmp` are still being written.
    pub(crate) fn newest(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut newest = None;
        let mut still_there = BTreeMap::new();
        for changed in times(&self.folder) {
            let saved = match self.first_seen.get(&changed) {
                Some(seen) => *seen,
                None => changed.min(now),
            };
            if saved != changed {
                still_there.insert(changed, saved);
            }
            newest = newest.max(Some(saved));
        }
        self.first_seen = still_there;
        newest
    }
}

/// When each complete file of a folder was last changed.
fn times(folder: &Path) -> Vec<Timestamp> {
    let mut times = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut entries = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return times;
            }
            if !is_complete(&entry.file_name()) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                times.extend(metadata.modified().ok().map(timestamp));
            }
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;

    const fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn save(folder: &Path, name: &str, secs: u64) {
        let time = UNIX_EPOCH + Duration::from_secs(secs);
        File::create(folder.join(name)).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_file_that_is_still_being_written_is_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path().to_owned());
        save(folder.path(), "model.tmp", 50);
        save(folder.path(), ".model", 50);
        assert_eq!(checkpoints.newest(at(100)), None);
        fs::create_dir(folder.path().join("step-1")).unwrap();
        save(folder.path(), "step-1/model", 50);
        assert_eq!(checkpoints.newest(at(100)), Some(at(50)));
    }

    #[test]
    fn a_folder_that_is_not_there_holds_no_checkpoint() {
        assert_eq!(Checkpoints::new("/no/such/folder".into()).newest(at(100)), None);
    }

    #[test]
    fn a_time_in_the_future_counts_once_as_when_it_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path().to_owned());
        save(folder.path(), "ahead", 1000);
        assert_eq!(checkpoints.newest(at(100)), Some(at(100)));
        assert_eq!(checkpoints.newest(at(110)), Some(at(100)));
        save(folder.path(), "honest", 120);
        assert_eq!(checkpoints.newest(at(130)), Some(at(120)), "it hides no later save");
        assert_eq!(
            checkpoints.newest(at(2000)),
            Some(at(120)),
            "its time counts no second time once it has come"
        );
        save(folder.path(), "ahead", 3000);
        assert_eq!(checkpoints.newest(at(2010)), Some(at(2010)), "written again, it counts again");
    }
}
