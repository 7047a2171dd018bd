//! The report as one HTML page: nothing is fetched from anywhere, nothing runs, and it can be kept, mailed and printed.
//!
//! The words and numbers are made here, the template (`templates/report.html`) only places them. askama escapes every
//! one of them; the pictures alone go in as they are, and [`super::chart`] has escaped what is in those.

pub(super) mod tables;

use askama::Template;
use bursar_model::{Timestamp, Usd};

use self::tables::{
    Cell, Table, asked_for, budgets, capitalised, categories, estimates, heading_of, heads, prices, top,
};
use super::{
    Breakdown, BudgetReport, SpendReport, TimeBin, Waste,
    chart::{self, Size, Words},
    figures::{self, money, percent},
    headlines::{Headline, headlines},
    series::{Stacks, wasteful},
};

/// Budgets that are drawn. All are in the table above them; a report of a hundred charts is read by nobody.
const BURNDOWNS_MAX: usize = 8;

/// The report as a page.
#[must_use]
pub fn html(report: &SpendReport) -> String {
    let page = Page {
        title: &report.title,
        installation: &report.installation,
        period: figures::period(report.period),
        generated_at: figures::moment(report.generated_at),
        headlines: headlines(&report.totals),
        prices: prices(report),
        categories: categories(report),
        spend: spend(report),
        waste: waste(report),
        saving: saving(report),
        budgets: (!report.budgets.is_empty()).then(|| budgets(report)),
        burndowns: burndowns(report),
        estimates: (!report.estimates.is_empty()).then(|| estimates(&report.estimates)),
        top: (!report.top.is_empty()).then(|| top(&report.top)),
        table_heading: heading_of(&report.table),
        table: (!report.table.rows.is_empty()).then(|| asked_for(&report.table)),
    };
    page.render().expect("writing to a string does not fail, and the template calls nothing that can")
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: &'a str,
    installation: &'a str,
    period: String,
    generated_at: String,
    headlines: [Headline; 3],
    prices: Table,
    categories: Table,
    spend: Option<Figure>,
    waste: Option<Figure>,
    saving: Option<Figure>,
    budgets: Option<Table>,
    burndowns: Vec<Figure>,
    estimates: Option<Table>,
    top: Option<Table>,
    table_heading: String,
    table: Option<Table>,
}

/// A chart with what it says in a sentence, and its numbers.
pub(super) struct Figure {
    pub(super) heading: String,
    pub(super) lead: String,
    /// Wide and narrow, as SVG.
    pub(super) pictures: [String; 2],
    pub(super) table: Table,
}

fn spend(report: &SpendReport) -> Option<Figure> {
    let stacks = Stacks::by_project(&report.timeline);
    let total: Usd = report.timeline.iter().map(TimeBin::spent).sum();
    let peak = report.timeline.iter().max_by_key(|bin| bin.spent()).filter(|bin| bin.spent() > Usd::ZERO)?;
    let first = stacks.names.first()?;
    let lead = format!(
        "{first} spent the most, {} ({} of the total). The peak was {} with {}.",
        money(stacks.sum(0)),
        percent(stacks.sum(0), total),
        figures::bin(&peak.label),
        money(peak.spent()),
    );
    let words = Words { id: "spend", title: "Spend over time by project", description: &lead };
    let pictures = both(|size| chart::columns(&words, size, &stacks));
    let mut head = vec![("Time".to_owned(), false)];
    head.extend(stacks.names.iter().map(|name| (name.clone(), true)));
    head.push(("Total".to_owned(), true));
    let row = |label: &str, parts: &[Usd]| {
        let mut cells = vec![Cell::Text(label.to_owned())];
        cells.extend(parts.iter().map(|part| Cell::Number(money(*part))));
        cells.push(Cell::Number(money(parts.iter().copied().sum())));
        cells
    };
    let sums: Vec<Usd> = (0..stacks.names.len()).map(|series| stacks.sum(series)).collect();
    let table = Table {
        caption: "Spend over time by project".to_owned(),
        head,
        rows: stacks.columns.iter().map(|(label, parts)| row(label, parts)).collect(),
        foot: row("total", &sums),
    };
    Some(Figure { heading: "Spend over time".to_owned(), lead, pictures, table })
}

