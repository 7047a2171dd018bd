//! A store with a witness: it keeps the real store, fails or stops where it is told to, and after every commit holds
//! what was committed against itself, against the journal and against the cloud.
//!
//! The witness applies the journal to a fleet of its own. The store's rows come from the reconciler's memory. So when
//! both agree after every commit, memory, journal and tables say the same (S1), and no hook in the daemon is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bursar_model::{
    Account, AttemptEnd, Budget, BudgetKey, Charge, ChargeClass, Clock, Event, Fleet, Instance, InstanceId,
    InvariantId, Outcome, Price, ProjectName, Scope, Span, Timestamp, Usd, UserName, Violation, invariant,
};
use bursar_providers::{LIST_KEEPS_ENDED, LISTING_LAG};
use bursar_store::{Commit, Loaded, Reader, SqliteStore, Store, StoreError, Submission};

use crate::{
    books::Books,
    cap::Cap,
    clock::SimClock,
    cloud::{EVER, ROUNDING, SHUTDOWN, SimCloud},
    ground::{DELAY_MAX, Ground},
    life::{Boundary, Life, Side},
    world::{Checks, INSTALLATION},
};

/// So long after the cloud has stopped counting a machine's agent may be heard: while the machine shuts down, and a
/// message is on its way.
const HEARD_LATE_MAX: Span = Span::from_millis(SHUTDOWN.1.as_millis() + DELAY_MAX.as_millis() + 1_000);

/// A part of the market that has refused is left alone for so long at least.
const REFUSED_REST: Span = Span::from_secs(10);

/// What was committed so far, and what is to happen at the next commits. Copies are the same witness.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    state: Arc<Mutex<State>>,
    cloud: SimCloud,
    ground: Ground,
    clock: SimClock,
    checks: Checks,
}

#[derive(Debug, Default)]
struct State {
    fleet: Fleet,
    closed: BTreeMap<InstanceId, Closed>,
    commits: u64,
    /// The names of all experiments: a world submits each under its name as the key, and so once.
    names: BTreeSet<Arc<str>>,
    /// For whom they are.
    payers: BTreeSet<(ProjectName, UserName)>,
    books: Books,
    /// The budgets that outlive their work, as they were set last.
    caps: BTreeMap<BudgetKey, Cap>,
    /// When each part of the market refused last.
    refused: BTreeMap<Scope, Timestamp>,
    refusals: u32,
    deposed: bool,
    /// A machine that hangs has run for longer than it was paid for.
    outlived: bool,
    /// What was charged for time that was paid for by no lease, because the daemon's clock lost time while it was down:
    /// a step back that no life of it saw.
    mistimed: Usd,
    /// When the store was last held against the journal.
    checked_at: Timestamp,
}

/// What the ledger says of an instance that is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    pub(crate) booked: Usd,
    /// By how much that may be above the bill.
    pub(crate) excess_max: Usd,
    /// By how much it may be below.
    pub(crate) deficit_max: Usd,
    /// The cloud never had it: then only what could not be seen any more may be booked.
    pub(crate) never_ran: bool,
}

/// The store as the reconciler has it.
#[derive(Debug)]
pub(crate) struct WitnessStore {
    inner: SqliteStore,
    witness: Witness,
    life: Life,
}

impl Witness {
    pub(crate) fn new(cloud: SimCloud, ground: Ground, clock: SimClock, checks: Checks) -> Self {
        Self { state: Arc::default(), cloud, ground, clock, checks }
    }

    pub(crate) fn watch(&self, inner: SqliteStore, life: Life) -> WitnessStore {
        WitnessStore { inner, witness: self.clone(), life }
    }

    /// The next so many commits find the disk full.
    pub(crate) fn refuse_commits(&self, count: u32) {
        self.state().refusals += count;
    }

    /// The next commit finds that a newer daemon leads.
    pub(crate) fn depose(&self) {
        self.state().deposed = true;
    }

    /// What a commit meets that is not to succeed; counts it where it is.
    fn refuses(&self, commit: &Commit) -> Result<(), StoreError> {
        let mut state = self.state();
        if std::mem::take(&mut state.deposed) {
            return Err(StoreError::Deposed { ours: commit.epoch, current: commit.epoch + 1 });
        }
        if state.refusals > 0 {
            state.refusals -= 1;
            return Err(StoreError::Full);
        }
        state.commits += 1;
        Ok(())
    }

    pub(crate) fn commits(&self) -> u64 {
        self.state().commits
    }

