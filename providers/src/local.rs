//! Instances that are processes on this machine, so that a laptop behaves like a small cloud and the demo and the
//! tests need none.
//!
//! The *cloud's* side outlives the daemon and is a folder for each instance: what was asked for, and what became of it.
//! Its machine is played by a small **host** process (`host`), which holds a lock for as long as the machine exists,
//! boots it (starts the agent), takes it back (notice, then kill) and writes down its end. Whoever looks at the folder
//! can tell from the lock whether the host lives, whatever its process number is by now.

mod draw;
mod folder;
pub mod host;

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bursar_agent::{AgentSettings, NoticeSource, containers, processes};
use bursar_model::{
    CapacityType, Clock, CloudId, CloudInstance, CloudState, InstanceId, InstanceType, Offering,
    ProviderName, Region, Scope, Span, TypedId, UsdPerHour, Zone, id::split_mix,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::spawn_blocking};

use self::folder::{Ended, HostLock, Machine, MachineFolder};
use crate::{EffectMay, ErrorKind, LIST_KEEPS_ENDED, LaunchRequest, Provider, ProviderError};

/// The one region that this machine is in.
const REGION: &str = "local";

/// How often, with how much time between, what a dead host left behind is killed while somebody waits for the answer.
/// What is still there then is tried again when next asked.
const SWEEPS_MAX: u32 = 50;
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// How long a host that was told to end its machine may take: killing everything takes milliseconds.
const SWITCH_OFF_GRACE: Span = Span::from_secs(5);

/// What the local provider offers, and where its instances live.
#[derive(Debug, Clone)]
pub struct LocalSettings {
    /// The provider's name in the configuration.
    pub name: ProviderName,
    /// Whose instances these are. Another installation's in the same folder are left alone.
    pub installation: String,
    /// The cloud's records, and the folders of its machines.
    pub root: PathBuf,
    /// Each experiment gets a folder for its checkpoints here.
    pub checkpoint_root: PathBuf,
    /// Where random interruptions start.
    pub seed: u64,
    /// What is on offer.
    pub types: Vec<LocalType>,
    /// A script for demonstrations: the first spot instance gets its notice so long after its boot, the second after
    /// the second time, and so on. Later ones follow `interruptions_per_hour`.
    pub interruptions: Vec<Span>,
    /// Starts a host when the instance's folder is added as the last argument: `bursar local-host`.
    pub host_program: Program,
    /// Starts an agent when the file with its settings is added as the last argument: `bursar agent --settings`.
    pub agent_program: Program,
}

/// What the local provider offers under one name.
#[derive(Debug, Clone)]
pub struct LocalType {
    /// What such an instance has.
    pub instance_type: Arc<InstanceType>,
    /// The zones that offer it.
    pub zones: Vec<Zone>,
    /// The on-demand price; none is not sold on demand.
    pub on_demand: Option<UsdPerHour>,
    /// The spot price; none is not sold as spot.
    pub spot: Option<UsdPerHour>,
    /// How often a spot instance is interrupted in an hour, on average.
    pub interruptions_per_hour: f64,
    /// From the notice of an interruption to the end.
    pub notice: Span,
    /// From launch to the start of the agent.
    pub boot: Span,
    /// How many may exist at once, in all zones together.
    pub max_instances: Option<u32>,
}

/// A program and its first arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its first arguments.
    pub args: Vec<String>,
}

/// The provider whose instances are processes on this machine.
#[derive(Debug)]
pub struct LocalProvider {
    settings: LocalSettings,
    clock: Arc<dyn Clock>,
    /// Held while the instances are counted and one is added.
    launching: Mutex<()>,
}

/// What the cloud has a record of.
#[derive(Debug, Default)]
struct Records {
    machines: Vec<(MachineFolder, Machine)>,
    /// The folders of instances whose record cannot be read.
    unreadable: Vec<(MachineFolder, InstanceId)>,
}

