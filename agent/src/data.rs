//! What an attempt starts with out of object stores: its mounts, and the newest checkpoint of its experiment.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bursar_model::{AttemptId, agent_api::Data};
use bursar_storage::{Place, Shelf, StorageError, explain, fetch};

use crate::folder::Folder;

/// The experiment's checkpoints in the store, for whoever works on them now: first the preparation, then one save after
/// another. Never held while waiting.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShelfSlot(Arc<Mutex<Option<Shelf>>>);

impl ShelfSlot {
    pub(crate) fn put(&self, shelf: Shelf) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shelf);
    }

    /// Nothing where somebody has it, or had it when it was given up.
    pub(crate) fn take(&self) -> Option<Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// All that has to be fetched before an attempt's first script.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub(crate) attempt: AttemptId,
    /// 1 for the first of its experiment.
    pub(crate) number: u32,
    pub(crate) data: Data,
    pub(crate) folder: Folder,
    /// The folder for its checkpoints.
    pub(crate) checkpoints: PathBuf,
    /// What was fetched to this instance before.
    pub(crate) cache: PathBuf,
    pub(crate) shelf: ShelfSlot,
}

impl Fetching {
    /// Fetches it. What went wrong is for people: the attempt ends with it.
    pub(crate) async fn run(self) -> Result<(), String> {
        let Self { attempt, number, data, folder, checkpoints, cache, shelf } = self;
        let work = folder.work();
        for (target, access) in &data.mounts {
            let said = |error: StorageError| format!("mount {target}: {}", explain(&error));
            let place = Place::open(access).map_err(said)?;
            let fetched = fetch(&place, &cache, &work.join(target)).await.map_err(said)?;
            folder.note(&format!(
                "mounted {place} at {target}: {} files, {} bytes, {} of them fetched",
                fetched.files, fetched.bytes, fetched.fetched_bytes
            ));
        }
        if let Some(store) = &data.checkpoints {
            let said = |error: StorageError| format!("checkpoints: {}", explain(&error));
            let place = Place::open(&store.access).map_err(said)?;
            let mut claimed = Shelf::claim(place, number, attempt, store.kept).await.map_err(said)?;
            let passed_over = |why| folder.note(&format!("a newer checkpoint is passed over: {why}"));
            if let Some(restored) = claimed.restore(&checkpoints, passed_over).await.map_err(said)? {
                folder.note(&format!(
                    "restored the checkpoint of attempt {}: {} files, {} bytes",
                    restored.attempt, restored.files, restored.bytes
                ));
            }
            shelf.put(claimed);
        }
        if let Some(path) = &data.checkpoint_path {
            let path = work.join(path);
            let linked = link(&checkpoints, &path);
            linked.map_err(|error| {
                if error.kind() == io::ErrorKind::DirectoryNotEmpty {
                    format!(
                        "checkpoint.path: {} has files already, of the workdir or of setup: keep them out of it \
                         by .bursarignore, or name another folder",
                        path.display()
                    )
                } else {
                    format!("checkpoint.path: cannot make {}: {error}", path.display())
                }
            })?;
        }
        Ok(())
    }
}

/// Has the folder for checkpoints found where the experiment looks for it. An empty folder makes way, as does a link that
/// an earlier attempt left; anything else is the experiment's own and stays.
#[expect(clippy::disallowed_methods, reason = "the edge: an attempt's folder is made here")]
fn link(checkpoints: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::remove_file(path)?,
        Ok(found) if found.is_dir() => fs::remove_dir(path)?,
        Ok(_) | Err(_) => {}
    }
    std::os::unix::fs::symlink(checkpoints, path)
}
