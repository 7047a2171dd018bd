//! Free places on the instances that there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bursar_ledger::{Metered, WorstCase, hold, shares};
use bursar_model::{
    Amounts, Attempt, AttemptState, Event, Experiment, ExperimentId, Instance, InstanceId, InstanceState,
    Node, Paid, Share, Timestamp, WaitingOn,
};
use rustc_hash::FxHashMap;

use super::{Entry, Fate, Placement};
use crate::{
    PlanInput,
    choice::{Means, Wish},
    funding::funded_until,
    lifecycle::{self, Lifecycle},
    market::Firmness,
};

/// An instance that takes work, now or soon.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) instance: &'a Instance,
    /// Its agent takes work now. Otherwise whoever gets a place here waits for it.
    pub(super) ready: bool,
    free: Amounts,
    pub(super) live: Vec<&'a Attempt>,
    /// One that may be the end of instances is on it, or will be, or one waits for it: nobody is put beside it.
    guarded: bool,
    /// Somebody gets a part of it by this plan, now or once it is there.
    pub(super) is_taken: bool,
    /// Who pays for it from now on, where this plan has renewed its lease: nobody who uses nothing of it beside others.
    renewed_for: Option<BTreeSet<ExperimentId>>,
    /// The instance as this plan leaves it and what the plan assigns to it, once it assigns anything.
    changed: Option<(Instance, Vec<Attempt>)>,
}

/// What an attempt's part on an instance is paid with, entered in the plan's room.
struct Payment {
    /// The instance with the shares of before.
    working: Instance,
    /// What this plan has assigned to it so far.
    assigned: Vec<Attempt>,
    /// What was charged before the shares change.
    charged: Option<Metered>,
    /// The shares from now on.
    after: BTreeMap<ExperimentId, Share>,
    /// Until when money was held before.
    funded_before: Option<Timestamp>,
}

/// The instances that take work.
pub(super) fn places<'a>(
    input: &PlanInput<'a>,
    lifecycle: &Lifecycle<'a>,
    planned: &[Event],
) -> Vec<Place<'a>> {
    let mut renewed: FxHashMap<InstanceId, BTreeSet<ExperimentId>> = FxHashMap::default();
    for event in planned {
        if let Event::LeaseExtended { instance, shares, .. } = event {
            renewed.insert(*instance, shares.keys().copied().collect());
        }
    }
    let mut places = Vec::new();
    for instance in input.fleet.instances.values() {
        let ready = match instance.state {
            InstanceState::Intended { .. } | InstanceState::Booting { .. } => false,
            InstanceState::Ready { .. } => {
                !lifecycle.settled.contains(&instance.id) && !lifecycle::is_quiet(input, instance)
            }
            InstanceState::Draining { .. }
            | InstanceState::Terminating { .. }
            | InstanceState::Gone { .. } => {
                continue;
            }
        };
        if lifecycle.leaving.contains(&instance.id) {
            continue;
        }
        let live: &[&Attempt] = lifecycle.attempts.get(&instance.id).map_or(&[], Vec::as_slice);
        let all = instance.offering.instance_type.amounts();
        let free = live.iter().fold(all, |free, attempt| free.minus(attempt.amounts));
        if free != Amounts::default() {
            let suspect = |id: &ExperimentId| input.fleet.experiments.get(id).is_some_and(is_suspect);
            let guarded = live.iter().any(|attempt| suspect(&attempt.experiment));
            places.push(Place {
                instance,
                ready,
                free,
                live: live.to_vec(),
                guarded,
                renewed_for: renewed.remove(&instance.id),
                is_taken: false,
                changed: None,
            });
        }
    }
    places
}

/// Whether an experiment lost its last instance in a way that it may have caused. It gets instances of its own until it
/// has saved something or ended.
pub(super) fn is_suspect(experiment: &Experiment) -> bool {
    experiment.losses > 0
}

