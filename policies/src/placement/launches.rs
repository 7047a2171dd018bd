//! New instances: which, for whom, and what is held for them.

use std::{collections::BTreeMap, sync::Arc};

use bursar_ledger::{Short, WorstCase, hold, shares};
use bursar_model::{
    AcceleratorName, Account, Amounts, Backoff, Costs, Event, ExperimentId, Instance, InstanceId,
    InstanceState, InstanceType, Meter, NoRoom, Offering, Price, Remainders, Share, Span, Together, Usd,
    UsdPerHour, WaitingOn,
};
use rustc_hash::FxHashMap;

use super::{Entry, Fate, Placement};
use crate::{
    PlanInput,
    choice::{Choice, Means, Wish},
    funding::{beyond_work, work_to_fund},
    market::Firmness,
};

/// An experiment looks for a part of at most so many launches of each accelerator, the newest first. More would make a
/// plan of n different experiments cost n², and whoever overlooks a part only launches its own.
const LAUNCHES_LOOKED_AT: usize = 8;

/// A launch of this plan.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) id: InstanceId,
    pub(super) offering: &'a Offering,
    price: UsdPerHour,
    ceiling: UsdPerHour,
    pub(super) disk_gib: u32,
    /// How long money is held for it, without the drain at its end: a lease, or the longest work that is to be finished.
    held_for: Span,
    /// Whose nodes it is launched for beside others, where it is for an experiment of several.
    pub(super) gang: Option<ExperimentId>,
    free: Amounts,
    /// Whom it is launched for; the first pays for what is left over.
    pub(super) payers: Vec<Payer<'a>>,
    shares: BTreeMap<ExperimentId, Share>,
}

type Payer<'a> = (ExperimentId, &'a Arc<Account>, Amounts);

/// Launches with room left, by their accelerator.
pub(super) type OpenLaunches<'a> = FxHashMap<Option<&'a AcceleratorName>, Vec<usize>>;

impl Launch<'_> {
    pub(super) fn into_event(self, input: &PlanInput<'_>, together: Option<Arc<Together>>) -> Event {
        let Self { id, offering, price, ceiling, disk_gib, held_for, gang: _, free: _, payers: _, shares } =
            self;
        let (now, lease) = (input.now, input.settings.lease);
        Event::InstanceIntended {
            instance: Box::new(Instance {
                id,
                offering: offering.clone(),
                state: InstanceState::Intended { at: now },
                cloud_id: None,
                disk_gib,
                ceiling,
                price: offering.known_price().unwrap_or_else(|| Price::plain(price)),
                earlier_prices: Vec::new(),
                lease_until: now + lease,
                drain_allowance: input.settings.drain_allowance,
                funded_until: (held_for > lease).then_some(now + held_for),
                shares,
                meter: Meter {
                    from: None,
                    through: now,
                    remainders: Remainders::default(),
                    costs: Costs::default(),
                },
                token_digest: None,
                boot: None,
                address: None,
                idle_since: None,
                notice: None,
                at_risk: None,
                together,
                backoff: Backoff::default(),
            }),
        }
    }

    /// What an experiment would take of it.
    fn fits(&self, wish: &Wish<'_>) -> Option<Amounts> {
        let amounts =
            wish.resources.amounts_on(&self.offering.instance_type).filter(|a| self.free.fits(*a))?;
        let accepted = wish.accepts(Firmness::of(self.offering.capacity_type))
            && wish.can_save_on(self.offering)
            && wish.ceiling.is_none_or(|ceiling| self.ceiling <= ceiling);
        accepted.then_some(amounts)
    }
}