impl LocalProvider {
    /// The provider, with the instances that it had before.
    #[must_use]
    pub fn new(settings: LocalSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock, launching: Mutex::new(()) }
    }

    fn instances(&self) -> PathBuf {
        self.settings.root.join("instances")
    }

    fn folder(&self, instance: InstanceId) -> MachineFolder {
        MachineFolder::new(self.instances().join(instance.to_string()))
    }

    /// What is kept of an instance after its folder is gone, so that a late repetition of its launch finds it.
    fn tombstone(&self, instance: InstanceId) -> MachineFolder {
        MachineFolder::new(self.settings.root.join("ended").join(instance.to_string()))
    }

    /// Where the folder of an instance is kept whose record could not be read.
    fn aside(&self, instance: InstanceId) -> MachineFolder {
        MachineFolder::new(self.settings.root.join("unreadable").join(instance.to_string()))
    }

    /// All that the cloud has a record of, whosever it is.
    fn records(&self) -> io::Result<Records> {
        let mut records = Records::default();
        let entries = match fs::read_dir(self.instances()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // What has another name was never an instance.
            let Some(instance) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let folder = MachineFolder::new(entry.path());
            match folder.machine() {
                Ok(Some(machine)) => records.machines.push((folder, machine)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%instance, %error, "an instance's record cannot be read: it is ended and put aside");
                    records.unreadable.push((folder, instance));
                }
                Err(error) => return Err(error),
            }
        }
        records.machines.sort_by_key(|(_, machine)| machine.instance);
        Ok(records)
    }

    /// The file that says how many spot instances there were before those on record.
    fn spot_count(&self) -> PathBuf {
        self.settings.root.join("spot-instances")
    }

    /// Which spot instance the next one is, counted from 0: a restarted daemon goes on in the script where it was.
    fn next_spot_number(&self, machines: &[(MachineFolder, Machine)]) -> u32 {
        let on_record = machines.iter().filter_map(|(_, machine)| machine.spot_number);
        // Nothing but a script for demonstrations hangs on it, so one that cannot be read is none.
        let buried = folder::read(&self.spot_count()).ok().flatten();
        let buried = buried.and_then(|count| count.trim().parse().ok());
        on_record.map(|last| last + 1).chain(buried).max().unwrap_or(0)
    }

    fn type_of(&self, offering: &Offering) -> Option<&LocalType> {
        let sold = |kind: &&LocalType| {
            kind.instance_type.name == offering.instance_type.name
                && kind.zones.contains(&offering.zone)
                && kind.price(offering.capacity_type).is_some()
        };
        self.settings.types.iter().find(sold).filter(|_| offering.provider == self.settings.name)
    }

    /// The cloud's record of a new instance, or why there is none.
    fn draft(&self, request: &LaunchRequest) -> Result<Machine, ProviderError> {
        let offering = &request.offering;
        let Some(kind) = self.type_of(offering) else {
            return Err(self.refused(ErrorKind::Invalid, format!("{} is not on offer", offering.key())));
        };
        let Records { machines, .. } = self.records().map_err(|error| self.failed(EffectMay::No, error))?;
        let alive = |(folder, machine): &&(MachineFolder, Machine)| {
            machine.instance_type == kind.instance_type.name && !folder.has_ended()
        };
        let count = u32::try_from(machines.iter().filter(alive).count()).unwrap_or(u32::MAX);
        if let Some(most) = kind.max_instances.filter(|most| count >= *most) {
            let scope = Scope {
                provider: self.settings.name.clone(),
                region: None,
                zone: None,
                instance_type: Some(kind.instance_type.name.clone()),
                capacity_type: None,
            };
            let message = format!("all {most} instances of {} are taken", kind.instance_type.name);
            return Err(self.refused(ErrorKind::InsufficientCapacity(scope), message));
        }
        let spot_number =
            (offering.capacity_type == CapacityType::Spot).then(|| self.next_spot_number(&machines));
        let scripted = |number| self.settings.interruptions.get(usize::try_from(number).ok()?).copied();
        let interrupt_after = spot_number.and_then(|number| {
            let drawn =
                || draw::interruption(self.settings.seed, request.instance, kind.interruptions_per_hour);
            scripted(number).or_else(drawn)
        });
        Ok(Machine {
            installation: request.installation.clone(),
            instance: request.instance,
            instance_type: kind.instance_type.name.clone(),
            spot_number,
            launched_at: self.clock.now(),
            boot: kind.boot,
            interrupt_after,
            notice: kind.notice,
            lease_until: request.lease_until,
            agent: self.settings.agent_program.clone(),
        })
    }

    /// Brings a record and the processes in line: starts the host that was never started, clears up after one that
    /// died. Then it is what the record says.
    async fn settle(&self, folder: &MachineFolder, machine: &Machine) -> io::Result<CloudInstance> {
        let now = self.clock.now();
        if !folder.has_ended() {
            let hard_end = host::hard_end(folder.lease_until(machine));
            match folder.try_lock_host()? {
                HostLock::Alive if folder.is_terminated() => self.switch_off(folder)?,
                HostLock::Alive => {}
                HostLock::NeverStarted(lock) if folder.is_terminated() || now >= hard_end => {
                    folder.write_ended(Ended { at: now.min(hard_end), interrupted: false })?;
                    drop(lock);
                }
                HostLock::NeverStarted(lock) => {
                    // Should two be started now, one gets the lock and the other leaves.
                    drop(lock);
                    self.start_host(folder)?;
                }
                HostLock::Died(lock) => {
                    if !folder.has_ended() && sweep(machine.instance, folder).await {
                        // Not when somebody looks: nobody may have looked for days.
                        let died = folder::last_beat(&lock)? + host::HEARTBEAT;
                        let at = died.min(hard_end).min(now).max(machine.launched_at);
                        folder.write_ended(Ended { at, interrupted: false })?;
                    }
                    drop(lock);
                }
            }
        }
        cloud_instance(folder, machine, now)
    }

    /// Has a host end its machine; kills it where it was told long ago, as it hangs then.
    fn switch_off(&self, folder: &MachineFolder) -> io::Result<()> {
        let told_at = folder.write_terminate()?;
        if let Some(host) = folder.host()? {
            host.signal(Signal::TERM);
            // A stopped process hears nothing else.
            host.signal(Signal::CONT);
            if self.clock.now().since(told_at) > SWITCH_OFF_GRACE {
                tracing::warn!(folder = %folder.path().display(), "a host hangs and is killed");
                host.signal(Signal::KILL);
            }
        }
        Ok(())
    }

    /// Ends an instance whose record cannot be read and puts its folder aside, for a person to look at. Nobody can say
    /// whose it is, so nobody else would end it, and it must not keep all others from being listed.
    async fn put_aside(&self, folder: &MachineFolder, instance: InstanceId) -> io::Result<()> {
        match folder.try_lock_host()? {
            HostLock::Alive => self.switch_off(folder),
            HostLock::NeverStarted(lock) | HostLock::Died(lock) => {
                if sweep(instance, folder).await {
                    folder.move_to(&self.aside(instance))?;
                }
                drop(lock);
                Ok(())
            }
        }
    }

    fn start_host(&self, folder: &MachineFolder) -> io::Result<()> {
        let Program { path, args } = &self.settings.host_program;
        let log = fs::File::options().create(true).append(true).open(folder.host_log())?;
        // Not waited for: it outlives the daemon. Tokio reaps it should it end before.
        tokio::process::Command::new(path)
            .args(args)
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(false)
            .spawn()?;
        Ok(())
    }

    /// Removes the folder of an instance that ended long ago, all but what a repeated launch needs.
    fn bury(&self, folder: &MachineFolder, machine: &Machine, ended: Ended) -> io::Result<()> {
        if let Some(number) = machine.spot_number {
            let count = self.next_spot_number(&[]).max(number + 1);
            folder::replace(&self.spot_count(), &count.to_string())?;
        }
        let tombstone = self.tombstone(machine.instance);
        tombstone.make()?;
        // The record last: it is what makes the tombstone count.
        tombstone.write_ended(ended)?;
        tombstone.write_machine(machine)?;
        folder.remove()
    }

    fn refused(&self, kind: ErrorKind, message: String) -> ProviderError {
        ProviderError {
            provider: self.settings.name.clone(),
            kind,
            effect: EffectMay::No,
            message,
            source: None,
        }
    }

    fn failed(&self, effect: EffectMay, error: io::Error) -> ProviderError {
        ProviderError {
            provider: self.settings.name.clone(),
            kind: ErrorKind::Unavailable,
            effect,
            message: format!("the records in {} cannot be used", self.settings.root.display()),
            source: Some(Box::new(error)),
        }
    }
}

