//! An experiment or a sweep as it was written.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{LimitOr, OneOrMany, RawOutputs, RawSweep, RawWorkBudget, RawWorkdir, Written};

/// An experiment, or with a `sweep` section a set of them: what to run, what it needs, and what it may cost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["run"]))]
pub struct RawSpec {
    /// What people call it: letters, digits, `-`, `_` and `.`. Need not be unique. Default `experiment`, or `sweep`
    /// for a sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The project that pays. Default `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// What it needs while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<RawResources>,
    /// A container image that `setup` and `run` run in, each in a container of its own, such as
    /// `pytorch/pytorch@sha256:…` or `ghcr.io/team/image:tag`. It must have `/bin/sh`. Default none: plain processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Who may pull the image, where not everybody may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_auth: Option<RawRegistryAuth>,
    /// `BURSAR_SEED` in the environment of every attempt, from 0 to 4294967295. Default a number below 2147483648 that
    /// follows from the experiment's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// The state of the git repository that `workdir` is in. `bursar submit` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RawSource>,
    /// What the working folder of each attempt starts with: a folder, which `bursar submit` packs and sends (a relative
    /// path counts from the folder of this file), or a git repository as `https://host/repo.git@main`, or a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<RawWorkdir>,
    /// A shell script that prepares the working folder before `run`. What it made is kept on the instance for whatever
    /// comes there with the same `setup`, `workdir`, `image`, `envs` and `secrets`, so it sees no parameters of trials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// The shell script that is the experiment. It succeeded when it exits with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Environment variables for `setup` and `run`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub envs: BTreeMap<String, Written>,
    /// Environment variables whose values are looked up where the daemon runs and are never stored:
    /// `{TOKEN: {env: MY_TOKEN}}` or `{TOKEN: {file: /run/secrets/token}}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, RawSecret>,
    /// `spot` instances only, `on-demand` only, or `auto` for the lower expected cost. Default `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["spot", "on-demand", "auto", null]))]
    pub spot_policy: Option<String>,
    /// The highest price of an instance that is accepted, in USD an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Written>,
    /// When it must be finished: a time such as `2026-12-01T18:00:00Z`, or a duration from when it was queued, `8h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What one experiment may ever cost: a number is the limit in USD, a hard cap; a map says more. The cap of a whole
    /// sweep is `sweep.budget`. Default no limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<LimitOr<RawWorkBudget>>,
    /// Higher goes first. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// How often an attempt that failed of itself is tried again: `3` or `{limit: 3}`. Interruptions do not count.
    /// Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RawRetry>,
    /// The longest that one attempt may take, such as `12h`, from when an instance is given it: `setup` is part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
    /// What happens when a GPU stays idle. Default nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_policy: Option<RawUtilizationPolicy>,
    /// How it saves its work, for interruptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<RawCheckpoint>,
    /// What is fetched before `setup`, by where it is put, from the working folder or absolute:
    /// `{data: s3://bucket/dataset}`. Not to be written to. Fetched once to each instance.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, String>,
    /// Files and folders of the working folder that are stored when an attempt ends, well or badly: `[results, model.pt]`
    /// in the store of the installation, or `{results: s3://bucket/x}` elsewhere. `bursar outputs` fetches them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<RawOutputs>,
    /// What is known of how long it takes: makes the choice between cheap and fast a good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<RawEstimate>,
    /// Machines that it needs at once, each with all of `resources`, in one zone: all of them or none are launched, `run`
    /// is started on each, and what becomes of one becomes of all. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_nodes: Option<i64>,
    /// Words of your own, kept with the experiment and shown by `bursar show --json`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Written>,
    /// Makes it a sweep: one experiment for each combination of parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<RawSweep>,
}

