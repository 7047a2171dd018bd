//! A daemon that is no more than the wire protocol, and a real agent process that talks to it.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener as StdListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use bursar_agent::{AgentSettings, NoticeSource};
use bursar_model::{
    AttemptId, Digest, ExperimentId, IdGen, InstanceId, Span, StopReason, Timestamp, TypedId, Workdir,
    agent_api::{
        Action, AttemptOrder, AttemptReport, RegisterRequest, ReportedState, Stream, StreamReply, SyncReply,
        SyncRequest, Work,
    },
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, runtime::Runtime, sync::Notify, time::timeout};

/// Far more than anything here takes: only a failure waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "one-time";

/// What the daemon wants and what it was told.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) orders: BTreeMap<AttemptId, AttemptOrder>,
    pub(crate) lease_ms: u64,
    pub(crate) power_off: bool,
    pub(crate) version: u64,
    pub(crate) registered: Vec<RegisterRequest>,
    pub(crate) reports: BTreeMap<AttemptId, AttemptReport>,
    pub(crate) notice_remaining_ms: Option<u64>,
    pub(crate) syncs: u32,
    pub(crate) logs: BTreeMap<AttemptId, Vec<u8>>,
    pub(crate) points: BTreeMap<AttemptId, Vec<u8>>,
    /// A log that is longer is full.
    pub(crate) log_bytes_max: usize,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    /// How often an agent asked for a blob, and how much it gets at once.
    pub(crate) fetches: u32,
    pub(crate) fetch_bytes_max: usize,
}

#[derive(Clone)]
struct Shared {
    book: Arc<Mutex<Book>>,
    changed: Arc<Notify>,
}

/// A daemon on loopback that can be stopped and started again without losing its book.
pub(crate) struct Daemon {
    shared: Shared,
    port: u16,
    server: Option<Runtime>,
    pub(crate) instance: InstanceId,
    ids: IdGen,
}