impl<'a> Placement<'a, '_> {
    /// Shares a launch of this plan, if one has room.
    pub(super) fn join_launch(&mut self, index: usize) -> bool {
        if self.open_launches.is_empty() || self.entries[index].suspect {
            return false;
        }
        let Entry { experiment, account, group, .. } = self.entries[index];
        let wish = self.groups[group].wish;
        let wanted = &wish.resources.accelerators;
        let names = wanted.iter().map(|accelerator| Some(&accelerator.name));
        let none = wanted.is_empty().then_some(None);
        let open = &self.open_launches;
        // What is nearly full is most of what is looked at: told by numbers, without comparing names.
        let least = Amounts {
            accelerators: wanted.iter().map(|accelerator| accelerator.count).min().unwrap_or(0),
            cpus_milli: wish.resources.cpus_milli,
            memory_mib: wish.resources.memory_mib,
        };
        let found = names.chain(none).find_map(|name| {
            let newest = open.get(&name)?.iter().rev().take(LAUNCHES_LOOKED_AT);
            let mut roomy = newest.copied().filter(|at| self.launches[*at].free.fits(least));
            roomy.find_map(|at| Some((at, self.launches[at].fits(&wish)?)))
        });
        let Some((at, amounts)) = found else { return false };

        let means = self.means(index);
        let launch = &mut self.launches[at];
        let held_for = launch.held_for.max(means.held_for(wish.speed(&launch.offering.instance_type)));
        let disk_gib = launch.disk_gib.max(wish.resources.disk_gib);
        let allowance = self.input.settings.drain_allowance;
        let worst = WorstCase::of(launch.offering, disk_gib, launch.ceiling, allowance);
        launch.payers.push((experiment.id, account, amounts));
        let after = held_shares(launch.offering, worst.cost_of_launch(held_for + allowance), &launch.payers);
        if self.room.exchange(&launch.shares, &after).is_err() {
            launch.payers.pop();
            return false;
        }
        launch.shares = after;
        launch.held_for = held_for;
        launch.free = launch.free.minus(amounts);
        launch.disk_gib = disk_gib;
        let instance = launch.id;
        let kind = &launch.offering.instance_type;
        if !can_be_shared(kind, launch.free) {
            let key = kind.accelerators.as_ref().map(|has| &has.name);
            if let Some(open) = self.open_launches.get_mut(&key) {
                open.retain(|other| *other != at);
            }
        }
        self.found_place(index, Fate::Waits(WaitingOn::Instance { instance }));
        true
    }

    /// What an experiment can hold, and for how long it has to.
    pub(super) fn means(&self, index: usize) -> Means {
        let Entry { experiment, account, .. } = self.entries[index];
        Means {
            left: self.room.left(account, experiment.id),
            lease: self.input.settings.lease,
            work: work_to_fund(self.input, self.room, experiment),
            beyond_work: beyond_work(self.input, self.input.fleet.spec(experiment)),
        }
    }

    /// Launches an instance for an experiment and those that want the same, or says why not.
    pub(super) fn launch(&mut self, index: usize) {
        let Entry { experiment, account, suspect, group, .. } = self.entries[index];
        let wish = self.groups[group].wish;
        let limit = self.input.settings.max_instances;
        if self.instances.saturating_add(wish.nodes) > limit {
            let reason = match self.view.choose(&wish, 1, Means::ANY) {
                Some(_) => WaitingOn::InstanceLimit { limit },
                None => self.view.why_none(&wish),
            };
            return self.block(index, reason);
        }
        let means = self.means(index);
        let may_share = !suspect && wish.nodes == 1;
        if may_share && self.launch_together(index, means) || self.launch_alone(index, means) {
            return;
        }
        if self.view.choose(&wish, 1, Means::ANY).is_none() {
            return self.block(index, self.view.why_none(&wish));
        }
        let least = self.view.least_hold(&wish, means).expect("a choice has a hold");
        match self.room.short(account, experiment.id, least) {
            Some(short) => self.short_of_budget(index, short, least),
            // What it could pay for was refused lately.
            None => self.wait(index, self.view.why_none(&wish)),
        }
    }

    /// Launches what is best given how many wait for the same. False when that cannot be held.
    fn launch_together(&mut self, index: usize, means: Means) -> bool {
        let group = self.entries[index].group;
        let Some(mut choice) = self.choose_for_group(group, means) else { return false };
        let planned = choice.places.min(self.groups[group].open);
        let mut sharing = self.mates(index, planned);
        // One fewer each time, so there are no more rounds than places.
        loop {
            if sharing.len() < planned as usize {
                let mates = u32::try_from(sharing.len()).unwrap_or(u32::MAX);
                let Some(smaller) = self.view.choose(&self.groups[group].wish, mates, means) else {
                    return false;
                };
                choice = smaller;
                sharing.truncate(choice.places as usize);
            }
            match self.launch_for(&sharing, &choice, choice.nodes) {
                Ok(()) => return true,
                Err((payer, short)) => {
                    let own = &self.entries[index].experiment;
                    if payer == own.id || own.account.budgets(own.id).any(|key| key == short.key) {
                        // The first pays for what nobody uses: with fewer, the same budget would hold as much.
                        return false;
                    }
                    sharing.retain(|member| self.entries[*member].experiment.id != payer);
                }
            }
        }
    }

    /// Launches what can be held for this experiment alone. Others may join it all the same.
    fn launch_alone(&mut self, index: usize, means: Means) -> bool {
        let choice = self.view.choose(&self.groups[self.entries[index].group].wish, 1, means);
        choice.is_some_and(|choice| self.launch_for(&[index], &choice, choice.nodes).is_ok())
    }

    /// The best offering for the group's first, given how many wait with it.
    fn choose_for_group(&mut self, group: usize, means: Means) -> Option<Choice> {
        let found = &mut self.groups[group];
        let mates = found.open;
        if let Some(choice) = found.choice
            && choice.places <= mates
            && self.view.can_be_held(&choice, mates, means)
            && self.view.is_open(self.view.market.offering(choice.offering), choice.nodes)
        {
            return Some(choice);
        }
        let choice = self.view.choose(&found.wish, mates, means)?;
        // What others can hold may be more: only a choice that money did not bend is kept for them.
        found.choice = Some(choice).filter(|choice| !choice.constrained);
        Some(choice)
    }

    /// Launches this for these experiments of one group, so many times, if their budgets allow all of it; else says whose
    /// do not.
    pub(super) fn launch_for(
        &mut self,
        sharing: &[usize],
        choice: &Choice,
        count: u32,
    ) -> Result<(), (ExperimentId, Short)> {
        let offering: &'a Offering = self.view.market.offering(choice.offering);
        let payer = |member: &usize| {
            let Entry { experiment, account, .. } = self.entries[*member];
            (experiment.id, account, choice.amounts)
        };
        let payers: Vec<Payer<'a>> = sharing.iter().map(payer).collect();
        let longest = sharing.iter().map(|member| self.means(*member).held_for(choice.speed)).max();
        let held_for = longest.unwrap_or(self.input.settings.lease);
        let whole =
            self.view.worst_case(choice).cost_of_launch(held_for + self.input.settings.drain_allowance);
        let shares = held_shares(offering, whole, &payers);
        let nothing = BTreeMap::new();
        for taken in 0..count {
            if let Err(short) = self.room.exchange(&nothing, &shares) {
                (0..taken).for_each(|_| self.room.revert(&nothing, &shares));
                return Err(short);
            }
        }
        let kind = &offering.instance_type;
        let free = payers.iter().fold(kind.amounts(), |free, (_, _, amounts)| free.minus(*amounts));
        let alone = sharing.iter().any(|member| self.entries[*member].suspect);
        let is_open = !alone && can_be_shared(kind, free);
        let Choice { price, ceiling, disk_gib, .. } = *choice;
        let first = self.launches.len();
        for (payers, shares) in std::iter::repeat_n((payers, shares), count as usize) {
            if is_open {
                let key = kind.accelerators.as_ref().map(|has| &has.name);
                self.open_launches.entry(key).or_default().push(self.launches.len());
            }
            let id = self.ids.instance(self.input.now);
            self.launches.push(Launch {
                id,
                offering,
                price,
                ceiling,
                disk_gib,
                held_for,
                gang: payers.first().map(|(payer, ..)| *payer).filter(|_| count > 1),
                free,
                payers,
                shares,
            });
        }
        self.view.take(offering, count);
        let instance = self.launches[first].id;
        for member in sharing {
            self.found_place(*member, Fate::Waits(WaitingOn::Instance { instance }));
        }
        self.instances += count;
        Ok(())
    }

    /// The experiment and the next of its group, at most so many in all, as far as their sweeps let them run.
    fn mates(&mut self, index: usize, places: u32) -> Vec<usize> {
        let group = self.entries[index].group;
        let mut mates = vec![index];
        let mut trials: FxHashMap<_, u32> = FxHashMap::default();
        if let Some(sweep) = self.entries[index].account.sweep {
            trials.insert(sweep, 1);
        }
        // Those at the front that are decided on are not looked at again.
        let mut member = self.groups[group].first;
        while let Some(at) = member
            && self.entries[at].fate != Fate::Open
        {
            member = self.entries[at].next;
        }
        self.groups[group].first = member;
        while let Some(at) = member
            && mates.len() < places as usize
        {
            let Entry { account, suspect, next, ref fate, .. } = self.entries[at];
            member = next;
            if at == index || *fate != Fate::Open || suspect {
                continue;
            }
            if let Some(sweep) = account.sweep {
                let more = trials.entry(sweep).or_default();
                if self.sweep_is_full(Some(sweep), *more).is_some() {
                    // Full without those that were just found: so it stays for this plan.
                    if let Some(limit) = self.sweep_is_full(Some(sweep), 0) {
                        self.wait(at, WaitingOn::SweepParallel { limit });
                    }
                    continue;
                }
                *more += 1;
            }
            mates.push(at);
        }
        mates
    }

    /// A reason that holds for the whole group.
    fn block(&mut self, index: usize, reason: WaitingOn) {
        let group = self.entries[index].group;
        self.groups[group].blocked = Some(reason.clone());
        self.wait(index, reason);
    }

    /// No budget pays for a launch: for this experiment, and for those of the group under the same budget.
    fn short_of_budget(&mut self, index: usize, short: Short, needed: Usd) {
        let Short { key, limit, spent, held, kept } = short;
        let no_room = Arc::new(NoRoom { key: key.clone(), limit, spent, held, kept, needed });
        let group = self.entries[index].group;
        self.groups[group].short.insert(key, no_room.clone());
        self.lack_budget(index, no_room);
    }
}

fn held_shares(offering: &Offering, whole: Usd, payers: &[Payer<'_>]) -> BTreeMap<ExperimentId, Share> {
    let mut shares = shares::at_launch(&offering.instance_type, payers);
    hold::fill(whole, &offering.instance_type, &mut shares);
    shares
}

/// Whether anything that wants this kind of machine could use what is left.
fn can_be_shared(kind: &InstanceType, free: Amounts) -> bool {
    free.cpus_milli > 0 && free.memory_mib > 0 && (free.accelerators > 0 || kind.accelerators.is_none())
}
