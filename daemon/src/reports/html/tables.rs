//! The page's tables, apart from those below charts.

use std::collections::BTreeMap;

use bursar_model::{Category, Usd};

use crate::{
    reports::{
        BudgetReport, EstimateLine, SpendReport, TopExperiment, chart,
        figures::{self, money, percent},
    },
    views::{ReportLine, ReportView},
};

/// A browser lays out so many rows at once without a pause; what is beyond is summed in one row more.
const ROWS_MAX: usize = 500;

/// A table of cells that are ready to be placed.
pub(in crate::reports) struct Table {
    pub(in crate::reports) caption: String,
    /// The text of each column and whether it holds numbers.
    pub(in crate::reports) head: Vec<(String, bool)>,
    pub(in crate::reports) rows: Vec<Vec<Cell>>,
    /// The sums; empty where there are none.
    pub(in crate::reports) foot: Vec<Cell>,
}

/// What a cell shows.
pub(in crate::reports) enum Cell {
    Text(String),
    /// What people call it, and its id.
    Named(String, String),
    Number(String),
    /// A length in percent.
    Bar(String),
    /// SVG.
    Picture(String),
}

pub(super) fn prices(report: &SpendReport) -> Table {
    let totals = &report.totals;
    let rows = [
        ("At list prices", totals.list),
        ("At contracted prices", totals.contracted),
        ("Effective cost", totals.spent.total()),
        ("The work that was kept, at on-demand prices", totals.on_demand),
    ];
    Table {
        caption: "The period at each price".to_owned(),
        head: vec![("Price".to_owned(), false), ("Cost".to_owned(), true)],
        rows: rows.map(|(name, cost)| vec![Cell::Text(name.to_owned()), Cell::Number(money(cost))]).into(),
        foot: Vec::new(),
    }
}

pub(super) fn categories(report: &SpendReport) -> Table {
    let spent = &report.totals.spent;
    let total = spent.total();
    let row = |name: &str, cost: Usd| {
        vec![Cell::Text(name.to_owned()), Cell::Number(money(cost)), Cell::Number(percent(cost, total))]
    };
    let mut rows: Vec<Vec<Cell>> = Vec::with_capacity(Category::ALL.len() + 1);
    for category in Category::ALL {
        rows.push(row(&category.to_string(), spent.category(category)));
        if category == Category::Run {
            rows.push(row("of it, failed attempts", spent.failed_attempts));
        }
    }
    Table {
        caption: "What the money went on".to_owned(),
        head: vec![("Category".to_owned(), false), ("Cost".to_owned(), true), ("Part".to_owned(), true)],
        rows,
        foot: row("total", total),
    }
}

pub(super) fn budgets(report: &SpendReport) -> Table {
    let row = |budget: &BudgetReport| {
        let left = budget.limit.map(|limit| limit.saturating_sub(budget.spent).saturating_sub(budget.held));
        let or_dash = |amount: Option<Usd>| Cell::Number(amount.map_or_else(|| "–".to_owned(), money));
        vec![
            Cell::Text(budget.name.clone()),
            Cell::Text(budget.window.clone()),
            or_dash(budget.limit),
            or_dash(Some(budget.spent)),
            or_dash(Some(budget.held)),
            or_dash(left),
            or_dash(budget.projection.as_ref().map(|projection| projection.expected)),
            Cell::Text(budget.outlook()),
        ]
    };
    let mut head = heads(&["Budget", "Window"], &["Limit", "Spent", "Held", "Free", "Expected"]);
    head.push(("Outlook".to_owned(), false));
    Table {
        caption: "Budgets".to_owned(),
        head,
        rows: report.budgets.iter().map(row).collect(),
        foot: Vec::new(),
    }
}

pub(super) fn estimates(lines: &[EstimateLine]) -> Table {
    let row = |line: &EstimateLine| {
        let part = percent(line.actual, line.expected);
        let verdict = if line.actual > line.high {
            "above the interval"
        } else if line.actual < line.low {
            "below the interval"
        } else {
            "within"
        };
        let words = format!("{}: {part} of what was expected, {verdict}", line.name);
        vec![
            Cell::Text(line.name.clone()),
            Cell::Number(money(line.expected)),
            Cell::Number(format!("{} – {}", money(line.low), money(line.high))),
            Cell::Number(money(line.actual)),
            Cell::Number(part),
            Cell::Picture(chart::estimate(line, &words)),
            Cell::Text(verdict.to_owned()),
        ]
    };
    let mut head = heads(&["Name"], &["Expected", "Interval", "Actual", "Of expected"]);
    head.extend(heads(&["0 – 200% of expected", "Verdict"], &[]));
    Table {
        caption: "Estimate against actual cost".to_owned(),
        head,
        rows: lines.iter().map(row).collect(),
        foot: Vec::new(),
    }
}

