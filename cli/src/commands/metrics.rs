//! `bursar metrics`: what experiments report over time.

use bursar_daemon::{
    series::{Dot, Summary},
    views::{
        ExperimentDetail, ExperimentView, ListWanted, MetricsView, MetricsWanted, SeriesView, SweepView,
    },
};
use bursar_model::{AshaMode, SweepId, Timestamp};

use super::Context;
use crate::{
    args::{Best, Metrics},
    exit::{Failure, NOT_FOUND, OK, Outcome, USAGE},
    output::{bar_style, csv, json, line, note, show, table, terminal_width},
    plot::{number, plot},
    source::{Rows, Source},
};

/// The lines of a plot.
const HEIGHT: usize = 15;

/// The columns of a plot where no terminal says how many there are, and the most: beyond, the eye gains nothing.
const WIDTH_DEFAULT: usize = 72;
const WIDTH_MAX: usize = 120;

/// What a plot needs beside its columns for the numbers at its side.
const MARGIN: usize = 14;

/// Trials that are listed.
const TRIALS_SHOWN: usize = 200;

pub(super) async fn run(context: Context, wanted: Metrics) -> Outcome {
    let source = context.source().await?;
    if wanted.name.parse::<SweepId>().is_ok() {
        let found = source.sweep(&wanted.name).await?;
        return sweep(&source, found, &wanted, context.json).await;
    }
    match source.experiment(&wanted.name).await {
        Ok(detail) => experiment(&source, &detail, &wanted, &context).await,
        // A name may be a sweep's.
        Err(failure) if failure.code == NOT_FOUND => match source.sweep(&wanted.name).await {
            Ok(found) => sweep(&source, found, &wanted, context.json).await,
            Err(_) => Err(failure),
        },
        Err(failure) => Err(failure),
    }
}

async fn experiment(
    source: &Source,
    detail: &ExperimentDetail,
    wanted: &Metrics,
    context: &Context,
) -> Outcome {
    let name = (!wanted.metrics.is_empty()).then(|| wanted.metrics.join(","));
    let is_plotted = name.is_some() || wanted.csv || context.json;
    let points = Some(if is_plotted { wanted.points } else { 0 });
    let view = source.metrics(detail, &MetricsWanted { name, points }, &context.config).await?;
    if let Some(missing) = wanted.metrics.iter().find(|name| !view.metrics.contains_key(*name)) {
        let all = MetricsWanted { name: None, points: Some(0) };
        let known = source.metrics(detail, &all, &context.config).await?;
        let known: Vec<&str> = known.metrics.keys().map(String::as_str).collect();
        let failure = Failure::new(NOT_FOUND, format!("`{missing}` was not reported"));
        return Err(match known.is_empty() {
            true => failure,
            false => failure.hint(format!("reported are {}", known.join(", "))),
        });
    }
    if context.json {
        json(&view)?;
    } else if wanted.csv {
        show(&points_csv(&view))?;
    } else {
        for name in &wanted.metrics {
            if let Some(series) = view.metrics.get(name) {
                curve(name, series)?;
            }
        }
        summaries(&view)?;
    }
    Ok(OK)
}

/// Over steps where all points have one, else over time.
fn curve(name: &str, series: &SeriesView) -> Result<(), Failure> {
    let steps: Option<Vec<f64>> = series.points.iter().map(|dot| dot.step).collect();
    // A metric over itself says nothing.
    let steps = steps.filter(|_| name != "step");
    let x = |index: usize, dot: &Dot| match &steps {
        Some(steps) => steps[index],
        None => dot.at.as_millis() as f64,
    };
    let points: Vec<(f64, f64)> =
        series.points.iter().enumerate().map(|(index, dot)| (x(index, dot), dot.value)).collect();
    let width =
        terminal_width().map_or(WIDTH_DEFAULT, |width| width.saturating_sub(MARGIN).clamp(10, WIDTH_MAX));
    line(name)?;
    for drawn in plot(&points, width, HEIGHT, bar_style()) {
        line(&drawn)?;
    }
    if let Some((first, last)) = series.points.first().zip(series.points.last()) {
        let ends = match &steps {
            Some(steps) => format!("step {} to {}", number(steps[0]), number(steps[steps.len() - 1])),
            None => format!("{} to {}", first.at, last.at),
        };
        line(&format!("{ends}\n"))?;
    }
    Ok(())
}

