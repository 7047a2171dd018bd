//! What the reconciler is told. Nobody else touches the live state; whoever wants something sends one of these.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_model::{
    Account, AshaRules, AttemptId, BudgetAlert, BudgetKey, BudgetTerms, Charge, CloudInstance, CostEstimate,
    Digest, ExperimentId, ExperimentSpec, InstanceId, NotificationId, Offering, Params, ProviderName,
    SecretRef, SetBy, SpecId, SweepId, Timestamp, UserName, WaitingOn,
    agent_api::{RegisterRequest, SyncReply, SyncRequest},
};
use bursar_policies::Candidate;
use bursar_providers::ProviderError;
use tokio::sync::{mpsc, oneshot};

use crate::{notify::Undelivered, rules::Rules};

/// The most messages that wait. A sender beyond waits itself, which slows clients down instead of filling memory.
const INBOX_MAX: usize = 4096;

/// Where messages go in. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::Sender<Message>);

/// Where they come out: the reconciler's.
pub type Messages = mpsc::Receiver<Message>;

/// Both ends.
#[must_use]
pub fn inbox() -> (Inbox, Messages) {
    let (sender, receiver) = mpsc::channel(INBOX_MAX);
    (Inbox(sender), receiver)
}

/// The daemon is stopping: nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopping;

impl Inbox {
    /// Tells, and waits for a place in the queue where it is full.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn tell(&self, message: Message) -> Result<(), Stopping> {
        self.0.send(message).await.map_err(|_| Stopping)
    }

    /// Tells and waits for the answer.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).await?;
        answer.await.map_err(|_| Stopping)
    }
}

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Accept experiments or a sweep.
    Submit {
        /// What.
        request: Box<SubmitRequest>,
        /// Answered once it is durable.
        reply: oneshot::Sender<Result<Accepted, SubmitError>>,
    },
    /// End experiments.
    Cancel {
        /// Which.
        target: CancelTarget,
        /// Answered once it is durable, with how many it concerns.
        reply: oneshot::Sender<Result<usize, CommitFailed>>,
    },
    /// End an instance before its time.
    EndInstance {
        /// Which.
        instance: InstanceId,
        /// Though something runs on it.
        force: bool,
        /// Answered once it is durable, with how many attempts are told to stop because of it.
        reply: oneshot::Sender<Result<usize, EndInstanceError>>,
    },
    /// Change the terms of a budget.
    SetBudget {
        /// Which.
        key: BudgetKey,
        /// The new terms; `None` lifts them.
        terms: Option<Arc<BudgetTerms>>,
        /// Who says so.
        by: SetBy,
        /// Answered once it is durable, with the experiments that are told to stop because of it.
        reply: oneshot::Sender<Result<Vec<ExperimentId>, SetBudgetError>>,
    },
    /// Go by these rules from now on, as a start with them would.
    Reload {
        /// All of them.
        rules: Box<Rules>,
        /// Answered once it is durable, with the budgets that have other terms than the rules say.
        reply: oneshot::Sender<Result<Vec<StandingBudget>, CommitFailed>>,
    },
    /// Mend what was charged by what a cloud billed: all of it, or nothing where anything was mended meanwhile.
    CorrectByBill {
        /// The charges that mend it, of what is over.
        charges: Vec<Charge>,
        /// `Snapshot::corrections` from before the store was read for them.
        as_of: u64,
        /// Answered once it is durable.
        reply: oneshot::Sender<Result<(), CorrectError>>,
    },
    /// An agent registers.
    Register {
        /// What it says.
        request: RegisterRequest,
        /// What it is to do, or that it is not welcome.
        reply: oneshot::Sender<AgentAnswer>,
    },
    /// An agent reports and asks.
    Sync {
        /// SHA-256 of the token that it showed, in hex.
        token_digest: String,
        /// What it says.
        request: SyncRequest,
        /// What it is to do; may be held back until there is news.
        reply: oneshot::Sender<AgentAnswer>,
    },
    /// An agent wants to deliver the log of its node of an attempt: which node is that?
    AuthorizeLog {
        /// SHA-256 of the token that it showed, in hex.
        token_digest: String,
        /// Whose log.
        attempt: AttemptId,
        /// Its rank; none where the attempt is not its own.
        reply: oneshot::Sender<Option<u32>>,
    },
    /// An agent wants to fetch a packed working folder: does an attempt that it has need it?
    AuthorizeBlob {
        /// SHA-256 of the token that it showed, in hex.
        token_digest: String,
        /// Which.
        digest: Digest,
        /// Yes or no.
        reply: oneshot::Sender<bool>,
    },
    /// Which packed working folders do experiments need that are not over?
    WorkdirsInUse {
        /// Those.
        reply: oneshot::Sender<BTreeSet<Digest>>,
    },
    /// A secret that an attempt needs could not be read.
    SecretMissing {
        /// Which attempt.
        attempt: AttemptId,
        /// The instance whose agent asked for it.
        instance: InstanceId,
        /// Why, for people.
        error: String,
    },
    /// What a launch came to.
    Launched {
        /// Which instance.
        instance: InstanceId,
        /// The provider's answer.
        result: Result<CloudInstance, ProviderError>,
    },
    /// What asking for an end came to.
    Terminated {
        /// Which instance.
        instance: InstanceId,
        /// The provider's answer.
        result: Result<(), ProviderError>,
    },
    /// What a provider has of ours.
    Listed {
        /// Which provider.
        provider: ProviderName,
        /// When it was asked.
        asked_at: Timestamp,
        /// Its answer.
        result: Result<Vec<CloudInstance>, ProviderError>,
    },
    /// What a provider offers.
    Offered {
        /// Which provider.
        provider: ProviderName,
        /// Its answer.
        result: Result<Vec<Offering>, ProviderError>,
    },
    /// What a delivery came to.
    Delivered {
        /// Which notification.
        notification: NotificationId,
        /// The webhook's answer.
        result: Result<(), Undelivered>,
    },
    /// What a look ahead came to.
    Foreseen {
        /// What somebody is to be told, if nobody was yet.
        alerts: Vec<(BudgetKey, BudgetAlert)>,
    },
    /// What would be chosen for a spec now, and why not the others. Changes nothing.
    Candidates {
        /// For what.
        of: CandidatesOf,
        /// The answer; `None` for an unknown experiment.
        reply: oneshot::Sender<Option<Vec<Candidate>>>,
    },
}

