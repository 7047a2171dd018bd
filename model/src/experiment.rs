//! Experiments, sweeps and attempts: what they are and the steps that they may take.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    asha::Asha,
    budget::Account,
    id::{AttemptId, ExperimentId, InstanceId, SweepId},
    money::Usd,
    name::{ProjectName, UserName},
    pricing::Costs,
    provenance::RanWith,
    resources::Amounts,
    spec::{Params, SpecId},
    time::{Period, Span, Timestamp},
};

/// An accepted experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its id.
    pub id: ExperimentId,
    /// What people call it; not unique.
    pub name: Arc<str>,
    /// Who pays, at every level above.
    pub account: Arc<Account>,
    /// Its spec, kept once for all equal ones.
    pub spec: SpecId,
    /// Its parameters, where it is a trial of a sweep.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: Params,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// Where it is in its life.
    pub state: ExperimentState,
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts that failed of themselves.
    pub failures: u32,
    /// Attempts in a row whose instance was lost under them, with nothing saved and though no cloud took it back. Whose
    /// count is not 0 may be the cause, and gets instances of its own.
    #[serde(default)]
    pub losses: u32,
    /// When it may be tried again after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Its newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_at: Option<Timestamp>,
    /// How long storing its newest checkpoint took, where it is stored beyond its machine: from when it was told to stop,
    /// or of itself the time that sending took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_took: Option<Span>,
    /// The newest value of each metric that it reported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Somebody asked that it ends.
    #[serde(default)]
    pub cancelled: bool,
    /// What it was expected to cost when it was accepted, where that could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<CostEstimate>,
}

/// What something is expected to cost, with the interval in which that should lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostEstimate {
    /// The single best guess.
    pub expected: Usd,
    /// The low end of the interval.
    pub low: Usd,
    /// The high end.
    pub high: Usd,
}

impl CostEstimate {
    /// Of so many that are expected to cost the same. The ends are those of all being cheap and all being dear: the sum
    /// lies well between them.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        let times = |amount: Usd| Usd::from_nanos(amount.as_nanos().saturating_mul(i64::from(count)));
        Self { expected: times(self.expected), low: times(self.low), high: times(self.high) }
    }
}

/// For people: `$1.20 ($0.90–$2.10)`.
impl fmt::Display for CostEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}–{})", self.expected.rounded(), self.low.rounded(), self.high.rounded())
    }
}

/// Where an experiment is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum ExperimentState {
    /// It waits for a place; the plan says for what.
    Queued,
    /// It has its one live attempt.
    Running {
        /// That attempt.
        attempt: AttemptId,
    },
    /// It is over.
    Ended {
        /// Since when.
        at: Timestamp,
        /// How.
        outcome: Outcome,
    },
}

/// How an experiment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Outcome {
    /// Its run exited with 0.
    Succeeded,
    /// Its last allowed attempt failed.
    Failed {
        /// How the last attempt ended.
        end: AttemptEnd,
    },
    /// Somebody ended it.
    Cancelled,
    /// It was stopped on purpose, with its last checkpoint kept.
    Stopped {
        /// Why.
        why: StopReason,
    },
    /// It was stopped early, with its last checkpoint kept: it would never have come among the best of a rung of its
    /// sweep's asha.
    Pruned {
        /// The rung, counted from 0.
        rung: u32,
        /// Its place there, from 1 for the best.
        rank: u32,
        /// How many had reached the rung.
        of: u32,
    },
    /// It never ran, because it could not be paid for.
    Refused {
        /// Why.
        why: Refusal,
    },
}

/// Why an experiment was refused without having run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Refusal {
    /// What is left of this budget is less than the least that a launch must hold.
    Budget {
        /// The budget that is short.
        key: crate::budget::BudgetKey,
        /// Its limit.
        limit: Usd,
        /// What was spent of it.
        spent: Usd,
        /// The least that a launch has to hold.
        needed: Usd,
    },
    /// What is left of its sweep's budget is not expected to bring it to the first rung of asha.
    FirstRung {
        /// What is left.
        left: Usd,
        /// What reaching the rung is expected to cost.
        expected: Usd,
    },
}