pub(super) fn top(lines: &[TopExperiment]) -> Table {
    let largest = lines.iter().map(|line| line.cost).max().unwrap_or_default();
    let row = |line: &TopExperiment| {
        vec![
            Cell::Named(line.name.clone(), line.id.to_string()),
            Cell::Text(line.project.clone()),
            Cell::Text(line.state.clone()),
            Cell::Number(money(line.cost)),
            bar(line.cost, largest),
        ]
    };
    let mut head = heads(&["Experiment", "Project", "State"], &["Cost"]);
    head.extend(heads(&[""], &[]));
    Table {
        caption: "The most expensive experiments".to_owned(),
        head,
        rows: lines.iter().map(row).collect(),
        foot: Vec::new(),
    }
}

pub(super) fn heading_of(view: &ReportView) -> String {
    if view.by.is_empty() { "Sum".to_owned() } else { format!("Spend by {}", view.by.join(", ")) }
}

pub(super) fn asked_for(view: &ReportView) -> Table {
    let largest = view.rows.iter().map(|line| line.cost).max().unwrap_or_default();
    let named = |key: &String| match view.names.get(key) {
        Some(name) => Cell::Named(name.clone(), key.clone()),
        None if key.is_empty() => Cell::Text("–".to_owned()),
        None => Cell::Text(key.clone()),
    };
    // By nothing there is one row, and it is the sum.
    let rows: &[ReportLine] = if view.by.is_empty() { &[] } else { &view.rows };
    let (shown, rest) = rows.split_at(rows.len().min(ROWS_MAX));
    let mut rows: Vec<Vec<Cell>> = shown
        .iter()
        .map(|line| numbers(line.keys.iter().map(named).collect(), line, bar(line.cost, largest)))
        .collect();
    // The sum has a column for its name though it is by nothing.
    let keys = view.by.len().max(1);
    let first = |name: &str| {
        let mut cells = vec![Cell::Text(name.to_owned())];
        cells.resize_with(keys, || Cell::Text(String::new()));
        cells
    };
    if !rest.is_empty() {
        let name = format!("{} more", rest.len());
        rows.push(numbers(first(&name), &sum(rest), Cell::Text(String::new())));
    }
    let mut head: Vec<(String, bool)> = view.by.iter().map(|by| (capitalised(by), false)).collect();
    head.resize(keys, (String::new(), false));
    head.extend(heads(&[], &["Cost"]));
    head.extend(heads(&[""], &["On demand", "Saved"]));
    head.extend(Category::ALL.iter().map(|category| (capitalised(&category.to_string()), true)));
    head.extend(heads(&[], &["Hours"]));
    Table {
        caption: heading_of(view),
        head,
        rows,
        foot: numbers(first("total"), &view.total, Cell::Text(String::new())),
    }
}

/// A row of what was asked for.
fn numbers(mut cells: Vec<Cell>, line: &ReportLine, bar: Cell) -> Vec<Cell> {
    let saved = line.on_demand_cost.saturating_sub(line.cost);
    cells.extend([
        Cell::Number(money(line.cost)),
        bar,
        Cell::Number(money(line.on_demand_cost)),
        Cell::Number(percent(saved, line.on_demand_cost)),
    ]);
    cells.extend(Category::ALL.iter().map(|category| {
        let part = line.by_category.get(category).copied().unwrap_or_default();
        Cell::Number(if part == Usd::ZERO { "–".to_owned() } else { money(part) })
    }));
    cells.push(Cell::Number(figures::hours(line.seconds)));
    cells
}

fn sum(lines: &[ReportLine]) -> ReportLine {
    let mut by_category = BTreeMap::new();
    for (category, amount) in lines.iter().flat_map(|line| &line.by_category) {
        *by_category.entry(*category).or_default() += *amount;
    }
    ReportLine {
        keys: Vec::new(),
        cost: lines.iter().map(|line| line.cost).sum(),
        contracted_cost: lines.iter().map(|line| line.contracted_cost).sum(),
        list_cost: lines.iter().map(|line| line.list_cost).sum(),
        on_demand_cost: lines.iter().map(|line| line.on_demand_cost).sum(),
        by_category,
        seconds: lines.iter().map(|line| line.seconds).sum(),
        expected_cost: None,
    }
}

fn bar(amount: Usd, largest: Usd) -> Cell {
    let length = figures::permille(amount.max(Usd::ZERO), largest).unwrap_or_default();
    Cell::Bar(figures::tenths(length))
}

/// Heads of columns of text and of numbers.
pub(super) fn heads(texts: &[&str], numbers: &[&str]) -> Vec<(String, bool)> {
    let texts = texts.iter().map(|head| ((*head).to_owned(), false));
    texts.chain(numbers.iter().map(|head| ((*head).to_owned(), true))).collect()
}

/// A word of ours at the head of a column.
pub(super) fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