/// An agent process in a folder of its own; killed at the end of the test.
pub(crate) struct Agent {
    pub(crate) process: Child,
    pub(crate) folder: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(lease: Duration) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let lease_ms = lease.as_millis() as u64;
        let book = Book {
            lease_ms,
            version: 1,
            log_bytes_max: usize::MAX,
            fetch_bytes_max: usize::MAX,
            ..Book::default()
        };
        let shared = Shared { book: Arc::new(Mutex::new(book)), changed: Arc::new(Notify::new()) };
        let server = Some(serve(listener, shared.clone()));
        // Containers are the machine's: those of other tests must not have the same ids.
        let unique = u64::from(port) << 32 | u64::from(std::process::id());
        Self { shared, port, server, instance: InstanceId::from_u64(unique), ids: IdGen::new(unique) }
    }

    /// As after `kill -9`: connections break, nobody listens.
    pub(crate) fn stop(&mut self) {
        self.server.take().unwrap().shutdown_background();
    }

    pub(crate) async fn restart(&mut self) {
        // The port may need a moment until it is free again.
        for _ in 0..500 {
            if let Ok(listener) = StdListener::bind(("127.0.0.1", self.port)) {
                self.server = Some(serve(listener, self.shared.clone()));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the port stays taken");
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_with(|_| {})
    }

    /// An agent whose process is started in another way than usual.
    pub(crate) fn agent_with(&self, prepare: impl FnOnce(&mut Command)) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let settings = self.settings(folder.path().to_owned());
        let path = folder.path().join("agent.json");
        fs::write(&path, serde_json::to_string(&settings).unwrap()).unwrap();
        fs::write(&settings.secret_file, SECRET).unwrap();
        let log = fs::File::create(folder.path().join("agent.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar-agent"));
        prepare(&mut command);
        let process =
            command.arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Agent { process, folder }
    }

    fn settings(&self, folder: PathBuf) -> AgentSettings {
        let lease = Span::from_millis(self.book(|book| book.lease_ms) as i64);
        AgentSettings {
            daemon_url: format!("http://127.0.0.1:{}", self.port),
            instance: self.instance,
            secret_file: folder.join("secret"),
            work_dir: folder.join("work"),
            checkpoint_root: folder.join("checkpoints"),
            notice: NoticeSource::File { path: folder.join("notice.json") },
            lease_until: bursar_agent::wall_clock() + lease,
            lease_file: Some(folder.join("lease")),
            timer_file: None,
            power_off: false,
            container_engine: None,
            address: None,
        }
    }

    pub(crate) fn book<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.shared.book.lock().unwrap())
    }

    /// Changes what the daemon wants, and wakes the request that waits for it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Book)) {
        self.book(|book| {
            change(book);
            book.version += 1;
        });
        self.shared.changed.notify_waiters();
    }

    pub(crate) fn order(&mut self, work: Work) -> AttemptOrder {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let order = AttemptOrder {
            attempt: self.ids.attempt(now),
            experiment: self.ids.experiment(now),
            number: 1,
            action: Action::Run { work: Some(Box::new(work)) },
        };
        self.change(|book| {
            book.orders.insert(order.attempt, order.clone());
        });
        order
    }

    /// Has these files as a packed working folder.
    pub(crate) fn pack(&self, files: &[(&str, &str)]) -> Workdir {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let blob = builder.into_inner().unwrap().finish().unwrap();
        let digest = Digest::from_bytes(Sha256::digest(&blob).into());
        let bytes = blob.len() as u64;
        self.book(|book| book.blobs.insert(digest, blob));
        Workdir::Archive { digest, bytes }
    }

    pub(crate) fn run(&mut self, script: &str) -> AttemptId {
        self.order(work(script)).attempt
    }

    pub(crate) fn stop_attempt(&self, attempt: AttemptId, grace: Duration) {
        self.stop_attempt_because(attempt, StopReason::Cancelled, grace);
    }

    pub(crate) fn stop_attempt_because(&self, attempt: AttemptId, why: StopReason, grace: Duration) {
        let action = Action::Stop { why, grace_ms: grace.as_millis() as u64 };
        self.change(|book| book.orders.get_mut(&attempt).unwrap().action = action);
    }

    pub(crate) fn forget(&self, attempt: AttemptId) {
        self.change(|book| {
            book.orders.remove(&attempt);
        });
    }

    pub(crate) fn log(&self, attempt: AttemptId) -> String {
        self.book(|book| {
            String::from_utf8_lossy(book.logs.get(&attempt).map_or(&[], Vec::as_slice)).into_owned()
        })
    }

    /// Waits until the agent reports that an attempt is over, and gives the report.
    pub(crate) async fn ended(&self, attempt: AttemptId) -> AttemptReport {
        self.until("the attempt has ended", |book| {
            book.reports
                .get(&attempt)
                .filter(|report| matches!(report.state, ReportedState::Ended { .. }))
                .cloned()
        })
        .await
    }

    /// Waits until an attempt has written so much of its log.
    pub(crate) async fn logged(&self, attempt: AttemptId, text: &str) {
        self.until(text, |book| {
            let log = book.logs.get(&attempt)?;
            String::from_utf8_lossy(log).contains(text).then_some(())
        })
        .await;
    }

    /// Waits until the book shows something.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&mut Book) -> Option<T>) -> T {
        wait_for(what, || self.book(&mut look)).await
    }
}

impl Agent {
    /// Waits until the process has ended.
    pub(crate) async fn exited(&mut self) -> std::process::ExitStatus {
        wait_for("the agent has exited", || self.process.try_wait().unwrap()).await
    }

    pub(crate) fn attempt_folder(&self, attempt: AttemptId) -> PathBuf {
        self.folder.path().join("work").join(attempt.to_string())
    }

    pub(crate) fn checkpoint_folder(&self, experiment: ExperimentId) -> PathBuf {
        self.folder.path().join("checkpoints").join(experiment.to_string())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.stop();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default());
        }
    }
}

pub(crate) fn work(script: &str) -> Work {
    Work { run: script.to_owned(), grace_ms: 10_000, ..Work::default() }
}

