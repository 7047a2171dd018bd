//! Whether a place can be used: found out before an experiment has to.

use crate::{Place, StorageError};

/// Writes, reads and removes a small object of this name, which must be nobody's. Asks once: who wants to know whether a
/// store is well has not two minutes for it to become so.
///
/// # Errors
/// With the first thing that the store did not do.
pub async fn probe(place: &Place, name: &str) -> Result<(), StorageError> {
    const CONTENT: &[u8] = b"whether bursar can write here";
    place.put(name, CONTENT.to_vec()).await?;
    let read = place.get(name).await;
    // Removed whatever was read: it is ours.
    place.delete(name).await?;
    match read? == CONTENT {
        true => Ok(()),
        false => Err(StorageError::damaged(format!("{place}/{name}"), "it is not what was written")),
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::agent_api::StoreAccess;

    use super::*;
    use crate::{explain, testing::write};

    #[tokio::test]
    async fn a_folder_that_can_be_written_is_well_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/below", folder.path().display());
        probe(&Place::open_once(&StoreAccess::at(&url)).unwrap(), "probe").await.unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.path().join("below")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn a_place_below_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "file", b"");
        let url = format!("file://{}/file/below", folder.path().display());
        let place = Place::open_once(&StoreAccess::at(&url)).unwrap();
        let said = explain(&probe(&place, "probe").await.unwrap_err());
        assert!(said.contains("cannot write file://"), "{said}");
    }
}
