//! Waiting for the end of what was queued: `--wait` of `submit`, `sweep` and `rerun`. What is said goes to standard error, and
//! the end once, with what is true of it then: the cost of an instance that idles on is charged later.

use std::{io::IsTerminal, time::Duration};

use bursar_daemon::views::{ExperimentDetail, ListWanted, SweepView};
use bursar_model::{ExperimentId, SweepId, Usd};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    client::Client,
    exit::{FAILED, Failure, OK, REFUSED, UNREACHABLE},
    output::note,
    source::{Rows, Source},
};

/// How often a wait looks. The daemon answers from its store, so this costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How long a wait goes on without the daemon: a restart takes seconds, an upgrade by hand not much longer.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Until an experiment is over: the exit code that says how, and all about it.
pub(super) async fn experiment(
    client: &Client,
    id: ExperimentId,
) -> Result<(u8, serde_json::Value), Failure> {
    let bar = spinner();
    let mut shown = String::new();
    let mut watched = Watched::new(client);
    // Ends with the experiment; whoever waits may stop with Ctrl-C, which cancels nothing.
    loop {
        let detail: ExperimentDetail = watched.look(&format!("/v1/experiments/{id}")).await?;
        let experiment = &detail.experiment;
        let why = experiment.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let now = format!("{} {}{why}, {}", experiment.name, experiment.state, experiment.cost.rounded());
        if let Some(bar) = &bar {
            bar.set_message(now);
            bar.tick();
        } else if shown != experiment.state && experiment.ended_at.is_none() {
            note(&now);
            shown.clone_from(&experiment.state);
        }
        if experiment.ended_at.is_some() {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            end(&detail).iter().for_each(|line| note(line));
            return Ok((code_of(&experiment.state), serde_json::to_value(detail)?));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same of a sweep, with its trials.
pub(super) async fn sweep(client: &Client, id: SweepId) -> Result<(u8, serde_json::Value), Failure> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} trials  {msg}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let mut shown = None;
    let mut watched = Watched::new(client);
    // Ends with the sweep; whoever waits may stop with Ctrl-C, which cancels nothing.
    loop {
        let sweep: SweepView = watched.look(&format!("/v1/sweeps/{id}")).await?;
        let ended = sweep.trials - sweep.open;
        // What is held after its last trial is for instances that idle on, and may be charged to it yet.
        let so_far = if sweep.ended_at.is_some() && sweep.held > Usd::ZERO { " so far" } else { "" };
        let message = format!("{} running, {} spent{so_far}", sweep.running, sweep.spent.rounded());
        if let Some(bar) = &bar {
            bar.set_length(u64::from(sweep.trials));
            bar.set_position(u64::from(ended));
            bar.set_message(message);
        } else if shown != Some(ended) {
            note(&format!("{}: {ended}/{} trials, {message}", sweep.name, sweep.trials));
            shown = Some(ended);
        }
        if sweep.ended_at.is_some() {
            if let Some(bar) = bar {
                bar.finish();
            }
            let all = ListWanted { sweep: Some(id.to_string()), ..ListWanted::default() };
            let Rows { rows: trials, more: _ } =
                Source::Daemon(client.clone()).experiments(all, usize::MAX).await?;
            let code = trials.iter().map(|trial| code_of(&trial.state)).max().unwrap_or(OK);
            if let Some(failed) = trials.iter().find(|trial| trial.state == "failed") {
                note(&format!(
                    "hint: `bursar ls --sweep {id} --state failed` lists what failed, `bursar logs {}` shows what one of them wrote",
                    failed.id
                ));
            }
            return Ok((code, serde_json::json!({ "sweep": sweep, "trials": trials })));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is said of an experiment that is over.
fn end(detail: &ExperimentDetail) -> Vec<String> {
    let ExperimentDetail { experiment, uncharged, attempts, .. } = detail;
    let why = experiment.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let mut said =
        format!("{} {}{why}, cost {}", experiment.name, experiment.state, experiment.cost.rounded());
    if let Some(uncharged) = uncharged {
        said += &format!(
            " so far; up to {} more is held for its instance until that ends or has other work",
            uncharged.held.rounded()
        );
    }
    let mut lines = vec![said];
    if experiment.state == "failed" && !attempts.is_empty() {
        lines.push(format!("hint: `bursar logs {}` shows what it wrote", experiment.id));
    }
    lines
}

/// Looks at one thing again and again, through restarts of the daemon.
struct Watched<'a> {
    client: &'a Client,
    told: bool,
}

impl<'a> Watched<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, told: false }
    }

    async fn look<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let began = Instant::now();
        // Ends with an answer, or when the daemon has been away for too long.
        loop {
            match self.client.get(path).await {
                Err(failure) if failure.code == UNREACHABLE && began.elapsed() < AWAY_MAX => {
                    if !self.told {
                        note(&format!(
                            "the daemon does not answer; waiting up to {} s for it",
                            AWAY_MAX.as_secs()
                        ));
                        self.told = true;
                    }
                }
                answer => {
                    self.told = false;
                    return answer;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn code_of(state: &str) -> u8 {
    match state {
        "succeeded" => OK,
        "refused" | "stopped" => REFUSED,
        _ => FAILED,
    }
}

fn spinner() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(ProgressBar::new_spinner)
}
