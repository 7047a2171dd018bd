//! Folders here: which of their files count, whether one changed, and reading and writing pieces of them.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::StorageError;

/// How many files and folders one checkpoint or output may have. Each is a line of a manifest that is read whole.
pub(crate) const FILES_MAX: usize = 100_000;

/// What changes whenever a file is written to. The time of the last change of its record cannot be set by a program, as
/// that of its content can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file or symbolic link that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// From the folder, with `/`.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) stamp: Stamp,
    pub(crate) link: Option<String>,
}

impl Found {
    /// When its content was last changed, as far as its program says so.
    pub(crate) fn modified_ms(&self) -> i64 {
        milliseconds(self.stamp.modified)
    }

    /// When it was last changed or renamed.
    pub(crate) fn changed_ms(&self) -> i64 {
        milliseconds(self.stamp.changed)
    }
}

fn milliseconds((seconds, nanoseconds): (i64, i64)) -> i64 {
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether a file or folder of this name is complete. Hidden names and `*.tmp` are still being written.
#[must_use]
pub fn is_complete(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !name.starts_with(b".") && !name.ends_with(b".tmp")
}

/// Which files of a folder count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that are complete, links among them.
    Complete,
    /// All; what a link to a file points at stands for it.
    All,
}

/// The files of a folder, in order. Sockets, pipes and devices are left out. What goes away meanwhile was not there.
pub(crate) fn scan(folder: &Path, which: Which) -> Result<Vec<Found>, StorageError> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    let mut entries = 0;
    while let Some((folder, prefix)) = folders.pop() {
        let listed = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed.map_err(StorageError::local("read", &folder))?,
        };
        for entry in listed {
            let entry = entry.map_err(StorageError::local("read", &folder))?;
            entries += 1;
            if entries > FILES_MAX {
                return Err(StorageError::TooMany { path: folder, most: FILES_MAX });
            }
            let name = entry.file_name();
            if which == Which::Complete && !is_complete(&name) {
                continue;
            }
            let path = entry.path();
            let name = name.to_str().ok_or_else(|| StorageError::Name(path.clone()))?;
            let below = format!("{prefix}{name}");
            let Some(metadata) = look(&path, which)? else { continue };
            if metadata.is_dir() {
                folders.push((path, format!("{below}/")));
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).map_err(StorageError::local("read", &path))?;
                let target = target.to_str().ok_or_else(|| StorageError::Name(path.clone()))?;
                found.push(of(below, &metadata, Some(target.to_owned())));
            } else if metadata.is_file() {
                found.push(of(below, &metadata, None));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// One file, or the files of a folder, named from `root`. Nothing where there is none.
pub(crate) fn scan_one(root: &Path, name: &str) -> Result<Vec<Found>, StorageError> {
    let path = root.join(name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => {
            let mut found = scan(&path, Which::All)?;
            let prefix = name.trim_end_matches('/');
            for file in &mut found {
                file.path = format!("{prefix}/{}", file.path);
            }
            Ok(found)
        }
        Ok(metadata) if metadata.is_file() => Ok(vec![of(name.to_owned(), &metadata, None)]),
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StorageError::local("read", &path)(error)),
    }
}

fn look(path: &Path, which: Which) -> Result<Option<Metadata>, StorageError> {
    let own = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        own => own.map_err(StorageError::local("read", path))?,
    };
    if which == Which::Complete || !own.is_symlink() {
        return Ok(Some(own));
    }
    // Links to folders could lead round in circles, and links to nothing have no content.
    Ok(fs::metadata(path).ok().filter(Metadata::is_file))
}

fn of(path: String, metadata: &Metadata, link: Option<String>) -> Found {
    Found { path, mode: metadata.mode() & 0o7777, stamp: Stamp::of(metadata), link }
}

/// A piece of a file with the digest of its content, read and worked out aside.
pub(crate) async fn read_part(
    path: PathBuf,
    offset: u64,
    size: u64,
) -> Result<(Vec<u8>, String), StorageError> {
    aside(move || {
        let file = File::open(&path).map_err(StorageError::local("read", &path))?;
        let mut bytes = vec![0; usize::try_from(size).expect("a part fits into memory")];
        match file.read_exact_at(&mut bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(StorageError::Changed(path)),
            Err(error) => Err(StorageError::local("read", &path)(error)),
            Ok(()) => {
                let digest = digest(&bytes);
                Ok((bytes, digest))
            }
        }
    })
    .await
}

/// Whether a file is still the one that was found.
pub(crate) async fn same_still(path: PathBuf, stamp: Stamp) -> Result<(), StorageError> {
    aside(move || match fs::metadata(&path) {
        Ok(metadata) if Stamp::of(&metadata) == stamp => Ok(()),
        _ => Err(StorageError::Changed(path)),
    })
    .await
}

/// Makes an empty file of this size, and the folders above it.
pub(crate) async fn make(path: PathBuf, size: u64) -> Result<(), StorageError> {
    aside(move || {
        make_above(&path)?;
        let file = File::create(&path).map_err(StorageError::local("make", &path))?;
        file.set_len(size).map_err(StorageError::local("make", &path))
    })
    .await
}

/// Writes a piece of a file, if it is what the digest says.
pub(crate) async fn write_part(
    path: PathBuf,
    offset: u64,
    bytes: Vec<u8>,
    expected: Option<String>,
) -> Result<bool, StorageError> {
    aside(move || {
        if expected.is_some_and(|expected| expected != digest(&bytes)) {
            return Ok(false);
        }
        let file = File::options().write(true).open(&path).map_err(StorageError::local("write", &path))?;
        file.write_all_at(&bytes, offset).map_err(StorageError::local("write", &path))?;
        Ok(true)
    })
    .await
}

/// Gives a file its permissions and the time of its last change.
pub(crate) async fn finish(path: PathBuf, mode: u32, modified_ms: i64) -> Result<(), StorageError> {
    aside(move || {
        let file = File::options().write(true).open(&path).map_err(StorageError::local("write", &path))?;
        let since = Duration::from_millis(u64::try_from(modified_ms).unwrap_or_default());
        file.set_modified(UNIX_EPOCH + since).map_err(StorageError::local("write", &path))?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(StorageError::local("write", &path))
    })
    .await
}

/// Makes the folders above a path.
#[expect(clippy::disallowed_methods, reason = "the edge: what is fetched is written here")]
pub(crate) fn make_above(path: &Path) -> Result<(), StorageError> {
    let above = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(above).map_err(StorageError::local("make", above))
}

/// Does what waits for a disk, or computes for long, on a thread for that.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
