//! `bursar simulate fleet`.

use std::{collections::BTreeSet, path::Path};

use bursar_config::{Config, ConfigFile};
use bursar_model::{AcceleratorName, Period, Span, Usd, Violation};
use bursar_sim::replay::{
    Curves, Figures, Market, Policy, Replay, Replayed, Sources, TableError, Wanted, Workload, parse_moment,
};
use serde::Serialize;

use super::{in_parallel, page, progress, show};
use crate::{
    args::{Global, SimulateFleet},
    exit::{FAILED, Failure, OK, Outcome, USAGE},
    output::{json, note, write_file},
};

/// More jobs are not replayed: each is kept in memory.
const JOBS_MAX: usize = 1_000_000;

/// How coarsely time goes by where nobody says.
const PACE: Span = Span::from_hours(1);

/// The same where budgets count: leases three times as long hold that much more of them.
const PACE_WITH_BUDGETS: Span = Span::from_secs(300);

/// All that is shown.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    /// The market's time.
    pub(super) period: Period,
    /// Jobs that were replayed.
    pub(super) jobs: usize,
    /// What was on offer.
    pub(super) offerings: usize,
    pub(super) pace_s: i64,
    pub(super) seed: u64,
    /// What was left out or assumed.
    pub(super) notes: Vec<String>,
    pub(super) runs: Vec<Run>,
    #[serde(skip)]
    pub(super) replay: Replay,
}

/// One policy.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// The file of its configuration.
    pub(super) config: String,
    pub(super) figures: Figures,
    /// The same workload on on-demand instances alone, without budgets.
    pub(super) on_demand_alone: Figures,
    /// What the policy saved of what that cost, where both finished as many jobs.
    pub(super) saved_percent: Option<f64>,
    pub(super) cost_by_offering_usd: Vec<(String, Usd)>,
    pub(super) violations: Vec<Violation>,
    pub(super) curves: Curves,
    #[serde(skip)]
    pub(super) replayed: Replayed,
    #[serde(skip)]
    pub(super) reference: Replayed,
}

pub(super) fn run(global: &Global, wanted: &SimulateFleet) -> Outcome {
    let configs = configs(global, wanted)?;
    let has_budgets = configs.iter().any(|(_, config)| has_budget(config));
    let pace = wanted.pace.unwrap_or(if has_budgets { PACE_WITH_BUDGETS } else { PACE });
    let replay = prepare(wanted, pace)?;
    let mut notes = vec!["the providers of the configuration are replaced by the market".to_owned()];
    let stretched =
        configs.iter().any(|(_, config)| has_budget(config) && config.policy.lease < pace.times(3));
    if stretched {
        notes.push(format!(
            "leases last {}, so that budgets hold more ahead: --pace 1s goes by the policy's own",
            pace.times(3)
        ));
    }
    notes.extend(replay.workload().notes.iter().chain(&replay.market().notes).cloned());
    if !global.json {
        notes.iter().for_each(|text| note(&format!("note: {text}")));
    }
    if replay.workload().jobs.is_empty() {
        return Err(Failure::new(USAGE, "no job is left to replay")
            .hint("the notes say why: look at --from, --days, --gpu and what the market has"));
    }
    let policies: Vec<Policy<'_>> =
        configs.iter().flat_map(|(_, config)| [Policy::Of(config), Policy::OnDemandAlone(config)]).collect();
    let jobs = replay.workload().jobs.len() as u64;
    let bar = progress("{bar:32} {percent}% of the jobs are over  {msg}", jobs * policies.len() as u64);
    let played = in_parallel(&policies, None, |policy| play(&replay, *policy, &bar));
    bar.finish_and_clear();
    let mut played = played.into_iter();
    let mut runs = Vec::new();
    for (file, _) in &configs {
        let (Some(replayed), Some(reference)) = (played.next(), played.next()) else { break };
        runs.push(Run::new(file.clone(), replayed?, reference?));
    }
    let compared = Compared {
        period: replay.market().period,
        jobs: replay.workload().jobs.len(),
        offerings: replay.market().offerings.len(),
        pace_s: pace.as_millis() / 1000,
        seed: wanted.seed,
        notes,
        runs,
        replay,
    };
    if global.json {
        json(&compared)?;
    } else {
        show::table(&compared)?;
    }
    if let Some(file) = &wanted.csv {
        write_file(file, &show::csv(&compared)?)?;
    }
    if let Some(file) = &wanted.html {
        write_file(file, &page::html(&compared))?;
        note(&format!("the page is {}", file.display()));
    }
    let is_sound = compared.runs.iter().all(|run| run.violations.is_empty());
    Ok(if is_sound { OK } else { FAILED })
}

