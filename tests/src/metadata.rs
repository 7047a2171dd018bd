//! A metadata service as EC2 and Compute Engine have it, as far as notices go. Clients that others wrote are asked what
//! they make of it (`tests/peers/metadata`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use tokio::{net::TcpListener, sync::watch, time::timeout};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const FLAVOR: &str = "metadata-flavor";

/// What the cloud says. Documents that are not there do not exist.
#[derive(Debug)]
struct Said {
    /// EC2's, below `meta-data/`.
    aws: BTreeMap<String, String>,
    /// Compute Engine's, below `computeMetadata/v1/`.
    gcp: BTreeMap<String, String>,
    /// Tokens that are good.
    tokens: BTreeSet<String>,
    /// Tokens so far.
    given: u32,
    /// Nobody gets an answer.
    hangs: bool,
    /// Requests so far.
    asked: u32,
}

#[derive(Debug, Clone)]
struct Shared {
    said: Arc<Mutex<Said>>,
    /// Counts what was said: for those who wait for a change.
    changes: Arc<watch::Sender<u64>>,
}

/// The service; it ends with this.
#[derive(Debug)]
pub struct MetadataServer {
    address: SocketAddr,
    shared: Shared,
    _runtime: tokio::runtime::Runtime,
}

impl MetadataServer {
    /// A service that has nothing to say.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let text = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
        };
        let said = Said {
            aws: text(&[("instance-id", "i-1234567890abcdef0")]),
            gcp: text(&[
                ("instance/preempted", "FALSE"),
                ("instance/maintenance-event", "NONE"),
                ("project/project-id", "bursar-test"),
            ]),
            tokens: BTreeSet::new(),
            given: 0,
            hangs: false,
            asked: 0,
        };
        let shared = Shared { said: Arc::new(Mutex::new(said)), changes: Arc::new(watch::channel(0).0) };
        let router = Router::new()
            .route("/", get(root))
            .route("/latest/api/token", put(token))
            .route("/latest/meta-data/{*path}", get(aws))
            .route("/computeMetadata/v1/{*path}", get(gcp))
            .with_state(shared.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, shared, _runtime: runtime }
    }

    /// Where it answers, as `127.0.0.1:1234`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// EC2 says this from now on, below `meta-data/`.
    pub fn aws(&self, path: &str, text: &str) {
        self.change(|said| drop(said.aws.insert(path.to_owned(), text.to_owned())));
    }

    /// Compute Engine says this from now on, below `computeMetadata/v1/`.
    pub fn gcp(&self, path: &str, text: &str) {
        self.change(|said| drop(said.gcp.insert(path.to_owned(), text.to_owned())));
    }

    /// No token that was given is good any longer.
    pub fn forget_tokens(&self) {
        self.change(|said| said.tokens.clear());
    }

    /// From now on it takes requests and answers none.
    pub fn hang(&self) {
        self.change(|said| said.hangs = true);
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> u32 {
        self.shared.said().asked
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.shared.said());
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    /// Counts a request, and never returns where the service hangs.
    async fn take(&self) {
        let hangs = {
            let mut said = self.said();
            said.asked += 1;
            said.hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

/// A token is given for between a second and six hours, to nobody behind a proxy.
async fn token(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    shared.take().await;
    let ttl = headers.get(TOKEN_TTL).and_then(|ttl| ttl.to_str().ok()?.parse::<u32>().ok());
    if headers.contains_key("x-forwarded-for") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(ttl) = ttl.filter(|ttl| (1..=21600).contains(ttl)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut said = shared.said();
    said.given += 1;
    let token = format!("token-{}==", said.given);
    said.tokens.insert(token.clone());
    ([(HeaderName::from_static(TOKEN_TTL), HeaderValue::from(ttl))], token).into_response()
}

async fn aws(State(shared): State<Shared>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    shared.take().await;
    let said = shared.said();
    let known = headers.get(TOKEN).and_then(|token| token.to_str().ok());
    if !known.is_some_and(|token| said.tokens.contains(token)) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    said.aws
        .get(&path)
        .cloned()
        .map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

/// What clients ask to find out whether they are on Compute Engine.
async fn root() -> Response {
    ([(FLAVOR, "Google")], "computeMetadata/\n").into_response()
}

async fn gcp(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    shared.take().await;
    if headers.get(FLAVOR).is_none_or(|flavor| flavor != "Google") || headers.contains_key("x-forwarded-for")
    {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut changes = shared.changes.subscribe();
    let look = || shared.said().gcp.get(&path).cloned();
    // As good as any: it differs where the text does.
    let etag = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let waits = query.get("wait_for_change").is_some_and(|wait| wait == "true");
    if waits {
        let last = query.get("last_etag").cloned();
        let before = look().map(|text| etag(&text));
        let changed = async {
            while look().map(|text| etag(&text)) == last.clone().or_else(|| before.clone()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // Without a time the service waits for as long as the client does.
        let seconds = query.get("timeout_sec").and_then(|seconds| seconds.parse().ok()).unwrap_or(3600);
        let _ = timeout(Duration::from_secs(seconds), changed).await;
    }
    let Some(text) = look() else { return StatusCode::NOT_FOUND.into_response() };
    (
        [
            (FLAVOR, "Google".to_owned()),
            ("etag", etag(&text)),
            ("content-type", "application/text".to_owned()),
        ],
        text,
    )
        .into_response()
}
