//! The daemon's configuration, checked: what the rest of bursar works with.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use bursar_model::{InstanceType, ProjectName, ProviderName, Span, TypeName, Usd, UsdPerHour, Zone};

/// What a daemon works with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name of this installation, which tags all that it rents.
    pub installation: String,
    /// Where the store and the logs are kept.
    pub data_dir: PathBuf,
    /// The address and port of the API.
    pub listen: SocketAddr,
    /// The most that the whole installation may ever spend.
    pub budget: Option<Usd>,
    /// The projects that experiments may name. `default` is always among them.
    pub projects: BTreeMap<ProjectName, Project>,
    /// How instances are rented, kept and given back.
    pub policy: Policy,
    /// Where instances come from. Never empty.
    pub providers: BTreeMap<ProviderName, Provider>,
}

/// A project: who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Project {
    /// The most that it may ever spend.
    pub budget: Option<Usd>,
}

/// How instances are rented, kept and given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long an instance on which nothing runs is kept.
    pub idle_duration: Span,
    /// How long an instance runs on when it hears nothing from the daemon.
    pub lease: Span,
    /// What is held beyond the lease for the last checkpoint and the shutdown.
    pub drain_allowance: Span,
    /// How many instances may exist at once.
    pub max_instances: u32,
    /// How often each provider is asked what exists and what it costs.
    pub observe_interval: Span,
    /// How often an agent reports at least.
    pub heartbeat: Span,
    /// The highest price of any instance.
    pub max_price: Option<UsdPerHour>,
}

/// Where instances come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Provider {
    /// Processes on this machine.
    Local(LocalProvider),
}

/// A provider whose instances are processes on this machine, at prices of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalProvider {
    /// Where its random interruptions start.
    pub seed: u64,
    /// What it offers. Never empty.
    pub types: BTreeMap<TypeName, LocalType>,
    /// How long after its boot the first, second, … spot instance is interrupted.
    pub interruptions: Vec<Span>,
}

/// What a local provider offers under one name.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalType {
    /// What such an instance has.
    pub instance_type: InstanceType,
    /// The zones that offer it. Never empty.
    pub zones: Vec<Zone>,
    /// The on-demand price; none is not sold on demand.
    pub on_demand: Option<UsdPerHour>,
    /// The spot price; none is not sold as spot.
    pub spot: Option<UsdPerHour>,
    /// How often a spot instance is interrupted in an hour, on average.
    pub interruptions_per_hour: f64,
    /// From the notice of an interruption to the end.
    pub notice: Span,
    /// From launch to ready.
    pub boot: Span,
    /// How many may exist at once, in all zones together.
    pub max_instances: Option<u32>,
}

impl Config {
    /// The project of experiments that name none.
    pub const DEFAULT_PROJECT: &'static str = "default";
}

impl Default for Policy {
    /// Kept long enough for the next experiment of a person who looks at a result; leased long enough to outlive a
    /// restart of the daemon; observed well within the shortest notice of a cloud.
    fn default() -> Self {
        Self {
            idle_duration: Span::from_secs(300),
            lease: Span::from_secs(600),
            drain_allowance: Span::from_secs(60),
            max_instances: 100,
            observe_interval: Span::from_secs(30),
            heartbeat: Span::from_secs(10),
            max_price: None,
        }
    }
}
