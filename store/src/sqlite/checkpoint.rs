//! Copying the log back into the file, beside the commits instead of within one.
//!
//! A checkpoint syncs the file, which takes as long as several commits. Done by the commit that happens to pass a limit
//! it is what the slowest submissions wait for; done on a connection of its own it disturbs nobody.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::unopenable;
use crate::StoreError;

/// Copies the log back when asked to, from any thread. Does not take the store's lock: it changes no content.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    path: PathBuf,
}

impl Checkpointer {
    /// Commits after which it is worth it: about the pages that one checkpoint copies in some milliseconds.
    pub const COMMITS: u64 = 200;

    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Copies what can be copied without waiting for anybody. What readers still need stays for the next time.
    ///
    /// # Errors
    /// When the store cannot be opened or written. Nothing is lost: the log has it all.
    pub fn run(&self) -> Result<(), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(|error| unopenable(&self.path, error))?;
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(())
    }
}