impl Place<'_> {
    /// Whether an experiment pays for a part of it, and goes on to: nobody has taken that over in this plan.
    pub(super) fn is_home_of(&self, experiment: ExperimentId) -> bool {
        let now = self.changed.as_ref().map_or(self.instance, |(working, _)| working);
        now.shares.contains_key(&experiment)
            && self.renewed_for.as_ref().is_none_or(|payers| payers.contains(&experiment))
    }

    /// Whether this experiment may be beside those who are here.
    pub(super) fn may_have(&self, experiment: &Experiment) -> bool {
        !self.guarded && (!is_suspect(experiment) || self.live.is_empty() && self.changed.is_none())
    }

    /// What an experiment would take here, if its wishes allow it and there is room.
    pub(super) fn fits(&self, wish: &Wish<'_>) -> Option<Amounts> {
        let kind = &self.instance.offering.instance_type;
        let amounts = wish.resources.amounts_on(kind).filter(|amounts| self.free.fits(*amounts))?;
        let accepted = wish.accepts(Firmness::of(self.instance.offering.capacity_type))
            && wish.can_save_on(&self.instance.offering)
            && self.instance.disk_gib >= wish.resources.disk_gib
            // The instance's own ceiling is what it may come to cost while the experiment runs.
            && wish.ceiling.is_none_or(|ceiling| self.instance.ceiling.max(self.instance.price.effective) <= ceiling);
        accepted.then_some(amounts)
    }
}

