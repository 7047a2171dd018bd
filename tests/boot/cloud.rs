//! A cloud whose machines are sandboxes that boot by the user data of a launch, and a daemon that rents from it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bursar_agent::NoticeSource;
use bursar_config::{ConfigFile, Machine as Cores, load_config};
use bursar_daemon::{agent_binaries::AgentBinaries, serve::serve_with};
use bursar_model::{
    CapacityType, CloudId, CloudInstance, CloudState, InstanceId, InstanceType, Offering, ProviderName,
    Region, Timestamp, TypeName, UsdPerHour, Zone,
};
use bursar_providers::{LaunchRequest, Provider, ProviderError, bootstrap::user_data};
use bursar_tests::{
    Said,
    machine::{Machine, System},
    program,
};
use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};

/// The cloud's records.
#[derive(Clone)]
pub(crate) struct SandboxCloud {
    machines: Arc<Mutex<BTreeMap<InstanceId, Record>>>,
    system: System,
    notice: NoticeSource,
}

pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) user_data: String,
    pub(crate) secret: String,
    cloud: CloudInstance,
}

impl SandboxCloud {
    pub(crate) fn new(system: System, notice: NoticeSource) -> Self {
        Self { machines: Arc::default(), system, notice }
    }

    /// Looks at the first machine, once there is one.
    pub(crate) fn first<T>(&self, look: impl FnOnce(&mut Record) -> Option<T>) -> Option<T> {
        self.machines.lock().unwrap().values_mut().next().and_then(look)
    }
}

impl std::fmt::Debug for SandboxCloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxCloud").finish_non_exhaustive()
    }
}

fn name() -> &'static ProviderName {
    static NAME: std::sync::LazyLock<ProviderName> = std::sync::LazyLock::new(|| ProviderName::new("local"));
    &NAME
}

#[async_trait::async_trait]
impl Provider for SandboxCloud {
    fn name(&self) -> &ProviderName {
        name()
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        let price = UsdPerHour::from_nanos(100_000_000);
        let instance_type = InstanceType {
            name: TypeName::new("sandbox"),
            accelerators: None,
            cpus_milli: 2000,
            memory_mib: 4096,
            disk_gib: 100,
        };
        Ok(vec![Offering {
            provider: name().clone(),
            region: Region::new("here"),
            zone: Zone::new("here-a"),
            instance_type: Arc::new(instance_type),
            capacity_type: CapacityType::OnDemand,
            price: Some(price),
            list_price: None,
            on_demand_price: Some(price),
            price_since: None,
            quota: None,
            notice: None,
            terms: Arc::default(),
        }])
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let mut machines = self.machines.lock().unwrap();
        let record = machines.entry(request.instance).or_insert_with(|| {
            let user_data = user_data(std::slice::from_ref(request), self.notice.clone());
            let cloud = CloudInstance {
                cloud_id: CloudId::new(&format!("box-{}", request.instance)),
                instance: request.instance,
                state: CloudState::Running,
                launched_at: now(),
                running_at: None,
                stopping_at: None,
                notice: None,
            };
            let machine = Machine::boot(&user_data, self.system);
            Record { machine, user_data, secret: request.secret.clone(), cloud }
        });
        Ok(record.cloud.clone())
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        let mut machines = self.machines.lock().unwrap();
        let listed = machines.values_mut().map(|record| {
            if record.cloud.state == CloudState::Running && !record.machine.is_on() {
                record.cloud.state = CloudState::Gone { at: now(), interrupted: false };
            }
            record.cloud.clone()
        });
        Ok(listed.collect())
    }

    /// As a cloud does it: the system is told, and ends the machine.
    async fn terminate(&self, instance: InstanceId, _: Option<&CloudId>) -> Result<(), ProviderError> {
        if let Some(record) = self.machines.lock().unwrap().get_mut(&instance) {
            record.machine.cut();
        }
        Ok(())
    }
}

fn now() -> Timestamp {
    bursar_agent::wall_clock()
}

/// A daemon in this process, stopped when dropped.
pub(crate) struct Daemon {
    pub(crate) folder: tempfile::TempDir,
    address: SocketAddr,
    /// Kept to the end: machines end with the thread that booted them.
    runtime: tokio::runtime::Runtime,
    serving: tokio::task::JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Daemon {
    /// One that rents from this cloud, with these leases, and serves this program as its agent.
    pub(crate) fn start(cloud: &SandboxCloud, policy: &str, agent: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("agents")).unwrap();
        let arch = std::env::consts::ARCH;
        std::os::unix::fs::symlink(agent, path("agents").join(format!("bursar-agent-{arch}"))).unwrap();
        let text = format!("data_dir: {}\nlisten: 127.0.0.1:0\npolicy: {policy}\n", path("data").display());
        let cores = Cores { cpus: 2, memory_mib: 4096 };
        let config = load_config(&text, None, &BTreeMap::new(), cores).unwrap().value;
        let agents = AgentBinaries::read(&path("agents")).unwrap();
        let providers: Vec<Arc<dyn Provider>> = vec![Arc::new(cloud.clone())];
        let (stop, stopped) = watch::channel(false);
        let (told, ready) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let serving = runtime.spawn(async move {
            let file = ConfigFile { file: None, config };
            let ready = |address| _ = told.send(address);
            serve_with(file, providers, agents, stopped, Arc::new(Notify::new()), ready).await.unwrap();
        });
        let address = runtime.block_on(ready).expect("the daemon starts");
        Self { folder, address, runtime, serving, stop }
    }

    /// Stops it for good; its machines are left to themselves.
    pub(crate) fn stop(&mut self) {
        self.stop.send(true).unwrap();
        self.runtime.block_on(&mut self.serving).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a command says, which asks this daemon.
    pub(crate) fn said(&self, args: &[&str]) -> Said {
        let mut command = program::command(self.folder.path());
        command.args(args).arg("--url").arg(self.url());
        Said::of(command.output().unwrap())
    }

    /// Submits an experiment that runs this script.
    pub(crate) fn submit(&self, script: &str) {
        let spec = format!("name: boots\nresources: {{cpus: 1}}\ncheckpoint: {{grace: 1s}}\nrun: {script}\n");
        fs::write(self.folder.path().join("exp.yaml"), spec).unwrap();
        let _ = self.said(&["submit", "exp.yaml"]).with_code(0);
    }

    /// What the experiment has printed so far.
    pub(crate) fn log(&self) -> String {
        self.said(&["logs", "boots"]).stdout
    }

    /// The rows of a list.
    pub(crate) fn rows(&self, list: &str) -> Vec<Value> {
        let said = self.said(&[list, "--json"]).with_code(0).json();
        said.as_array().cloned().expect("a list")
    }
}
