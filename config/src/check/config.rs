//! The daemon's configuration: within bounds and with every default filled in.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use bursar_model::{
    InstanceType, ProjectName, ProviderName, Span, Terms, TypeName, UsdPerHour, UserName, Zone,
};

use super::{
    accelerators::accelerators,
    budget::check_budget,
    data::check_storage,
    notifications::check_notifications,
    pricing::{check_discounts, check_terms},
    quantities, words,
};
use crate::{
    config::{Config, LocalProvider, LocalType, LogPolicy, Policy, Project, Provider, ProviderKind, User},
    problem::{Problem, Report, shortened},
    raw::{RawConfig, RawLocalType, RawLogs, RawPolicy, RawProject, RawProvider, RawUser},
};

/// The port of the API where none is given.
const PORT_DEFAULT: u16 = 7733;
/// What the machine that bursar runs on costs where nobody says: of the order of a small cloud instance.
const MACHINE_ON_DEMAND: UsdPerHour = UsdPerHour::from_nanos(100_000_000);
/// A third of that, as spot prices are.
const MACHINE_SPOT: UsdPerHour = UsdPerHour::from_nanos(30_000_000);
/// Local disks are not measured out; this is what a type claims to have.
const DISK_GIB_DEFAULT: u32 = 100;
/// The notice that GCP gives, the shortest of the clouds.
const NOTICE_DEFAULT: Span = Span::from_secs(30);
/// Shorter intervals would keep the machine busy with asking.
const INTERVAL_MIN: Span = Span::from_millis(50);
/// What is paid for beyond a lease must last until an instance whose agent hangs was ended: 2 s after its lease, and what
/// killing takes.
const DRAIN_ALLOWANCE_MIN: Span = Span::from_secs(3);
/// The shortest grace that is worth its name: every lease leaves room for it.
const GRACE_MIN: Span = Span::from_secs(1);
/// Kept for the end of the grace to be reported and the last of the log to be delivered.
const LANDING_MARGIN: Span = Span::from_secs(1);
/// As many instances as one daemon can look after.
const INSTANCES_MAX: u32 = 100_000;
/// One interruption a second; a script does for more.
const INTERRUPTIONS_PER_HOUR_MAX: f64 = 3600.0;

/// The machine that bursar runs on: what a local provider offers where nothing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that this process may use.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// What a configuration depends on beside its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The folder of the file, which relative paths count from.
    pub(crate) folder: Option<&'a Path>,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) machine: Machine,
}

/// What the configuration means. Wrong parts are reported and stand as their defaults.
pub(crate) fn check_config(report: &mut Report, raw: RawConfig, around: Surroundings<'_>) -> Config {
    let RawConfig {
        installation,
        data_dir,
        listen,
        agent_binaries,
        budget,
        projects,
        users,
        pricing,
        notifications,
        storage,
        policy,
        logs,
        providers,
    } = raw;
    let installation = installation.unwrap_or_else(|| "default".to_owned());
    words::name(report, "installation", &installation);
    let providers = check_providers(report, providers, around.machine);
    Config {
        installation,
        data_dir: check_data_dir(report, data_dir.as_deref(), around),
        listen: check_listen(report, listen.as_deref()),
        agent_binaries: agent_binaries.map(|written| path(&written, around)),
        budget: budget.and_then(|budget| check_budget(report, "budget", budget)),
        projects: check_projects(report, projects),
        users: check_users(report, users),
        discounts: check_discounts(report, pricing.unwrap_or_default().discounts, &providers),
        notifications: check_notifications(report, notifications.unwrap_or_default()),
        storage: storage.and_then(|storage| check_storage(report, storage)),
        policy: check_policy(report, policy.unwrap_or_default()),
        logs: check_logs(report, logs.unwrap_or_default()),
        providers,
    }
}

/// What a path means that somebody wrote.
fn path(written: &str, around: Surroundings<'_>) -> PathBuf {
    let below_home = written.strip_prefix("~/").and_then(|rest| below_home(rest, around));
    below_home.unwrap_or_else(|| around.folder.map_or_else(|| written.into(), |folder| folder.join(written)))
}

