//! The simulated cloud: sells, boots, bills, takes back and ends machines, and answers as clouds do, late and not always.
//!
//! What goes wrong with a single call is scripted in front of it (`bursar_providers::faulty`); what goes wrong with the
//! cloud itself is here: a provider is down or asks for patience, is sold out or has a quota, its listings lag, its
//! machines do not boot, hang, or are taken back. It bills by its own clock, prices and rules, so that its bill can judge
//! the books.

#[cfg(test)]
mod conformance;
mod provider;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bursar_daemon::rules::Pricing;
use bursar_model::{
    Clock, CloudInstance, Discount, InstanceId, InvariantId, Offering, OfferingKey, Period, ProviderName,
    Scope, Span, Terms, Timestamp, Usd, UsdPerHour,
};
use bursar_providers::{EffectMay, ErrorKind, LaunchRequest, ProviderError};

pub use self::provider::SimProvider;
use self::record::Record;
use crate::{
    agent::{Agent, Machine},
    chance::Chance,
    clock::SimClock,
    ground::Ground,
    market::{Prices, SimCapacity, SimOffering},
    series::Series,
};

/// A call takes up to so long to arrive, and its reply as long again.
const LATENCY_MAX: Span = Span::from_millis(400);

/// From the launch until the agent runs.
const BOOT: (Span, Span) = (Span::from_secs(20), Span::from_secs(90));

/// From the order to end until the cloud has the machine back.
pub(crate) const SHUTDOWN: (Span, Span) = (Span::from_secs(1), Span::from_secs(20));

/// A new machine is missing from the listing for up to so long, and an ended one is shown as it was for as long again:
/// less than the daemon allows for.
const LISTING_LAG_MAX: Span = Span::from_secs(30);

/// While a provider asks for patience, so many calls of a thousand are refused.
const THROTTLED_PER_MILLE: u32 = 700;

/// The cloud and the books each round every period of a price down, at other moments.
pub(crate) const ROUNDING: Usd = Usd::from_nanos(1_000);

/// From the first moment to the last.
pub(crate) const EVER: Period =
    Period { from: Timestamp::from_millis(i64::MIN), to: Timestamp::from_millis(i64::MAX) };

/// The cloud, of any number of providers. Copies are the same cloud.
#[derive(Debug, Clone)]
pub struct SimCloud {
    clock: SimClock,
    ground: Ground,
    state: Arc<Mutex<State>>,
}

/// What goes wrong with machines of itself, and how many may be had.
#[derive(Debug, Clone, Default)]
pub struct Troubles {
    /// So many of a thousand machines end while they boot.
    pub boot_failures_per_mille: u32,
    /// So many of a thousand machines never come up: they run, cost, and do nothing, not even turn themselves off.
    pub boot_hangs_per_mille: u32,
    /// How many accelerators may run at once in a part of the market, in all its machines together.
    pub quotas: Vec<(Scope, u32)>,
    /// Providers of which one call asks for all launches that are alike.
    pub together: BTreeSet<ProviderName>,
}

#[derive(Debug)]
struct State {
    terms: BTreeMap<ProviderName, Terms>,
    discounts: Vec<Discount>,
    stalls: BTreeMap<OfferingKey, Stall>,
    records: BTreeMap<InstanceId, Record>,
    /// Those that listings may still show. A long replay has many more that are history.
    recent: BTreeSet<InstanceId>,
    troubles: Troubles,
    chance: Chance,
    down_until: BTreeMap<ProviderName, Timestamp>,
    throttled_until: BTreeMap<ProviderName, Timestamp>,
}

#[derive(Debug)]
struct Stall {
    sells: SimOffering,
    prices: Prices,
    sold_out_until: Option<Timestamp>,
}

/// What the cloud wants for some time of a machine.
#[derive(Debug, Clone, Copy)]
struct Bill {
    amount: Usd,
    /// By how much the books may differ either way.
    doubt: Usd,
    /// What they come to at least and at most.
    least: Usd,
    most: Usd,
}

