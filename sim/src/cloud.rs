//! The simulated cloud: sells, boots, bills, takes back and ends machines, and answers as clouds do, late and not always.
//!
//! What goes wrong with a single call is scripted in front of it (`bursar_providers::faulty`); what goes wrong with the
//! cloud itself is here: it is down, it is sold out, its listing lags, it takes machines back. States are derived from
//! moments when somebody looks, so no task has to wake up to make them so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bursar_model::{
    BillingEnd, BillingRules, BillingStart, Clock, CloudId, CloudInstance, CloudState, InstanceId, Offering,
    OfferingKey, Period, ProviderName, Scope, Span, Terms, Timestamp, Usd,
};
use bursar_providers::{EffectMay, ErrorKind, LIST_KEEPS_ENDED, LaunchRequest, Provider, ProviderError};
use tokio::sync::Notify;

use crate::{
    agent::{Agent, Machine},
    chance::Chance,
    clock::SimClock,
    ground::Ground,
    market::{Prices, SimOffering},
};

/// A call takes up to so long to arrive, and its reply as long again.
const LATENCY_MAX: Span = Span::from_millis(400);

/// From the launch until the agent runs.
const BOOT: (Span, Span) = (Span::from_secs(20), Span::from_secs(90));

/// From the order to end until the cloud has the machine back.
const SHUTDOWN: (Span, Span) = (Span::from_secs(1), Span::from_secs(20));

/// A new machine is missing from the listing for up to so long: less than the daemon allows for.
const LISTING_LAG_MAX: Span = Span::from_secs(30);

/// From the first moment to the last.
pub(crate) const EVER: Period =
    Period { from: Timestamp::from_millis(i64::MIN), to: Timestamp::from_millis(i64::MAX) };

/// The cloud. Copies are the same cloud.
#[derive(Debug, Clone)]
pub struct SimCloud {
    name: ProviderName,
    terms: Terms,
    clock: SimClock,
    ground: Ground,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    stalls: BTreeMap<OfferingKey, Stall>,
    records: BTreeMap<InstanceId, Record>,
    chance: Chance,
    /// Rises when the daemon dies: requests that had not arrived by then never do.
    connections: u64,
    down_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Stall {
    sells: SimOffering,
    prices: Prices,
    sold_out_until: Option<Timestamp>,
}

/// One machine, for good.
#[derive(Debug)]
struct Record {
    sold_as: OfferingKey,
    disk_gib: u32,
    launched_at: Timestamp,
    runs_from: Timestamp,
    listed_from: Timestamp,
    /// When the cloud tells that it takes the machine back.
    notice: Option<(Timestamp, Timestamp)>,
    /// When it is over, and whether the cloud took it.
    end: Option<(Timestamp, bool)>,
    told_to_end: Option<Timestamp>,
    stray: bool,
    changed: Arc<Notify>,
}

/// How a machine stands, as it sees itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) over: bool,
    /// When it will be taken back, once it was told.
    pub(crate) taken_at: Option<Timestamp>,
    pub(crate) next_change: Option<Timestamp>,
}

impl SimCloud {
    pub(crate) fn new(
        name: ProviderName,
        terms: Terms,
        sells: Vec<SimOffering>,
        clock: SimClock,
        ground: Ground,
        chance: &Chance,
    ) -> Self {
        let now = clock.now();
        let stalls = (0..).zip(sells).map(|(number, sells)| {
            let prices = Prices::new(&sells, now, chance.child(number));
            (sells.offering.key(), Stall { sells, prices, sold_out_until: None })
        });
        let state = State {
            stalls: stalls.collect(),
            records: BTreeMap::new(),
            chance: chance.child(u64::MAX),
            connections: 0,
            down_until: None,
        };
        Self { name, terms, clock, ground, state: Arc::new(Mutex::new(state)) }
    }

    /// Nothing is answered until then.
    pub fn go_down(&self, until: Timestamp) {
        self.state().down_until = Some(until);
    }

    /// What is covered cannot be had until then.
    pub fn sell_out(&self, scope: &Scope, until: Timestamp) {
        for stall in self.state().stalls.values_mut().filter(|stall| scope.covers(&stall.sells.offering)) {
            stall.sold_out_until = Some(until);
        }
    }

    /// Takes a machine back, with so much notice.
    pub fn interrupt(&self, instance: InstanceId, notice: Option<Span>) {
        let now = self.clock.now();
        if let Some(record) = self.state().records.get_mut(&instance) {
            record.take_back(now, now + notice.unwrap_or_default(), notice.is_some());
        }
    }

