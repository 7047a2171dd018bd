//! The daemon's configuration: within bounds and with every default filled in.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use bursar_model::{ProjectName, Span, UserName};

use super::{
    budget::check_budget,
    data::check_storage,
    notifications::check_notifications,
    pricing::check_discounts,
    providers::{Machine, check_providers},
    quantities, words,
};
use crate::{
    config::{Config, LogPolicy, Policy, Project, User},
    problem::{Problem, Report, shortened},
    raw::{RawConfig, RawLogs, RawPolicy, RawProject, RawUser},
};

/// The port of the API where none is given.
const PORT_DEFAULT: u16 = 7733;
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
pub(super) const INSTANCES_MAX: u32 = 100_000;

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
        url,
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
    let url = url.and_then(|url| check_url(report, &url));
    if url.is_none() && providers.values().any(|provider| provider.rents_machines()) {
        let problem = Problem::new("url", "is missing, and rented machines have to reach this daemon");
        report.error(problem.hint("write where they do, such as `url: http://10.0.0.5:7733`"));
    }
    Config {
        installation,
        data_dir: check_data_dir(report, data_dir.as_deref(), around),
        listen: check_listen(report, listen.as_deref()),
        url,
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

fn check_url(report: &mut Report, written: &str) -> Option<String> {
    let host = written.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let fits = |host: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
        !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
    };
    let Some(host) = host.filter(|host| fits(host)) else {
        let message = format!("`{}` is not the address of a daemon", shortened(written));
        report
            .error(Problem::new("url", message).hint("write `http://` and a host with a port, and no path"));
        return None;
    };
    Some(format!("http://{host}"))
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