/// How a machine stands, as it sees itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) over: bool,
    /// Nothing on it acts any more.
    pub(crate) hung: bool,
    /// Its agent is killed.
    pub(crate) agent_killed: bool,
    /// When it will be taken back, once it was told.
    pub(crate) taken_at: Option<Timestamp>,
    pub(crate) next_change: Option<Timestamp>,
}

impl SimCloud {
    pub(crate) fn new(
        pricing: Pricing,
        sells: Vec<SimOffering>,
        troubles: Troubles,
        clock: SimClock,
        ground: Ground,
        chance: &Chance,
    ) -> Self {
        let now = clock.now();
        let replayed: Vec<_> = sells
            .iter()
            .filter_map(|sells| match &sells.capacity {
                SimCapacity::Steady(_) => None,
                SimCapacity::Replay { counts, notice } => {
                    Some((sells.offering.key(), counts.clone(), *notice))
                }
            })
            .collect();
        let stalls = (0..).zip(sells).map(|(number, sells)| {
            let prices = Prices::new(&sells, now, chance.child(number));
            (sells.offering.key(), Stall { sells, prices, sold_out_until: None })
        });
        let Pricing { terms, discounts } = pricing;
        let state = State {
            terms,
            discounts,
            stalls: stalls.collect(),
            records: BTreeMap::new(),
            recent: BTreeSet::new(),
            troubles,
            chance: chance.child(u64::MAX),
            down_until: BTreeMap::new(),
            throttled_until: BTreeMap::new(),
        };
        let cloud = Self { clock, ground, state: Arc::new(Mutex::new(state)) };
        for (key, counts, notice) in replayed {
            tokio::spawn(cloud.clone().follow(key, counts, notice));
        }
        cloud
    }

    /// Takes machines back as a replayed capacity falls, for as long as it changes.
    async fn follow(self, key: OfferingKey, counts: Arc<Series<u32>>, notice: Option<Span>) {
        let mut done_until = self.clock.now();
        while let Some((at, count)) = counts.next(done_until) {
            tokio::time::sleep_until(self.clock.instant(at - notice.unwrap_or_default())).await;
            self.shrink(&key, count, at, notice.is_some());
            tokio::time::sleep_until(self.clock.instant(at)).await;
            // What was launched between the notice and the end.
            self.shrink(&key, count, at, false);
            done_until = at;
        }
    }

    /// From `at` on no more than `count` machines of an offering run: the youngest go.
    fn shrink(&self, key: &OfferingKey, count: u32, at: Timestamp, told: bool) {
        let now = self.clock.now();
        let mut state = self.state();
        let runs_on = |record: &Record| {
            record.sold_as == *key && !record.stray && record.end.is_none_or(|(end, _)| end > at)
        };
        let running = state.recent().filter(|(_, record)| runs_on(record));
        let mut running: Vec<(Timestamp, InstanceId)> =
            running.map(|(id, record)| (record.launched_at, *id)).collect();
        running.sort_unstable();
        for (_, id) in running.into_iter().skip(count as usize) {
            if let Some(record) = state.records.get_mut(&id) {
                record.take_back(now, at, told);
            }
        }
    }

    /// One of its providers as an installation reaches it.
    #[must_use]
    pub fn provider(&self, name: &ProviderName, installation: &str) -> SimProvider {
        SimProvider::new(self.clone(), name.clone(), installation)
    }

    /// A provider answers nothing until then.
    pub fn go_down(&self, provider: &ProviderName, until: Timestamp) {
        self.state().down_until.insert(provider.clone(), until);
    }

    /// A provider refuses most calls until then, because there are too many.
    pub fn throttle(&self, provider: &ProviderName, until: Timestamp) {
        self.state().throttled_until.insert(provider.clone(), until);
    }

    /// What is covered cannot be had until then.
    pub fn sell_out(&self, scope: &Scope, until: Timestamp) {
        for stall in self.state().stalls.values_mut().filter(|stall| scope.covers(&stall.sells.offering)) {
            stall.sold_out_until = Some(until);
        }
    }

    pub(crate) fn launches_together(&self, provider: &ProviderName) -> bool {
        self.state().troubles.together.contains(provider)
    }

