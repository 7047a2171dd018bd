//! The command line that runs one script in a container.
//!
//! What holds for every container: its root is read-only and its processes gain no privileges and have no capabilities;
//! they are the agent's user, so that what they write belongs to it; memory is a hard limit, CPUs are a *weight*: what the
//! others leave idle may be used, as by plain processes, because it is paid for. The network is the machine's, since nodes
//! of one experiment find each other there. Every path means the same inside as outside.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use bursar_model::{AttemptId, InstanceId, agent_api::ContainerWork};
use rustix::process::{getegid, geteuid};

use super::Image;
use crate::{
    containers::{Engine, instance_label, node_label, write_engine},
    folder::Folder,
    shim,
};

/// What process 1 of a container runs: the script, as a child of a shell of the same kind.
///
/// A container ends with its process 1, and what is left in it dies. The agent sends SIGTERM to the whole process group, as
/// outside of containers; there each process has the grace to save its work, though the script's shell dies at once. So,
/// once told to end, process 1 waits for all of them. It reaps what lost its parent, as any shell does. (In dash and
/// BusyBox what a shell starts beside itself ignores SIGINT and SIGQUIT, which cannot be undone there as it can in bash.)
/// It says nothing itself: a shell tells of a child that a signal ended.
const PROCESS_1: &str = r#"exec 3>&2 2>/dev/null
trap told=1 TERM
(trap - TERM INT QUIT; exec "$0" -c "$1" 2>&3 3>&-) &
wait $!; end=$?
if [ "$told" ]; then
  wait $!; again=$?; [ $again = 127 ] || end=$again
  while kill -0 -1 2>/dev/null; do sleep 0.1 || sleep 1; done
fi
exit $end"#;

/// Runs process 1 with bash where the image has it, as scripts are run outside of containers.
const SHELL: &str = r#"shell=/bin/sh; [ -x /bin/bash ] && shell=/bin/bash; exec $shell -c "$0" $shell "$1""#;

/// As many as a large data loader on a large machine needs, too few to take the machine's last process number.
const PIDS_MAX: u32 = 32_768;

/// What the engine's client goes by itself: an experiment's own variable of such a name must not reach the client.
const CLIENTS_OWN: [&str; 13] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "USER",
    "LD_",
    "XDG_",
    "DBUS_",
    "CONTAINER",
    "STORAGE_",
    "DOCKER_",
    "BUILDAH_",
    "REGISTRY_",
    "GO",
];

/// The containers of one attempt.
#[derive(Debug)]
pub(crate) struct Container {
    engine: Engine,
    instance: InstanceId,
    attempt: AttemptId,
    work: ContainerWork,
    devices: Vec<u32>,
    /// Mounted beside the attempt's own folder.
    checkpoints: PathBuf,
    /// What was found or pulled.
    image: Option<Image>,
    /// How many were started.
    started: u32,
}

impl Container {
    pub(crate) fn new(
        engine: Engine,
        instance: InstanceId,
        attempt: AttemptId,
        work: ContainerWork,
        devices: Vec<u32>,
        checkpoints: PathBuf,
    ) -> Self {
        Self { engine, instance, attempt, work, devices, checkpoints, image: None, started: 0 }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// The image is on the instance.
    pub(crate) fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// Its limit.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.work.memory_mib
    }

    /// The engine's id of the container that was started last, once it wrote it down.
    #[expect(clippy::disallowed_methods, reason = "the edge: the engine writes this file")]
    pub(crate) fn id(&self, folder: &Folder) -> Option<String> {
        let id = fs::read_to_string(folder.container_id(self.started)).ok()?;
        // All of it: a part would be the mark of others too.
        (id.trim().len() == 64).then(|| id.trim().to_owned())
    }

