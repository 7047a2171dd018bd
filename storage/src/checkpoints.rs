//! The checkpoints of one experiment, as one of its attempts sees them: restore the newest, save new ones, clear old ones.
//!
//! At most one attempt of an experiment is meant to live, but one that was given up for lost may still write. Two things
//! keep it from doing harm. An attempt **claims** the checkpoints before it looks at them, and whoever sees a later claim
//! publishes and removes nothing more. And what a claim that crosses a publication cannot prevent is harmless: manifests
//! rank by attempt first, and an attempt relies on no part of another but those of the newest manifest that it found after
//! its claim, which nobody removes whose claim is earlier: clearing keeps the newest, and looks for claims first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bursar_model::AttemptId;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    PART_BYTES, PARTS_AT_ONCE, Place, StorageError, explain,
    files::{self, Found, Stamp, Which, aside, scan},
    manifest::{FileEntry, Manifest, Part, Rank},
};

/// How many manifests, claims and parts are looked at. An experiment keeps a few manifests, has one claim an attempt, and
/// with this many parts 16 TB of checkpoints.
const MANIFESTS_MAX: usize = 10_000;
const CLAIMS_MAX: usize = 100_000;
const PARTS_MAX: usize = 1_000_000;

/// The checkpoints of an experiment, in the hands of one attempt.
#[derive(Debug)]
pub struct Shelf {
    place: Place,
    /// The number of the attempt.
    attempt: u32,
    by: AttemptId,
    /// The newest so many are kept, at least one.
    kept: usize,
    /// All that can be read, the newest last.
    manifests: BTreeMap<Rank, Manifest>,
    /// Manifests to be removed: those that cannot be read, and those of which nobody knows whether they were stored.
    doomed: BTreeSet<Rank>,
    /// That of the newest manifest that this attempt tried to store: a number is used once, since a try that failed may
    /// yet be stored.
    sequence: u32,
    /// Everything that is stored, for clearing.
    stored: BTreeSet<String>,
    /// What need not be sent again, by its content: parts that nobody removes while they are in the newest manifest.
    trusted: BTreeMap<(String, u64), Part>,
    /// The parts of files that were sent, as long as those do not change.
    sent: BTreeMap<String, (Stamp, Vec<Part>)>,
    /// What was found when it was last saved.
    last_found: Option<Vec<Found>>,
}

/// What a restore brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The number of the attempt that stored it.
    pub attempt: u32,
    /// How many files it has.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// What a save sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// How many files the checkpoint has.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// What of that was sent; the rest was stored already.
    pub sent_bytes: u64,
    /// When the newest of them was last changed, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// What clearing removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleared {
    /// Manifests.
    pub manifests: usize,
    /// Parts.
    pub parts: usize,
}

