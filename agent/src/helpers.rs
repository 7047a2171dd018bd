//! Programs that the agent runs for itself, such as the one that pulls an image.
//!
//! The agent reaps all its children in one place, those among them that nobody waits for. So tokio's own way to wait for a
//! child, which reaps it, cannot be used here: whoever waits is told by the loop.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, RawPid, Signal, WaitStatus, kill_process, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdout},
    sync::oneshot,
    time::timeout,
};

/// How much of what a helper writes is kept: ids and digests are far shorter, and of a complaint its end is what counts.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The helpers that run, each with who waits for it. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Helpers(Arc<Mutex<BTreeMap<RawPid, oneshot::Sender<WaitStatus>>>>);

impl Helpers {
    /// Runs a program to its end and gives what it wrote to stdout. All that it writes is appended to the file `echo` as
    /// well. One that takes longer than `limit` is killed. Must be called on the agent's own thread, with which the
    /// program ends.
    ///
    /// # Errors
    /// Why it failed, for people: the last line of its complaint.
    pub(crate) async fn run(
        &self,
        mut command: Command,
        echo: Option<&Path>,
        limit: Duration,
    ) -> Result<String, String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let pid = Pid::from_child(&child);
        let (sender, ended) = oneshot::channel();
        // The loop runs on this thread too, so the child cannot have been reaped before this line.
        self.running().insert(pid.as_raw_pid(), sender);
        let out = child.stdout.take().map(ChildStdout::from_std).transpose();
        let err = child.stderr.take().map(ChildStderr::from_std).transpose();
        let (Ok(Some(out)), Ok(Some(err))) = (out, err) else {
            self.kill(pid);
            return Err("its output cannot be read".to_owned());
        };
        let all = async { tokio::join!(ended, read(out, echo), read(err, echo)) };
        let Ok((ended, out, err)) = timeout(limit, all).await else {
            self.kill(pid);
            return Err(format!("it took longer than {} s", limit.as_secs()));
        };
        match ended.map(|status| status.exit_status()) {
            Ok(Some(0)) => Ok(out),
            status => {
                let complaint = err.lines().chain(out.lines()).rev().find(|line| !line.trim().is_empty());
                Err(complaint.map_or_else(|| format!("it ended with {status:?}"), str::to_owned))
            }
        }
    }

    /// A child of the agent ended: says whether it was a helper.
    pub(crate) fn exited(&self, pid: Pid, status: WaitStatus) -> bool {
        let waiting = self.running().remove(&pid.as_raw_pid());
        // Whoever waited may have given up.
        waiting.map(|waiting| waiting.send(status)).is_some()
    }

    /// Kills one that was not reaped yet, so that its number is still its own.
    fn kill(&self, pid: Pid) {
        if self.running().contains_key(&pid.as_raw_pid()) && kill_process_group(pid, Signal::KILL).is_err() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<RawPid, oneshot::Sender<WaitStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads to the end, keeping the last of it.
async fn read(mut from: impl AsyncRead + Unpin, echo: Option<&Path>) -> String {
    let mut echo = echo.and_then(|path| File::options().create(true).append(true).open(path).ok());
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    // Ends with the program, or with the limit on its time.
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if let Some(echo) = &mut echo {
            let _ = echo.write_all(&chunk[..count]);
        }
        kept.extend_from_slice(&chunk[..count]);
        if kept.len() > KEPT_BYTES_MAX {
            kept.drain(..kept.len() - KEPT_BYTES_MAX);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}
