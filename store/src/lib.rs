//! Durable state: what the daemon knows is what is committed here.
//!
//! `Store` is the writing side, owned by the reconciler alone; `Reader` answers questions about everything, live and
//! over, from its own connection. SQL lives in this crate and nowhere else.

use bursar_model::{Changes, Event, ExperimentId, Fleet, SweepId, Timestamp};

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
}
