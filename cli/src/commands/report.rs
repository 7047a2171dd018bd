//! `bursar report`.

use bursar_daemon::{
    reports::bars::{BarStyle, bars},
    views::{ReportLine, ReportView, ReportWanted},
};
use bursar_model::{Category, Usd};

use super::Context;
use crate::{
    args::Report,
    exit::{OK, Outcome},
    output::{Format, bar_style, csv, json_text, render, show, terminal_width, write_file},
};

/// Letters of the longest bar.
const BAR_CELLS: u16 = 10;

pub(super) async fn run(context: Context, wanted: Report) -> Outcome {
    if wanted.format == Format::Focus {
        return super::focus::run(context, wanted).await;
    }
    let Report { by, since, until, experiment, sweep, project, user, label, format, output } = wanted;
    let (by, label) = (Some(by), (!label.is_empty()).then(|| label.join(",")));
    let wanted = ReportWanted { by, since, until, experiment, sweep, project, user, label, provider: None };
    let source = context.source().await?;
    let installation = &context.config.installation;
    let text = match if context.json { Format::Json } else { format } {
        Format::Html => source.report_html(&wanted, installation).await?,
        Format::Markdown => source.report_markdown(&wanted, installation).await?,
        Format::Json => json_text(&source.report(&wanted).await?)?,
        Format::Csv => {
            let (headers, rows) = exact_cells(&source.report(&wanted).await?);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            csv(&headers, &rows)
        }
        Format::Focus | Format::Table => {
            let report = source.report(&wanted).await?;
            // A file has no width, and what reads a pipe has no eyes for bars.
            match terminal_width().filter(|_| output.is_none()) {
                Some(width) => fitting(&report, width, bar_style()) + "\n",
                None => text(&report) + "\n",
            }
        }
    };
    match &output {
        Some(file) => write_file(file, &text)?,
        None => show(&text)?,
    }
    Ok(OK)
}

/// The report for people: rounded, with the sum below.
pub(crate) fn text(report: &ReportView) -> String {
    table(report, Columns::All, None)
}

/// The report with bars, and with every category where the terminal is wide enough.
fn fitting(report: &ReportView, width: usize, style: BarStyle) -> String {
    let whole = table(report, Columns::All, Some(style));
    let fits = whole.lines().all(|line| line.chars().count() <= width);
    if fits { whole } else { table(report, Columns::Few, Some(style)) }
}

/// Which numbers stand beside the cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// What the money went on, by category.
    All,
    /// What fits 80 letters: all that was no work is one number.
    Few,
}

fn table(report: &ReportView, columns: Columns, style: Option<BarStyle>) -> String {
    let mut headers = key_headers(report);
    let first_number = headers.len();
    headers.push("cost".to_owned());
    headers.extend(style.map(|_| String::new()));
    headers.extend(amounts(columns).iter().map(|(name, _)| (*name).to_owned()));
    let numbers: Vec<usize> =
        (first_number..headers.len()).filter(|at| style.is_none() || *at != first_number + 1).collect();

    let costs: Vec<Usd> = report.rows.iter().map(|row| row.cost).collect();
    let drawn = style.map(|style| bars(&costs, BAR_CELLS, style));
    let cells = |keys: Vec<String>, row: &ReportLine, bar: Option<String>| {
        let mut cells: Vec<String> =
            keys.into_iter().map(|key| if key.is_empty() { "-".to_owned() } else { key }).collect();
        cells.push(row.cost.rounded());
        cells.extend(bar);
        cells.extend(amounts(columns).iter().map(|(_, of)| of(row)));
        cells
    };
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(report.rows.len() + 1);
    for (index, row) in report.rows.iter().enumerate() {
        let bar = drawn.as_ref().and_then(|bars| bars.get(index).cloned());
        rows.push(cells(key_cells(report, row), row, bar));
    }
    let mut total_keys = vec![String::new(); first_number];
    if let Some(first) = total_keys.first_mut() {
        *first = "total".to_owned();
    }
    rows.push(cells(total_keys, &report.total, style.map(|_| String::new())));
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    render(&headers, rows, &numbers)
}

