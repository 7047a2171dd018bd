//! The cloud's record of one local instance: a folder, made in one step and never changed but by adding a file. Records
//! are on the disk before anybody is told of them: a machine whose record a power cut emptied would have no owner.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use bursar_agent::{AgentSettings, Notice, processes::Process, timestamp, wall_clock};
use bursar_model::{InstanceId, Span, Timestamp, TypeName};
use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Program;

/// How often a folder is removed while somebody may still add to it.
const REMOVALS_MAX: u32 = 10;

/// What was asked for, and what chance decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Whose it is.
    pub(crate) installation: String,
    /// Which instance.
    pub(crate) instance: InstanceId,
    /// What it is.
    pub(crate) instance_type: TypeName,
    /// Which spot instance it is, counted from 0; none for others.
    pub(crate) spot_number: Option<u32>,
    /// When billing began.
    pub(crate) launched_at: Timestamp,
    /// How long it boots.
    pub(crate) boot: Span,
    /// How long after its boot the notice comes.
    pub(crate) interrupt_after: Option<Span>,
    /// From the notice to the end.
    pub(crate) notice: Span,
    /// When its first lease ends.
    pub(crate) lease_until: Timestamp,
    /// What to start as its agent.
    pub(crate) agent: Program,
}

impl Machine {
    /// When its agent starts.
    pub(crate) fn ready_at(&self) -> Timestamp {
        self.launched_at + self.boot
    }

    /// When it gets its notice.
    pub(crate) fn interrupt_at(&self) -> Option<Timestamp> {
        self.interrupt_after.map(|after| self.ready_at() + after)
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// When nothing of it ran any more.
    pub(crate) at: Timestamp,
    /// Whether the cloud took it back.
    pub(crate) interrupted: bool,
}

/// What the lock says of an instance's host. Where there is none, the caller has the lock.
#[derive(Debug)]
pub(crate) enum HostLock {
    Alive,
    NeverStarted(File),
    Died(File),
}

/// The folder of one instance.
#[derive(Debug, Clone)]
pub(crate) struct MachineFolder(PathBuf);

impl MachineFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.0.join("secret")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub(crate) fn notice_file(&self) -> PathBuf {
        self.0.join("notice.json")
    }

    pub(crate) fn lease_file(&self) -> PathBuf {
        self.0.join("lease")
    }

    pub(crate) fn agent_settings(&self) -> PathBuf {
        self.0.join("agent.json")
    }

