//! The machine that a local instance runs on, played by a process: it boots (starts the agent), is taken back by the
//! cloud (notice, then kill), is terminated, or ends with its agent or its lease. It outlives the daemon.
//!
//! However a machine ends, nothing of it is left: the host is the subreaper of its agent, so that even what has left its
//! session and cleared its environment comes back to it and is killed. Only when the host itself is killed with SIGKILL
//! has such a process nobody to come back to; all others end with the agent, or are found by their environment.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use bursar_agent::{
    Notice, containers,
    processes::{self, Mark, Which},
    tied_to_this_thread, wall_clock,
};
use bursar_model::{InstanceId, Span, Timestamp};
use rustix::process::{Pid, getpid, set_child_subreaper, setsid};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::folder::{self, Ended, HostLock, Machine, MachineFolder};

/// How long after the end of its lease an instance is ended though its agent does not do so. The agent needs none of
/// this; the configuration refuses a drain allowance, which is what is paid for beyond a lease, that is not longer.
const HUNG_AGENT_ALLOWANCE: Span = Span::from_secs(2);

/// How often the host says that it lives: what a machine is charged after its host died unseen is known no better. Also
/// the longest sleep, so that a stepped clock or a suspended laptop delays nothing for longer.
pub(crate) const HEARTBEAT: Span = Span::from_secs(1);

/// How often, with how much time between, the lock is tried: whoever looks whether a host lives holds it for a moment.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The variable that every process of an instance has in its environment.
const MARK: &str = "BURSAR_INSTANCE_ID";

/// What every process of an instance is known by, unless it cleared its environment.
pub(crate) fn mark(instance: InstanceId) -> Mark {
    Mark { variable: format!("{MARK}={instance}"), session: None, container: None }
}

/// When a machine with such a lease ends at the latest.
pub(crate) fn hard_end(lease_until: Timestamp) -> Timestamp {
    lease_until + HUNG_AGENT_ALLOWANCE
}

/// Plays the machine of the instance in this folder until it ends. At once, when another host plays it or it has ended.
///
/// # Errors
/// When the folder cannot be used. Whoever lists the instances next clears up then.
pub fn run(folder: &Path) -> io::Result<()> {
    // A session of its own, lest Ctrl-C for the daemon end its instances. It fails where we have one already.
    let _ = setsid();
    set_child_subreaper(Some(getpid()))?;
    let folder = MachineFolder::new(folder.to_owned());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(play(&folder))
}

