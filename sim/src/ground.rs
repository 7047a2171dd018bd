//! What lies between the machines and outlives each of them: the network to the daemon, the storage for checkpoints, and
//! the list of what was found wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bursar_daemon::inbox::Inbox;
use bursar_model::{AttemptId, ExperimentId, InstanceId, InvariantId, Span, Timestamp, Violation};

/// After so many findings a run is broken beyond what more of them would tell.
const FINDINGS_MAX: usize = 20;

/// Shared by all who live in a world. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ground(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    daemon: Option<Inbox>,
    cut_off: BTreeMap<InstanceId, Timestamp>,
    intended: BTreeSet<InstanceId>,
    saved: BTreeMap<ExperimentId, Span>,
    working: BTreeMap<ExperimentId, AttemptId>,
    finished: BTreeMap<ExperimentId, u32>,
    findings: Vec<Violation>,
}

impl Ground {
    /// From now on this daemon answers, or none.
    pub(crate) fn connect(&self, daemon: Option<Inbox>) {
        self.state().daemon = daemon;
    }

    /// Nothing passes between a machine and the daemon until then.
    pub(crate) fn cut_off(&self, instance: InstanceId, until: Timestamp) {
        self.state().cut_off.insert(instance, until);
    }

    /// The daemon as a machine reaches it now.
    pub(crate) fn daemon(&self, from: InstanceId, now: Timestamp) -> Option<Inbox> {
        let state = self.state();
        let reachable = state.cut_off.get(&from).is_none_or(|until| *until <= now);
        state.daemon.clone().filter(|_| reachable)
    }

    /// An intent was committed.
    pub(crate) fn intend(&self, instance: InstanceId) {
        self.state().intended.insert(instance);
    }

    /// A launch arrives at the cloud. Without a committed intent nobody would know of it after a crash (O2).
    pub(crate) fn launch_arrives(&self, instance: InstanceId) {
        if !self.state().intended.contains(&instance) {
            self.report(InvariantId::O2, format!("{instance} is launched without a committed intent"));
        }
    }

    /// An attempt begins to work; answers with how much of the work earlier ones have saved. Two at once would be what
    /// fencing is for (E1).
    pub(crate) fn begin(&self, experiment: ExperimentId, attempt: AttemptId) -> Span {
        let other = self.state().working.insert(experiment, attempt);
        if let Some(other) = other.filter(|other| *other != attempt) {
            self.report(InvariantId::E1, format!("{attempt} works on {experiment} while {other} does"));
        }
        self.state().saved.get(&experiment).copied().unwrap_or_default()
    }

    pub(crate) fn save(&self, experiment: ExperimentId, done: Span) {
        self.state().saved.insert(experiment, done);
    }

    /// An attempt works no longer.
    pub(crate) fn cease(&self, experiment: ExperimentId, attempt: AttemptId) {
        let mut state = self.state();
        if state.working.get(&experiment) == Some(&attempt) {
            state.working.remove(&experiment);
        }
    }

    pub(crate) fn finish(&self, experiment: ExperimentId) {
        *self.state().finished.entry(experiment).or_default() += 1;
    }

    /// How often the work of an experiment came to its end.
    pub(crate) fn finished(&self, experiment: ExperimentId) -> u32 {
        self.state().finished.get(&experiment).copied().unwrap_or_default()
    }

    /// Notes what is wrong.
    pub(crate) fn report(&self, invariant: InvariantId, detail: String) {
        let mut state = self.state();
        if state.findings.len() < FINDINGS_MAX {
            state.findings.push(Violation { invariant, detail });
        }
    }

    pub(crate) fn findings(&self) -> Vec<Violation> {
        self.state().findings.clone()
    }

    /// Every change is a single step, so that a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