/// A column of amounts: its name, and what it says of a row.
type Amount = (&'static str, fn(&ReportLine) -> String);

fn amounts(columns: Columns) -> &'static [Amount] {
    const RUN: Amount = ("run", |row| part(row, &[Category::Run]));
    const BOOT: Amount = ("boot", |row| part(row, &[Category::Boot]));
    const IDLE: Amount = ("idle", |row| part(row, &[Category::Idle]));
    const DRAIN: Amount = ("drain", |row| part(row, &[Category::Drain]));
    const LOST: Amount = ("lost", |row| part(row, &[Category::Lost]));
    const OTHER: Amount =
        ("no work", |row| part(row, &[Category::Boot, Category::Idle, Category::Drain, Category::Lost]));
    const LIST: Amount = ("list", |row| row.list_cost.rounded());
    const ON_DEMAND: Amount = ("on-demand", |row| row.on_demand_cost.rounded());
    const SAVED: Amount = ("saved", saved);
    const HOURS: Amount = ("hours", hours);
    match columns {
        Columns::All => &[RUN, BOOT, IDLE, DRAIN, LOST, LIST, ON_DEMAND, SAVED, HOURS],
        Columns::Few => &[OTHER, LIST, SAVED, HOURS],
    }
}

fn part(row: &ReportLine, categories: &[Category]) -> String {
    let sum: Usd = categories.iter().filter_map(|category| row.by_category.get(category)).copied().sum();
    if sum == Usd::ZERO { "-".to_owned() } else { sum.rounded() }
}

/// What on-demand prices would have cost more, in percent of them.
#[expect(clippy::float_arithmetic, reason = "percent for people; no money is made of them")]
fn saved(row: &ReportLine) -> String {
    let (paid, full) = (row.cost.as_nanos() as f64, row.on_demand_cost.as_nanos() as f64);
    if full > 0.0 { format!("{:.0}%", 100.0 * (1.0 - paid / full)) } else { "-".to_owned() }
}

#[expect(clippy::float_arithmetic, reason = "hours for people; no money is made of them")]
fn hours(row: &ReportLine) -> String {
    format!("{:.2}", row.seconds / 3600.0)
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

/// The report for programs: exact dollars.
fn exact_cells(report: &ReportView) -> (Vec<String>, Vec<Vec<String>>) {
    let mut headers = key_headers(report);
    headers.push("cost".to_owned());
    headers.extend(Category::ALL.iter().map(ToString::to_string));
    headers.extend(["contracted_cost", "list_cost", "on_demand_cost", "seconds"].map(str::to_owned));
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
            cells.extend(
                [row.contracted_cost, row.list_cost, row.on_demand_cost].map(|cost| cost.to_string()),
            );
            cells.push(row.seconds.to_string());
            cells
        })
        .collect();
    (headers, rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn line(project: &str, dollars: i64, idle: i64) -> ReportLine {
        ReportLine {
            keys: if project.is_empty() { Vec::new() } else { vec![project.to_owned()] },
            cost: Usd::from_dollars(dollars),
            contracted_cost: Usd::from_dollars(dollars),
            list_cost: Usd::from_dollars(2 * dollars),
            on_demand_cost: Usd::from_dollars(4 * dollars),
            by_category: [
                (Category::Run, Usd::from_dollars(dollars - idle)),
                (Category::Idle, Usd::from_dollars(idle)),
            ]
            .into(),
            seconds: 5400.0,
            expected_cost: None,
        }
    }

    fn report() -> ReportView {
        ReportView {
            by: vec!["project".to_owned()],
            rows: vec![line("a-project-with-20-chr", 12345, 45), line("lab", 1200, 0)],
            total: line("", 13545, 45),
            names: BTreeMap::new(),
        }
    }

    #[test]
    fn a_terminal_of_80_letters_shows_costs_bars_and_what_was_saved() {
        let shown = fitting(&report(), 80, BarStyle::Ascii);
        assert_eq!(
            shown,
            "\
PROJECT                     COST              NO WORK       LIST  SAVED  HOURS
a-project-with-20-chr  $12345.00  ##########   $45.00  $24690.00    75%   1.50
lab                     $1200.00  #                 -   $2400.00    75%   1.50
total                  $13545.00               $45.00  $27090.00    75%   1.50"
        );
        assert!(shown.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_wide_terminal_shows_every_category_and_a_file_no_bars() {
        let wide = fitting(&report(), 200, BarStyle::Ascii);
        assert!(wide.contains("DRAIN") && wide.contains("##########"), "{wide}");
        let plain = text(&report());
        assert!(plain.contains("DRAIN") && !plain.contains('#'), "{plain}");
    }
}
