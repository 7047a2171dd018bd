//! Launches that wait for their turn.
//!
//! EC2 lets an account ask for two launches a second in a region, so that many of them wait behind each other. Where one of
//! them hears that a pool has nothing left, those that wait for the same pool hear it too, without a call of their own:
//! otherwise a crowd would spend its turns on being refused, pool after pool.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bursar_model::{InstanceId, OfferingKey};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::clients::{Gate, RegionClient};
use crate::{EffectMay, ErrorKind, LaunchRequest, ProviderError};

/// The launches of a region.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whoever has it waits at the gate; the others stand in line, in their order.
    line: AsyncMutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each pool was refused last, and with what.
    refused: BTreeMap<OfferingKey, (Instant, ErrorKind)>,
    /// What was sent and not settled yet: only the same call, sent again, can tell what came of it.
    unsettled: BTreeSet<InstanceId>,
}

impl Turns {
    /// Waits until these may be asked for, or need not be: then it says what EC2 answered to others meanwhile. Those that
    /// are not `new` may exist, and are always asked for.
    pub(super) async fn wait(
        &self,
        at: &RegionClient,
        key: &OfferingKey,
        requests: &[LaunchRequest],
        new: bool,
    ) -> Option<ErrorKind> {
        let since = Instant::now();
        let is_open = new && !requests.iter().any(|one| self.state().unsettled.contains(&one.instance));
        let answered = || self.refused_since(key, since).filter(|_| is_open);
        let turn = self.line.lock().await;
        let mut refused = answered();
        if refused.is_none() {
            at.pass(Gate::Run).await;
            refused = answered();
        }
        drop(turn);
        if refused.is_none() {
            self.state().unsettled.extend(requests.iter().map(|one| one.instance));
        }
        refused
    }

    /// An answer came, or none.
    pub(super) fn heard(&self, key: &OfferingKey, requests: &[LaunchRequest], error: Option<&ProviderError>) {
        let mut state = self.state();
        if error.is_none_or(|error| error.effect == EffectMay::No) {
            for one in requests {
                state.unsettled.remove(&one.instance);
            }
        }
        if let Some(ProviderError { kind, .. }) = error
            && matches!(kind, ErrorKind::InsufficientCapacity(_) | ErrorKind::Quota(_))
        {
            state.refused.insert(key.clone(), (Instant::now(), kind.clone()));
        }
    }

    fn refused_since(&self, key: &OfferingKey, since: Instant) -> Option<ErrorKind> {
        let state = self.state();
        let (at, kind) = state.refused.get(key)?;
        (*at >= since).then(|| kind.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
