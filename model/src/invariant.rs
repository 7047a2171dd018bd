//! The invariants by id, and the checks that the live state alone can answer.
//!
//! Checked after every simulated turn, in tests, and now and then in production (`bursar doctor`, a metric). Those
//! that need the cloud, the store or a plan (O1, O3, S1, P1) are checked where those are.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    budget::BudgetKey, experiment::ExperimentState, fleet::Fleet, instance::InstanceState, money::Usd,
    resources::Amounts,
};

/// What must always be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InvariantId {
    /// No cloud instance with our tag is unknown to the store for longer than the grace.
    O1,
    /// No provider call without a committed intent; at most one cloud instance per instance id.
    O2,
    /// An instance is forgotten only after the cloud said that it is gone.
    O3,
    /// For every budget: spent + held <= limit.
    B1,
    /// Holds of ended instances are zero, and budgets hold just what instances hold.
    B2,
    /// The sum of allocations is the cost of the instance, exactly.
    L1,
    /// Every charge has one category and one payer; charge periods neither overlap nor leave gaps.
    L2,
    /// An experiment has at most one live attempt.
    E1,
    /// An accepted experiment ends, or waits with a reason; a sweep counts its trials rightly.
    E2,
    /// The state in memory equals the state loaded from the store.
    S1,
    /// Every state change is a legal transition.
    S2,
    /// A plan never breaks a ceiling, quota, constraint or budget.
    P1,
}

impl fmt::Display for InvariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub invariant: InvariantId,
    /// Where, for people.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// Everything that the live state alone can break. Empty when all is well.
#[must_use]
pub fn check(fleet: &Fleet) -> Vec<Violation> {
    let mut violations = Vec::new();
    budgets_within_limits(fleet, &mut violations);
    holds_recounted(fleet, &mut violations);
    attempts_match_experiments(fleet, &mut violations);
    sweeps_recounted(fleet, &mut violations);
    instances_not_overfull(fleet, &mut violations);
    violations
}

fn budgets_within_limits(fleet: &Fleet, violations: &mut Vec<Violation>) {
    for (key, budget) in &fleet.budgets {
        // What was committed when somebody lowered a limit below it may land; it may not grow.
        if let Some(ceiling) = budget.ceiling()
            && budget.committed() > ceiling
        {
            violations.push(Violation {
                invariant: InvariantId::B1,
                detail: format!("{key}: {} spent + {} held > {ceiling}", budget.spent, budget.held),
            });
        }
        if budget.held < Usd::ZERO {
            violations.push(Violation {
                invariant: InvariantId::B2,
                detail: format!("{key} holds {}", budget.held),
            });
        }
    }
}

fn holds_recounted(fleet: &Fleet, violations: &mut Vec<Violation>) {
    let mut held: BTreeMap<BudgetKey, Usd> = BTreeMap::new();
    for instance in fleet.instances.values() {
        for (payer, share) in &instance.shares {
            if matches!(instance.state, InstanceState::Gone { .. }) && share.held != Usd::ZERO {
                violations.push(Violation {
                    invariant: InvariantId::B2,
                    detail: format!("{} is gone and holds {} of {payer}", instance.id, share.held),
                });
            }
            for key in share.account.budgets(*payer) {
                *held.entry(key).or_default() += share.held;
            }
        }
    }
    for (key, budget) in &fleet.budgets {
        let counted = held.get(key).copied().unwrap_or_default();
        if counted != budget.held {
            violations.push(Violation {
                invariant: InvariantId::B2,
                detail: format!("{key} holds {}, its instances hold {counted}", budget.held),
            });
        }
    }
}

fn attempts_match_experiments(fleet: &Fleet, violations: &mut Vec<Violation>) {
    let mut broken = |detail| violations.push(Violation { invariant: InvariantId::E1, detail });
    for experiment in fleet.experiments.values() {
        if let ExperimentState::Running { attempt } = experiment.state
            && fleet.attempts.get(&attempt).is_none_or(|a| a.experiment != experiment.id || a.is_ended())
        {
            broken(format!("{} runs as {attempt}, which is not live", experiment.id));
        }
    }
    for attempt in fleet.attempts.values().filter(|attempt| !attempt.is_ended()) {
        let runs = fleet
            .experiments
            .get(&attempt.experiment)
            .is_some_and(|e| e.state == ExperimentState::Running { attempt: attempt.id });
        if !runs {
            broken(format!("{} is live, but not the attempt of {}", attempt.id, attempt.experiment));
        }
        for instance in attempt.instances().filter(|id| !fleet.instances.contains_key(id)) {
            broken(format!("{} is live on {instance}, which is gone", attempt.id));
        }
    }
}

fn sweeps_recounted(fleet: &Fleet, violations: &mut Vec<Violation>) {
    let mut counts: BTreeMap<_, (u32, u32)> = fleet.sweeps.keys().map(|id| (*id, (0, 0))).collect();
    for experiment in fleet.experiments.values().filter(|experiment| !experiment.is_ended()) {
        if let Some((open, running)) = experiment.account.sweep.and_then(|id| counts.get_mut(&id)) {
            *open += 1;
            *running += u32::from(experiment.state != ExperimentState::Queued);
        }
    }
    for (id, sweep) in &fleet.sweeps {
        if (sweep.open, sweep.running) != counts[id] {
            violations.push(Violation {
                invariant: InvariantId::E2,
                detail: format!(
                    "{id} says {} open and {} running, counted {:?}",
                    sweep.open, sweep.running, counts[id]
                ),
            });
        }
    }
}

fn instances_not_overfull(fleet: &Fleet, violations: &mut Vec<Violation>) {
    let mut used: BTreeMap<_, Amounts> = BTreeMap::new();
    for attempt in fleet.attempts.values().filter(|attempt| !attempt.is_ended()) {
        for instance in attempt.instances() {
            let sum = used.entry(instance).or_default();
            sum.accelerators += attempt.amounts.accelerators;
            sum.cpus_milli += attempt.amounts.cpus_milli;
            sum.memory_mib += attempt.amounts.memory_mib;
        }
    }
    for (id, sum) in used {
        if fleet.instances.get(&id).is_some_and(|i| !i.offering.instance_type.amounts().fits(sum)) {
            violations
                .push(Violation { invariant: InvariantId::P1, detail: format!("{id} is overfull: {sum:?}") });
        }
    }
}
