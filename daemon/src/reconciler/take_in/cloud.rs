//! What providers answer.

use std::collections::BTreeSet;

use bursar_ledger::{Metered, cuts, meter};
use bursar_model::{
    Backoff, CapacityType, CloudInstance, CloudState, DrainReason, Event, Instance, InstanceEnd, InstanceId,
    InstanceState, Offering, OfferingKey, ProviderName, Scope, Span, Timestamp,
};
use bursar_providers::{EffectMay, ErrorKind, LAUNCH_LAG, LIST_KEEPS_ENDED, LISTING_LAG, ProviderError};
use bursar_store::Store;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    clock::elapsed,
    effects::Effects,
    reconciler::{Orphan, Reconciler, Turn, chain},
};

/// The longest pause between two tries of the same call.
const BACKOFF_MAX: Span = Span::from_secs(120);

/// A refused part of the market is left alone for 15 s, 30 s, 1 min … up to 30 min.
const REFUSED_FIRST: Span = Span::from_secs(15);
const REFUSED_DOUBLINGS_MAX: u32 = 7;

/// A launch that certainly did not happen is given up after so many tries, and the experiment goes elsewhere.
const LAUNCH_TRIES: u32 = 3;

impl<S: Store> Reconciler<S> {
    pub(super) fn launched(
        &mut self,
        id: InstanceId,
        result: Result<CloudInstance, ProviderError>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        self.effects.call_done(id, None);
        let Some(instance) = self.fleet.instances.get(&id) else { return };
        match result {
            Ok(cloud) => {
                self.effects.launch_answered(id, now);
                self.seen(&cloud, now, turn);
            }
            Err(error) if matches!(instance.state, InstanceState::Intended { .. }) => {
                self.launch_failed(id, &error, now, turn);
            }
            // The launch took effect after all: the agent registered or the listing told.
            Err(error) => {
                warn!(instance = %id, error = %chain(&error), "a launch that worked reported an error")
            }
        }
    }

    fn launch_failed(&mut self, id: InstanceId, error: &ProviderError, now: Timestamp, turn: &mut Turn) {
        let Some(instance) = self.fleet.instances.get(&id) else { return };
        let failures = instance.backoff.failures + 1;
        if error.effect == EffectMay::Maybe {
            self.effects.launch_unknown(id);
        }
        // An earlier call may have worked unheard, in this life of the daemon or in one before. Then a refusal of the
        // call, as against one of the launch, settles nothing: giving up would forget what may run (O3).
        let intended_before =
            matches!(instance.state, InstanceState::Intended { at } if at <= self.started_at);
        let may_exist = intended_before || self.effects.is_launch_unknown(id);
        let whole_provider = Scope {
            provider: instance.offering.provider.clone(),
            region: None,
            zone: None,
            instance_type: None,
            capacity_type: None,
        };
        let refused_scope = match (&error.kind, error.effect) {
            // Nobody knows whether it took effect: only the same token may ask again.
            (_, EffectMay::Maybe) => None,
            (ErrorKind::InsufficientCapacity(scope) | ErrorKind::Quota(scope), EffectMay::No) => {
                Some(scope.clone())
            }
            (ErrorKind::Invalid, EffectMay::No) => Some(Scope::of(&instance.offering.key())),
            (ErrorKind::Auth | ErrorKind::Throttled { .. } | ErrorKind::Unavailable, EffectMay::No)
                if may_exist =>
            {
                None
            }
            (ErrorKind::Auth, EffectMay::No) => Some(whole_provider),
            (ErrorKind::Throttled { .. } | ErrorKind::Unavailable, EffectMay::No) => {
                (failures >= LAUNCH_TRIES).then_some(whole_provider)
            }
        };
        warn!(instance = %id, error = %chain(error), settled = refused_scope.is_some(), "launch failed");
        let Some(scope) = refused_scope else {
            let asked_for = match error.kind {
                ErrorKind::Throttled { retry_after } => retry_after,
                ErrorKind::InsufficientCapacity(_)
                | ErrorKind::Quota(_)
                | ErrorKind::Auth
                | ErrorKind::Invalid
                | ErrorKind::Unavailable => None,
            };
            let backoff = next_backoff(failures, asked_for, now);
            self.record(Event::CallFailed { instance: id, backoff }, turn);
            return;
        };
        self.refuse(scope, now, turn);
        let event = if may_exist {
            // A provider that keeps its contract would have answered with what an earlier call made. Promise 1 does not
            // hang on that: it is ended, and forgotten once the provider has shown that there is nothing.
            Event::InstanceTerminating { instance: id, at: now, why: DrainReason::LaunchDoubtful }
        } else {
            let end = InstanceEnd::Refused { message: error.message.clone() };
            Event::InstanceGone { instance: id, at: now, end }
        };
        self.record(event, turn);
    }

