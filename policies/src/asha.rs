//! Which trials of a sweep go on, which pause and which are over, by asynchronous successive halving.
//!
//! The algorithm is that of Li et al. (MLSys 2020, algorithm 2): a trial goes on from a rung when it is among the best
//! 1/eta of all that have reached it so far; the highest rung comes first, and new trials start when nobody can go on.
//! As there, who was let go on may be overtaken later and runs on, so that more than 1/eta may leave a rung in the end.
//!
//! A matrix has an end and so has its budget, which the paper's stream of random trials has not. So here
//! - the best of a rung goes on, however few have reached it, once nobody else can: else a small sweep would end without
//!   any trial that ran to its end;
//! - a paused trial that would not come among the best though all that may still come did worse is stopped;
//! - a trial goes on, or starts, only if what is left of the sweep's budget is expected to bring it, and all that are
//!   under way, to their next rungs. What is held for them is not taken off besides: it pays for just that. A trial
//!   that cannot be paid for is stopped once nobody is under way, since nothing would come back then;
//! - who reaches a rung among the best runs on where it is, for to stop one trial and resume another costs time and money.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use bursar_ledger::{cuts, meter};
use bursar_model::{
    Asha, Attempt, AttemptId, AttemptState, BudgetKey, Event, Experiment, ExperimentId, ExperimentState,
    Fleet, InstanceId, InstanceState, Outcome, Refusal, Standing, StopReason, Sweep, SweepId, Timestamp, Usd,
    WaitingOn,
};

use crate::{Plan, PlanInput};

/// The events of a report with these metrics that brings a trial to a rung: what it was charged until then, and the rung
/// with its score. Empty where the report does not. Other nodes than that which reports are charged up to when they were
/// `heard`.
#[must_use]
pub fn rung_reached(
    fleet: &Fleet,
    heard: &BTreeMap<InstanceId, Timestamp>,
    attempt: &Attempt,
    metrics: &BTreeMap<String, f64>,
    now: Timestamp,
) -> Vec<Event> {
    let trial = attempt.experiment;
    let asha = fleet
        .experiments
        .get(&trial)
        .and_then(|experiment| fleet.sweeps.get(&experiment.account.sweep?)?.asha.as_ref());
    let Some((rung, score)) = asha.and_then(|asha| asha.reached(trial, metrics)) else { return Vec::new() };
    let mut events = Vec::new();
    let mut cost = spent_by(fleet, trial);
    // Leases are charged when they are renewed: without what has run since, a rung would look too cheap.
    let cuts = cuts(&fleet.budgets);
    for instance in attempt.instances().filter_map(|id| fleet.instances.get(&id)) {
        let live: Vec<&Attempt> = fleet.attempts_on(instance.id).collect();
        // Not for more than is held: where the clock has stepped, nobody knows what of it went by.
        let until = now.min(instance.held_until());
        let until = heard.get(&instance.id).map_or(instance.meter.through, |heard| until.min(*heard));
        let Some(metered) = meter(instance, live.iter().copied(), until, &cuts) else { continue };
        let lines = metered.charges().flat_map(|charge| &charge.lines);
        cost += lines.filter(|line| line.payer == trial).map(|line| line.costs.effective).sum();
        events.extend(metered.into_events());
    }
    events.push(Event::RungReached { experiment: trial, rung: as_u32(rung), score, cost });
    events
}

fn spent_by(fleet: &Fleet, trial: ExperimentId) -> Usd {
    fleet.budgets.get(&BudgetKey::Experiment(trial)).map_or(Usd::ZERO, |own| own.spent)
}

/// What the rest of a plan must know of halving.
#[derive(Debug, Default)]
pub(crate) struct Halving {
    /// Trials that may not run now, each with why: they get no place, and what runs of them is told to pause.
    pub(crate) held_back: BTreeMap<ExperimentId, WaitingOn>,
    /// Trials that this plan ends.
    pub(crate) ended: BTreeSet<ExperimentId>,
    /// Budgets of sweeps that do not pay for all that could go on or start.
    pub(crate) exhausted: BTreeSet<BudgetKey>,
    /// The rung to which each other trial may run. Of those who wait the highest goes first.
    rungs: BTreeMap<ExperimentId, usize>,
}

impl Halving {
    /// The rung to which an experiment may run; 0 for one that is no trial of a sweep with asha.
    pub(crate) fn rung_of(&self, experiment: ExperimentId) -> usize {
        self.rungs.get(&experiment).copied().unwrap_or(0)
    }
}