impl<'a> Placement<'a, '_> {
    /// Sends everything that pays for a part of an instance that nobody uses to that instance.
    pub(super) fn send_home(&mut self) {
        let mut homes: FxHashMap<ExperimentId, Vec<usize>> = FxHashMap::default();
        // What can take work now first.
        for ready in [true, false] {
            for (at, place) in self.places.iter().enumerate().filter(|(_, place)| place.ready == ready) {
                for payer in place.instance.shares.keys().filter(|payer| place.is_home_of(**payer)) {
                    homes.entry(*payer).or_default().push(at);
                }
            }
        }
        if homes.is_empty() {
            return;
        }
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let (experiment, group) = (entry.experiment, entry.group);
            let Some(own) = homes.get(&experiment.id).filter(|_| entry.fate == Fate::Open) else { continue };
            if self.sweep_has_no_place(index).is_some() {
                continue;
            }
            // Where it was launched without a hurry, or for want of anything firm, it is at home all the same.
            let wish = self.groups[group].wish.at_leisure();
            if wish.nodes > 1 {
                self.gather(index, own);
                continue;
            }
            for at in own {
                if let Some(amounts) = self.places[*at].fits(&wish)
                    && self.occupy(index, &[*at], amounts, true)
                {
                    break;
                }
            }
        }
    }

    /// Finds a free place, if there is one.
    pub(super) fn take_place(&mut self, index: usize) -> bool {
        if self.places.is_empty() {
            return false;
        }
        let group = self.entries[index].group;
        let wish = self.groups[group].wish;
        let mut candidates = match self.groups[group].places.take() {
            Some(candidates) => candidates,
            None => self.by_fit(&wish),
        };
        // What is full stays full for this plan and all of the group.
        while let Some(first) = candidates.front()
            && self.places[*first].fits(&wish).is_none()
        {
            candidates.pop_front();
        }
        let taken = candidates.iter().any(|at| {
            let fitting = self.places[*at].fits(&wish);
            fitting.is_some_and(|amounts| self.occupy(index, &[*at], amounts, false))
        });
        self.groups[group].places = Some(candidates);
        taken
    }

    /// The places that would do, the best fit first: what takes work now, then what leaves the least over.
    pub(super) fn by_fit(&self, wish: &Wish<'_>) -> VecDeque<usize> {
        let mut fitting: Vec<usize> =
            (0..self.places.len()).filter(|at| self.places[*at].fits(wish).is_some()).collect();
        if fitting.is_empty() {
            return VecDeque::new();
        }
        if !self.may_use_accelerators(wish) {
            fitting.retain(|at| self.places[*at].instance.offering.instance_type.accelerators.is_none());
        }
        fitting.sort_by_key(|at| {
            let Place { instance, ready, free, .. } = &self.places[*at];
            (!ready, free.accelerators, free.cpus_milli, free.memory_mib, instance.id)
        });
        fitting.into()
    }

    /// Whether machines with accelerators are open to these wishes. An experiment without accelerators is not put
    /// beside others onto such a machine where the market has cheaper ones: once the others are done, it would keep
    /// the dear machine alive, and pay for it.
    pub(super) fn may_use_accelerators(&self, wish: &Wish<'_>) -> bool {
        if !wish.resources.accelerators.is_empty() {
            return true;
        }
        let launched = self.view.choose(wish, 1, Means::ANY);
        launched.is_none_or(|choice| {
            self.view.market.offering(choice.offering).instance_type.accelerators.is_some()
        })
    }

    /// Takes a place for each node. False when no budget pays for all of them; then none is taken.
    pub(super) fn occupy(
        &mut self,
        index: usize,
        ats: &[usize],
        amounts: Amounts,
        pays_already: bool,
    ) -> bool {
        let Entry { experiment, moving, .. } = self.entries[index];
        if !ats.iter().all(|at| self.places[*at].may_have(experiment)) {
            return false;
        }
        let on_its_way = ats.iter().find(|at| !self.places[**at].ready);
        // Who still saves elsewhere gets its next attempt when that is over.
        let waits_for = on_its_way.or_else(|| ats.first().filter(|_| moving.is_some()));
        match waits_for {
            None => {
                if !self.assign(experiment, ats, amounts, pays_already) {
                    return false;
                }
                self.found_place(index, Fate::Placed);
            }
            Some(at) => {
                if !pays_already && !self.put_by(experiment, *at, amounts) {
                    return false;
                }
                let instance = self.places[*at].instance.id;
                self.found_place(index, Fate::Waits(WaitingOn::Instance { instance }));
            }
        }
        self.fill(ats, experiment, amounts, waits_for.is_some());
        true
    }

    /// These places are taken, for this plan. Where who takes them has to wait, nobody else is put there: what uses nothing
    /// yet has its part taken over by whoever does, and would have to launch another.
    pub(super) fn fill(&mut self, ats: &[usize], experiment: &Experiment, amounts: Amounts, waits: bool) {
        for at in ats {
            let place = &mut self.places[*at];
            place.free = place.free.minus(amounts);
            place.guarded |= is_suspect(experiment) || waits && place.ready;
            place.is_taken = true;
        }
    }

    /// Keeps room for what an experiment will have to hold once an instance on its way is there.
    fn put_by(&mut self, experiment: &Experiment, at: usize, amounts: Amounts) -> bool {
        let instance = self.places[at].instance;
        let kind = &instance.offering.instance_type;
        let whole = WorstCase::of_instance(instance)
            .cost(instance.outstanding(instance.meter.through, instance.held_until()));
        let part = hold::part_of(whole, kind.weight_of(amounts), instance.total_weight());
        // Not held to what is kept for renewals, as little as an assignment is: a launch of this plan has a renewal in the
        // next one, and would send away whoever was to join another.
        if !self.room.has(&experiment.account, experiment.id, part) {
            return false;
        }
        self.room.take(&experiment.account, experiment.id, part);
        true
    }

    /// Gives an experiment to instances that take work now, one for each node. False when its budgets do not pay for all.
    fn assign(
        &mut self,
        experiment: &'a Experiment,
        ats: &[usize],
        amounts: Amounts,
        pays_already: bool,
    ) -> bool {
        let mut payments = Vec::with_capacity(ats.len());
        for at in ats {
            let Some(payment) = self.pay(experiment, *at, amounts, pays_already) else {
                for (at, payment) in ats.iter().zip(payments) {
                    self.take_back(*at, payment);
                }
                return false;
            };
            payments.push(payment);
        }
        let mut nodes = Vec::with_capacity(ats.len());
        let mut paid = BTreeMap::new();
        for (at, payment) in ats.iter().zip(&mut payments) {
            let Payment { working, assigned, charged, after, funded_before: _ } = payment;
            self.plan.events.extend(charged.take().into_iter().flat_map(Metered::into_events));
            let live = self.places[*at].live.iter().copied();
            let devices = lowest_free(working.id, live.chain(&*assigned), amounts.accelerators);
            nodes.push(Node::new(working.id, devices));
            paid.insert(working.id, Paid { shares: after.clone(), funded_until: working.funded_until });
        }
        let attempt = Attempt {
            id: self.ids.attempt(self.input.now),
            experiment: experiment.id,
            number: experiment.attempts + 1,
            nodes,
            amounts,
            assigned_at: self.input.now,
            state: AttemptState::Assigned,
            started_at: None,
            checkpoint_at: None,
            ran_with: None,
            idle_gpu: None,
        };
        self.plan.events.push(Event::AttemptAssigned { attempt: attempt.clone(), paid });
        for (at, payment) in ats.iter().zip(payments) {
            let Payment { mut working, mut assigned, charged: _, after, funded_before: _ } = payment;
            working.shares = after;
            assigned.push(attempt.clone());
            self.places[*at].changed = Some((working, assigned));
        }
        true
    }

    /// Pays for a node on an instance, if the budgets can. Whoever paid until now is charged first, once a plan.
    fn pay(
        &mut self,
        experiment: &'a Experiment,
        at: usize,
        amounts: Amounts,
        pays_already: bool,
    ) -> Option<Payment> {
        let place = &mut self.places[at];
        let (mut working, assigned, charged) = match place.changed.take() {
            Some((working, assigned)) => (working, assigned, None),
            None => {
                let charged = lifecycle::charge(self.input, self.room, place.instance, &place.live);
                let mut working = place.instance.clone();
                if let Some(metered) = &charged {
                    lifecycle::enter(self.room, place.instance, metered);
                    working.meter = metered.meter().clone();
                }
                working.shares = lifecycle::shares_after(place.instance, charged.as_ref());
                (working, Vec::new(), charged)
            }
        };
        let live = place.live.iter().copied().chain(&assigned);
        let after = shares::at_assignment(&working, live, experiment.id, &experiment.account, amounts);
        let funded_until = funded_until(self.input, self.room, &working, Some(experiment));
        let funded_before = std::mem::replace(&mut working.funded_until, funded_until);
        let outstanding = working.outstanding(working.meter.through, working.held_until());
        let after = hold::with_holds(&working, after, outstanding);
        // Who joins late in a lease and could not pay for the next would be told to stop as soon as it began.
        let mut at_renewal = after.clone();
        let lease = self.input.settings.lease;
        let lands_after = lifecycle::landing_time(self.input.fleet.spec(experiment)) + lease.divided_by(3);
        let is_late = working.lease_until.since(self.input.now) < lands_after;
        if let Some(own) = at_renewal.get_mut(&experiment.id).filter(|_| is_late && !pays_already) {
            let lease = lease + working.drain_allowance;
            let whole = WorstCase::of_instance(&working).cost(lease);
            own.held = own.held.max(hold::part_of(whole, own.weight, working.total_weight()));
        }
        let is_paid = self.room.exchange(&working.shares, &at_renewal).is_ok();
        if is_paid {
            self.room.revert(&working.shares, &at_renewal);
        }
        let is_paid = is_paid && self.room.exchange(&working.shares, &after).is_ok();
        let payment = Payment { working, assigned, charged, after, funded_before };
        if !is_paid {
            self.forget(at, payment);
            return None;
        }
        Some(payment)
    }

    /// Takes a payment back that is not needed, as other nodes could not be paid for.
    fn take_back(&mut self, at: usize, payment: Payment) {
        self.room.revert(&payment.working.shares, &payment.after);
        self.forget(at, payment);
    }

    /// What was charged only for a payment is not charged after all.
    fn forget(&mut self, at: usize, payment: Payment) {
        let Payment { mut working, assigned, charged, after: _, funded_before } = payment;
        match charged {
            Some(metered) => lifecycle::leave_out(self.room, self.places[at].instance, &metered),
            None if !assigned.is_empty() => {
                working.funded_until = funded_before;
                self.places[at].changed = Some((working, assigned));
            }
            None => {}
        }
    }
}

/// The lowest numbers of accelerators of an instance that no attempt has.
fn lowest_free<'a>(
    instance: InstanceId,
    live: impl Iterator<Item = &'a Attempt> + Clone,
    count: u32,
) -> Vec<u32> {
    let used = |device: &u32| {
        let mut nodes = live.clone().filter_map(|attempt| attempt.node_on(instance));
        nodes.any(|(_, node)| node.devices.contains(device))
    };
    (0..).filter(|device| !used(device)).take(count as usize).collect()
}