    /// Leaves a part of the market alone for a while, longer each time. While it is left alone nobody asks there: what is
    /// refused then was asked for before, by the same call or beside it, and says nothing new.
    fn refuse(&mut self, scope: Scope, now: Timestamp, turn: &mut Turn) {
        if self.fleet.refused.get(&scope).is_some_and(|refused| refused.until > now) {
            return;
        }
        let failures = self.fleet.refused.get(&scope).map_or(0, |refused| refused.failures) + 1;
        let pause = REFUSED_FIRST.times(1 << (failures - 1).min(REFUSED_DOUBLINGS_MAX));
        self.record(Event::CapacityRefused { scope, failures, until: now + pause }, turn);
    }

    pub(super) fn terminated(
        &mut self,
        id: InstanceId,
        result: Result<(), ProviderError>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        self.effects.call_done(id, Some(Effects::terminate_again_at(now)));
        let Some(instance) = self.fleet.instances.get(&id).filter(|found| found.is_live()) else { return };
        if let Err(error) = result {
            warn!(instance = %id, error = %chain(&error), "asking for its end failed; will ask again");
            let backoff = next_backoff(instance.backoff.failures + 1, None, now);
            self.effects.call_done(id, None);
            self.record(Event::CallFailed { instance: id, backoff }, turn);
        }
    }

    pub(super) fn listed(
        &mut self,
        provider: &ProviderName,
        asked_at: Timestamp,
        result: Result<Vec<CloudInstance>, ProviderError>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let asked = self.effects.listing_done(provider);
        let clouds = match result {
            Ok(clouds) => clouds,
            Err(error) => {
                // What cannot be seen stays as it is: nothing is forgotten because a list failed (O3).
                warn!(%provider, error = %chain(&error), "its instances could not be listed");
                return;
            }
        };
        for cloud in &clouds {
            if self.fleet.instances.contains_key(&cloud.instance) {
                self.seen(cloud, now, turn);
            } else {
                self.orphan(provider, cloud, now);
            }
        }
        let is_there = |id| {
            let of_id = clouds.iter().find(|cloud| cloud.instance == id);
            of_id.is_some_and(|cloud| !matches!(cloud.state, CloudState::Gone { .. }))
        };
        self.orphans.retain(|(of, id), _| of != provider || is_there(*id));
        let left = self.orphans.values().filter(|orphan| orphan.told).count();
        if self.snapshot.borrow().orphans_left != left {
            self.snapshot.send_modify(|snapshot| snapshot.orphans_left = left);
        }

        let listed: BTreeSet<InstanceId> = clouds.iter().map(|cloud| cloud.instance).collect();
        let lacks: BTreeSet<InstanceId> = self
            .fleet
            .instances
            .values()
            .filter(|instance| instance.offering.provider == *provider && is_missed(instance, asked_at))
            .filter(|instance| !listed.contains(&instance.id))
            .filter(|instance| {
                let launched_at = self.effects.launched_at(instance.id);
                launched_at.is_none_or(|at| asked_at >= at + LISTING_LAG)
            })
            .map(|instance| instance.id)
            .collect();
        for (id, missing) in self.effects.missing(provider, &lacks, asked) {
            let Some(instance) = self.fleet.instances.get(&id) else { continue };
            if never_was(instance, asked_at) {
                // A launch may be on its way still: one of ours however long it takes, one of a daemon before us.
                if self.effects.is_calling(id) || missing < LAUNCH_LAG + LISTING_LAG {
                    continue;
                }
                let InstanceState::Terminating { why, .. } = instance.state else { continue };
                let (at, end) = (instance.meter.through, InstanceEnd::Terminated { why });
                self.effects.call_done(id, None);
                self.record(Event::InstanceGone { instance: id, at, end }, turn);
                continue;
            }
            // It lived until it was heard, and no longer than it was paid for; one that came up after its lease had ended
            // ends itself at once, which takes no longer than a drain. In between nobody knows: it is counted as billed,
            // so that no budget is overspent unseen.
            let heard = self.heard.get(&id).copied().unwrap_or(instance.meter.through);
            let (is_billed, earliest) = (instance.meter.from.is_some(), instance.meter.through);
            let began = instance.meter.from.unwrap_or(earliest);
            let at = instance.paid_until().max(began + instance.drain_allowance).max(heard);
            // An end within the time that lists keep would be shown: then it is the list that is wrong (O3).
            if missing < LISTING_LAG || asked_at < at + LIST_KEEPS_ENDED {
                continue;
            }
            warn!(instance = %id, "the provider does not have it any more");
            if !is_billed {
                self.record(Event::BillingBegan { instance: id, at: earliest }, turn);
            }
            self.gone(id, at, at, false, now, turn);
        }
    }

