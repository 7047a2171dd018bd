//! The figures of a comparison, for people and for spreadsheets.

use bursar_model::{Span, Usd};
use bursar_sim::replay::Figures;
use serde_json::Value;

use super::fleet::{Compared, Run};
use crate::{
    exit::Failure,
    output::{csv as csv_text, line, table as print_table},
};

/// A row of the table: its name, and what it says of a run.
pub(super) type Row = (&'static str, fn(&Run) -> String);

/// The figures in the order in which people ask for them.
pub(super) const ROWS: &[Row] = &[
    ("cost", |run| run.figures.cost_usd.rounded()),
    ("  spot", |run| run.figures.cost_spot_usd.rounded()),
    ("  on-demand", |run| run.figures.cost_on_demand_usd.rounded()),
    ("  run", |run| run.figures.cost_run_usd.rounded()),
    ("  boot", |run| run.figures.cost_boot_usd.rounded()),
    ("  idle", |run| run.figures.cost_idle_usd.rounded()),
    ("  drain", |run| run.figures.cost_drain_usd.rounded()),
    ("  lost", |run| run.figures.cost_lost_usd.rounded()),
    ("on-demand alone", |run| run.on_demand_alone.cost_usd.rounded()),
    ("saved", |run| run.saved_percent.map_or_else(dash, |percent| format!("{percent:.1}%"))),
    ("cost per GPU hour", |run| run.figures.cost_per_gpu_hour_usd.map_or_else(dash, Usd::rounded)),
    ("jobs finished", |run| format!("{} of {}", run.figures.jobs_finished, run.figures.jobs)),
    ("jobs failed", |run| run.figures.jobs_failed.to_string()),
    ("jobs stopped", |run| run.figures.jobs_stopped.to_string()),
    ("jobs refused", |run| run.figures.jobs_refused.to_string()),
    ("jobs unfinished", |run| run.figures.jobs_unfinished.to_string()),
    ("wait, median", |run| duration(run.figures.wait_median_s)),
    ("wait, 95%", |run| duration(run.figures.wait_p95_s)),
    ("wait, longest", |run| duration(run.figures.wait_max_s)),
    ("wait, median, on-demand alone", |run| duration(run.on_demand_alone.wait_median_s)),
    ("turnaround, median", |run| duration(run.figures.turnaround_median_s)),
    ("turnaround, 95%", |run| duration(run.figures.turnaround_p95_s)),
    ("deadlines missed", |run| match run.figures.deadlines {
        0 => dash(),
        all => format!("{} of {all}", run.figures.deadlines_missed),
    }),
    ("interruptions", |run| run.figures.interruptions.to_string()),
    ("GPU hours run", |run| format!("{:.1}", run.figures.gpu_hours_run)),
    ("GPU hours lost", |run| format!("{:.1}", run.figures.gpu_hours_lost)),
    ("GPU hours paid", |run| format!("{:.1}", run.figures.gpu_hours_paid)),
    ("utilisation", |run| run.figures.utilisation.map_or_else(dash, percent)),
    ("instances launched", |run| run.figures.instances_launched.to_string()),
    ("launches refused", |run| run.figures.launches_refused.to_string()),
    ("fleet, peak", |run| run.figures.fleet_peak.to_string()),
    ("fleet, mean", |run| format!("{:.1}", run.figures.fleet_mean)),
    ("violations", |run| run.violations.len().to_string()),
    ("virtual time", |run| duration(Some(run.figures.virtual_s))),
    ("wall time", |run| format!("{:.2} s", run.figures.wall_s)),
    ("speed", |run| format!("{:.0} : 1", run.figures.speed_ratio)),
];

/// The figures as a table, a column for each policy.
pub(super) fn table(compared: &Compared) -> Result<(), Failure> {
    let mut headers = vec![""];
    headers.extend(compared.runs.iter().map(|run| run.config.as_str()));
    let rows = ROWS
        .iter()
        .map(|(name, of)| std::iter::once((*name).to_owned()).chain(compared.runs.iter().map(of)).collect())
        .collect();
    let numbers: Vec<usize> = (1..headers.len()).collect();
    print_table(&headers, rows, &numbers)?;
    for run in &compared.runs {
        for violation in &run.violations {
            line(&format!("{}: {violation}", run.config))?;
        }
    }
    Ok(())
}

/// A row for each policy and one for its on-demand reference, by the names that the JSON has.
pub(super) fn csv(compared: &Compared) -> Result<String, Failure> {
    let mut names = vec!["config".to_owned(), "policy".to_owned()];
    let mut rows = Vec::new();
    for run in &compared.runs {
        for (policy, figures) in [("configured", &run.figures), ("on-demand-alone", &run.on_demand_alone)] {
            let fields = fields(figures)?;
            names.truncate(2);
            let mut cells = vec![run.config.clone(), policy.to_owned()];
            for (name, value) in fields {
                names.push(name);
                cells.push(value);
            }
            rows.push(cells);
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(csv_text(&names, &rows))
}

fn fields(figures: &Figures) -> Result<Vec<(String, String)>, Failure> {
    let Value::Object(fields) = serde_json::to_value(figures)? else { return Ok(Vec::new()) };
    let text = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    Ok(fields.into_iter().map(|(name, value)| (name, text(value))).collect())
}

fn dash() -> String {
    "-".to_owned()
}

#[expect(clippy::float_arithmetic, reason = "percent for people")]
fn percent(part: f64) -> String {
    format!("{:.1}%", 100.0 * part)
}

pub(super) fn duration(seconds: Option<f64>) -> String {
    // Whole minutes from an hour on: nobody waits for seconds then.
    let whole = |seconds: f64| {
        let unit = if seconds >= 3600.0 { 60 } else { 1 };
        Span::from_secs(seconds.round() as i64 / unit * unit).to_string()
    };
    seconds.map_or_else(dash, whole)
}
