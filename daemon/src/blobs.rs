//! Packed working folders, as files under their digest: put once, fetched by agents, removed when long out of use.
//!
//! The time of a file is when it was last wanted: put, asked for, named by a submission, or in use when somebody looked.
//! So what is submitted now is safe from a removal that was decided a moment before, without any lock.

use std::{
    collections::BTreeSet,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use bursar_model::{Clock, Digest, Span, Timestamp, workdir::PACKED_BYTES_MAX};
use futures::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, File},
    io::{AsyncSeekExt, AsyncWriteExt},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    inbox::{Inbox, Message},
    reconciler::chain,
};

/// For so long a folder is kept that nothing live names: somebody may run last month's experiment again.
const KEEP: Span = Span::from_hours(30 * 24);

/// How often is looked for what nobody wants any more.
const LOOK_EVERY: Span = Span::from_hours(24);

/// How long the next piece of an upload may take before it is given up.
const PIECE_PATIENCE: Duration = Duration::from_secs(60);

/// The folder of all blobs. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

/// Why a blob was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// Its content has another digest.
    #[error("what came has the SHA-256 {0}: it was damaged on the way, or changed while it was packed")]
    Differs(Digest),
    /// It is too large.
    #[error("an archive is larger than {PACKED_BYTES_MAX} bytes: leave data out by a .bursarignore file")]
    TooLarge,
    /// The sender stopped.
    #[error("the upload broke off")]
    BrokeOff,
    /// The disk does not take it.
    #[error("it cannot be stored")]
    Io(#[from] io::Error),
}

