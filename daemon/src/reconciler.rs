//! The one loop. It alone owns the live state; all others send it messages.
//!
//! A turn drains the inbox into events, plans, commits all of it in one transaction, and only then answers and acts.
//! Between applying an event and committing it nobody else sees the state, so a commit that fails costs nothing but the
//! turn: the state is loaded again from the store, which is the truth, and those who asked are told.

mod take_in;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_ledger::quote;
use bursar_model::{
    Changes, Clock, Event, ExperimentId, Fleet, IdGen, IllegalTransition, InstanceId, InstanceState,
    InvariantId, Offering, ProviderName, RefusedScope, Scope, Span, Timestamp, Violation, WaitingOn,
    invariant,
};
use bursar_policies::{Market, Plan, PlanInput, budgets::windows_that_begin, check, plan};
use bursar_providers::Provider;
use bursar_store::{Commit, Store, StoreError, Submission};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, error, info, warn};

use crate::{
    clock::{SteadyClock, elapsed},
    effects::{Effects, Surroundings},
    inbox::{CommitFailed, Inbox, Message, Messages},
    nodes::Nodes,
    notify::{Courier, Notifier},
    rules::{Pricing, Rules},
    waiters::Waiters,
};

/// The most messages that one turn takes in: bounds a transaction, and so how long the first of them waits.
const MESSAGES_PER_TURN: usize = 1024;

/// Planning takes at most a tenth of the time while messages keep coming: after a plan that took 1 ms the next is made
/// 9 ms later at the earliest, and what arrives meanwhile is stored and answered at once.
const PLAN_REST_FACTOR: u32 = 9;

/// How long a start waits for the first offerings of a provider before it plans without them.
const FIRST_OFFERINGS_PATIENCE: Span = Span::from_secs(10);

/// How long the loop rests when a commit failed. Messages wait in the inbox meanwhile.
const STORE_REST: Span = Span::from_millis(500);

/// By so much the clock must have gone ahead of the time that went by before it was set or stood still.
const SKIP_MIN: Span = Span::from_secs(1);

/// How often the state is held against its invariants in production: a walk over all of it, too slow for each turn of a
/// large fleet.
const SELF_CHECK: Span = Span::from_secs(60);

/// So many broken invariants are kept for those who ask; the log has all.
const VIOLATIONS_KEPT: usize = 20;

/// What the loop is made from.
#[derive(Debug)]
pub struct Parts<S> {
    /// Where everything is kept.
    pub store: S,
    /// Who rents out.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Tells the time. May be set, back too: the loop goes by a steady one over it.
    pub clock: Arc<dyn Clock>,
    /// Where ids start from.
    pub seed: u64,
    /// What effects need to know.
    pub surroundings: Surroundings,
    /// What the configuration says.
    pub rules: Rules,
    /// Brings notifications to those who are told.
    pub courier: Arc<dyn Courier>,
    /// Whether each plan is judged before it is carried out (`policies::check`): slow, so for simulation.
    pub judge_plans: bool,
}

/// What others may see of the loop without asking it.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Turns so far that stored something.
    pub commits: u64,
    /// What each waiting experiment waits for, by the newest plan.
    pub waiting: Arc<BTreeMap<ExperimentId, WaitingOn>>,
    /// What is on offer.
    pub market: Arc<Market>,
    /// What was refused lately.
    pub refused: Arc<BTreeMap<Scope, RefusedScope>>,
    /// Instances of ours that nobody knew, so far.
    pub orphans: u64,
    /// Those of them that are still there.
    pub orphans_left: usize,
    /// When the newest of them was told.
    pub orphan_at: Option<Timestamp>,
    /// Turns whose commit failed, so far.
    pub failed_commits: u64,
    /// Corrections by a cloud's bill that were stored, so far: what is over is as it was while this is.
    pub corrections: u64,
    /// Which invariants this daemon found broken in itself, the first few. Always empty, unless bursar has a fault.
    pub violations: Arc<Vec<Violation>>,
}

