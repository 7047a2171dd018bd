//! Finding and ending processes that left their parent: by what their environment holds, by their session, or by whom
//! they descend from.
//!
//! A process that is meant is held by a file descriptor and *then* known again by when it started, so that a signal
//! reaches the one that was looked at and never a later process of the same number. Held before that, all processes of
//! a machine would not fit into the descriptors that we may have.

use std::{fs::File, io::Read, os::fd::OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, pidfd_open,
    pidfd_send_signal, wait,
};

/// The largest environment that is looked through. The kernel's own bound on arguments and environment together is a
/// quarter of the stack, usually 2 MiB.
const ENVIRONMENT_BYTES_MAX: u64 = 4 << 20;

/// What tells the processes of one attempt, or of one instance, from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// They were started with this variable in their environment (`NAME=value`), or
    pub variable: String,
    /// are of this session, if one is known: a program may have cleared or written over its environment, or
    pub session: Option<Pid>,
    /// are of the container with this id, if one is known: the name of its control group holds it, which nothing within
    /// can leave.
    pub container: Option<String>,
}

/// Which processes are meant.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Those with this mark.
    Marked(&'a Mark),
    /// All that descend from this process, but for those with one of these marks and what descends from them.
    DescendedFrom {
        /// Whom they descend from.
        ancestor: Pid,
        /// Whose they are not.
        except: &'a [Mark],
    },
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
    let all = numbers().filter_map(|pid| Some(Seen { pid, stat: Stat::read(pid)? }));
    let meant: Vec<Seen> = match which {
        Which::Marked(mark) => all.filter(|seen| seen.has(mark)).collect(),
        Which::DescendedFrom { ancestor, except } => descendants(ancestor, except, all.collect()),
    };
    meant
        .into_iter()
        .filter(|seen| !seen.stat.ended && seen.pid != getpid())
        .filter_map(|seen| seen.hold())
        .collect()
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

/// Sends SIGTERM to the process group of a container's first process, which is that of its script. Says whether there was
/// one.
pub(crate) fn terminate_container(mark: &Mark) -> bool {
    let Some(container) = &mark.container else { return false };
    let is_first = |pid: &Pid| is_in_container(*pid, container) && is_first_of_its_namespace(*pid);
    numbers().find(is_first).is_some_and(|first| kill_process_group(first, Signal::TERM).is_ok())
}

/// All children that ended since, adopted ones too. As many as there are; each is given once.
#[must_use]
pub fn reap() -> Vec<(Pid, WaitStatus)> {
    std::iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).collect()
}

/// A process as it was when it was looked at.
struct Seen {
    pid: Pid,
    stat: Stat,
}

impl Seen {
    fn has(&self, mark: &Mark) -> bool {
        mark.session.is_some_and(|session| session.as_raw_pid() == self.stat.session)
            || has_variable(self.pid, mark.variable.as_bytes())
            || mark.container.as_ref().is_some_and(|container| is_in_container(self.pid, container))
    }

    /// The same process, held; `None` where it is gone.
    fn hold(&self) -> Option<Process> {
        let process = Process::open(self.pid)?;
        (Stat::read(self.pid)?.started == self.stat.started).then_some(process)
    }
}

/// Keeps what descends from `ancestor`, without the branches that begin with one of the marks. Each round adds a
/// generation, so there are at most as many as processes.
fn descendants(ancestor: Pid, except: &[Mark], all: Vec<Seen>) -> Vec<Seen> {
    let mut kin = vec![ancestor.as_raw_pid()];
    let mut rest = all;
    let mut found = Vec::new();
    loop {
        let (children, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|seen| kin.contains(&seen.stat.parent));
        if children.is_empty() {
            return found;
        }
        for child in children {
            if !except.iter().any(|mark| child.has(mark)) {
                kin.push(child.pid.as_raw_pid());
                found.push(child);
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
    /// In ticks since the machine booted.
    started: u64,
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
        // The 22nd field of the line; the session is the sixth.
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { ended: matches!(state, "Z" | "X"), parent, session, started })
    }
}

fn has_variable(pid: Pid, variable: &[u8]) -> bool {
    read_limited(pid, "environ", ENVIRONMENT_BYTES_MAX)
        .is_some_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == variable))
}

fn is_in_container(pid: Pid, container: &str) -> bool {
    read_limited(pid, "cgroup", 1 << 16)
        .is_some_and(|groups| String::from_utf8_lossy(&groups).contains(container))
}

/// Whether it is process 1 of a namespace that is not ours.
fn is_first_of_its_namespace(pid: Pid) -> bool {
    let Some(status) = read_limited(pid, "status", 1 << 16) else { return false };
    let status = String::from_utf8_lossy(&status);
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    // The first is its number here.
    numbers.unwrap_or_default().split_ascii_whitespace().skip(1).last() == Some("1")
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
        let mark = |variable: &str| Mark { variable: variable.to_owned(), session: None, container: None };
        let (whole, part) = ([mark("BURSAR_TEST_MARK=a b")], [mark("BURSAR_TEST_MARK=a")]);
        let numbers = |which| find(which).iter().map(Process::pid).collect::<Vec<_>>();
        // `spawn` returns while the kernel still sets up the new program: for a moment it shows no environment.
        let found = (0..100_000).any(|_| {
            std::thread::yield_now();
            numbers(Which::Marked(&whole[0])) == [pid]
        });
        assert!(found);
        assert!(numbers(Which::Marked(&part[0])).is_empty());
        let descended = |except| numbers(Which::DescendedFrom { ancestor: getpid(), except });
        assert!(descended(&part).contains(&pid));
        assert!(!descended(&whole).contains(&pid));
        assert!(!kill(Which::Marked(&whole[0])));
        child.wait().unwrap();
        assert!(kill(Which::Marked(&whole[0])));
    }

    #[test]
    fn what_descends_from_an_excepted_process_is_excepted_too() {
        let seen = |pid: i32, parent, session| Seen {
            pid: Pid::from_raw(pid).unwrap(),
            stat: Stat { ended: false, parent, session, started: 0 },
        };
        // No such variable is in any environment, so that sessions alone decide.
        let session = Pid::from_raw(20_000_002);
        let mark = Mark { variable: "BURSAR_TEST_MARK=none".to_owned(), session, container: None };
        let (root, child, other) = (20_000_001, 20_000_002, 20_000_004);
        let all =
            || vec![seen(child, root, child), seen(20_000_003, child, 20_000_003), seen(other, root, other)];
        let found = |except| {
            let found = descendants(Pid::from_raw(root).unwrap(), except, all());
            found.iter().map(|seen| seen.pid.as_raw_pid()).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), [child, other, 20_000_003]);
        assert_eq!(found(&[mark]), [other]);
    }
}
