//! `bursar doctor`: is everything well, and if not, what to do.

#[cfg(feature = "aws")]
use std::sync::Arc;
use std::{borrow::Cow, path::Path};

use bursar_config::{AwsProvider, Config, ConfigFile, Provider, ProviderKind, read_config};
use bursar_daemon::{
    agent_binaries::AgentBinaries,
    clock::SystemClock,
    http::{Health, StorageAnswer, check_storage},
    serve::{agent_folder, store_path},
    views::failing_webhooks,
};
use bursar_model::{Budget, BudgetKey, Clock, ProviderName, Usd};
use bursar_store::{Integrity, Reader};

use crate::{
    args::Global,
    client::Client,
    commands::programs,
    exit::{FAILED, Failure, OK, Outcome, UNREACHABLE},
    output::{json, line},
};

#[derive(Debug, serde::Serialize)]
struct Finding {
    check: Cow<'static, str>,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<Cow<'static, str>>,
}

impl Finding {
    /// A check that is well: told, and nothing to do.
    fn well(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check: check.into(), ok: true, detail: detail.into(), fix: None }
    }

    /// A check that may not be well, with what to do then.
    fn of(check: &'static str, ok: bool, detail: impl Into<String>, fix: &'static str) -> Self {
        Self { check: check.into(), ok, detail: detail.into(), fix: (!ok).then_some(fix.into()) }
    }
}

pub(super) async fn run(global: &Global) -> Outcome {
    let findings = match read_config(global.config.as_deref()) {
        Err(error) => {
            let fix = "mend it; `bursar config check` shows all problems";
            vec![Finding::of("configuration", false, error.to_string(), fix)]
        }
        Ok(checked) => {
            let ConfigFile { file, config } = checked.value;
            let named =
                file.map_or_else(|| "none found, defaults".to_owned(), |file| file.display().to_string());
            let mut findings = vec![Finding::well("configuration", named)];
            let url = global.url.clone().unwrap_or_else(|| format!("http://{}", config.listen));
            // A daemon that was named by its address may be another one than this configuration's, and that is meant.
            let ours = global.url.is_none().then_some(&config);
            let client = Client::new(&url)?;
            let of_daemon = of_daemon(&client, ours).await;
            let answers = of_daemon.iter().all(|finding| finding.check != "daemon" || finding.ok);
            findings.extend(of_daemon);
            if answers || ours.is_some() {
                findings.extend(of_data(&client, &config, answers).await);
            }
            findings.push(of_agents(&config)?);
            findings.extend(of_clouds(&config).await);
            let path = store_path(&config);
            if ours.is_some() && path.is_file() {
                findings.extend(of_store(&path));
            }
            findings
        }
    };
    let all_well = findings.iter().all(|finding| finding.ok);
    if global.json {
        json(&serde_json::json!({ "ok": all_well, "findings": findings }))?;
    } else {
        for Finding { check, ok, detail, fix } in &findings {
            line(&format!("{} {check:<20} {detail}", if *ok { "ok  " } else { "FAIL" }))?;
            if let Some(fix) = fix {
                line(&format!("     fix: {fix}"))?;
            }
        }
    }
    Ok(if all_well { OK } else { FAILED })
}

async fn of_daemon(client: &Client, ours: Option<&Config>) -> Vec<Finding> {
    const ELSEWHERE: &str =
        "give this installation another `listen`, or name the configuration of that one by --config";
    let url = client.url();
    let health = match client.get::<Health>("/v1/health").await {
        Ok(health) => health,
        Err(failure) if failure.code == UNREACHABLE => {
            return vec![Finding::of("daemon", false, failure.message, "start it with `bursar serve`")];
        }
        Err(failure) => {
            let detail = format!("what answers at {url} is no bursar daemon: {}", failure.message);
            return vec![Finding::of("daemon", false, detail, ELSEWHERE)];
        }
    };
    if let Some(foreign) = ours.and_then(|config| foreign(&health, config, url)) {
        return vec![Finding::of("daemon", false, foreign, ELSEWHERE)];
    }
    let Health { version, queued, running, live_instances, offerings, failed_commits, .. } = &health;
    let state =
        format!("version {version} at {url}: {queued} queued, {running} running, {live_instances} instances");
    vec![
        Finding::well("daemon", state),
        Finding::of(
            "offerings",
            *offerings > 0,
            format!("{offerings} on offer"),
            "no provider offers anything: look at the daemon's log",
        ),
        Finding::of(
            "store takes writes",
            *failed_commits == 0,
            format!("{failed_commits} failed turns since the start"),
            "free space on the disk of data_dir, and look at the daemon's log",
        ),
        Finding::of(
            "no orphans (O1)",
            health.orphans_left == 0,
            orphans(&health),
            "they are being ended, so look again soon; if they stay, the daemon's log has the provider's answer, and if they come back, there is a second installation of this name",
        ),
        Finding::of(
            "invariants",
            health.violations.is_empty(),
            invariants(&health),
            "B1 can come of a machine that hung where nothing could end it; all else is a fault of bursar: report it with the daemon's log and the events of that time (`GET /v1/events`)",
        ),
    ]
}

