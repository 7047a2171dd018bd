//! The report in markdown, for pull requests and chat: what fits a screen, with the tables of GitHub's flavour.

use bursar_model::{Category, Usd};

use super::{
    ProjectSpend, SpendReport, Waste,
    figures::{self, money, percent},
    headlines::{Headline, headlines},
    series::wasteful,
};
use crate::views::ReportLine;

/// A comment of more rows is not read, and GitHub refuses one of more than 65,536 characters.
const ROWS_MAX: usize = 50;

/// The report as markdown.
#[must_use]
pub fn markdown(report: &SpendReport) -> String {
    let mut text = format!(
        "## {}\n\n{} · {} · as of {} · amounts in USD\n\n",
        escape(&report.title),
        escape(&report.installation),
        figures::period(report.period),
        figures::moment(report.generated_at),
    );
    totals(&mut text, report);
    asked_for(&mut text, report);
    waste(&mut text, report);
    budgets(&mut text, report);
    text
}

fn totals(text: &mut String, report: &SpendReport) {
    let rows = headlines(&report.totals)
        .map(|Headline { label, amount, note }| [label.to_owned(), format!("**{amount}**"), note]);
    table(text, &[("", false), ("USD", true), ("", false)], &rows);
}

fn asked_for(text: &mut String, report: &SpendReport) {
    let view = &report.table;
    if view.rows.is_empty() {
        *text += "Nothing was spent in this period.\n\n";
        return;
    }
    let names: Vec<String> = view.by.iter().map(|by| escape(by)).collect();
    if !view.by.is_empty() {
        *text += &format!("### Spend by {}\n\n", names.join(", "));
    }
    let keys = view.by.len().max(1);
    let mut head: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), false)).collect();
    head.resize(keys, ("", false));
    head.extend(
        ["cost", "run", "boot", "idle", "drain", "lost", "on demand", "saved"].map(|name| (name, true)),
    );
    let row = |names: Vec<String>, line: &ReportLine| {
        let mut cells = names;
        cells.resize(keys, String::new());
        cells.push(money(line.cost));
        cells.extend(Category::ALL.iter().map(|category| part(line.by_category.get(category))));
        cells.push(money(line.on_demand_cost));
        cells.push(percent(line.on_demand_cost.saturating_sub(line.cost), line.on_demand_cost));
        cells
    };
    let name = |key: &String| match view.names.get(key) {
        Some(name) => format!("{} `{key}`", escape(name)),
        None if key.is_empty() => "–".to_owned(),
        None => escape(key),
    };
    // By nothing there is one row, and it is the sum.
    let listed: &[ReportLine] = if view.by.is_empty() { &[] } else { &view.rows };
    let shown = listed.iter().take(ROWS_MAX);
    let mut rows: Vec<Vec<String>> =
        shown.map(|line| row(line.keys.iter().map(name).collect(), line)).collect();
    rows.push(row(vec!["**total**".to_owned()], &view.total));
    table(text, &head, &rows);
    if let Some(more) = listed.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        *text += &format!("{more} more rows are left out here; the total has them.\n\n");
    }
}

fn waste(text: &mut String, report: &SpendReport) {
    let projects = wasteful(&report.projects);
    if projects.is_empty() {
        return;
    }
    *text += "### Waste\n\n";
    let kinds = Waste::ALL;
    let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    let mut head = vec![("project", false)];
    head.extend(names.iter().map(|name| (name.as_str(), true)));
    head.extend([("wasted", true), ("of its spend", true)]);
    let row = |project: &ProjectSpend| {
        let mut cells = vec![escape(&project.project)];
        cells.extend(kinds.iter().map(|kind| part(Some(&project.spent.waste(*kind)))));
        cells.push(money(project.spent.wasted()));
        cells.push(percent(project.spent.wasted(), project.spent.total()));
        cells
    };
    let rows: Vec<Vec<String>> = projects.iter().map(row).collect();
    table(text, &head, &rows);
}

fn budgets(text: &mut String, report: &SpendReport) {
    if report.budgets.is_empty() {
        return;
    }
    *text += "### Budgets\n\n";
    let head = [
        ("budget", false),
        ("window", false),
        ("limit", true),
        ("spent", true),
        ("part", true),
        ("held", true),
        ("expected", true),
        ("outlook", false),
    ];
    let or_dash = |amount: Option<Usd>| amount.map_or_else(|| "–".to_owned(), money);
    let rows: Vec<Vec<String>> = report
        .budgets
        .iter()
        .take(ROWS_MAX)
        .map(|budget| {
            vec![
                escape(&budget.name),
                escape(&budget.window),
                or_dash(budget.limit),
                money(budget.spent),
                percent(budget.spent, budget.limit.unwrap_or_default()),
                money(budget.held),
                or_dash(budget.projection.as_ref().map(|projection| projection.expected)),
                budget.outlook(),
            ]
        })
        .collect();
    table(text, &head, &rows);
}

fn part(amount: Option<&Usd>) -> String {
    amount.filter(|amount| **amount != Usd::ZERO).map_or_else(|| "–".to_owned(), |amount| money(*amount))
}

/// Columns with whether they hold numbers, and rows.
fn table<R: AsRef<[String]>>(text: &mut String, head: &[(&str, bool)], rows: &[R]) {
    let names: Vec<&str> = head.iter().map(|(name, _)| *name).collect();
    let rules: Vec<&str> = head.iter().map(|(_, number)| if *number { "--:" } else { "---" }).collect();
    *text += &format!("| {} |\n| {} |\n", names.join(" | "), rules.join(" | "));
    for row in rows {
        *text += &format!("| {} |\n", row.as_ref().join(" | "));
    }
    *text += "\n";
}

/// Text of others as plain text: a backslash takes the meaning from every mark of markdown (CommonMark 2.4), `<` and `&`
/// would be HTML, and a line's end would end the table.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' | '>' => escaped.extend(['\\', char]),
            // A chat or GitHub would call whoever has that name.
            '@' => escaped.push_str("@\u{200b}"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