fn below_home(rest: &str, around: Surroundings<'_>) -> Option<PathBuf> {
    around.env.get("HOME").map(|home| Path::new(home).join(rest))
}

fn check_data_dir(report: &mut Report, written: Option<&str>, around: Surroundings<'_>) -> PathBuf {
    if let Some(written) = written {
        return path(written, around);
    }
    let state = around.env.get("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let Some(state) = state.or_else(|| below_home(".local/state", around)) else {
        let problem = Problem::new("data_dir", "is missing, and neither XDG_STATE_HOME nor HOME says where");
        report.error(problem.hint("name a folder, such as `data_dir: /var/lib/bursar`"));
        return PathBuf::new();
    };
    state.join("bursar")
}

fn check_listen(report: &mut Report, written: Option<&str>) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT));
    let Some(written) = written else { return default };
    let Ok(listen) = written.parse::<SocketAddr>() else {
        let message = format!("`{}` is no address with a port", shortened(written));
        report.error(Problem::new("listen", message).hint(format!("write `{default}`")));
        return default;
    };
    if !listen.ip().is_loopback() {
        let problem = Problem::new("listen", "whoever reaches this address can spend the budgets");
        report.warn(
            problem.hint("there are no users and passwords in this version: keep it behind a firewall"),
        );
    }
    listen
}

fn check_projects(
    report: &mut Report,
    raw: BTreeMap<String, Option<RawProject>>,
) -> BTreeMap<ProjectName, Project> {
    let mut projects = BTreeMap::from([(ProjectName::new(Config::DEFAULT_PROJECT), Project::default())]);
    for (name, raw) in raw {
        let path = format!("projects.{name}");
        words::name(report, &path, &name);
        let budget = raw
            .and_then(|raw| raw.budget)
            .and_then(|budget| check_budget(report, &format!("{path}.budget"), budget));
        projects.insert(ProjectName::new(&name), Project { budget });
    }
    projects
}

fn check_users(report: &mut Report, raw: BTreeMap<String, Option<RawUser>>) -> BTreeMap<UserName, User> {
    let mut users = BTreeMap::new();
    for (name, raw) in raw {
        let path = format!("users.{name}");
        words::user(report, &path, &name);
        let budget = raw
            .and_then(|raw| raw.budget)
            .and_then(|budget| check_budget(report, &format!("{path}.budget"), budget));
        users.insert(UserName::new(&name), User { budget });
    }
    users
}

fn check_policy(report: &mut Report, raw: RawPolicy) -> Policy {
    let RawPolicy {
        idle_duration,
        lease,
        drain_allowance,
        max_instances,
        observe_interval,
        heartbeat,
        max_price,
    } = raw;
    let default = Policy::default();
    let policy = Policy {
        idle_duration: idle_duration
            .and_then(|text| words::span(report, "policy.idle_duration", &text))
            .unwrap_or(default.idle_duration),
        lease: lease
            .and_then(|text| words::some_span(report, "policy.lease", &text))
            .unwrap_or(default.lease),
        drain_allowance: drain_allowance
            .and_then(|text| check_drain_allowance(report, &text))
            .unwrap_or(default.drain_allowance),
        max_instances: max_instances
            .and_then(|n| words::count(report, "policy.max_instances", n, 0, INSTANCES_MAX))
            .unwrap_or(default.max_instances),
        observe_interval: interval(report, "policy.observe_interval", observe_interval)
            .unwrap_or(default.observe_interval),
        heartbeat: interval(report, "policy.heartbeat", heartbeat).unwrap_or(default.heartbeat),
        max_price: max_price.and_then(|price| words::price(report, "policy.max_price", &price)),
    };
    if policy.grace_max() < GRACE_MIN {
        let Policy { lease, heartbeat, .. } = policy;
        let shortest = Policy::lease_for(GRACE_MIN, heartbeat);
        let message = format!("a lease of {lease} is too short to be renewed at heartbeats of {heartbeat}");
        let hint = format!("at least {shortest}, or a shorter policy.heartbeat");
        report.error(Problem::new("policy.lease", message).hint(hint));
    }
    policy
}

