//! What outlives an instance: checkpoints, outputs and data sets in an object store (S3, GCS, Azure, or a shared folder).
//!
//! A **checkpoint** is a folder of files. It is stored as *parts* (pieces of files, known by their SHA-256, so that what
//! did not change is not sent again) and one *manifest* that lists them, which is written last and never changed. So a
//! checkpoint is there whole or not at all, whenever whoever stores it dies. Attempts of an experiment are **fenced** by
//! their number: what a stale one still writes never counts for more than what its successor wrote.
//!
//! **Outputs** are plain objects, for people and other tools, with a listing that is written last.
//! **Mounts** are fetched part by part into a cache on the instance.
//!
//! Everything here may take long: callers bound it by dropping the future. Single requests are bounded here.

mod checkpoints;
mod error;
mod files;
mod manifest;
mod mounts;
mod outputs;
mod place;
mod probe;
#[cfg(test)]
mod testing;

pub use self::{
    checkpoints::{Cleared, Restored, Saved, Shelf},
    error::{StorageError, explain},
    files::is_complete,
    mounts::{Fetched, fetch},
    outputs::{OutputFile, Outputs, newest_outputs, open_output, store_outputs},
    place::Place,
    probe::probe,
};

/// How large a part is. Large enough that its request weighs little, small enough that a few of them fit into the memory
/// of the smallest instance, and that one gets through a slow line within a request's time-out.
/// Tests make do with small files.
pub const PART_BYTES: u64 = if cfg!(test) { 64 } else { 16 << 20 };

/// How many parts are under way at once: with `PART_BYTES`, what memory it takes. One connection seldom fills a line.
const PARTS_AT_ONCE: usize = 4;
