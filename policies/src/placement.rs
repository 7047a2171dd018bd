//! Where queued experiments go: the instances launched for them, then free places, then new instances.
//!
//! Nothing is reserved in the state. Who is to get which place is worked out anew by every plan, so three rules keep
//! one plan after the other at the same answer until something changes:
//! - Who pays for a place that nobody uses goes there first, whatever waits besides. Were it displaced while its
//!   instance boots, it would launch another.
//! - Whoever shares a launch of this plan becomes one of its payers.
//! - Who waits for a place on an instance on its way counts as if it had its part of the budgets already.
//!
//! What the cloud is interrupting takes part as if it waited already: it gets a place now and its next attempt there once
//! it has saved. Experiments of several nodes are placed whole or not at all (`gangs`).
//!
//! The rest is first come, first served in plan order (priority, then age), except that experiments with the same
//! wishes as the first fill up the instance that is launched for it.

mod gangs;
mod launches;
mod places;
mod queue;
#[cfg(test)]
mod tests;
mod together;

use std::sync::Arc;

use bursar_ledger::Room;
use bursar_model::{
    Event, ExperimentId, ExperimentState, IdGen, NoRoom, Outcome, Refusal, StopReason, SweepId, Usd,
    WaitingOn,
};
use rustc_hash::{FxHashMap, FxHashSet};

use self::{
    launches::Launch,
    places::Place,
    queue::{Entry, Fate, Group, Queue},
    together::together,
};
use crate::{Plan, PlanInput, asha::Halving, choice::View, lifecycle::Lifecycle};

/// Gives every queued experiment a place or a reason.
pub(crate) fn plan_placement<'a>(
    input: &PlanInput<'a>,
    halving: &Halving,
    lifecycle: &Lifecycle<'a>,
    room: &mut Room<'a>,
    ids: &mut IdGen,
    plan: &mut Plan,
) {
    let Queue { entries, groups } = queue::queue(input, halving, lifecycle);
    if entries.is_empty() {
        return;
    }
    let live = input.fleet.instances.values().filter(|instance| instance.is_live()).count();
    let launches_at_most = (input.settings.max_instances as usize).saturating_sub(live).min(entries.len());
    let places = places::places(input, lifecycle, &plan.events);
    let mut placement = Placement {
        input,
        room,
        ids,
        plan,
        lifecycle,
        view: View::new(input),
        entries,
        groups,
        places,
        launches: Vec::with_capacity(launches_at_most),
        open_launches: FxHashMap::default(),
        instances: u32::try_from(live).unwrap_or(u32::MAX),
        trials: FxHashMap::default(),
        gangs: FxHashSet::default(),
    };
    placement.send_home();
    for index in 0..placement.entries.len() {
        placement.place(index);
    }
    placement.give_back();
    placement.finish();
}

/// A plan's placements while they are made.
struct Placement<'a, 'p> {
    input: &'p PlanInput<'a>,
    room: &'p mut Room<'a>,
    ids: &'p mut IdGen,
    plan: &'p mut Plan,
    lifecycle: &'p Lifecycle<'a>,
    view: View<'a>,
    /// In plan order.
    entries: Vec<Entry<'a>>,
    groups: Vec<Group<'a>>,
    places: Vec<Place<'a>>,
    launches: Vec<Launch<'a>>,
    /// Launches of this plan with room left, by accelerator.
    open_launches: launches::OpenLaunches<'a>,
    /// Live instances, launches included.
    instances: u32,
    /// Trials that got a place in this plan.
    trials: FxHashMap<SweepId, u32>,
    /// Experiments of several nodes that this plan has decided on: instances of theirs that they did not take are not
    /// theirs any more.
    gangs: FxHashSet<ExperimentId>,
}