fn summaries(view: &MetricsView) -> Result<(), Failure> {
    let rows = view.metrics.iter().map(|(name, series)| {
        let Summary { count, last, min, max, mean } = &series.summary;
        let shown = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        vec![name.clone(), shown(last), shown(min), shown(max), shown(mean), count.to_string()]
    });
    table(&["metric", "last", "min", "max", "mean", "reported"], rows.collect(), &[1, 2, 3, 4, 5])
}

fn points_csv(view: &MetricsView) -> String {
    let rows: Vec<Vec<String>> = view
        .metrics
        .iter()
        .flat_map(|(name, series)| {
            series.points.iter().map(move |Dot { at, step, value, attempt }| {
                let step = step.map(|step| step.to_string()).unwrap_or_default();
                vec![name.clone(), time(*at), attempt.to_string(), step, value.to_string()]
            })
        })
        .collect();
    csv(&["metric", "at", "attempt", "step", "value"], &rows)
}

fn time(at: Timestamp) -> String {
    at.to_string()
}

async fn sweep(source: &Source, sweep: SweepView, wanted: &Metrics, as_json: bool) -> Outcome {
    let metric = match (wanted.metrics.as_slice(), &sweep.asha) {
        ([metric], _) => metric.clone(),
        ([], Some(asha)) => asha.metric.clone(),
        _ => {
            return Err(Failure::new(USAGE, "the trials of a sweep are compared by one metric")
                .hint(format!("name it: `bursar metrics {} loss`", wanted.name)));
        }
    };
    let by_asha = sweep.asha.as_ref().filter(|asha| asha.metric == metric).map(|asha| asha.mode);
    let largest = match (wanted.best, by_asha) {
        (Some(best), _) => best == Best::Max,
        (None, mode) => mode == Some(AshaMode::Max),
    };
    let of_sweep = ListWanted { sweep: Some(sweep.id.to_string()), ..ListWanted::default() };
    let Rows { rows, .. } = source.experiments(of_sweep, sweep.trials as usize).await?;
    let trials = ranked(rows, &metric, largest);
    if as_json {
        json(&serde_json::json!({ "sweep": sweep.id, "metric": metric, "trials": trials }))?;
        return Ok(OK);
    }
    let row = |trial: &ExperimentView| {
        let value = |name: &str| trial.metrics.get(name).copied();
        let params: Vec<String> =
            trial.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        vec![
            shown(value(&metric)),
            shown(value("step")),
            trial.name.clone(),
            trial.state.clone(),
            trial.cost.rounded(),
            params.join(" "),
            trial.id.to_string(),
        ]
    };
    let headers = [metric.as_str(), "step", "name", "state", "cost", "params", "id"];
    if wanted.csv {
        let rows: Vec<_> = trials.iter().map(row).collect();
        show(&csv(&headers, &rows))?;
        return Ok(OK);
    }
    table(&headers, trials.iter().take(TRIALS_SHOWN).map(row).collect(), &[0, 1, 4])?;
    if trials.len() > TRIALS_SHOWN {
        note(&format!("{} more trials; see all with --csv or --json", trials.len() - TRIALS_SHOWN));
    }
    Ok(OK)
}

/// The best first; those that have not reported it last, in order.
fn ranked(mut trials: Vec<ExperimentView>, metric: &str, largest: bool) -> Vec<ExperimentView> {
    trials.sort_by_cached_key(|trial| trial.id);
    trials.sort_by(|one, other| {
        let of = |trial: &ExperimentView| trial.metrics.get(metric).copied();
        match (of(one), of(other)) {
            (Some(one), Some(other)) if largest => other.total_cmp(&one),
            (Some(one), Some(other)) => one.total_cmp(&other),
            (one, other) => other.is_some().cmp(&one.is_some()),
        }
    });
    trials
}