/// Whose candidates.
#[derive(Debug)]
pub enum CandidatesOf {
    /// Of a spec that was not submitted.
    Spec(Box<ExperimentSpec>, Account),
    /// Of an experiment that is not over.
    Experiment(ExperimentId),
}

/// A checked submission.
#[derive(Debug)]
pub struct SubmitRequest {
    /// The client's key, where it gave one, with the SHA-256 of what it submitted.
    pub key: Option<(String, [u8; 32])>,
    /// Who submits.
    pub user: UserName,
    /// What.
    pub content: SubmitContent,
}

/// What is submitted.
#[derive(Debug)]
pub enum SubmitContent {
    /// Experiments, each on its own.
    Experiments(Vec<NewExperiment>),
    /// A sweep.
    Sweep(NewSweep),
}

/// A checked experiment.
#[derive(Debug, Clone)]
pub struct NewExperiment {
    /// What people call it.
    pub name: Arc<str>,
    /// Its spec's content address.
    pub spec_id: SpecId,
    /// Its spec.
    pub spec: Arc<ExperimentSpec>,
    /// What it is expected to cost.
    pub expected: Option<CostEstimate>,
}

/// A checked sweep.
#[derive(Debug)]
pub struct NewSweep {
    /// What people call it.
    pub name: Arc<str>,
    /// The spec of each trial.
    pub spec_id: SpecId,
    /// The spec of each trial.
    pub spec: Arc<ExperimentSpec>,
    /// The trials.
    pub trials: Vec<Params>,
    /// What all trials may cost.
    pub budget: Option<Arc<BudgetTerms>>,
    /// How many may run at once.
    pub max_parallel: Option<u32>,
    /// How its trials are halved.
    pub asha: Option<AshaRules>,
    /// What each trial is expected to cost.
    pub expected: Option<CostEstimate>,
}