    /// A record of the cloud about an instance that we know.
    fn seen(&mut self, cloud: &CloudInstance, now: Timestamp, turn: &mut Turn) {
        // What another message of this turn has ended is over.
        let Some(instance) = self.fleet.instances.get(&cloud.instance).filter(|found| found.is_live()) else {
            return;
        };
        let is_new = instance.cloud_id.is_none();
        let known_notice = instance.notice;
        let is_ending = matches!(instance.state, InstanceState::Terminating { .. });
        let (is_billed, intended_at) = (instance.meter.from.is_some(), instance.meter.through);
        let terms = instance.offering.terms.clone();
        let key = instance.offering.key();
        if is_new {
            self.record(Event::InstanceLaunched { cloud: cloud.clone(), at: now }, turn);
            self.forget_refusal(&key, intended_at, turn);
            if is_ending && matches!(cloud.state, CloudState::Pending | CloudState::Running) {
                // Its end was asked for when there was nothing to end: the launch took effect late.
                self.effects.ask_again(cloud.instance);
            }
        }
        let billing = terms.billing;
        if let Some(at) = billing.began(cloud).filter(|_| !is_billed && !is_new) {
            // As with the launch: within our time, whatever the cloud's clock shows.
            let at = at.min(now).max(intended_at);
            self.record(Event::BillingBegan { instance: cloud.instance, at }, turn);
        }
        if let Some(gone_at) = cloud.notice.filter(|_| known_notice.is_none()) {
            self.record(Event::InstanceNoticed { instance: cloud.instance, gone_at }, turn);
        }
        match cloud.state {
            CloudState::Pending | CloudState::Running | CloudState::Stopping => {}
            CloudState::Gone { at, interrupted } => {
                let ended = billing.ended(cloud, at);
                // Where our clock was behind when it began and has caught up since, more time lies between by our clock
                // than by the cloud's, which is what is billed.
                let began = self.fleet.instances.get(&cloud.instance).and_then(|found| found.meter.from);
                let own_span = billing.began(cloud).map(|own| ended.since(own));
                let billed_until = began.zip(own_span).map_or(ended, |(began, span)| ended.min(began + span));
                self.gone(cloud.instance, at, billed_until, interrupted, now, turn);
            }
        }
    }

    /// A launch worked: what was refused of the same before is forgotten. Not where it was refused after this was asked
    /// for, or may be yet: what was launched together finds room together, or the refusal counts for all of it.
    fn forget_refusal(&mut self, key: &OfferingKey, intended_at: Timestamp, turn: &mut Turn) {
        let scope = Scope::of(key);
        let is_older = self.fleet.refused.get(&scope).is_some_and(|refused| refused.until <= intended_at);
        let is_unanswered = |other: &Instance| {
            matches!(other.state, InstanceState::Intended { .. }) && other.offering.key() == *key
        };
        if is_older && !self.fleet.instances.values().any(is_unanswered) {
            self.record(Event::CapacityFound { scope }, turn);
        }
    }

    /// The cloud said that an instance is gone: what ran is lost, the rest is charged, its holds are released.
    /// `stopped_at` is when the cloud stopped counting, before its minimum and granularity.
    fn gone(
        &mut self,
        id: InstanceId,
        at: Timestamp,
        stopped_at: Timestamp,
        interrupted: bool,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        // What ran is charged for no longer than the cloud counts.
        self.lose_attempts(id, stopped_at.min(at), interrupted, now, turn);
        let Some(instance) = self.fleet.instances.get(&id) else { return };
        let at = at.min(now).max(instance.meter.from.unwrap_or(at));
        let billing = instance.offering.terms.billing;
        let billed_until =
            instance.meter.from.map_or(at, |from| billing.billed_until(from, stopped_at.min(at).max(from)));
        let end = match instance.state {
            InstanceState::Terminating { why, .. } => InstanceEnd::Terminated { why },
            InstanceState::Draining { why: DrainReason::Interrupted, .. } => InstanceEnd::Interrupted,
            InstanceState::Intended { .. }
            | InstanceState::Booting { .. }
            | InstanceState::Ready { .. }
            | InstanceState::Draining { .. }
            | InstanceState::Gone { .. } => {
                if interrupted {
                    InstanceEnd::Interrupted
                } else {
                    InstanceEnd::Vanished
                }
            }
        };
        // A machine that ends before its agent was ever heard would do so again: what it was made from is left alone.
        let never_came_up =
            matches!(instance.state, InstanceState::Booting { .. }) && end == InstanceEnd::Vanished;
        let scope = never_came_up.then(|| Scope::of(&instance.offering.key()));
        let metered = meter(instance, std::iter::empty(), billed_until, &cuts(&self.fleet.budgets));
        for event in metered.into_iter().flat_map(Metered::into_events) {
            self.record(event, turn);
        }
        if let Some(scope) = scope {
            warn!(instance = %id, %scope, "it ended before its agent was heard; its lease may be shorter than its boot");
            self.refuse(scope, now, turn);
        }
        self.effects.call_done(id, None);
        self.record(Event::InstanceGone { instance: id, at, end }, turn);
    }

