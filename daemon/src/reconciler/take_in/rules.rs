//! The rules of the configuration: laid down at a start, and changed while the loop runs, by the same events.

use bursar_model::{Event, Timestamp};
use bursar_store::{Commit, Store, StoreError};
use tracing::{info, warn};

use crate::{
    inbox::{CommitFailed, StandingBudget, Stands},
    reconciler::{Reconciler, Turn, chain},
    rules::Rules,
    views::budget_name,
};

impl<S: Store> Reconciler<S> {
    /// Lays down the rules that the loop was made with, before anything else happens.
    ///
    /// # Errors
    /// When the store does not take it.
    pub(in crate::reconciler) async fn lay_down_rules(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut turn = Turn::default();
        for event in self.rules_to_set(&self.rules, now, &turn)? {
            self.record(event, &mut turn);
        }
        let _ = self.tell_what_stands();
        if turn.events.is_empty() {
            return Ok(());
        }
        let changes = self.fleet.take_changes();
        let Turn { events, submissions, .. } = turn;
        self.store.commit(&Commit { epoch: self.epoch, at: now, events, changes, submissions }).await
    }

    /// Goes by other rules from this turn on, the very plan of it included. Answers with what stands though they say
    /// otherwise.
    pub(super) fn change_rules(
        &mut self,
        rules: Rules,
        now: Timestamp,
        turn: &mut Turn,
    ) -> Result<Vec<StandingBudget>, CommitFailed> {
        // All of it is read before any of it counts: what cannot be read changes nothing.
        let events =
            self.rules_to_set(&rules, now, turn).map_err(|unreadable| CommitFailed(chain(&unreadable)))?;
        let listens_otherwise = self.rules.listens_otherwise_than(&rules);
        let before = self.adopt(rules);
        turn.rules_before.get_or_insert(before);
        for event in events {
            self.record(event, turn);
        }
        // As when offerings come after a start.
        self.follow_prices(turn);
        // Agents hear at once how often they are to speak; what they are silent until then is nobody's fault.
        if listens_otherwise {
            self.waiters.answer_by(now);
            self.listening_since = now;
        }
        Ok(self.tell_what_stands())
    }

    /// Goes by these rules. Answers with those before.
    pub(in crate::reconciler) fn adopt(&mut self, rules: Rules) -> Rules {
        let before = std::mem::replace(&mut self.rules, rules);
        self.set_market();
        before
    }

    fn rules_to_set(&self, rules: &Rules, now: Timestamp, turn: &Turn) -> Result<Vec<Event>, StoreError> {
        let mut events = self.budgets_to_set(rules, now, turn)?;
        events.extend(self.telling_to_set(rules, now));
        Ok(events)
    }

    fn tell_what_stands(&self) -> Vec<StandingBudget> {
        let standing = self.standing_budgets();
        for StandingBudget { key, why } in &standing {
            let budget = budget_name(key);
            match why {
                Stands::SetByHand => info!(%budget, "its terms stand as somebody set them by hand"),
                Stands::HasWork => {
                    warn!(%budget, "the configuration does not name it any more; its terms stand while it has work");
                }
            }
        }
        standing
    }
}
