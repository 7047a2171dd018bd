//! The cloud's record of one local instance: a folder, made in one step and never changed but by adding a file.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bursar_agent::{AgentSettings, Notice, processes::Process};
use bursar_model::{InstanceId, Span, Timestamp, TypeName};
use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Program;

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
    /// another process made it meanwhile is no error.
    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
    pub(crate) fn create(
        &self,
        making: &Path,
        machine: &Machine,
        agent: &AgentSettings,
        secret: &str,
    ) -> io::Result<()> {
        let draft = Self(making.join(format!("{}-{}", machine.instance, std::process::id())));
        draft.make()?;
        write(&draft.agent_settings(), &serde_json::to_string_pretty(agent)?)?;
        let mut secret_file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(draft.secret())?;
        secret_file.write_all(secret.as_bytes())?;
        draft.write_machine(machine)?;
        if let Some(parent) = self.0.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::rename(&draft.0, &self.0) {
            // A folder that is not empty is not replaced.
            Err(_) if self.machine()?.is_some() => draft.remove(),
            renamed => renamed,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
    pub(crate) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)
    }

    #[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are removed here")]
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.0)
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

    pub(crate) fn ended(&self) -> io::Result<Option<Ended>> {
        read_json(&self.ended_file())
    }

    pub(crate) fn write_ended(&self, ended: Ended) -> io::Result<()> {
        replace(&self.ended_file(), &serde_json::to_string(&ended)?)
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.0.join("terminate").exists()
    }

    pub(crate) fn write_terminate(&self) -> io::Result<()> {
        write(&self.0.join("terminate"), "")
    }

    pub(crate) fn notice(&self) -> io::Result<Option<Notice>> {
        read_json(&self.notice_file())
    }

    pub(crate) fn write_notice(&self, notice: Notice) -> io::Result<()> {
        replace(&self.notice_file(), &serde_json::to_string(&notice)?)
    }

    /// The end of the lease as the agent last wrote it down.
    pub(crate) fn renewed_lease(&self) -> Option<Timestamp> {
        read(&self.lease_file()).ok().flatten()?.trim().parse().ok()
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

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let broken = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()));
    serde_json::from_str(&text).map(Some).map_err(broken)
}

#[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are read here")]
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

/// Writes a file so that a reader sees all of it or none.
#[expect(clippy::disallowed_methods, reason = "the edge: the cloud's records are written here")]
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
