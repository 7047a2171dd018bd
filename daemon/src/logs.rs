//! Logs of attempts, as files in the data folder: appended in order by offset, so that no byte is lost or doubled
//! however often an agent has to repeat itself.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
};

use bursar_model::{
    AttemptId,
    agent_api::{LOG_BYTES_MAX, LogReply},
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// Stands at the end of a log of which no more is kept: an experiment that prints in a loop must not fill the disk that
/// the store is on. A log that is longer than the most that is kept has it.
const LOG_FULL: &[u8] = b"\n[bursar] the log has reached 256 MiB; what follows is not kept\n";

/// The folder of all logs.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
}

impl Logs {
    /// Logs in this folder, which is made if need be.
    ///
    /// # Errors
    /// When the folder cannot be made.
    #[expect(clippy::disallowed_methods, reason = "this is where logs meet the disk")]
    pub fn new(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where the log of an attempt is.
    #[must_use]
    pub fn path(&self, attempt: AttemptId) -> PathBuf {
        self.folder.join(format!("{attempt}.log"))
    }

    /// Adds bytes that begin at `offset`. Answers with the offset that is wanted next: what is there already is skipped,
    /// and of a chunk that begins beyond it nothing is taken. What a full log would get is counted as taken.
    ///
    /// # Errors
    /// When the disk does not take it; the agent offers it again.
    pub async fn append(&self, attempt: AttemptId, offset: u64, bytes: &[u8]) -> io::Result<LogReply> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(attempt)).await?;
        let have = file.metadata().await?.len();
        if have > LOG_BYTES_MAX {
            return Ok(LogReply { next_offset: offset + bytes.len() as u64, full: true });
        }
        let skip = have.checked_sub(offset).and_then(|skip| usize::try_from(skip).ok());
        let Some(news) = skip.and_then(|skip| bytes.get(skip..)) else {
            return Ok(LogReply { next_offset: have, full: false });
        };
        let room = usize::try_from(LOG_BYTES_MAX - have).unwrap_or(usize::MAX);
        let (kept, dropped) = news.split_at(news.len().min(room));
        file.write_all(kept).await?;
        if !dropped.is_empty() {
            file.write_all(LOG_FULL).await?;
        }
        file.flush().await?;
        Ok(LogReply { next_offset: have + news.len() as u64, full: !dropped.is_empty() })
    }

    /// Up to `max` bytes from `offset` on. Empty at the end, and where there is no log yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read(&self, attempt: AttemptId, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = match File::open(self.path(attempt)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset)).await?;
        let mut bytes = Vec::new();
        file.take(max as u64).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    /// How many bytes there are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn len(&self, attempt: AttemptId) -> io::Result<u64> {
        match tokio::fs::metadata(self.path(attempt)).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::{IdGen, Timestamp};

    use super::*;

    #[tokio::test]
    async fn repeated_and_gapped_chunks_leave_each_byte_once() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path()).unwrap();
        let attempt = IdGen::new(1).attempt(Timestamp::default());
        let append =
            async |offset, bytes: &[u8]| logs.append(attempt, offset, bytes).await.unwrap().next_offset;
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
        let almost = logs.append(attempt, LOG_BYTES_MAX - 3, b"end").await.unwrap();
        assert_eq!(almost, LogReply { next_offset: LOG_BYTES_MAX, full: false });
        let over = logs.append(attempt, LOG_BYTES_MAX, b"over").await.unwrap();
        assert_eq!(over, LogReply { next_offset: LOG_BYTES_MAX + 4, full: true });
        let after = logs.append(attempt, LOG_BYTES_MAX + 4, b"and over").await.unwrap();
        assert_eq!(after, LogReply { next_offset: LOG_BYTES_MAX + 12, full: true });
        let tail = logs.read(attempt, LOG_BYTES_MAX - 3, 1000).await.unwrap();
        assert_eq!(tail, [b"end", LOG_FULL].concat());
    }
}