impl<'a> Placement<'a, '_> {
    /// Gives one experiment a place or a reason, unless it has either.
    fn place(&mut self, index: usize) {
        let entry = &self.entries[index];
        if entry.fate != Fate::Open {
            return;
        }
        let (account, group) = (entry.account, entry.group);
        let is_gang = self.groups[group].wish.nodes > 1;
        if is_gang && self.complete(index) {
            return;
        }
        if let Some(reason) = &self.groups[group].blocked {
            let reason = reason.clone();
            return self.wait(index, reason);
        }
        if let Some(limit) = self.sweep_has_no_place(index) {
            return self.wait(index, WaitingOn::SweepParallel { limit });
        }
        // Where whole estimates are held, what one lacks says nothing of another.
        let short = if self.room.has_finishing() { None } else { self.groups[group].short_before(account) };
        if let Some(no_room) = short.cloned() {
            return self.lack_budget(index, no_room);
        }
        let is_placed =
            if is_gang { self.take_places(index) } else { self.take_place(index) || self.join_launch(index) };
        if !is_placed {
            self.launch(index);
        }
    }

    /// Decides on an experiment, for this plan.
    fn decide(&mut self, index: usize, fate: Fate) {
        let entry = &mut self.entries[index];
        entry.fate = fate;
        let group = &mut self.groups[entry.group];
        group.open -= 1;
        if group.wish.nodes > 1 {
            self.gangs.insert(entry.experiment.id);
        }
    }

    fn wait(&mut self, index: usize, reason: WaitingOn) {
        self.decide(index, Fate::Waits(reason));
    }

    /// A place was found: a trial counts against its sweep's `max_parallel` from now on.
    fn found_place(&mut self, index: usize, fate: Fate) {
        let entry = &self.entries[index];
        // Who moves counts as running already.
        if let Some(sweep) = entry.account.sweep.filter(|_| entry.moving.is_none()) {
            *self.trials.entry(sweep).or_default() += 1;
        }
        self.decide(index, fate);
    }

    /// `max_parallel`, if the sweep of an experiment runs as many without it.
    fn sweep_has_no_place(&self, index: usize) -> Option<u32> {
        let entry = &self.entries[index];
        self.sweep_is_full(entry.account.sweep.filter(|_| entry.moving.is_none()), 0)
    }

    /// `max_parallel`, if the sweep runs as many with `more` on top of what this plan has placed.
    fn sweep_is_full(&self, sweep: Option<SweepId>, more: u32) -> Option<u32> {
        let id = sweep?;
        let found = self.input.fleet.sweeps.get(&id)?;
        let limit = found.max_parallel?;
        let placed = self.trials.get(&id).copied().unwrap_or(0);
        (found.running + placed + more >= limit).then_some(limit)
    }

    /// The experiment waits for budget or, where none will ever come, ends.
    fn lack_budget(&mut self, index: usize, no_room: Arc<NoRoom>) {
        let needed = no_room.needed;
        let experiment = self.entries[index].experiment;
        // Who still runs is not over for want of money for the next attempt.
        let never = self.room.never(&experiment.account, experiment.id, needed);
        let never = never.filter(|_| experiment.state == ExperimentState::Queued);
        if let Some(short) = never.filter(|short| short.key.ends_with_its_work() && short.held == Usd::ZERO) {
            let why = Refusal::Budget { key: short.key, limit: short.limit, spent: short.spent, needed };
            // What has run and cannot go on was stopped, with its checkpoint kept; only what never ran is refused.
            let outcome = match experiment.attempts {
                0 => Outcome::Refused { why },
                _ => Outcome::Stopped { why: StopReason::Budget },
            };
            self.plan.events.push(Event::ExperimentEnded {
                experiment: experiment.id,
                at: self.input.now,
                outcome,
            });
            return self.decide(index, Fate::Placed);
        }
        self.wait(index, WaitingOn::Budget(no_room));
    }

    /// The launches become events, the rest reasons.
    fn finish(self) {
        let Self { plan, launches, entries, input, .. } = self;
        plan.events.reserve(launches.len());
        let together = together(&launches, input.now + input.settings.lease);
        for (launch, together) in launches.into_iter().zip(together) {
            plan.events.push(launch.into_event(input, together));
        }
        plan.waiting.reserve(entries.len());
        for Entry { experiment, fate, .. } in entries {
            match fate {
                Fate::Placed => {}
                Fate::Waits(reason) => {
                    if let WaitingOn::Backoff { until, .. } | WaitingOn::Capacity { until, .. } = &reason {
                        plan.wake(*until);
                    }
                    if experiment.state == ExperimentState::Queued {
                        plan.waiting.push((experiment.id, reason));
                    }
                }
                Fate::Open => unreachable!("placing gives everything a fate"),
            }
        }
    }
}
