//! The daemon's configuration as it was written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LimitOr, RawBudget, RawNotifications, RawPricing, RawProvider, RawStorage, Written};

/// What a bursar daemon works with. Everything has a default: without a file it rents out this one machine. A scalar
/// `key` of a `section` can also be set by the environment variable `BURSAR_SECTION_KEY`, which wins over the file;
/// `BURSAR_BUDGET` sets `budget.limit`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// The name of this installation, which tags all that it rents. Two installations on one cloud account need two
    /// names. Default `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<String>,
    /// Where the store and the logs are kept. A relative path counts from the folder of this file. Default
    /// `$XDG_STATE_HOME/bursar` or `~/.local/state/bursar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// The address and port of the API. Default `127.0.0.1:7733`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Where rented machines reach this daemon, such as `http://10.0.0.5:7733`. Default the address that it listens on, which
    /// only does for `local` instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where the agents are that rented machines fetch at their boot: `bursar-agent-x86_64` and `bursar-agent-aarch64`, as
    /// `deploy/agent/build` makes them. A relative path counts from the folder of this file. Default the folder of the
    /// `bursar` program. `local` instances need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_binaries: Option<String>,
    /// What the whole installation may spend: a number is the limit in USD, a map says more. Default no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<LimitOr<RawBudget>>,
    /// The projects that experiments may name, each with its budget. `default` always exists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub projects: BTreeMap<String, Option<RawProject>>,
    /// Users with a budget of their own, by the name that they submit under. Others need not stand here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, Option<RawUser>>,
    /// What listed prices come to for this account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pricing: Option<RawPricing>,
    /// Who is told what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notifications: Option<RawNotifications>,
    /// The store of this installation. Default none: checkpoints are kept by the provider that they were made at, and
    /// outputs where an experiment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<RawStorage>,
    /// How instances are rented, kept and given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<RawPolicy>,
    /// How long logs and metrics are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<RawLogs>,
    /// Where instances come from, by a name of your choice. Default one `local` provider that is this machine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub providers: BTreeMap<String, RawProvider>,
}

/// A project: who pays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawProject {
    /// What it may spend: a number is the limit in USD, a map says more. Default no limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<LimitOr<RawBudget>>,
}

/// A user of whom something is laid down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawUser {
    /// What they may spend, over all projects: a number is the limit in USD, a map says more. Default no limit of their
    /// own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<LimitOr<RawBudget>>,
}

/// How instances are rented, kept and given back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawPolicy {
    /// How long an instance on which nothing runs is kept. Default `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_duration: Option<String>,
    /// How long an instance runs on when it hears nothing from the daemon: so much is always held in the budgets. At
    /// least 4 heartbeats and 4 s, so that it can be renewed in time. Default `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// What is held beyond the lease for the last checkpoint and the shutdown, at least `3s`. No experiment may ask for
    /// a longer grace. Default `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_allowance: Option<String>,
    /// How many instances may exist at once. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<i64>,
    /// How often each provider is asked what exists and what it costs. Default `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observe_interval: Option<String>,
    /// How often an agent reports at least. Default `10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<String>,
    /// The highest price of any instance, in USD an hour. Default no ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Written>,
}

/// How long logs and metrics of attempts that have ended are kept. What still runs keeps its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLogs {
    /// So long after they were written. Default `30d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// The most that all together take of the disk, such as `10GB`: the oldest go first. Default `10GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total: Option<Written>,
}