/// Whether a process of this number runs.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Waits for a state.
pub(crate) async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Serves on a runtime of its own: ending that breaks all connections, as the death of a process does.
fn serve(listener: StdListener, shared: Shared) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let routes = Router::new()
        .route("/v1/agent/register", post(register))
        .route("/v1/agent/sync", post(sync))
        .route("/v1/agent/logs/{attempt}", post(logs))
        .route("/v1/agent/blobs/{digest}", get(blob))
        .route("/v1/agent/metrics/{attempt}", post(metrics))
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(shared);
    runtime.spawn(async move {
        listener.set_nonblocking(true).unwrap();
        axum::serve(TcpListener::from_std(listener).unwrap(), routes).await.unwrap();
    });
    runtime
}

async fn register(
    State(shared): State<Shared>,
    Json(request): Json<RegisterRequest>,
) -> Result<Json<SyncReply>, StatusCode> {
    if request.secret != SECRET {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut book = shared.book.lock().unwrap();
    book.registered.push(request);
    Ok(Json(reply(&book)))
}

async fn sync(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(request): Json<SyncRequest>,
) -> Result<Json<SyncReply>, StatusCode> {
    check_token(&shared, &headers)?;
    let changed = shared.changed.notified();
    let held = {
        let mut book = shared.book.lock().unwrap();
        book.syncs += 1;
        book.notice_remaining_ms = request.notice_remaining_ms;
        for report in request.attempts {
            book.reports.insert(report.attempt, report);
        }
        book.version == request.version
    };
    if held {
        let _ = timeout(Duration::from_millis(request.wait_ms), changed).await;
    }
    let book = shared.book.lock().unwrap();
    Ok(Json(reply(&book)))
}

async fn logs(
    shared: State<Shared>,
    attempt: Path<AttemptId>,
    query: Query<BTreeMap<String, u64>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<StreamReply>, StatusCode> {
    take(Stream::Log, &shared, *attempt, &query, &headers, &body)
}

async fn metrics(
    shared: State<Shared>,
    attempt: Path<AttemptId>,
    query: Query<BTreeMap<String, u64>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<StreamReply>, StatusCode> {
    take(Stream::Metrics, &shared, *attempt, &query, &headers, &body)
}

fn take(
    stream: Stream,
    shared: &Shared,
    attempt: AttemptId,
    query: &BTreeMap<String, u64>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Json<StreamReply>, StatusCode> {
    check_token(shared, headers)?;
    let mut book = shared.book.lock().unwrap();
    let bytes_max = book.log_bytes_max;
    let kept = match stream {
        Stream::Log => book.logs.entry(attempt).or_default(),
        Stream::Metrics => book.points.entry(attempt).or_default(),
    };
    let offset = query["offset"] as usize;
    if offset <= kept.len() && offset + body.len() > kept.len() {
        let new = kept.len() - offset;
        kept.extend_from_slice(&body[new..]);
    }
    Ok(Json(StreamReply { next_offset: kept.len() as u64, full: kept.len() > bytes_max }))
}

/// Gives no more than so much at once, so that larger ones have to be fetched in parts.
async fn blob(
    State(shared): State<Shared>,
    Path(digest): Path<Digest>,
    headers: HeaderMap,
) -> Result<Vec<u8>, StatusCode> {
    check_token(&shared, &headers)?;
    let mut book = shared.book.lock().unwrap();
    book.fetches += 1;
    let bytes_max = book.fetch_bytes_max;
    let blob = book.blobs.get(&digest).ok_or(StatusCode::NOT_FOUND)?;
    let range = headers["range"].to_str().unwrap().strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
    let from: usize = range.parse().unwrap();
    Ok(blob[from..blob.len().min(from + bytes_max)].to_vec())
}

fn check_token(shared: &Shared, headers: &HeaderMap) -> Result<(), StatusCode> {
    let book = shared.book.lock().unwrap();
    let token = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let known = book.registered.iter().any(|request| request.token == token);
    if known { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}

fn reply(book: &Book) -> SyncReply {
    SyncReply {
        lease_remaining_ms: book.lease_ms,
        heartbeat_ms: 500,
        attempts: book.orders.values().cloned().collect(),
        power_off: book.power_off,
        version: book.version,
    }
}