/// Plays, and measures how long that takes.
#[expect(clippy::float_arithmetic, reason = "a speed for people")]
fn play(replay: &Replay, policy: Policy<'_>, bar: &indicatif::ProgressBar) -> Result<Replayed, Failure> {
    let mut shown = 0;
    // Outside of a world tokio's clock is the real one.
    let began = tokio::time::Instant::now();
    let mut replayed = replay.play(policy, |now| {
        bar.inc(now.over.saturating_sub(shown) as u64);
        shown = now.over;
        bar.set_message(now.now.to_string().get(..16).unwrap_or_default().replace('T', " "));
    })?;
    let figures = &mut replayed.figures;
    figures.wall_s = began.elapsed().as_secs_f64();
    figures.speed_ratio = figures.virtual_s / figures.wall_s.max(1e-6);
    bar.inc(replay.workload().jobs.len().saturating_sub(shown) as u64);
    Ok(replayed)
}

impl Run {
    #[expect(clippy::float_arithmetic, reason = "percent for people")]
    fn new(config: String, replayed: Replayed, reference: Replayed) -> Self {
        let (paid, full) = (replayed.figures.cost_usd.as_nanos(), reference.figures.cost_usd.as_nanos());
        let same_work = replayed.figures.jobs_finished == reference.figures.jobs_finished;
        let saved = 100.0 * (1.0 - paid as f64 / full as f64);
        let costs = replayed.costs.iter().map(|(offering, cost)| (offering.to_string(), *cost));
        Self {
            config,
            figures: replayed.figures.clone(),
            on_demand_alone: reference.figures.clone(),
            saved_percent: (full > 0 && same_work).then_some(saved),
            cost_by_offering_usd: costs.collect(),
            violations: replayed.violations.iter().chain(&reference.violations).cloned().collect(),
            curves: replayed.curves.clone(),
            replayed,
            reference,
        }
    }
}

fn has_budget(config: &Config) -> bool {
    let projects = config.projects.values().any(|project| project.budget.is_some());
    config.budget.is_some() || projects || config.users.values().any(|user| user.budget.is_some())
}

fn configs(global: &Global, wanted: &SimulateFleet) -> Result<Vec<(String, Config)>, Failure> {
    let given: Vec<Option<&Path>> = if wanted.config.is_empty() {
        vec![global.config.as_deref()]
    } else {
        wanted.config.iter().map(|path| Some(path.as_path())).collect()
    };
    let read = |path: Option<&Path>| {
        let ConfigFile { config, .. } = super::super::read(path)?;
        Ok((path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string()), config))
    };
    given.into_iter().map(read).collect()
}

fn prepare(wanted: &SimulateFleet, pace: Span) -> Result<Replay, Failure> {
    let from = match &wanted.from {
        Some(text) => Some(parse_moment(text).ok_or_else(|| not_a_moment(text))?),
        None => None,
    };
    let kinds: BTreeSet<AcceleratorName> = wanted.gpu.iter().map(|name| AcceleratorName::new(name)).collect();
    let of_market = Wanted {
        from,
        span: wanted.days.map(|days| Span::from_hours(24 * i64::from(days))),
        depth: wanted.depth,
        spot_percent: wanted.spot_percent,
        kinds,
    };
    let mut workload = Workload::read(&wanted.jobs).map_err(unusable)?;
    let until = of_market.span.map_or(Span::from_millis(i64::MAX), |span| wanted.jobs_from + span);
    workload.cut(wanted.jobs_from, until, wanted.limit.unwrap_or(JOBS_MAX).min(JOBS_MAX));
    let market = match &wanted.market {
        Some(path) => {
            let sources = Sources::read(path).map_err(unusable)?;
            Market::from_sources(&sources, &of_market, &mut workload)
        }
        None => Market::generated(wanted.seed, &of_market, &workload),
    };
    Ok(Replay::new(workload, market, wanted.seed, pace))
}

fn not_a_moment(text: &str) -> Failure {
    Failure::new(USAGE, format!("--from `{text}` is no moment"))
        .hint("such as 2023-02-15 or 2023-02-15T22:00:00Z")
}

/// Whatever is wrong with a file: 1 says that an invariant did not hold.
fn unusable(error: TableError) -> Failure {
    Failure::new(USAGE, format!("{:#}", anyhow::Error::from(error)))
}