/// The loop.
#[derive(Debug)]
pub struct Reconciler<S> {
    store: S,
    epoch: u64,
    fleet: Fleet,
    ids: IdGen,
    clock: Arc<dyn Clock>,
    /// When the clock was last looked at, and what it showed.
    looked: (Instant, Timestamp),
    rules: Rules,
    started_at: Timestamp,
    /// No silence is counted from before: the start, or when agents were last told how often to speak.
    listening_since: Timestamp,
    heard: BTreeMap<InstanceId, Timestamp>,
    nodes: Nodes,
    offered: BTreeMap<ProviderName, Vec<Offering>>,
    orphans: BTreeMap<(ProviderName, InstanceId), Orphan>,
    effects: Effects,
    notifier: Notifier,
    waiters: Waiters,
    snapshot: watch::Sender<Snapshot>,
    pacing: Pacing,
    judge_plans: bool,
    self_checked_at: Timestamp,
    /// The store has a newer leader.
    deposed: bool,
    /// The state is not that of the store: nothing is done on it before it was loaded again.
    stale: bool,
}

/// An instance of ours at a provider that we do not know.
#[derive(Debug)]
struct Orphan {
    /// When it was first seen: by what went by and not by the clock, which may have stepped.
    since: Instant,
    /// It was counted.
    told: bool,
}

/// When to plan.
#[derive(Debug)]
struct Pacing {
    /// Something changed since the last plan.
    due: bool,
    /// Time alone makes a plan due then.
    wake_at: Option<Timestamp>,
    /// Not before then, so that planning does not starve the inbox.
    rested_at: Instant,
}

/// What a turn has come to so far.
#[derive(Default)]
struct Turn {
    events: Vec<Event>,
    submissions: Vec<Submission>,
    /// What was gone by before, where this turn changes the rules: they count as little as the rest until it is stored.
    rules_before: Option<Rules>,
    /// Told once the turn is durable, or that it is not.
    answers: Vec<Answer>,
}

type Answer = Box<dyn FnOnce(Result<&Snapshot, &CommitFailed>) + Send>;

