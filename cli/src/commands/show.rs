//! `bursar show`: everything about one thing.

use std::collections::BTreeMap;

use bursar_daemon::{
    reports::bars::BarStyle,
    series::Summary,
    views::{
        AshaView, AttemptView, ExperimentDetail, InstanceView, ListWanted, MetricsView, MetricsWanted,
        Progress, SeriesView, SweepView, Uncharged,
    },
};
use bursar_model::{
    BillingEnd, BillingRules, BillingStart, Boot, Category, ContainerRuntime, Dirty, Gpu, Host, InstanceId,
    RanWith, Rates, Source as CodeSource, Span, SweepId, Terms, Usd, UsdPerHour, seed_of,
};

use super::{Context, list::amount};
use crate::{
    args::Show,
    exit::{Failure, NOT_FOUND, OK, Outcome},
    output::{bar_style, json, line, note, render},
    plot::number,
    source::{Rows, Source},
};

/// What the agent measures of an experiment, as metrics.
const USED: [&str; 4] = ["cpu.cores", "memory.gib", "gpu.utilization", "gpu.memory_gib"];

/// Trials shown of a sweep.
const TRIALS_SHOWN: usize = 200;

pub(super) async fn run(context: Context, show: Show) -> Outcome {
    let source = context.source().await?;
    let name = show.name.as_str();
    if let Some(number) = show.attempt {
        return attempt(&source.experiment(name).await?, number, context.json);
    }
    if let Ok(id) = name.parse::<InstanceId>() {
        return instance(&source, id, context.json).await;
    }
    if name.parse::<SweepId>().is_ok() {
        let found = source.sweep(name).await?;
        return sweep(&source, found, context.json).await;
    }
    match source.experiment(name).await {
        Ok(found) => {
            if context.json {
                json(&found)?;
            } else {
                let sums = MetricsWanted { name: Some(USED.join(",")), points: Some(0) };
                let used = source.metrics(&found, &sums, &context.config).await?;
                experiment(&found, &used)?;
            }
            Ok(OK)
        }
        // A name may be a sweep's.
        Err(failure) if failure.code == NOT_FOUND => match source.sweep(name).await {
            Ok(found) => sweep(&source, found, context.json).await,
            Err(_) => {
                Err(Failure::new(NOT_FOUND, format!("there is no experiment, sweep or instance `{name}`"))
                    .hint(
                        "`bursar ls` lists experiments, `bursar sweeps` sweeps, `bursar instances` instances",
                    ))
            }
        },
        Err(failure) => Err(failure),
    }
}

fn experiment(detail: &ExperimentDetail, used: &MetricsView) -> Result<(), Failure> {
    let ExperimentDetail { experiment, spec, attempts, cost_by_category, uncharged, budget, progress } =
        detail;
    let state = match &experiment.reason {
        Some(reason) => format!("{} ({reason})", experiment.state),
        None => experiment.state.clone(),
    };
    field("experiment", &format!("{}  {}", experiment.id, experiment.name))?;
    field("state", &state)?;
    field("project", &format!("{}, submitted by {}", experiment.project, experiment.user))?;
    if let Some(sweep) = experiment.sweep {
        field("sweep", &sweep.to_string())?;
    }
    field("queued", &experiment.queued_at.to_string())?;
    if let Some(ended) = experiment.ended_at {
        field("ended", &format!("{ended}, after {}", ended.since(experiment.queued_at)))?;
    }
    field("cost", &cost_line(experiment.cost, cost_by_category, uncharged.as_ref()))?;
    if let Some(expected) = experiment.expected {
        let part =
            i128::from(experiment.cost.as_nanos()) * 100 / i128::from(expected.expected.as_nanos().max(1));
        let is_final = experiment.ended_at.is_some() && uncharged.is_none();
        let so_far = if is_final { "" } else { " so far" };
        field("expected", &format!("{expected}; it cost {part} % of that{so_far}"))?;
    }
    if budget.is_some() {
        field("budget", &amount(*budget))?;
    }
    if !experiment.params.is_empty() {
        let params: Vec<String> =
            experiment.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        field("params", &params.join(" "))?;
    }
    if !experiment.metrics.is_empty() {
        let metrics: Vec<String> =
            experiment.metrics.iter().map(|(name, value)| format!("{name}={value}")).collect();
        field("metrics", &metrics.join(" "))?;
    }
    if let Some(saved) = experiment.checkpoint_at {
        let took = experiment.checkpoint_took.map(|took| format!(", which took {took}")).unwrap_or_default();
        field("saved", &format!("{saved}{took}"))?;
    }
    if let Some(progress) = progress {
        field("progress", &progress_line(progress, bar_style()))?;
    }
    let used: Vec<String> = USED.iter().filter_map(|name| use_of(name, used.metrics.get(*name)?)).collect();
    if !used.is_empty() {
        field("uses", &used.join("\n"))?;
    }
    field("run", spec.run.trim())?;
    if !attempts.is_empty() {
        line("")?;
        line(&attempt_table(attempts))?;
    }
    Ok(())
}