fn check_logs(report: &mut Report, raw: RawLogs) -> LogPolicy {
    let RawLogs { keep, max_total } = raw;
    let default = LogPolicy::default();
    LogPolicy {
        keep: keep.and_then(|text| words::span(report, "logs.keep", &text)).unwrap_or(default.keep),
        max_total: max_total
            .and_then(|size| quantities::disk_mib(report, "logs.max_total", &size))
            .map_or(default.max_total, |mib| mib << 20),
    }
}

impl Policy {
    /// The shortest lease for such a grace. Work is told to end its grace and a margin before the lease ends, and goes on
    /// only where that lease was renewed before: half of it is left for this, and for two reports of which one is lost.
    /// Shorter, and work would be moved for ever without getting anywhere.
    pub(crate) fn lease_for(grace: Span, heartbeat: Span) -> Span {
        (grace + LANDING_MARGIN + heartbeat.times(2)).times(2)
    }

    /// The longest grace that fits these leases.
    pub(crate) fn grace_max(&self) -> Span {
        self.lease.divided_by(2).saturating_sub(LANDING_MARGIN + self.heartbeat.times(2))
    }
}

fn check_drain_allowance(report: &mut Report, text: &str) -> Option<Span> {
    let span = words::span(report, "policy.drain_allowance", text)?;
    if span < DRAIN_ALLOWANCE_MIN {
        let message = format!("{span} does not pay for ending an instance whose agent hangs");
        let hint = format!("at least {DRAIN_ALLOWANCE_MIN}");
        report.error(Problem::new("policy.drain_allowance", message).hint(hint));
        return None;
    }
    Some(span)
}

fn interval(report: &mut Report, path: &str, text: Option<String>) -> Option<Span> {
    let span = words::span(report, path, &text?)?;
    if span < INTERVAL_MIN {
        report.error(Problem::new(path, format!("must be at least {INTERVAL_MIN}")));
        return None;
    }
    Some(span)
}

fn check_providers(
    report: &mut Report,
    raw: BTreeMap<String, RawProvider>,
    machine: Machine,
) -> BTreeMap<ProviderName, Provider> {
    let mut providers = BTreeMap::new();
    for (name, raw) in raw {
        let path = format!("providers.{name}");
        words::name(report, &path, &name);
        providers.insert(ProviderName::new(&name), check_provider(report, &path, raw, machine));
    }
    if providers.is_empty() {
        let local = LocalProvider { seed: 0, types: this_machine(machine), interruptions: Vec::new() };
        let provider = Provider { terms: Terms::default(), kind: ProviderKind::Local(local) };
        providers.insert(ProviderName::new("local"), provider);
    }
    providers
}

fn check_provider(report: &mut Report, path: &str, raw: RawProvider, machine: Machine) -> Provider {
    let RawProvider { kind, billing, disk_price, address_price, overhead, seed, types, interruptions } = raw;
    let (disk, address) = (disk_price.as_ref(), address_price.as_ref());
    let terms = check_terms(report, path, billing, disk, address, overhead.as_ref());
    let kind_path = format!("{path}.type");
    match kind.as_deref() {
        Some("local") => {}
        Some("aws" | "gcp") => {
            report.error(Problem::new(kind_path, "clouds are not available in this version"))
        }
        Some(kind) => {
            words::word(report, &kind_path, kind, &[("local", ())]);
        }
        None => report.error(Problem::new(kind_path, "is missing").hint("write `type: local`")),
    }
    let checked: BTreeMap<_, _> = types
        .into_iter()
        .map(|(name, raw)| {
            (TypeName::new(&name), check_type(report, &format!("{path}.types.{name}"), &name, raw))
        })
        .collect();
    let interruptions = interruptions.iter().enumerate();
    let kind = ProviderKind::Local(LocalProvider {
        seed: seed.unwrap_or_default().cast_unsigned(),
        types: if checked.is_empty() { this_machine(machine) } else { checked },
        interruptions: interruptions
            .filter_map(|(index, text)| words::span(report, &format!("{path}.interruptions[{index}]"), text))
            .collect(),
    });
    Provider { terms, kind }
}

