//! What lies between the machines and outlives each of them: the network to the daemon, the storage for checkpoints, and
//! the list of what was found wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bursar_daemon::inbox::{Inbox, Message};
use bursar_model::{AttemptId, ExperimentId, InstanceId, InvariantId, Span, Timestamp, Violation};
use tokio::sync::oneshot;

use crate::{chance::Chance, clock::ClockError};

/// After so many findings a run is broken beyond what more of them would tell.
const FINDINGS_MAX: usize = 20;

/// Sets its draws apart from those of the cloud.
const PURPOSE: u64 = 0x6772_6f75_6e64;

/// A message on its way is overtaken for up to so long.
pub(crate) const DELAY_MAX: Span = Span::from_secs(20);

/// Shared by all who live in a world. Cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct Ground(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    daemon: Option<Inbox>,
    cut_off: BTreeMap<InstanceId, Timestamp>,
    intended: BTreeSet<InstanceId>,
    saved: BTreeMap<ExperimentId, Span>,
    working: BTreeMap<ExperimentId, BTreeSet<(AttemptId, InstanceId)>>,
    finished: BTreeMap<ExperimentId, u32>,
    findings: Vec<Violation>,
    noise_per_mille: u32,
    chance: Chance,
    error_of_clock: ClockError,
}

impl Ground {
    pub(crate) fn new(chance: &Chance) -> Self {
        let state = State {
            daemon: None,
            cut_off: BTreeMap::new(),
            intended: BTreeSet::new(),
            saved: BTreeMap::new(),
            working: BTreeMap::new(),
            finished: BTreeMap::new(),
            findings: Vec::new(),
            noise_per_mille: 0,
            chance: chance.child(PURPOSE),
            error_of_clock: ClockError::default(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

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

    /// By how much the clock of the daemon's machine is wrong.
    pub(crate) fn error_of_clock(&self) -> ClockError {
        self.state().error_of_clock
    }

    pub(crate) fn step_clock(&self, millis: i64) {
        self.state().error_of_clock.step(millis);
    }

    /// From now on so many of a thousand messages of machines arrive twice, and as many late, when newer ones may have
    /// overtaken them and nobody waits for their answer.
    pub(crate) fn set_noise(&self, per_mille: u32) {
        self.state().noise_per_mille = per_mille;
    }

    /// Brings a message from a machine to the daemon. False where nobody is there to take it.
    pub(crate) async fn carry(&self, from: InstanceId, message: Message, now: Timestamp) -> bool {
        let Some(daemon) = self.daemon(from, now) else { return false };
        let (doubles, delays, after) = {
            let State { chance, noise_per_mille: rate, .. } = &mut *self.state();
            (chance.per_mille(*rate), chance.per_mille(*rate), chance.span(Span::ZERO, DELAY_MAX))
        };
        if doubles || delays {
            self.send_copy(from, &message, now, after);
        }
        if delays {
            // Only its late copy arrives.
            return false;
        }
        daemon.tell(message).await.is_ok()
    }

    fn send_copy(&self, from: InstanceId, message: &Message, now: Timestamp, after: Span) {
        // Who sent it has given it up by then.
        let (reply, _) = oneshot::channel();
        let copy = if let Message::Register { request, .. } = message {
            Message::Register { request: request.clone(), reply }
        } else if let Message::Sync { token_digest, request, .. } = message {
            Message::Sync { token_digest: token_digest.clone(), request: request.clone(), reply }
        } else {
            // Machines send nothing else.
            return;
        };
        let ground = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after.to_std()).await;
            if let Some(daemon) = ground.daemon(from, now + after) {
                // A daemon that ends does not want it.
                let _ = daemon.tell(copy).await;
            }
        });
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

    /// A node of an attempt begins to work; answers with how much of the work earlier ones have saved. Two attempts at
    /// once would be what fencing is for (E1), on whichever nodes.
    pub(crate) fn begin(&self, experiment: ExperimentId, attempt: AttemptId, on: InstanceId) -> Span {
        let other = {
            let State { working, .. } = &mut *self.state();
            let working = working.entry(experiment).or_default();
            working.insert((attempt, on));
            working.iter().find(|(other, _)| *other != attempt).copied()
        };
        if let Some((other, _)) = other {
            self.report(InvariantId::E1, format!("{attempt} works on {experiment} while {other} does"));
        }
        self.state().saved.get(&experiment).copied().unwrap_or_default()
    }

    pub(crate) fn save(&self, experiment: ExperimentId, done: Span) {
        self.state().saved.insert(experiment, done);
    }

    /// A node of an attempt works no longer.
    pub(crate) fn cease(&self, experiment: ExperimentId, attempt: AttemptId, on: InstanceId) {
        if let Some(working) = self.state().working.get_mut(&experiment) {
            working.remove(&(attempt, on));
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
        let finding = Violation { invariant, detail };
        if state.findings.len() < FINDINGS_MAX && !state.findings.contains(&finding) {
            state.findings.push(finding);
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
