//! The folder of an attempt on the instance, and how it comes to be and to go.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bursar_model::{
    AttemptId,
    workdir::{DEPTH_MAX, ENTRIES_MAX},
};

use crate::notice::Notice;

/// Where everything of one attempt lies.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
    work: PathBuf,
    /// Where `setup` ran, which what it made may name.
    setup: Option<PathBuf>,
    /// Shared by all copies of this value: whoever works in the folder has one.
    users: Arc<()>,
}

impl Folder {
    pub(crate) fn new(work_dir: &Path, attempt: AttemptId) -> Self {
        let root = work_dir.join(attempt.to_string());
        Self { work: root.join("work"), root, setup: None, users: Arc::default() }
    }

    /// The same with another working folder.
    pub(crate) fn working_in(&self, work: PathBuf) -> Self {
        Self { work, ..self.clone() }
    }

    /// What `setup` made is in this folder of the cache: its processes need that one too.
    pub(crate) fn comes_with(&mut self, setup: PathBuf) {
        self.setup = Some(setup);
    }

    /// The folders that its processes need, beside that for checkpoints.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.root), self.setup.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Whether something aside still works in it, such as a copy that nobody waits for any more.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }

    /// The working folder of its processes.
    pub(crate) fn work(&self) -> PathBuf {
        self.work.clone()
    }

    /// `TMPDIR`.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What it wrote to stdout and stderr.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// `BURSAR_METRICS`.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// Where everything of the attempt lies.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Where the container engine writes the id of the container that was started as so many-th.
    pub(crate) fn container_id(&self, number: u32) -> PathBuf {
        self.root.join(format!("container-{number}"))
    }

    /// Variables for a container.
    pub(crate) fn container_env(&self) -> PathBuf {
        self.root.join("container.env")
    }

    /// The credentials of an image's registry, while it is pulled.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root.join("registry")
    }

    /// Its metrics over time, as they are delivered.
    pub(crate) fn points(&self) -> PathBuf {
        self.root.join("points.jsonl")
    }

    /// `BURSAR_NOTICE_FILE`.
    pub(crate) fn notice(&self) -> PathBuf {
        self.root.join("notice.json")
    }

    /// What it saves, where that is stored elsewhere and need not outlive the instance here.
    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// A line of ours in its log. Where it cannot be written, the experiment could not write either.
    pub(crate) fn note(&self, line: &str) {
        if let Ok(mut log) = File::options().create(true).append(true).open(self.log()) {
            let _ = writeln!(log, "bursar: {line}");
        }
    }

    /// Makes the folder, and the one for checkpoints.
    #[expect(clippy::disallowed_methods, reason = "the edge: an attempt's folder is made here")]
    pub(crate) fn make(&self, checkpoints: &Path) -> Result<(), String> {
        for path in [&self.work, &self.tmp(), checkpoints] {
            fs::create_dir_all(path).map_err(|error| cannot("make", path, &error))?;
        }
        Ok(())
    }

    /// Fills the working folder with a copy of another. Slow where that is large: not for the agent's own thread. Where the
    /// file system can, the copies of files share their content with the originals until one is written to.
    pub(crate) fn fill(&self, from: &Path) -> Result<(), String> {
        copy_tree(from, &self.work, DEPTH_MAX, &mut 0)
    }

    /// Lets the experiment see that the cloud takes the instance back.
    pub(crate) fn write_notice(&self, notice: Notice) -> io::Result<()> {
        replace(&self.notice(), &serde_json::to_string(&notice)?)
    }

    /// Removes everything. Slow where there is much.
    #[expect(clippy::disallowed_methods, reason = "the edge: an attempt's folder is removed here")]
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.root)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.root.display(), %error, "an attempt's folder cannot be removed");
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
fn copy_tree(from: &Path, to: &Path, depth: usize, entries: &mut usize) -> Result<(), String> {
    if depth == 0 {
        return Err(format!("{} is more than {DEPTH_MAX} folders deep", from.display()));
    }
    for entry in fs::read_dir(from).map_err(|error| cannot("read", from, &error))? {
        let entry = entry.map_err(|error| cannot("read", from, &error))?;
        *entries += 1;
        if *entries > ENTRIES_MAX {
            return Err(format!("what setup left holds more than {ENTRIES_MAX} files and folders"));
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
    use bursar_model::TypedId;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
    fn the_working_folder_starts_as_a_copy_in_which_links_are_links() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("source");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::write(source.join("deep/er/file"), "text").unwrap();
        std::os::unix::fs::symlink("/nowhere", source.join("link")).unwrap();
        let folder = Folder::new(root.path(), AttemptId::from_u64(1));
        folder.make(&root.path().join("checkpoints")).unwrap();
        folder.fill(&source).unwrap();
        assert_eq!(fs::read_to_string(folder.work().join("deep/er/file")).unwrap(), "text");
        assert_eq!(fs::read_link(folder.work().join("link")).unwrap(), Path::new("/nowhere"));
        folder.remove();
        assert!(!folder.root.exists());
    }
}