    /// Looks at the state as committed.
    pub(crate) fn with_fleet<T>(&self, look: impl FnOnce(&Fleet) -> T) -> T {
        look(&self.state().fleet)
    }

    /// The state as committed.
    pub(crate) fn fleet(&self) -> Fleet {
        self.state().fleet.clone()
    }

    /// Whether a machine has run for longer than it was paid for, since it hung or by a wrong clock, so that no budget can
    /// be kept any more.
    pub(crate) fn has_outlived(&self) -> bool {
        let state = self.state();
        state.outlived || state.mistimed > Usd::ZERO
    }

    /// The ledger's word on all that is gone.
    pub(crate) fn closed(&self) -> BTreeMap<InstanceId, Closed> {
        self.state().closed.clone()
    }

    /// Holds what the cloud does against what was committed. To be called at any time.
    pub(crate) fn compare_with_cloud(&self) {
        self.judge_caps();
        for id in self.cloud.ended_of_others(INSTALLATION) {
            self.ground.report(InvariantId::O2, format!("{id} is somebody else's and was ended"));
        }
        let mut state = self.state();
        for id in self.cloud.running() {
            let State { fleet, outlived, .. } = &mut *state;
            let Some(instance) = fleet.instances.get(&id) else {
                self.ground.report(InvariantId::O1, format!("{id} runs and is forgotten"));
                continue;
            };
            if self.cloud.is_hung(id) && self.clock.now() > instance.paid_until() {
                // Only the daemon can end it, and it may be dead or unable to: no budget can be kept by what it costs.
                *outlived = true;
                continue;
            }
            let (billed, _) = self.cloud.bounds(id);
            let set_aside = instance.meter.costs.effective + instance.held();
            if billed > set_aside + ROUNDING {
                let now = self.clock.now();
                self.ground.report(
                    InvariantId::B1,
                    format!(
                        "{id} is billed {billed} at least at {now}, {set_aside} is charged or held for it"
                    ),
                );
            }
        }
    }

    /// Holds what the cloud bills against the budgets above all work of the world: all of it counts in each.
    fn judge_caps(&self) {
        let state = self.state();
        let is_above = |key: &BudgetKey, (project, user): &(ProjectName, UserName)| match key {
            BudgetKey::Installation => true,
            BudgetKey::Project(name) => name == project,
            BudgetKey::User(name) => name == user,
            BudgetKey::Sweep(_) | BudgetKey::Experiment(_) => false,
        };
        let is_above_all = |key: &BudgetKey| state.payers.iter().all(|payer| is_above(key, payer));
        for (key, cap) in state.caps.iter().filter(|(key, _)| is_above_all(key)) {
            if let Some(overspent) = cap.judge(&self.cloud, self.clock.now()) {
                self.ground.report(InvariantId::B1, format!("{key}: {overspent}"));
            }
        }
    }

    fn see(&self, commit: &Commit) {
        let mut state = self.state();
        for event in &commit.events {
            self.judge(&mut state, event, commit.at);
            state.books.enter(event);
            if let Event::Charged { charge, .. } = event
                && charge.class == ChargeClass::Usage
            {
                self.judge_time(&mut state, charge);
            }
            if let Event::BudgetSet { key, terms, .. } = event
                && !key.ends_with_its_work()
            {
                let held: Usd = state.fleet.instances.values().map(Instance::held).sum();
                let charged_across = |moment| state.books.charged_across(key, moment);
                let cap = Cap::of(terms.as_ref()).set_while_running(
                    &self.cloud,
                    self.clock.now(),
                    held,
                    charged_across,
                );
                state.caps.insert(key.clone(), cap);
            }
            if let Err(illegal) = state.fleet.apply(event) {
                self.ground.report(InvariantId::S2, illegal.to_string());
            }
            if let Event::InstanceIntended { instance } = event {
                self.ground.intend(instance.id);
            }
            if let Event::InstanceGone { instance, .. } = event {
                if self.cloud.running().contains(instance) {
                    self.ground.report(InvariantId::O3, format!("{instance} is forgotten and runs"));
                }
                let closed =
                    state.fleet.instances.get(instance).map(|found| self.close(found, self.clock.now()));
                state.closed.extend(closed.map(|closed| (*instance, closed)));
            }
        }
        // What is over leaves the fleet with the changes, as it leaves the reconciler's.
        let _ = state.fleet.take_changes();
    }