    /// An instance with our tag that we do not know. Looked at twice, a grace apart, before it is ended.
    fn orphan(&mut self, provider: &ProviderName, cloud: &CloudInstance, now: Timestamp) {
        if matches!(cloud.state, CloudState::Gone { .. }) {
            return;
        }
        let seen = self
            .orphans
            .entry((provider.clone(), cloud.instance))
            .or_insert_with(|| Orphan { since: Instant::now(), told: false });
        if elapsed(seen.since, Instant::now()) >= self.rules.orphan_grace {
            if !std::mem::replace(&mut seen.told, true) {
                self.snapshot.send_modify(|snapshot| {
                    snapshot.orphans += 1;
                    snapshot.orphan_at = Some(now);
                });
            }
            warn!(invariant = "O1", instance = %cloud.instance, cloud_id = %cloud.cloud_id, "ending an orphan");
            self.effects.terminate_orphan(provider, cloud);
        }
    }

    pub(super) fn offered(
        &mut self,
        provider: ProviderName,
        result: Result<Vec<Offering>, ProviderError>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        self.effects.asking_done(&provider, result.is_err(), now);
        match result {
            Ok(offerings) => {
                self.offered.insert(provider, offerings);
                self.set_market();
                self.follow_prices(turn);
            }
            // The old prices stand until there are new ones.
            Err(error) => warn!(%provider, error = %chain(&error), "its offerings could not be read"),
        }
    }

    pub(super) fn follow_prices(&mut self, turn: &mut Turn) {
        let ids: Vec<InstanceId> = self.fleet.instances.keys().copied().collect();
        for id in ids {
            self.follow_price(id, turn);
        }
    }

    /// Takes over the spot price of what runs: from when the cloud says that it is in force, or else from when the instance
    /// was last heard on. Without either nobody can tell since when the new price counts, so that it is followed once the
    /// instance was heard. All other prices are agreed on at the launch.
    pub(super) fn follow_price(&mut self, id: InstanceId, turn: &mut Turn) {
        let market = self.snapshot.borrow().market.clone();
        let Some(instance) = self.fleet.instances.get(&id) else { return };
        let is_spot = instance.offering.capacity_type == CapacityType::Spot;
        if !is_spot || !instance.is_live() {
            return;
        }
        let Some(offering) = market.find(&instance.offering.key()) else { return };
        let Some(price) = offering.known_price().filter(|price| *price != instance.price) else { return };
        let Some(at) = offering.price_since.or_else(|| self.heard.get(&id).copied()) else { return };
        self.record(Event::PriceChanged { instance: id, at, price }, turn);
    }
}

/// Whether a provider's list, asked for then, should have shown this instance.
fn is_missed(instance: &Instance, asked_at: Timestamp) -> bool {
    match instance.state {
        // May never have existed: its token settles it, not its absence.
        InstanceState::Intended { .. } | InstanceState::Gone { .. } => false,
        InstanceState::Booting { at } => asked_at >= at + LISTING_LAG,
        InstanceState::Ready { since }
        | InstanceState::Draining { since, .. }
        | InstanceState::Terminating { since, .. } => asked_at >= since + LISTING_LAG,
    }
}

/// Whether an instance that is being ended and that no list shows never existed: nobody ever saw it, and had it ended
/// since it was intended, the list would show its end.
fn never_was(instance: &Instance, asked_at: Timestamp) -> bool {
    let is_ending = matches!(instance.state, InstanceState::Terminating { .. });
    let would_be_listed = asked_at.since(instance.meter.through) < LIST_KEEPS_ENDED;
    is_ending && instance.cloud_id.is_none() && instance.meter.from.is_none() && would_be_listed
}

/// 1 s, 2 s, 4 s … or as long as the provider asks for.
fn next_backoff(failures: u32, asked_for: Option<Span>, now: Timestamp) -> Backoff {
    let own = Span::from_secs(1 << failures.saturating_sub(1).min(10));
    let own = if own > BACKOFF_MAX { BACKOFF_MAX } else { own };
    Backoff { failures, not_before: Some(now + asked_for.map_or(own, |asked| asked.max(own))) }
}
