//! Puts the daemon together and runs it until it is told to stop.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use bursar_config::{Config, ConfigFile};
use bursar_model::{Clock, Span};
use bursar_providers::{Provider, local::Program};
use bursar_store::{Checkpointer, OpenOptions, SqliteStore, Store, StoreError};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tracing::{info, warn};

use crate::{
    agent_binaries::{AgentBinaries, AgentBinariesError},
    blobs::{Blobs, keep_few},
    clock::SystemClock,
    configuration::Configuration,
    effects::Surroundings,
    http::{Api, router},
    inbox::inbox,
    logs::{Logs, retention},
    notify::HttpCourier,
    providers::{NotBuilt, providers},
    reconciler::{Parts, Reconciler, Snapshot, chain},
    rules::Rules,
    secrets::InstallationKey,
};

/// How a local provider starts its processes: this very program, with these arguments before its own.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Plays the machine.
    pub host: Program,
    /// The agent on it.
    pub agent: Program,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder cannot be used.
    #[error("cannot use {} as data folder", .path.display())]
    DataDir {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: choose another `listen`, or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No client for webhooks.
    #[error("the system has no certificates to verify webhooks by: install `ca-certificates`")]
    NoCertificates(#[source] reqwest::Error),
    /// The agents for rented machines cannot be read.
    #[error(transparent)]
    AgentBinaries(#[from] AgentBinariesError),
    /// A provider of the configuration is not in this build.
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    /// No seed for ids.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// Runs the daemon until `stop` turns true, and has it read its configuration again whenever `reload` is notified. `ready`
/// is called once the API answers.
///
/// # Errors
/// When it cannot start. Nothing is left behind then.
pub async fn serve(
    started_with: ConfigFile,
    programs: &Programs,
    stop: watch::Receiver<bool>,
    reload: Arc<Notify>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let config = &started_with.config;
    let agents = AgentBinaries::read(&agent_folder(config, programs))?;
    let providers = providers(config, programs, &(Arc::new(SystemClock) as Arc<dyn Clock>))?;
    serve_with(started_with, providers, agents, stop, reload, ready).await
}

/// The same with providers that no configuration knows: how tests bring clouds of their own.
///
/// # Errors
/// When it cannot start. Nothing is left behind then.
pub async fn serve_with(
    started_with: ConfigFile,
    providers: Vec<Arc<dyn Provider>>,
    agents: AgentBinaries,
    stop: watch::Receiver<bool>,
    reload: Arc<Notify>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let agents = Arc::new(agents);
    let config = &started_with.config;
    let data_dir = config.data_dir.clone();
    let unusable = |path: PathBuf| move |source| ServeError::DataDir { path, source };
    make_folder(&data_dir).map_err(unusable(data_dir.clone()))?;
    // The store first: its lock is what keeps a second daemon out.
    let store = SqliteStore::open(&store_path(config), OpenOptions::default())?;
    let reader = store.reader();
    let checkpointer = store.checkpointer();
    let key_path = data_dir.join("installation.key");
    let key = InstallationKey::load_or_create(&key_path).map_err(unusable(key_path))?;
    let logs = Logs::new(&data_dir.join("logs")).map_err(unusable(data_dir.join("logs")))?;
    let blobs = Blobs::new(&data_dir.join("blobs")).map_err(unusable(data_dir.join("blobs")))?;

    let listen = config.listen;
    let listen_error = |source| ServeError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let courier = HttpCourier::new(config, reader.clone(), clock.clone());
    let courier = Arc::new(courier.map_err(ServeError::NoCertificates)?);
    let (sender, messages) = inbox();
    let parts = Parts {
        store,
        providers,
        clock,
        seed: random_seed()?,
        surroundings: Surroundings {
            installation: config.installation.clone(),
            daemon_url: config.url.clone().unwrap_or_else(|| daemon_url(address)),
            agents: agents.clone(),
            key,
        },
        rules: Rules::of(config),
        courier: courier.clone(),
        judge_plans: false,
    };
    let (reconciler, snapshot) = Reconciler::start(parts, sender.clone()).await?;
    // The API goes by the loop's time; providers and signatures by the machine's, as whoever checks them does.
    let clock = reconciler.clock();

    tokio::spawn(keep_log_short(checkpointer, snapshot.clone()));
    tokio::spawn(keep_few(blobs.clone(), sender.clone(), clock.clone()));

    let configuration = Configuration::new(started_with, sender.clone(), courier.clone());
    tokio::spawn(reload_when_told(configuration.clone(), reload, stop.clone()));
    tokio::spawn(retention::look_after(
        logs.clone(),
        reader.clone(),
        configuration.clone(),
        clock.clone(),
        stop.clone(),
    ));
    let api = Api { inbox: sender, snapshot, reader, logs, blobs, configuration, courier, clock, agents };
    let mut stop_http = stop.clone();
    let server = axum::serve(listener, router(api)).with_graceful_shutdown(async move {
        // An error means that nobody can say stop any more: that is a stop as well.
        let _ = stop_http.wait_for(|stop| *stop).await;
    });
    info!(%address, data_dir = %data_dir.display(), "ready");
    ready(address);
    let mut server = tokio::spawn(server.into_future());
    reconciler.run(messages, stop).await;
    // The loop is over, so open requests end as soon as they notice; followed logs may take longer than we wait.
    let patience = tokio::time::timeout(Span::from_secs(2).to_std(), &mut server).await;
    if patience.is_err() {
        server.abort();
    }
    info!("stopped; instances go on until their leases end");
    Ok(())
}

/// Copies the store's log back now and then, on a thread of its own, for as long as there are commits.
pub async fn keep_log_short(checkpointer: Checkpointer, mut snapshot: watch::Receiver<Snapshot>) {
    let mut copied_at = 0;
    // Ends with the reconciler, which holds the other end.
    while snapshot.wait_for(|now| now.commits >= copied_at + Checkpointer::COMMITS).await.is_ok() {
        copied_at = snapshot.borrow().commits;
        let checkpointer = checkpointer.clone();
        let done = tokio::task::spawn_blocking(move || checkpointer.run()).await;
        if let Ok(Err(error)) = done {
            warn!(error = %chain(&error), "the log could not be copied back; the next commits will do it");
        }
    }
}

/// Tells of its outcome in the log alone: who sends a signal reads no answer.
async fn reload_when_told(
    configuration: Configuration,
    reload: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    // Ends with the daemon. What is told during a reload is one more reload.
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            () = reload.notified() => {
                let _ = configuration.reload().await;
            }
        }
    }
}

/// Where the agents for rented machines are: where the configuration says, else beside the program that runs.
#[must_use]
pub fn agent_folder(config: &Config, programs: &Programs) -> PathBuf {
    let beside = || programs.agent.path.with_file_name("");
    config.agent_binaries.clone().unwrap_or_else(beside)
}

/// Where the store of a configuration is.
#[must_use]
pub fn store_path(config: &Config) -> PathBuf {
    config.data_dir.join("bursar.db")
}

#[expect(clippy::disallowed_methods, reason = "the data folder is made here and nowhere else")]
fn make_folder(path: &std::path::Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

fn daemon_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("http://127.0.0.1:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

fn random_seed() -> Result<u64, ServeError> {
    getrandom::u64().map_err(|_| ServeError::NoRandomness)
}
