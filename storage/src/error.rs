//! What can go wrong between a folder and an object store.

use std::{error::Error, io, path::PathBuf};

/// Why something was not stored or not fetched.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No store can be made of what the configuration or the spec says.
    #[error("`{url}` cannot be used as a store: {why}")]
    Address {
        /// The URL.
        url: String,
        /// Why, and what to do.
        why: String,
    },
    /// The store did not do what it was asked, after several tries where those made sense.
    #[error("cannot {what} {at}")]
    Store {
        /// What it was asked.
        what: &'static str,
        /// Where.
        at: String,
        /// What it said.
        #[source]
        source: object_store::Error,
    },
    /// Nothing opens the store: no keys were given, and the machine has no role of its cloud.
    #[error(
        "no credentials found for {at}: set {keys} in `storage.credentials`, or give the machine an instance role that may use it"
    )]
    NoCredentials {
        /// Where.
        at: String,
        /// What can be given.
        keys: &'static str,
    },
    /// A file or folder here cannot be used.
    #[error("cannot {what} {path}", path = path.display())]
    Local {
        /// What was to be done.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file changed while it was read: it was not complete. A later try finds it settled.
    #[error("{path} changed while it was read", path = .0.display())]
    Changed(PathBuf),
    /// What was stored is not what was written: a part is gone or is another.
    #[error("{at} is damaged: {why}")]
    Damaged {
        /// Which object.
        at: String,
        /// How.
        why: String,
    },
    /// A later attempt of the experiment has begun: this one stores nothing any more.
    #[error("attempt {0} has begun, so nothing of an earlier one is stored")]
    Fenced(u32),
    /// There are more files than are handled.
    #[error("{path} holds more than {most} files and folders: pack them into archives", path = path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many are handled.
        most: usize,
    },
    /// A name that a store cannot have.
    #[error("{path} has a name that is not UTF-8: rename it", path = .0.display())]
    Name(PathBuf),
}

impl StorageError {
    pub(crate) fn local(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { what, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(at: impl ToString, why: impl ToString) -> Self {
        Self::Damaged { at: at.to_string(), why: why.to_string() }
    }
}

/// An error in one line, with its cause. What a store says holds its own causes already.
#[must_use]
pub fn explain(error: &StorageError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
