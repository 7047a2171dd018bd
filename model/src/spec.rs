//! What a researcher asks for, after `config` has checked it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    asha::AshaRules,
    budget::BudgetTerms,
    money::UsdPerHour,
    name::{AcceleratorName, ProjectName},
    provenance::Source,
    resources::Resources,
    time::{Span, Timestamp},
    workdir::Workdir,
};

/// The content address of a spec: the first 128 bits of the SHA-256 of its JSON. Equal specs are kept once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecId(u128);

impl SpecId {
    /// From the leading bytes of a digest.
    #[must_use]
    pub const fn from_digest(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The bytes it was made from: the key in a store.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SpecId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpecId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Everything about an experiment but its name and its place in a sweep, so that a thousand trials share one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentSpec {
    /// Who pays.
    pub project: ProjectName,
    /// What it needs while it runs.
    pub resources: Resources,
    /// A container image; none runs as plain processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Who may pull the image, where not everybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_auth: Option<RegistryAuth>,
    /// `BURSAR_SEED` of every attempt; none makes it `seed_of` the experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// The state of the git repository that `workdir` is in, as of the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the working folder of each attempt starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<Workdir>,
    /// A shell script to prepare the working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// The shell script that is the experiment.
    pub run: String,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub envs: BTreeMap<String, String>,
    /// Environment variables whose values are looked up where the daemon runs, never stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretRef>,
    /// Spot, on-demand, or whichever is cheaper.
    pub spot_policy: SpotPolicy,
    /// The highest price of an instance that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<UsdPerHour>,
    /// When it must be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// The most that this experiment may ever cost, and what happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Arc<BudgetTerms>>,
    /// Higher goes first; 0 unless told.
    #[serde(default)]
    pub priority: i32,
    /// What happens when an attempt fails of itself.
    #[serde(default)]
    pub retry: Retry,
    /// The longest that one attempt may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Span>,
    /// What happens when a GPU of it stays idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_policy: Option<UtilizationPolicy>,
    /// How it saves its work.
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// What it gets from stores and leaves there.
    #[serde(default, skip_serializing_if = "DataSpec::is_empty")]
    pub data: DataSpec,
    /// What is known of how long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Machines that it needs at once.
    pub num_nodes: u32,
    /// For filters and reports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Who may pull an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAuth {
    /// The name.
    pub username: String,
    /// Where the password or token is looked up, never stored.
    pub password: SecretRef,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// An environment variable of the daemon.
    Env(String),
    /// A file that the daemon can read.
    File(String),
}

/// Which capacity types are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpotPolicy {
    /// Spot only.
    Spot,
    /// On-demand only.
    OnDemand,
    /// The one with the lower expected cost.
    #[default]
    Auto,
}

/// When an experiment must be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deadline {
    /// At this moment.
    At(Timestamp),
    /// So long after it was queued.
    After(Span),
}

impl Deadline {
    /// The moment, for an experiment queued then.
    #[must_use]
    pub fn moment(self, queued_at: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::After(span) => queued_at + span,
        }
    }
}

/// How often an attempt that failed of itself is tried again. Interruptions and lost instances do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retry {
    /// Further attempts after the first failure.
    pub limit: u32,
}

/// What happens when a GPU of an attempt stays idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UtilizationPolicy {
    /// A GPU that is used for less than this, in percent, is idle.
    pub min_gpu_utilization: u8,
    /// For so long without a break.
    pub time_window: Span,
    /// What happens then.
    pub action: IdleAction,
}

/// What happens when a GPU stays idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdleAction {
    /// The experiment saves its work and ends.
    #[default]
    Stop,
    /// Webhooks are told, once an attempt.
    Notify,
}

/// How an experiment saves its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// How often it saves, as far as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// How long it may take from SIGTERM until it has ended and its work is stored, before it is killed.
    pub grace: Span,
    /// How long that takes, as far as the spec says: its grace, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Span>,
    /// The folder that it saves to, from the working folder or absolute; none is `$BURSAR_CHECKPOINT_DIR` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where its checkpoints are kept, where not in the installation's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// It may run where a notice is too short to save in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { interval: None, grace: Self::GRACE, takes: None, path: None, store: None, accept_loss: false }
    }
}

impl CheckpointSpec {
    /// The grace where none is given: what GCP's shortest notice leaves.
    pub const GRACE: Span = Span::from_secs(30);
}

/// What an experiment gets from object stores and leaves there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataSpec {
    /// The URL of what is fetched before `setup`, by where it is put: from the working folder, or absolute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, String>,
    /// What is stored at its end, by its path from the working folder: at a URL, or in the installation's store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Option<String>>,
}

impl DataSpec {
    /// Whether it has to do with no store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.outputs.is_empty()
    }
}

/// What is known of how long an experiment takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// From start to end without interruption, on the reference.
    pub duration: Span,
    /// The accelerator that the duration speaks of; none means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<AcceleratorName>,
    /// Speed relative to the reference (1.0), by accelerator. What is not named counts as 1.0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub speeds: BTreeMap<AcceleratorName, f64>,
}

/// One parameter of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
}

/// As the experiment's environment sees it.
impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// The parameters of one trial, by name. Each becomes an environment variable of that name.
pub type Params = BTreeMap<String, ParamValue>;

/// A checked sweep: one spec and the trials that its matrix came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepSpec {
    /// What each trial is.
    pub experiment: ExperimentSpec,
    /// The trials, in the order of the matrix.
    pub trials: Vec<Params>,
    /// The most that all trials together may ever cost, and what happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Arc<BudgetTerms>>,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// How its trials are halved; without it each runs to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asha: Option<AshaRules>,
}