/// Lets trials go on and ends those that have no chance, in the plan.
pub(crate) fn plan_asha(input: &PlanInput<'_>, plan: &mut Plan) -> Halving {
    let mut halving = Halving::default();
    let sweeps: Vec<(&Sweep, &Asha)> =
        input.fleet.sweeps.values().filter_map(|sweep| Some((sweep, sweep.asha.as_ref()?))).collect();
    // Most plans have none, and a look at every experiment is not free.
    if sweeps.is_empty() {
        return halving;
    }
    let mut trials = trials(input, &sweeps);
    for (sweep, asha) in sweeps {
        let budget = input.fleet.budgets.get(&BudgetKey::Sweep(sweep.id));
        let halver = Halver {
            asha,
            max_parallel: sweep.max_parallel,
            trials: trials.remove(&sweep.id).unwrap_or_default(),
            left: budget.and_then(|budget| Some(budget.cap()?.saturating_sub(budget.spent))),
        };
        let Decisions { promoted, ended, held_back } = halver.decide();
        for (id, outcome) in ended {
            if !matches!(outcome, Outcome::Pruned { .. }) {
                halving.exhausted.insert(BudgetKey::Sweep(sweep.id));
            }
            plan.events.push(Event::ExperimentEnded { experiment: id, at: input.now, outcome });
            halving.ended.insert(id);
        }
        halving.rungs.extend(halver.trials.iter().map(|(id, trial)| (*id, trial.rung)));
        for (experiment, rung) in promoted {
            plan.events.push(Event::TrialPromoted { experiment, rung: as_u32(rung) });
            halving.rungs.insert(experiment, rung + 1);
        }
        halving.held_back.extend(held_back);
    }
    halving
}

/// Tells those who run and are held back to pause, unless the plan has told them to stop already.
pub(crate) fn pause(input: &PlanInput<'_>, halving: &Halving, plan: &mut Plan) {
    let runs = |id| match input.fleet.experiments.get(id)?.state {
        ExperimentState::Running { attempt } => input.fleet.attempts.get(&attempt),
        ExperimentState::Queued | ExperimentState::Ended { .. } => None,
    };
    let works = |attempt: &&Attempt| matches!(attempt.state, AttemptState::Assigned | AttemptState::Running);
    let mut attempts: BTreeSet<AttemptId> =
        halving.held_back.keys().filter_map(runs).filter(works).map(|attempt| attempt.id).collect();
    if attempts.is_empty() {
        return;
    }
    for event in &plan.events {
        if let Event::AttemptStopping { attempt, .. } = event {
            attempts.remove(attempt);
        }
    }
    let (at, why, at_once) = (input.now, StopReason::Paused, false);
    plan.events.extend(attempts.into_iter().map(|attempt| Event::AttemptStopping {
        attempt,
        at,
        why,
        at_once,
    }));
}

/// The trials of these sweeps that are not over, nor about to be.
fn trials<'a>(
    input: &PlanInput<'a>,
    sweeps: &[(&Sweep, &Asha)],
) -> BTreeMap<SweepId, BTreeMap<ExperimentId, Trial<'a>>> {
    let ashas: BTreeMap<SweepId, &Asha> = sweeps.iter().map(|(sweep, asha)| (sweep.id, *asha)).collect();
    let comes = |state: &InstanceState| match state {
        InstanceState::Intended { .. } | InstanceState::Booting { .. } | InstanceState::Ready { .. } => true,
        InstanceState::Draining { .. } | InstanceState::Terminating { .. } | InstanceState::Gone { .. } => {
            false
        }
    };
    let instances = input.fleet.instances.values().filter(|instance| comes(&instance.state));
    let expected: BTreeSet<ExperimentId> =
        instances.flat_map(|instance| instance.shares.keys().copied()).collect();
    let mut found: BTreeMap<SweepId, BTreeMap<ExperimentId, Trial<'a>>> = BTreeMap::new();
    for experiment in input.fleet.experiments.values() {
        let Some((sweep, asha)) = experiment.account.sweep.and_then(|id| Some((id, ashas.get(&id)?))) else {
            continue;
        };
        if experiment.is_ended() || experiment.cancelled {
            continue;
        }
        let id = experiment.id;
        let trial = Trial {
            experiment,
            rung: asha.rung_of(id),
            paused: asha.is_paused(id),
            started: experiment.attempts > 0 || expected.contains(&id),
            spent: spent_by(input.fleet, id),
        };
        found.entry(sweep).or_default().insert(id, trial);
    }
    found
}

/// A trial that is not over.
#[derive(Debug, Clone, Copy)]
struct Trial<'a> {
    experiment: &'a Experiment,
    /// The rung to which it may run.
    rung: usize,
    /// It has reached that rung and may not go on so far.
    paused: bool,
    /// It has run, or an instance is there or on its way for it: to hold it back now would waste that.
    started: bool,
    /// What it was charged so far.
    spent: Usd,
}

