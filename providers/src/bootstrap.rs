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

/// User data for the machines of `requests`, which are alike but for their instances and secrets, and whose cloud gives
/// notice at `notice`. Made of the requests alone, so that a launch that is asked for again is the same launch.
///
/// Several machines of one call get the same user data, with all their secrets: each finds its own by its launch index,
/// which only EC2 tells.
///
/// # Panics
///
/// Where there are none, or several elsewhere than on EC2.
#[must_use]
pub fn user_data(requests: &[LaunchRequest], notice: NoticeSource) -> String {
    let request = requests.first().expect("a launch is of at least one instance");
    let which = match (requests, &notice) {
        ([one], _) => format!("instance={} secret={}", one.instance, quoted(&one.secret)),
        (_, NoticeSource::Aws { endpoint }) => which_on_ec2(requests, endpoint),
        _ => panic!("only EC2 tells machines of one call apart"),
    };
    let settings = serde_json::to_string(&settings(request, notice)).expect("settings are plain data");
    let instance = request.instance.to_string();
    let (before, after) = settings.split_once(&instance).expect("the settings name the instance");
    let binaries: String =
        request.agents.iter().map(|(arch, sha256)| format!("{arch}) sha256={sha256} ;;\n")).collect();
    let daemon = request.daemon_url.trim_end_matches('/');
    let script = SCRIPT
        .replace("@FOLDER@", FOLDER)
        .replace("@LEASE_UNTIL@", &(request.lease_until.as_millis() / 1000).to_string())
        .replace("@LEASE_SECS@", &(request.lease.as_millis() / 1000).to_string())
        .replace("@URL@", &quoted(&format!("{daemon}/v1/agent/binary")))
        .replace("@BINARIES@\n", &binaries)
        .replace("@WHICH@", &which)
        .replace("@SETTINGS_BEFORE@", &quoted(before))
        .replace("@SETTINGS_AFTER@", &quoted(after));
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

/// Asks the metadata service for the launch index, "Instance metadata categories"
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>), by version 2 of its protocol.
fn which_on_ec2(requests: &[LaunchRequest], endpoint: &str) -> String {
    let cases: String = (0..)
        .zip(requests)
        .map(|(index, one)| format!("{index}) instance={} secret={} ;;\n", one.instance, quoted(&one.secret)))
        .collect();
    let endpoint = quoted(endpoint);
    format!(
        "metadata() {{ curl -fsS --noproxy '*' --connect-timeout 2 --max-time 5 \"$@\"; }}
index= tries=60
while [ -z \"$index\" ] && [ \"$tries\" -gt 0 ]; do
  tries=$((tries - 1))
  token=$(metadata -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {endpoint}/latest/api/token) &&
    index=$(metadata -H \"X-aws-ec2-metadata-token: $token\" {endpoint}/latest/meta-data/ami-launch-index) || sleep 1
done
instance=
case $index in
{cases}esac"
    )
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
