//! What agents say.

use std::collections::BTreeSet;

use bursar_ledger::{Metered, cuts, meter};
use bursar_model::{
    AttemptEnd, AttemptId, AttemptState, Digest, Event, ExperimentSpec, InstanceId, InstanceState, Span,
    StopReason, Timestamp, Workdir,
    agent_api::{AttemptReport, RegisterRequest, ReportedState, SyncRequest},
};
use bursar_policies::{attempt_ended, gpu_idle_noted, rung_reached};
use bursar_store::Store;
use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    inbox::AgentAnswer,
    reconciler::{Reconciler, Turn},
    secrets,
    waiters::orders,
};

/// Ages are measured by the agent and travel: two reports of the same checkpoint differ by this much at most.
const CHECKPOINT_JITTER: Span = Span::from_millis(250);

/// The longest that an answer is held back, whatever the agent asks for: proxies cut idle connections. Who configures a
/// longer heartbeat means it.
const WAIT_MAX: Span = Span::from_secs(55);

impl<S: Store> Reconciler<S> {
    pub(super) fn register(
        &mut self,
        request: &RegisterRequest,
        reply: oneshot::Sender<AgentAnswer>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let id = request.instance;
        let expected = self.effects.surroundings().key.instance_secret(id);
        if !secrets::same(&expected, &request.secret) {
            warn!(instance = %id, "an agent came with a wrong secret");
            let _ = reply.send(AgentAnswer::Unauthorized);
            return;
        }
        let token_digest = secrets::digest(&request.token);
        if let Some(instance) = self.fleet.instances.get(&id) {
            match &instance.token_digest {
                // The answer was lost and the agent asks again.
                Some(known) if secrets::same(known, &token_digest) => {}
                Some(_) => {
                    warn!(instance = %id, "the one-time secret came a second time");
                    let _ = reply.send(AgentAnswer::Unauthorized);
                    return;
                }
                None => {
                    // What the boot cost is charged as such before it is over.
                    let cuts = cuts(&self.fleet.budgets);
                    // Not for more than is held: where the clock has stepped, nobody knows what of it went by.
                    let until = now.min(instance.held_until());
                    let metered = meter(instance, std::iter::empty(), until, &cuts);
                    for event in metered.into_iter().flat_map(Metered::into_events) {
                        self.record(event, turn);
                    }
                    let host = request.host.clone();
                    self.record(Event::AgentRegistered { instance: id, at: now, token_digest, host }, turn);
                }
            }
            self.heard.insert(id, now);
        }
        let answer = orders(&self.fleet, id, &BTreeSet::new(), now, &self.rules);
        turn.answers.push(Box::new(move |stored| {
            let _ = reply.send(match stored {
                Ok(_) => answer,
                Err(failed) => AgentAnswer::NotStored(failed.clone()),
            });
        }));
    }

    pub(super) fn sync(
        &mut self,
        token_digest: &str,
        request: SyncRequest,
        reply: oneshot::Sender<AgentAnswer>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(id) = request.instance.filter(|id| self.is_agent_of(*id, token_digest)) else {
            // An instance that is gone from the state: its agent is told to power off.
            let unknown = request.instance.is_some_and(|id| !self.fleet.instances.contains_key(&id));
            let answer = match request.instance {
                Some(id) if unknown => orders(&self.fleet, id, &BTreeSet::new(), now, &self.rules),
                _ => AgentAnswer::Unauthorized,
            };
            let _ = reply.send(answer);
            return;
        };
        let before = self.heard.insert(id, now);
        if before.is_none_or(|before| now.since(before) >= self.rules.settings.quiet_after) {
            // It may have work and another lease again.
            self.pacing.due = true;
        }
        if before.is_none() {
            self.follow_price(id, turn);
        }
        if let Some(remaining) = request.notice_remaining_ms
            && self.fleet.instances.get(&id).is_some_and(|instance| instance.notice.is_none())
        {
            let gone_at = now + Span::from_millis(i64::try_from(remaining).unwrap_or(i64::MAX));
            self.record(Event::InstanceNoticed { instance: id, gone_at }, turn);
        }
        if let Some(why) = request.at_risk
            && self.fleet.instances.get(&id).is_some_and(|instance| instance.at_risk.is_none())
        {
            self.record(Event::InstanceAtRisk { instance: id, why }, turn);
        }
        for report in &request.attempts {
            self.report(id, report, now, turn);
        }
        let wait = Span::from_millis(i64::try_from(request.wait_ms).unwrap_or(i64::MAX));
        let wait = wait.min(WAIT_MAX.max(self.rules.heartbeat));
        // Held until the turn is durable at least: `Waiters::answer` runs after the commit.
        let known = request.attempts.iter().map(|report| report.attempt).collect();
        self.waiters.hold(id, known, request.version, now + wait, reply);
    }

