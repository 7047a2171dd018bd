//! What a daemon takes: submissions a second, and the time from a submission to the provider's launch call.
//!
//! The whole service in this process — API on a real socket, reconciler, SQLite with durable commits — with clients
//! that speak plain HTTP over kept connections, so that the clients' own cost is small. Prints medians and 99th
//! percentiles. `cargo bench -p bursar-daemon --bench load [-- NAME]`.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads the real clock and starts real threads"
)]
#![expect(clippy::print_stdout, reason = "figures go to standard output")]
#![expect(clippy::float_arithmetic, reason = "rates for people")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bursar_config::{ConfigFile, Machine, load_config};
use bursar_daemon::{
    blobs::Blobs,
    clock::SystemClock,
    configuration::Configuration,
    effects::Surroundings,
    http::{Api, router},
    inbox::inbox,
    logs::Logs,
    notify::HttpCourier,
    reconciler::{Parts, Reconciler},
    rules::Rules,
    secrets::InstallationKey,
    serve::keep_log_short,
};
use bursar_model::{
    CapacityType, CloudId, CloudInstance, InstanceId, InstanceType, Offering, ProviderName, Span, UsdPerHour,
};
use bursar_policies::Settings;
use bursar_providers::{LaunchRequest, Provider, ProviderError, memory::MemoryCloud};
use bursar_store::{OpenOptions, SqliteStore, Store};

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    if is_wanted("one-client") {
        throughput("one-client", 1, 8_000, 1);
    }
    if is_wanted("eight-clients") {
        throughput("eight-clients", 8, 40_000, 1);
    }
    if is_wanted("batches-of-100") {
        throughput("batches-of-100", 4, 1_000, 100);
    }
    if is_wanted("launch") {
        launch_latency("launch-one", 300, 1);
        launch_latency("launch-100-at-once", 10, 100);
    }
}