fn waste(report: &SpendReport) -> Option<Figure> {
    let projects = wasteful(&report.projects);
    let spent = &report.totals.spent;
    let most = Waste::ALL.into_iter().max_by_key(|kind| spent.waste(*kind))?;
    projects.first()?;
    let lead = format!(
        "{} brought no result, {} of what was spent. The largest part is {most} with {}.",
        money(spent.wasted()),
        percent(spent.wasted(), spent.total()),
        money(spent.waste(most)),
    );
    let words = Words { id: "waste", title: "Kinds of waste by project", description: &lead };
    let pictures = both(|size| chart::waste(&words, size, &projects));
    let mut head = vec![("Project".to_owned(), false)];
    head.extend(Waste::ALL.iter().map(|kind| (capitalised(&kind.to_string()), true)));
    head.extend([("Wasted".to_owned(), true), ("Of its spend".to_owned(), true)]);
    let row = |name: &str, spent: &Breakdown| {
        let mut cells = vec![Cell::Text(name.to_owned())];
        cells.extend(Waste::ALL.iter().map(|kind| Cell::Number(money(spent.waste(*kind)))));
        cells.push(Cell::Number(money(spent.wasted())));
        cells.push(Cell::Number(percent(spent.wasted(), spent.total())));
        cells
    };
    let table = Table {
        caption: "Kinds of waste by project".to_owned(),
        head,
        rows: report.projects.iter().map(|project| row(&project.project, &project.spent)).collect(),
        foot: row("total", spent),
    };
    Some(Figure { heading: "Waste".to_owned(), lead, pictures, table })
}

fn saving(report: &SpendReport) -> Option<Figure> {
    let paid: Usd = report.timeline.iter().map(TimeBin::spent).sum();
    let on_demand: Usd = report.timeline.iter().map(|bin| bin.on_demand).sum();
    if on_demand == Usd::ZERO {
        return None;
    }
    let saved = on_demand.saturating_sub(paid);
    let (more_or_less, part) = if saved < Usd::ZERO { ("more", -saved) } else { ("less", saved) };
    let lead = format!(
        "The work that was kept would have cost {} on demand. {} was paid, waste included: {} ({}) {more_or_less}.",
        money(on_demand),
        money(paid),
        money(part),
        percent(part, on_demand),
    );
    let words = Words { id: "saving", title: "Paid, and the same at on-demand prices", description: &lead };
    let pictures = both(|size| chart::saving(&words, size, &report.timeline));
    let row = |label: &str, on_demand: Usd, paid: Usd| {
        let saved = on_demand.saturating_sub(paid);
        let numbers = [money(on_demand), money(paid), money(saved), percent(saved, on_demand)];
        std::iter::once(Cell::Text(label.to_owned())).chain(numbers.map(Cell::Number)).collect()
    };
    let table = Table {
        caption: "Paid, and the same at on-demand prices".to_owned(),
        head: heads(&["Time"], &["On demand", "Paid", "Saved", "Part"]),
        rows: report.timeline.iter().map(|bin| row(&bin.label, bin.on_demand, bin.spent())).collect(),
        foot: row("total", on_demand, paid),
    };
    Some(Figure { heading: "Saved against on-demand".to_owned(), lead, pictures, table })
}

fn burndowns(report: &SpendReport) -> Vec<Figure> {
    let limited = report.budgets.iter().filter_map(|budget| Some((budget, budget.limit?)));
    limited
        .take(BURNDOWNS_MAX)
        .enumerate()
        .map(|(index, (budget, limit))| burndown(index, budget, limit, report.generated_at))
        .collect()
}

fn burndown(index: usize, budget: &BudgetReport, limit: Usd, now: Timestamp) -> Figure {
    let mut lead = format!(
        "{} of {} is spent ({}), {} more is held for leases that run.",
        money(budget.spent),
        money(limit),
        percent(budget.spent, limit),
        money(budget.held),
    );
    if let Some(projection) = &budget.projection {
        lead += &match projection.breach_at {
            Some(at) => format!(
                " At {} the limit is reached about {}; without it, {} would be spent by the end of the window (between {} and {}).",
                projection.rate.rounded(),
                figures::moment(at),
                money(projection.expected),
                money(projection.low),
                money(projection.high),
            ),
            None => format!(
                " At {}, {} will be spent by the end of the window (between {} and {}).",
                projection.rate.rounded(),
                money(projection.expected),
                money(projection.low),
                money(projection.high),
            ),
        };
    }
    let id = format!("budget-{index}");
    let title = format!("What is left of the budget of {}", budget.name);
    let words = Words { id: &id, title: &title, description: &lead };
    let pictures = both(|size| chart::burndown(&words, size, budget, limit, now));
    let row = |(at, spent): &(Timestamp, Usd)| {
        let numbers = [money(*spent), money(limit.saturating_sub(*spent))];
        std::iter::once(Cell::Text(figures::moment(*at))).chain(numbers.map(Cell::Number)).collect()
    };
    let table = Table {
        caption: title.clone(),
        head: heads(&["Time"], &["Spent", "Left"]),
        rows: budget.series.iter().map(row).collect(),
        foot: Vec::new(),
    };
    Figure { heading: format!("{}, {}", budget.name, figures::period(budget.period)), lead, pictures, table }
}

pub(super) fn both(draw: impl Fn(Size) -> String) -> [String; 2] {
    [draw(Size::Wide), draw(Size::Narrow)]
}
