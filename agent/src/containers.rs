//! The container engine of an instance, Docker or Podman, and what is to be done about the containers that it has.
//!
//! It is used through its command line, which is the same in both but for details that are all here and in
//! `runtime::container`. A container does not descend from us as a process does: Docker's belong to its daemon and
//! Podman's to a monitor that leaves our session and forgets its environment. So each container carries labels that say
//! whose it is, by which whoever comes to clear up finds it.

use std::{ffi::OsStr, fs, path::Path, process::Stdio, time::Duration};

use bursar_model::{AttemptId, InstanceId};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::folder;

/// How long the engine may take to find or remove containers: it kills them at once, but disks may be slow.
pub(crate) const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// How often, with how much time between, containers are looked for and removed. The engine's own monitor may be removing
/// the same at the same time, and then either fails, or is done while the other still sees it.
const REMOVALS_MAX: u32 = 6;
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);

/// The file in an agent's `work_dir` that names the engine of the instance's containers, once there was one.
const ENGINE_FILE: &str = "container-engine.json";

/// What runs containers on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Podman, as root or as an ordinary user.
    Podman,
    /// Docker; the agent's user must be allowed to use its daemon.
    Docker,
}

impl Engine {
    /// The engine of this machine.
    #[expect(clippy::disallowed_methods, reason = "the edge: programs are where the agent's PATH says")]
    pub(crate) fn detect() -> Option<Self> {
        Self::first_in(&std::env::var_os("PATH")?)
    }

    /// The first of Podman, which needs no daemon, and Docker that these folders have.
    fn first_in(path: &OsStr) -> Option<Self> {
        let is_there =
            |engine: &Self| std::env::split_paths(path).any(|folder| folder.join(engine.program()).is_file());
        [Self::Podman, Self::Docker].into_iter().find(is_there)
    }

    /// The name of its program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// Whether its containers run in a user namespace of ours, in which our own user has another number.
    pub(crate) fn is_rootless(self) -> bool {
        self == Self::Podman && !geteuid().is_root()
    }
}

/// The label of the containers of an attempt's node. Other nodes may be on the same machine.
pub(crate) fn node_label(attempt: AttemptId, instance: InstanceId) -> String {
    format!("bursar.node={attempt}/{instance}")
}

/// The label of an instance's containers.
pub(crate) fn instance_label(instance: InstanceId) -> String {
    format!("bursar.instance={instance}")
}

/// Writes down which engine has containers of this instance, before it has any: for whoever clears up after the agent.
pub(crate) fn write_engine(work_dir: &Path, engine: Engine) -> std::io::Result<()> {
    folder::replace(&work_dir.join(ENGINE_FILE), &serde_json::to_string(&engine)?)
}

/// Removes every container of an instance whose agent is dead, if it ever had one. A container that still runs is killed.
///
/// # Errors
/// When the engine does not do so: some may be left.
#[expect(clippy::disallowed_methods, reason = "the edge: an agent's note is read here")]
pub async fn remove_all(work_dir: &Path, instance: InstanceId) -> Result<(), String> {
    let Ok(text) = fs::read_to_string(work_dir.join(ENGINE_FILE)) else { return Ok(()) };
    let engine: Engine = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    remove(engine, &instance_label(instance), |arguments| ask(engine, arguments)).await
}

/// Kills and removes the containers with this label. `ask` runs the engine's program with the arguments that it is given.
///
/// # Errors
/// When some are left: with what the engine said last.
pub(crate) async fn remove<A, F>(engine: Engine, label: &str, ask: A) -> Result<(), String>
where
    A: Fn(Vec<String>) -> F,
    F: Future<Output = Result<String, String>>,
{
    let mut said = String::new();
    for _ in 0..REMOVALS_MAX {
        let found = ask(finding(label)).await?;
        let Some(arguments) = removing(engine, &found) else { return Ok(()) };
        if let Err(error) = ask(arguments).await {
            said = error;
        }
        sleep(REMOVAL_PAUSE).await;
    }
    Err(format!("containers with the label {label} are still there: {said}"))
}

/// The engine's arguments that list the ids of all containers with a label.
fn finding(label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter].map(str::to_owned).to_vec()
}

/// The engine's arguments that kill and remove the containers with these ids; `None` where there are none.
fn removing(engine: Engine, ids: &str) -> Option<Vec<String>> {
    let mut arguments = ["rm", "--force", "--volumes"].map(str::to_owned).to_vec();
    if engine == Engine::Podman {
        // Docker kills at once; Podman waits for ten seconds unless it is told not to.
        arguments.extend(["--time", "0"].map(str::to_owned));
    }
    arguments.extend(ids.split_whitespace().map(str::to_owned));
    (!ids.trim().is_empty()).then_some(arguments)
}

/// Runs the engine's program where no agent does.
async fn ask(engine: Engine, arguments: Vec<String>) -> Result<String, String> {
    let mut command = Command::new(engine.program());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(REMOVAL_LIMIT, command.output()).await;
    let output = output.map_err(|_| "it does not answer".to_owned())?.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_killed_at_once_and_none_is_asked_for_where_there_is_none() {
        let words = |engine| removing(engine, "a\nb\n").unwrap().join(" ");
        assert_eq!(words(Engine::Podman), "rm --force --volumes --time 0 a b");
        assert_eq!(words(Engine::Docker), "rm --force --volumes a b");
        assert_eq!(removing(Engine::Docker, "\n"), None);
    }

    #[test]
    fn podman_goes_before_docker_and_what_is_not_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(Engine::first_in(path), None);
        fs::File::create(folder.path().join("docker")).unwrap();
        assert_eq!(Engine::first_in(path), Some(Engine::Docker));
        fs::File::create(folder.path().join("podman")).unwrap();
        assert_eq!(Engine::first_in(path), Some(Engine::Podman));
    }
}