impl<S: Store> Reconciler<S> {
    /// Loads the state and makes the loop ready to run.
    ///
    /// # Errors
    /// When the store cannot be loaded, or does not take the budgets of the configuration.
    pub async fn start(
        parts: Parts<S>,
        inbox: Inbox,
    ) -> Result<(Self, watch::Receiver<Snapshot>), StoreError> {
        let Parts { mut store, providers, clock, seed, surroundings, rules, courier, judge_plans } = parts;
        let loaded = store.load().await?;
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new(clock, loaded.newest_commit));
        let now = clock.now();
        let mut ids = IdGen::new(seed);
        ids.start_after(loaded.highest_id);
        let refused = Arc::new(loaded.fleet.refused.clone());
        let (snapshot, watcher) = watch::channel(Snapshot { refused, ..Snapshot::default() });
        let notifier = Notifier::new(courier, store.reader(), inbox.clone());
        let mut reconciler = Self {
            store,
            epoch: loaded.epoch,
            fleet: loaded.fleet,
            ids,
            clock,
            looked: (Instant::now(), now),
            rules,
            started_at: now,
            listening_since: now,
            heard: BTreeMap::new(),
            nodes: Nodes::default(),
            offered: BTreeMap::new(),
            orphans: BTreeMap::new(),
            effects: Effects::new(providers, surroundings, inbox),
            notifier,
            waiters: Waiters::default(),
            snapshot,
            pacing: Pacing { due: true, wake_at: None, rested_at: Instant::now() },
            judge_plans,
            self_checked_at: now,
            deposed: false,
            stale: false,
        };
        reconciler.lay_down_rules(now).await?;
        Ok((reconciler, watcher))
    }

    /// The time that the loop goes by, for others to go by as well.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Runs until everybody who could send a message is gone or `stop` says so.
    pub async fn run(mut self, mut messages: Messages, mut stop: watch::Receiver<bool>) {
        let mut buffer = Vec::with_capacity(MESSAGES_PER_TURN);
        loop {
            if self.stale {
                self.reload().await;
                if self.stale {
                    tokio::select! {
                        biased;
                        _ = stop.changed() => break,
                        () = tokio::time::sleep(STORE_REST.to_std()) => continue,
                    }
                }
            }
            let now = self.clock.now();
            let notify_at = self.notifier.start_due(&self.rules.notifications, &self.fleet, now);
            let effects_at =
                self.effects.start_due(&self.rules, &self.fleet, now).into_iter().chain(notify_at).min();
            let sleep_until = self.sleep_until(now, effects_at);
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                count = messages.recv_many(&mut buffer, MESSAGES_PER_TURN) => {
                    if count == 0 {
                        break;
                    }
                }
                () = tokio::time::sleep_until(sleep_until) => {}
            }
            if let Err(failed) = self.turn(buffer.drain(..)).await {
                if self.deposed {
                    error!(error = %failed, "another daemon has taken over: ending without any further effect");
                    break;
                }
                error!(error = %failed, "the store took nothing; resting before the next turn");
                tokio::time::sleep(STORE_REST.to_std()).await;
            }
        }
        debug!("the loop ended; instances go on until their leases end");
    }

    /// One turn over these messages.
    async fn turn(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), CommitFailed> {
        let now = self.look_at_the_clock();
        let mut turn = Turn::default();
        // Before anything is charged: each charge counts in the window in which it falls.
        for event in windows_that_begin(&self.fleet.budgets, now) {
            self.record(event, &mut turn);
        }
        self.take_windows_back(now, &mut turn);
        self.fire_reports(now, &mut turn);
        for message in messages {
            self.take_in(message, now, &mut turn).await;
        }
        self.pacing.due |= !turn.events.is_empty() || self.pacing.wake_at.is_some_and(|at| at <= now);
        let mut planned = None;
        if self.pacing.due && Instant::now() >= self.pacing.rested_at && self.knows_the_market(now) {
            planned = Some(self.plan(now, &mut turn));
        }
        if let Err(failed) = self.commit(now, &mut turn).await {
            self.waiters.fail_fresh(&failed);
            if let Some(rules) = turn.rules_before {
                self.adopt(rules);
            }
            for answer in turn.answers {
                answer(Err(&failed));
            }
            return Err(failed);
        }
        self.publish(planned);
        if now.since(self.self_checked_at) >= SELF_CHECK {
            self.self_checked_at = now;
            for violation in invariant::check(&self.fleet) {
                self.confess(violation);
            }
        }
        let snapshot = self.snapshot.borrow().clone();
        for answer in turn.answers {
            answer(Ok(&snapshot));
        }
        Ok(())
    }

    /// The time now. Where it has gone ahead of what went by, because the machine's clock was set or the machine was
    /// suspended, nobody was silent for what was skipped: agents that were well are not given up for it.
    fn look_at_the_clock(&mut self) -> Timestamp {
        let (instant, now) = (Instant::now(), self.clock.now());
        let (before, shown) = self.looked;
        let skipped = now.since(shown + elapsed(before, instant));
        // Rounding is no skip: looked at a thousand times a second, milliseconds would add up to hours.
        if skipped >= SKIP_MIN {
            self.heard.values_mut().for_each(|heard| *heard = *heard + skipped);
            self.looked = (instant, now);
        }
        now
    }

    /// Whether every provider has said what it offers, or has had its chance: a plan without would only find that
    /// nothing is on offer.
    fn knows_the_market(&self, now: Timestamp) -> bool {
        self.offered.len() >= self.effects.provider_count()
            || now.since(self.started_at) >= FIRST_OFFERINGS_PATIENCE
    }

    /// Plans, applies what was planned, and answers with why the rest waits.
    fn plan(&mut self, now: Timestamp, turn: &mut Turn) -> Vec<(ExperimentId, WaitingOn)> {
        let began = Instant::now();
        let market = self.snapshot.borrow().market.clone();
        let input = PlanInput {
            now,
            fleet: &self.fleet,
            market: &market,
            heard: &self.heard,
            started_at: self.listening_since,
            settings: &self.rules.settings,
        };
        let made = plan(&input, &mut self.ids);
        let wrong = if self.judge_plans { check(&input, &made) } else { Vec::new() };
        let Plan { events, waiting, wake_at } = made;
        for violation in wrong {
            self.confess(violation);
        }
        self.pacing.wake_at = wake_at;
        // What was decided may allow more to be decided: plan again until nothing comes of it.
        self.pacing.due = !events.is_empty();
        self.pacing.rested_at = Instant::now() + began.elapsed() * PLAN_REST_FACTOR;
        for event in events {
            self.record(event, turn);
        }
        waiting
    }

    /// Applies an event and notes it for the commit. A transition that is not legal is a fault of ours: it is reported
    /// and left out, and the state stays as it was.
    fn record(&mut self, event: Event, turn: &mut Turn) {
        match self.fleet.apply(&event) {
            Ok(()) => {
                let is_alert = matches!(event, Event::BudgetAlerted { .. } | Event::IdleGpuAlerted { .. });
                let alert = is_alert.then(|| event.clone());
                turn.events.push(event);
                // In the same commit, so that it is told once whatever crashes.
                if let Some(Event::BudgetAlerted { key, at, alert }) = &alert {
                    self.queue_alert(key, *alert, *at, turn);
                } else if let Some(Event::IdleGpuAlerted { attempt, at }) = alert {
                    self.queue_idle_gpu(attempt, at, turn);
                }
            }
            Err(IllegalTransition(detail)) => {
                self.confess(Violation {
                    invariant: InvariantId::S2,
                    detail: format!("{detail}: {event:?}"),
                });
            }
        }
    }

    /// Tells of a fault of our own.
    fn confess(&self, violation: Violation) {
        error!(invariant = %violation.invariant, detail = %violation.detail, "an invariant is broken");
        self.snapshot.send_if_modified(|snapshot| {
            let is_new =
                snapshot.violations.len() < VIOLATIONS_KEPT && !snapshot.violations.contains(&violation);
            if is_new {
                Arc::make_mut(&mut snapshot.violations).push(violation);
            }
            is_new
        });
    }

    async fn commit(&mut self, now: Timestamp, turn: &mut Turn) -> Result<(), CommitFailed> {
        let changes = self.fleet.take_changes();
        if turn.events.is_empty() && turn.submissions.is_empty() {
            return Ok(());
        }
        let changed = instances_of(&changes);
        let commit = Commit {
            epoch: self.epoch,
            at: now,
            events: std::mem::take(&mut turn.events),
            changes,
            submissions: std::mem::take(&mut turn.submissions),
        };
        match self.store.commit(&commit).await {
            Ok(()) => {
                commit.events.iter().for_each(log_decision);
                self.snapshot.send_modify(|snapshot| {
                    snapshot.commits += 1;
                    let corrections =
                        commit.events.iter().filter(|event| matches!(event, Event::BillCorrected { .. }));
                    snapshot.corrections += corrections.count() as u64;
                    if !commit.changes.refused.is_empty() {
                        snapshot.refused = Arc::new(self.fleet.refused.clone());
                    }
                });
                self.waiters.answer(&self.fleet, &changed, now, &self.rules);
                self.heard.retain(|instance, _| self.fleet.instances.contains_key(instance));
                Ok(())
            }
            Err(failed) => {
                self.deposed = matches!(failed, StoreError::Deposed { .. });
                self.snapshot.send_modify(|snapshot| snapshot.failed_commits += 1);
                let told = CommitFailed(chain(&failed));
                self.stale = true;
                self.reload().await;
                Err(told)
            }
        }
    }

    /// Takes the state from the store again, after a commit that failed.
    async fn reload(&mut self) {
        match self.store.load().await {
            Ok(loaded) => {
                self.fleet = loaded.fleet;
                // The answer to a launch may have been in what was not stored.
                for instance in self.fleet.instances.values() {
                    if matches!(instance.state, InstanceState::Intended { .. }) {
                        self.effects.launch_unknown(instance.id);
                    }
                }
                self.stale = false;
                self.pacing.due = true;
            }
            Err(unreadable) => error!(error = %chain(&unreadable), "the store cannot be read again"),
        }
    }

    fn publish(&mut self, planned: Option<Vec<(ExperimentId, WaitingOn)>>) {
        let now = self.clock.now();
        self.waiters.answer(&self.fleet, &BTreeSet::new(), now, &self.rules);
        if let Some(waiting) = planned {
            let waiting = Arc::new(waiting.into_iter().collect());
            self.snapshot.send_modify(|snapshot| snapshot.waiting = waiting);
        }
    }

    fn sleep_until(&self, now: Timestamp, effects_at: Option<Timestamp>) -> Instant {
        let plan_at = self.pacing.wake_at;
        let next = [plan_at, effects_at, self.waiters.next_deadline()].into_iter().flatten().min();
        // The safety net: a turn now and then though nobody woke the loop.
        let next = next.unwrap_or(now + Span::from_secs(60)).max(now);
        let by_clock = Instant::now() + next.since(now).to_std();
        if !self.pacing.due {
            by_clock
        } else if self.knows_the_market(now) {
            by_clock.min(self.pacing.rested_at)
        } else {
            let patience_left = (self.started_at + FIRST_OFFERINGS_PATIENCE).since(now);
            by_clock.min(Instant::now() + patience_left.to_std())
        }
    }

    /// Makes the market anew from what each provider offers, and takes over prices of what runs.
    fn set_market(&mut self) {
        let Pricing { terms, discounts } = &self.rules.pricing;
        let quoted = self.offered.iter().flat_map(|(provider, listed)| {
            let terms = terms.get(provider).copied().unwrap_or_default();
            listed.iter().map(move |offering| quote(offering.clone(), &terms, discounts))
        });
        let market = Market::new(quoted.collect());
        self.snapshot.send_modify(|snapshot| snapshot.market = Arc::new(market));
        self.pacing.due = true;
    }
}