    fn report(&mut self, instance: InstanceId, report: &AttemptReport, now: Timestamp, turn: &mut Turn) {
        // A report about anything but the live attempt of this instance is stale and changes nothing (E1).
        let Some(attempt) = self.fleet.attempts.get(&report.attempt) else { return };
        if attempt.instance != instance || attempt.is_ended() {
            return;
        }
        let (id, started, known_checkpoint) = (attempt.id, attempt.started_at, attempt.checkpoint_at);
        let news = report.ran_with.as_ref().filter(|_| attempt.ran_with.is_none());
        let assigned_at = attempt.assigned_at;
        let ago = |age_ms: u64| now - Span::from_millis(i64::try_from(age_ms).unwrap_or(0));

        if let Some(ran_with) = news {
            let ran_with = Box::new(ran_with.clone());
            self.record(Event::AttemptRecorded { attempt: id, ran_with }, turn);
        }
        match &report.state {
            ReportedState::Preparing => {}
            ReportedState::Running { age_ms } => {
                if started.is_none() {
                    self.record(
                        Event::AttemptStarted { attempt: id, at: ago(*age_ms).max(assigned_at) },
                        turn,
                    );
                }
            }
            ReportedState::Ended { age_ms, ran_ms, .. } => {
                if let (None, Some(ran_ms)) = (started, ran_ms) {
                    let at = ago(age_ms.saturating_add(*ran_ms)).max(assigned_at);
                    self.record(Event::AttemptStarted { attempt: id, at }, turn);
                }
            }
        }
        if let Some(age_ms) = report.checkpoint_age_ms {
            let at = ago(age_ms);
            if at >= assigned_at && known_checkpoint.is_none_or(|known| at > known + CHECKPOINT_JITTER) {
                let took = report
                    .checkpoint_took_ms
                    .map(|ms| Span::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
                self.record(Event::AttemptCheckpointed { attempt: id, at, took }, turn);
            }
        }
        self.note_idle_gpu(id, report, now, turn);
        self.note_metrics(id, report, now, turn);
        if let ReportedState::Ended { age_ms, end, .. } = &report.state {
            self.end_attempt(id, ago(*age_ms), end.clone(), now, turn);
        }
    }

    fn note_idle_gpu(&mut self, id: AttemptId, report: &AttemptReport, now: Timestamp, turn: &mut Turn) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let Some(experiment) = self.fleet.experiments.get(&attempt.experiment) else { return };
        let Some(policy) = self.fleet.spec(experiment).utilization_policy else { return };
        let idle_for = report.gpu_idle_ms.map(|ms| Span::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        if let Some(event) = gpu_idle_noted(attempt, &policy, idle_for, now) {
            self.record(event, turn);
        }
    }

    fn note_metrics(&mut self, id: AttemptId, report: &AttemptReport, now: Timestamp, turn: &mut Turn) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let Some(experiment) = self.fleet.experiments.get(&attempt.experiment) else { return };
        let reached = rung_reached(&self.fleet, attempt, &report.metrics, now);
        let news: std::collections::BTreeMap<String, f64> = report
            .metrics
            .iter()
            // What is no number is not kept: the last number says more.
            .filter(|(_, value)| value.is_finite())
            .filter(|(name, value)| experiment.metrics.get(*name) != Some(value))
            .map(|(name, value)| (name.clone(), *value))
            .collect();
        if !news.is_empty() {
            self.record(Event::MetricsReported { attempt: id, metrics: news }, turn);
        }
        for event in reached {
            self.record(event, turn);
        }
    }