    /// From now on this goes wrong with machines, and so many may be had.
    pub fn set_troubles(&self, troubles: Troubles) {
        self.state().troubles = troubles;
    }

    /// From now on what is covered costs this, and its price moves no more.
    pub fn set_price(&self, scope: &Scope, price: UsdPerHour) {
        let now = self.clock.now();
        for stall in self.state().stalls.values_mut().filter(|stall| scope.covers(&stall.sells.offering)) {
            stall.prices.set(now, price);
        }
    }

    /// Takes a machine back, with so much notice.
    pub fn interrupt(&self, instance: InstanceId, notice: Option<Span>) {
        let now = self.clock.now();
        if let Some(record) = self.state().records.get_mut(&instance) {
            record.take_back(now, now + notice.unwrap_or_default(), notice.is_some());
        }
    }

    /// Somebody ends a machine by hand, at the cloud's console.
    pub fn end_by_hand(&self, instance: InstanceId) {
        self.end(instance);
    }

    /// A machine hangs: its work stops, and it neither answers nor turns itself off.
    pub fn hang(&self, instance: InstanceId) {
        let now = self.clock.now();
        if let Some(record) = self.state().records.get_mut(&instance) {
            record.hung_since.get_or_insert(now);
            record.changed.notify_one();
        }
    }

    /// The agent of a machine dies, and the machine turns itself off.
    pub fn kill_agent(&self, instance: InstanceId) {
        if let Some(record) = self.state().records.get_mut(&instance) {
            record.agent_killed = true;
            record.changed.notify_one();
        }
    }

    /// A machine with our tag that nobody asked for, such as a restored backup brings.
    pub fn add_stray(&self, instance: InstanceId, installation: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(sold_as) = state.stalls.keys().next().cloned() else { return };
        let stray =
            Record { stray: true, installation: installation.to_owned(), ..Record::new(sold_as, now) };
        state.records.insert(instance, stray);
        state.recent.insert(instance);
    }

    /// The machines that are not over, strays apart.
    #[must_use]
    pub fn running(&self) -> Vec<InstanceId> {
        let now = self.clock.now();
        let state = self.state();
        let running = state.recent().filter(|(_, record)| !record.is_over(now) && !record.stray);
        running.map(|(id, _)| *id).collect()
    }

    /// Strays with the tag of this installation that are not over.
    pub(crate) fn strays_of(&self, installation: &str) -> Vec<InstanceId> {
        let now = self.clock.now();
        let state = self.state();
        let strays = state.records.iter().filter(|(_, record)| record.stray && !record.is_over(now));
        strays.filter(|(_, record)| record.installation == installation).map(|(id, _)| *id).collect()
    }

    /// Machines of others than this installation that were told to end.
    pub(crate) fn ended_of_others(&self, installation: &str) -> Vec<InstanceId> {
        let state = self.state();
        let told = state.records.iter().filter(|(_, record)| record.told_to_end.is_some());
        told.filter(|(_, record)| record.installation != installation).map(|(id, _)| *id).collect()
    }

    /// Whether a machine hangs or hung before its end: it costs until somebody else ends it, so that its lease bounds
    /// nothing.
    #[must_use]
    pub fn is_hung(&self, instance: InstanceId) -> bool {
        let now = self.clock.now();
        self.state().records.get(&instance).is_some_and(|record| record.is_hung(now))
    }

    /// When a machine was over, if it is.
    #[must_use]
    pub fn ended(&self, instance: InstanceId) -> Option<Timestamp> {
        let now = self.clock.now();
        let state = self.state();
        state.records.get(&instance)?.end.map(|(at, _)| at).filter(|at| *at <= now)
    }

    /// The time for which a machine that is over was billed.
    pub(crate) fn billed(&self, instance: InstanceId) -> Option<Period> {
        let now = self.clock.now();
        let state = self.state();
        let record = state.records.get(&instance).filter(|record| record.is_over(now))?;
        let terms = state.terms.get(&record.sold_as.provider).copied().unwrap_or_default();
        Some(record.billed(terms.billing, now))
    }