/// One try at running an experiment: on one instance or, where it wants several nodes, on as many at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id, which fences off reports of earlier attempts.
    pub id: AttemptId,
    /// Whose it is.
    pub experiment: ExperimentId,
    /// 1 for the first of its experiment.
    pub number: u32,
    /// Where it runs, each node on an instance of its own. A node's rank is its place in this list, and the first is
    /// the one at which the others meet.
    pub nodes: Vec<Node>,
    /// What it takes of each of them.
    pub amounts: Amounts,
    /// When it was given to its nodes.
    pub assigned_at: Timestamp,
    /// Where it is in its life.
    pub state: AttemptState,
    /// When its work started to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Its newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_at: Option<Timestamp>,
    /// What it runs with, once its agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_with: Option<Box<RanWith>>,
    /// A GPU of it is idle by the experiment's `utilization_policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_gpu: Option<IdleGpu>,
}

/// A GPU of an attempt is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleGpu {
    /// Since when.
    pub since: Timestamp,
    /// Somebody was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// An attempt's part on one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The instance.
    pub instance: InstanceId,
    /// Which accelerators are its own, by number on the instance.
    pub devices: Vec<u32>,
    /// What was charged here as `run` for work that no checkpoint covers yet: what an interruption would lose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsaved: Vec<RunCharge>,
    /// How it ended, where its instance went away while the attempt has other nodes. Nothing of it is left then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<AttemptEnd>,
}

/// What one period of an attempt's work was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCharge {
    /// When.
    pub period: Period,
    /// How much.
    pub costs: Costs,
}

/// Where an attempt is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum AttemptState {
    /// The instance is to start it.
    Assigned,
    /// Its work runs.
    Running,
    /// It was told to checkpoint and end.
    Stopping {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: StopReason,
        /// Without time to save.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_once: bool,
    },
    /// It is over.
    Ended {
        /// Since when.
        at: Timestamp,
        /// How.
        end: AttemptEnd,
        /// The rank of the node that ended it for all, where there are several and it was one of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u32>,
    },
}

/// Why we stop an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Somebody cancelled the experiment.
    Cancelled,
    /// Its own or its sweep's budget cannot pay for more.
    Budget,
    /// A wider budget cannot pay for more now: it waits for one that can.
    Unfunded,
    /// It ran for its `max_duration`.
    MaxDuration,
    /// A GPU of it was idle for longer than its `utilization_policy` allows.
    IdleGpu,
    /// The price passed the ceiling, or the instance goes for another reason: it will run elsewhere.
    Moved,
    /// The cloud takes the instance back: it will run elsewhere.
    Interrupted,
    /// Its instance's lease ended, because the daemon was away: it will run again.
    LeaseEnded,
    /// It reached a rung of its sweep's asha: it goes on where it comes to be among the best there.
    Paused,
    /// One of its nodes has ended, and the others are no use without it.
    NodeEnded,
}

impl StopReason {
    /// Whether the experiment is queued again after the attempt.
    #[must_use]
    pub fn requeues(self) -> bool {
        match self {
            Self::Moved
            | Self::Interrupted
            | Self::Unfunded
            | Self::LeaseEnded
            | Self::Paused
            | Self::NodeEnded => true,
            Self::Cancelled | Self::Budget | Self::MaxDuration | Self::IdleGpu => false,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cancelled => "cancelled",
            Self::Budget => "budget exhausted",
            Self::Unfunded => "no budget for another lease",
            Self::MaxDuration => "max_duration reached",
            Self::IdleGpu => "a GPU stayed idle",
            Self::Moved => "moved to another instance",
            Self::Interrupted => "interrupted by the cloud",
            Self::LeaseEnded => "its lease ended while the daemon was away",
            Self::Paused => "paused at a rung of asha",
            Self::NodeEnded => "another of its nodes has ended",
        })
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum AttemptEnd {
    /// Its process ended of itself.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// Its process died of a signal that was not ours.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// It could not be started.
    NotStarted {
        /// What the agent says.
        error: String,
    },
    /// We stopped it.
    Stopped {
        /// Why.
        why: StopReason,
    },
    /// Its instance went away under it.
    InstanceLost {
        /// Whether the cloud took it back.
        interrupted: bool,
    },
}

impl AttemptEnd {
    /// Whether the attempt failed of itself, and not because of us or the cloud.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Exited { code } => *code != 0,
            Self::Killed { .. } | Self::NotStarted { .. } => true,
            Self::Stopped { .. } | Self::InstanceLost { .. } => false,
        }
    }
}

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exit code {code}"),
            Self::Killed { signal } => write!(f, "killed by signal {signal}"),
            Self::NotStarted { error } => write!(f, "could not be started: {error}"),
            Self::Stopped { why } => write!(f, "stopped: {why}"),
            Self::InstanceLost { interrupted: true } => f.write_str("interrupted by the cloud"),
            Self::InstanceLost { interrupted: false } => f.write_str("the instance was lost"),
        }
    }
}

