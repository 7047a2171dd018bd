//! The course of the demo: start a daemon, submit, watch, wait until all is torn down, stop, and read the books.

use std::{collections::BTreeMap, io::IsTerminal, path::Path, process::Stdio, time::Duration};

use bursar_config::{read_config, read_spec};
use bursar_daemon::{
    clock::SystemClock,
    http::{Health, SubmitAnswer, SubmitBatch},
    serve::store_path,
    views::{ExperimentView, InstanceView, List, ListWanted, SweepView, Views},
};
use bursar_model::{Clock, ExperimentId, SweepId};
use bursar_store::Reader;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::process::{Child, Command};

use super::{scene, summary::Summary};
use crate::{
    client::Client,
    commands::{CONFIGURATION, unreadable},
    exit::{FAILED, Failure},
    output::note,
};

/// The whole demo takes about half of this; beyond, something is wrong and it says so.
const PATIENCE: Duration = Duration::from_secs(110);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Plays it in this folder.
pub(super) async fn play(folder: &Path) -> Result<Summary, Failure> {
    scene::write(folder)?;
    let config_path = folder.join(scene::CONFIG);
    let config = read_config(Some(&config_path)).map_err(unreadable(CONFIGURATION))?.value.config;
    let client = Client::new(&format!("http://{}", config.listen))?;

    note("Starting a daemon with a small cloud made of processes on this machine");
    let mut daemon = start_daemon(folder, &config_path)?;
    let played = tokio::time::timeout(PATIENCE, course(&client, folder, &config, &mut daemon)).await;
    stop(&mut daemon).await;
    let sweep = match played {
        Ok(result) => result?,
        Err(_) => {
            return Err(Failure::new(
                FAILED,
                format!("the demo did not end within {} s", PATIENCE.as_secs()),
            )
            .hint("run it with --keep DIR and look at DIR/daemon.log"));
        }
    };
    // The books are read from the store: what people see is what was durable.
    let reader = Reader::open(&store_path(&config))?;
    let views = Views::new(reader, Default::default(), SystemClock.now());
    Summary::read(&views, sweep)
}

