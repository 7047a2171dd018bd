//! `bursar report`.

use bursar_daemon::views::{ReportLine, ReportView, ReportWanted};
use bursar_model::Category;

use super::Context;
use crate::{
    args::Report,
    exit::{OK, Outcome},
    output::{Format, csv, json, line, render},
};

pub(super) async fn run(context: Context, wanted: Report) -> Outcome {
    let Report { by, since, until, experiment, sweep, project, format } = wanted;
    let by = Some(by);
    let wanted = ReportWanted { by, since, until, experiment, sweep, project, ..ReportWanted::default() };
    let report = context.source().await?.report(&wanted).await?;
    match format {
        _ if context.json => json(&report)?,
        Format::Json => json(&report)?,
        Format::Csv => {
            let (headers, rows) = exact_cells(&report);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            csv(&headers, &rows)?;
        }
        Format::Table => line(&text(&report))?,
    }
    Ok(OK)
}

/// The report for people: rounded, with the sum below.
pub(crate) fn text(report: &ReportView) -> String {
    let mut headers = key_headers(report);
    let first_number = headers.len();
    let amounts = ["cost", "run", "boot", "idle", "drain", "lost", "on-demand", "saved", "hours"];
    headers.extend(amounts.map(str::to_owned));
    let numbers: Vec<usize> = (first_number..headers.len()).collect();
    let mut rows: Vec<Vec<String>> =
        report.rows.iter().map(|row| rounded_cells(key_cells(report, row), row)).collect();
    let mut total_keys = vec![String::new(); first_number];
    if let Some(first) = total_keys.first_mut() {
        *first = "total".to_owned();
    }
    rows.push(rounded_cells(total_keys, &report.total));
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    render(&headers, rows, &numbers)
}

/// The columns of what the report is by: ids have a name beside them.
fn key_headers(report: &ReportView) -> Vec<String> {
    let with_name = |key: &String| match key.as_str() {
        "experiment" | "sweep" => vec![key.clone(), format!("{key}_name")],
        _ => vec![key.clone()],
    };
    report.by.iter().flat_map(with_name).collect()
}

fn key_cells(report: &ReportView, row: &ReportLine) -> Vec<String> {
    let with_name = |(by, key): (&String, &String)| match by.as_str() {
        "experiment" | "sweep" => vec![key.clone(), report.names.get(key).cloned().unwrap_or_default()],
        _ => vec![key.clone()],
    };
    report.by.iter().zip(&row.keys).flat_map(with_name).collect()
}

#[expect(clippy::float_arithmetic, reason = "hours and percent for people; no money is made of them")]
fn rounded_cells(keys: Vec<String>, row: &ReportLine) -> Vec<String> {
    let mut cells: Vec<String> =
        keys.into_iter().map(|key| if key.is_empty() { "-".to_owned() } else { key }).collect();
    cells.push(row.cost.rounded());
    for category in Category::ALL {
        let part = row.by_category.get(&category).copied().unwrap_or_default();
        cells.push(if part.as_nanos() == 0 { "-".to_owned() } else { part.rounded() });
    }
    cells.push(row.on_demand_cost.rounded());
    let (paid, full) = (row.cost.as_nanos() as f64, row.on_demand_cost.as_nanos() as f64);
    cells.push(if full > 0.0 { format!("{:.0}%", 100.0 * (1.0 - paid / full)) } else { "-".to_owned() });
    cells.push(format!("{:.2}", row.seconds / 3600.0));
    cells
}

/// The report for programs: exact dollars.
fn exact_cells(report: &ReportView) -> (Vec<String>, Vec<Vec<String>>) {
    let mut headers = key_headers(report);
    headers.push("cost".to_owned());
    headers.extend(Category::ALL.iter().map(ToString::to_string));
    headers.extend(["on_demand_cost".to_owned(), "seconds".to_owned()]);
    let rows = report
        .rows
        .iter()
        .map(|row| {
            let mut cells = key_cells(report, row);
            cells.push(row.cost.to_string());
            cells.extend(
                Category::ALL
                    .iter()
                    .map(|category| row.by_category.get(category).copied().unwrap_or_default().to_string()),
            );
            cells.push(row.on_demand_cost.to_string());
            cells.push(row.seconds.to_string());
            cells
        })
        .collect();
    (headers, rows)
}
