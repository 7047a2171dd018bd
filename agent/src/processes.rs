//! Finding and ending processes that left their parent: by what their environment holds, or by their session.
//!
//! A process is held by a file descriptor *before* it is looked at, so that the signal reaches the one that was looked
//! at and never a later process of the same number.

use std::{fs::File, io::Read, os::fd::OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, pidfd_open, pidfd_send_signal, wait,
};

/// The largest environment that is looked through. The kernel's own bound on arguments and environment together is a
/// quarter of the stack, usually 2 MiB.
const ENVIRONMENT_BYTES_MAX: u64 = 4 << 20;

/// Which processes are meant.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Those started with this variable in their environment (`NAME=value`), and all of this session, if one is given:
    /// a program may have written over its environment.
    Marked {
        /// The variable.
        variable: &'a str,
        /// The session.
        session: Option<Pid>,
    },
    /// All that descend from this process.
    DescendedFrom(Pid),
}

/// A process that cannot be taken for a later one of the same number.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// The process that has this number now, if there is one.
    #[must_use]
    pub fn open(pid: Pid) -> Option<Self> {
        pidfd_open(pid, PidfdFlags::empty()).ok().map(|handle| Self { pid, handle })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal. That it has ended meanwhile is no error.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid.as_raw_pid(), %error, "a process cannot be signalled");
        }
    }
}

/// The processes that are meant and run. Never the caller itself, never what has ended and only waits to be reaped.
#[must_use]
pub fn find(which: Which<'_>) -> Vec<Process> {
    let mut found = Vec::new();
    let mut family = Vec::new();
    for pid in numbers() {
        let Some(process) = Process::open(pid) else { continue };
        let Some(stat) = Stat::read(pid) else { continue };
        match which {
            Which::Marked { variable, session } => {
                let meant = session.is_some_and(|session| session.as_raw_pid() == stat.session)
                    || has_variable(pid, variable.as_bytes());
                if meant && !stat.ended && pid != getpid() {
                    found.push(process);
                }
            }
            Which::DescendedFrom(_) => family.push((process, stat)),
        }
    }
    if let Which::DescendedFrom(ancestor) = which {
        found = descendants(ancestor, family);
    }
    found
}

/// Sends SIGKILL to all that are meant. Says whether there was none: then, asked twice, nothing is left. (A process
/// may fork and end between being passed over and being found, which only a second look notices.)
#[must_use]
pub fn kill(which: Which<'_>) -> bool {
    let found = find(which);
    for process in &found {
        process.signal(Signal::KILL);
    }
    found.is_empty()
}

/// All children that ended since, adopted ones too. As many as there are; each is given once.
#[must_use]
pub fn reap() -> Vec<(Pid, WaitStatus)> {
    std::iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).collect()
}

/// Keeps what descends from `ancestor`. Each round adds a generation, so there are at most as many as processes.
fn descendants(ancestor: Pid, family: Vec<(Process, Stat)>) -> Vec<Process> {
    let mut kin = vec![ancestor.as_raw_pid()];
    let mut rest = family;
    let mut found = Vec::new();
    loop {
        let (children, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(_, stat)| kin.contains(&stat.parent));
        if children.is_empty() {
            return found;
        }
        for (process, stat) in children {
            kin.push(process.pid.as_raw_pid());
            if !stat.ended {
                found.push(process);
            }
        }
        rest = others;
    }
}

/// What `/proc/<pid>/stat` says of a process.
struct Stat {
    ended: bool,
    parent: i32,
    session: i32,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        let text = read_limited(pid, "stat", 4096)?;
        // The name in brackets may hold anything, further brackets among it: what follows the last one is fixed.
        let text = String::from_utf8_lossy(&text);
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { ended: matches!(state, "Z" | "X"), parent, session })
    }
}

fn has_variable(pid: Pid, variable: &[u8]) -> bool {
    read_limited(pid, "environ", ENVIRONMENT_BYTES_MAX)
        .is_some_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == variable))
}

/// A process that is gone, or another user's, is read as nothing.
fn read_limited(pid: Pid, name: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let file = File::open(format!("/proc/{}/{name}", pid.as_raw_pid())).ok()?;
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).ok()?;
    Some(content)
}

fn numbers() -> impl Iterator<Item = Pid> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_found_by_its_environment_and_by_its_ancestor() {
        let mut child = Command::new("sleep").arg("60").env("BURSAR_TEST_MARK", "a b").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let marked = |variable| find(Which::Marked { variable, session: None });
        assert_eq!(marked("BURSAR_TEST_MARK=a b").iter().map(Process::pid).collect::<Vec<_>>(), [pid]);
        assert!(marked("BURSAR_TEST_MARK=a").is_empty());
        assert!(find(Which::DescendedFrom(getpid())).iter().any(|process| process.pid() == pid));
        assert!(!kill(Which::Marked { variable: "BURSAR_TEST_MARK=a b", session: None }));
        child.wait().unwrap();
        assert!(kill(Which::Marked { variable: "BURSAR_TEST_MARK=a b", session: None }));
    }
}
