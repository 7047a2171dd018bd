//! What the demo plays: a configuration, and a sweep with more trials than its budget pays for.

use std::{io, net::TcpListener, path::Path};

/// The configuration's file name.
pub(crate) const CONFIG: &str = "bursar.yaml";
/// The sweep's file name.
pub(crate) const SWEEP: &str = "sweep.yaml";

/// Seconds of training of each trial, summed over its attempts. Bounded by time, so that a trial costs about the same
/// on every machine.
const TRAINING_SECONDS: u32 = 4;

/// A small cloud: prices of a large one, so that seconds show up on the bill.
fn config(port: u16) -> String {
    format!(
        "\
# The configuration of `bursar demo`: a small cloud made of processes on this machine.
installation: demo
data_dir: data
listen: 127.0.0.1:{port}

projects:
  digits: {{budget: 1.00}}       # dollars; a hard cap

policy:
  lease: 12s                    # an instance is paid for this long ahead, and ends itself after
  drain_allowance: 3s
  idle_duration: 3s
  heartbeat: 1s
  observe_interval: 500ms
  max_instances: 4

providers:
  local:
    type: local
    seed: 7
    interruptions: [3500ms]     # the first spot instance is taken back in the middle of its first trial
    types:
      v100-1: {{accelerators: \"V100:1\", cpus: 1, memory: 2, on_demand: 24.00, spot: 7.20, notice: 2s, boot: 400ms}}
      a100-1: {{accelerators: \"A100:1\", cpus: 1, memory: 2, on_demand: 32.00, spot: 9.60, notice: 2s, boot: 400ms}}
"
    )
}

fn sweep(program: &Path) -> String {
    let program = program.display();
    format!(
        "\
# A sweep of real training runs: a small neural network on the UCI digits.
name: digits
project: digits
resources: {{accelerators: [\"V100:1\", \"A100:1\"], memory: 1}}
max_price: 10.00                # dollars an hour
run: |
  exec '{program}' demo-train --lr $lr --hidden $hidden --seconds {TRAINING_SECONDS}
checkpoint: {{grace: 2s}}
estimate: {{duration: {TRAINING_SECONDS}s}}
sweep:
  matrix:
    lr: [0.05, 0.005, 0.2, 0.0005]
    hidden: [32, 64, 8]
  budget: 0.12                  # dollars, for all trials together: not enough for all of them
  max_parallel: 2
"
    )
}

/// Writes both files.
#[expect(clippy::disallowed_methods, reason = "the demo writes its own files")]
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    std::fs::write(folder.join(CONFIG), config(free_port()?))?;
    std::fs::write(folder.join(SWEEP), sweep(&std::env::current_exe()?))
}

/// A port that nobody listens on. Somebody may take it before the daemon does; it says so then.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