fn check_type(report: &mut Report, path: &str, name: &str, raw: RawLocalType) -> LocalType {
    let RawLocalType {
        accelerators: has,
        cpus,
        memory,
        disk_size,
        zones,
        on_demand,
        spot,
        interruptions_per_hour,
        notice,
        boot,
        max_instances,
    } = raw;
    let at = |key: &str| format!("{path}.{key}");
    words::name(report, path, name);
    let zones = zones.map_or_else(|| vec!["local-a".to_owned()], |zones| zones.0);
    for zone in &zones {
        words::name(report, &at("zones"), zone);
    }
    if zones.is_empty() {
        report.error(Problem::new(at("zones"), "names no zone"));
    }
    if on_demand.is_none() && spot.is_none() {
        let problem = Problem::new(path, "has no price, so nothing could ever be rented");
        report.error(problem.hint("give `on_demand`, `spot` or both, in USD an hour"));
    }
    let on_demand = on_demand.and_then(|price| words::price(report, &at("on_demand"), &price));
    let spot = spot.and_then(|price| words::price(report, &at("spot"), &price));
    if let (Some(on_demand), Some(spot)) = (on_demand, spot)
        && spot > on_demand
    {
        report.warn(Problem::new(at("spot"), "costs more than on demand"));
    }
    let rate = interruptions_per_hour.unwrap_or_default();
    if !(0.0..=INTERRUPTIONS_PER_HOUR_MAX).contains(&rate) {
        let message = format!("`{rate}` is not between 0 and {INTERRUPTIONS_PER_HOUR_MAX}");
        report.error(Problem::new(at("interruptions_per_hour"), message));
    }
    LocalType {
        instance_type: InstanceType {
            name: TypeName::new(name),
            accelerators: has.and_then(|text| accelerators(report, &at("accelerators"), &text)),
            cpus_milli: cpus
                .and_then(|cpus| quantities::cpus_milli(report, &at("cpus"), &cpus))
                .unwrap_or(1000),
            memory_mib: memory
                .and_then(|memory| quantities::memory_mib(report, &at("memory"), &memory))
                .unwrap_or(1024),
            disk_gib: disk_size
                .and_then(|disk| quantities::disk_gib(report, &at("disk_size"), &disk))
                .unwrap_or(DISK_GIB_DEFAULT),
        },
        zones: zones.iter().map(|zone| Zone::new(zone)).collect(),
        on_demand,
        spot,
        interruptions_per_hour: rate,
        notice: notice.and_then(|text| words::span(report, &at("notice"), &text)).unwrap_or(NOTICE_DEFAULT),
        boot: boot.and_then(|text| words::span(report, &at("boot"), &text)).unwrap_or(Span::ZERO),
        max_instances: max_instances
            .and_then(|n| words::count(report, &at("max_instances"), n, 0, INSTANCES_MAX)),
    }
}

/// One type that is this machine, once: a second instance would share what the first has.
fn this_machine(machine: Machine) -> BTreeMap<TypeName, LocalType> {
    let name = TypeName::new("this-machine");
    let instance_type = InstanceType {
        name: name.clone(),
        accelerators: None,
        cpus_milli: machine.cpus.saturating_mul(1000),
        memory_mib: machine.memory_mib,
        disk_gib: DISK_GIB_DEFAULT,
    };
    let offer = LocalType {
        instance_type,
        zones: vec![Zone::new("local-a")],
        on_demand: Some(MACHINE_ON_DEMAND),
        spot: Some(MACHINE_SPOT),
        interruptions_per_hour: 0.0,
        notice: NOTICE_DEFAULT,
        boot: Span::ZERO,
        max_instances: Some(1),
    };
    BTreeMap::from([(name, offer)])
}
