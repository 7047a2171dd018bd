//! Durable state: what the daemon knows is what is committed here.
//!
//! `Store` is the writing side, owned by the reconciler alone; `Reader` answers questions about everything, live and
//! over, from its own connections. SQL lives in this crate and nowhere else.

pub mod conformance;
mod error;
mod reader;
mod sqlite;

use bursar_model::{Changes, Event, ExperimentId, Fleet, SweepId, Timestamp};

pub use self::{
    error::StoreError,
    reader::{
        ByCategory, ChargeFilter, ChargeRow, Counts, Cursor, Dimension, ExperimentFilter, ExperimentRow,
        InstanceCosts, InstanceFilter, Integrity, JournalEntry, MonthCosts, Page, Payer, Peers, Reader,
        ReportFilter, ReportKey, ReportQuery, ReportRow, SeriesUnit, SweepFilter, SweepRow, UnknownDimension,
        WalkedCharge, WalkedLine,
    },
    sqlite::{Checkpointer, Durability, OpenOptions, SqliteStore},
};

/// Durable state, written by one daemon at a time.
///
/// The contract, each sentence of which is one function in [`conformance`]:
///
/// 1. What was committed is loaded: `load` gives the very state that memory holds (S1).
/// 2. A commit that was answered with `Ok` outlives whoever made it.
/// 3. A commit that was refused left nothing behind, and the next one works.
/// 4. Each opening has a higher epoch, and a commit of an older epoch is refused as [`StoreError::Deposed`].
/// 5. `highest_id` is not below any id that was ever committed.
/// 6. A submission is found by its key, with its digest and what it became; no key is ever given twice.
/// 7. What is over is not loaded, and readers still find it.
/// 8. The journal has each event once, in the order of the commits.
/// 9. Reports equal the sum of the charges, by whatever dimension.
/// 10. A reader sees a commit as soon as it was answered.
/// 11. What each instance was charged equals the sum of its charges, corrections of what is over included.
/// 12. A report equals a recount of the charges after any commit, whoever asked before and whenever it begins and ends.
/// 13. A walk gives every charge of its time once, with all its lines and what they are of.
/// 14. What was paid for attempts that failed is the `run` of their time, and of no other attempt's.
/// 15. `newest_commit` is the time of the newest commit that had events.
///
/// Its form is async because a database on the network comes later; SQLite answers inline.
pub trait Store: Send {
    /// The live state, and the epoch that this opening's commits carry.
    fn load(&mut self) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Makes all that one turn changed durable, or none of it.
    fn commit(&mut self, commit: &Commit) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The submission that was accepted with this key.
    fn submission(
        &mut self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Submission>, StoreError>> + Send;

    /// Answers questions beside the writing.
    fn reader(&self) -> Reader;
}

/// All that one turn changes. It becomes durable whole or not at all.
#[derive(Debug)]
pub struct Commit {
    /// The leader's epoch; a commit of an older epoch than the store's is refused.
    pub epoch: u64,
    /// When.
    pub at: Timestamp,
    /// What happened, for the journal, in order.
    pub events: Vec<Event>,
    /// The rows that it changed.
    pub changes: Changes,
    /// Submissions accepted in this turn, with the key that makes each idempotent.
    pub submissions: Vec<Submission>,
}

/// An accepted submission by the client's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The client's key.
    pub key: String,
    /// SHA-256 of what was submitted: the same key with another content is a mistake.
    pub digest: [u8; 32],
    /// What it became.
    pub became: Submitted,
}

/// What a submission became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// Experiments, in the order of the submission.
    Experiments(Vec<ExperimentId>),
    /// A sweep.
    Sweep(SweepId),
}

/// What a store has at the start.
#[derive(Debug)]
pub struct Loaded {
    /// The live state.
    pub fleet: Fleet,
    /// The epoch that commits of this opening carry.
    pub epoch: u64,
    /// The highest id of any kind ever stored, so that ids rise though the clock stepped back.
    pub highest_id: u64,
    /// When the newest event was committed, so that time goes on from there though the clock stepped back.
    pub newest_commit: Option<Timestamp>,
}
