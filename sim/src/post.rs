//! Those who are told: webhooks that keep what they took, and sometimes answer late, badly or not at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bursar_config::Webhook;
use bursar_daemon::notify::{Courier, Undelivered};
use bursar_model::{Notification, Span};

use crate::chance::Chance;

/// Sets its draws apart from those of the cloud.
const PURPOSE: u64 = 0x706f_7374;

/// All webhooks of a world. They outlive the daemon; copies are the same.
#[derive(Debug, Clone)]
pub struct SimPost(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    chance: Chance,
    failures_per_mille: u32,
    taken: Vec<Notification>,
}

impl SimPost {
    pub(crate) fn new(chance: &Chance) -> Self {
        let chance = chance.child(PURPOSE);
        Self(Arc::new(Mutex::new(State { chance, failures_per_mille: 0, taken: Vec::new() })))
    }

    /// From now on so many of a thousand deliveries fail; half of these were taken, and only the answer is lost.
    pub fn fail(&self, per_mille: u32) {
        self.state().failures_per_mille = per_mille;
    }

    /// What was taken, in order, as often as it came.
    #[must_use]
    pub fn taken(&self) -> Vec<Notification> {
        self.state().taken.clone()
    }

    /// Every change is a single step, so that a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Courier for SimPost {
    async fn deliver(&self, _: &Webhook, notification: &Notification) -> Result<(), Undelivered> {
        let (pause, fails, is_lost) = {
            let mut state = self.state();
            let pause = state.chance.span(Span::from_millis(20), Span::from_secs(9));
            let rate = state.failures_per_mille;
            (pause, state.chance.per_mille(rate), state.chance.per_mille(500))
        };
        tokio::time::sleep(pause.to_std()).await;
        if !fails || is_lost {
            self.state().taken.push(notification.clone());
        }
        if fails {
            let error = "it answered 503".to_owned();
            return Err(Undelivered { error, refused: false, retry_after: None });
        }
        Ok(())
    }
}
