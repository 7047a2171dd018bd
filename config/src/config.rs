//! The daemon's configuration, checked: what the rest of bursar works with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use bursar_model::{
    BudgetTerms, Discount, InstanceType, ProjectName, ProviderName, Region, Schedule, SecretRef, Span, Terms,
    TypeName, UsdPerHour, UserName, Zone,
};

/// What a daemon works with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name of this installation, which tags all that it rents.
    pub installation: String,
    /// Where the store and the logs are kept.
    pub data_dir: PathBuf,
    /// The address and port of the API.
    pub listen: SocketAddr,
    /// Where rented machines reach the daemon; where it listens, if it does not say.
    pub url: Option<String>,
    /// Where the agents for rented machines are; beside the program where it does not say.
    pub agent_binaries: Option<PathBuf>,
    /// What the whole installation may spend.
    pub budget: Option<Arc<BudgetTerms>>,
    /// The projects that experiments may name. `default` is always among them.
    pub projects: BTreeMap<ProjectName, Project>,
    /// What users may spend, over all projects. Others have no limit of their own.
    pub users: BTreeMap<UserName, User>,
    /// Discounts on listed prices. The first that applies counts.
    pub discounts: Vec<Discount>,
    /// Who is told what.
    pub notifications: Notifications,
    /// The store of this installation.
    pub storage: Option<Storage>,
    /// How instances are rented, kept and given back.
    pub policy: Policy,
    /// How long logs and metrics are kept.
    pub logs: LogPolicy,
    /// Where instances come from. Never empty.
    pub providers: BTreeMap<ProviderName, Provider>,
}

/// A project: who pays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// What it may spend.
    pub budget: Option<Arc<BudgetTerms>>,
}

/// A user of whom something is laid down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// What they may spend.
    pub budget: Option<Arc<BudgetTerms>>,
}

/// Who is told what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notifications {
    /// Where messages go, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// Reports that are sent regularly.
    pub reports: Vec<ScheduledReport>,
}

/// A place that takes messages over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `https://…` or `http://…`. Left out of `Debug`: whoever knows the address of a chat can write there.
    pub url: String,
    /// The form of the body.
    pub format: WebhookFormat,
    /// The key that each message is signed with.
    pub secret: Option<SecretRef>,
    /// Which messages it gets. Never empty.
    pub events: BTreeSet<NotificationKind>,
}

/// The form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    /// An object with everything as fields.
    Plain,
    /// An incoming webhook of Slack, or of what speaks like it (Mattermost, Discord's `/slack`).
    Slack,
}

/// What messages are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotificationKind {
    /// A threshold of a budget was reached.
    Threshold,
    /// A budget stopped work, or let none start.
    Exhausted,
    /// A budget will be used up before its window ends.
    Forecast,
    /// An experiment costs far more than expected.
    Anomaly,
    /// A GPU of an experiment stays idle.
    IdleGpu,
    /// A scheduled report.
    Report,
}

/// A report that is sent regularly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledReport {
    /// What it is called.
    pub name: String,
    /// When it is sent. It covers the time since the last time.
    pub schedule: Schedule,
    /// What it is by, as `bursar report --by` has it.
    pub by: String,
    /// The webhooks that get it, by name. Never empty.
    pub to: Vec<String>,
}

/// An object store that checkpoints and outputs are kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// `s3://bucket/prefix` and the like, without a `/` at the end.
    pub url: String,
    /// Where it answers, where that is not the cloud's own address.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// What opens it, by the names of the cloud's variables. None is what instances have themselves.
    pub credentials: BTreeMap<String, SecretRef>,
    /// How many checkpoints of each experiment are kept, at least 1.
    pub checkpoints_kept: u32,
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

/// How long logs and metrics of attempts that have ended are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// So long after they were written.
    pub keep: Span,
    /// The most that all together take of the disk, in bytes.
    pub max_total: u64,
}

/// Where instances come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// How it bills, and what comes on top of its prices.
    pub terms: Terms,
    /// What it is.
    pub kind: ProviderKind,
}

/// What a provider is.
#[derive(Debug, Clone, PartialEq)]
pub enum ProviderKind {
    /// Instances of Amazon EC2.
    Aws(AwsProvider),
    /// Processes on this machine.
    Local(LocalProvider),
}

impl Provider {
    /// Whether its instances are machines that reach the daemon over a network.
    #[must_use]
    pub fn rents_machines(&self) -> bool {
        match self.kind {
            ProviderKind::Aws(_) => true,
            ProviderKind::Local(_) => false,
        }
    }
}

/// A provider that rents instances of Amazon EC2.
#[derive(Debug, Clone, PartialEq)]
pub struct AwsProvider {
    /// Where instances may be. Never empty.
    pub regions: Vec<Region>,
    /// Which types may be rented, with `*` for any letters.
    pub instance_types: Vec<String>,
    /// The image of all instances, as `RunInstances` takes it; that of AWS or Canonical where nobody says.
    pub image: Option<String>,
    /// The device that it boots from.
    pub root_device: String,
    /// The subnet for each zone, beside the default network.
    pub subnets: BTreeMap<Zone, String>,
    /// The security groups for each region, beside the default one.
    pub security_groups: BTreeMap<Region, Vec<String>>,
    /// The instance profile, by name or ARN.
    pub instance_profile: Option<String>,
    /// What everything is tagged with beside the tags of bursar.
    pub tags: BTreeMap<String, String>,
    /// The queue with the warnings of interruptions.
    pub interruption_queue: Option<String>,
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

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, format, secret, events } = self;
        let mut shown = f.debug_struct("Webhook");
        shown.field("format", format).field("secret", secret).field("events", events).finish_non_exhaustive()
    }
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

impl Default for LogPolicy {
    /// Long enough to look at a result after a holiday; as much as fits beside a store on a small disk.
    fn default() -> Self {
        Self { keep: Span::from_hours(30 * 24), max_total: 10 << 30 }
    }
}
