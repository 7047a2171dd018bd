//! What a notification says, for people and for programs: pure, from the notification and, for a report, its rows.

use bursar_model::{
    BudgetAlert, BudgetKey, Notification, NotificationAbout, NotificationId, Period, Timestamp, Usd,
};
use serde_json::{Value, json};

use crate::{
    reports::figures,
    views::{ReportLine, ReportView, budget_name},
};

/// Rows of a report: more is not read in a chat, and Slack takes 3000 characters in a block.
const ROWS_MAX: usize = 20;

/// Characters of a row's name. With three columns of amounts and 22 lines, a table stays below 2000 characters.
const NAME_MAX: usize = 36;

/// What is written, whatever the form of the body.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Letter {
    pub(super) id: NotificationId,
    /// `threshold`, `exhausted`, `forecast`, `anomaly`, `idle-gpu`, `report` or `test`.
    pub(super) kind: &'static str,
    /// When what it tells of was seen.
    pub(super) at: Timestamp,
    pub(super) installation: String,
    /// One line.
    pub(super) title: String,
    /// One or a few sentences.
    pub(super) text: String,
    /// Lines in columns.
    pub(super) table: Option<String>,
    /// The same for programs.
    pub(super) data: Value,
}

/// A letter that asks for nothing: does it arrive?
pub(super) fn test(id: NotificationId, at: Timestamp, installation: &str, webhook: &str) -> Letter {
    Letter {
        id,
        kind: "test",
        at,
        installation: installation.to_owned(),
        title: "bursar can write here".to_owned(),
        text: format!("A test of the webhook {webhook}. Nothing happened."),
        table: None,
        data: json!({ "webhook": webhook }),
    }
}

/// The letter of a notification that says all itself; none for a report, which needs its rows.
pub(super) fn of_itself(notification: &Notification, installation: &str) -> Option<Letter> {
    match &notification.about {
        NotificationAbout::Budget { .. } => of_budget(notification, installation),
        NotificationAbout::IdleGpu { experiment, name, since, min_gpu_utilization } => Some(Letter {
            id: notification.id,
            kind: "idle-gpu",
            at: notification.at,
            installation: installation.to_owned(),
            title: format!("A GPU of experiment {name} stays idle"),
            text: format!(
                "Less than {min_gpu_utilization}% of it has been used since {}. The experiment runs on.",
                figures::moment(*since)
            ),
            table: None,
            data: json!({
                "experiment": experiment, "name": name, "since": since, "min_gpu_utilization": min_gpu_utilization,
            }),
        }),
        NotificationAbout::Report { .. } => None,
    }
}

fn of_budget(notification: &Notification, installation: &str) -> Option<Letter> {
    let NotificationAbout::Budget { key, name, alert, limit, spent, held, window } = &notification.about
    else {
        return None;
    };
    let subject = subject(key, name.as_deref());
    let of = limit.map_or_else(String::new, |limit| format!(" of {}", figures::money(limit)));
    let mut numbers = format!("{}{of} is spent and {} held", figures::money(*spent), figures::money(*held));
    if let Some(window) = window {
        numbers += &format!(", for {}", figures::period(*window));
    }
    numbers.push('.');
    let mut data = json!({
        "budget": budget_name(key), "name": name, "limit": limit, "spent": spent, "held": held, "window": window,
    });
    let (kind, title, text) = match *alert {
        BudgetAlert::Threshold { percent } => {
            data["percent"] = json!(percent);
            ("threshold", format!("{percent}% of the budget of {subject} is spent"), numbers)
        }
        BudgetAlert::Exhausted => {
            let text = format!("{numbers} Work had to stop or cannot start.");
            ("exhausted", format!("The budget of {subject} is used up"), text)
        }
        BudgetAlert::Forecast { breach_at } => {
            data["breach_at"] = json!(breach_at);
            let by = figures::moment(breach_at);
            let text = format!("{numbers} If spending goes on as it did lately, the limit is reached then.");
            ("forecast", format!("The budget of {subject} will be used up by {by}"), text)
        }
        BudgetAlert::Anomaly { expected, high } => {
            data["expected"] = json!(expected);
            data["expected_high"] = json!(high);
            let (expected, high) = (figures::money(expected), figures::money(high));
            let spent = figures::money(*spent);
            let text =
                format!("{spent} is spent. About {expected} was to be expected, and no more than {high}.");
            ("anomaly", format!("{} costs far more than expected", capitalised(&subject)), text)
        }
    };
    let Notification { id, at, .. } = *notification;
    Some(Letter { id, kind, at, installation: installation.to_owned(), title, text, table: None, data })
}

