//! Events: everything that ever changes the state, as facts with all their numbers worked out beforehand.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    budget::{BudgetAlert, BudgetKey, BudgetTerms, Counted, SetBy},
    charge::Charge,
    experiment::{Attempt, AttemptEnd, Experiment, Outcome, StopReason, Sweep},
    host::Host,
    id::{AttemptId, ExperimentId, InstanceId, NotificationId},
    instance::{Backoff, CloudInstance, DrainReason, Instance, InstanceEnd, Meter, Share},
    money::Usd,
    notification::{DropReason, Notification},
    offering::Scope,
    pricing::Price,
    provenance::RanWith,
    spec::{ExperimentSpec, SpecId},
    time::{Period, Span, Timestamp},
};

/// A fact. `Fleet::apply` is the only thing that acts on it; the store keeps all of them in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A spec that no live experiment had.
    SpecAdded {
        /// Its content address.
        id: SpecId,
        /// The spec.
        spec: Arc<ExperimentSpec>,
    },
    /// A sweep was accepted. Its trials follow as `ExperimentQueued`.
    SweepQueued {
        /// The sweep.
        sweep: Sweep,
    },
    /// An experiment was accepted.
    ExperimentQueued {
        /// The experiment, in state `Queued`.
        experiment: Experiment,
    },
    /// Somebody asked that an experiment ends.
    CancelRequested {
        /// Which.
        experiment: ExperimentId,
    },
    /// An experiment without a live attempt is over.
    ExperimentEnded {
        /// Which.
        experiment: ExperimentId,
        /// When.
        at: Timestamp,
        /// How.
        outcome: Outcome,
    },
    /// A budget's terms were laid down: its limit was set, raised, lowered or lifted.
    BudgetSet {
        /// Which budget.
        key: BudgetKey,
        /// The terms; `None` lifts them.
        terms: Option<Arc<BudgetTerms>>,
        /// By whom.
        by: SetBy,
        /// The window that counts now, where the terms have windows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Period>,
        /// What counts in that window, where it is not the one that counted before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counted: Option<Counted>,
    },
    /// A new window of a budget began, with nothing spent.
    BudgetWindowBegan {
        /// Which budget.
        key: BudgetKey,
        /// The window.
        window: Period,
    },
    /// Somebody is to be told of a budget.
    BudgetAlerted {
        /// Which budget.
        key: BudgetKey,
        /// When it was seen.
        at: Timestamp,
        /// What.
        alert: BudgetAlert,
    },
    /// We will launch this instance. Committed, with its holds, before any provider is called.
    InstanceIntended {
        /// The instance, in state `Intended`.
        instance: Box<Instance>,
    },
    /// The cloud says that the instance exists.
    InstanceLaunched {
        /// The cloud's record.
        cloud: CloudInstance,
        /// When we learned it.
        at: Timestamp,
    },
    /// The agent of an instance registered.
    AgentRegistered {
        /// Which instance.
        instance: InstanceId,
        /// When.
        at: Timestamp,
        /// SHA-256 of the token that it got, in hex.
        token_digest: String,
        /// What it found there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<Box<Host>>,
        /// Where other nodes reach it.
        address: IpAddr,
    },
    /// The cloud said that it will take an instance back.
    InstanceNoticed {
        /// Which instance.
        instance: InstanceId,
        /// When it will be gone.
        gone_at: Timestamp,
    },
    /// The cloud said that an instance is likely to be taken back, without saying when.
    InstanceAtRisk {
        /// Which instance.
        instance: InstanceId,
        /// What the cloud said.
        why: String,
    },
    /// A call to the provider about an instance failed or was lost; it will be made again with the same token.
    CallFailed {
        /// Which instance.
        instance: InstanceId,
        /// How often now, and when again.
        backoff: Backoff,
    },
    /// An instance is paid for until later, by these shares.
    LeaseExtended {
        /// Which instance.
        instance: InstanceId,
        /// The new end of its lease.
        until: Timestamp,
        /// Until when money is held at least, though the lease is shorter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        funded_until: Option<Timestamp>,
        /// Who pays from now on, with what is now held for it.
        shares: BTreeMap<ExperimentId, Share>,
    },
    /// The cloud says since when it bills an instance.
    BillingBegan {
        /// Which instance.
        instance: InstanceId,
        /// Since then.
        at: Timestamp,
    },
    /// The price in force of a running instance changed.
    PriceChanged {
        /// Which instance.
        instance: InstanceId,
        /// Since when. What is charged already stays charged at the price before.
        at: Timestamp,
        /// The new price.
        price: Price,
    },
    /// No new work for an instance; what runs is told to stop.
    InstanceDraining {
        /// Which instance.
        instance: InstanceId,
        /// When.
        at: Timestamp,
        /// Why.
        why: DrainReason,
    },
    /// The end of an instance is asked for from now on.
    InstanceTerminating {
        /// Which instance.
        instance: InstanceId,
        /// When.
        at: Timestamp,
        /// Why.
        why: DrainReason,
    },
    /// An instance is gone, by the cloud's word; its holds are released.
    InstanceGone {
        /// Which instance.
        instance: InstanceId,
        /// When it ended.
        at: Timestamp,
        /// How.
        end: InstanceEnd,
    },
    /// An attempt was given to its instances.
    AttemptAssigned {
        /// The attempt, in state `Assigned`.
        attempt: Attempt,
        /// How each of its instances is paid for from now on.
        paid: BTreeMap<InstanceId, Paid>,
    },
    /// The agent started an attempt's work.
    AttemptStarted {
        /// Which attempt.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
    },
    /// An agent said what an attempt runs with.
    AttemptRecorded {
        /// Which attempt.
        attempt: AttemptId,
        /// What.
        ran_with: Box<RanWith>,
    },
    /// An attempt saved its work.
    AttemptCheckpointed {
        /// Which attempt.
        attempt: AttemptId,
        /// As of when its work is safe.
        at: Timestamp,
        /// How long it took to store, where it was stored beyond its machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took: Option<Span>,
    },
    /// An attempt reported metrics.
    MetricsReported {
        /// Which attempt.
        attempt: AttemptId,
        /// The newest value of each.
        metrics: BTreeMap<String, f64>,
    },
    /// A GPU of an attempt is idle by its experiment's `utilization_policy`, or no longer.
    GpuIdle {
        /// Which attempt.
        attempt: AttemptId,
        /// Since then; `None` where all its GPUs are used again.
        since: Option<Timestamp>,
    },
    /// Somebody is to be told that a GPU of an attempt stays idle.
    IdleGpuAlerted {
        /// Which attempt.
        attempt: AttemptId,
        /// When it was seen.
        at: Timestamp,
    },
    /// A trial reached the rung of its sweep's asha to which it may run.
    RungReached {
        /// Which trial.
        experiment: ExperimentId,
        /// The rung, counted from 0.
        rung: u32,
        /// What it reported there; none where that was no finite number.
        score: Option<f64>,
        /// What it has been charged so far.
        cost: Usd,
    },
    /// A trial may run to the next rung of its sweep's asha.
    TrialPromoted {
        /// Which trial.
        experiment: ExperimentId,
        /// The rung that it leaves, counted from 0.
        rung: u32,
    },
    /// An attempt was told to checkpoint and end.
    AttemptStopping {
        /// Which attempt.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
        /// Why.
        why: StopReason,
        /// Without time to save: its budget says so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_once: bool,
    },
    /// The instance of a node went away, while others of its attempt are still there: they are told to stop, and the
    /// attempt is over once they have.
    NodeLost {
        /// Which attempt.
        attempt: AttemptId,
        /// Where the node was.
        instance: InstanceId,
        /// When.
        at: Timestamp,
        /// How the node ended.
        end: AttemptEnd,
    },
    /// An attempt is over; its experiment waits again unless `ExperimentEnded` follows.
    AttemptEnded {
        /// Which attempt.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
        /// How.
        end: AttemptEnd,
        /// The rank of the node that ended it for all, where there are several and it was one of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u32>,
        /// Whether it failed of itself, which counts against `retry`.
        failed: bool,
        /// When the experiment may be tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
    },
    /// An instance is charged for a period.
    Charged {
        /// What and by whom.
        charge: Charge,
        /// The instance's meter afterwards.
        meter: Meter,
        /// What is held for each share afterwards.
        held: BTreeMap<ExperimentId, Usd>,
    },
    /// The cloud's bill says something else than was charged: a correction, also for what is long over.
    BillCorrected {
        /// What is mended, and by whom it is paid. Of class `Correction`.
        charge: Charge,
    },
    /// The provider refused a launch: a part of the market is not asked for a while.
    CapacityRefused {
        /// Which part.
        scope: Scope,
        /// How often in a row.
        failures: u32,
        /// Until when it is left alone.
        until: Timestamp,
    },
    /// A part of the market gave what it was asked for: what was held against it is forgotten.
    CapacityFound {
        /// Which part.
        scope: Scope,
    },
    /// A webhook is to be told something.
    NotificationQueued {
        /// What, in state `Waiting`.
        notification: Box<Notification>,
    },
    /// A webhook took a notification.
    NotificationDelivered {
        /// Which.
        notification: NotificationId,
        /// When.
        at: Timestamp,
    },
    /// A webhook did not take a notification. It is tried again.
    NotificationFailed {
        /// Which.
        notification: NotificationId,
        /// Why, for people.
        error: String,
        /// When it is tried again.
        backoff: Backoff,
    },
    /// A notification is not tried again.
    NotificationDropped {
        /// Which.
        notification: NotificationId,
        /// When.
        at: Timestamp,
        /// Why.
        why: DropReason,
    },
    /// A scheduled report has covered all time up to a firing of its schedule.
    ReportReached {
        /// Which, by its name.
        report: String,
        /// Up to there; `None` where the configuration no longer names it.
        until: Option<Timestamp>,
    },
}

/// How an instance is paid for once an attempt was given to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// Who pays for it, with what is now held for it.
    pub shares: BTreeMap<ExperimentId, Share>,
    /// Until when money is held at least, though the lease is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funded_until: Option<Timestamp>,
}
