//! `bursar budgets`, `bursar budget set` and `bursar budget lift`.

use bursar_config::raw::{RawBudget, Written};
use bursar_daemon::{
    http::{BudgetAnswer, BudgetChange},
    reports::bars::{BarStyle, bars},
    views::BudgetView,
};
use bursar_model::{OnExhausted, Timestamp, Usd};

use super::{Context, list::amount, show_warnings, submit::user};
use crate::{
    args::{BudgetCommand, BudgetOf, BudgetSet, BudgetTerms},
    exit::{Failure, OK, Outcome, USAGE},
    output::{bar_style, cut, json, line, note, render, terminal_width},
    source::segment,
};

/// Letters of a bar that is full: shorter ones do not show a few percent.
const BAR_CELLS: u16 = 8;

pub(super) async fn list(context: Context) -> Outcome {
    let rows: Vec<BudgetView> = context.source().await?.budgets().await?;
    if context.json {
        json(&rows)?;
    } else if rows.is_empty() {
        note("no budgets; set one with `bursar budget set project NAME --limit USD`");
    } else {
        line(&cut(&table(&rows, bar_style()), terminal_width()))?;
    }
    Ok(OK)
}

pub(super) async fn change(context: Context, command: BudgetCommand) -> Outcome {
    let answer = match command {
        BudgetCommand::Set(BudgetSet { of, terms }) => {
            let BudgetTerms { limit, per, timezone, thresholds, on_exhausted } = terms;
            let terms = RawBudget { limit: limit.map(Written), per, timezone, thresholds, on_exhausted };
            context.client.put(&path_of(&of)?, &BudgetChange { user: user(), terms }).await?
        }
        BudgetCommand::Lift(of) => context.client.delete(&path_of(&of)?, &[("user", user())]).await?,
    };
    let BudgetAnswer { before, after, stopping, warnings } = &answer;
    show_warnings(warnings);
    if context.json {
        json(&answer)?;
        return Ok(OK);
    }
    let whose = after.name.as_ref().map_or_else(String::new, |name| format!("  {name}"));
    line(&format!("{}{whose}", after.budget))?;
    line(&format!("  before  {}", terms_of(before)))?;
    line(&format!("  now     {}", terms_of(after)))?;
    let have = format!("{} spent, {} held", after.spent.rounded(), after.held.rounded());
    line(&format!(
        "  {have}{}",
        after.left.map_or_else(String::new, |left| format!(", {} left", left.rounded()))
    ))?;
    if !stopping.is_empty() {
        line(&format!("  {}", will_stop(stopping.len(), after.on_exhausted)))?;
    }
    Ok(OK)
}

/// What a lowered limit does to work.
fn will_stop(count: usize, on_exhausted: OnExhausted) -> String {
    let experiments = if count == 1 { "1 experiment".to_owned() } else { format!("{count} experiments") };
    match on_exhausted {
        OnExhausted::Stop => format!("{experiments} will be stopped, without time to save"),
        OnExhausted::CheckpointAndStop | OnExhausted::FinishRunning | OnExhausted::NotifyOnly => {
            format!("{experiments} will be told to save and stop")
        }
    }
}

fn path_of(of: &BudgetOf) -> Result<String, Failure> {
    match (of.kind.as_str(), of.name.as_deref()) {
        ("installation", None) => Ok("/v1/budgets/installation".to_owned()),
        ("installation", Some(name)) => Err(Failure::new(
            USAGE,
            format!("there is one installation, so `{name}` says nothing: leave it out"),
        )),
        (kind, Some(name)) => Ok(format!("/v1/budgets/{kind}/{}", segment(name))),
        (kind, None) => Err(Failure::new(USAGE, format!("say which {kind}: `bursar budget … {kind} NAME`"))),
    }
}

/// The terms of a budget in a line.
fn terms_of(view: &BudgetView) -> String {
    let Some(limit) = view.limit else { return "no limit".to_owned() };
    let per = view.per.as_ref().map_or_else(String::new, |per| format!(" per {per}"));
    let percents: Vec<String> = view.thresholds.iter().map(ToString::to_string).collect();
    let told = match percents.as_slice() {
        [] => String::new(),
        percents => format!(", told at {} %", percents.join(", ")),
    };
    format!("{}{per}, {}{told}", limit.rounded(), word(view.on_exhausted))
}

fn table(rows: &[BudgetView], style: BarStyle) -> String {
    let cells = rows.iter().map(|row| {
        let name =
            row.name.as_ref().map_or_else(|| row.budget.clone(), |name| format!("{} {name}", row.budget));
        let (bar, part) = row.limit.map_or_else(Default::default, |limit| used(row.spent, limit, style));
        vec![
            name,
            amount(row.limit),
            window(row),
            row.spent.rounded(),
            bar,
            part,
            row.held.rounded(),
            row.left.map_or_else(|| "-".to_owned(), Usd::rounded),
            row.rate.map_or_else(|| "-".to_owned(), |rate| rate.rounded()),
            outlook(row),
            if row.limit.is_some() { word(row.on_exhausted) } else { "-" }.to_owned(),
        ]
    });
    render(
        &["budget", "limit", "window", "spent", "", "", "held", "left", "rate", "outlook", "when used up"],
        cells.collect(),
        &[1, 3, 5, 6, 7, 8],
    )
}