    /// What the cloud wants for a machine so far, and by how much a reader of old prices may differ.
    #[must_use]
    pub fn bill(&self, instance: InstanceId) -> (Usd, Usd) {
        self.bill_of_time(instance, EVER)
    }

    /// What the cloud wants in all so far, strays apart, and by how much a reader of old prices may differ.
    #[must_use]
    pub fn whole_bill(&self) -> (Usd, Usd) {
        self.bill_of_all(EVER)
    }

    /// The least and the most that the books may make of a machine: between them lies what a reader of old prices, or one
    /// with a wrong clock, may come to.
    pub(crate) fn bounds(&self, instance: InstanceId) -> (Usd, Usd) {
        self.reckon(instance, EVER).map_or((Usd::ZERO, Usd::ZERO), |bill| (bill.least, bill.most))
    }

    /// The same in all, for the time within a period.
    pub(crate) fn bounds_of_all(&self, within: Period) -> (Usd, Usd) {
        let bills = self.launched().into_iter().filter_map(|id| self.reckon(id, within));
        bills.fold((Usd::ZERO, Usd::ZERO), |sum, bill| (sum.0 + bill.least, sum.1 + bill.most))
    }

    /// The same for what it was billed for within a period.
    fn bill_of_time(&self, instance: InstanceId, within: Period) -> (Usd, Usd) {
        self.reckon(instance, within).map_or((Usd::ZERO, Usd::ZERO), |bill| (bill.amount, bill.doubt))
    }

    fn reckon(&self, instance: InstanceId, within: Period) -> Option<Bill> {
        let now = self.clock.now();
        let mut state = self.state();
        let State { terms, discounts, stalls, records, .. } = &mut *state;
        let record = records.get(&instance)?;
        let stall = stalls.get_mut(&record.sold_as)?;
        let terms = terms.get(&record.sold_as.provider).copied().unwrap_or_default();
        let billed = record.billed(terms.billing, now);
        let from = billed.from.max(within.from);
        let billed = Period::new(from, billed.to.min(within.to).max(from));
        let Terms { disk_gib, address, .. } = terms;
        let extras = disk_gib.times(record.disk_gib) + address;
        let (extra, _) = extras.cost_with_remainder(billed.span(), 0);
        // Where the daemon's clock is wrong it takes time for other time, of which it may count some or leave some out.
        let wrong_by = self.ground.error_of_clock().spread();
        let mistaken = (stall.prices.most() + extras).cost_rounded_up(wrong_by);
        let discount = discounts.iter().find(|discount| discount.is_on(&stall.sells.offering));
        let (low, high) = stall.prices.bounds(billed);
        Some(Bill {
            amount: less(stall.prices.cost(billed), discount) + extra,
            doubt: stall.prices.doubt(billed) + mistaken,
            least: less(low, discount) + extra - mistaken,
            most: less(high, discount) + extra + mistaken,
        })
    }