    /// A machine with our tag that nobody asked for, such as a restored backup brings.
    pub fn add_stray(&self, instance: InstanceId) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(sold_as) = state.stalls.keys().next().cloned() else { return };
        let stray = Record { stray: true, ..Record::new(sold_as, 0, now, now, now) };
        state.records.insert(instance, stray);
    }

    /// The machines that are not over, strays apart.
    #[must_use]
    pub fn running(&self) -> Vec<InstanceId> {
        let now = self.clock.now();
        let state = self.state();
        let running = state.records.iter().filter(|(_, record)| !record.is_over(now) && !record.stray);
        running.map(|(id, _)| *id).collect()
    }

    /// When a machine was over, if it is.
    #[must_use]
    pub fn ended(&self, instance: InstanceId) -> Option<Timestamp> {
        let now = self.clock.now();
        let state = self.state();
        state.records.get(&instance)?.end.map(|(at, _)| at).filter(|at| *at <= now)
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

    /// The same for what it was billed for within a period.
    fn bill_of_time(&self, instance: InstanceId, within: Period) -> (Usd, Usd) {
        let now = self.clock.now();
        let mut state = self.state();
        let State { stalls, records, .. } = &mut *state;
        let Some(record) = records.get(&instance) else { return (Usd::ZERO, Usd::ZERO) };
        let Some(stall) = stalls.get_mut(&record.sold_as) else { return (Usd::ZERO, Usd::ZERO) };
        let billed = record.billed(self.terms.billing, now);
        let billed = Period::new(billed.from.max(within.from), billed.to.min(within.to));
        let Terms { disk_gib, address, .. } = self.terms;
        let extras = disk_gib.times(record.disk_gib) + address;
        let (extra, _) = extras.cost_with_remainder(billed.span(), 0);
        (stall.prices.cost(billed) + extra, stall.prices.doubt(billed))
    }

    /// What the cloud wants in all for the time within a period.
    #[must_use]
    pub fn bill_of_all(&self, within: Period) -> (Usd, Usd) {
        self.launched()
            .into_iter()
            .map(|id| self.bill_of_time(id, within))
            .fold((Usd::ZERO, Usd::ZERO), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The machines that were launched, strays apart.
    #[must_use]
    pub fn launched(&self) -> Vec<InstanceId> {
        let state = self.state();
        state.records.iter().filter(|(_, record)| !record.stray).map(|(id, _)| *id).collect()
    }

    /// The daemon died: requests under way that had not arrived never do.
    pub(crate) fn cut_connections(&self) {
        self.state().connections += 1;
    }

    /// A machine powers itself off.
    pub(crate) fn power_off(&self, instance: InstanceId) {
        self.end(instance);
    }

    pub(crate) fn standing(&self, instance: InstanceId) -> Standing {
        let now = self.clock.now();
        let state = self.state();
        let Some(record) = state.records.get(&instance) else {
            return Standing { over: true, taken_at: None, next_change: None };
        };
        let told = record.notice.filter(|(told_at, _)| *told_at <= now);
        let changes = [record.notice.map(|(told_at, _)| told_at), record.end.map(|(at, _)| at)];
        Standing {
            over: record.is_over(now),
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

    /// The way there. A request whose sender dies on the way never arrives.
    async fn arrive(&self) -> Result<(), ProviderError> {
        let (latency, sent_over) = {
            let mut state = self.state();
            (state.chance.span(Span::from_millis(1), LATENCY_MAX), state.connections)
        };
        tokio::time::sleep(latency.to_std()).await;
        let (connections, down_until) = {
            let state = self.state();
            (state.connections, state.down_until)
        };
        if connections != sent_over {
            std::future::pending::<()>().await;
        }
        if down_until.is_some_and(|until| self.clock.now() < until) {
            return Err(self.error(ErrorKind::Unavailable, "the cloud is down"));
        }
        Ok(())
    }

    /// The way back.
    async fn reply(&self) {
        let latency = self.state().chance.span(Span::from_millis(1), LATENCY_MAX);
        tokio::time::sleep(latency.to_std()).await;
    }

    fn make(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let now = self.clock.now();
        self.ground.launch_arrives(request.instance);
        let mut state = self.state();
        if let Some(known) = state.records.get(&request.instance) {
            return Ok(known.view(request.instance, now));
        }
        let key = request.offering.key();
        let State { stalls, records, chance, .. } = &mut *state;
        let in_use = records.values().filter(|record| record.sold_as == key && !record.is_over(now)).count();
        let Some(stall) = stalls.get(&key) else {
            return Err(self.error(ErrorKind::Invalid, "not on offer"));
        };
        let sold_out = stall.sold_out_until.is_some_and(|until| now < until);
        if sold_out || in_use >= stall.sells.capacity as usize {
            return Err(self.error(ErrorKind::InsufficientCapacity(Scope::of(&key)), "sold out"));
        }
        let runs_from = now + chance.span(BOOT.0, BOOT.1);
        let listed_from = now + chance.span(Span::ZERO, LISTING_LAG_MAX);
        let mut record = Record::new(key, request.disk_gib, now, runs_from, listed_from);
        if let Some(interruptions) = stall.sells.interruptions {
            // Evenly over twice the mean: early, late and in the middle of everything.
            let taken_at = now + chance.span(Span::ZERO, interruptions.every.times(2));
            let told_at = taken_at - interruptions.notice.unwrap_or_default();
            record.take_back(told_at.max(now), taken_at, interruptions.notice.is_some());
        }
        let changed = record.changed.clone();
        let view = record.view(request.instance, now);
        records.insert(request.instance, record);
        let machine = Machine {
            instance: request.instance,
            secret: request.secret.clone(),
            lease_until: request.lease_until,
            runs_from,
            changed,
        };
        tokio::spawn(Agent::new(machine, self.clone(), self.ground.clone(), self.clock).live());
        Ok(view)
    }

    fn error(&self, kind: ErrorKind, message: &str) -> ProviderError {
        ProviderError {
            provider: self.name.clone(),
            kind,
            effect: EffectMay::No,
            message: message.to_owned(),
            source: None,
        }
    }

    /// Every change is a single step, so that a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Provider for SimCloud {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        self.arrive().await?;
        let now = self.clock.now();
        let priced = |stall: &mut Stall| Offering {
            price: Some(stall.prices.at(now)),
            price_since: Some(stall.prices.since(now)),
            ..stall.sells.offering.clone()
        };
        let offerings = self.state().stalls.values_mut().map(priced).collect();
        self.reply().await;
        Ok(offerings)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        self.arrive().await?;
        let made = self.make(request);
        self.reply().await;
        made
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        self.arrive().await?;
        let now = self.clock.now();
        let listed = {
            let state = self.state();
            let listed = state.records.iter().filter(|(_, record)| record.is_listed(now));
            listed.map(|(id, record)| record.view(*id, now)).collect()
        };
        self.reply().await;
        Ok(listed)
    }

    async fn terminate(&self, instance: InstanceId, _: Option<&CloudId>) -> Result<(), ProviderError> {
        self.arrive().await?;
        self.end(instance);
        self.reply().await;
        Ok(())
    }
}

impl Record {
    fn new(
        sold_as: OfferingKey,
        disk_gib: u32,
        launched_at: Timestamp,
        runs_from: Timestamp,
        listed_from: Timestamp,
    ) -> Self {
        Self {
            sold_as,
            disk_gib,
            launched_at,
            runs_from,
            listed_from,
            notice: None,
            end: None,
            told_to_end: None,
            stray: false,
            changed: Arc::new(Notify::new()),
        }
    }

    fn take_back(&mut self, told_at: Timestamp, taken_at: Timestamp, told: bool) {
        if told {
            self.notice = Some((told_at, taken_at));
        }
        self.end_by(taken_at, true);
    }

    /// The first end that was set for it is the one that happens.
    fn end_by(&mut self, at: Timestamp, interrupted: bool) {
        if self.end.is_none_or(|(before, _)| at < before) {
            self.end = Some((at, interrupted));
        }
        self.changed.notify_one();
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|(at, _)| at <= now)
    }

    fn is_listed(&self, now: Timestamp) -> bool {
        let kept = self.end.is_none_or(|(at, _)| now.since(at) <= LIST_KEEPS_ENDED);
        now >= self.listed_from && kept
    }

    /// The time that is billed by now: reckoned here, apart from how the ledger does it.
    fn billed(&self, rules: BillingRules, now: Timestamp) -> Period {
        let over = self.end.map(|(at, _)| at).filter(|at| *at <= now);
        let from = match rules.starts {
            BillingStart::Launch => self.launched_at,
            BillingStart::Running => self.runs_from,
        };
        if from > over.unwrap_or(now) {
            return Period::new(from, from);
        }
        let Some(over) = over else { return Period::new(from, now) };
        let stopped = match rules.ends {
            BillingEnd::Gone => over,
            BillingEnd::Stopping => self.told_to_end.unwrap_or(over).clamp(from, over),
        };
        let unit = rules.granularity.as_millis();
        let mut millis = (stopped.as_millis() - from.as_millis()).max(rules.minimum.as_millis());
        while millis % unit != 0 {
            millis += unit - millis % unit;
        }
        Period::new(from, from + Span::from_millis(millis))
    }

    fn view(&self, instance: InstanceId, now: Timestamp) -> CloudInstance {
        let state = match self.end {
            Some((at, interrupted)) if at <= now => CloudState::Gone { at, interrupted },
            Some(_) if self.told_to_end.is_some() => CloudState::Stopping,
            Some(_) | None if now < self.runs_from => CloudState::Pending,
            Some(_) | None => CloudState::Running,
        };
        let has_run = now >= self.runs_from && self.end.is_none_or(|(at, _)| at >= self.runs_from);
        CloudInstance {
            cloud_id: CloudId::new(&format!("sim-{instance}")),
            instance,
            state,
            launched_at: self.launched_at,
            running_at: has_run.then_some(self.runs_from),
            stopping_at: self.told_to_end.filter(|at| *at >= self.runs_from),
            notice: self.notice.filter(|(told_at, _)| *told_at <= now).map(|(_, taken_at)| taken_at),
        }
    }
}
