//! Logs of attempts, as files in the data folder: appended in order by offset, so that no byte is lost or doubled
//! however often an agent has to repeat itself.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
};

use bursar_model::AttemptId;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// The most that is kept of one attempt's log. What comes after is counted as taken and dropped, with a line that says
/// so: an experiment that prints in a loop must not fill the disk that the store is on.
const LOG_MAX: u64 = 256 * 1024 * 1024;

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
    /// and of a chunk that begins beyond it nothing is taken.
    ///
    /// # Errors
    /// When the disk does not take it; the agent offers it again.
    pub async fn append(&self, attempt: AttemptId, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(attempt)).await?;
        let have = file.metadata().await?.len();
        if have > LOG_MAX {
            return Ok(offset + bytes.len() as u64);
        }
        let Some(skip) = have.checked_sub(offset) else { return Ok(have) };
        let Some(news) = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..)) else {
            return Ok(have);
        };
        if have + news.len() as u64 > LOG_MAX {
            file.write_all(LOG_FULL).await?;
            // Past the limit for good, whatever the note's length.
            file.set_len(LOG_MAX + 1).await?;
        } else {
            file.write_all(news).await?;
        }
        file.flush().await?;
        Ok(have + news.len() as u64)
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
        assert_eq!(logs.append(attempt, 0, b"hello ").await.unwrap(), 6);
        assert_eq!(logs.append(attempt, 3, b"lo wor").await.unwrap(), 9);
        assert_eq!(logs.append(attempt, 20, b"later").await.unwrap(), 9, "a gap is not taken");
        assert_eq!(logs.append(attempt, 0, b"hello").await.unwrap(), 9, "old bytes are skipped");
        assert_eq!(logs.append(attempt, 9, b"ld").await.unwrap(), 11);
        assert_eq!(logs.read(attempt, 0, 100).await.unwrap(), b"hello world");
        assert_eq!(logs.read(attempt, 6, 3).await.unwrap(), b"wor");
    }
}