    pub(crate) fn agent_log(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    pub(crate) fn host_log(&self) -> PathBuf {
        self.0.join("host.log")
    }

    /// Makes the folder with all that the host and the agent need, in one step: there is all of it or nothing. That
    /// another process made it meanwhile is no error. Slow where the disk is.
    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
    pub(crate) fn create(
        &self,
        making: &Path,
        machine: &Machine,
        agent: &AgentSettings,
        secret: &str,
    ) -> io::Result<()> {
        // Nobody else has this name: not another process, nor another thread that makes the same instance.
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = Self(making.join(format!("{}-{}-{number}", machine.instance, std::process::id())));
        draft.make()?;
        write(&draft.agent_settings(), &serde_json::to_string_pretty(agent)?)?;
        let mut secret_file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(draft.secret())?;
        secret_file.write_all(secret.as_bytes())?;
        secret_file.sync_all()?;
        draft.write_machine(machine)?;
        sync_folder(&draft.0)?;
        let Some(parent) = self.0.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
        fs::create_dir_all(parent)?;
        match fs::rename(&draft.0, &self.0) {
            Ok(()) => sync_folder(parent),
            // A folder that is not empty is not replaced.
            Err(_) if self.machine()?.is_some() => draft.remove(),
            Err(error) => Err(error),
        }
    }

    /// Puts the folder somewhere else, where nothing has that name yet.
    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are put aside here")]
    pub(crate) fn move_to(&self, to: &Self) -> io::Result<()> {
        if let Some(parent) = to.0.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&self.0, &to.0)
    }

    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
    pub(crate) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)
    }

    /// Whose host is still at its last lines may add a file meanwhile, so that it takes another try.
    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are removed here")]
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut removed = fs::remove_dir_all(&self.0);
        for _ in 1..REMOVALS_MAX {
            match &removed {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    removed = fs::remove_dir_all(&self.0);
                }
                Ok(()) | Err(_) => break,
            }
        }
        removed
    }

    /// An ended machine's disk is gone, as in any cloud.
    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are removed here")]
    pub(crate) fn remove_work(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.work()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The record; `None` where there never was such an instance.
    pub(crate) fn machine(&self) -> io::Result<Option<Machine>> {
        read_json(&self.0.join("machine.json"))
    }

    pub(crate) fn write_machine(&self, machine: &Machine) -> io::Result<()> {
        write(&self.0.join("machine.json"), &serde_json::to_string_pretty(machine)?)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended_file().exists()
    }

    /// Its end, if it has come. An end of which no more can be read came when it was written down.
    pub(crate) fn ended(&self) -> io::Result<Option<Ended>> {
        let path = self.ended_file();
        match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "the end of an instance cannot be read");
                let at = timestamp(path.metadata()?.modified()?);
                Ok(Some(Ended { at, interrupted: false }))
            }
            read => read,
        }
    }

    pub(crate) fn write_ended(&self, ended: Ended) -> io::Result<()> {
        replace(&self.ended_file(), &serde_json::to_string(&ended)?)
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.0.join("terminate").exists()
    }

    /// Says that the machine is to end. Gives when that was said first.
    pub(crate) fn write_terminate(&self) -> io::Result<Timestamp> {
        let path = self.0.join("terminate");
        if !path.exists() {
            write(&path, "")?;
        }
        Ok(timestamp(path.metadata()?.modified()?))
    }

    /// The notice, if there is one. It only informs: one that cannot be read is none.
    pub(crate) fn notice(&self) -> io::Result<Option<Notice>> {
        match read_json(&self.notice_file()) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "the notice of an instance cannot be read");
                Ok(None)
            }
            read => read,
        }
    }

    pub(crate) fn write_notice(&self, notice: Notice) -> io::Result<()> {
        replace(&self.notice_file(), &serde_json::to_string(&notice)?)
    }

    /// The end of the lease as the agent last wrote it down, or else of the first one.
    pub(crate) fn lease_until(&self, machine: &Machine) -> Timestamp {
        let renewed = || read(&self.lease_file()).ok().flatten()?.trim().parse().ok();
        renewed().unwrap_or(machine.lease_until)
    }

    /// Takes the host's lock, or says that the host has it.
    pub(crate) fn try_lock_host(&self) -> io::Result<HostLock> {
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.0.join("host.lock"))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(HostLock::Alive),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        let mut pid = String::new();
        lock.read_to_string(&mut pid)?;
        Ok(if pid.is_empty() { HostLock::NeverStarted(lock) } else { HostLock::Died(lock) })
    }

    /// The host, while it lives. Opened *before* the lock is looked at: while that is held, the number in it is that of
    /// a living process, so it cannot have been given to another.
    pub(crate) fn host(&self) -> io::Result<Option<Process>> {
        let pid = read(&self.0.join("host.lock"))?.and_then(|text| text.trim().parse().ok());
        let process = pid.and_then(Pid::from_raw).and_then(Process::open);
        Ok(match self.try_lock_host()? {
            HostLock::Alive => process,
            HostLock::NeverStarted(_) | HostLock::Died(_) => None,
        })
    }

    fn ended_file(&self) -> PathBuf {
        self.0.join("ended.json")
    }
}

/// Says in the host's lock that the host lives.
pub(crate) fn beat(lock: &File) -> io::Result<()> {
    lock.set_modified(UNIX_EPOCH + Duration::from_millis(wall_clock().as_millis().unsigned_abs()))
}

/// When the host of that lock last said that it lives.
pub(crate) fn last_beat(lock: &File) -> io::Result<Timestamp> {
    Ok(timestamp(lock.metadata()?.modified()?))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let broken = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()));
    serde_json::from_str(&text).map(Some).map_err(broken)
}

#[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are read here")]
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Writes a file so that a reader sees all of it or none.
#[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    write(&new, text)?;
    fs::rename(&new, path)
}

/// What was added to a folder is there after a power cut too.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