/// Experiments that wait for an accelerator that nobody offers: what is measured is taking them in.
fn throughput(name: &str, clients: usize, requests: usize, per_request: usize) {
    let daemon = Daemon::start(Vec::new());
    let body = submission("H100:1", per_request);
    let began = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (body, address) = (body.clone(), daemon.address);
            thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..requests / clients)
                    .map(|_| {
                        let sent = Instant::now();
                        client.post("/v1/experiments", &body);
                        sent.elapsed()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut times: Vec<Duration> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let rate = (times.len() * per_request) as f64 / began.elapsed().as_secs_f64();
    println!("{name:<20} {rate:>9.0} experiments/s   {}", percentiles(&mut times));
}

/// From the first byte of the submission to the provider being asked for the (last) instance.
fn launch_latency(name: &str, rounds: usize, at_once: usize) {
    let mut times = Vec::new();
    for _ in 0..rounds {
        // A new daemon each round for bursts: the instances of the last one are still there.
        let daemon = Daemon::start(vec![offering()]);
        let mut client = Client::connect(daemon.address);
        let body = submission("V100:1", at_once);
        for _ in 0..(if at_once == 1 { 5 } else { 1 }) {
            let sent = Instant::now();
            client.post("/v1/experiments", &body);
            let asked = (0..at_once).map(|_| daemon.launches.recv_timeout(Duration::from_secs(10)).unwrap());
            times.push(asked.max().unwrap().duration_since(sent));
            // Idle again: nothing is on its way that the next round would measure too.
            thread::sleep(Duration::from_millis(20));
        }
    }
    println!("{name:<20} {}", percentiles(&mut times));
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    format!("p50 {:?}  p99 {:?}  max {:?}", at(0.5), at(0.99), at(1.0))
}

fn submission(accelerators: &str, count: usize) -> String {
    let spec = format!(
        r#"{{"name":"load","resources":{{"accelerators":"{accelerators}","cpus":1,"memory":1}},"run":"python train.py","envs":{{"LR":"0.1"}}}}"#
    );
    format!(r#"{{"user":"load","specs":[{}]}}"#, vec![spec; count].join(","))
}

fn offering() -> Offering {
    let kind = InstanceType {
        name: "v100-1".into(),
        accelerators: Some(bursar_model::Accelerators {
            name: "V100".into(),
            count: 1,
            memory_gib: Some(16),
        }),
        cpus_milli: 8000,
        memory_mib: 60_000,
        disk_gib: 1000,
    };
    Offering {
        provider: "memory".into(),
        region: "r".into(),
        zone: "z".into(),
        instance_type: Arc::new(kind),
        capacity_type: CapacityType::OnDemand,
        price: Some(UsdPerHour::from_nanos(3_000_000_000)),
        list_price: None,
        on_demand_price: Some(UsdPerHour::from_nanos(3_000_000_000)),
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    }
}

struct Daemon {
    address: SocketAddr,
    launches: mpsc::Receiver<Instant>,
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start(offerings: Vec<Offering>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (asked, launches) = mpsc::channel();
        let clock = Arc::new(SystemClock);
        let cloud = MemoryCloud::new("memory".into(), offerings, clock.clone());
        let provider = Arc::new(Recording { inner: cloud.provider("bench"), asked });
        let address = runtime.block_on(async {
            let machine = Machine { cpus: 2, memory_mib: 1024 };
            let config =
                load_config("", None, &BTreeMap::from([("HOME".into(), "/nowhere".into())]), machine);
            let config = config.unwrap().value;
            let store = SqliteStore::open(&folder.path().join("bursar.db"), OpenOptions::default()).unwrap();
            let reader = store.reader();
            let checkpointer = store.checkpointer();
            let courier = Arc::new(HttpCourier::new(&config, reader.clone(), clock.clone()).unwrap());
            let (sender, messages) = inbox();
            let parts = Parts {
                store,
                providers: vec![provider],
                clock: clock.clone(),
                seed: 1,
                surroundings: Surroundings {
                    agents: Arc::default(),
                    installation: "bench".to_owned(),
                    daemon_url: "http://127.0.0.1:1".to_owned(),
                    key: InstallationKey::from_bytes([7; 32]),
                },
                rules: Rules {
                    settings: Settings { max_instances: 100_000, ..Settings::default() },
                    observe_interval_busy: Span::from_secs(30),
                    ..Rules::of(&config)
                },
                courier: courier.clone(),
                judge_plans: false,
            };
            let (reconciler, snapshot) = Reconciler::start(parts, sender.clone()).await.unwrap();
            let logs = Logs::new(&folder.path().join("logs")).unwrap();
            let blobs = Blobs::new(&folder.path().join("blobs")).unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut offered = snapshot.clone();
            tokio::spawn(keep_log_short(checkpointer, snapshot.clone()));
            let started_with = ConfigFile { file: None, config };
            let configuration = Configuration::new(started_with, sender.clone(), courier.clone());
            let agents = Arc::default();
            let api =
                Api { inbox: sender, snapshot, reader, logs, blobs, configuration, courier, clock, agents };
            tokio::spawn(axum::serve(listener, router(api)).into_future());
            let (_never, stop) = tokio::sync::watch::channel(false);
            tokio::spawn(async move {
                let _never = _never;
                reconciler.run(messages, stop).await;
            });
            // Submissions before the first prices would wait for them.
            offered.changed().await.unwrap();
            address
        });
        Self { address, launches, _runtime: runtime, _folder: folder }
    }
}

/// Tells when it was asked to launch.
#[derive(Debug)]
struct Recording<P> {
    inner: P,
    asked: mpsc::Sender<Instant>,
}

#[async_trait::async_trait]
impl<P: Provider> Provider for Recording<P> {
    fn name(&self) -> &ProviderName {
        self.inner.name()
    }
    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        self.inner.offerings().await
    }
    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let _ = self.asked.send(Instant::now());
        self.inner.launch(request).await
    }
    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        self.inner.list().await
    }
    async fn terminate(&self, instance: InstanceId, cloud_id: Option<&CloudId>) -> Result<(), ProviderError> {
        self.inner.terminate(instance, cloud_id).await
    }
}

/// A client with one kept connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn post(&mut self, path: &str, body: &str) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line).unwrap();
        assert!(line.contains(" 201 "), "{line}");
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
    }
}
