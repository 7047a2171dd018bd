//! Data sets: fetched once to an instance, and linked from there into the working folder of each attempt.
//!
//! The cache lies on the instance and goes with it. A cached file is known by its object's address, version and size, and
//! bears the time of the object's last change, so that one that an experiment wrote to, though it is read-only, is fetched
//! anew instead of being handed to the next.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use futures::{TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use sha2::{Digest, Sha256};

use crate::{
    PART_BYTES, PARTS_AT_ONCE, Place, StorageError,
    files::{self, aside, hex},
    manifest::stays_inside,
};

/// How many objects one mount may have: more belong into archives, which any cloud serves faster.
const OBJECTS_MAX: usize = 200_000;

/// Nobody writes to what others read too.
const MODE: u32 = 0o444;

/// What a mount brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// How many files it has.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// What of that was fetched now; the rest was here already.
    pub fetched_bytes: u64,
}

/// Brings all objects of a place to `target`: a folder, or a file where the place is a single object.
///
/// # Errors
/// When there is nothing, or it cannot be fetched or put there.
pub async fn fetch(place: &Place, cache: &Path, target: &Path) -> Result<Fetched, StorageError> {
    let base = place.base();
    let mut objects = place.list("", OBJECTS_MAX).await?;
    // Consoles make empty objects that stand for folders.
    objects.retain(|object| object.size > 0 || !object.location.as_ref().ends_with('/'));
    if objects.is_empty() {
        let head = place.store().head(base).await;
        objects.push(head.map_err(place.failed("find anything at", ""))?);
    }
    let mut fetched = Fetched { files: objects.len(), ..Fetched::default() };
    for object in objects {
        let below = object.location.prefix_match(base).into_iter().flatten();
        let below: Vec<_> = below.map(|part| part.as_ref().to_owned()).collect();
        let below = below.join("/");
        if !below.is_empty() && !stays_inside(&below) {
            return Err(StorageError::damaged(&object.location, "its name leads out of the folder"));
        }
        let (size, cached) = (object.size, cache.join(key(place, &object)));
        if !is_whole(&cached, &object) {
            fetch_object(place, &object, &cached).await?;
            fetched.fetched_bytes += size;
        }
        fetched.bytes += size;
        let target = if below.is_empty() { target.to_owned() } else { target.join(&below) };
        aside(move || link(&cached, &target)).await?;
    }
    Ok(fetched)
}

/// The name of an object in the cache.
fn key(place: &Place, object: &ObjectMeta) -> String {
    let changed = object.last_modified.timestamp_millis();
    let known_by = [
        place.to_string(),
        object.location.to_string(),
        object.e_tag.clone().unwrap_or_default(),
        object.version.clone().unwrap_or_default(),
        format!("{} {changed}", object.size),
    ];
    hex(&Sha256::digest(known_by.join("\n")))
}

fn is_whole(cached: &Path, object: &ObjectMeta) -> bool {
    fs::metadata(cached).is_ok_and(|metadata| {
        let milliseconds = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
        metadata.len() == object.size && milliseconds == object.last_modified.timestamp_millis()
    })
}

/// Fetches one object part by part, each of the same version.
#[expect(clippy::disallowed_methods, reason = "the edge: what was fetched is put in place here")]
async fn fetch_object(place: &Place, object: &ObjectMeta, cached: &Path) -> Result<(), StorageError> {
    let half = cached.with_extension("part");
    files::make(half.clone(), object.size).await?;
    let offsets = (0..object.size.div_ceil(PART_BYTES)).map(|nth| nth * PART_BYTES);
    let half_ref = &half;
    stream::iter(offsets.map(Ok::<_, StorageError>))
        .try_for_each_concurrent(PARTS_AT_ONCE, |offset| async move {
            let end = (offset + PART_BYTES).min(object.size);
            let options = GetOptions {
                range: Some(GetRange::Bounded(offset..end)),
                if_match: object.e_tag.clone(),
                ..GetOptions::default()
            };
            let got = place.store().get_opts(&object.location, options).await;
            let failed = |error| place.failed("read", object.location.as_ref())(error);
            let bytes = got.map_err(failed)?.bytes().await.map_err(failed)?;
            files::write_part(half_ref.clone(), offset, bytes.into(), None).await.map(drop)
        })
        .await?;
    files::finish(half.clone(), MODE, object.last_modified.timestamp_millis()).await?;
    let cached = cached.to_owned();
    aside(move || fs::rename(&half, &cached).map_err(StorageError::local("make", &cached))).await
}

/// The cached file at a path of the experiment: linked where that is possible, else copied.
#[expect(clippy::disallowed_methods, reason = "the edge: mounts are put in place here")]
fn link(cached: &Path, target: &PathBuf) -> Result<(), StorageError> {
    files::make_above(target)?;
    match fs::remove_file(target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::local("replace", target)(error));
        }
        _ => {}
    }
    fs::hard_link(cached, target)
        .or_else(|_| fs::copy(cached, target).map(drop))
        .map_err(StorageError::local("make", target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
    async fn a_data_set_is_fetched_once_and_what_an_experiment_wrote_to_is_fetched_again() {
        let (place, folder) = (memory("data/set"), tempfile::tempdir().unwrap());
        let large = vec![7; 200];
        place.put("a/one", b"1".to_vec()).await.unwrap();
        place.put("large", large.clone()).await.unwrap();
        let (cache, target) = (folder.path().join("cache"), folder.path().join("work/data"));
        let first = fetch(&place, &cache, &target).await.unwrap();
        assert_eq!(first, Fetched { files: 2, bytes: 201, fetched_bytes: 201 });
        assert_eq!(fs::read(target.join("large")).unwrap(), large);
        assert_eq!(fs::metadata(target.join("large")).unwrap().mode() & 0o777, 0o444);

        let again = fetch(&place, &cache, &folder.path().join("other")).await.unwrap();
        assert_eq!(again.fetched_bytes, 0);

        fs::remove_file(target.join("large")).unwrap();
        let spoiled = folder.path().join("other/a/one");
        files::finish(spoiled.clone(), 0o644, 0).await.unwrap();
        fs::write(&spoiled, "x").unwrap();
        let mended = fetch(&place, &cache, &target).await.unwrap();
        assert_eq!(mended.fetched_bytes, 1);
        assert_eq!(fs::read(target.join("a/one")).unwrap(), b"1");
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
    async fn a_single_object_becomes_a_file_and_nothing_is_said_to_be_nothing() {
        let (place, folder) = (memory("weights"), tempfile::tempdir().unwrap());
        place.put("model.pt", b"w".to_vec()).await.unwrap();
        let (cache, target) = (folder.path().join("cache"), folder.path().join("model.pt"));
        fetch(&place.join("model.pt"), &cache, &target).await.unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"w");
        let error = fetch(&place.join("other"), &cache, &target).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot find anything at weights/other"), "{error}");
    }
}