/// The halving of one sweep.
#[derive(Debug)]
struct Halver<'a> {
    asha: &'a Asha,
    max_parallel: Option<u32>,
    trials: BTreeMap<ExperimentId, Trial<'a>>,
    /// What is left of the sweep's budget, if it has one.
    left: Option<Usd>,
}

#[derive(Debug, Default, PartialEq)]
struct Decisions {
    /// Who goes on, from which rung.
    promoted: Vec<(ExperimentId, usize)>,
    ended: BTreeMap<ExperimentId, Outcome>,
    held_back: BTreeMap<ExperimentId, WaitingOn>,
}

/// Who goes on and who cannot be paid for, while the trials that are over are left out.
#[derive(Debug, Default)]
struct Promotions {
    promoted: Vec<(ExperimentId, usize)>,
    held_back: BTreeMap<ExperimentId, WaitingOn>,
    /// Those held back for want of money, with what is left and what they are expected to cost.
    unpaid: BTreeMap<ExperimentId, (Usd, Usd)>,
}

/// A paused trial that is among the best of its rung.
struct Candidate {
    id: ExperimentId,
    rung: usize,
    rank: usize,
}

impl Halver<'_> {
    fn decide(&self) -> Decisions {
        // Who is over makes the others better placed. Each round but the last ends somebody.
        let mut over: BTreeMap<ExperimentId, Outcome> = BTreeMap::new();
        let mut held_back: BTreeMap<ExperimentId, WaitingOn> = BTreeMap::new();
        for _ in 0..=self.trials.len() {
            let candidates = self.rank(&mut over, &mut held_back);
            let Promotions { promoted, held_back: unplaced, unpaid } = self.promote(candidates, &over);
            held_back.extend(unplaced);
            let somebody_runs = !promoted.is_empty()
                || self.left_in(&over).any(|trial| {
                    let id = trial.experiment.id;
                    !trial.paused && !unpaid.contains_key(&id)
                });
            if unpaid.is_empty() || somebody_runs {
                // Who is over ends once it has no attempt any more; until then it is held back.
                over.retain(|id, _| self.trials[id].experiment.state == ExperimentState::Queued);
                held_back.retain(|id, _| !over.contains_key(id));
                promoted.iter().for_each(|(id, _)| drop(held_back.remove(id)));
                return Decisions { promoted, ended: over, held_back };
            }
            for (id, (left, expected)) in unpaid {
                let outcome = if self.trials[&id].paused {
                    Outcome::Stopped { why: StopReason::Budget }
                } else {
                    Outcome::Refused { why: Refusal::FirstRung { left, expected } }
                };
                over.insert(id, outcome);
            }
        }
        unreachable!("every round ends somebody, and nobody is left after so many")
    }

    /// The trials that count. Who is over and still has an attempt does until that has ended.
    fn left_in<'o>(
        &'o self,
        over: &'o BTreeMap<ExperimentId, Outcome>,
    ) -> impl Iterator<Item = &'o Trial<'o>> {
        let leaves = |experiment: &Experiment| {
            over.contains_key(&experiment.id) && experiment.state == ExperimentState::Queued
        };
        self.trials.values().filter(move |trial| !leaves(trial.experiment))
    }

    /// Ranks the paused trials of every rung: who may go on is returned, who has a chance later is held back, who has
    /// none is over.
    fn rank(
        &self,
        over: &mut BTreeMap<ExperimentId, Outcome>,
        held_back: &mut BTreeMap<ExperimentId, WaitingOn>,
    ) -> Vec<Candidate> {
        let eta = self.asha.rules.eta as usize;
        let mut candidates = Vec::new();
        // From below, because who is over there does not come to the rungs above.
        for (number, rung) in self.asha.rungs[..self.asha.last()].iter().enumerate() {
            let comers =
                self.left_in(over).filter(|trial| !rung.standings.contains_key(&trial.experiment.id)).count();
            let reached = rung.standings.len();
            let at_least = usize::from(comers == 0);
            let best = (reached / eta).max(at_least);
            let best_ever = as_u32((reached + comers) / eta).max(1);
            for (rank, (id, standing)) in self.asha.ranking(number).into_iter().enumerate() {
                if standing.promoted || over.contains_key(&id) || !self.trials.contains_key(&id) {
                    continue;
                }
                if rank < best {
                    candidates.push(Candidate { id, rung: number, rank });
                    continue;
                }
                let (rung, rank, of) = (as_u32(number), as_u32(rank + 1), as_u32(reached));
                held_back.insert(id, WaitingOn::Rung { rung, rank, of, eta: self.asha.rules.eta });
                if rank > best_ever {
                    over.insert(id, Outcome::Pruned { rung, rank, of });
                }
            }
        }
        candidates
    }

    /// Lets candidates go on, and new trials start, as far as there is room and money.
    fn promote(&self, mut candidates: Vec<Candidate>, over: &BTreeMap<ExperimentId, Outcome>) -> Promotions {
        let mut promotions = Promotions::default();
        let runs = |trial: &&Trial<'_>| !trial.paused && trial.started;
        let costs: Vec<Usd> = (0..self.asha.rungs.len()).map(|rung| self.cost_of(rung)).collect();
        let still_costs = |trial: &Trial<'_>| {
            let spent = trial.spent.saturating_sub(self.cost_before(trial.rung, trial.experiment.id));
            costs[trial.rung].saturating_sub(spent).max(Usd::ZERO)
        };
        let mut purse = Purse { left: self.left };
        for trial in self.left_in(over).filter(runs) {
            purse.commit(still_costs(trial));
        }
        let mut running = self.left_in(over).filter(runs).count();
        candidates.sort_by_key(|Candidate { id, rung, rank }| {
            let has_place = self.trials[id].experiment.state != ExperimentState::Queued;
            (Reverse(has_place), Reverse(*rung), *rank, *id)
        });
        for Candidate { id, rung, .. } in candidates {
            if let Some(limit) = self.max_parallel.filter(|limit| running >= *limit as usize) {
                promotions.held_back.insert(id, WaitingOn::SweepParallel { limit });
                continue;
            }
            let expected = costs[rung + 1];
            match purse.pay(expected) {
                Ok(()) => {
                    promotions.promoted.push((id, rung));
                    running += 1;
                }
                Err(left) => promotions.lack(id, left, expected),
            }
        }
        for trial in self.left_in(over).filter(|trial| !trial.paused && !trial.started) {
            let expected = still_costs(trial);
            if let Err(left) = purse.pay(expected) {
                promotions.lack(trial.experiment.id, left, expected);
            }
        }
        promotions
    }

    /// What it costs to come to a rung from the one below, waiting and starting again included: the median of the trials
    /// that did; where none has, that of the highest rung that some came to, in proportion to the resource between the
    /// rungs. Nothing while nothing is known.
    fn cost_of(&self, rung: usize) -> Usd {
        let stretch = |rung: usize| {
            let below = rung.checked_sub(1).map_or(0, |below| self.asha.rungs[below].resource);
            i128::from(self.asha.rungs[rung].resource - below)
        };
        for known in (0..=rung).rev() {
            let standings = self.asha.rungs[known].standings.iter();
            let cost = |(id, standing): (&ExperimentId, &Standing)| {
                standing.cost.saturating_sub(self.cost_before(known, *id))
            };
            let mut costs: Vec<Usd> = standings.map(cost).collect();
            costs.sort();
            if let Some(median) = costs.get(costs.len() / 2) {
                // A cost has 63 bits and a resource 64: the product fits.
                let scaled = i128::from(median.as_nanos()) * stretch(rung) / stretch(known);
                return Usd::from_nanos(i64::try_from(scaled).unwrap_or(i64::MAX));
            }
        }
        Usd::ZERO
    }

    /// What a trial had been charged when it came to the rung below.
    fn cost_before(&self, rung: usize, trial: ExperimentId) -> Usd {
        let below = rung.checked_sub(1).and_then(|below| self.asha.rungs[below].standings.get(&trial));
        below.map_or(Usd::ZERO, |standing| standing.cost)
    }
}

impl Promotions {
    fn lack(&mut self, id: ExperimentId, left: Usd, expected: Usd) {
        self.held_back.insert(id, WaitingOn::RungBudget { left, expected });
        self.unpaid.insert(id, (left, expected));
    }
}

/// What is left of a budget beside what is expected of those under way.
struct Purse {
    left: Option<Usd>,
}

impl Purse {
    fn commit(&mut self, amount: Usd) {
        self.left = self.left.map(|left| left.saturating_sub(amount));
    }

    /// # Errors
    /// What is left, where it is less.
    fn pay(&mut self, amount: Usd) -> Result<(), Usd> {
        if let Some(left) = self.left.filter(|left| *left < amount) {
            return Err(left.max(Usd::ZERO));
        }
        self.commit(amount);
        Ok(())
    }
}

/// Trials and rungs are few: a sweep with asha comes to ten thousand trials at most.
fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
