//! What happens to budgets themselves: windows that begin, work that lands after a limit was lowered, and what somebody
//! is to be told.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bursar_model::{
    Attempt, AttemptState, Budget, BudgetAlert, BudgetKey, Event, ExperimentId, Fleet, Outcome, Refusal,
    Span, StopReason, Timestamp, Usd, WaitingOn,
};

use crate::{Plan, PlanInput};

/// The windows that begin: nothing is spent in them yet. To be applied before anything is charged.
#[must_use]
pub fn windows_that_begin(budgets: &BTreeMap<BudgetKey, Budget>, now: Timestamp) -> Vec<Event> {
    let begins = |(key, budget): (&BudgetKey, &Budget)| {
        let over = budget.window.filter(|window| window.to <= now)?;
        let schedule = budget.terms.as_ref()?.schedule.as_ref()?;
        // A clock that stepped back does not open a window again.
        let window = schedule.window_at(now);
        (window.from >= over.to).then(|| Event::BudgetWindowBegan { key: key.clone(), window })
    };
    lasting(budgets).filter_map(begins).collect()
}

/// The budgets whose window lies in the future: the clock was ahead when it began, and has been put right.
pub fn windows_ahead_of_time(
    budgets: &BTreeMap<BudgetKey, Budget>,
    now: Timestamp,
) -> impl Iterator<Item = &BudgetKey> {
    // Clocks are put right by small steps all the time; a window that begins a little early does no harm.
    const TOLERANCE: Span = Span::from_secs(60);
    let is_ahead = move |(_, budget): &(&BudgetKey, &Budget)| {
        budget.window.is_some_and(|window| window.from > now + TOLERANCE)
    };
    lasting(budgets).filter(is_ahead).map(|(key, _)| key)
}

/// Asks to plan again when the next window begins: work that waits for money may go on.
pub(crate) fn wake_at_windows(input: &PlanInput<'_>, plan: &mut Plan) {
    for window in lasting(&input.fleet.budgets).filter_map(|(_, budget)| budget.window) {
        plan.wake(window.to);
    }
}

/// Only budgets that outlive their work have windows. They come first, and there are few of them.
fn lasting(budgets: &BTreeMap<BudgetKey, Budget>) -> impl Iterator<Item = (&BudgetKey, &Budget)> {
    budgets.iter().take_while(|(key, _)| !key.ends_with_its_work())
}

/// The experiments that have to stop because a limit was lowered below what is spent and held, each with the budget that
/// says so: the youngest, until what the others hold fits.
pub(crate) fn landing(fleet: &Fleet) -> BTreeMap<ExperimentId, BudgetKey> {
    let mut landing = BTreeMap::new();
    // Where nothing is held any more, nothing can be given back.
    let over =
        |budget: &Budget| (budget.held > Usd::ZERO).then(|| budget.over()).filter(|over| *over > Usd::ZERO);
    let over: Vec<(&BudgetKey, Usd)> =
        fleet.budgets.iter().filter_map(|(key, budget)| Some((key, over(budget)?))).collect();
    if over.is_empty() {
        return landing;
    }
    let working = working(fleet);
    for (key, over) in over {
        let mut freed = Usd::ZERO;
        for (payer, held) in holders(fleet, &working, key) {
            if freed >= over {
                break;
            }
            freed += held;
            landing.entry(payer).or_insert_with(|| key.clone());
        }
    }
    landing
}

/// The experiments that work now and are told to stop because the limit of this very budget is below what is spent and
/// held.
#[must_use]
pub fn told_to_stop(fleet: &Fleet, key: &BudgetKey) -> Vec<ExperimentId> {
    let working = working(fleet);
    let lands = |(payer, by): &(ExperimentId, BudgetKey)| by == key && working.contains(payer);
    landing(fleet).into_iter().filter(lands).map(|(payer, _)| payer).collect()
}

/// Who holds money of a budget, and how much: first those who stop anyway, then the youngest.
fn holders(fleet: &Fleet, working: &BTreeSet<ExperimentId>, key: &BudgetKey) -> Vec<(ExperimentId, Usd)> {
    let mut held: BTreeMap<ExperimentId, Usd> = BTreeMap::new();
    for instance in fleet.instances.values() {
        for (payer, share) in &instance.shares {
            if share.account.budgets(*payer).any(|above| above == *key) {
                *held.entry(*payer).or_default() += share.held;
            }
        }
    }
    let mut holders: Vec<_> = held.into_iter().collect();
    holders.sort_by_key(|(payer, _)| (working.contains(payer), std::cmp::Reverse(*payer)));
    holders
}

/// The experiments with an attempt that is not stopping.
fn working(fleet: &Fleet) -> BTreeSet<ExperimentId> {
    let works = |attempt: &&Attempt| matches!(attempt.state, AttemptState::Assigned | AttemptState::Running);
    fleet.attempts.values().filter(works).map(|attempt| attempt.experiment).collect()
}

/// Adds to a plan what somebody is to be told: thresholds that were reached, and budgets that stopped work or let none
/// start. `landed` are the budgets for whose sake this plan stops work.
pub(crate) fn plan_alerts(input: &PlanInput<'_>, landed: &BTreeSet<BudgetKey>, plan: &mut Plan) {
    let mut alerts = Vec::new();
    for (key, budget) in &input.fleet.budgets {
        let percent = budget.reached();
        if percent > budget.told.threshold {
            alerts.push((key.clone(), BudgetAlert::Threshold { percent }));
        }
    }
    let mut exhausted = landed.clone();
    for (_, reason) in &plan.waiting {
        // What is held may come back; what is spent does not, before the next window.
        if let WaitingOn::Budget(no_room) = reason
            && no_room.spent.saturating_add(no_room.needed) > no_room.limit
        {
            exhausted.insert(no_room.key.clone());
        }
    }
    for event in &plan.events {
        if let Event::ExperimentEnded { outcome, .. } = event {
            match outcome {
                Outcome::Refused { why: Refusal::Budget { key, .. } } => drop(exhausted.insert(key.clone())),
                Outcome::Succeeded
                | Outcome::Failed { .. }
                | Outcome::Cancelled
                // Those that asha ends for want of money are told with `landed`.
                | Outcome::Refused { why: Refusal::FirstRung { .. } }
                | Outcome::Stopped { .. }
                | Outcome::Pruned { .. } => {}
            }
        }
    }
    for key in exhausted {
        // Of a budget without thresholds nobody wants to hear: most experiments have one.
        let to_tell =
            input.fleet.budgets.get(&key).is_some_and(|budget| budget.is_watched() && !budget.told.exhausted);
        if to_tell {
            alerts.push((key, BudgetAlert::Exhausted));
        }
    }
    let at = input.now;
    plan.events.extend(alerts.into_iter().map(|(key, alert)| Event::BudgetAlerted { key, at, alert }));
}

/// Why work is stopped for the sake of a budget: one that outlives it may be raised or begin anew, and until then the
/// work waits.
pub(crate) fn stop_reason(key: &BudgetKey) -> StopReason {
    if key.ends_with_its_work() { StopReason::Budget } else { StopReason::Unfunded }
}
