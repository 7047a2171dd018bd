//! Reads from the store what the look ahead needs, and asks for the alerts.

use std::collections::BTreeMap;

use bursar_ledger::ExpectedCost;
use bursar_model::{BudgetAlert, BudgetKey, Period, Span, Timestamp, Usd};
use bursar_policies::outlook::{ExperimentSoFar, Outlook};
use bursar_store::{Dimension, Peers, Reader, ReportKey, ReportQuery, StoreError};
use tracing::warn;

use crate::reconciler::chain;

/// What is older says nothing of the rate now.
const LOOK_BACK: Span = Span::from_hours(8 * 24);

const DAY: Span = Span::from_hours(24);

/// Peers whose costs are read: the newest of them say what is usual now.
const PEERS_MAX: u32 = 1000;

/// Sweeps and projects whose costs are read in one look, those of the most expensive experiments first. Each takes some
/// milliseconds; the others have their turn when these were told of.
const GROUPS_MAX: usize = 200;

/// What somebody is to be told. What cannot be read now is read at the next look.
pub(super) async fn alerts(
    reader: &Reader,
    outlook: &Outlook,
    now: Timestamp,
) -> Vec<(BudgetKey, BudgetAlert)> {
    let mut alerts = forecasts(reader, outlook, now).unwrap_or_else(unreadable);
    // Between questions others have their turn on this thread.
    tokio::task::yield_now().await;
    let mut costs: BTreeMap<Peers, Option<ExpectedCost>> = BTreeMap::new();
    for experiment in &outlook.experiments {
        let group = group_of(experiment);
        let expected = match costs.get(&group) {
            Some(expected) => *expected,
            None if costs.len() >= GROUPS_MAX => None,
            None => {
                let read = reader.costs_of_peers(&group, PEERS_MAX);
                tokio::task::yield_now().await;
                let expected = ExpectedCost::among_peers(read.unwrap_or_else(unreadable));
                *costs.entry(group).or_insert(expected)
            }
        };
        alerts.extend(experiment.alert(expected).map(|alert| (BudgetKey::Experiment(experiment.id), alert)));
    }
    alerts
}

fn group_of(experiment: &ExperimentSoFar) -> Peers {
    match experiment.account.sweep {
        Some(sweep) => Peers::Sweep(sweep),
        None => Peers::Project(experiment.account.project.clone()),
    }
}

fn unreadable<T>(error: StoreError) -> Vec<T> {
    warn!(error = %chain(&error), "the look ahead could not read the store");
    Vec::new()
}

fn forecasts(
    reader: &Reader,
    outlook: &Outlook,
    now: Timestamp,
) -> Result<Vec<(BudgetKey, BudgetAlert)>, StoreError> {
    if outlook.budgets.is_empty() {
        return Ok(Vec::new());
    }
    let Some(first) = reader.events(0, 1)?.pop() else { return Ok(Vec::new()) };
    let spent = spent_by_day(reader, now)?;
    let alert = |budget: &bursar_policies::outlook::BudgetAhead| {
        let recent = spent.get(&budget.key).map(Vec::as_slice).unwrap_or_default();
        budget.alert(recent, first.at, now).map(|alert| (budget.key.clone(), alert))
    };
    Ok(outlook.budgets.iter().filter_map(alert).collect())
}

/// What was spent of each budget on each of the last days, the oldest first: one question for all budgets, from the sums
/// that are kept by day.
fn spent_by_day(
    reader: &Reader,
    now: Timestamp,
) -> Result<BTreeMap<BudgetKey, Vec<(Period, Usd)>>, StoreError> {
    let begin = now - LOOK_BACK;
    let midnight = Timestamp::from_millis(begin.as_millis().div_euclid(DAY.as_millis()) * DAY.as_millis());
    let by = vec![Dimension::Day, Dimension::Project, Dimension::User, Dimension::Sweep];
    let rows = reader.report(&ReportQuery { by, since: Some(midnight), ..ReportQuery::default() })?;
    let mut sums: BTreeMap<(BudgetKey, Timestamp), Usd> = BTreeMap::new();
    for row in rows {
        let [ReportKey::Day(day), ReportKey::Name(project), ReportKey::Name(user), sweep] = &row.keys[..]
        else {
            continue;
        };
        let sweep = if let ReportKey::Sweep(id) = sweep { Some(BudgetKey::Sweep(*id)) } else { None };
        let keys = [
            Some(BudgetKey::Installation),
            Some(BudgetKey::Project((**project).into())),
            Some(BudgetKey::User((**user).into())),
            sweep,
        ];
        for key in keys.into_iter().flatten() {
            *sums.entry((key, *day)).or_default() += row.costs.effective;
        }
    }
    let mut by_budget: BTreeMap<BudgetKey, Vec<(Period, Usd)>> = BTreeMap::new();
    for ((key, day), amount) in sums {
        by_budget.entry(key).or_default().push((Period::new(day, day + DAY), amount));
    }
    Ok(by_budget)
}
