//! Ending the machine, where it is the agent's to end: a rented one costs money until it is off.

use std::{process::Stdio, time::Duration};

use rustix::{
    fs::sync,
    system::{RebootCommand, reboot},
};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

/// How the system is asked, so that it unmounts its disks. Where there is no systemd the second is another program.
const ORDERLY: [(&str, &[&str]); 2] = [("systemctl", &["--no-block", "poweroff"]), ("poweroff", &[])];

/// How long a program that asks may take.
const ASKING_MAX: Duration = Duration::from_secs(5);

/// How long the system may take to end in good order, before the kernel is told to end at once: what stops slowly was not
/// started by us, and each second is paid for.
const ORDERLY_MAX: Duration = Duration::from_secs(20);

/// How long the disks may take to write down what they hold back. One that hangs must not keep the machine.
const SYNC_MAX: Duration = Duration::from_secs(5);

/// Powers the machine off. Returns only where it may not.
pub(crate) async fn off() {
    for (program, args) in ORDERLY {
        let asked = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).status();
        if matches!(timeout(ASKING_MAX, asked).await, Ok(Ok(status)) if status.success()) {
            sleep(ORDERLY_MAX).await;
            tracing::warn!(program, "the machine is still on: the kernel is told");
            break;
        }
    }
    // What hangs in it hangs for good: the thread is left behind.
    let _ = timeout(SYNC_MAX, tokio::task::spawn_blocking(sync)).await;
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        tracing::error!(%error, "the machine cannot be powered off: it ends with its shutdown timer, or by its provider");
    }
}
