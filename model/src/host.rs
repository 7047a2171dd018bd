//! The machine that an instance turned out to be, by its agent.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// How an instance came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// From when the cloud said that the instance exists, or from the intent where the agent was quicker, until its agent
    /// registered.
    pub took: Span,
    /// What the agent found there. Agents of before this was asked say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
}

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name for itself.
    pub hostname: String,
    /// Such as `x86_64`, as `uname -m` says it.
    pub arch: String,
    /// The release of its kernel, as `uname -r` says it.
    pub kernel: String,
    /// CPUs that the agent may use.
    pub cpus: u32,
    /// Memory in MiB, as the kernel counts it: less than what the cloud advertises.
    pub memory_mib: u64,
    /// Its GPUs, in the order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// What can run containers there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<ContainerRuntime>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// What its driver calls it, such as `NVIDIA A100-SXM4-80GB`.
    pub name: String,
    /// Its memory in MiB, where the driver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The version of its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// A program that runs containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRuntime {
    /// `docker` or `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
}