#[async_trait::async_trait]
impl Provider for LocalProvider {
    fn name(&self) -> &ProviderName {
        &self.settings.name
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        let mut offerings = Vec::new();
        for kind in &self.settings.types {
            for zone in &kind.zones {
                for capacity_type in [CapacityType::Spot, CapacityType::OnDemand] {
                    let Some(price) = kind.price(capacity_type) else { continue };
                    offerings.push(Offering {
                        provider: self.settings.name.clone(),
                        region: Region::new(REGION),
                        zone: zone.clone(),
                        instance_type: Arc::clone(&kind.instance_type),
                        capacity_type,
                        price: Some(price),
                        list_price: None,
                        on_demand_price: kind.on_demand,
                        price_since: None,
                        quota: None,
                        notice: (capacity_type == CapacityType::Spot).then_some(kind.notice),
                        terms: Arc::default(),
                    });
                }
            }
        }
        Ok(offerings)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let _one_at_a_time = self.launching.lock().await;
        let folder = self.folder(request.instance);
        let tombstone = self.tombstone(request.instance);
        if let Some(machine) = tombstone.machine().map_err(|error| self.failed(EffectMay::Maybe, error))? {
            return cloud_instance(&tombstone, &machine, self.clock.now())
                .map_err(|error| self.failed(EffectMay::Maybe, error));
        }
        let known = folder.machine().map_err(|error| self.failed(EffectMay::Maybe, error))?;
        if known.as_ref().is_some_and(|machine| machine.installation != request.installation) {
            return Err(self.refused(ErrorKind::Invalid, format!("{} is not ours", request.instance)));
        }
        let aside = self.aside(request.instance);
        if aside.path().exists() {
            let message =
                format!("its record cannot be read and was put aside as {}", aside.path().display());
            return Err(self.refused(ErrorKind::Invalid, message));
        }
        if known.is_none() {
            let machine = self.draft(request)?;
            let agent = AgentSettings {
                daemon_url: request.daemon_url.clone(),
                instance: request.instance,
                secret_file: folder.secret(),
                work_dir: folder.work(),
                checkpoint_root: self.settings.checkpoint_root.clone(),
                notice: NoticeSource::File { path: folder.notice_file() },
                lease_until: request.lease_until,
                lease_file: Some(folder.lease_file()),
                timer_file: None,
                power_off: false,
                container_engine: None,
                address: Some(loopback_of(request.instance).into()),
            };
            let making = self.settings.root.join("making");
            let (new, secret) = (folder.clone(), request.secret.clone());
            // Aside: it waits for the disk.
            let created = spawn_blocking(move || new.create(&making, &machine, &agent, &secret));
            let created = created.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            created.map_err(|error| self.failed(EffectMay::No, error))?;
        }
        let settled = async {
            let machine =
                folder.machine()?.ok_or_else(|| io::Error::other("the instance's record is gone"))?;
            self.settle(&folder, &machine).await
        };
        settled.await.map_err(|error| self.failed(EffectMay::Maybe, error))
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        let listed = async {
            let Records { machines, unreadable } = self.records()?;
            for (folder, instance) in unreadable {
                if let Err(error) = self.put_aside(&folder, instance).await {
                    tracing::error!(%instance, %error, "an instance whose record cannot be read cannot be put aside");
                }
            }
            let mut instances = Vec::new();
            for (folder, machine) in machines {
                if machine.installation != self.settings.installation {
                    continue;
                }
                instances.push(self.settle(&folder, &machine).await?);
                if let Some(ended) = folder.ended()?
                    && self.clock.now().since(ended.at) > LIST_KEEPS_ENDED
                {
                    self.bury(&folder, &machine, ended)?;
                }
            }
            Ok(instances)
        };
        listed.await.map_err(|error| self.failed(EffectMay::No, error))
    }

