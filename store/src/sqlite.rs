//! SQLite as the store: one file, written by one daemon, read by anybody.
//!
//! WAL with `synchronous=FULL`: a commit is one append and one fsync, and readers never wait for it. Everything runs
//! inline on the caller's thread: a commit takes a fraction of a millisecond, and simulation on virtual time would
//! run ahead of an answer that comes from another thread.

mod charges;
mod checkpoint;
pub(crate) mod load;
mod lock;
mod migrate;
pub(crate) mod rows;
mod write;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bursar_model::TypedId;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

pub use self::checkpoint::Checkpointer;
use self::{lock::StoreLock, migrate::Found};
use crate::{Commit, Loaded, Reader, Store, StoreError, Submission, Submitted};

/// Nobody but ourselves writes; only a reader that recovers the log of a killed daemon can be in the way, for the
/// few milliseconds that this takes. Far more than that means that somebody holds the file from outside.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// KiB of pages that the writer keeps. What a commit touches are the right edges of a few trees, so more would only
/// sit in memory.
const WRITER_CACHE_KIB: i64 = 2000;

/// KiB of pages for each reading connection: enough for the inner pages of every tree.
pub(crate) const READER_CACHE_KIB: i64 = 1000;

/// Pages in the log at which the commit that passes it copies them back into the file, where the `Checkpointer` has not
/// done so before. Bounds the recovery after a kill, which reads the log once.
const CHECKPOINT_PAGES: i64 = 8000;

/// Bytes that the log may keep on disk after a reader that stayed long let it grow.
const WAL_BYTES_KEPT: i64 = 16 << 20;

/// More than there are different statements in this crate, so that each is parsed once.
pub(crate) const STATEMENTS_CACHED: usize = 64;

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The loss of power.
    #[default]
    Machine,
    /// The end of the process only: for tests and simulation, which make many commits and lose no power.
    Process,
}

/// How to open.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// What a commit survives.
    pub durability: Durability,
}

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    // Closed before the lock is given up: fields are dropped in this order.
    connection: Connection,
    path: PathBuf,
    epoch: u64,
    reader: Reader,
    _lock: StoreLock,
}

impl SqliteStore {
    /// Opens the store for writing, and creates it where there is none.
    ///
    /// # Errors
    /// When it is in use, not ours, from a newer version, or cannot be read or written.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        let lock = StoreLock::take(path)?;
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| unopenable(path, error))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);

        // Looked at before anything is set: what is not ours is left as it is.
        let found = migrate::check(&connection, path)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        // An empty store has nothing to lose, so its schema waits for no disk: the change to WAL just after syncs the
        // whole file once. A kill in between leaves an empty store of ours.
        let first_epoch = match found {
            Found::Empty => {
                connection.pragma_update(None, "synchronous", "off")?;
                Some(migrate::migrate_and_lead(&mut connection)?)
            }
            Found::Ours => None,
        };
        let durability = match options.durability {
            Durability::Machine => "full",
            Durability::Process => "off",
        };
        connection.pragma_update(None, "synchronous", durability)?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;

        let epoch = match first_epoch {
            Some(epoch) => epoch,
            None => migrate::migrate_and_lead(&mut connection)?,
        };
        let reader = Reader::beside(path);
        Ok(Self { connection, path: path.to_owned(), epoch, reader, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What keeps its log short beside the commits.
    #[must_use]
    pub fn checkpointer(&self) -> Checkpointer {
        Checkpointer::new(&self.path)
    }

    /// The file may not grow beyond so many bytes from now on; `None` lifts it. What does not fit any more is
    /// answered as on a full disk.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn limit_size(&mut self, bytes: Option<u64>) -> Result<(), StoreError> {
        let page_size: i64 = self.connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = match bytes {
            Some(bytes) => (bytes as i64 / page_size).max(1),
            // The most that SQLite knows.
            None => i64::from(u32::MAX - 1),
        };
        self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        Ok(())
    }
}

impl Store for SqliteStore {
    async fn load(&mut self) -> Result<Loaded, StoreError> {
        load::load(&self.connection, self.epoch)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let written = write::write(&self.connection, commit).and_then(|()| {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        });
        // SQLite has already rolled back after some errors, a full disk among them.
        if written.is_err() && !self.connection.is_autocommit() {
            self.connection.prepare_cached("ROLLBACK")?.execute([])?;
        }
        written
    }

    async fn submission(&mut self, key: &str) -> Result<Option<Submission>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT digest, sweep, experiments FROM submissions WHERE key = ?1")?;
        let found = statement
            .query_row([key], |row| {
                let became = match row.get::<_, Option<i64>>(1)? {
                    Some(sweep) => Submitted::Sweep(TypedId::from_u64(sweep as u64)),
                    None => Submitted::Experiments(rows::unpack_ids(row.get_ref(2)?.as_blob()?)),
                };
                Ok(Submission { key: key.to_owned(), digest: row.get(0)?, became })
            })
            .optional()?;
        Ok(found)
    }

    fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

/// What failed at the opening of a file, where a text that is no database is no damage but somebody else's.
pub(crate) fn unopenable(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::Foreign { path: path.to_owned() },
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged(error),
        _ => StoreError::Unopenable { path: path.to_owned(), source: Box::new(error) },
    }
}

pub(crate) use migrate::check as check_is_ours;