impl Shelf {
    /// Claims an experiment's checkpoints for its attempt of this number, and looks what is there.
    ///
    /// # Errors
    /// When the store cannot be used, or a later attempt has claimed them.
    pub async fn claim(place: Place, attempt: u32, by: AttemptId, kept: u32) -> Result<Self, StorageError> {
        let mut shelf = Self {
            place,
            attempt,
            by,
            kept: usize::try_from(kept).unwrap_or(usize::MAX).max(1),
            manifests: BTreeMap::new(),
            doomed: BTreeSet::new(),
            sequence: 0,
            stored: BTreeSet::new(),
            trusted: BTreeMap::new(),
            sent: BTreeMap::new(),
            last_found: None,
        };
        shelf.place.put(&format!("claims/{attempt:08}"), by.to_string().into_bytes()).await?;
        shelf.look_for_later_claim().await?;
        // Manifests before parts: what is published between the two is then not missing among the parts.
        for object in shelf.place.list("manifests", MANIFESTS_MAX).await? {
            let Some(rank) = object.location.filename().and_then(Rank::parse) else { continue };
            let name = rank.name();
            match shelf.place.get(&name).await.and_then(|bytes| Manifest::parse(&name, &bytes)) {
                Ok(manifest) => drop(shelf.manifests.insert(rank, manifest)),
                Err(StorageError::Damaged { .. }) => drop(shelf.doomed.insert(rank)),
                // Removed since it was listed.
                Err(StorageError::Store { source: object_store::Error::NotFound { .. }, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let below = shelf.place.base().as_ref().len();
        for object in shelf.place.list("parts", PARTS_MAX).await? {
            shelf.stored.insert(object.location.as_ref()[below..].trim_start_matches('/').to_owned());
        }
        Ok(shelf)
    }

    /// Brings the newest checkpoint that is whole into `folder`, which must not exist or be empty. What is wrong with a
    /// newer one is told to `passed_over`. Nothing where there is none: the folder is not made then.
    ///
    /// # Errors
    /// When the store or the folder cannot be used. Nothing is in the folder then.
    pub async fn restore(
        &mut self,
        folder: &Path,
        mut passed_over: impl FnMut(String),
    ) -> Result<Option<Restored>, StorageError> {
        let mut half = folder.as_os_str().to_owned();
        half.push(".restoring");
        let half = PathBuf::from(half);
        for (nth, (rank, manifest)) in self.manifests.iter().rev().enumerate() {
            remove(half.clone()).await?;
            match fetch(&self.place, manifest, &half).await {
                Ok(()) => {
                    put_in_place(half, folder.to_owned()).await?;
                    let scanned = folder.to_owned();
                    self.last_found = Some(aside(move || scan(&scanned, Which::Complete)).await?);
                    if nth == 0 {
                        // Only the newest is safe from whoever was here before us.
                        self.trusted.extend(manifest.parts().map(|part| (content(part), part.clone())));
                    }
                    return Ok(Some(Restored {
                        attempt: rank.attempt,
                        files: manifest.files.len(),
                        bytes: manifest.parts().map(|part| part.size).sum(),
                    }));
                }
                Err(error @ StorageError::Damaged { .. }) => passed_over(explain(&error)),
                Err(error) => {
                    remove(half).await?;
                    return Err(error);
                }
            }
        }
        remove(half).await?;
        Ok(None)
    }

    /// Stores what a folder holds now as a new checkpoint, whole or not at all. Nothing where nothing has changed, where
    /// there is no complete file, or where something changed after `settled_ms` (since 1970): it may not be all there yet.
    ///
    /// # Errors
    /// When it cannot be stored, changes meanwhile, or a later attempt has begun. What was sent already is not sent again.
    pub async fn save(
        &mut self,
        folder: &Path,
        settled_ms: Option<i64>,
    ) -> Result<Option<Saved>, StorageError> {
        let scanned = folder.to_owned();
        let found = aside(move || scan(&scanned, Which::Complete)).await?;
        let changed_ms = found.iter().map(Found::changed_ms).max();
        let unsettled = settled_ms.is_some_and(|settled_ms| changed_ms > Some(settled_ms));
        if found.is_empty() || unsettled || self.last_found.as_ref() == Some(&found) {
            return Ok(None);
        }
        let mut entries = Vec::with_capacity(found.len());
        let mut sent_bytes = 0;
        for file in &found {
            let parts = match self.sent.get(&file.path) {
                Some((stamp, parts)) if *stamp == file.stamp => parts.clone(),
                _ if file.link.is_some() => Vec::new(),
                _ => {
                    let (parts, new_bytes) = self.send(&folder.join(&file.path), file).await?;
                    sent_bytes += new_bytes;
                    self.sent.insert(file.path.clone(), (file.stamp, parts.clone()));
                    parts
                }
            };
            entries.push(FileEntry {
                path: file.path.clone(),
                mode: file.mode,
                modified_ms: file.modified_ms(),
                link: file.link.clone(),
                parts,
            });
        }
        self.sequence += 1;
        let rank = Rank { attempt: self.attempt, sequence: self.sequence };
        let manifest = Manifest { version: Manifest::VERSION, rank, by: self.by, files: entries };
        let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
        self.look_for_later_claim().await?;
        self.doomed.insert(rank);
        self.place.create(&rank.name(), bytes).await?;
        self.doomed.remove(&rank);
        let saved = Saved {
            files: manifest.files.len(),
            bytes: manifest.parts().map(|part| part.size).sum(),
            sent_bytes,
            modified_ms: found.iter().map(Found::modified_ms).max().unwrap_or_default(),
        };
        self.manifests.insert(rank, manifest);
        self.sent.retain(|path, _| found.binary_search_by(|file| file.path.cmp(path)).is_ok());
        self.last_found = Some(found);
        Ok(Some(saved))
    }

    /// Removes all but the newest checkpoints, and parts of none that is kept. Only after a checkpoint of this attempt was
    /// saved: until then what others left is all that there is.
    ///
    /// # Errors
    /// When the store cannot be used, or a later attempt has begun. What is left is removed by the next call, of this
    /// attempt or a later one.
    pub async fn clear(&mut self) -> Result<Cleared, StorageError> {
        let mut cleared = Cleared::default();
        if self.manifests.last_key_value().is_none_or(|(rank, _)| rank.attempt != self.attempt) {
            return Ok(cleared);
        }
        self.look_for_later_claim().await?;
        // Manifests first: one that stands without its parts would be a checkpoint that cannot be restored.
        while self.manifests.len() > self.kept {
            let oldest = *self.manifests.keys().next().expect("there are more than are kept");
            self.place.delete(&oldest.name()).await?;
            self.manifests.remove(&oldest);
            cleared.manifests += 1;
        }
        while let Some(rank) = self.doomed.first().copied() {
            self.place.delete(&rank.name()).await?;
            self.doomed.remove(&rank);
            cleared.manifests += 1;
        }
        let needed: BTreeSet<String> =
            self.manifests.values().flat_map(Manifest::parts).map(Part::name).collect();
        self.trusted.retain(|_, part| needed.contains(&part.name()));
        self.sent.retain(|_, (_, parts)| parts.iter().all(|part| needed.contains(&part.name())));
        let unneeded: Vec<String> = self.stored.difference(&needed).cloned().collect();
        for name in unneeded {
            self.place.delete(&name).await?;
            self.stored.remove(&name);
            cleared.parts += 1;
        }
        Ok(cleared)
    }

    /// Sends the parts of a file that are not stored, and answers with all of them and how many bytes were sent.
    async fn send(&mut self, path: &Path, file: &Found) -> Result<(Vec<Part>, u64), StorageError> {
        let offsets: Vec<u64> = (0..file.stamp.size.div_ceil(PART_BYTES)).map(|n| n * PART_BYTES).collect();
        let (place, trusted, attempt, size) = (&self.place, &self.trusted, self.attempt, file.stamp.size);
        let each = offsets.into_iter().map(|offset| async move {
            let length = PART_BYTES.min(size - offset);
            let (bytes, sha256) = files::read_part(path.to_owned(), offset, length).await?;
            if let Some(part) = trusted.get(&(sha256.clone(), length)) {
                return Ok((part.clone(), 0));
            }
            let part = Part { attempt, sha256, size: length };
            place.put(&part.name(), bytes).await?;
            Ok::<_, StorageError>((part, length))
        });
        // What was sent counts, though a later part fails: the next try goes on from there.
        let mut sending = stream::iter(each).buffered(PARTS_AT_ONCE);
        let (mut parts, mut sent, mut failed) = (Vec::new(), 0, None);
        while let Some(result) = sending.next().await {
            match result {
                Ok((part, new)) => {
                    sent += new;
                    parts.push(part);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        drop(sending);
        for part in &parts {
            self.stored.insert(part.name());
            self.trusted.insert(content(part), part.clone());
        }
        match failed {
            Some(error) => Err(error),
            None => files::same_still(path.to_owned(), file.stamp).await.map(|()| (parts, sent)),
        }
    }

    async fn look_for_later_claim(&self) -> Result<(), StorageError> {
        for object in self.place.list("claims", CLAIMS_MAX).await? {
            let number = object.location.filename().and_then(|name| name.parse().ok());
            if let Some(later) = number.filter(|number: &u32| *number > self.attempt) {
                return Err(StorageError::Fenced(later));
            }
        }
        Ok(())
    }
}

fn content(part: &Part) -> (String, u64) {
    (part.sha256.clone(), part.size)
}

/// Brings all files of a manifest into a new folder, each part verified.
async fn fetch(place: &Place, manifest: &Manifest, into: &Path) -> Result<(), StorageError> {
    let files_of_it = manifest.files.iter().filter(|file| file.link.is_none());
    for file in files_of_it.clone() {
        files::make(into.join(&file.path), file.size()).await?;
    }
    let parts = files_of_it.clone().flat_map(|file| {
        let mut offset = 0;
        file.parts.iter().map(move |part| {
            let at = offset;
            offset += part.size;
            (file, part, at)
        })
    });
    stream::iter(parts.map(Ok::<_, StorageError>))
        .try_for_each_concurrent(PARTS_AT_ONCE, |(file, part, offset)| async move {
            let name = part.name();
            let bytes = match place.get(&name).await {
                Err(StorageError::Store { source: object_store::Error::NotFound { .. }, .. }) => {
                    return Err(StorageError::damaged(
                        &name,
                        format!("it is gone, and {} needs it", file.path),
                    ));
                }
                got => got?,
            };
            let path = into.join(&file.path);
            match files::write_part(path, offset, bytes, Some(part.sha256.clone())).await? {
                true => Ok(()),
                false => Err(StorageError::damaged(&name, format!("{} has other content", file.path))),
            }
        })
        .await?;
    for file in files_of_it {
        files::finish(into.join(&file.path), file.mode, file.modified_ms).await?;
    }
    // Links last, so that nothing is written through one.
    for file in &manifest.files {
        if let Some(target) = file.link.clone() {
            let path = into.join(&file.path);
            aside(move || {
                files::make_above(&path)?;
                std::os::unix::fs::symlink(target, &path).map_err(StorageError::local("make", &path))
            })
            .await?;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the edge: what was fetched by half is removed here")]
async fn remove(folder: PathBuf) -> Result<(), StorageError> {
    aside(move || match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::local("remove", &folder)(error))
        }
        _ => Ok(()),
    })
    .await
}

/// Puts what was fetched whole into the folder, in which something may lie already where it came with the working folder.
#[expect(clippy::disallowed_methods, reason = "the edge: what was fetched is put in place here")]
async fn put_in_place(half: PathBuf, folder: PathBuf) -> Result<(), StorageError> {
    aside(move || {
        fs::create_dir_all(&folder).map_err(StorageError::local("make", &folder))?;
        for entry in fs::read_dir(&half).map_err(StorageError::local("read", &half))? {
            let entry = entry.map_err(StorageError::local("read", &half))?;
            let target = folder.join(entry.file_name());
            // A folder takes the place of an empty one only.
            if target.is_dir() && !target.is_symlink() {
                fs::remove_dir_all(&target).map_err(StorageError::local("replace", &target))?;
            }
            fs::rename(entry.path(), &target).map_err(StorageError::local("make", &target))?;
        }
        fs::remove_dir(&half).map_err(StorageError::local("remove", &half))
    })
    .await
}

#[cfg(test)]
mod tests;