/// What an experiment needs while it runs. All amounts are lower bounds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawResources {
    /// Accelerators as `A100`, `A100:8`, `A100:40GB:1` (at least 40 GiB on each), or a list of alternatives of which
    /// any would do. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<OneOrMany>,
    /// Virtual CPUs: `4` and `4+` both mean at least 4. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Written>,
    /// Memory in GiB: `32`, `32+`, `32GB` all mean at least 32 GiB; `512MB` is half a GiB. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Written>,
    /// Disk in GiB. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<Written>,
}

/// Where a secret's value comes from: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-instead" = "a secret's value is never written here; name where the daemon finds it: {env: NAME} or {file: /path}"))]
pub struct RawSecret {
    /// An environment variable of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file that the daemon can read, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Who may pull an image from its registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["username", "password"]))]
pub struct RawRegistryAuth {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the daemon finds the password or token: `{env: NAME}` or `{file: /path}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<RawSecret>,
}

/// The state of the git repository that a working folder is in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["commit"]))]
pub struct RawSource {
    /// The commit that is checked out, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// SHA-256, in hex, of what `git diff HEAD --binary` says, where anything differs from the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_sha256: Option<String>,
    /// How many files git does not know, without those that it is told to ignore. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untracked: Option<i64>,
}

/// How often an attempt that failed of itself is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RawRetry {
    /// Further attempts after the first failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// What happens when one of the GPUs stays idle while `run` runs. Where what is used of them is not known, nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["min_gpu_utilization", "time_window"]))]
pub struct RawUtilizationPolicy {
    /// A GPU that is used for less than this, in percent, is idle: 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_gpu_utilization: Option<i64>,
    /// For so long without a break, such as `30m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_window: Option<String>,
    /// `stop` has the experiment save its work and end, `notify` tells webhooks (`idle-gpu`). Default `stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["stop", "notify", null]))]
    pub action: Option<String>,
}

/// How it saves its work. Files under `$BURSAR_CHECKPOINT_DIR` survive the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawCheckpoint {
    /// How often it saves, such as `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long it may take from SIGTERM until it has ended and its checkpoint is stored, before it is killed. Spot
    /// instances whose notice is shorter are not used, unless `accept_loss` says so. At most the daemon's `drain_allowance`, and
    /// half its `lease` less 1 s and two heartbeats. Default `30s`, or the most where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
    /// The folder that it saves to: from the working folder, or absolute. Default `$BURSAR_CHECKPOINT_DIR`, which always
    /// names the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where its checkpoints are kept, as `s3://bucket/prefix`. Default the store of the installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Spot instances may be used though their notice is shorter than saving takes: what was done since the last
    /// checkpoint is lost then. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_loss: Option<bool>,
}

/// What is known of how long it takes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["duration"]))]
pub struct RawEstimate {
    /// From start to end without interruption, such as `3h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The accelerator that the duration speaks of. Default any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Speed relative to that, by accelerator: `{H100: 3.2}`. What is not named counts as 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub speeds: BTreeMap<String, f64>,
}

/// The long form of `retry`, read and described by derive.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RetryMap {
    /// Further attempts after the first failure.
    limit: Option<i64>,
}

impl<'de> Deserialize<'de> for RawRetry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RetryVisitor;
        impl<'de> Visitor<'de> for RetryVisitor {
            type Value = RawRetry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or {limit: N}")
            }
            fn visit_i64<E: Error>(self, limit: i64) -> Result<RawRetry, E> {
                Ok(RawRetry { limit: Some(limit) })
            }
            fn visit_u64<E: Error>(self, limit: u64) -> Result<RawRetry, E> {
                Ok(RawRetry { limit: Some(i64::try_from(limit).unwrap_or(i64::MAX)) })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawRetry, A::Error> {
                let RetryMap { limit } = RetryMap::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawRetry { limit })
            }
        }
        deserializer.deserialize_any(RetryVisitor)
    }
}

impl JsonSchema for RawRetry {
    fn schema_name() -> Cow<'static, str> {
        "RawRetry".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "integer", "minimum": 0}, generator.subschema_for::<RetryMap>()]})
    }
}
