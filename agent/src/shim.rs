//! Starting processes so that they cannot outlive us: the agent's attempts, and a local machine's agent.
//!
//! What a child must do between fork and exec (a session of its own, death with its parent) needs unsafe code when done
//! in the forked child. So we start *ourselves* in another mode, which does that as an ordinary program and then becomes
//! the program that is meant.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setsid};

use crate::folder::Folder;

/// The first argument with which a program calls `exec_shim` on the rest.
pub const EXEC_COMMAND: &str = "agent-exec";

/// What a shell answers when it cannot run a command that exists; ours when the shell itself cannot be run.
const CANNOT_EXECUTE: u8 = 126;

/// Becomes the program that `args` name: the process id of who started it, the program, its arguments. Returns only when that
/// fails.
pub fn exec_shim(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let [starter, program, rest @ ..] = args.as_slice() else {
        eprintln!("usage: {EXEC_COMMAND} STARTER_PID PROGRAM [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let error = match end_with(starter) {
        Ok(()) => Command::new(program).args(rest).exec(),
        Err(error) => error,
    };
    eprintln!("bursar: cannot start {}: {error}", program.display());
    ExitCode::from(CANNOT_EXECUTE)
}

/// A session of its own, whose leader dies with whoever started it.
fn end_with(starter: &OsStr) -> io::Result<()> {
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above: then that signal will never come.
    let starter = starter.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    if starter.is_none() || getppid() != starter {
        return Err(io::Error::other("whoever started this is gone"));
    }
    Ok(())
}

/// A command that becomes this program, in a session of its own, and is killed when the *thread* that starts it ends.
/// The running program must call `exec_shim` where its first argument is `EXEC_COMMAND`.
#[must_use]
pub fn tied_to_this_thread(program: &OsStr) -> Command {
    // Not by its path: the file may have been replaced by a newer version meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg(EXEC_COMMAND).arg(getpid().as_raw_pid().to_string()).arg(program);
    command
}

/// A script as a process of this machine, with this environment and nothing else in it.
pub(crate) fn script(script: &str, folder: &Folder, env: &BTreeMap<String, String>) -> Command {
    let mut command = tied_to_this_thread(shell().as_ref());
    command.args(["-c", script]).current_dir(folder.work()).env_clear().envs(env);
    command
}

/// Starts what one attempt is, with its output in the attempt's log. Its id is also that of its session and of its process
/// group.
pub(crate) fn start(mut command: Command, folder: &Folder) -> io::Result<Pid> {
    let log = append(&folder.log())?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    // The agent reaps all children in one place, adopted ones too, so the handle is not needed.
    Ok(Pid::from_child(&child))
}

/// What every attempt finds in its environment before its own variables come on top. `PATH` is the agent's: on a
/// laptop the tools are where the user's `PATH` says.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge: an attempt's environment starts from the agent's PATH"
)]
pub(crate) fn base_environment(folder: &Folder) -> BTreeMap<String, String> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    BTreeMap::from([
        ("PATH".to_owned(), std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned())),
        ("LANG".to_owned(), std::env::var("LANG").unwrap_or_else(|_| "C.UTF-8".to_owned())),
        ("HOME".to_owned(), folder.work().display().to_string()),
        ("TMPDIR".to_owned(), folder.tmp().display().to_string()),
    ])
}

fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

/// Output goes straight into the file: nothing blocks or gets lost while the agent is busy, and what is written to
/// stdout and stderr keeps its order.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
