//! Pure decisions: state in, plan and reasons out. No clock, no chance, no IO; the same input gives the same plan.
//!
//! A plan is a list of events, in order, that become true when they are committed. What must be done in the world
//! follows from the state that they make (an `Intended` instance is launched, a `Terminating` one terminated), so that
//! whoever executes a plan makes no choices, and planning again once all is done changes nothing.

mod asha;
pub mod budgets;
mod candidates;
mod check;
mod choice;
mod ends;
pub mod estimate;
mod funding;
mod lifecycle;
pub mod market;
pub mod outlook;
mod placement;
#[cfg(test)]
mod properties;
mod quotas;
#[cfg(test)]
mod testing;
mod utilization;

use std::collections::BTreeMap;

use bursar_model::{Event, ExperimentId, Fleet, IdGen, InstanceId, Span, Timestamp, UsdPerHour, WaitingOn};

pub use self::{
    asha::rung_reached,
    candidates::{Candidate, Verdict, candidates, candidates_for},
    check::check,
    ends::{attempt_ended, node_lost},
    estimate::{Past, Prospect, estimate},
    market::Market,
    utilization::gpu_idle_noted,
};

/// All that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The time to plan for.
    pub now: Timestamp,
    /// The live state.
    pub fleet: &'a Fleet,
    /// What can be rented.
    pub market: &'a Market,
    /// When each instance's agent was last heard. An instance that is not in it was not heard since the daemon started.
    pub heard: &'a BTreeMap<InstanceId, Timestamp>,
    /// When the daemon started: no silence is counted from before.
    pub started_at: Timestamp,
    /// What the configuration says.
    pub settings: &'a Settings,
}

/// What the configuration says about planning.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long an instance is paid for at a time.
    pub lease: Span,
    /// What is paid beyond a lease for checkpointing and shutting down.
    pub drain_allowance: Span,
    /// How long an instance with nothing to do is kept.
    pub idle_duration: Span,
    /// How many instances there may be at once.
    pub max_instances: u32,
    /// The highest price of an instance that is accepted.
    pub max_price: Option<UsdPerHour>,
    /// How long an instance may take from its launch until its agent registers.
    pub boot_timeout: Span,
    /// How long an agent may be silent and still get new work and another lease.
    pub quiet_after: Span,
    /// How long an agent may be silent before its instance is given up.
    pub silence_timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Span::from_secs(600),
            drain_allowance: Span::from_secs(120),
            idle_duration: Span::from_secs(300),
            max_instances: 100,
            max_price: None,
            boot_timeout: Span::from_secs(900),
            quiet_after: Span::from_secs(60),
            silence_timeout: Span::from_secs(300),
        }
    }
}

/// What is to become true, and why the rest waits.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "a plan that is not committed changes nothing"]
pub struct Plan {
    /// In order; each is legal after those before it.
    pub events: Vec<Event>,
    /// Every queued experiment that gets no place in this plan, with what it waits for.
    pub waiting: Vec<(ExperimentId, WaitingOn)>,
    /// When to plan again at the latest, though nothing happens.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// Asks to be made again at `at` at the latest.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// Decides everything that is to be decided now.
pub fn plan(input: &PlanInput<'_>, ids: &mut IdGen) -> Plan {
    let mut plan = Plan::default();
    let mut room = bursar_ledger::Room::new(&input.fleet.budgets);
    let mut halving = asha::plan_asha(input, &mut plan);
    let mut lifecycle = lifecycle::plan_lifecycle(input, &mut room, &mut plan);
    lifecycle.exhausted.append(&mut halving.exhausted);
    asha::pause(input, &halving, &mut plan);
    lifecycle::keep_for_renewals(input, &lifecycle.leaving, &mut room);
    placement::plan_placement(input, &halving, &lifecycle, &mut room, ids, &mut plan);
    budgets::plan_alerts(input, &lifecycle.exhausted, &mut plan);
    budgets::wake_at_windows(input, &mut plan);
    // What was due before and has led to nothing leads to nothing again before time goes by.
    plan.wake_at = plan.wake_at.map(|at| if at > input.now { at } else { input.now + PLAN_AGAIN });
    plan
}

/// What is due and cannot be done yet is looked at so often.
const PLAN_AGAIN: Span = Span::from_secs(1);
