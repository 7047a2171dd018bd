//! Budgets, who pays, and what is held.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::{ExperimentId, SweepId},
    money::Usd,
    name::{ProjectName, UserName},
};

/// Which budget.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetKey {
    /// Everything that this installation does.
    Installation,
    /// One project.
    Project(ProjectName),
    /// One sweep.
    Sweep(SweepId),
    /// One experiment.
    Experiment(ExperimentId),
}

impl fmt::Display for BudgetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => f.write_str("the installation's budget"),
            Self::Project(name) => write!(f, "project {name}'s budget"),
            Self::Sweep(_) => f.write_str("the sweep's budget"),
            Self::Experiment(_) => f.write_str("the experiment's budget"),
        }
    }
}

/// Who pays for an experiment, at every level above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The project.
    pub project: ProjectName,
    /// The user who submitted.
    pub user: UserName,
    /// The sweep, where the experiment is a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepId>,
}

impl Account {
    /// The budgets that a cost of this experiment counts in, from the widest to the narrowest.
    pub fn budgets(&self, experiment: ExperimentId) -> impl Iterator<Item = BudgetKey> {
        [
            Some(BudgetKey::Installation),
            Some(BudgetKey::Project(self.project.clone())),
            self.sweep.map(BudgetKey::Sweep),
            Some(BudgetKey::Experiment(experiment)),
        ]
        .into_iter()
        .flatten()
    }
}

/// What a budget allows and what has become of it. `spent + held <= limit`, always (B1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Budget {
    /// The most that may ever be spent; `None` has no limit.
    pub limit: Option<Usd>,
    /// Charged so far.
    pub spent: Usd,
    /// Reserved for leases that run.
    pub held: Usd,
}

impl Budget {
    /// What can still be held.
    #[must_use]
    pub fn room(&self) -> Usd {
        match self.limit {
            Some(limit) => limit.saturating_sub(self.spent).saturating_sub(self.held),
            None => Usd::MAX,
        }
    }

    /// What could be held if all that is held came back unspent.
    #[must_use]
    pub fn unspent(&self) -> Usd {
        self.limit.map_or(Usd::MAX, |limit| limit.saturating_sub(self.spent))
    }
}