    /// What the cloud wants in all for the time within a period.
    #[must_use]
    pub fn bill_of_all(&self, within: Period) -> (Usd, Usd) {
        self.launched()
            .into_iter()
            .map(|id| self.bill_of_time(id, within))
            .fold((Usd::ZERO, Usd::ZERO), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// What it wants for the time in which machines hung: no lease bounds that.
    #[must_use]
    pub fn bill_of_hung(&self, within: Period) -> Usd {
        let hung: Vec<(InstanceId, Timestamp)> = {
            let state = self.state();
            let since = |(id, record): (&InstanceId, &Record)| Some((*id, record.hung_since?));
            state.records.iter().filter_map(since).collect()
        };
        let bill = |(id, since): (InstanceId, Timestamp)| {
            let from = since.max(within.from);
            self.bill_of_time(id, Period::new(from, within.to.max(from))).0
        };
        hung.into_iter().map(bill).sum()
    }

    /// The machines that were launched, strays apart.
    #[must_use]
    pub fn launched(&self) -> Vec<InstanceId> {
        let state = self.state();
        state.records.iter().filter(|(_, record)| !record.stray).map(|(id, _)| *id).collect()
    }

    /// A machine powers itself off.
    pub(crate) fn power_off(&self, instance: InstanceId) {
        self.end(instance);
    }

    pub(crate) fn standing(&self, instance: InstanceId) -> Standing {
        let now = self.clock.now();
        let state = self.state();
        let Some(record) = state.records.get(&instance) else {
            return Standing {
                over: true,
                hung: false,
                agent_killed: false,
                taken_at: None,
                next_change: None,
            };
        };
        let told = record.notice.filter(|(told_at, _)| *told_at <= now);
        let changes = [record.notice.map(|(told_at, _)| told_at), record.end.map(|(at, _)| at)];
        Standing {
            over: record.is_over(now),
            hung: record.is_hung(now),
            agent_killed: record.agent_killed,
            taken_at: told.map(|(_, taken_at)| taken_at),
            next_change: changes.into_iter().flatten().filter(|at| *at > now).min(),
        }
    }

    fn end(&self, instance: InstanceId) {
        let now = self.clock.now();
        let mut state = self.state();
        let State { records, chance, .. } = &mut *state;
        if let Some(record) = records.get_mut(&instance).filter(|record| record.told_to_end.is_none()) {
            record.told_to_end = Some(now);
            record.end_by(now + chance.span(SHUTDOWN.0, SHUTDOWN.1), false);
        }
    }

    fn belongs_to(&self, instance: InstanceId, installation: &str) -> bool {
        self.state().records.get(&instance).is_some_and(|record| record.installation == installation)
    }

    /// The way there.
    async fn arrive(&self, at: &ProviderName) -> Result<(), ProviderError> {
        let latency = self.state().chance.span(Span::from_millis(1), LATENCY_MAX);
        tokio::time::sleep(latency.to_std()).await;
        let now = self.clock.now();
        let mut state = self.state();
        if state.down_until.get(at).is_some_and(|until| now < *until) {
            return Err(error(at, ErrorKind::Unavailable, "the provider is down"));
        }
        let throttles = state.throttled_until.get(at).is_some_and(|until| now < *until);
        if throttles && state.chance.per_mille(THROTTLED_PER_MILLE) {
            let retry_after = state.chance.per_mille(500).then(|| Span::from_secs(5));
            return Err(error(at, ErrorKind::Throttled { retry_after }, "too many requests"));
        }
        Ok(())
    }

    /// The way back.
    async fn reply(&self) {
        let latency = self.state().chance.span(Span::from_millis(1), LATENCY_MAX);
        tokio::time::sleep(latency.to_std()).await;
    }

    fn offerings(&self, of: &ProviderName) -> Vec<Offering> {
        let now = self.clock.now();
        let mut state = self.state();
        let stalls = state.stalls.iter_mut().filter(|(key, _)| key.provider == *of);
        let priced = stalls.map(|(_, stall)| Offering {
            price: Some(stall.prices.at(now)),
            price_since: Some(stall.prices.since(now)),
            quota: None,
            ..stall.sells.offering.clone()
        });
        priced.collect()
    }

    fn list(&self, of: &ProviderName, installation: &str) -> Vec<CloudInstance> {
        let now = self.clock.now();
        let mut state = self.state();
        let State { records, recent, .. } = &mut *state;
        recent.retain(|id| records.get(id).is_some_and(|record| !record.is_history(now)));
        let is_shown = |record: &Record| {
            record.sold_as.provider == *of && record.installation == installation && record.is_listed(now)
        };
        let shown = state.recent().filter(|(_, record)| is_shown(record));
        shown.map(|(id, record)| record.view(*id, now)).collect()
    }

    fn make(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let now = self.clock.now();
        self.ground.launch_arrives(request.instance);
        let mut state = self.state();
        if let Some(known) = state.records.get(&request.instance) {
            if known.request.as_ref().is_some_and(|first| *first != *request) {
                let id = request.instance;
                self.ground
                    .report(InvariantId::O2, format!("{id} is asked for again, and for something else"));
            }
            return Ok(known.view(request.instance, now));
        }
        let key = request.offering.key();
        state.has_room(&key, now)?;
        let State { stalls, records, recent, chance, troubles, .. } = &mut *state;
        let Some(stall) = stalls.get(&key) else {
            return Err(error(&key.provider, ErrorKind::Invalid, "not on offer"));
        };
        let mut record = Record::new(key, now);
        record.installation = request.installation.clone();
        record.request = Some(request.clone());
        record.disk_gib = request.disk_gib;
        record.runs_from = now + chance.span(BOOT.0, BOOT.1);
        record.listed_from = now + chance.span(Span::ZERO, LISTING_LAG_MAX);
        record.end_lag = chance.span(Span::ZERO, LISTING_LAG_MAX);
        if let Some(interruptions) = stall.sells.interruptions {
            // Evenly over twice the mean: early, late and in the middle of everything.
            let taken_at = now + chance.span(Span::ZERO, interruptions.every.times(2));
            let told_at = taken_at - interruptions.notice.unwrap_or_default();
            record.take_back(told_at.max(now), taken_at, interruptions.notice.is_some());
        }
        if chance.per_mille(troubles.boot_failures_per_mille) {
            record.end_by(record.runs_from, false);
        }
        if chance.per_mille(troubles.boot_hangs_per_mille) {
            record.hung_since = Some(now);
        }
        let machine = Machine {
            instance: request.instance,
            secret: request.secret.clone(),
            lease_until: request.lease_until,
            runs_from: record.runs_from,
            changed: record.changed.clone(),
        };
        let view = record.view(request.instance, now);
        records.insert(request.instance, record);
        recent.insert(request.instance);
        tokio::spawn(Agent::new(machine, self.clone(), self.ground.clone(), self.clock).live());
        Ok(view)
    }

    /// Every change is a single step, so that a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn recent(&self) -> impl Iterator<Item = (&InstanceId, &Record)> {
        self.recent.iter().filter_map(|id| self.records.get_key_value(id))
    }

    /// Whether one more machine of this offering can be had.
    fn has_room(&self, key: &OfferingKey, now: Timestamp) -> Result<(), ProviderError> {
        let Some(stall) = self.stalls.get(key) else {
            return Err(error(&key.provider, ErrorKind::Invalid, "not on offer"));
        };
        // Those of others take no room: they stay for ever, and what they keep out would never end.
        let ours = || self.recent().map(|(_, record)| record).filter(|record| !record.stray);
        let running = || ours().filter(|record| !record.is_over(now));
        let in_use = running().filter(|record| record.sold_as == *key).count();
        let sold_out = stall.sold_out_until.is_some_and(|until| now < until);
        if sold_out || in_use >= stall.sells.capacity.at(now) as usize {
            let scope = Scope::of(key);
            return Err(error(&key.provider, ErrorKind::InsufficientCapacity(scope), "sold out"));
        }
        for (scope, most) in
            self.troubles.quotas.iter().filter(|(scope, _)| scope.covers(&stall.sells.offering))
        {
            let sold_as =
                |record: &Record| self.stalls.get(&record.sold_as).map(|stall| &stall.sells.offering);
            let counted = running().filter_map(sold_as).filter(|offering| scope.covers(offering));
            let used: u32 = counted.map(accelerators).sum();
            if used + accelerators(&stall.sells.offering) > *most {
                return Err(error(&key.provider, ErrorKind::Quota(scope.clone()), "the quota is full"));
            }
        }
        Ok(())
    }
}

/// An amount less a discount on it.
fn less(amount: Usd, discount: Option<&Discount>) -> Usd {
    let millionths = discount.map_or(0, |discount| discount.millionths);
    let kept = i128::from(amount.as_nanos()) * i128::from(1_000_000 - millionths) / 1_000_000;
    Usd::from_nanos(kept as i64)
}

fn accelerators(offering: &Offering) -> u32 {
    offering.instance_type.accelerators.as_ref().map_or(0, |has| has.count)
}

fn error(provider: &ProviderName, kind: ErrorKind, message: &str) -> ProviderError {
    ProviderError {
        provider: provider.clone(),
        kind,
        effect: EffectMay::No,
        message: message.to_owned(),
        source: None,
    }
}