/// What was charged and for what, and what comes on top of it.
fn cost_line(charged: Usd, by_category: &BTreeMap<Category, Usd>, uncharged: Option<&Uncharged>) -> String {
    let categories: Vec<String> = by_category
        .iter()
        .filter(|(_, cost)| **cost != Usd::ZERO)
        .map(|(category, cost)| format!("{category} {}", cost.rounded()))
        .collect();
    let mut text = charged.rounded();
    if !categories.is_empty() {
        text += &format!("  ({})", categories.join(", "));
    }
    if let Some(Uncharged { about, since, held, until }) = uncharged {
        match since {
            Some(since) => text += &format!("\nand about {} since {since}", about.rounded()),
            None => text += "\nand nothing yet of an instance that is not billed so far",
        }
        text += &format!("; {} held; the next charge comes by {until}", held.rounded());
    }
    text
}

/// Everything that has to be known to tell where one attempt's result comes from.
fn attempt(detail: &ExperimentDetail, number: u32, as_json: bool) -> Outcome {
    let ExperimentDetail { experiment, spec, attempts, .. } = detail;
    let Some(attempt) = attempts.iter().find(|attempt| attempt.number == number) else {
        let message = format!("{} has no attempt {number}", experiment.name);
        return Err(Failure::new(NOT_FOUND, message).hint(format!("it had {} so far", attempts.len())));
    };
    let seed = spec.seed.unwrap_or_else(|| seed_of(experiment.id));
    if as_json {
        json(&serde_json::json!({
            "experiment": experiment.id, "attempt": attempt, "seed": seed, "params": experiment.params, "spec": spec,
        }))?;
        return Ok(OK);
    }
    field("experiment", &format!("{}  {}", experiment.id, experiment.name))?;
    field("attempt", &format!("{number} of {}  {}", attempts.len(), attempt.id))?;
    field(
        "state",
        &[Some(attempt.state.as_str()), attempt.reason.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
    )?;
    for node in &attempt.nodes {
        let devices: Vec<String> = node.devices.iter().map(u32::to_string).collect();
        let devices =
            if devices.is_empty() { String::new() } else { format!(", accelerators {}", devices.join(" ")) };
        let offering = node.offering.as_deref().unwrap_or("an instance of which nothing is kept");
        field("ran on", &format!("{offering}{devices}"))?;
    }
    match &attempt.ran_with {
        Some(RanWith { bursar, runtime, image, system, driver }) => {
            field("runtime", runtime)?;
            if let Some(image) = image {
                field("image", image)?;
            }
            field("system", system)?;
            if let Some(driver) = driver {
                field("driver", &format!("NVIDIA {driver}"))?;
            }
            field("bursar", bursar)?;
        }
        None => field("runtime", "not told by its agent")?,
    }
    if let Some(CodeSource { commit, dirty }) = &spec.source {
        let dirty = dirty.as_ref().map(|Dirty { diff_sha256, untracked }| {
            format!(", changed (diff {diff_sha256}, {untracked} files unknown to git)")
        });
        field("commit", &format!("{commit}{}", dirty.unwrap_or_default()))?;
    }
    field("seed", &seed.to_string())?;
    for (name, value) in &spec.envs {
        field("env", &format!("{name}={value}"))?;
    }
    for (name, value) in &experiment.params {
        field("param", &format!("{name}={value}"))?;
    }
    for name in spec.secrets.keys() {
        field("secret", name)?;
    }
    if let Some(setup) = &spec.setup {
        field("setup", setup.trim())?;
    }
    field("run", spec.run.trim())?;
    Ok(OK)
}

/// A bar, and what it comes to.
#[expect(clippy::float_arithmetic, reason = "a bar and a percentage for people")]
fn progress_line(progress: &Progress, style: BarStyle) -> String {
    const CELLS: usize = 20;
    let Progress { done, remaining, cost_at_end, steps_per_second } = progress;
    let (full, empty) = match style {
        BarStyle::Blocks => ("█", "░"),
        BarStyle::Ascii => ("#", "."),
    };
    let filled = (done * CELLS as f64).round() as usize;
    let mut text = format!("{}{} {:.1} %", full.repeat(filled), empty.repeat(CELLS - filled), done * 100.0);
    if let Some(remaining) = remaining {
        let seconds = Span::from_secs(remaining.as_millis() / 1000);
        text += &format!(", {seconds} to go");
    }
    if let Some(cost) = cost_at_end {
        text += &format!(", {} in the end", cost.rounded());
    }
    if let Some(speed) = steps_per_second {
        text += &format!(", {} steps/s", number(*speed));
    }
    text
}

/// What is used of one thing, memory of less than a GiB in MiB: now or at last, on average and at most.
#[expect(clippy::float_arithmetic, reason = "figures for people")]
fn use_of(name: &str, series: &SeriesView) -> Option<String> {
    let Summary { last, max, mean, .. } = series.summary;
    let (last, max, mean) = (last?, max?, mean?);
    // A small program's memory in GiB is hard to read.
    match name.strip_suffix("gib").filter(|_| max < 1.0) {
        Some(stem) => {
            let [last, mean, max] = [last, mean, max].map(|gib| number((gib * 1024.0 * 10.0).round() / 10.0));
            Some(format!("{stem}mib {last}, mean {mean}, peak {max}"))
        }
        None => Some(format!("{name} {}, mean {}, peak {}", number(last), number(mean), number(max))),
    }
}

pub(super) fn attempt_table(attempts: &[AttemptView]) -> String {
    let rows = attempts
        .iter()
        .flat_map(|attempt| {
            let ran = attempt.started_at.zip(attempt.ended_at).map(|(from, to)| to.since(from).to_string());
            let whole = [
                attempt.state.clone(),
                attempt.assigned_at.to_string(),
                ran.unwrap_or_default(),
                attempt.reason.clone().unwrap_or_default(),
            ];
            // What is of the attempt stands beside its first node.
            attempt.nodes.iter().enumerate().map(move |(rank, node)| {
                let number = if rank == 0 { attempt.number.to_string() } else { String::new() };
                let place = [number, node.instance.to_string(), node.offering.clone().unwrap_or_default()];
                let whole = if rank == 0 { whole.clone() } else { Default::default() };
                place.into_iter().chain(whole).collect()
            })
        })
        .collect();
    render(&["attempt", "instance", "offering", "state", "assigned", "ran", "reason"], rows, &[0])
}

async fn sweep(source: &Source, sweep: SweepView, as_json: bool) -> Outcome {
    let wanted = ListWanted { sweep: Some(sweep.id.to_string()), ..ListWanted::default() };
    let limit = if as_json { usize::MAX } else { TRIALS_SHOWN };
    let Rows { rows: mut trials, more } = source.experiments(wanted, limit).await?;
    trials.reverse();
    if as_json {
        json(&serde_json::json!({ "sweep": sweep, "trials": trials }))?;
        return Ok(OK);
    }
    field("sweep", &format!("{}  {}", sweep.id, sweep.name))?;
    field(
        "state",
        &format!("{}: {} of {} trials ended", sweep.state, sweep.trials - sweep.open, sweep.trials),
    )?;
    field("project", &format!("{}, submitted by {}", sweep.project, sweep.user))?;
    field(
        "budget",
        &format!(
            "{} spent, {} held of {}",
            sweep.spent.rounded(),
            sweep.held.rounded(),
            amount(sweep.budget)
        ),
    )?;
    if let Some(asha) = &sweep.asha {
        line("")?;
        line(&rung_table(asha))?;
    }
    line("")?;
    super::list::experiment_table(&trials)?;
    if more {
        let hidden = (sweep.trials as usize).saturating_sub(trials.len());
        let all = format!("`bursar ls --sweep {} --limit {}` or --json", sweep.id, sweep.trials);
        note(&format!("{hidden} more trials; see all with {all}"));
    }
    Ok(OK)
}

fn rung_table(asha: &AshaView) -> String {
    let rows = asha
        .rungs
        .iter()
        .enumerate()
        .map(|(number, rung)| {
            let (best, trial) = match &rung.best {
                Some(best) => {
                    let score = best.score.map_or_else(|| "no number".to_owned(), |score| score.to_string());
                    (score, best.trial.to_string())
                }
                None => Default::default(),
            };
            vec![
                number.to_string(),
                rung.resource.to_string(),
                rung.reached.to_string(),
                rung.promoted.to_string(),
                best,
                trial,
            ]
        })
        .collect();
    let best = format!("best {}", asha.metric);
    render(&["rung", &asha.resource, "reached", "went on", &best, "by"], rows, &[0, 1, 2, 3, 4])
}

async fn instance(source: &Source, id: InstanceId, as_json: bool) -> Outcome {
    let instance = source.instance(id).await?;
    let allocations = source.allocations(id).await?;
    if as_json {
        json(&serde_json::json!({ "instance": instance, "allocations": allocations }))?;
        return Ok(OK);
    }
    let InstanceView { offering, state, reason, rates, terms, ceiling, cost, held, lease_until, .. } =
        &instance;
    field("instance", &format!("{id}  {offering}"))?;
    field("state", &reason.as_ref().map_or_else(|| state.clone(), |reason| format!("{state} ({reason})")))?;
    field("price", &prices(rates, *ceiling))?;
    field("billed", &billing(terms))?;
    field("lease", &format!("until {lease_until}"))?;
    if let Some(boot) = &instance.boot {
        let Boot { took, host } = boot.as_ref();
        field("boot", &format!("took {took}"))?;
        if let Some(host) = host {
            field("machine", &machine(host))?;
        }
    }
    if let Some(at) = instance.notice {
        field("notice", &format!("the cloud takes it back at {at}"))?;
    } else if let Some(why) = &instance.at_risk {
        field("at risk", why)?;
    }
    field("cost", &format!("{} charged, {} held", cost.rounded(), held.rounded()))?;
    line("")?;
    let rows = allocations
        .iter()
        .map(|part| vec![part.payer.to_string(), part.category.to_string(), part.cost.rounded()])
        .collect();
    line(&render(&["payer", "category", "cost"], rows, &[2]))?;
    Ok(OK)
}

/// What the agent found, in a line.
fn machine(host: &Host) -> String {
    let Host { hostname, arch, kernel, cpus, memory_mib, gpus, runtimes } = host;
    let mut text = format!("{hostname}, {arch}, Linux {kernel}, {cpus} CPUs, {memory_mib} MiB");
    for Gpu { name, driver, .. } in gpus {
        text += &format!(", {name}");
        if let Some(driver) = driver {
            text += &format!(" (driver {driver})");
        }
    }
    for ContainerRuntime { name, version } in runtimes {
        text += &format!(", {name} {version}");
    }
    text
}

/// What an hour costs, on every basis that finance asks for.
fn prices(rates: &Rates, ceiling: UsdPerHour) -> String {
    let Rates { effective, contracted, list, on_demand } = rates;
    format!(
        "{} effective, {} contracted, {} list, {} on demand; may reach {}",
        effective.rounded(),
        contracted.rounded(),
        list.rounded(),
        on_demand.rounded(),
        ceiling.rounded()
    )
}

/// The terms of the provider in a line.
fn billing(terms: &Terms) -> String {
    let Terms { billing, disk_gib, address, overhead, disk_min_gib } = terms;
    let BillingRules { granularity, minimum, starts, ends } = billing;
    let starts = match starts {
        BillingStart::Launch => "the launch",
        BillingStart::Running => "when it runs",
    };
    let ends = match ends {
        BillingEnd::Gone => "when it is gone",
        BillingEnd::Stopping => "when it is told to end",
    };
    let mut text = format!("from {starts} until {ends}, in units of {granularity}");
    if *minimum > Span::ZERO {
        text += &format!(", at least {minimum}");
    }
    for (what, price) in [("a GiB of disk", disk_gib), ("its address", address), ("overhead", overhead)] {
        if *price > UsdPerHour::ZERO {
            text += &format!("; {what} {}", price.rounded());
        }
    }
    if *disk_min_gib > 0 {
        text += &format!("; {disk_min_gib} GiB of disk at least");
    }
    text
}

fn field(name: &str, value: &str) -> Result<(), Failure> {
    let mut lines = value.lines();
    line(&format!("{name:<12}{}", lines.next().unwrap_or_default()))?;
    for rest in lines {
        line(&format!("{:<12}{rest}", ""))?;
    }
    Ok(())
}