/// How much of a limit is spent, as a bar and in percent.
fn used(spent: Usd, limit: Usd, style: BarStyle) -> (String, String) {
    let bar = bars(&[limit, spent.min(limit)], BAR_CELLS, style).pop().unwrap_or_default();
    let percent = i128::from(spent.as_nanos()) * 100 / i128::from(limit.as_nanos().max(1));
    (bar, format!("{percent}%"))
}

fn window(row: &BudgetView) -> String {
    match (&row.per, row.window) {
        (Some(per), Some(window)) => format!("{per}, to {}", minute(window.to)),
        (Some(per), None) => per.clone(),
        (None, _) => "total".to_owned(),
    }
}

/// What becomes of it, in a few words.
fn outlook(row: &BudgetView) -> String {
    let Some(limit) = row.limit else { return "-".to_owned() };
    if row.landing {
        "landing".to_owned()
    } else if row.spent >= limit {
        "used up".to_owned()
    } else if let Some(at) = row.breach_at {
        format!("used up {}", minute(at))
    } else if row.rate.is_some() {
        "lasts".to_owned()
    } else {
        "-".to_owned()
    }
}

/// A moment as tables show it: `2026-12-01 00:00`, in UTC.
fn minute(at: Timestamp) -> String {
    at.to_string().get(..16).unwrap_or_default().replace('T', " ")
}

fn word(on_exhausted: OnExhausted) -> &'static str {
    match on_exhausted {
        OnExhausted::CheckpointAndStop => "checkpoint-and-stop",
        OnExhausted::Stop => "stop",
        OnExhausted::FinishRunning => "finish-running",
        OnExhausted::NotifyOnly => "notify-only",
    }
}

#[cfg(test)]
mod tests {
    use bursar_model::{Period, UsdPerHour};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn view(budget: &str, limit: Option<&str>, spent: &str) -> BudgetView {
        let usd = |text: &str| -> Usd { text.parse().unwrap() };
        BudgetView {
            budget: budget.to_owned(),
            name: None,
            limit: limit.map(usd),
            spent: usd(spent),
            held: usd("1.5"),
            left: limit.map(|limit| usd(limit) - usd(spent) - usd("1.5")),
            rate: None,
            projected: None,
            full_at: None,
            breach_at: None,
            per: None,
            window: None,
            on_exhausted: OnExhausted::default(),
            thresholds: vec![50, 80],
            landing: false,
        }
    }

    #[test]
    fn a_budget_is_shown_with_its_window_its_bar_and_when_it_will_be_used_up() {
        let month = Period::new(at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let rows = [
            view("installation", None, "70"),
            BudgetView {
                per: Some("month".to_owned()),
                window: Some(month),
                rate: Some(UsdPerHour::from_nanos(500_000_000)),
                breach_at: Some(at("2026-11-24T13:05:09Z")),
                ..view("project lab", Some("100"), "62.5")
            },
            BudgetView {
                name: Some("digits".to_owned()),
                landing: true,
                on_exhausted: OnExhausted::Stop,
                ..view("sweep swp_1", Some("4"), "3")
            },
        ];
        assert_eq!(
            table(&rows, BarStyle::Ascii),
            "\
BUDGET                LIMIT  WINDOW                       SPENT                HELD      LEFT       RATE  OUTLOOK                   WHEN USED UP
installation           none  total                       $70.00               $1.50         -          -  -                         -
project lab         $100.00  month, to 2026-12-01 00:00  $62.50  #####   62%  $1.50    $36.00  $0.5000/h  used up 2026-11-24 13:05  checkpoint-and-stop
sweep swp_1 digits    $4.00  total                        $3.00  ######  75%  $1.50  -$0.5000          -  landing                   stop"
        );
    }

    #[test]
    fn terms_are_told_in_a_line() {
        let monthly =
            BudgetView { per: Some("month (Europe/Berlin)".to_owned()), ..view("x", Some("100"), "1") };
        assert_eq!(
            terms_of(&monthly),
            "$100.00 per month (Europe/Berlin), checkpoint-and-stop, told at 50, 80 %"
        );
        assert_eq!(terms_of(&view("x", None, "1")), "no limit");
        assert_eq!(will_stop(1, OnExhausted::Stop), "1 experiment will be stopped, without time to save");
        assert_eq!(
            will_stop(3, OnExhausted::CheckpointAndStop),
            "3 experiments will be told to save and stop"
        );
    }
}