/// The letter of a scheduled report.
pub(super) fn of_report(
    notification: &Notification,
    installation: &str,
    name: &str,
    period: Period,
    view: &ReportView,
) -> Letter {
    let ReportLine { cost, on_demand_cost, .. } = view.total;
    let saved = on_demand_cost.saturating_sub(cost);
    let text = format!(
        "{} was spent ({}). At on-demand prices it would have been {}: {} saved.",
        figures::money(cost),
        figures::period(period),
        figures::money(on_demand_cost),
        figures::money(saved),
    );
    let rows: Vec<Value> = view
        .rows
        .iter()
        .map(|row| json!({ "keys": row.keys, "cost": row.cost, "on_demand_cost": row.on_demand_cost }))
        .collect();
    let Notification { id, at, .. } = *notification;
    Letter {
        id,
        kind: "report",
        at,
        installation: installation.to_owned(),
        title: format!("Report {name}: {}", figures::money(cost)),
        text,
        table: (!view.rows.is_empty()).then(|| table(view)),
        data: json!({
            "report": name, "period": period, "by": view.by, "rows": rows, "names": view.names,
            "cost": cost, "on_demand_cost": on_demand_cost, "saved": saved,
        }),
    }
}

/// The most expensive rows, what the others came to together, and the sum.
fn table(view: &ReportView) -> String {
    let mut rows: Vec<&ReportLine> = view.rows.iter().collect();
    rows.sort_by(|a, b| b.cost.cmp(&a.cost).then_with(|| a.keys.cmp(&b.keys)));
    let amounts =
        |cost: Usd, on_demand: Usd| [cost, on_demand, on_demand.saturating_sub(cost)].map(figures::money);
    let mut lines = vec![(view.by.join(", "), ["cost", "on demand", "saved"].map(str::to_owned))];
    for row in rows.iter().take(ROWS_MAX) {
        let keys = row.keys.iter().map(|key| match view.names.get(key) {
            Some(name) => name.as_str(),
            None if key.is_empty() => "–",
            None => key.as_str(),
        });
        let name = keys.collect::<Vec<_>>().join(", ");
        lines.push((name, amounts(row.cost, row.on_demand_cost)));
    }
    let others = &rows[rows.len().min(ROWS_MAX)..];
    if !others.is_empty() {
        let sum = |of: fn(&ReportLine) -> Usd| others.iter().map(|row| of(row)).sum::<Usd>();
        let name = format!("{} others", others.len());
        lines.push((name, amounts(sum(|row| row.cost), sum(|row| row.on_demand_cost))));
    }
    lines.push(("total".to_owned(), amounts(view.total.cost, view.total.on_demand_cost)));
    in_columns(&lines)
}

/// Names to the left, amounts to the right.
fn in_columns(lines: &[(String, [String; 3])]) -> String {
    let names: Vec<String> = lines.iter().map(|(name, _)| shortened(name)).collect();
    let width = |column: usize| lines.iter().map(|(_, cells)| cells[column].chars().count()).max();
    let [first, second, third] = [0, 1, 2].map(|column| width(column).unwrap_or_default());
    let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let lines = lines.iter().zip(&names).map(|((_, [cost, on_demand, saved]), name)| {
        format!("{name:<name_width$}  {cost:>first$}  {on_demand:>second$}  {saved:>third$}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_MAX - 1).chain(['…']).collect()
}

/// Of what a budget is, as people say it.
fn subject(key: &BudgetKey, name: Option<&str>) -> String {
    match (key, name) {
        (BudgetKey::Installation, _) => "the installation".to_owned(),
        (BudgetKey::Sweep(_), Some(name)) => format!("sweep {name}"),
        (BudgetKey::Experiment(_), Some(name)) => format!("experiment {name}"),
        _ => budget_name(key),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