    /// Nothing is charged beyond what is paid for, but for a machine that hangs, and by a wrong clock.
    fn judge_time(&self, state: &mut State, charge: &Charge) {
        let Some(instance) = state.fleet.instances.get(&charge.instance) else { return };
        let from = instance.meter.from.unwrap_or(charge.period.from);
        let ends_by = instance.held_until().max(from + instance.drain_allowance);
        let beyond = charge.period.to.since(instance.offering.terms.billing.billed_until(from, ends_by));
        if beyond <= Span::ZERO {
            return;
        }
        if self.cloud.is_hung(instance.id) {
            // For a moment only, perhaps, in which nobody looked.
            state.outlived = true;
            return;
        }
        if beyond > self.ground.error_of_clock().spread() {
            let detail = format!("{} is charged for {beyond} beyond what was paid for", instance.id);
            self.ground.report(InvariantId::B1, detail);
        }
        state.mistimed += charge.rates.effective.cost_rounded_up(beyond);
    }

    fn is_check_due(&self, now: Timestamp) -> bool {
        match self.checks {
            Checks::EveryCommit => true,
            Checks::Every(span) => {
                let mut state = self.state();
                let is_due = now.since(state.checked_at) >= span;
                if is_due {
                    state.checked_at = now;
                }
                is_due
            }
        }
    }

    fn check(&self, stored: &Fleet) {
        let state = self.state();
        if state.fleet != *stored {
            self.ground.report(InvariantId::S1, differences(&state.fleet, stored));
        }
        for (key, budget) in stored.budgets.iter().filter(|(key, _)| !key.ends_with_its_work()) {
            if let Some(wrong) = state.books.judge(key, budget) {
                self.ground.report(InvariantId::B1, wrong);
            }
        }
        // Prices that were heard of late and the installation's own overhead come on top of the cloud's bill.
        let hung = self.cloud.bill_of_hung(EVER);
        let excused = if state.outlived { hung + hung } else { Usd::ZERO } + state.mistimed;
        drop(state);
        let is_excused = |violation: &Violation| {
            let within =
                |budget: &Budget| budget.ceiling().is_none_or(|most| budget.committed() <= most + excused);
            violation.invariant == InvariantId::B1
                && excused > Usd::ZERO
                && stored.budgets.values().all(within)
        };
        for violation in invariant::check(stored).into_iter().filter(|violation| !is_excused(violation)) {
            self.ground.report(violation.invariant, violation.detail);
        }
        self.compare_with_cloud();
    }

    /// What an event must not say, whatever the state.
    fn judge(&self, state: &mut State, event: &Event, at: Timestamp) {
        if let Event::ExperimentQueued { experiment } = event {
            let Account { project, user, .. } = &*experiment.account;
            state.payers.insert((project.clone(), user.clone()));
            if !state.names.insert(experiment.name.clone()) {
                self.ground.report(InvariantId::E2, format!("{} was accepted twice", experiment.name));
            }
        }
        if let Event::ExperimentEnded { experiment, outcome, .. } = event {
            let never_worked = self.ground.finished(*experiment) == 0;
            let is_blameless =
                matches!(outcome, Outcome::Failed { end: AttemptEnd::InstanceLost { interrupted: true } });
            if *outcome == Outcome::Succeeded && never_worked || is_blameless {
                self.ground.report(InvariantId::E2, format!("{experiment} is over as {outcome}, wrongly"));
            }
        }
        // A correction is of the time of a charge that was made before, under whatever windows there were then.
        if let Event::Charged { charge, .. } = event
            && charge.class == ChargeClass::Usage
        {
            let charged = |key: &BudgetKey| {
                charge.lines.iter().any(|line| line.account.budgets(line.payer).any(|above| above == *key))
            };
            let begins_within = |budget: &Budget| {
                budget
                    .window
                    .is_some_and(|window| charge.period.from < window.from && window.from < charge.period.to)
            };
            for (key, _) in
                state.fleet.budgets.iter().filter(|(key, budget)| begins_within(budget) && charged(key))
            {
                let detail = format!(
                    "a charge of {} begins in one window of {key} and ends in the next",
                    charge.instance
                );
                self.ground.report(InvariantId::B1, detail);
            }
        }
        if let Event::CapacityRefused { scope, .. } = event {
            state.refused.insert(scope.clone(), at);
        }
        if let Event::CapacityFound { scope } = event {
            state.refused.remove(scope);
        }
        if let Event::InstanceIntended { instance } = event {
            let refused = |(scope, refused_at): (&Scope, &Timestamp)| {
                at.since(*refused_at) < REFUSED_REST && scope.covers(&instance.offering)
            };
            let is_over = |budget: &Budget| budget.window.is_some_and(|window| window.to <= at);
            for (key, _) in state.fleet.budgets.iter().filter(|(_, budget)| is_over(budget)) {
                let detail = format!("{} is launched while {key} is in a window that is over", instance.id);
                self.ground.report(InvariantId::B1, detail);
            }
            if state.refused.iter().any(refused) {
                let detail = format!("{} is launched where a launch was just refused", instance.id);
                self.ground.report(InvariantId::P1, detail);
            }
        }
    }