fn instances_of(changes: &Changes) -> BTreeSet<InstanceId> {
    let attempts = changes.attempts.iter().flat_map(|change| change.row.instances());
    changes.instances.iter().map(|change| change.row.id).chain(attempts).collect()
}

/// An error with what lies beneath it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    // Chains are short; the bound keeps a cycle from hanging us.
    for _ in 0..16 {
        let Some(cause) = source else { break };
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// One line for each decision that an operator wants to see in the log.
fn log_decision(event: &Event) {
    match event {
        Event::InstanceIntended { instance } => {
            info!(instance = %instance.id, offering = %instance.offering.key(), price = %instance.price.effective,
                held = %instance.held(), "launching");
        }
        Event::AttemptAssigned { attempt, .. } => {
            let on: Vec<String> = attempt.instances().map(|id| id.to_string()).collect();
            info!(experiment = %attempt.experiment, attempt = %attempt.id, on = on.join(" "), "assigned");
        }
        Event::AttemptStopping { attempt, why, .. } => info!(%attempt, %why, "stopping"),
        Event::RungReached { experiment, rung, score, .. } => info!(%experiment, rung, score, "rung reached"),
        Event::TrialPromoted { experiment, rung } => info!(%experiment, rung, "goes on from its rung"),
        Event::InstanceDraining { instance, why, .. } => info!(%instance, %why, "draining"),
        Event::InstanceTerminating { instance, why, .. } => info!(%instance, %why, "terminating"),
        Event::ExperimentEnded { experiment, outcome, .. } => info!(%experiment, %outcome, "ended"),
        Event::CapacityRefused { scope, until, .. } => warn!(%scope, %until, "refused"),
        Event::AttemptEnded { attempt, end, node, .. } => info!(%attempt, %end, node, "attempt ended"),
        Event::NodeLost { attempt, instance, end, .. } => info!(%attempt, %instance, %end, "node lost"),
        Event::AgentRegistered { instance, .. } => info!(%instance, "ready"),
        Event::InstanceNoticed { instance, gone_at } => warn!(%instance, %gone_at, "the cloud takes it back"),
        Event::InstanceAtRisk { instance, why } => warn!(%instance, why, "the cloud may take it back"),
        Event::InstanceGone { instance, end, .. } => info!(%instance, ?end, "gone"),
        Event::BudgetSet { key, terms, by, .. } => {
            info!(%key, limit = ?terms.as_ref().and_then(|terms| terms.limit), ?by, "budget set");
        }
        Event::BudgetAlerted { key, alert, .. } => warn!(%key, ?alert, "budget"),
        Event::IdleGpuAlerted { attempt, .. } => warn!(%attempt, "a GPU stays idle"),
        Event::BillCorrected { charge } => {
            info!(instance = %charge.instance, amount = %charge.costs().effective, "corrected by the bill");
        }
        Event::NotificationDelivered { notification, .. } => info!(%notification, "delivered"),
        Event::NotificationFailed { notification, error, backoff } => {
            let again_at = backoff.not_before;
            warn!(%notification, %error, failures = backoff.failures, ?again_at, "not delivered");
        }
        Event::NotificationDropped { notification, why, .. } => warn!(%notification, %why, "dropped"),
        Event::SpecAdded { .. }
        | Event::SweepQueued { .. }
        | Event::ExperimentQueued { .. }
        | Event::CancelRequested { .. }
        | Event::BudgetWindowBegan { .. }
        | Event::BillingBegan { .. }
        | Event::InstanceLaunched { .. }
        | Event::CallFailed { .. }
        | Event::LeaseExtended { .. }
        | Event::PriceChanged { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptRecorded { .. }
        | Event::AttemptCheckpointed { .. }
        | Event::MetricsReported { .. }
        | Event::GpuIdle { .. }
        | Event::Charged { .. }
        | Event::CapacityFound { .. }
        | Event::NotificationQueued { .. }
        | Event::ReportReached { .. } => {}
    }
}