    /// The client that runs a script in a new container and ends with it.
    pub(crate) fn command(
        &mut self,
        script: &str,
        folder: &Folder,
        env: &BTreeMap<String, String>,
    ) -> io::Result<Command> {
        self.started += 1;
        if let Some(work_dir) = folder.path().parent() {
            write_engine(work_dir, self.engine)?;
        }
        let env_file = folder.container_env();
        let (own, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            env.iter().partition(|(name, _)| is_clients_own(name));
        write_env_file(&env_file, &own)?;
        let arguments = self.arguments(script, folder, others.keys().map(|name| name.as_str()));
        let mut command = shim::tied_to_this_thread(self.engine.program().as_ref());
        // Podman's monitor leaves a file where it was started when memory runs out.
        command.args(arguments).envs(others).current_dir(folder.path());
        Ok(command)
    }

    /// What stands on the command line holds no value of the environment: everybody on the machine can read it.
    fn arguments<'a>(
        &self,
        script: &str,
        folder: &Folder,
        inherited: impl Iterator<Item = &'a str>,
    ) -> Vec<String> {
        let Self { engine, instance, attempt, work, devices, checkpoints, image, started } = self;
        let text = |path: &Path| path.display().to_string();
        let mut list: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| list.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["run", "--rm", "--pull=never", "--network=host", "--read-only"]);
        add(&[
            "--name",
            &format!("bursar-{attempt}-{instance}-{started}"),
            "--cidfile",
            &text(&folder.container_id(*started)),
        ]);
        // By the node it is found again; the attempt is for people.
        add(&["--label", &instance_label(*instance), "--label", &node_label(*attempt, *instance)]);
        add(&["--label", &format!("bursar.attempt={attempt}")]);
        add(&["--cap-drop=all", "--security-opt=no-new-privileges", "--security-opt=label=disable"]);
        add(&["--pids-limit", &PIDS_MAX.to_string()]);
        // Data loaders hand batches over in shared memory, which counts as the container's: the engines' 64 MiB are too few.
        add(&["--memory", &format!("{}m", work.memory_mib), "--shm-size", &format!("{}m", work.memory_mib)]);
        add(&["--cpu-shares", &cpu_shares(work.cpus_milli).to_string()]);
        for folder in ["/tmp", "/run", "/var/tmp"] {
            add(&["--tmpfs", folder]);
        }
        for path in folder.needed().chain([checkpoints.as_path()]) {
            add(&["--volume", &format!("{0}:{0}", text(path))]);
        }
        match engine.is_rootless() {
            true => add(&["--userns=keep-id"]),
            false => {
                let user = format!("{}:{}", geteuid().as_raw(), getegid().as_raw());
                add(&["--user", &user]);
            }
        }
        match engine {
            Engine::Podman => {
                // A proxy of the machine is none of the experiment's, as outside of containers.
                add(&["--http-proxy=false"]);
                for device in devices {
                    add(&["--device", &format!("nvidia.com/gpu={device}")]);
                }
            }
            Engine::Docker if !devices.is_empty() => {
                let numbers: Vec<String> = devices.iter().map(u32::to_string).collect();
                // Its parser splits at commas unless they are quoted.
                add(&["--gpus", &format!("\"device={}\"", numbers.join(","))]);
            }
            Engine::Docker => {}
        }
        add(&["--env-file", &text(&folder.container_env())]);
        for name in inherited {
            add(&["--env", name]);
        }
        let image = image.as_ref().map_or(work.image.as_str(), |image| &image.id);
        add(&[
            "--workdir",
            &text(&folder.work()),
            "--entrypoint",
            "/bin/sh",
            image,
            "-c",
            SHELL,
            PROCESS_1,
            script,
        ]);
        list
    }
}

fn is_clients_own(name: &str) -> bool {
    CLIENTS_OWN.iter().any(|own| name.starts_with(own))
}

/// 1024 for each CPU, within what the kernel takes.
fn cpu_shares(cpus_milli: u32) -> u64 {
    (u64::from(cpus_milli) * 1024 / 1000).clamp(2, 262_144)
}

/// Variables that the client must not inherit. Nobody but the agent's user can read the file.
fn write_env_file(path: &Path, env: &BTreeMap<&String, &String>) -> io::Result<()> {
    let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    for (name, value) in env {
        if value.contains('\n') {
            let why = format!("{name} holds a line break, which it cannot in a container");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        writeln!(file, "{name}={value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bursar_model::TypedId;

    use super::*;

    fn container(engine: Engine, devices: Vec<u32>) -> Container {
        let work = ContainerWork {
            image: "img".to_owned(),
            memory_mib: 2048,
            cpus_milli: 1500,
            ..ContainerWork::default()
        };
        let (instance, attempt) = (InstanceId::from_u64(1), AttemptId::from_u64(2));
        Container::new(engine, instance, attempt, work, devices, PathBuf::from("/checkpoints"))
    }

    fn words(container: &Container) -> String {
        let folder = Folder::new(Path::new("/work"), container.attempt);
        container.arguments("echo hi", &folder, ["SECRET"].into_iter()).join(" ")
    }

    #[test]
    fn accelerators_are_given_by_number_in_each_engines_own_way() {
        let podman = words(&container(Engine::Podman, vec![2, 5]));
        assert!(podman.contains("--device nvidia.com/gpu=2 --device nvidia.com/gpu=5"), "{podman}");
        let docker = words(&container(Engine::Docker, vec![2, 5]));
        assert!(docker.contains("--gpus \"device=2,5\""), "{docker}");
        assert!(!words(&container(Engine::Docker, Vec::new())).contains("--gpus"));
    }

    #[test]
    fn a_container_is_confined_and_limited_and_knows_whose_it_is() {
        let words = words(&container(Engine::Docker, Vec::new()));
        for part in [
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--memory 2048m",
            "--cpu-shares 1536",
            "--label bursar.instance=ins_0000000000001",
            "--label bursar.attempt=att_0000000000002",
            "--volume /checkpoints:/checkpoints",
            "--env SECRET",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(words.ends_with(" echo hi"), "{words}");
    }

    #[test]
    fn variables_that_the_client_goes_by_do_not_reach_it() {
        for name in ["PATH", "DOCKER_HOST", "CONTAINERS_CONF", "LD_PRELOAD", "HOME"] {
            assert!(is_clients_own(name), "{name}");
        }
        assert!(!is_clients_own("LR"));
        let folder = tempfile::tempdir().unwrap();
        let (name, value) = ("PATH".to_owned(), "a\nb".to_owned());
        let error =
            write_env_file(&folder.path().join("env"), &BTreeMap::from([(&name, &value)])).unwrap_err();
        assert!(error.to_string().contains("PATH holds a line break"), "{error}");
    }
}
