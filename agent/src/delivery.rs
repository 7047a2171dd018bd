//! Delivering a file of an attempt, its log or its metrics: how far the daemon has it, what to send next, and how much of it
//! may lie on the disk.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use bursar_model::agent_api::StreamReply;
use tokio::time::Instant;

use crate::{
    link::{Backoff, LinkError},
    mask::Mask,
};

/// One request's worth: large enough to catch up quickly, small enough for the daemon to take at once.
const CHUNK_BYTES_MAX: u64 = 256 << 10;

/// A file that is appended to, and its delivery.
#[derive(Debug)]
pub(crate) struct Delivery {
    path: PathBuf,
    /// What leaves the instance as `*`.
    mask: Mask,
    /// No more than so much is kept and delivered.
    bytes_max: u64,
    /// How long small chunks are gathered, so that a line does not cost a request each.
    gather: Duration,
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

/// The next part of a file.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Delivery {
    pub(crate) fn new(path: PathBuf, bytes_max: u64, gather: Duration, mask: Mask) -> Self {
        Self {
            path,
            mask,
            bytes_max,
            gather,
            offset: 0,
            sending: false,
            closed: false,
            not_before: None,
            gather_until: None,
            backoff: Backoff::default(),
        }
    }

    /// What to send now, if anything; `sent` must follow. Nothing is gathered once the file is `complete`.
    pub(crate) fn next_chunk(&mut self, now: Instant, complete: bool) -> Option<Chunk> {
        let gathering = !complete && self.gather_until.is_some_and(|at| now < at);
        if self.sending || self.closed || gathering || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        let bytes = self.unsent(complete).ok().filter(|bytes| !bytes.is_empty())?;
        self.sending = true;
        self.gather_until = (bytes.len() < CHUNK_BYTES_MAX as usize).then(|| now + self.gather);
        Some(Chunk { offset: self.offset, bytes })
    }

    /// How sending a chunk went. The daemon's word on how far it has the file counts, forwards and backwards.
    pub(crate) fn sent(&mut self, now: Instant, chunk_offset: u64, result: Result<StreamReply, LinkError>) {
        self.sending = false;
        match result {
            Ok(StreamReply { full: true, .. }) | Err(LinkError::Refused { .. }) => self.closed = true,
            Ok(StreamReply { next_offset, full: false }) => {
                self.offset = next_offset;
                if next_offset > chunk_offset {
                    self.backoff.reset();
                } else {
                    // It has lost some: not asked again at once, lest both go round in circles.
                    self.not_before = Some(now + self.backoff.next());
                }
            }
            Err(LinkError::Unreachable(_) | LinkError::NoRoute(_) | LinkError::Failed { .. }) => {
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
            tracing::debug!(path = %self.path.display(), %error, "a file cannot be cut");
        }
    }

    /// When to try again after a failure.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.not_before
    }

    fn written(&self) -> u64 {
        self.path.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The next bytes to send, with what is not to be seen hidden, whichever chunks it lies in.
    fn unsent(&self, complete: bool) -> io::Result<Vec<u8>> {
        let file = File::open(&self.path)?;
        let written = file.metadata()?.len().min(self.bytes_max);
        let reach = self.mask.reach() as u64;
        let end = written.min(self.offset + CHUNK_BYTES_MAX);
        let (from, to) = (self.offset.saturating_sub(reach), written.min(end + reach));
        let length = |bytes: u64| usize::try_from(bytes).expect("a chunk is small");
        let mut bytes = vec![0; length(to.saturating_sub(from))];
        file.read_exact_at(&mut bytes, from)?;
        // What is written no further may be half of a secret: it is sent once it is known to be none, or hidden.
        let open = if to == written { self.mask.open_end(&bytes) } else { 0 };
        let whole = bytes.len() - open;
        self.mask.cover(&mut bytes);
        if complete {
            bytes[whole..].fill(b'*');
        }
        let until = if complete { end } else { end.min(from + whole as u64) };
        bytes.truncate(length(until.saturating_sub(from)));
        bytes.drain(..length(self.offset - from).min(bytes.len()));
        Ok(bytes)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write real files")]
mod tests {
    use super::*;

    const GATHER: Duration = Duration::from_millis(150);

    /// What is sent of a log that grows by these pieces, with a look after each, and one when it is over.
    fn sent(secret: &str, pieces: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Delivery::new(path.clone(), 1 << 30, GATHER, Mask::new([secret].into_iter()));
        let (mut written, mut now, mut sent) = (String::new(), Instant::now(), Vec::new());
        for complete in std::iter::repeat_n(false, pieces.len()).chain([true]) {
            if let Some(piece) = pieces.get(sent.len()) {
                written.push_str(piece);
                std::fs::write(&path, &written).unwrap();
            }
            now += GATHER;
            let mut news = String::new();
            while let Some(chunk) = log.next_chunk(now, complete) {
                news.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
                let next_offset = chunk.offset + chunk.bytes.len() as u64;
                log.sent(now, chunk.offset, Ok(StreamReply { next_offset, full: false }));
                now += GATHER;
            }
            sent.push(news);
        }
        assert!(log.is_delivered());
        assert_eq!(sent.concat().len(), written.len());
        sent
    }

    #[tokio::test]
    async fn a_secret_is_hidden_though_it_is_written_in_two_halves() {
        let halves = sent("s3cr3t-t0ken", &["a s3cr3t", "-t0ken b", " c"]);
        assert_eq!(halves, ["a ", "************ b", " c", ""]);
    }

    #[tokio::test]
    async fn what_only_began_like_a_secret_is_sent_once_it_is_none() {
        assert_eq!(sent("s3cr3t-t0ken", &["a s3cr3t", "ary"]), ["a ", "s3cr3tary", ""]);
        // Cut off in the middle, nobody knows: it stays hidden.
        assert_eq!(sent("s3cr3t-t0ken", &["a s3cr3t"]), ["a ", "******"]);
    }

    #[tokio::test]
    async fn a_secret_is_hidden_where_two_chunks_meet() {
        let filler = "x".repeat(CHUNK_BYTES_MAX as usize - 5);
        let all = sent("s3cr3t-t0ken", &[&format!("{filler}s3cr3t-t0ken tail")]).concat();
        assert!(all.ends_with("x************ tail"), "{}", &all[all.len() - 30..]);
    }
}
