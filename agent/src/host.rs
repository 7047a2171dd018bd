//! What the machine has: looked at once, before the agent makes itself known. All of it is for people and for what is
//! recorded of an attempt; what cannot be told is left out, and nothing waits for it for long.

use std::{num::NonZero, process::Stdio, time::Duration};

use bursar_model::{ContainerRuntime, Gpu, Host};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

/// How long a program may take to say what it knows. A driver that is loaded by the first question takes some seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What is read of an answer: a line for each of the most GPUs that a machine has.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// What of one GPU is asked for, and in which order `gpus_of_smi` takes it.
const SMI_QUERY: [&str; 2] =
    ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"];

/// Looks at the machine.
pub(crate) async fn look() -> Host {
    let (smi, docker, podman) = tokio::join!(
        answer("nvidia-smi", &SMI_QUERY),
        answer("docker", &["--version"]),
        answer("podman", &["--version"]),
    );
    let mut gpus = gpus_of_smi(&smi.unwrap_or_default());
    if gpus.is_empty() {
        gpus = gpus_of_driver().await;
    }
    let runtimes = [("docker", docker), ("podman", podman)];
    let runtimes = runtimes.into_iter().filter_map(|(name, said)| runtime(name, &said?)).collect();
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Host {
        hostname: text(uname.nodename()),
        arch: text(uname.machine()),
        kernel: text(uname.release()),
        cpus: std::thread::available_parallelism().map_or(1, NonZero::get).try_into().unwrap_or(u32::MAX),
        memory_mib: memory_mib(&read("/proc/meminfo").await).unwrap_or_default(),
        gpus,
        runtimes,
    }
}

/// What a program says; nothing where there is none, or it hangs. Its exit status is reaped with that of all other
/// children of the agent, so only what it says can be judged.
async fn answer(program: &str, args: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut said = Vec::new();
    let mut stdout = child.stdout.take()?.take(ANSWER_BYTES_MAX);
    timeout(ANSWER_TIMEOUT, stdout.read_to_end(&mut said)).await.ok()?.ok()?;
    String::from_utf8(said).ok()
}

async fn read(path: &str) -> String {
    tokio::fs::read_to_string(path).await.unwrap_or_default()
}

/// `NVIDIA A100-SXM4-80GB, 81920, 535.104.05` for each GPU. A tool that finds no driver says so in a sentence instead, and
/// one that finds no memory of its own, as on a machine that shares it, says `[N/A]`.
fn gpus_of_smi(said: &str) -> Vec<Gpu> {
    let of_line = |line: &str| {
        let mut fields = line.rsplitn(3, ',').map(str::trim);
        let (driver, memory, name) = (fields.next()?, fields.next()?, fields.next()?);
        let is_version = driver.starts_with(|first: char| first.is_ascii_digit());
        is_version.then(|| Gpu {
            name: name.to_owned(),
            memory_mib: memory.parse().ok(),
            driver: Some(driver.to_owned()),
        })
    };
    said.lines().filter_map(of_line).collect()
}

/// What the kernel's driver says where its tool is not installed.
async fn gpus_of_driver() -> Vec<Gpu> {
    let driver = driver_version(&read("/proc/driver/nvidia/version").await);
    let mut gpus = Vec::new();
    let Ok(mut folders) = tokio::fs::read_dir("/proc/driver/nvidia/gpus").await else { return gpus };
    // As many as the kernel knows of: sixteen, on the largest machines.
    while let Ok(Some(folder)) = folders.next_entry().await {
        let path = folder.path().join("information");
        let information = tokio::fs::read_to_string(path).await.unwrap_or_default();
        if let Some(name) = model(&information) {
            gpus.push(Gpu { name, memory_mib: None, driver: driver.clone() });
        }
    }
    gpus
}

/// `Model:` and the name, with tabs between.
fn model(information: &str) -> Option<String> {
    information.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()))
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 …`: the first word that is a version.
fn driver_version(version: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.') && word.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    version.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

/// `Docker version 24.0.7, build afdd53b` or `podman version 4.3.1`.
fn runtime(name: &str, said: &str) -> Option<ContainerRuntime> {
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1)?;
    Some(ContainerRuntime { name: name.to_owned(), version: version.trim_end_matches(',').to_owned() })
}

/// `MemTotal:       24594636 kB`.
fn memory_mib(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gpu_is_named_with_its_memory_and_its_driver() {
        let said = "NVIDIA A100-SXM4-80GB, 81920, 535.104.05\nNVIDIA GB10, [N/A], 580.95.05\n";
        let gpu = |name: &str, memory_mib, driver: &str| Gpu {
            name: name.to_owned(),
            memory_mib,
            driver: Some(driver.to_owned()),
        };
        let expected =
            [gpu("NVIDIA A100-SXM4-80GB", Some(81920), "535.104.05"), gpu("NVIDIA GB10", None, "580.95.05")];
        assert_eq!(gpus_of_smi(said), expected);
    }

    #[test]
    fn a_tool_without_a_driver_finds_no_gpu() {
        let said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the \
                    latest NVIDIA driver is installed, loaded, and running.\n";
        assert_eq!(gpus_of_smi(said), []);
        assert_eq!(gpus_of_smi("No devices were found\n"), []);
    }

    #[test]
    fn the_kernels_driver_tells_model_and_version() {
        let information = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 16\n";
        assert_eq!(model(information).as_deref(), Some("NVIDIA H100 80GB HBM3"));
        for version in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (dvs-builder)\n",
        ] {
            assert_eq!(driver_version(version).as_deref(), Some("535.104.05"));
        }
    }

    #[test]
    fn runtimes_and_memory_are_read_as_their_tools_write_them() {
        let version = |name, said| runtime(name, said).map(|runtime| runtime.version);
        assert_eq!(version("docker", "Docker version 24.0.7, build afdd53b\n").as_deref(), Some("24.0.7"));
        assert_eq!(version("podman", "podman version 4.3.1\n").as_deref(), Some("4.3.1"));
        assert_eq!(version("docker", ""), None);
        assert_eq!(memory_mib("MemTotal:       24594636 kB\nMemFree: 1 kB\n"), Some(24018));
    }

    #[tokio::test]
    async fn this_machine_has_a_kernel_cpus_and_memory() {
        let host = look().await;
        assert!(!host.kernel.is_empty() && host.cpus > 0 && host.memory_mib > 0, "{host:?}");
    }
}