/// What the host sees when it wakes up.
#[derive(Debug, Clone, Copy)]
struct Seen {
    now: Timestamp,
    lease_until: Timestamp,
    terminate: bool,
    agent: AgentState,
    gone_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AgentState {
    NotStarted,
    Running(Pid),
    Exited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    WaitUntil(Timestamp),
    StartAgent,
    GiveNotice(Notice),
    End { interrupted: bool },
}

/// What to do next.
fn next_step(machine: &Machine, seen: Seen) -> Step {
    let Seen { now, lease_until, terminate, agent, gone_at } = seen;
    let hard_end = hard_end(lease_until);
    if gone_at.is_some_and(|at| now >= at) {
        return Step::End { interrupted: true };
    }
    if terminate || agent == AgentState::Exited || now >= hard_end {
        return Step::End { interrupted: false };
    }
    if agent == AgentState::NotStarted {
        return if now >= machine.ready_at() {
            Step::StartAgent
        } else {
            Step::WaitUntil(machine.ready_at().min(hard_end))
        };
    }
    match (gone_at, machine.interrupt_at()) {
        (Some(gone_at), _) => Step::WaitUntil(gone_at.min(hard_end)),
        (None, Some(at)) if now >= at => Step::GiveNotice(Notice { gone_at: now + machine.notice }),
        (None, Some(at)) => Step::WaitUntil(at.min(hard_end)),
        (None, None) => Step::WaitUntil(hard_end),
    }
}

async fn play(folder: &MachineFolder) -> io::Result<()> {
    // Before the lock says who we are: from then on we may be signalled.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child_ended = signal(SignalKind::child())?;
    let Some(lock) = lock(folder).await? else { return Ok(()) };
    let Some(machine) = folder.machine()? else { return Ok(()) };
    let lived = live(folder, &machine, &lock, &mut terminate, &mut child_ended).await;
    // A host that can go on no longer is a machine that broke: whatever it runs ends with it.
    end(folder, &machine, matches!(lived, Ok(Interrupted(true)))).await?;
    lived.map(drop)
}

/// Whether the cloud took the machine back.
struct Interrupted(bool);

/// Does what is due until the machine's end is.
async fn live(
    folder: &MachineFolder,
    machine: &Machine,
    lock: &File,
    terminate: &mut Signal,
    child_ended: &mut Signal,
) -> io::Result<Interrupted> {
    let mut agent = AgentState::NotStarted;
    loop {
        // Where it cannot, only the charge of a machine whose host dies comes out too small.
        let _ = folder::beat(lock);
        if let AgentState::Running(pid) = agent
            && processes::reap().iter().any(|(ended, _)| *ended == pid)
        {
            agent = AgentState::Exited;
        }
        let seen = Seen {
            now: wall_clock(),
            lease_until: folder.lease_until(machine),
            terminate: folder.is_terminated(),
            agent,
            gone_at: folder.notice()?.map(|notice| notice.gone_at),
        };
        match next_step(machine, seen) {
            Step::StartAgent => agent = AgentState::Running(start_agent(folder, machine)?),
            Step::GiveNotice(notice) => folder.write_notice(notice)?,
            Step::End { interrupted } => return Ok(Interrupted(interrupted)),
            Step::WaitUntil(at) => {
                let pause = at.since(seen.now).min(HEARTBEAT).to_std();
                tokio::select! {
                    biased;
                    _ = terminate.recv() => {} // Its file is there.
                    _ = child_ended.recv() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

/// The lock that makes us the host; `None` when there is another, or the instance is over.
async fn lock(folder: &MachineFolder) -> io::Result<Option<File>> {
    for _ in 0..LOCK_TRIES {
        match folder.try_lock_host()? {
            HostLock::NeverStarted(mut lock) => {
                if folder.has_ended() {
                    return Ok(None);
                }
                write!(lock, "{}", getpid().as_raw_pid())?;
                return Ok(Some(lock));
            }
            // Whoever looks next clears up after that one; a machine does not boot twice.
            HostLock::Died(_) => return Ok(None),
            HostLock::Alive => sleep(LOCK_PAUSE).await,
        }
    }
    Ok(None)
}

fn start_agent(folder: &MachineFolder, machine: &Machine) -> io::Result<Pid> {
    let log = File::options().create(true).append(true).open(folder.agent_log())?;
    // Without its machine no agent runs on.
    let child = tied_to_this_thread(machine.agent.path.as_os_str())
        .args(&machine.agent.args)
        .arg(folder.agent_settings())
        .env(MARK, machine.instance.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

/// Switches the machine off: only when nothing of it runs any more is it over. There is no bound on how often that is
/// tried, since an instance that is said to be gone while something of it runs would be a leak.
async fn end(folder: &MachineFolder, machine: &Machine, interrupted: bool) -> io::Result<()> {
    let mark = mark(machine.instance);
    let mut clean = 0;
    let mut pause = Duration::from_millis(5);
    while clean < 2 {
        let descended = processes::kill(Which::DescendedFrom { ancestor: getpid(), except: &[] });
        let marked = processes::kill(Which::Marked(&mark));
        let _ = processes::reap();
        if descended && marked {
            clean += 1;
        } else {
            clean = 0;
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
    // Whatever ran in them is dead: an engine that hangs keeps disk space, but no machine from being over.
    if let Err(error) = containers::remove_all(&folder.work(), machine.instance).await {
        tracing::error!(instance = %machine.instance, error, "containers of an instance are left");
    }
    folder.write_ended(Ended { at: wall_clock(), interrupted })?;
    folder.remove_work()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bursar_model::{TypeName, TypedId};

    use super::*;
    use crate::local::Program;

    const fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn machine() -> Machine {
        Machine {
            installation: "test".to_owned(),
            instance: InstanceId::from_u64(1),
            instance_type: TypeName::new("small"),
            spot_number: Some(0),
            launched_at: at(100),
            boot: Span::from_secs(5),
            interrupt_after: Some(Span::from_secs(20)),
            notice: Span::from_secs(3),
            lease_until: at(1000),
            agent: Program { path: PathBuf::from("agent"), args: Vec::new() },
        }
    }

    fn running(now: i64) -> Seen {
        let agent = AgentState::Running(getpid());
        Seen { now: at(now), lease_until: at(1000), terminate: false, agent, gone_at: None }
    }

    #[test]
    fn a_machine_boots_then_works_then_gets_its_notice_then_is_gone() {
        let booting = Seen { agent: AgentState::NotStarted, ..running(101) };
        assert_eq!(next_step(&machine(), booting), Step::WaitUntil(at(105)));
        assert_eq!(next_step(&machine(), Seen { now: at(105), ..booting }), Step::StartAgent);
        assert_eq!(next_step(&machine(), running(106)), Step::WaitUntil(at(125)));
        assert_eq!(next_step(&machine(), running(125)), Step::GiveNotice(Notice { gone_at: at(128) }));
        let noticed = Seen { gone_at: Some(at(128)), ..running(126) };
        assert_eq!(next_step(&machine(), noticed), Step::WaitUntil(at(128)));
        assert_eq!(next_step(&machine(), Seen { now: at(128), ..noticed }), Step::End { interrupted: true });
    }

    #[test]
    fn a_machine_ends_when_terminated_or_left_by_its_agent_or_out_of_lease() {
        let end = Step::End { interrupted: false };
        assert_eq!(next_step(&machine(), Seen { terminate: true, ..running(106) }), end);
        assert_eq!(next_step(&machine(), Seen { agent: AgentState::Exited, ..running(106) }), end);
        assert_eq!(next_step(&machine(), Seen { lease_until: at(104), ..running(106) }), end);
        let booting = Seen { agent: AgentState::NotStarted, terminate: true, ..running(101) };
        assert_eq!(next_step(&machine(), booting), end);
    }
}