    async fn terminate(&self, instance: InstanceId, _: Option<&CloudId>) -> Result<(), ProviderError> {
        let folder = self.folder(instance);
        let terminated = async {
            let Some(machine) = folder.machine()? else { return Ok(()) };
            if machine.installation != self.settings.installation || folder.has_ended() {
                return Ok(());
            }
            folder.write_terminate()?;
            self.settle(&folder, &machine).await.map(drop)
        };
        terminated.await.map_err(|error| self.failed(EffectMay::Maybe, error))
    }
}

impl LocalType {
    fn price(&self, capacity_type: CapacityType) -> Option<UsdPerHour> {
        match capacity_type {
            CapacityType::Spot => self.spot,
            CapacityType::OnDemand => self.on_demand,
            CapacityType::Reserved => None,
        }
    }
}

/// The loopback address of an instance. Each has one of its own, so that several on this machine can listen on the same
/// port; all of 127.0.0.0/8 is this machine (RFC 1122, 3.2.1.3).
fn loopback_of(instance: InstanceId) -> Ipv4Addr {
    let [a, b, c, ..] = split_mix(instance.as_u64()).to_be_bytes();
    // Neither what else listens on 127.0.0.*, nor a first or last address of a network.
    Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254))
}

/// What the record says of an instance.
fn cloud_instance(
    folder: &MachineFolder,
    machine: &Machine,
    now: bursar_model::Timestamp,
) -> io::Result<CloudInstance> {
    let state = match folder.ended()? {
        Some(Ended { at, interrupted }) => CloudState::Gone { at, interrupted },
        None if folder.is_terminated() => CloudState::Stopping,
        None if now < machine.ready_at() => CloudState::Pending,
        None => CloudState::Running,
    };
    Ok(CloudInstance {
        cloud_id: CloudId::new(&format!("local-{}", machine.instance)),
        instance: machine.instance,
        state,
        launched_at: machine.launched_at,
        running_at: None,
        stopping_at: None,
        notice: folder.notice()?.map(|notice| notice.gone_at),
    })
}

/// Kills what is left of an instance whose host is dead. Says whether nothing is left.
async fn sweep(instance: InstanceId, folder: &MachineFolder) -> bool {
    // Containers first: a process in one may have cleared its environment, by which alone the rest is found here.
    if let Err(error) = containers::remove_all(&folder.work(), instance).await {
        tracing::error!(%instance, error, "containers of an instance are left");
        return false;
    }
    let mark = host::mark(instance);
    let which = processes::Which::Marked(&mark);
    for _ in 0..SWEEPS_MAX {
        if processes::kill(which) && processes::kill(which) {
            return true;
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    false
}

impl Program {
    /// This program.
    #[must_use]
    pub fn new(path: &Path, args: &[&str]) -> Self {
        Self { path: path.to_owned(), args: args.iter().map(|arg| (*arg).to_owned()).collect() }
    }
}
