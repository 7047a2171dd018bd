//! How a rented machine becomes an instance: the cloud-init user data that every cloud's provider gives it.
//!
//! First of all it arms the machine's shutdown timer, which needs nothing but a shell and is moved on by the agent with each
//! renewed lease; so whatever goes wrong afterwards, the machine ends when its lease does. Then it fetches the agent from the
//! daemon, compares its digest, and runs it; when the agent ends, however, the machine is powered off. There is no second
//! start: the agent's token is in its memory alone and the secret works once, so one that came back could prove nothing.
//!
//! Whoever may describe an instance can read its user data, and so can everything that runs on it. It holds one secret: the
//! one that the agent registers with, which is good for this instance alone, and for nothing once its agent has registered
//! or its lease is over.

use std::path::{Path, PathBuf};

use bursar_agent::{AgentSettings, NoticeSource};

use crate::LaunchRequest;

/// The most that clouds take: 16 KB on EC2, before they encode it.
pub const USER_DATA_MAX: usize = 16 * 1024;

/// Where everything of an instance lies: on its disk, since `/run` may hold no programs and little data.
const FOLDER: &str = "/var/lib/bursar";

/// What only the script must fill in: it is the same on all machines.
const SCRIPT: &str = include_str!("bootstrap/boot.sh");

/// User data for a machine of `request` whose cloud gives notice at `notice`. Made of the request alone, so that a launch
/// that is asked for again is the same launch.
#[must_use]
pub fn user_data(request: &LaunchRequest, notice: NoticeSource) -> String {
    let settings = serde_json::to_string(&settings(request, notice)).expect("settings are plain data");
    let binaries: String =
        request.agents.iter().map(|(arch, sha256)| format!("{arch}) sha256={sha256} ;;\n")).collect();
    let daemon = request.daemon_url.trim_end_matches('/');
    let script = SCRIPT
        .replace("@FOLDER@", FOLDER)
        .replace("@LEASE_UNTIL@", &(request.lease_until.as_millis() / 1000).to_string())
        .replace("@LEASE_SECS@", &(request.lease.as_millis() / 1000).to_string())
        .replace("@URL@", &quoted(&format!("{daemon}/v1/agent/binary")))
        .replace("@BINARIES@\n", &binaries)
        .replace("@SETTINGS@", &quoted(&settings))
        .replace("@SECRET@", &quoted(&request.secret));
    // A string is run as a part of one script file; a list would show it, secret and all, among the processes.
    let mut text = String::from(
        "#cloud-config\n# The instance of bursar; see its documentation, docs/instances.md.\nbootcmd:\n- |\n",
    );
    for line in script.lines() {
        if !line.is_empty() {
            text.push_str("  ");
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

fn settings(request: &LaunchRequest, notice: NoticeSource) -> AgentSettings {
    let below = |name: &str| -> PathBuf { Path::new(FOLDER).join(name) };
    AgentSettings {
        daemon_url: request.daemon_url.clone(),
        instance: request.instance,
        secret_file: below("secret"),
        work_dir: below("work"),
        checkpoint_root: below("checkpoints"),
        notice,
        lease_until: request.lease_until,
        lease_file: None,
        timer_file: Some(below("timer")),
        address: None,
        power_off: true,
        container_engine: None,
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
