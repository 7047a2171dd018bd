//! What became of experiments before, as far as it says something about the next.

use bursar_model::{Account, BudgetKey, ExperimentId, ProjectName, Usd};
use bursar_policies::estimate::KEPT_MAX;
use bursar_store::{ExperimentFilter, ExperimentRow, StoreError};

use super::Views;

/// Experiments of a project among which those with an estimate are looked for, the newest.
const LOOKED_THROUGH_MAX: u32 = 200;
/// Peers that are looked at, the newest.
const PEERS_MAX: u32 = 50;

impl Views {
    /// What the newest experiments of a project that succeeded were expected to cost, and did.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn kept_estimates(&self, project: &ProjectName) -> Result<Vec<(Usd, Usd)>, StoreError> {
        let filter = ExperimentFilter { project: Some(project.clone()), ..succeeded() };
        let rows = self.reader.experiments(&filter, None, LOOKED_THROUGH_MAX)?.rows.into_iter();
        let kept = rows.filter_map(|row| Some((row.experiment.expected?.expected, row.spent)));
        Ok(kept.take(KEPT_MAX).collect())
    }

    /// What the newest experiments of this name that succeeded cost, or trials of sweeps of this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn costs_of_peers(&self, name: &str, is_sweep: bool) -> Result<Vec<Usd>, StoreError> {
        let costs = |rows: Vec<ExperimentRow>| rows.into_iter().map(|row| row.spent);
        if !is_sweep {
            let filter = ExperimentFilter { name: Some(name.to_owned()), ..succeeded() };
            return Ok(costs(self.reader.experiments(&filter, None, PEERS_MAX)?.rows).collect());
        }
        let mut peers = Vec::new();
        for row in self.sweeps_named(name, false)? {
            let filter = ExperimentFilter { sweep: Some(row.sweep.id), ..succeeded() };
            peers.extend(costs(self.reader.experiments(&filter, None, PEERS_MAX)?.rows));
            if peers.len() >= PEERS_MAX as usize {
                break;
            }
        }
        Ok(peers)
    }

    /// The budget above an experiment of this account with the least left, among those that were there before it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn least_left(&self, account: &Account) -> Result<Option<(BudgetKey, Usd)>, StoreError> {
        let mut least: Option<(BudgetKey, Usd)> = None;
        // No experiment has this id: its own budget is not among what is stored.
        let nobody: ExperimentId = bursar_model::TypedId::from_u64(0);
        for key in account.budgets(nobody) {
            let Some(budget) = self.reader.budget(&key)? else { continue };
            let Some(cap) = budget.cap() else { continue };
            let left = cap.saturating_sub(budget.committed()).max(Usd::ZERO);
            if least.as_ref().is_none_or(|(_, before)| left < *before) {
                least = Some((key, left));
            }
        }
        Ok(least)
    }
}

fn succeeded() -> ExperimentFilter {
    ExperimentFilter { state: Some("succeeded".to_owned()), ..ExperimentFilter::default() }
}
