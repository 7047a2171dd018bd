//! Instances that somebody ends by hand: an idle one costs money until `idle_duration` is over, and one that misbehaves may have
//! to go though something runs on it. It drains, as for any other reason; the plan draws the consequences.

use bursar_model::{DrainReason, Event, InstanceId, InstanceState, Timestamp};
use bursar_store::Store;

use crate::{
    inbox::EndInstanceError,
    reconciler::{Reconciler, Turn},
};

impl<S: Store> Reconciler<S> {
    /// Begins to end an instance; with how many attempts are told to stop. One that ends already goes on ending.
    pub(super) fn end_instance(
        &mut self,
        id: InstanceId,
        force: bool,
        now: Timestamp,
        turn: &mut Turn,
    ) -> Result<usize, EndInstanceError> {
        let Some(instance) = self.fleet.instances.get(&id) else { return Err(EndInstanceError::NotLive(id)) };
        match instance.state {
            InstanceState::Booting { .. } | InstanceState::Ready { .. } => {}
            InstanceState::Intended { .. } => return Err(EndInstanceError::Launching(id)),
            InstanceState::Draining { .. } | InstanceState::Terminating { .. } => return Ok(0),
            InstanceState::Gone { .. } => return Err(EndInstanceError::NotLive(id)),
        }
        let live = self.fleet.attempts_on(id).filter(|attempt| !attempt.is_ended());
        let busy: Vec<_> = live.map(|attempt| attempt.experiment).collect();
        if !busy.is_empty() && !force {
            let name = |experiment: &bursar_model::ExperimentId| {
                let known = self.fleet.experiments.get(experiment);
                known.map_or_else(|| experiment.to_string(), |known| known.name.to_string())
            };
            let experiments = busy.iter().map(name).collect();
            return Err(EndInstanceError::Busy { instance: id, experiments });
        }
        self.record(Event::InstanceDraining { instance: id, at: now, why: DrainReason::Asked }, turn);
        Ok(busy.len())
    }
}
