//! The live state: everything that is not over yet. Changed by `apply` alone; a cache of what the store holds.

mod apply;
mod changes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use changes::{Change, Changes};
use serde::{Deserialize, Serialize};

use crate::{
    budget::{Budget, BudgetKey},
    experiment::{Attempt, Experiment, Sweep},
    id::{AttemptId, ExperimentId, InstanceId, NotificationId, SweepId},
    instance::Instance,
    notification::Notification,
    offering::Scope,
    resources::Amounts,
    spec::{ExperimentSpec, SpecId},
    time::Timestamp,
};

/// The live state. What is over leaves it with `take_changes` and stays in the store.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The specs of the experiments below.
    pub specs: BTreeMap<SpecId, LiveSpec>,
    /// Sweeps with open trials.
    pub sweeps: BTreeMap<SweepId, Sweep>,
    /// Experiments that are not over.
    pub experiments: BTreeMap<ExperimentId, Experiment>,
    /// Attempts that are not over.
    pub attempts: BTreeMap<AttemptId, Attempt>,
    /// Instances that may exist.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// Budgets of the installation, of projects, and of what is live.
    pub budgets: BTreeMap<BudgetKey, Budget>,
    /// Parts of the market that refused lately.
    pub refused: BTreeMap<Scope, RefusedScope>,
    /// What webhooks are still to be told, in the order in which they are told.
    pub outbox: BTreeMap<NotificationId, Notification>,
    /// Up to when each scheduled report has covered all time, by its name.
    pub reported: BTreeMap<String, Timestamp>,
    touched: Touched,
}

/// A spec and how many live experiments share it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSpec {
    /// The spec.
    pub spec: Arc<ExperimentSpec>,
    /// How many live experiments have it.
    pub users: u32,
}

/// What is remembered of a part of the market that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedScope {
    /// How often in a row.
    pub failures: u32,
    /// Until when it is left alone.
    pub until: Timestamp,
}

/// What was changed since the last `take_changes`.
#[derive(Debug, Clone, Default)]
struct Touched {
    specs: BTreeSet<SpecId>,
    sweeps: BTreeSet<SweepId>,
    experiments: BTreeSet<ExperimentId>,
    attempts: BTreeSet<AttemptId>,
    instances: BTreeSet<InstanceId>,
    budgets: BTreeSet<BudgetKey>,
    refused: BTreeSet<Scope>,
    outbox: BTreeSet<NotificationId>,
    reported: BTreeSet<String>,
}

/// An event that the state does not allow. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("illegal transition: {0}")]
pub struct IllegalTransition(pub String);

impl Fleet {
    /// The spec of a live experiment.
    ///
    /// # Panics
    /// When the experiment is not of this fleet.
    #[must_use]
    pub fn spec(&self, experiment: &Experiment) -> &Arc<ExperimentSpec> {
        &self.specs.get(&experiment.spec).expect("apply keeps the spec of every live experiment").spec
    }

    /// The live attempts on an instance, in the order of their ids. Looks at every attempt: index them where many
    /// instances are asked about.
    pub fn attempts_on(&self, instance: InstanceId) -> impl Iterator<Item = &Attempt> {
        self.attempts.values().filter(move |attempt| attempt.is_on(instance) && !attempt.is_ended())
    }

    /// What no attempt uses of an instance.
    #[must_use]
    pub fn free_on(&self, instance: &Instance) -> Amounts {
        self.attempts_on(instance.id)
            .fold(instance.offering.instance_type.amounts(), |free, attempt| free.minus(attempt.amounts))
    }

    /// Puts loaded parts together. The counts that are derived (`LiveSpec::users`) are made anew.
    #[must_use]
    pub fn from_parts(parts: FleetParts) -> Self {
        let FleetParts {
            specs,
            sweeps,
            experiments,
            attempts,
            instances,
            budgets,
            refused,
            outbox,
            reported,
        } = parts;
        let mut fleet = Self {
            specs: specs.into_iter().map(|(id, spec)| (id, LiveSpec { spec, users: 0 })).collect(),
            sweeps: sweeps.into_iter().map(|sweep| (sweep.id, sweep)).collect(),
            experiments: experiments.into_iter().map(|experiment| (experiment.id, experiment)).collect(),
            attempts: attempts.into_iter().map(|attempt| (attempt.id, attempt)).collect(),
            instances: instances.into_iter().map(|instance| (instance.id, instance)).collect(),
            budgets: budgets.into_iter().collect(),
            refused: refused.into_iter().collect(),
            outbox: outbox.into_iter().map(|notification| (notification.id, notification)).collect(),
            reported: reported.into_iter().collect(),
            touched: Touched::default(),
        };
        for experiment in fleet.experiments.values() {
            if let Some(live) = fleet.specs.get_mut(&experiment.spec) {
                live.users += 1;
            }
        }
        fleet.specs.retain(|_, live| live.users > 0);
        fleet
    }
}

/// What a store loads: the live rows of each table.
#[derive(Debug, Default)]
pub struct FleetParts {
    /// At least the specs of the experiments below.
    pub specs: Vec<(SpecId, Arc<ExperimentSpec>)>,
    /// Live sweeps.
    pub sweeps: Vec<Sweep>,
    /// Live experiments.
    pub experiments: Vec<Experiment>,
    /// Live attempts.
    pub attempts: Vec<Attempt>,
    /// Live instances.
    pub instances: Vec<Instance>,
    /// Live budgets.
    pub budgets: Vec<(BudgetKey, Budget)>,
    /// Parts of the market that refused.
    pub refused: Vec<(Scope, RefusedScope)>,
    /// Notifications that wait.
    pub outbox: Vec<Notification>,
    /// Up to when each scheduled report has covered all time.
    pub reported: Vec<(String, Timestamp)>,
}

/// Two fleets are equal when their live state is; what was touched does not count.
impl PartialEq for Fleet {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            specs,
            sweeps,
            experiments,
            attempts,
            instances,
            budgets,
            refused,
            outbox,
            reported,
            touched: _,
        } = self;
        *specs == other.specs
            && *sweeps == other.sweeps
            && *experiments == other.experiments
            && *attempts == other.attempts
            && *instances == other.instances
            && *budgets == other.budgets
            && *refused == other.refused
            && *outbox == other.outbox
            && *reported == other.reported
    }
}
