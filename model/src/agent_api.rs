//! What daemon and agent say to each other: JSON over HTTP, always asked by the agent.
//!
//! Level-triggered on both sides. The agent reports all attempts that it knows; the daemon answers with all attempts
//! that the instance should have, each with what to do. A lost or repeated message changes nothing. Moments travel as
//! ages or remaining times in milliseconds, so that the two clocks need not agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    experiment::{AttemptEnd, StopReason},
    host::Host,
    id::{AttemptId, ExperimentId, InstanceId},
    metric::nulls_as_nan,
    provenance::RanWith,
    workdir::{Digest, Workdir},
};

/// `POST /v1/agent/register`: sent once the agent is up, again until answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Which instance this is.
    pub instance: InstanceId,
    /// The one-time secret from the user data. It is worth nothing once the agent has used its token.
    pub secret: String,
    /// The token that the agent made up for itself (256 random bits in hex) and proves itself with from now on.
    /// Made by the agent, so that a lost answer and a second try end with the same token.
    pub token: String,
    /// What the agent found on its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Box<Host>>,
    /// Where other nodes of an attempt reach it: the address by which it reaches the daemon, unless it was told another.
    pub address: IpAddr,
}

/// The answer to both kinds of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncReply {
    /// The lease ends so many milliseconds after the agent *sent* the request.
    pub lease_remaining_ms: u64,
    /// How long the agent may wait until its next request, at most.
    pub heartbeat_ms: u64,
    /// All attempts that the instance should have.
    pub attempts: Vec<AttemptOrder>,
    /// Stop everything and power off.
    pub power_off: bool,
    /// Changes whenever the answer would: the agent sends it back to wait for the next change.
    pub version: u64,
}

/// `POST /v1/agent/sync` with `Authorization: Bearer <token>`. The daemon may hold the answer for up to `wait_ms` as
/// long as nothing differs from `version`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Which instance this is.
    pub instance: Option<InstanceId>,
    /// All attempts that the agent knows and the daemon still lists.
    pub attempts: Vec<AttemptReport>,
    /// The cloud takes the instance back in so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_remaining_ms: Option<u64>,
    /// Why the cloud may take the instance back soon, where it said so without a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk: Option<String>,
    /// How long the answer may be held back.
    pub wait_ms: u64,
    /// The `version` of the last answer, 0 at first.
    pub version: u64,
}

/// What the agent says of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Where it is.
    pub state: ReportedState,
    /// How old its newest checkpoint is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_age_ms: Option<u64>,
    /// How long that one took to store: from when it was told to stop, or of itself the time that sending took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_took_ms: Option<u64>,
    /// The newest value of each metric. One that is no number, as of a run that diverged, travels as null.
    #[serde(default, deserialize_with = "nulls_as_nan", skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// What it runs with, once that is known and until the daemon has answered a report that said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_with: Option<RanWith>,
    /// For how long one of its GPUs has been used less than `Work::min_gpu_utilization` without a break. None where all are
    /// used, and where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_idle_ms: Option<u64>,
}

/// Where an attempt is, by its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum ReportedState {
    /// The working folder is being made, or `setup` runs, or waits for another attempt's that does the same.
    Preparing,
    /// `run` runs.
    Running {
        /// Since so many milliseconds.
        age_ms: u64,
    },
    /// Nothing of it runs any longer and all of its log was delivered (or cannot be).
    Ended {
        /// Since so many milliseconds.
        age_ms: u64,
        /// How long `run` ran before, nothing where it never started.
        ran_ms: Option<u64>,
        /// How.
        end: AttemptEnd,
    },
}

/// What the daemon wants of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptOrder {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its experiment: checkpoints belong to that.
    pub experiment: ExperimentId,
    /// 1 for the first attempt of the experiment.
    pub number: u32,
    /// What to do.
    pub action: Action,
}

/// What to do with an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Action {
    /// Start it, unless it was started.
    Run {
        /// The work. Sent until the agent reports the attempt: from then on it has it, and its secrets with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<Box<Work>>,
    },
    /// SIGTERM, and SIGKILL after the grace.
    Stop {
        /// Why.
        why: StopReason,
        /// From SIGTERM to SIGKILL.
        grace_ms: u64,
    },
}

