//! What a turn changed, as whole rows for the store, and the leaving of what is over.

use std::sync::Arc;

use super::{Fleet, RefusedScope};
use crate::{
    budget::{Budget, BudgetKey},
    experiment::{Attempt, Experiment, Sweep},
    instance::Instance,
    notification::Notification,
    offering::Scope,
    spec::{ExperimentSpec, SpecId},
    time::Timestamp,
};

/// A changed row and whether it is still part of the live state.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<T> {
    /// False when it is over: `Store::load` leaves it out, queries still find it.
    pub live: bool,
    /// All of it.
    pub row: T,
}

/// Every row that changed since the last time, each once, in the order of ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// New specs. Never changed, never removed from the store.
    pub specs: Vec<(SpecId, Arc<ExperimentSpec>)>,
    /// Changed sweeps.
    pub sweeps: Vec<Change<Sweep>>,
    /// Changed experiments.
    pub experiments: Vec<Change<Experiment>>,
    /// Changed attempts.
    pub attempts: Vec<Change<Attempt>>,
    /// Changed instances.
    pub instances: Vec<Change<Instance>>,
    /// Changed budgets.
    pub budgets: Vec<Change<(BudgetKey, Budget)>>,
    /// Parts of the market whose memory changed; `None` was forgotten.
    pub refused: Vec<(Scope, Option<RefusedScope>)>,
    /// Changed notifications.
    pub outbox: Vec<Change<Notification>>,
    /// Scheduled reports that have covered more time; `None` was forgotten.
    pub reported: Vec<(String, Option<Timestamp>)>,
}

impl Fleet {
    /// The rows that changed since the last call. Those that are over leave the fleet with it.
    #[must_use = "what is not stored is lost"]
    pub fn take_changes(&mut self) -> Changes {
        let touched = std::mem::take(&mut self.touched);
        let mut changes = Changes::default();

        for id in touched.specs {
            let Some(live) = self.specs.get(&id) else { continue };
            changes.specs.push((id, live.spec.clone()));
            if live.users == 0 {
                self.specs.remove(&id);
            }
        }
        for id in touched.sweeps {
            let Some(sweep) = self.sweeps.get(&id) else { continue };
            let live = sweep.ended_at.is_none();
            changes.sweeps.push(Change { live, row: sweep.clone() });
            if !live {
                self.sweeps.remove(&id);
            }
        }
        for id in touched.experiments {
            let Some(experiment) = self.experiments.get(&id) else { continue };
            let live = !experiment.is_ended();
            changes.experiments.push(Change { live, row: experiment.clone() });
            if !live {
                let spec = experiment.spec;
                self.experiments.remove(&id);
                self.drop_spec_user(spec);
            }
        }
        for id in touched.attempts {
            let Some(attempt) = self.attempts.get(&id) else { continue };
            let live = !attempt.is_ended();
            changes.attempts.push(Change { live, row: attempt.clone() });
            if !live {
                self.attempts.remove(&id);
            }
        }
        for id in touched.instances {
            let Some(instance) = self.instances.get(&id) else { continue };
            let live = instance.is_live();
            changes.instances.push(Change { live, row: instance.clone() });
            if !live {
                self.instances.remove(&id);
            }
        }
        // After the entities, whose leaving decides whether their budgets stay.
        for key in touched.budgets {
            let Some(budget) = self.budgets.get_mut(&key) else { continue };
            budget.landed();
            let budget = budget.clone();
            let owner_lives = match &key {
                BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) => true,
                BudgetKey::Sweep(id) => self.sweeps.contains_key(id),
                BudgetKey::Experiment(id) => self.experiments.contains_key(id),
            };
            let live = owner_lives || budget.held.as_nanos() != 0 || self.is_charged_to(&key);
            if !live {
                self.budgets.remove(&key);
            }
            changes.budgets.push(Change { live, row: (key, budget) });
        }
        for scope in touched.refused {
            let now = self.refused.get(&scope).copied();
            changes.refused.push((scope, now));
        }
        for id in touched.outbox {
            let Some(notification) = self.outbox.get(&id) else { continue };
            let live = notification.is_waiting();
            changes.outbox.push(Change { live, row: notification.clone() });
            if !live {
                self.outbox.remove(&id);
            }
        }
        for report in touched.reported {
            let until = self.reported.get(&report).copied();
            changes.reported.push((report, until));
        }
        changes
    }

    /// Whether an instance may still charge the budget of something that is over: of one that outlives what is held
    /// for it, the cloud's bill is entered all the same.
    fn is_charged_to(&self, key: &BudgetKey) -> bool {
        let mut shares = self.instances.values().flat_map(|instance| &instance.shares);
        match key {
            BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) => true,
            BudgetKey::Sweep(id) => shares.any(|(_, share)| share.account.sweep == Some(*id)),
            BudgetKey::Experiment(id) => shares.any(|(payer, _)| payer == id),
        }
    }

    fn drop_spec_user(&mut self, id: SpecId) {
        if let Some(live) = self.specs.get_mut(&id) {
            live.users -= 1;
            if live.users == 0 {
                self.specs.remove(&id);
            }
        }
    }
}