/// What a submission became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The sweep, where it was one.
    pub sweep: Option<SweepId>,
    /// The experiments, in order.
    pub experiments: Vec<ExperimentId>,
    /// True when the key was known: this is what the first submission became.
    pub repeated: bool,
    /// What the first experiment waits for, where the plan has been made.
    pub waiting: Option<WaitingOn>,
}

/// Why a submission was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The key came before with another content.
    #[error("the key `{0}` was used before for another submission: use a new key")]
    KeyReused(String),
    /// Nothing was stored.
    #[error(transparent)]
    NotStored(#[from] CommitFailed),
}

/// Why the terms of a budget were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetBudgetError {
    /// What it pays for is over.
    #[error("{0} pays for nothing any more: what it was for is over")]
    Over(BudgetKey),
    /// Nothing was stored.
    #[error(transparent)]
    NotStored(#[from] CommitFailed),
}

/// Why an instance goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndInstanceError {
    /// It is not there.
    #[error("there is no instance {0} that could be ended: it is gone, or never was")]
    NotLive(InstanceId),
    /// Whether it exists is not known yet.
    #[error("{0} is being launched: cancel what waits for it, or ask again once it boots")]
    Launching(InstanceId),
    /// Something runs on it.
    #[error("{runs} runs on {instance}: wait for it, cancel it, or interrupt it by --force, so that it goes on elsewhere", runs = .experiments.join(", "))]
    Busy {
        /// Which.
        instance: InstanceId,
        /// What runs there, by name.
        experiments: Vec<String>,
    },
    /// Nothing was stored.
    #[error(transparent)]
    NotStored(#[from] CommitFailed),
}

/// Why nothing was mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorrectError {
    /// What was charged is not what the bill was compared with.
    #[error("what was charged has changed since the bill was compared: run `bursar reconcile` again")]
    Changed,
    /// More will be charged.
    #[error("{0} is not over: what is billed of it so far is not all")]
    NotOver(InstanceId),
    /// Nobody would pay.
    #[error("{0} was never charged to anybody: nobody is there to pay the difference")]
    NeverCharged(InstanceId),
    /// Nothing was stored.
    #[error(transparent)]
    NotStored(#[from] CommitFailed),
}

/// The store did not take the turn: nothing of it happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing was stored: {0}")]
pub struct CommitFailed(pub String);

/// A budget whose terms are not those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingBudget {
    /// Which.
    pub key: BudgetKey,
    /// Why.
    pub why: Stands,
}

/// Why the terms of a budget stand though the configuration says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// A person set them since the configuration last said something new about it.
    SetByHand,
    /// The configuration no longer names it, and there is work under it: a cap does not go by the loss of a line.
    HasWork,
}

/// What to cancel.
#[derive(Debug, Clone, Copy)]
pub enum CancelTarget {
    /// One experiment.
    Experiment(ExperimentId),
    /// All open trials of a sweep.
    Sweep(SweepId),
}

/// What an agent is told.
#[derive(Debug)]
pub enum AgentAnswer {
    /// What to do.
    Orders {
        /// As it travels.
        reply: Box<SyncReply>,
        /// Secrets to look up before it does.
        secrets: BTreeMap<AttemptId, BTreeMap<String, SecretRef>>,
    },
    /// The secret or token is not that of the instance.
    Unauthorized,
    /// Nothing was stored; ask again.
    NotStored(CommitFailed),
}
