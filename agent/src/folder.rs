//! The folder of an attempt on the instance, and how it comes to be and to go.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bursar_model::AttemptId;

use crate::notice::Notice;

/// How deep a `workdir` may be. Deeper ones are loops of mounts, or no source trees.
const DEPTH_MAX: u32 = 64;

/// How many files and folders a `workdir` may hold: enough for a source tree with its packages, too few to fill a disk
/// with inodes because somebody named `/`.
const ENTRIES_MAX: u32 = 500_000;

/// Where everything of one attempt lies.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(work_dir: &Path, attempt: AttemptId) -> Self {
        Self(work_dir.join(attempt.to_string()))
    }

    /// The working folder of its processes.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// `TMPDIR`.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// What it wrote to stdout and stderr.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// `BURSAR_METRICS`.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// Where everything of the attempt lies.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the container engine writes the id of the container that was started as so many-th.
    pub(crate) fn container_id(&self, number: u32) -> PathBuf {
        self.0.join(format!("container-{number}"))
    }

    /// Variables for a container.
    pub(crate) fn container_env(&self) -> PathBuf {
        self.0.join("container.env")
    }

    /// The credentials of an image's registry, while it is pulled.
    pub(crate) fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }

    /// `BURSAR_NOTICE_FILE`.
    pub(crate) fn notice(&self) -> PathBuf {
        self.0.join("notice.json")
    }

    /// Makes the folder, with a copy of `workdir` as its working folder, and the folder for checkpoints. Slow where
    /// `workdir` is large: not for the agent's own thread.
    #[expect(clippy::disallowed_methods, reason = "the edge: an attempt's folder is made here")]
    pub(crate) fn make(&self, workdir: Option<&Path>, checkpoints: &Path) -> Result<(), String> {
        let made = |path: &Path| fs::create_dir_all(path).map_err(|error| cannot("make", path, &error));
        made(&self.work())?;
        made(&self.tmp())?;
        made(checkpoints)?;
        let Some(workdir) = workdir else { return Ok(()) };
        let mut entries = 0;
        copy_tree(workdir, &self.work(), DEPTH_MAX, &mut entries)
    }

    /// Lets the experiment see that the cloud takes the instance back.
    pub(crate) fn write_notice(&self, notice: Notice) -> io::Result<()> {
        replace(&self.notice(), &serde_json::to_string(&notice)?)
    }

    /// Removes everything. Slow where there is much.
    #[expect(clippy::disallowed_methods, reason = "the edge: an attempt's folder is removed here")]
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.0.display(), %error, "an attempt's folder cannot be removed");
        }
    }
}

/// Writes a file so that a reader sees the old content or the new, never a part.
#[expect(clippy::disallowed_methods, reason = "the edge: files that others read meanwhile are written here")]
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    File::create(&new)?.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

/// Copies what a folder holds. Links stay links; sockets, pipes and devices are left out.
fn copy_tree(from: &Path, to: &Path, depth: u32, entries: &mut u32) -> Result<(), String> {
    if depth == 0 {
        return Err(format!("{} is more than {DEPTH_MAX} folders deep", from.display()));
    }
    for entry in fs::read_dir(from).map_err(|error| cannot("read", from, &error))? {
        let entry = entry.map_err(|error| cannot("read", from, &error))?;
        *entries += 1;
        if *entries > ENTRIES_MAX {
            return Err(format!("the workdir holds more than {ENTRIES_MAX} files and folders"));
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| cannot("read", &source, &error))?;
        if kind.is_dir() {
            fs::create_dir(&target).map_err(|error| cannot("make", &target, &error))?;
            copy_tree(&source, &target, depth - 1, entries)?;
        } else if kind.is_symlink() {
            fs::read_link(&source)
                .and_then(|link| std::os::unix::fs::symlink(link, &target))
                .map_err(|error| cannot("copy", &source, &error))?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(|error| cannot("copy", &source, &error))?;
        }
    }
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
    fn the_working_folder_starts_as_a_copy_in_which_links_are_links() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("source");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::write(source.join("deep/er/file"), "text").unwrap();
        std::os::unix::fs::symlink("/nowhere", source.join("link")).unwrap();
        let folder = Folder(root.path().join("attempt"));
        folder.make(Some(&source), &root.path().join("checkpoints")).unwrap();
        assert_eq!(fs::read_to_string(folder.work().join("deep/er/file")).unwrap(), "text");
        assert_eq!(fs::read_link(folder.work().join("link")).unwrap(), Path::new("/nowhere"));
        folder.remove();
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_workdir_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder(root.path().join("attempt"));
        let error = folder.make(Some(Path::new("/no/such/folder")), &root.path().join("c")).unwrap_err();
        assert!(error.starts_with("cannot read /no/such/folder: "), "{error}");
    }
}
