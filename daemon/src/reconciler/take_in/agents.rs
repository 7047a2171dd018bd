//! What agents say.

use std::collections::BTreeSet;

use bursar_ledger::{Metered, cuts, meter};
use bursar_model::{
    Attempt, AttemptEnd, AttemptId, AttemptState, Digest, Event, ExperimentSpec, InstanceId, InstanceState,
    Span, StopReason, Timestamp, Workdir,
    agent_api::{AttemptReport, RegisterRequest, ReportedState, SyncRequest},
};
use bursar_policies::{attempt_ended, gpu_idle_noted, node_lost, rung_reached};
use bursar_store::Store;
use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    inbox::AgentAnswer,
    nodes::Verdict,
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
                    let (address, host) = (request.address, request.host.clone());
                    self.record(
                        Event::AgentRegistered { instance: id, at: now, token_digest, address, host },
                        turn,
                    );
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
        let Some((rank, _)) = attempt.node_on(instance).filter(|_| !attempt.is_ended()) else { return };
        let (id, started, known_checkpoint) = (attempt.id, attempt.started_at, attempt.checkpoint_at);
        let news = report.ran_with.as_ref().filter(|_| rank == 0 && attempt.ran_with.is_none());
        let assigned_at = attempt.assigned_at;
        let ago = |age_ms: u64| now - Span::from_millis(i64::try_from(age_ms).unwrap_or(0));

        self.nodes.say(id, rank, &report.state, ago);
        let since = self.nodes.running_since(attempt).filter(|_| started.is_none());
        if let Some(ran_with) = news {
            let ran_with = Box::new(ran_with.clone());
            self.record(Event::AttemptRecorded { attempt: id, ran_with }, turn);
        }
        if let Some(since) = since {
            self.record(Event::AttemptStarted { attempt: id, at: since.max(assigned_at) }, turn);
        }
        // Of several nodes the first stores for all, and is the one whose metrics are the experiment's.
        if let Some(age_ms) = report.checkpoint_age_ms.filter(|_| rank == 0) {
            let at = ago(age_ms);
            if at >= assigned_at && known_checkpoint.is_none_or(|known| at > known + CHECKPOINT_JITTER) {
                let took = report
                    .checkpoint_took_ms
                    .map(|ms| Span::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
                self.record(Event::AttemptCheckpointed { attempt: id, at, took }, turn);
            }
        }
        self.note_idle_gpu(id, rank, report, now, turn);
        if rank == 0 {
            self.note_metrics(id, report, now, turn);
        }
        self.judge_nodes(id, now, turn);
    }

    /// Ends an attempt whose nodes have said enough.
    fn judge_nodes(&mut self, id: AttemptId, now: Timestamp, turn: &mut Turn) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let instance_of = |rank: u32| attempt.nodes.get(rank as usize).map(|node| node.instance);
        let is_noticed = |rank: u32| {
            let instance = instance_of(rank).and_then(|id| self.fleet.instances.get(&id));
            instance.is_some_and(|instance| instance.notice.is_some())
        };
        match self.nodes.verdict(attempt, is_noticed) {
            Verdict::GoesOn => {}
            Verdict::Unclear(unheard) => {
                // Who is well asks again as soon as it is answered.
                for instance in unheard.into_iter().filter_map(instance_of) {
                    self.waiters.answer_soon(instance, now);
                }
            }
            Verdict::StopOthers => {
                let why = StopReason::NodeEnded;
                self.record(Event::AttemptStopping { attempt: id, at: now, why, at_once: false }, turn);
            }
            Verdict::Ended { at, end, node } => self.end_attempt(id, at, end, node, now, turn),
        }
    }

    fn note_idle_gpu(
        &mut self,
        id: AttemptId,
        rank: u32,
        report: &AttemptReport,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let Some(experiment) = self.fleet.experiments.get(&attempt.experiment) else { return };
        let Some(policy) = self.fleet.spec(experiment).utilization_policy else { return };
        let idle_for = report.gpu_idle_ms.map(|ms| Span::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        let Some(since) = self.nodes.idle(attempt, rank, idle_for.map(|idle_for| now - idle_for)) else {
            return;
        };
        let idle_for = since.map(|since| now.since(since));
        if let Some(event) = gpu_idle_noted(attempt, &policy, idle_for, now) {
            self.record(event, turn);
        }
    }

    fn note_metrics(&mut self, id: AttemptId, report: &AttemptReport, now: Timestamp, turn: &mut Turn) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let Some(experiment) = self.fleet.experiments.get(&attempt.experiment) else { return };
        let reached = rung_reached(&self.fleet, &self.heard, attempt, &report.metrics, now);
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

    /// Ends an attempt with all that follows from it. `node` is the rank of the one that ended it, if it was one.
    fn end_attempt(
        &mut self,
        id: AttemptId,
        at: Timestamp,
        end: AttemptEnd,
        node: Option<u32>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        self.nodes.forget(id);
        let by = attempt.nodes.get(node.unwrap_or(0) as usize);
        let by = by.and_then(|node| self.fleet.instances.get(&node.instance));
        // Not before what is charged already, not after now: ages are the agent's word.
        let at = at.min(now);
        let at = by.map_or(at, |instance| at.max(instance.meter.through));
        for event in attempt_ended(&self.fleet, &self.heard, id, at, end, node) {
            self.record(event, turn);
        }
    }

    /// A node of an attempt does not start: what it needs could not be read when its agent asked for it.
    pub(super) fn secret_missing(
        &mut self,
        id: AttemptId,
        instance: InstanceId,
        error: String,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let Some(attempt) = self.fleet.attempts.get(&id) else { return };
        let Some((rank, _)) = attempt.node_on(instance) else { return };
        if attempt.state == AttemptState::Assigned && !self.nodes.has_said(id, rank) {
            let end = AttemptEnd::NotStarted { error };
            let state = ReportedState::Ended { age_ms: 0, ran_ms: None, end };
            self.nodes.say(id, rank, &state, |_| now);
            self.judge_nodes(id, now, turn);
        }
    }

    /// The rank of an agent's node of an attempt, if it has one.
    pub(super) fn node_of(&self, token_digest: &str, attempt: AttemptId) -> Option<u32> {
        // Nothing is added to what is over: an agent says so only once all of the log was delivered.
        let attempt = self.fleet.attempts.get(&attempt).filter(|attempt| !attempt.is_ended())?;
        attempt
            .live_nodes()
            .find_map(|(rank, node)| self.is_agent_of(node.instance, token_digest).then_some(rank))
    }

    /// Whether the agent with this token has an attempt that starts with this packed folder.
    pub(super) fn needs_blob(&self, token_digest: &str, digest: Digest) -> bool {
        self.fleet.attempts.values().any(|attempt| {
            let experiment = self.fleet.experiments.get(&attempt.experiment);
            !attempt.is_ended()
                && experiment.is_some_and(|found| archive_of(self.fleet.spec(found)) == Some(digest))
                && attempt.instances().any(|instance| self.is_agent_of(instance, token_digest))
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
        let live: Vec<Attempt> = self.fleet.attempts_on(id).cloned().collect();
        // Leases are renewed long before their last half. A machine that ended in it, though it was heard in it or there
        // was no daemon to hear it, ended for lack of a lease: nobody who ran on it is to blame. One that fell silent
        // while a daemon listened has hung or was cut off, and what ran on it may be why.
        let half_lease = self.rules.settings.lease.divided_by(2);
        let known_at = self.heard.get(&id).copied().unwrap_or(self.started_at).max(self.started_at);
        let lease_ended = self.fleet.instances.get(&id).is_some_and(|instance| {
            at + half_lease >= instance.lease_until && known_at + half_lease >= instance.lease_until
        });
        for attempt in live {
            let told_why = match attempt.state {
                AttemptState::Stopping { why, .. }
                    if !matches!(why, StopReason::Interrupted | StopReason::NodeEnded) =>
                {
                    Some(why)
                }
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
            if attempt.instances().nth(1).is_some() {
                let through = self.fleet.instances.get(&id).map_or(at, |instance| instance.meter.through);
                for event in node_lost(&self.fleet, &attempt, id, at.min(now).max(through), end) {
                    self.record(event, turn);
                }
                self.judge_nodes(attempt.id, now, turn);
                continue;
            }
            let rank = attempt.node_on(id).map(|(rank, _)| rank);
            self.end_attempt(attempt.id, at, end, rank, now, turn);
        }
    }
}

fn archive_of(spec: &ExperimentSpec) -> Option<Digest> {
    match spec.workdir {
        Some(Workdir::Archive { digest, .. }) => Some(digest),
        Some(Workdir::Git { .. }) | None => None,
    }
}