/// Whose daemon it is that answers, where it is not this configuration's.
fn foreign(health: &Health, config: &Config, url: &str) -> Option<String> {
    let Health { installation, data_dir, .. } = health;
    // Daemons of before did not say where their data is.
    let elsewhere = !data_dir.as_os_str().is_empty() && *data_dir != config.data_dir;
    (*installation != config.installation || elsewhere).then(|| {
        format!(
            "the daemon at {url} is of another installation: `{installation}` with its data in {}, and not `{}` in {}",
            data_dir.display(),
            config.installation,
            config.data_dir.display()
        )
    })
}

/// The store of checkpoints and outputs: what cannot be stored shows otherwise only when work is to be saved.
async fn of_data(client: &Client, config: &Config, answers: bool) -> Option<Finding> {
    const CHECK: &str = "data can be stored";
    let fix = "mend `storage` in the configuration and restart the daemon: its url, endpoint and region, and credentials that may write, read and delete below the url";
    let answer = match answers {
        true => client.post("/v1/storage/check", &(), None).await,
        false => Ok(check_storage(config, SystemClock.now()).await),
    };
    match answer {
        Ok(StorageAnswer { url: None, .. }) => None,
        Ok(StorageAnswer { url: Some(url), problem: None }) => {
            Some(Finding::well(CHECK, format!("wrote, read and removed a small object in {url}")))
        }
        Ok(StorageAnswer { problem: Some(problem), .. }) => Some(Finding::of(CHECK, false, problem, fix)),
        Err(failure) => {
            let fix = "the daemon may be of an earlier version: restart it";
            Some(Finding::of(CHECK, false, failure.message, fix))
        }
    }
}

/// What each cloud says of the account, by what the configuration says and without a daemon.
async fn of_clouds(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, provider) in &config.providers {
        match &provider.kind {
            ProviderKind::Local(_) => {}
            ProviderKind::Aws(settings) => findings.extend(of_aws(name, provider, settings, config).await),
        }
    }
    findings
}

#[cfg(feature = "aws")]
async fn of_aws(
    name: &ProviderName,
    provider: &Provider,
    settings: &AwsProvider,
    config: &Config,
) -> Vec<Finding> {
    let url = config.url.clone().unwrap_or_else(|| format!("http://{}", config.listen));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let aws = bursar_daemon::providers::aws_provider(name, settings, provider.terms, config, &clock);
    let found = aws.doctor(&url).await;
    let shown = |finding: bursar_providers::Finding| {
        let bursar_providers::Finding { name, ok, detail, fix } = finding;
        Finding { check: name.into(), ok, detail, fix: fix.map(Cow::Owned) }
    };
    found.into_iter().map(shown).collect()
}

#[cfg(not(feature = "aws"))]
async fn of_aws(name: &ProviderName, _: &Provider, _: &AwsProvider, _: &Config) -> Vec<Finding> {
    vec![Finding {
        check: name.to_string().into(),
        ok: false,
        detail: "this bursar was built without AWS".to_owned(),
        fix: Some("build it with `cargo build --release --features aws`".into()),
    }]
}

