//! What can go wrong, by what the caller does next.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has the store: stop it, or use another store.
    #[error("another bursar daemon{} uses {}: stop it, or choose another store", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), .path.display())]
    InUse {
        /// The store.
        path: PathBuf,
        /// The other daemon's process, as far as it said.
        pid: Option<u32>,
    },
    /// The file is something else: choose another path. It was not touched.
    #[error("{} is not a bursar store: it was left as it is, choose another path", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer bursar wrote the store: upgrade, or restore.
    #[error(
        "{} is of version {found}, this bursar knows versions up to {known}: upgrade bursar, or restore the backup that was made before the upgrade",
        .path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// There is nothing to read yet.
    #[error("there is no store at {}: start the daemon once, or check the path", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The path cannot be used: check the folder and its permissions.
    #[error("the store {} cannot be opened", .path.display())]
    Unopenable {
        /// The store.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing was committed; the same commit works once there is room.
    #[error("no room left on the disk of the store: free some, nothing was lost")]
    Full,
    /// Another daemon took over: end without any further effect.
    #[error("another daemon took over the store (its epoch is {current}, ours {ours})")]
    Deposed {
        /// The epoch of the commit that was refused.
        ours: u64,
        /// The epoch of the store.
        current: u64,
    },
    /// What is stored cannot be read back: run `bursar doctor`, restore a backup.
    #[error("the store is damaged: run `bursar doctor`, and restore the newest backup if it agrees")]
    Damaged(#[source] rusqlite::Error),
    /// Anything else: nothing was committed, and an operator has to look.
    #[error("the store failed")]
    Failed(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) = error
        {
            return Self::Damaged(error);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            _ => Self::Failed(error),
        }
    }
}