/// The work of an attempt.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Work {
    /// The experiment's name, for the log.
    pub name: String,
    /// Prepares the working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// The shell script that is the experiment.
    pub run: String,
    /// Environment variables of both scripts, resolved secrets among them.
    #[serde(default)]
    pub envs: BTreeMap<String, String>,
    /// The parameters of a trial: variables of `run` alone, because what `setup` made serves other trials too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Those of `envs` whose values are not to be seen in the log.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// What the working folder starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<Workdir>,
    /// Stands for all that `setup` depends on: where it succeeded on this instance under the same key, it is not run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_key: Option<Digest>,
    /// The accelerators that it may use, by number; becomes `CUDA_VISIBLE_DEVICES`.
    #[serde(default)]
    pub devices: Vec<u32>,
    /// A GPU that is used for less, in percent, is idle; none where nobody cares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_gpu_utilization: Option<u8>,
    /// From SIGTERM to SIGKILL where the agent stops it of itself (lease, notice).
    pub grace_ms: u64,
    /// Each script runs in a container of this; none runs them as plain processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerWork>,
    /// What it gets from stores and leaves there.
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub data: Data,
    /// Which node of the attempt this is, from 0.
    #[serde(default)]
    pub rank: u32,
    /// Where all nodes of the attempt are reached, by rank, this one among them.
    #[serde(default)]
    pub nodes: Vec<IpAddr>,
    /// The port on the first node that is left to the nodes to meet at.
    #[serde(default)]
    pub master_port: u16,
}

/// What a container is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerWork {
    /// The image, by tag or digest.
    pub image: String,
    /// Who may pull it, where not everybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryLogin>,
    /// What it gets of the instance's memory, in MiB; what takes more is killed.
    pub memory_mib: u64,
    /// Its weight when CPUs are short, in thousandths of a CPU.
    pub cpus_milli: u32,
}

/// Who may pull an image from its registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// The name.
    pub username: String,
    /// The password or token, resolved.
    pub password: String,
}

/// What an attempt gets from object stores and leaves there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Data {
    /// Where its checkpoints are kept; none keeps them in the folder that the machine has for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointStore>,
    /// The folder that it saves to, from the working folder; none is one that it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_path: Option<String>,
    /// What is fetched before `setup`, by where it is put: from the working folder, or absolute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, StoreAccess>,
    /// What is stored at its end, by its path from the working folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, StoreAccess>,
}

impl Data {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every place in a store that it has to do with.
    pub fn accesses_mut(&mut self) -> impl Iterator<Item = &mut StoreAccess> {
        let checkpoints = self.checkpoints.as_mut().map(|store| &mut store.access);
        checkpoints.into_iter().chain(self.mounts.values_mut()).chain(self.outputs.values_mut())
    }
}

/// Where the checkpoints of an experiment are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStore {
    /// The folder that is the experiment's own.
    pub access: StoreAccess,
    /// The newest so many are kept.
    pub kept: u32,
}

/// A folder in an object store, with what opens it. Its credentials are filled in on the way to the agent and are never
/// stored; they are left out of `Debug`, so that no log holds them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreAccess {
    /// `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///folder`.
    pub url: String,
    /// Where the store answers, where that is not the cloud's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// By the names of the cloud's own variables. None are those of the instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
}

impl StoreAccess {
    /// The folder at this URL, with nothing but the URL known of it.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

impl fmt::Debug for StoreAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, endpoint, region, credentials } = self;
        let names: Vec<_> = credentials.keys().collect();
        let mut shown = f.debug_struct("StoreAccess");
        shown.field("url", url).field("endpoint", endpoint).field("region", region);
        shown.field("credentials", &names).finish()
    }
}

/// The most that is kept of one attempt's log: more than anybody reads, and a hundred such fit on a disk.
pub const LOG_BYTES_MAX: u64 = 256 << 20;

/// What an agent delivers of an attempt beside its reports: bytes in order, by offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What it wrote to stdout and stderr.
    Log,
    /// Its metrics over time: a [`crate::Point`] a line.
    Metrics,
}

impl Stream {
    /// As it stands in the path of a request.
    #[must_use]
    pub fn segment(self) -> &'static str {
        match self {
            Self::Log => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// The answer to `POST /v1/agent/{logs|metrics}/{attempt}?offset=N`, whose body is the bytes from that offset on. Bytes that
/// the daemon has already are skipped; a gap is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReply {
    /// The daemon has everything before this offset.
    pub next_offset: u64,
    /// The daemon keeps no more of it: nothing more needs to be sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TypedId;

    #[test]
    fn a_metric_that_is_no_number_arrives_as_such() {
        let report = AttemptReport {
            attempt: AttemptId::from_u64(1),
            state: ReportedState::Preparing,
            checkpoint_age_ms: None,
            checkpoint_took_ms: None,
            metrics: BTreeMap::from([("loss".to_owned(), f64::NAN), ("step".to_owned(), 3.0)]),
            ran_with: None,
            gpu_idle_ms: None,
        };
        let read: AttemptReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert!(read.metrics["loss"].is_nan());
        assert_eq!(read.metrics["step"], 3.0);
    }
}
