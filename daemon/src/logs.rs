//! What agents deliver of attempts, as files in the data folder: logs and metrics over time, appended in order by offset, so
//! that no byte is lost or doubled however often an agent has to repeat itself.
//!
//! Three files a node of an attempt: `ID.log` as it was written, `ID.times` with when each part of it came, and `ID.metrics`, a
//! [`bursar_model::Point`] a line. None of it is in the store: an experiment that prints in a loop must not slow the loop down.

mod lines;
pub mod retention;
mod times;
mod which;

use std::{
    fmt,
    io::{self, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Bytes;
use bursar_model::{
    AttemptId, POINTS_BYTES_MAX, Timestamp, TypedId,
    agent_api::{LOG_BYTES_MAX, StreamReply},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::Semaphore,
};

pub use self::which::{NoSuchLog, Which};

/// Stands at the end of a log of which no more is kept: an experiment that prints in a loop must not fill the disk that
/// the store is on. A log that is longer than the most that is kept has it.
const LOG_FULL: &[u8] = b"\n[bursar] the log has reached 256 MiB; what follows is not kept\n";

/// How many chunks are written at once. A disk that hangs must not take all threads that read and answer.
const WRITERS: usize = 16;

/// Locks that keep two chunks of one file apart. Two attempts may share one, which costs a moment.
const LOCKS: usize = 64;

/// The folder of all logs and metrics.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
    writers: Arc<Semaphore>,
    locks: Arc<[Mutex<()>; LOCKS]>,
}

/// Whose files they are: those of a node of an attempt. Most attempts have but the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOf {
    /// The attempt.
    pub attempt: AttemptId,
    /// The node's rank.
    pub node: u32,
}

impl std::convert::From<AttemptId> for LogOf {
    fn from(attempt: AttemptId) -> Self {
        Self { attempt, node: 0 }
    }
}

/// What the names of its files begin with.
impl fmt::Display for LogOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { attempt, node: 0 } => write!(f, "{attempt}"),
            Self { attempt, node } => write!(f, "{attempt}.{node}"),
        }
    }
}

/// From where on a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct From {
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what came then or later, give or take ten seconds.
    pub since: Option<Timestamp>,
}

impl Logs {
    /// Logs in this folder, which is made if need be.
    ///
    /// # Errors
    /// When the folder cannot be made.
    #[expect(clippy::disallowed_methods, reason = "this is where logs meet the disk")]
    pub fn new(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let locks = Arc::new(std::array::from_fn(|_| Mutex::new(())));
        Ok(Self { folder: folder.to_owned(), writers: Arc::new(Semaphore::new(WRITERS)), locks })
    }

    /// Where a log is.
    #[must_use]
    pub fn path(&self, of: impl Into<LogOf>) -> PathBuf {
        self.folder.join(format!("{}.log", of.into()))
    }

    /// Where metrics are.
    #[must_use]
    pub fn points_path(&self, of: impl Into<LogOf>) -> PathBuf {
        self.folder.join(format!("{}.metrics", of.into()))
    }

    fn times_path(&self, of: LogOf) -> PathBuf {
        self.folder.join(format!("{of}.times"))
    }

    /// Adds bytes to a log that begin at `offset` and came now. Answers with the offset that is wanted next: what is there
    /// already is skipped, and of a chunk that begins beyond it nothing is taken. What a full log would get is counted as
    /// taken. Goes on to its end whatever becomes of whoever waits: an agent that lost patience sends the same again, and
    /// then it is seen whole.
    ///
    /// # Errors
    /// When the disk does not take it; the agent offers it again.
    pub async fn append(
        &self,
        of: impl Into<LogOf>,
        offset: u64,
        bytes: Bytes,
        now: Timestamp,
    ) -> io::Result<StreamReply> {
        let of = of.into();
        let file = Appended {
            path: self.path(of),
            most: LOG_BYTES_MAX,
            full: LOG_FULL,
            times: Some((self.times_path(of), now)),
        };
        self.add(of.attempt, file, offset, bytes).await
    }

    /// The same for metrics.
    ///
    /// # Errors
    /// When the disk does not take it; the agent offers it again.
    pub async fn append_points(
        &self,
        of: impl Into<LogOf>,
        offset: u64,
        bytes: Bytes,
    ) -> io::Result<StreamReply> {
        let of = of.into();
        let path = self.points_path(of);
        let file = Appended { path, most: POINTS_BYTES_MAX, full: b"", times: None };
        self.add(of.attempt, file, offset, bytes).await
    }

    async fn add(
        &self,
        attempt: AttemptId,
        file: Appended,
        offset: u64,
        bytes: Bytes,
    ) -> io::Result<StreamReply> {
        // Who waits here keeps one chunk each in memory and nobody else waiting.
        let turn = self.writers.clone().acquire_owned().await.map_err(io::Error::other)?;
        let locks = self.locks.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let index = usize::try_from(attempt.as_u64() % LOCKS as u64).expect("a small number");
            // Nothing in memory is half-done where somebody panicked: the file is what counts.
            let _alone = locks[index].lock().unwrap_or_else(PoisonError::into_inner);
            file.add(offset, &bytes)
        });
        written.await.map_err(io::Error::other)?
    }

    /// Up to `max` bytes of a log from `offset` on. Empty at the end, and where there is no log yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read(&self, of: impl Into<LogOf>, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = match File::open(self.path(of)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset)).await?;
        let mut bytes = Vec::new();
        file.take(max as u64).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    /// Where to begin to read a log, at the beginning of a line.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn start(&self, of: impl Into<LogOf>, from: From) -> io::Result<u64> {
        let of = of.into();
        let From { tail, since } = from;
        let mut file = match File::open(self.path(of)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let len = file.metadata().await?.len();
        let mut start = 0;
        if let Some(since) = since {
            let came = times::place(&times::read(&self.times_path(of)).await?, since).unwrap_or(len);
            start = if came < len { lines::back(&mut file, came, 0).await? } else { len };
        }
        if let Some(tail) = tail {
            start = start.max(lines::last(&mut file, len, tail).await?);
        }
        Ok(start)
    }
}

