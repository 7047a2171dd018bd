//! Which processes of an installation run, by what the system says of them.

use std::{collections::BTreeMap, fs, path::Path};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// What runs: the number of each process with its command line.
pub type Running = BTreeMap<i32, String>;

/// Every process that has one of these texts in its command line or its environment. What has ended and waits to be
/// reaped has neither.
#[must_use]
pub fn marked(marks: &[String]) -> Running {
    let mut found = Running::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if pid == getpid().as_raw_pid() {
            continue;
        }
        // Gone meanwhile, or not ours to look at: both are none of this installation.
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let command_line = text(&read("cmdline"));
        let environment = text(&read("environ"));
        if marks.iter().any(|mark| command_line.contains(mark) || environment.contains(mark)) {
            found.insert(pid, command_line);
        }
    }
    found
}

/// The marks of instances: what each process of one has in its environment.
#[must_use]
pub fn instance_marks(instances: &[String]) -> Vec<String> {
    instances.iter().map(|id| format!("BURSAR_INSTANCE_ID={id}")).collect()
}

/// Sends a signal; that the process is gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs (and is not merely waiting to be reaped).
#[must_use]
pub fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// The text of a file that a test expects to be there.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn file(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\n")
}
