//! What the tests of providers share: a clock, a market of two types, requests, and a local cloud in a folder.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use bursar_agent::processes::{self, Mark, Process, Which};
use bursar_model::{
    CapacityType, Clock, InstanceId, InstanceType, Offering, ProviderName, Region, Span, Timestamp, TypeName,
    TypedId, UsdPerHour, Zone,
};
use bursar_providers::{
    LaunchRequest,
    local::{LocalProvider, LocalSettings, LocalType, Program},
};
use rustix::process::{getpid, set_child_subreaper};

/// The machine's clock, ahead by as much as a test wants.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, span: Span) {
        self.0.fetch_add(span.as_millis(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        bursar_agent::wall_clock() + Span::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// What there is plenty of.
pub(crate) const COMMON: &str = "common";
/// What is sold out.
pub(crate) const RARE: &str = "rare";

pub(crate) fn instance_type(name: &str) -> Arc<InstanceType> {
    let name = TypeName::new(name);
    Arc::new(InstanceType { name, accelerators: None, cpus_milli: 1000, memory_mib: 1024, disk_gib: 100 })
}

pub(crate) fn offering(name: &str, capacity_type: CapacityType) -> Offering {
    Offering {
        provider: ProviderName::new("test"),
        region: Region::new("local"),
        zone: Zone::new("local-a"),
        instance_type: instance_type(name),
        capacity_type,
        price: Some(UsdPerHour::from_nanos(100_000_000)),
        list_price: None,
        on_demand_price: Some(UsdPerHour::from_nanos(300_000_000)),
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    }
}

pub(crate) fn request(offering: Offering) -> LaunchRequest {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // The process number keeps tests that run at the same time from finding each other's processes.
    let number = u64::from(std::process::id()) << 20 | NEXT.fetch_add(1, Ordering::Relaxed);
    LaunchRequest {
        installation: "ours".to_owned(),
        instance: InstanceId::from_u64(number),
        offering,
        disk_gib: 10,
        lease_until: bursar_agent::wall_clock() + Span::from_secs(600),
        lease: Span::from_secs(600),
        agents: Default::default(),
        // Nobody listens there: the agent tries until its lease ends.
        daemon_url: "http://127.0.0.1:9".to_owned(),
        secret: "one-time".to_owned(),
        labels: Default::default(),
    }
}

/// A local cloud in a folder of its own. All its processes end with it.
pub(crate) struct LocalCloud {
    pub(crate) settings: LocalSettings,
    pub(crate) clock: Arc<TestClock>,
    _folder: tempfile::TempDir,
}

impl LocalCloud {
    pub(crate) fn new() -> Self {
        // Whatever hosts leave behind when they are killed comes back to this process, to be killed at the end.
        set_child_subreaper(Some(getpid())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_bursar-local-host"));
        let kind = |name, max_instances| LocalType {
            instance_type: instance_type(name),
            zones: vec![Zone::new("local-a")],
            on_demand: Some(UsdPerHour::from_nanos(300_000_000)),
            spot: Some(UsdPerHour::from_nanos(100_000_000)),
            interruptions_per_hour: 0.0,
            notice: Span::from_millis(300),
            boot: Span::ZERO,
            max_instances,
        };
        let settings = LocalSettings {
            name: ProviderName::new("test"),
            installation: "ours".to_owned(),
            root: folder.path().join("cloud"),
            checkpoint_root: folder.path().join("checkpoints"),
            seed: 7,
            types: vec![kind(COMMON, None), kind(RARE, Some(0))],
            interruptions: Vec::new(),
            host_program: Program::new(&program, &["host"]),
            agent_program: Program::new(&program, &["agent"]),
        };
        Self { settings, clock: Arc::new(TestClock::default()), _folder: folder }
    }

    pub(crate) fn provider(&self, installation: &str) -> LocalProvider {
        let settings = LocalSettings { installation: installation.to_owned(), ..self.settings.clone() };
        LocalProvider::new(settings, Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    pub(crate) fn folder(&self, instance: InstanceId) -> PathBuf {
        self.settings.root.join("instances").join(instance.to_string())
    }
}

impl Drop for LocalCloud {
    fn drop(&mut self) {
        let nothing_left = || processes::kill(Which::DescendedFrom { ancestor: getpid(), except: &[] });
        for _ in 0..1000 {
            if nothing_left() && nothing_left() {
                return;
            }
        }
    }
}

/// Whether anything runs that belongs to an instance.
pub(crate) fn runs(instance: InstanceId) -> bool {
    !processes_of(instance).is_empty()
}

/// What runs that carries an instance's mark.
pub(crate) fn processes_of(instance: InstanceId) -> Vec<Process> {
    let mark = Mark { variable: format!("BURSAR_INSTANCE_ID={instance}"), session: None, container: None };
    processes::find(Which::Marked(&mark))
}
