//! Delivering an attempt's log: how far the daemon has it, what to send next, and how much of it may lie on the disk.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use bursar_model::agent_api::LogReply;
use tokio::time::Instant;

use crate::link::{Backoff, LinkError};

/// One request's worth: large enough to catch up quickly, small enough for the daemon to take at once.
const CHUNK_BYTES_MAX: u64 = 256 << 10;

/// How long small chunks are gathered, so that a program that prints line by line does not cost a request each.
const GATHER: Duration = Duration::from_millis(150);

/// The log file of an attempt, which its processes append to, and its delivery.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// No more than so much is kept and delivered.
    bytes_max: u64,
    /// The daemon has everything before.
    offset: u64,
    /// A chunk is on its way.
    sending: bool,
    /// The daemon takes no more of it: it has as much as it keeps, or will never have any.
    closed: bool,
    /// After a failure.
    not_before: Option<Instant>,
    /// After a chunk that was not full.
    gather_until: Option<Instant>,
    backoff: Backoff,
}

/// The next part of a log.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Log {
    pub(crate) fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self {
            path,
            bytes_max,
            offset: 0,
            sending: false,
            closed: false,
            not_before: None,
            gather_until: None,
            backoff: Backoff::default(),
        }
    }

    /// What to send now, if anything; `sent` must follow. Nothing is gathered once the log is `complete`.
    pub(crate) fn next_chunk(&mut self, now: Instant, complete: bool) -> Option<Chunk> {
        let gathering = !complete && self.gather_until.is_some_and(|at| now < at);
        if self.sending || self.closed || gathering || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        let bytes = self.unsent().ok().filter(|bytes| !bytes.is_empty())?;
        self.sending = true;
        self.gather_until = (bytes.len() < CHUNK_BYTES_MAX as usize).then(|| now + GATHER);
        Some(Chunk { offset: self.offset, bytes })
    }

    /// How sending a chunk went. The daemon's word on how far it has the log counts, forwards and backwards.
    pub(crate) fn sent(&mut self, now: Instant, chunk_offset: u64, result: Result<LogReply, LinkError>) {
        self.sending = false;
        match result {
            Ok(LogReply { full: true, .. }) | Err(LinkError::Refused { .. }) => self.closed = true,
            Ok(LogReply { next_offset, full: false }) => {
                self.offset = next_offset;
                if next_offset > chunk_offset {
                    self.backoff.reset();
                } else {
                    // It has lost some: not asked again at once, lest both go round in circles.
                    self.not_before = Some(now + self.backoff.next());
                }
            }
            Err(LinkError::Unreachable(_) | LinkError::Failed { .. }) => {
                self.not_before = Some(now + self.backoff.next());
            }
        }
    }

    /// Whether the daemon has all of it, or never will.
    pub(crate) fn is_delivered(&self) -> bool {
        self.closed || (!self.sending && self.offset >= self.written().min(self.bytes_max))
    }

    /// Cuts off what was written beyond the bound, so that an experiment that prints in a loop does not fill the disk.
    /// Its processes append, so they go on from there, and what they write in between two looks is all that is ever too
    /// much. Neither a pipe nor a limit of the system would do: one loses output with the agent, the other kills.
    pub(crate) fn cut(&self) {
        if self.written() > self.bytes_max
            && let Err(error) =
                File::options().write(true).open(&self.path).and_then(|file| file.set_len(self.bytes_max))
        {
            tracing::debug!(path = %self.path.display(), %error, "a log cannot be cut");
        }
    }

    /// When to try again after a failure.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.not_before
    }

    fn written(&self) -> u64 {
        self.path.metadata().map_or(0, |metadata| metadata.len())
    }

    fn unsent(&self) -> io::Result<Vec<u8>> {
        let file = File::open(&self.path)?;
        let written = file.metadata()?.len().min(self.bytes_max);
        let left = written.saturating_sub(self.offset).min(CHUNK_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(left).expect("a chunk is small")];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}
