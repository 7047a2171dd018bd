//! When the cloud takes the instance back: where that is said, and listening there.
//!
//! Each source is listened to in a task of its own, which tells the agent's loop with a message. A metadata service that
//! hangs, lies or is not there delays nothing but its own news.

mod aws;
mod file;
mod gcp;

use std::{path::PathBuf, time::Duration};

use bursar_model::Timestamp;
use reqwest::{Client, redirect::Policy};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::AgentError;

/// How long a connection to a metadata service may take to come about: it is on this very machine's host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may take to answer what it answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer: a token, or a JSON object of two fields.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where the cloud says that it takes the instance back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "from")]
pub enum NoticeSource {
    /// A file comes to exist that holds a `Notice`.
    File {
        /// Which.
        path: PathBuf,
    },
    /// The instance metadata service of EC2, version 2.
    Aws {
        /// Where it answers: `http://169.254.169.254`.
        endpoint: String,
    },
    /// The metadata server of Compute Engine.
    Gcp {
        /// Where it answers: `http://metadata.google.internal`.
        endpoint: String,
    },
}

/// The cloud takes the instance back. Also the content of a notice file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it will be gone.
    pub gone_at: Timestamp,
}

/// What a source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The instance will be gone at a time.
    Gone(Notice),
    /// It may be gone soon, for this reason.
    AtRisk(String),
}

/// Why a source could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoticeError {
    /// No answer.
    #[error("no answer")]
    Unreachable(#[from] reqwest::Error),
    /// Not the answer that the cloud's documentation describes.
    #[error("answered {0}")]
    Strange(String),
}

/// Listens until there is a notice, which is the last news, or `tell` says that nobody hears any longer. It goes on for as long as there is
/// an agent: a service that failed for hours may still be the only one that speaks of the end. What is at risk is told once.
pub(crate) async fn listen(source: NoticeSource, tell: impl Fn(News) -> bool) -> Result<(), AgentError> {
    let mut listener = Listener::new(source)?;
    let mut told = None;
    let mut failing = false;
    loop {
        match listener.look().await {
            Ok(news) => {
                failing = false;
                let news = news.filter(|news| told.as_ref() != Some(news));
                let last = matches!(news, Some(News::Gone(_)));
                if news.is_some_and(|news| !tell(told.insert(news).clone())) || last {
                    return Ok(());
                }
            }
            // Once, or it would fill the log of a machine whose metadata service is switched off.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the cloud's notices cannot be asked for; tried again in the background");
            }
            Err(_) => {}
        }
        sleep(listener.pause()).await;
    }
}

/// Who is asked.
enum Listener {
    File(PathBuf),
    Aws(aws::Service),
    Gcp(gcp::Service),
}

impl Listener {
    fn new(source: NoticeSource) -> Result<Self, AgentError> {
        let client = || {
            Client::builder()
                .no_proxy()
                .tls_certs_only([])
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(Policy::none())
                .build()
                .map_err(AgentError::Http)
        };
        Ok(match source {
            NoticeSource::File { path } => Self::File(path),
            NoticeSource::Aws { endpoint } => Self::Aws(aws::Service::new(client()?, &endpoint)),
            NoticeSource::Gcp { endpoint } => Self::Gcp(gcp::Service::new(client()?, &endpoint)),
        })
    }

    async fn look(&mut self) -> Result<Option<News>, NoticeError> {
        match self {
            Self::File(path) => Ok(file::look(path).await),
            Self::Aws(service) => service.look().await,
            Self::Gcp(service) => service.look().await,
        }
    }

    fn pause(&self) -> Duration {
        match self {
            Self::File(_) => file::PAUSE,
            Self::Aws(_) => aws::PAUSE,
            Self::Gcp(_) => gcp::PAUSE,
        }
    }
}

/// The body of an answer, of which no more is read than makes sense.
async fn body(mut response: reqwest::Response) -> Result<String, NoticeError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(NoticeError::Strange("without end".to_owned()));
        }
    }
    String::from_utf8(bytes).map_err(|_| NoticeError::Strange("what is no text".to_owned()))
}