/// An accepted sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Its id.
    pub id: SweepId,
    /// What people call it; not unique.
    pub name: Arc<str>,
    /// Who pays.
    pub project: ProjectName,
    /// Who asked.
    pub user: UserName,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// All its trials, ever.
    pub trials: u32,
    /// Its trials that are not over.
    pub open: u32,
    /// Its trials that have an attempt now.
    pub running: u32,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// The halving of its trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asha: Option<Asha>,
    /// When its last trial ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Experiment {
    /// Whether it is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, ExperimentState::Ended { .. })
    }

    /// One word for lists and filters.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            ExperimentState::Queued => "queued",
            ExperimentState::Running { .. } => "running",
            ExperimentState::Ended { outcome, .. } => outcome.name(),
        }
    }
}

impl Outcome {
    /// One word for lists and filters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Stopped { .. } | Self::Pruned { .. } => "stopped",
            Self::Refused { .. } => "refused",
        }
    }
}

impl Outcome {
    /// What there is to say beyond the name.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Succeeded | Self::Cancelled => None,
            Self::Failed { end } => Some(end.to_string()),
            Self::Stopped { why } => Some(why.to_string()),
            Self::Pruned { rung, rank, of } => {
                Some(format!("early by asha, rank {rank} of {of} at rung {rung}"))
            }
            Self::Refused { why } => Some(why.to_string()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.detail() {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget { key, limit, spent, needed } => write!(
                f,
                "{key} has {} of {} left, a launch must hold {}",
                limit.saturating_sub(*spent).rounded(),
                limit.rounded(),
                needed.rounded()
            ),
            Self::FirstRung { left, expected } => write!(
                f,
                "the sweep's budget has {} left, reaching the first rung of asha takes about {}",
                left.rounded(),
                expected.rounded()
            ),
        }
    }
}

impl Node {
    /// A node on this instance, for which nothing was charged yet.
    #[must_use]
    pub fn new(instance: InstanceId, devices: Vec<u32>) -> Self {
        Self { instance, devices, unsaved: Vec::new(), lost: None }
    }

    /// The most periods that `unsaved` keeps apart: the oldest are merged beyond, which costs precision only where
    /// work goes unsaved through more price changes and leases than this.
    const UNSAVED_MAX: usize = 32;

    /// Notes what was charged as `run`.
    pub fn ran(&mut self, charge: RunCharge) {
        self.unsaved.push(charge);
        if self.unsaved.len() > Self::UNSAVED_MAX {
            let oldest = self.unsaved.remove(0);
            let next = &mut self.unsaved[0];
            next.period.from = oldest.period.from;
            next.costs += oldest.costs;
        }
    }
}

impl Attempt {
    /// Its nodes that are not lost, with their ranks.
    pub fn live_nodes(&self) -> impl Iterator<Item = (u32, &Node)> + Clone {
        (0..).zip(&self.nodes).filter(|(_, node)| node.lost.is_none())
    }

    /// Its node on an instance, with the rank, unless it is lost.
    #[must_use]
    pub fn node_on(&self, instance: InstanceId) -> Option<(u32, &Node)> {
        self.live_nodes().find(|(_, node)| node.instance == instance)
    }

    /// The same, to change it.
    pub fn node_on_mut(&mut self, instance: InstanceId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.instance == instance && node.lost.is_none())
    }

    /// Whether one of its nodes is on an instance, and not lost.
    #[must_use]
    pub fn is_on(&self, instance: InstanceId) -> bool {
        self.node_on(instance).is_some()
    }

    /// The instances of its nodes that are not lost, by rank.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> + Clone {
        self.live_nodes().map(|(_, node)| node.instance)
    }

    /// Forgets what a checkpoint made safe.
    pub(crate) fn saved(&mut self, at: Timestamp) {
        self.checkpoint_at = self.checkpoint_at.max(Some(at));
        for node in &mut self.nodes {
            node.unsaved.retain(|charge| charge.period.to > at);
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, AttemptState::Ended { .. })
    }
}