/// The agents that rented machines fetch: a machine that finds none powers itself off, and was paid for in vain.
fn of_agents(config: &Config) -> Result<Finding, Failure> {
    let fix = "run deploy/agent/build, name its folder as `agent_binaries`, and restart the daemon";
    let folder = agent_folder(config, &programs()?);
    let digests = match AgentBinaries::read(&folder) {
        Ok(agents) => agents.digests(),
        Err(error) => return Ok(Finding::of("agents", false, error.to_string(), fix)),
    };
    let needed = config.providers.values().any(bursar_config::Provider::rents_machines);
    let named = config.agent_binaries.is_some();
    let detail = match (digests.is_empty(), needed || named) {
        (false, _) => {
            let kinds: Vec<&str> = digests.keys().map(String::as_str).collect();
            format!("{} in {}", kinds.join(", "), folder.display())
        }
        (true, true) => format!("none in {}", folder.display()),
        (true, false) => "none, and local instances need none".to_owned(),
    };
    Ok(Finding::of("agents", !digests.is_empty() || !(needed || named), detail, fix))
}

/// What the daemon found broken in itself.
fn invariants(health: &Health) -> String {
    if health.violations.is_empty() {
        return "none found broken since the start".to_owned();
    }
    health.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Orphans that were ended are over and done with: told, since somebody may want to know where they came from.
fn orphans(health: &Health) -> String {
    match (health.orphans_left, health.orphans, health.orphan_at) {
        (0, 0, _) | (0, _, None) => "none since the start".to_owned(),
        (0, ended, Some(at)) => format!("none now; {ended} ended since the start, the newest found at {at}"),
        (left, _, _) => format!("{left} with our tag that nobody knows"),
    }
}

fn of_store(path: &Path) -> Vec<Finding> {
    /// Some days of them, where much is told; a webhook that failed before them works by now or is still failing.
    const NOTIFICATIONS: u32 = 1000;
    let read = Reader::open(path).and_then(|reader| {
        let told = reader.notifications(None, NOTIFICATIONS)?.rows;
        Ok((reader.integrity()?, reader.violations()?, reader.budgets()?, told))
    });
    let (integrity, violations, budgets, told) = match read {
        Ok(read) => read,
        Err(error) => {
            return vec![Finding::of("store", false, error.to_string(), "restore the newest backup")];
        }
    };
    let Integrity { file, wrong_sums, wrong_budgets, wrong_meters, gaps, dangling } = &integrity;
    let detail = if integrity.is_sound() {
        format!("{} is sound, its sums, budgets and meters equal a recount", path.display())
    } else {
        format!(
            "{file:?}, {wrong_sums} wrong sums, {wrong_budgets} wrong budgets, {wrong_meters} wrong meters, \
             {gaps} gaps between charges, {dangling} dangling rows"
        )
    };
    let fix = "stop the daemon and restore the newest backup";
    let mut findings = vec![Finding::of("store", integrity.is_sound(), detail, fix)];
    let landing = budgets.iter().filter(|(_, budget)| budget.over() > Usd::ZERO);
    findings.extend(landing.map(|(key, budget)| Finding::well("budget", below(key, budget))));
    let failing = failing_webhooks(&told, SystemClock.now());
    let failing: Vec<String> = failing.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    findings.push(Finding::of(
        "webhooks",
        failing.is_empty(),
        if failing.is_empty() { "none has failed for an hour".to_owned() } else { failing.join("; ") },
        "mend its address or key in the configuration, restart the daemon, and see `bursar notifications test NAME`",
    ));
    let faults: Vec<String> = violations.iter().map(ToString::to_string).collect();
    findings.push(Finding::of(
        "invariants",
        faults.is_empty(),
        if faults.is_empty() { "all hold".to_owned() } else { faults.join("; ") },
        "this is a fault of bursar: please report it with this output",
    ));
    findings
}

fn below(key: &BudgetKey, budget: &Budget) -> String {
    let limit = budget.limit().unwrap_or_default();
    let until = if budget.spent > limit { "it is raised" } else { "enough of what runs has ended" };
    format!(
        "{key}: its limit of {} is below the {} that are spent and {} held; work lands, and nothing new starts until {until}",
        limit.rounded(),
        budget.spent.rounded(),
        budget.held.rounded()
    )
}