async fn course(
    client: &Client,
    folder: &Path,
    config: &bursar_config::Config,
    daemon: &mut Child,
) -> Result<SweepId, Failure> {
    until_ready(client, daemon).await?;
    let spec = read_spec(&folder.join(scene::SWEEP), Some(config));
    let spec = spec.map_err(unreadable("the sweep"))?.value.raw;
    let batch = SubmitBatch { user: crate::commands::user(), specs: vec![spec] };
    let answer: SubmitAnswer = client.post("/v1/experiments", &batch, None).await?;
    let sweep =
        answer.sweep.ok_or_else(|| Failure::new(FAILED, "the daemon did not take the sweep as one"))?;
    note(&format!(
        "Submitted {} training runs as one sweep, under a budget that pays for some of them",
        answer.experiments.len()
    ));
    watch(client, sweep).await?;
    note("The sweep is over; waiting until every instance is gone");
    // Bounded by the patience above.
    loop {
        let health: Health = client.get("/v1/health").await?;
        if health.live_instances == 0 {
            return Ok(sweep);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says what happens, as it happens.
async fn watch(client: &Client, sweep: SweepId) -> Result<(), Failure> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} trials over  {msg}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let say = |text: String| match &bar {
        Some(bar) => bar.println(text),
        None => note(&text),
    };
    let mut trials: BTreeMap<ExperimentId, (String, u32)> = BTreeMap::new();
    let mut instances: BTreeMap<bursar_model::InstanceId, String> = BTreeMap::new();
    // Bounded by the patience of the caller.
    loop {
        let state: SweepView = client.get(&format!("/v1/sweeps/{sweep}")).await?;
        let found: List<InstanceView> = client.get("/v1/instances").await?;
        for instance in found.rows.iter().rev() {
            let before = instances.insert(instance.id, instance.state.clone());
            if before.as_ref() != Some(&instance.state)
                && let Some(text) = told_of_instance(instance)
            {
                say(text);
            }
        }
        let found: List<ExperimentView> = client.ask("/v1/experiments", &of_sweep(sweep)).await?;
        for trial in found.rows.iter().rev() {
            let now = (trial.state.clone(), trial.attempts);
            let before = trials.insert(trial.id, now.clone());
            if let Some(text) = told_of_trial(trial, before.as_ref(), &now) {
                say(text);
            }
        }
        if let Some(bar) = &bar {
            bar.set_length(u64::from(state.trials));
            bar.set_position(u64::from(state.trials - state.open));
            let limit = state.budget.unwrap_or_default();
            bar.set_message(format!(
                "{} spent + {} held of {}",
                state.spent.rounded(),
                state.held.rounded(),
                limit.rounded()
            ));
        }
        if state.ended_at.is_some() {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn told_of_instance(instance: &InstanceView) -> Option<String> {
    let InstanceView { instance_type, capacity_type, state, reason, price, .. } = instance;
    let what = format!("  instance {instance_type} ({capacity_type}, {})", price.rounded());
    match state.as_str() {
        "intended" => Some(format!("{what}: starting")),
        "ready" => Some(format!("{what}: ready")),
        "draining" => Some(format!("{what}: {}", reason.as_deref().unwrap_or("draining"))),
        "gone" => Some(format!(
            "{what}: gone ({}), cost {}",
            reason.as_deref().unwrap_or("ended"),
            instance.cost.rounded()
        )),
        _ => None,
    }
}

fn told_of_trial(
    trial: &ExperimentView,
    before: Option<&(String, u32)>,
    now: &(String, u32),
) -> Option<String> {
    if before == Some(now) {
        return None;
    }
    let params: Vec<String> = trial.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let what = format!("  trial {} {}", trial.name, params.join(" "));
    match trial.state.as_str() {
        "running" if trial.attempts > 1 => {
            Some(format!("{what}: resumes from its checkpoint (attempt {})", trial.attempts))
        }
        "running" => Some(format!("{what}: running")),
        "queued" if trial.attempts > 0 => Some(format!("{what}: interrupted, queued again")),
        "queued" => None,
        "succeeded" => {
            let accuracy = trial.metrics.get("accuracy").copied().unwrap_or_default();
            Some(format!("{what}: done, accuracy {accuracy:.3}, cost {}", trial.cost.rounded()))
        }
        other => Some(format!("{what}: {other} ({})", trial.reason.as_deref().unwrap_or_default())),
    }
}

fn start_daemon(folder: &Path, config: &Path) -> Result<Child, Failure> {
    let log = std::fs::File::create(folder.join("daemon.log"))?;
    let daemon = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg("--config")
        .arg(config)
        .env_remove("BURSAR_URL")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is for the demo, which stops the daemon in an orderly way.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(daemon)
}

async fn until_ready(client: &Client, daemon: &mut Child) -> Result<(), Failure> {
    // Bounded by the patience of the caller.
    loop {
        if client.get::<Health>("/v1/health").await.is_ok() {
            return Ok(());
        }
        if let Some(status) = daemon.try_wait()? {
            return Err(Failure::new(FAILED, format!("the daemon ended at once ({status})"))
                .hint("run it with --keep DIR and look at DIR/daemon.log"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// SIGTERM, then as long as a graceful stop may take.
async fn stop(daemon: &mut Child) {
    let pid = daemon.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // It may have ended of itself: then there is nothing to stop.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(Duration::from_secs(5), daemon.wait()).await.is_err() {
        // It is killed as it is dropped.
        note("the daemon did not stop in time");
    }
}

/// All trials of a sweep, in the order of its matrix.
pub(super) fn trials(views: &Views, sweep: SweepId) -> Result<Vec<ExperimentView>, Failure> {
    let mut rows = views.experiments(&of_sweep(sweep))?.rows;
    rows.reverse();
    Ok(rows)
}

/// More than the demo has.
fn of_sweep(sweep: SweepId) -> ListWanted {
    ListWanted { sweep: Some(sweep.to_string()), limit: Some(1000), ..ListWanted::default() }
}