    /// Ends an attempt with all that follows from it.
    pub(super) fn end_attempt(
        &mut self,
        id: AttemptId,
        at: Timestamp,
        end: AttemptEnd,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let Some(instance) = self.fleet.instances.get(&attempt.instance) else { return };
        // Not before what is charged already, not after now: ages are the agent's word.
        let at = at.min(now).max(instance.meter.through);
        for event in attempt_ended(&self.fleet, id, at, end) {
            self.record(event, turn);
        }
    }

    pub(super) fn secret_missing(&mut self, id: AttemptId, error: String, now: Timestamp, turn: &mut Turn) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        if attempt.state == AttemptState::Assigned {
            self.end_attempt(id, now, AttemptEnd::NotStarted { error }, now, turn);
        }
    }

    pub(super) fn owns_log(&self, token_digest: &str, attempt: AttemptId) -> bool {
        self.fleet
            .attempts
            .get(&attempt)
            // Nothing is added to what is over: an agent says so only once all of the log was delivered.
            .is_some_and(|attempt| !attempt.is_ended() && self.is_agent_of(attempt.instance, token_digest))
    }

    /// Whether the agent with this token has an attempt that starts with this packed folder.
    pub(super) fn needs_blob(&self, token_digest: &str, digest: Digest) -> bool {
        self.fleet.attempts.values().any(|attempt| {
            let experiment = self.fleet.experiments.get(&attempt.experiment);
            !attempt.is_ended()
                && experiment.is_some_and(|found| archive_of(self.fleet.spec(found)) == Some(digest))
                && self.is_agent_of(attempt.instance, token_digest)
        })
    }

    /// The packed folders that experiments need which are not over.
    pub(super) fn workdirs_in_use(&self) -> BTreeSet<Digest> {
        let live = self.fleet.experiments.values().filter(|experiment| !experiment.is_ended());
        live.filter_map(|experiment| archive_of(self.fleet.spec(experiment))).collect()
    }

    fn is_agent_of(&self, id: InstanceId, token_digest: &str) -> bool {
        self.fleet
            .instances
            .get(&id)
            .filter(|instance| !matches!(instance.state, InstanceState::Gone { .. }))
            .and_then(|instance| instance.token_digest.as_deref())
            .is_some_and(|known| secrets::same(known, token_digest))
    }

    /// What still ran on an instance that went away.
    pub(super) fn lose_attempts(
        &mut self,
        id: InstanceId,
        at: Timestamp,
        interrupted: bool,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let live: Vec<(AttemptId, AttemptState)> =
            self.fleet.attempts_on(id).map(|attempt| (attempt.id, attempt.state.clone())).collect();
        // Leases are renewed long before their last half. A machine that ended in it, though it was heard in it or there
        // was no daemon to hear it, ended for lack of a lease: nobody who ran on it is to blame. One that fell silent
        // while a daemon listened has hung or was cut off, and what ran on it may be why.
        let half_lease = self.rules.settings.lease.divided_by(2);
        let known_at = self.heard.get(&id).copied().unwrap_or(self.started_at).max(self.started_at);
        let lease_ended = self.fleet.instances.get(&id).is_some_and(|instance| {
            at + half_lease >= instance.lease_until && known_at + half_lease >= instance.lease_until
        });
        for (attempt, state) in live {
            let told_why = match state {
                AttemptState::Stopping { why, .. } if why != StopReason::Interrupted => Some(why),
                AttemptState::Stopping { .. }
                | AttemptState::Assigned
                | AttemptState::Running
                | AttemptState::Ended { .. } => None,
            };
            let end = match told_why {
                Some(why) => AttemptEnd::Stopped { why },
                None if lease_ended && !interrupted => AttemptEnd::Stopped { why: StopReason::LeaseEnded },
                None => AttemptEnd::InstanceLost { interrupted },
            };
            self.end_attempt(attempt, at, end, now, turn);
        }
    }
}

fn archive_of(spec: &ExperimentSpec) -> Option<Digest> {
    match spec.workdir {
        Some(Workdir::Archive { digest, .. }) => Some(digest),
        Some(Workdir::Git { .. }) | None => None,
    }
}