/// A file that is appended to.
struct Appended {
    path: PathBuf,
    most: u64,
    /// Stands at its end when that is reached.
    full: &'static [u8],
    /// Where is written when what came.
    times: Option<(PathBuf, Timestamp)>,
}

impl Appended {
    fn add(&self, offset: u64, bytes: &[u8]) -> io::Result<StreamReply> {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.path)?;
        let have = file.metadata()?.len();
        if have > self.most {
            return Ok(StreamReply { next_offset: offset + bytes.len() as u64, full: true });
        }
        let skip = have.checked_sub(offset).and_then(|skip| usize::try_from(skip).ok());
        let Some(news) = skip.and_then(|skip| bytes.get(skip..)).filter(|news| !news.is_empty()) else {
            return Ok(StreamReply { next_offset: have, full: false });
        };
        let room = usize::try_from(self.most - have).unwrap_or(usize::MAX);
        let (kept, dropped) = news.split_at(news.len().min(room));
        // First: a mark without what it speaks of is true of what comes later.
        if let Some((times, now)) = &self.times {
            times::note(times, *now, have)?;
        }
        file.write_all(kept)?;
        if !dropped.is_empty() {
            file.write_all(self.full)?;
        }
        Ok(StreamReply { next_offset: have + news.len() as u64, full: !dropped.is_empty() })
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::{IdGen, Timestamp};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[tokio::test]
    async fn repeated_and_gapped_chunks_leave_each_byte_once() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path()).unwrap();
        let attempt = IdGen::new(1).attempt(Timestamp::default());
        let append = async |offset, bytes: &'static [u8]| {
            logs.append(attempt, offset, bytes.into(), at(0)).await.unwrap().next_offset
        };
        assert_eq!(append(0, b"hello ").await, 6);
        assert_eq!(append(3, b"lo wor").await, 9);
        assert_eq!(append(20, b"later").await, 9, "a gap is not taken");
        assert_eq!(append(0, b"hello").await, 9, "old bytes are skipped");
        assert_eq!(append(9, b"ld").await, 11);
        assert_eq!(logs.read(attempt, 0, 100).await.unwrap(), b"hello world");
        assert_eq!(logs.read(attempt, 6, 3).await.unwrap(), b"wor");
    }

    #[tokio::test]
    async fn a_full_log_ends_with_a_word_on_it_and_takes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path()).unwrap();
        let attempt = IdGen::new(1).attempt(Timestamp::default());
        // Mostly a hole: no test writes so much.
        std::fs::File::create(logs.path(attempt)).unwrap().set_len(LOG_BYTES_MAX - 3).unwrap();
        let almost = logs.append(attempt, LOG_BYTES_MAX - 3, b"end"[..].into(), at(0)).await.unwrap();
        assert_eq!(almost, StreamReply { next_offset: LOG_BYTES_MAX, full: false });
        let over = logs.append(attempt, LOG_BYTES_MAX, b"over"[..].into(), at(0)).await.unwrap();
        assert_eq!(over, StreamReply { next_offset: LOG_BYTES_MAX + 4, full: true });
        let after = logs.append(attempt, LOG_BYTES_MAX + 4, b"and over"[..].into(), at(0)).await.unwrap();
        assert_eq!(after, StreamReply { next_offset: LOG_BYTES_MAX + 12, full: true });
        let tail = logs.read(attempt, LOG_BYTES_MAX - 3, 1000).await.unwrap();
        assert_eq!(tail, [b"end", LOG_FULL].concat());
    }

    #[tokio::test]
    async fn a_log_is_read_from_its_last_lines_or_from_when_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path()).unwrap();
        let attempt = IdGen::new(1).attempt(Timestamp::default());
        let mut written = Vec::new();
        for (seconds, text) in [(0, "one\n"), (60, "two\nthr"), (65, "ee\n"), (600, "four\nfive\n")] {
            let offset = written.len() as u64;
            logs.append(attempt, offset, text.into(), at(seconds)).await.unwrap();
            written.extend_from_slice(text.as_bytes());
        }
        let read = async |tail, since: Option<i64>| {
            let from = From { tail, since: since.map(at) };
            let start = logs.start(attempt, from).await.unwrap();
            String::from_utf8(logs.read(attempt, start, 100).await.unwrap()).unwrap()
        };
        assert_eq!(read(None, None).await, "one\ntwo\nthree\nfour\nfive\n");
        assert_eq!(read(Some(0), None).await, "");
        assert_eq!(read(Some(1), None).await, "five\n");
        assert_eq!(read(Some(3), None).await, "three\nfour\nfive\n");
        assert_eq!(read(Some(9), None).await, "one\ntwo\nthree\nfour\nfive\n");
        assert_eq!(read(None, Some(-5)).await, "one\ntwo\nthree\nfour\nfive\n");
        assert_eq!(read(None, Some(30)).await, "two\nthree\nfour\nfive\n");
        assert_eq!(read(None, Some(120)).await, "four\nfive\n");
        assert_eq!(read(Some(1), Some(120)).await, "five\n");
        assert_eq!(read(Some(9), Some(120)).await, "four\nfive\n");
        assert_eq!(read(None, Some(700)).await, "");
    }
}
