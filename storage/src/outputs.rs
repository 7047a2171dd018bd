//! What an attempt leaves behind: plain objects, for people and other tools, and a listing of them that is written last.

use std::path::{Path, PathBuf};

use bursar_model::AttemptId;
use futures::{Stream, StreamExt, stream};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    PART_BYTES, Place, StorageError,
    files::{self, FILES_MAX, aside, hex, scan_one},
};

/// How many attempts of an experiment are looked through for the newest listing.
const LISTINGS_MAX: usize = 10_000;

/// The outputs of one attempt in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The number of the attempt.
    pub attempt: u32,
    /// The attempt.
    pub id: AttemptId,
    /// What was stored.
    pub files: Vec<OutputFile>,
    /// What the spec names and was not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// One file of the outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// From the working folder.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of its content, in hex.
    pub sha256: String,
}

/// Stores what these paths of a working folder hold, and answers with the listing.
///
/// # Errors
/// When something cannot be read or stored. What was stored until then stays, and no listing names it.
pub async fn store_outputs(
    place: &Place,
    attempt: u32,
    id: AttemptId,
    work: &Path,
    paths: &[String],
) -> Result<Outputs, StorageError> {
    let mut outputs = Outputs { attempt, id, files: Vec::new(), missing: Vec::new() };
    for path in paths {
        let (root, name) = (work.to_owned(), path.clone());
        let found = aside(move || scan_one(&root, &name)).await?;
        if found.is_empty() {
            outputs.missing.push(path.clone());
        }
        for file in found {
            if outputs.files.len() >= FILES_MAX {
                return Err(StorageError::TooMany { path: work.to_owned(), most: FILES_MAX });
            }
            let name = object_name(attempt, id, &file.path);
            let sha256 = send(place, &name, work.join(&file.path), file.stamp.size).await?;
            outputs.files.push(OutputFile { path: file.path, size: file.stamp.size, sha256 });
        }
    }
    let listing = serde_json::to_vec(&outputs).expect("a listing is plain data");
    place.put(&format!("{attempt:08}-{id}.json"), listing).await?;
    Ok(outputs)
}

/// The outputs of the newest attempt that stored any.
///
/// # Errors
/// When the store cannot be used or the listing cannot be read.
pub async fn newest_outputs(place: &Place) -> Result<Option<Outputs>, StorageError> {
    let listed = place.store().list_with_delimiter(Some(place.base())).await;
    let listed = listed.map_err(place.failed("list", ""))?.objects;
    if listed.len() > LISTINGS_MAX {
        return Err(StorageError::TooMany { path: place.to_string().into(), most: LISTINGS_MAX });
    }
    // Attempts have as many digits each, so that names sort as numbers do.
    let names = listed.iter().filter_map(|object| object.location.filename());
    let Some(newest) = names.filter(|name| name.ends_with(".json")).max() else { return Ok(None) };
    let bytes = place.get(newest).await?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| StorageError::damaged(newest, error))
}

/// The content of an output, piece by piece. What was cut short or changed shows at the end: the reader has the digest.
///
/// # Errors
/// When it is not there.
pub async fn open_output(
    place: &Place,
    outputs: &Outputs,
    file: &OutputFile,
) -> Result<impl Stream<Item = Result<Vec<u8>, StorageError>> + use<>, StorageError> {
    let name = object_name(outputs.attempt, outputs.id, &file.path);
    let got = place.store().get(&place.path(&name)).await.map_err(place.failed("read", &name))?;
    let place = place.clone();
    Ok(got.into_stream().map(move |piece| piece.map(Vec::from).map_err(place.failed("read", &name))))
}

fn object_name(attempt: u32, id: AttemptId, path: &str) -> String {
    format!("{attempt:08}-{id}/{path}")
}

/// Sends a file, and answers with the digest of what was sent.
async fn send(place: &Place, name: &str, file: PathBuf, size: u64) -> Result<String, StorageError> {
    let mut hasher = Sha256::new();
    if size <= PART_BYTES {
        let (bytes, sha256) = files::read_part(file, 0, size).await?;
        place.put(name, bytes).await?;
        return Ok(sha256);
    }
    let failed = |error| place.failed("write", name)(error);
    let mut upload = place.store().put_multipart(&place.path(name)).await.map_err(failed)?;
    // One part after another: outputs are stored once, and their digest is that of the whole.
    let offsets = (0..size.div_ceil(PART_BYTES)).map(|nth| nth * PART_BYTES);
    let mut parts = stream::iter(offsets);
    while let Some(offset) = parts.next().await {
        let sent = async {
            let (bytes, _) = files::read_part(file.clone(), offset, PART_BYTES.min(size - offset)).await?;
            hasher.update(&bytes);
            upload.put_part(PutPayload::from(bytes)).await.map_err(failed)
        };
        if let Err(error) = sent.await {
            // Parts of an upload that is never completed would be paid for as long as nobody looks.
            let _ = upload.abort().await;
            return Err(error);
        }
    }
    upload.complete().await.map_err(failed)?;
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use bursar_model::TypedId;
    use futures::TryStreamExt;

    use super::*;
    use crate::testing::{memory, write};

    #[tokio::test]
    async fn outputs_are_plain_objects_and_the_newest_attempts_count() {
        let (place, work) = (memory("outputs/exp"), tempfile::tempdir().unwrap());
        assert_eq!(newest_outputs(&place).await.unwrap(), None);
        write(work.path(), "results/a.csv", b"1,2");
        write(work.path(), "model.pt", &[3; 300]);
        let paths = ["results/".to_owned(), "model.pt".to_owned(), "plots".to_owned()];
        let id = AttemptId::from_u64(5);
        for attempt in [1, 2] {
            store_outputs(&place, attempt, id, work.path(), &paths).await.unwrap();
        }
        let outputs = newest_outputs(&place).await.unwrap().unwrap();
        assert_eq!((outputs.attempt, &*outputs.missing), (2, &["plots".to_owned()][..]));
        let names: Vec<_> = outputs.files.iter().map(|file| (&*file.path, file.size)).collect();
        assert_eq!(names, [("results/a.csv", 3), ("model.pt", 300)]);
        let model = &outputs.files[1];
        let pieces = open_output(&place, &outputs, model).await.unwrap();
        let content: Vec<Vec<u8>> = pieces.try_collect().await.unwrap();
        assert_eq!(content.concat(), [3; 300]);
        assert_eq!(files::digest(&content.concat()), model.sha256);
        assert_eq!(place.get(&format!("00000002-{id}/results/a.csv")).await.unwrap(), b"1,2");
    }
}
