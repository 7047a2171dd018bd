//! Bringing to the instance what a working folder starts with: an archive from the daemon, or a commit of a repository.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bursar_model::{Digest, Workdir, workdir::PACKED_BYTES_MAX};
use flate2::bufread::GzDecoder;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs,
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};

use crate::{
    cache::{Cache, Held, Turn, aside},
    folder::Folder,
    git::Commit,
    helpers::Helpers,
    link::{Backoff, Link, LinkError},
    unpack::unpack,
};

/// How long the daemon may be away while an archive is fetched: a restart takes seconds, an upgrade by hand not much
/// longer. The attempt ends then and is tried again by its experiment's rules.
const AWAY_MAX: Duration = Duration::from_secs(600);

/// How long the next piece may take before the connection is given up for a new one.
const PIECE_PATIENCE: Duration = Duration::from_secs(20);

/// What working folders are brought here with.
#[derive(Debug, Clone)]
pub(crate) struct Carrier {
    pub(crate) link: Link,
    pub(crate) cache: Cache,
    pub(crate) helpers: Helpers,
}

/// For whom something is brought here.
#[derive(Debug)]
pub(crate) struct WantedBy {
    /// The node, as its processes are marked.
    pub(crate) node: String,
    /// Hold the token of a repository, where its name is one of theirs.
    pub(crate) envs: BTreeMap<String, String>,
}

/// A folder that is there to be filled, for as long as somebody has this.
pub(crate) trait Place: Send + Sync + 'static {
    fn path(&self) -> PathBuf;
}

/// The working folder of an attempt.
impl Place for Folder {
    fn path(&self) -> PathBuf {
        self.work()
    }
}

/// A folder of the cache, where `setup` is to run.
impl Place for Turn {
    fn path(&self) -> PathBuf {
        Self::path(self)
    }
}

impl Carrier {
    /// Brings what a working folder starts with to an empty one. Should nobody wait for it any more, that one is held for
    /// as long as anything is still written to it.
    pub(crate) async fn bring(
        &self,
        workdir: Workdir,
        wanted_by: &WantedBy,
        into: &Arc<impl Place>,
    ) -> Result<(), String> {
        match workdir {
            Workdir::Archive { digest, bytes } => {
                let archive = self.archive(digest, bytes).await?;
                let into = Arc::clone(into);
                aside(move || {
                    let file = File::open(archive.path()).map_err(|error| error.to_string())?;
                    unpack(GzDecoder::new(BufReader::new(file)), &into.path())
                })
                .await
            }
            Workdir::Git { url, commit, path, token } => {
                let token = token.and_then(|name| wanted_by.envs.get(&name).cloned());
                let node = wanted_by.node.clone();
                Commit { url, commit, path, token, node }.bring(into, &self.cache, &self.helpers).await
            }
        }
    }

    /// The archive, fetched unless it is here.
    async fn archive(&self, digest: Digest, bytes: u64) -> Result<Held, String> {
        let turn = self.cache.turn(format!("archive-{digest}")).await;
        if let Some(held) = turn.held() {
            return Ok(held);
        }
        let began = Instant::now();
        self.fetch(digest, bytes, &turn.path()).await.map_err(|why| format!("the workdir: {why}"))?;
        tracing::info!(%digest, bytes, took = ?began.elapsed(), "an archive was fetched");
        aside(move || Ok(turn.keep())).await
    }

    async fn fetch(&self, digest: Digest, bytes: u64, path: &Path) -> Result<(), String> {
        let mut download = Download {
            file: fs::File::create(path).await.map_err(|error| error.to_string())?,
            hash: Sha256::new(),
            have: 0,
            bytes: bytes.min(PACKED_BYTES_MAX),
        };
        let mut backoff = Backoff::default();
        let mut progress = (download.have, Instant::now());
        // Ends when all is there, or nothing came for too long.
        while download.have < download.bytes {
            match self.link.blob(digest, download.have).await {
                Ok(response) => download.take(response).await?,
                Err(error @ LinkError::Refused { .. }) => return Err(error.to_string()),
                Err(
                    error @ (LinkError::Unreachable(_) | LinkError::NoRoute(_) | LinkError::Failed { .. }),
                ) => {
                    if progress.1.elapsed() > AWAY_MAX {
                        return Err(error.to_string());
                    }
                }
            }
            if download.have > progress.0 {
                progress = (download.have, Instant::now());
                backoff.reset();
            } else if progress.1.elapsed() > AWAY_MAX {
                return Err("no more of it comes".to_owned());
            }
            if download.have < download.bytes {
                sleep(backoff.next()).await;
            }
        }
        download.file.flush().await.map_err(|error| error.to_string())?;
        let found = Digest::from_bytes(download.hash.finalize().into());
        match found == digest {
            true => Ok(()),
            false => Err(format!("what came has the SHA-256 {found} and not {digest}")),
        }
    }
}

/// An archive on its way.
struct Download {
    file: fs::File,
    hash: Sha256,
    have: u64,
    bytes: u64,
}

impl Download {
    /// Takes what comes. That it breaks off is no failure: the rest is asked for again.
    async fn take(&mut self, mut response: reqwest::Response) -> Result<(), String> {
        // Ends with the answer: a piece that does not come in time ends it too.
        while let Ok(Ok(Some(piece))) = timeout(PIECE_PATIENCE, response.chunk()).await {
            self.have += piece.len() as u64;
            if self.have > self.bytes {
                return Err(format!("it is longer than {} bytes", self.bytes));
            }
            self.hash.update(&piece);
            self.file.write_all(&piece).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
