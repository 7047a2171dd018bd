//! The way to the daemon: three kinds of request, each answered, refused or lost.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bursar_model::{
    AttemptId, Digest,
    agent_api::{RegisterRequest, Stream, StreamReply, SyncReply, SyncRequest},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use tokio::{
    net::{UdpSocket, lookup_host},
    time::timeout,
};

use crate::AgentError;

/// How long a connection may take to come about: on one network it takes milliseconds, over the world under a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take over the time for which the daemon may hold it back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is taken: orders with their scripts and environments.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No answer.
    #[error("the daemon cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// No way to it.
    #[error("there is no way to the daemon")]
    NoRoute(#[source] io::Error),
    /// It may work later.
    #[error("the daemon answered {status}")]
    Failed { status: StatusCode },
    /// It never will.
    #[error("the daemon refused with {status}")]
    Refused { status: StatusCode },
}

/// The daemon, as this agent reaches it. Cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    client: Client,
    url: String,
    token: String,
}

impl Link {
    /// A way to the daemon at `url`, with a new token to prove ourselves with.
    pub(crate) fn new(url: &str) -> Result<Self, AgentError> {
        let client = Client::builder()
            // The daemon is named by the instance's own settings: a proxy meant for people would only be in the way.
            .no_proxy()
            // It speaks plain HTTP, so no roots to verify certificates by are read: that takes longer than all else here.
            .tls_certs_only([])
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(AgentError::Http)?;
        Ok(Self { client, url: format!("{}/v1/agent", url.trim_end_matches('/')), token: new_token()? })
    }

    /// The token that this agent made for itself.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The address of this machine by which it reaches the daemon.
    pub(crate) async fn own_address(&self) -> Result<IpAddr, LinkError> {
        let looked = tokio::time::timeout(CONNECT_TIMEOUT, self.look_up_own_address()).await;
        looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(LinkError::NoRoute)
    }

    /// A datagram socket knows its own end as soon as it knows the other, without a word being sent.
    async fn look_up_own_address(&self) -> io::Result<IpAddr> {
        let url = Url::parse(&self.url).map_err(|_| io::ErrorKind::InvalidInput)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let daemon = lookup_host((host, url.port_or_known_default().unwrap_or(80))).await?.next();
        let daemon = daemon.ok_or(io::ErrorKind::NotFound)?;
        let any: IpAddr =
            if daemon.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(daemon).await?;
        Ok(socket.local_addr()?.ip())
    }

    /// Makes itself known with the one-time secret.
    pub(crate) async fn register(&self, request: &RegisterRequest) -> Result<SyncReply, LinkError> {
        let post = self.client.post(format!("{}/register", self.url)).json(request);
        answer(post.timeout(ANSWER_TIMEOUT)).await
    }

    /// Reports, and asks what to do.
    pub(crate) async fn sync(&self, request: &SyncRequest) -> Result<SyncReply, LinkError> {
        let post = self.client.post(format!("{}/sync", self.url)).bearer_auth(&self.token).json(request);
        answer(post.timeout(Duration::from_millis(request.wait_ms) + ANSWER_TIMEOUT)).await
    }

    /// Fetches a packed working folder from an offset on.
    pub(crate) async fn blob(&self, digest: Digest, offset: u64) -> Result<Response, LinkError> {
        let get = self.client.get(format!("{}/blobs/{digest}", self.url)).bearer_auth(&self.token);
        let range = format!("bytes={offset}-");
        // Only for the head of the answer: how long the body takes depends on its size.
        let sent = timeout(ANSWER_TIMEOUT, get.header(header::RANGE, range).send()).await;
        let response = sent.map_err(|_| LinkError::Failed { status: StatusCode::REQUEST_TIMEOUT })?;
        checked(response.map_err(LinkError::Unreachable)?)
    }

    /// Delivers a part of an attempt's log or metrics.
    pub(crate) async fn ship(
        &self,
        stream: Stream,
        attempt: AttemptId,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<StreamReply, LinkError> {
        let post = self
            .client
            .post(format!("{}/{}/{attempt}", self.url, stream.segment()))
            .query(&[("offset", offset)]);
        answer(post.bearer_auth(&self.token).body(bytes).timeout(ANSWER_TIMEOUT)).await
    }
}

/// How long to wait between tries that fail: from a tenth of a second, doubled up to three. Each agent of a fleet
/// began at its own moment, so that they do not come back in step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(100 << self.failures.min(5)).min(Duration::from_secs(3));
        self.failures += 1;
        wait
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, LinkError> {
    let mut response = checked(request.send().await.map_err(LinkError::Unreachable)?)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(LinkError::Unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(LinkError::Failed { status });
        }
    }
    serde_json::from_slice(&body).map_err(|error| {
        tracing::warn!(%error, "the daemon's answer cannot be read");
        LinkError::Failed { status }
    })
}

fn checked(response: Response) -> Result<Response, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    // Of the client errors, these two speak of the moment and not of the request.
    let for_now = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    Err(match status.is_client_error() && !for_now {
        true => LinkError::Refused { status },
        false => LinkError::Failed { status },
    })
}

/// 256 random bits in hex.
fn new_token() -> Result<String, AgentError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| AgentError::System {
        what: "random numbers",
        source: std::io::Error::other(error),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_that_fail_come_ever_more_rarely_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3000, 3000, 3000]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 100);
    }

    #[tokio::test]
    async fn the_own_address_is_the_one_by_which_the_daemon_is_reached() {
        let link = Link::new("http://127.0.0.1:9").unwrap();
        assert_eq!(link.own_address().await.unwrap(), IpAddr::from([127, 0, 0, 1]));
        let nowhere = Link::new("http://no-such-host.invalid:9").unwrap();
        assert!(matches!(nowhere.own_address().await, Err(LinkError::NoRoute(_))));
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }
}