    /// What the ledger says of an instance that is gone.
    fn close(&self, instance: &Instance, now: Timestamp) -> Closed {
        let Instance { id, meter, offering, .. } = instance;
        let (Some(ended), Some(billed)) = (self.cloud.ended(*id), self.cloud.billed(*id)) else {
            // What was over for long when it was looked for may have been; then all that was paid for is counted.
            let by_its_clock = now + self.ground.error_of_clock().spread();
            let is_unlisted = meter.from.is_some_and(|from| by_its_clock.since(from) >= LIST_KEEPS_ENDED);
            let excess_max = if is_unlisted { Usd::MAX } else { Usd::ZERO };
            let booked = meter.costs.contracted;
            return Closed { booked, excess_max, deficit_max: Usd::ZERO, never_ran: true };
        };
        // When the cloud no longer lists its end, the ledger counts all that was paid for, from the launch where nobody
        // saw it run: more than the bill, never less, unless it hung, when its lease did not end it.
        // A list that showed half of it may have been the last that could.
        let is_unlisted = now.since(ended) + LISTING_LAG + LISTING_LAG >= LIST_KEEPS_ENDED;
        let unseen = |from: Timestamp| {
            let ends_by = instance.paid_until().max(from + instance.drain_allowance);
            let paid_until = offering.terms.billing.billed_until(from, ends_by);
            billed.from.since(from) + paid_until.since(billed.to)
        };
        let unseen = meter.from.filter(|_| is_unlisted).map_or(Span::ZERO, unseen);
        let outlived = is_unlisted && self.cloud.is_hung(*id);
        // While it shuts down, the cloud may count no longer what its agent is still heard in.
        // By how much that is later cannot be told where its clock was wrong, which is allowed for apart.
        let heard_late = meter.through.since(billed.to);
        let is_wrong_by = self.ground.error_of_clock().spread();
        let is_late = heard_late > HEARD_LATE_MAX + is_wrong_by;
        let excess = unseen.max(if is_late { Span::ZERO } else { heard_late.min(HEARD_LATE_MAX) });
        let most = instance.rates_at(Price::plain(instance.ceiling)).contracted;
        // The overhead of the installation is not on the cloud's bill.
        Closed {
            booked: meter.costs.contracted,
            excess_max: most.cost_rounded_up(excess),
            deficit_max: if outlived { Usd::MAX } else { Usd::ZERO },
            never_ran: false,
        }
    }

    /// Every change is a single step, so that a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for WitnessStore {
    async fn load(&mut self) -> Result<Loaded, StoreError> {
        let loaded = self.inner.load().await?;
        let state = self.witness.state();
        if state.fleet != loaded.fleet {
            self.witness.ground.report(InvariantId::S1, differences(&state.fleet, &loaded.fleet));
        }
        drop(state);
        Ok(loaded)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let boundary = self.life.next_boundary(Boundary::Commit);
        self.life.pass(boundary, Side::Before).await;
        self.witness.refuses(commit)?;
        self.inner.commit(commit).await?;
        self.witness.see(commit);
        if self.witness.is_check_due(commit.at) {
            self.witness.check(&self.inner.load().await?.fleet);
        }
        self.life.pass(boundary, Side::After).await;
        Ok(())
    }

    async fn submission(&mut self, key: &str) -> Result<Option<Submission>, StoreError> {
        self.inner.submission(key).await
    }

    fn reader(&self) -> Reader {
        self.inner.reader()
    }
}

/// The first part in which two fleets differ.
fn differences(journal: &Fleet, stored: &Fleet) -> String {
    let parts = [
        ("specs", journal.specs == stored.specs),
        ("sweeps", journal.sweeps == stored.sweeps),
        ("experiments", journal.experiments == stored.experiments),
        ("attempts", journal.attempts == stored.attempts),
        ("instances", journal.instances == stored.instances),
        ("budgets", journal.budgets == stored.budgets),
        ("refused", journal.refused == stored.refused),
        ("outbox", journal.outbox == stored.outbox),
        ("reported", journal.reported == stored.reported),
    ];
    let names: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    format!("the journal and the tables differ in {}", names.join(", "))
}