impl Blobs {
    /// Blobs in this folder, which is made if need be. What an upload left that broke off with the daemon is removed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    #[expect(clippy::disallowed_methods, reason = "this is where blobs meet the disk")]
    pub fn new(folder: &Path) -> io::Result<Self> {
        let incoming = folder.join("incoming");
        match std::fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => std::fs::create_dir_all(&incoming)?,
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Whether it is there, and how large. It counts as wanted now.
    pub(crate) async fn want(&self, digest: Digest, now: Timestamp) -> io::Result<Option<u64>> {
        let path = self.path(digest);
        tokio::task::spawn_blocking(move || match std::fs::File::options().append(true).open(path) {
            Ok(file) => {
                file.set_modified(UNIX_EPOCH + Duration::from_millis(now.as_millis().unsigned_abs()))?;
                Ok(Some(file.metadata()?.len()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Takes a blob in. There is all of it or nothing, whatever breaks off.
    pub(crate) async fn put<E>(
        &self,
        digest: Digest,
        mut pieces: impl Stream<Item = Result<impl AsRef<[u8]>, E>> + Unpin,
    ) -> Result<(), PutError> {
        // Two uploads of one blob do not disturb each other: each has a file of its own until it is whole.
        static UPLOADS: AtomicU64 = AtomicU64::new(0);
        let number = UPLOADS.fetch_add(1, Ordering::Relaxed);
        let incoming = Incoming(self.folder.join("incoming").join(format!("{digest}-{number}")));
        let mut file = File::create(&incoming.0).await?;
        let mut hash = Sha256::new();
        let mut bytes = 0;
        while let Some(piece) =
            timeout(PIECE_PATIENCE, pieces.next()).await.map_err(|_| PutError::BrokeOff)?
        {
            let piece = piece.map_err(|_| PutError::BrokeOff)?;
            bytes += piece.as_ref().len() as u64;
            if bytes > PACKED_BYTES_MAX {
                return Err(PutError::TooLarge);
            }
            hash.update(piece.as_ref());
            file.write_all(piece.as_ref()).await?;
        }
        let found = Digest::from_bytes(hash.finalize().into());
        if found != digest {
            return Err(PutError::Differs(found));
        }
        // On the disk before it has its name: a blob that a power cut emptied would be believed.
        file.sync_all().await?;
        let path = self.path(digest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).await?;
        }
        fs::rename(&incoming.0, path).await?;
        Ok(())
    }

    /// A blob from an offset on, with its whole length.
    pub(crate) async fn open(&self, digest: Digest, offset: u64) -> io::Result<(File, u64)> {
        let mut file = File::open(self.path(digest)).await?;
        let bytes = file.metadata().await?.len();
        file.seek(SeekFrom::Start(offset)).await?;
        Ok((file, bytes))
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    /// All blobs, with when each was last wanted.
    fn list(&self) -> io::Result<Vec<(Digest, Timestamp)>> {
        let mut found = Vec::new();
        for shelf in std::fs::read_dir(&self.folder)? {
            let shelf = shelf?;
            if !shelf.file_type()?.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(shelf.path())? {
                let entry = entry?;
                // What has another name is no blob: an upload that is under way.
                let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let modified = entry.metadata()?.modified()?;
                let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                let wanted_at = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
                found.push((digest, wanted_at));
            }
        }
        Ok(found)
    }

    /// Removes what nobody wants any more, and says how many.
    async fn clear(&self, in_use: BTreeSet<Digest>, now: Timestamp) -> io::Result<usize> {
        for digest in &in_use {
            self.want(*digest, now).await?;
        }
        let blobs = self.clone();
        let list = tokio::task::spawn_blocking(move || blobs.list()).await.map_err(io::Error::other)??;
        let old = out_of_use(&list, &in_use, now);
        for digest in &old {
            fs::remove_file(self.path(*digest)).await?;
        }
        Ok(old.len())
    }
}

/// Which blobs nobody has wanted for long enough.
fn out_of_use(blobs: &[(Digest, Timestamp)], in_use: &BTreeSet<Digest>, now: Timestamp) -> Vec<Digest> {
    let is_old = |(digest, wanted_at): &&(Digest, Timestamp)| {
        !in_use.contains(digest) && now.since(*wanted_at) >= KEEP
    };
    blobs.iter().filter(is_old).map(|(digest, _)| *digest).collect()
}

/// Removes what nobody wants any more, at the start and once a day, for as long as the daemon runs.
pub(crate) async fn keep_few(blobs: Blobs, inbox: Inbox, clock: std::sync::Arc<dyn Clock>) {
    // Ends with the reconciler, which answers no longer.
    while let Ok(in_use) = inbox.ask(|reply| Message::WorkdirsInUse { reply }).await {
        match blobs.clear(in_use, clock.now()).await {
            Ok(0) => {}
            Ok(removed) => info!(removed, "working folders that were out of use are gone"),
            Err(error) => warn!(error = %chain(&error), "old working folders cannot be removed"),
        }
        tokio::time::sleep(LOOK_EVERY.to_std()).await;
    }
}

/// A file that is gone again unless it was moved to its place.
struct Incoming(PathBuf);

impl Drop for Incoming {
    #[expect(clippy::disallowed_methods, reason = "this is where blobs meet the disk")]
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    fn pieces(all: &[&'static [u8]]) -> impl Stream<Item = Result<&'static [u8], ()>> + Unpin {
        stream::iter(all.iter().map(|piece| Ok(*piece)).collect::<Vec<_>>())
    }

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[tokio::test]
    async fn a_blob_is_there_once_all_of_it_came_as_it_was_announced() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(folder.path()).unwrap();
        let digest = digest_of(b"hello world");
        assert_eq!(blobs.want(digest, NOW).await.unwrap(), None);
        let damaged = blobs.put(digest, pieces(&[b"hello ", b"w0rld"])).await;
        assert!(matches!(damaged, Err(PutError::Differs(_))));
        let broken = stream::iter([Ok(b"hello ".as_slice()), Err(())]);
        assert!(matches!(blobs.put(digest, broken).await, Err(PutError::BrokeOff)));
        assert_eq!(blobs.want(digest, NOW).await.unwrap(), None);
        blobs.put(digest, pieces(&[b"hello ", b"world"])).await.unwrap();
        assert_eq!(blobs.want(digest, NOW).await.unwrap(), Some(11));
        let leftovers = std::fs::read_dir(folder.path().join("incoming")).unwrap().count();
        assert_eq!(leftovers, 0);
    }

    #[tokio::test]
    async fn what_nobody_wanted_for_a_month_is_removed_and_what_is_in_use_never() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(folder.path()).unwrap();
        let (old, used, new) = (digest_of(b"old"), digest_of(b"used"), digest_of(b"new"));
        for (digest, content) in [(old, b"old".as_slice()), (used, b"used"), (new, b"new")] {
            blobs.put(digest, pieces(&[content])).await.unwrap();
        }
        let long_ago = NOW - KEEP;
        blobs.want(old, long_ago).await.unwrap();
        blobs.want(used, long_ago).await.unwrap();
        blobs.want(new, long_ago + Span::from_millis(1)).await.unwrap();
        assert_eq!(blobs.clear(BTreeSet::from([used]), NOW).await.unwrap(), 1);
        assert_eq!(blobs.want(old, NOW).await.unwrap(), None);
        assert_eq!(blobs.want(new, NOW).await.unwrap(), Some(3));
        // What was in use is wanted until then: the month begins when it is over.
        assert_eq!(blobs.clear(BTreeSet::new(), NOW + Span::from_millis(1)).await.unwrap(), 0);
        assert_eq!(blobs.want(used, NOW).await.unwrap(), Some(4));
    }
}
