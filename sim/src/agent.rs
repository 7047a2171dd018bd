//! The agent of a simulated machine: the agents' protocol and rules, with work that is only time going by.
//!
//! It keeps the same promises as the real one (`agent/`): it asks level-triggered, stops what could not end in time
//! before its lease or the cloud's notice runs out, fences off what the daemon no longer lists, and powers the machine
//! off at the end of its lease, whatever happens. The moments at which its work starts, saves and ends follow from when
//! it began, so that what is true does not depend on when it is woken.

use std::{collections::BTreeMap, sync::Arc};

use bursar_daemon::{
    inbox::{AgentAnswer, Message},
    secrets,
};
use bursar_model::{
    AttemptEnd, AttemptId, Clock, ExperimentId, InstanceId, Span, StopReason, Timestamp,
    agent_api::{
        Action, AttemptOrder, AttemptReport, RegisterRequest, ReportedState, SyncReply, SyncRequest, Work,
    },
};
use tokio::sync::{Notify, oneshot};

use crate::{clock::SimClock, cloud::SimCloud, ground::Ground, job::Job};

/// From the order to run until `run` runs.
const PREPARING: Span = Span::from_secs(3);

/// How long saving takes when work is told to stop, unless it is killed before.
const SAVING: Span = Span::from_secs(2);

/// As the real agent has it: kept between the end of what runs and the end of the lease.
const LANDING_MARGIN: Span = Span::from_secs(1);

/// How long the agent rests after it asked in vain.
const ASK_AGAIN: Span = Span::from_secs(5);

/// A machine that waits for its end looks again now and then.
const LOOK_AGAIN: Span = Span::from_secs(60);

/// Agents that speak so seldom do it at multiples of their heartbeat, and not for a checkpoint alone (the real one never
/// does): all machines of a long replay in one turn, instead of each in one of its own.
const SELDOM: Span = Span::from_secs(300);

/// What a machine is launched with.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) instance: InstanceId,
    pub(crate) secret: String,
    pub(crate) lease_until: Timestamp,
    pub(crate) runs_from: Timestamp,
    /// Rung when the cloud changes something about the machine.
    pub(crate) changed: Arc<Notify>,
}

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent {
    machine: Machine,
    cloud: SimCloud,
    ground: Ground,
    clock: SimClock,
    token: String,
    registered: bool,
    sent_home: bool,
    lease_until: Timestamp,
    /// The longest that a lease was ahead, so that a short lease is not all landing.
    longest_lease: Span,
    heartbeat: Span,
    version: u64,
    /// Something changed that the daemon does not know.
    has_news: bool,
    ask_not_before: Timestamp,
    attempts: BTreeMap<AttemptId, Attempt>,
}

#[derive(Debug)]
struct Attempt {
    experiment: ExperimentId,
    job: Job,
    /// The node that it is; the first saves for all.
    rank: u32,
    on: InstanceId,
    grace: Span,
    phase: Phase,
    /// How long its experiment has worked, earlier attempts included.
    done: Span,
    started_at: Option<Timestamp>,
    saved_at: Option<Timestamp>,
}

#[derive(Debug)]
enum Phase {
    Preparing { until: Timestamp },
    Running { since: Timestamp, done_before: Span },
    Saving { done: Span, until: Timestamp, why: StopReason },
    Ended { at: Timestamp, end: AttemptEnd },
}

/// A request under way.
struct Asked {
    sent_at: Timestamp,
    answer: oneshot::Receiver<AgentAnswer>,
}

impl Agent {
    pub(crate) fn new(machine: Machine, cloud: SimCloud, ground: Ground, clock: SimClock) -> Self {
        let (lease_until, now) = (machine.lease_until, clock.now());
        Self {
            token: format!("token of {}", machine.instance),
            machine,
            cloud,
            ground,
            clock,
            registered: false,
            sent_home: false,
            lease_until,
            longest_lease: lease_until.since(now),
            heartbeat: ASK_AGAIN,
            version: 0,
            has_news: true,
            ask_not_before: now,
            attempts: BTreeMap::new(),
        }
    }

    /// Lives until the machine is over.
    pub(crate) async fn live(mut self) {
        let mut asked: Option<Asked> = None;
        loop {
            let now = self.clock.now();
            let standing = self.cloud.standing(self.machine.instance);
            if standing.over {
                break;
            }
            if standing.hung {
                // Whatever it was doing, nobody hears of it, and its own timer does not ring any more.
                self.stop_working(now);
                asked = None;
            }
            let booted = now >= self.machine.runs_from;
            if standing.hung {
                // It waits for somebody else to end it.
            } else if now >= self.lease_until || self.sent_home || standing.agent_killed {
                self.stop_working(now);
                self.cloud.power_off(self.machine.instance);
            } else if booted {
                self.land(now, standing.taken_at);
                self.advance(now);
                if self.has_news && now >= self.ask_not_before {
                    asked = self.ask(now, standing.taken_at).await;
                }
            }
            let wake_at = if standing.hung {
                standing.next_change.unwrap_or(now + LOOK_AGAIN)
            } else {
                self.wake_at(now, standing.next_change, standing.taken_at)
            };
            let changed = self.machine.changed.clone();
            tokio::select! {
                biased;
                () = changed.notified() => self.has_news = true,
                answer = answer_of(&mut asked) => {
                    let sent_at = asked.take().map_or(now, |asked| asked.sent_at);
                    self.hear(sent_at, answer);
                }
                () = tokio::time::sleep_until(self.clock.instant(wake_at)) => {}
            }
        }
        self.stop_working(self.clock.now());
    }

    /// Asks the daemon; a request before it is given up.
    async fn ask(&mut self, now: Timestamp, taken_at: Option<Timestamp>) -> Option<Asked> {
        self.has_news = false;
        let (reply, answer) = oneshot::channel();
        let message = if self.registered {
            let request = SyncRequest {
                instance: Some(self.machine.instance),
                attempts: self.attempts.iter().map(|(id, attempt)| attempt.report(*id, now)).collect(),
                notice_remaining_ms: taken_at.map(|at| at.since(now).as_millis() as u64),
                at_risk: None,
                wait_ms: self.patience(now).as_millis() as u64,
                version: self.version,
            };
            Message::Sync { token_digest: secrets::digest(&self.token), request, reply }
        } else {
            let request = RegisterRequest {
                instance: self.machine.instance,
                secret: self.machine.secret.clone(),
                token: self.token.clone(),
                host: None,
                address: std::net::Ipv4Addr::LOCALHOST.into(),
            };
            Message::Register { request, reply }
        };
        if self.ground.carry(self.machine.instance, message, now).await {
            return Some(Asked { sent_at: now, answer });
        }
        self.ask_later(now);
        None
    }

    /// How long an answer may take.
    fn patience(&self, now: Timestamp) -> Span {
        let over = Span::from_millis(now.as_millis().rem_euclid(self.heartbeat.as_millis().max(1)));
        if self.heartbeat < SELDOM { self.heartbeat } else { self.heartbeat.saturating_sub(over) }
    }

    fn ask_later(&mut self, now: Timestamp) {
        self.has_news = true;
        self.ask_not_before = now + ASK_AGAIN;
    }

    fn hear(&mut self, sent_at: Timestamp, answer: Option<AgentAnswer>) {
        let now = self.clock.now();
        // What comes while the machine is cut off does not arrive.
        let arrives = self.ground.daemon(self.machine.instance, now).is_some();
        match answer.filter(|_| arrives) {
            Some(AgentAnswer::Orders { reply, .. }) => {
                self.registered = true;
                self.has_news = true;
                self.obey(sent_at, now, *reply);
            }
            Some(AgentAnswer::Unauthorized | AgentAnswer::NotStored(_)) | None => self.ask_later(now),
        }
    }

    fn obey(&mut self, sent_at: Timestamp, now: Timestamp, reply: SyncReply) {
        let SyncReply { lease_remaining_ms, heartbeat_ms, attempts: orders, power_off, version } = reply;
        self.lease_until = self.lease_until.max(sent_at + Span::from_millis(lease_remaining_ms as i64));
        self.longest_lease = self.longest_lease.max(self.lease_until.since(now));
        self.heartbeat = Span::from_millis(heartbeat_ms as i64);
        self.version = version;
        self.sent_home |= power_off;
        let (ground, on) = (&self.ground, self.machine.instance);
        self.attempts.retain(|id, attempt| {
            let listed = orders.iter().any(|order| order.attempt == *id);
            if !listed {
                // Fenced off, without grace: another attempt may work elsewhere already.
                ground.cease(attempt.experiment, *id, on);
            }
            listed
        });
        for order in orders {
            self.follow(now, order);
        }
    }

    fn follow(&mut self, now: Timestamp, order: AttemptOrder) {
        let AttemptOrder { attempt: id, experiment, number: _, action } = order;
        match (action, self.attempts.get_mut(&id)) {
            (Action::Run { .. }, Some(_)) => {}
            (Action::Run { work: None }, None) => {}
            (Action::Run { work: Some(work) }, None) => {
                self.attempts.insert(id, Attempt::begin(experiment, &work, self.machine.instance, now));
            }
            (Action::Stop { why, grace_ms }, Some(attempt)) => {
                attempt.stop(now, why, Span::from_millis(grace_ms as i64));
            }
            (Action::Stop { why, .. }, None) => {
                let mut attempt = Attempt::begin(experiment, &Work::default(), self.machine.instance, now);
                attempt.stop(now, why, Span::ZERO);
                self.attempts.insert(id, attempt);
            }
        }
    }

    /// Stops of itself what could not end in time otherwise.
    fn land(&mut self, now: Timestamp, taken_at: Option<Timestamp>) {
        let grace = self.attempts.values().map(|attempt| attempt.grace).max().unwrap_or_default();
        let ahead = (grace + LANDING_MARGIN).min(self.longest_lease.divided_by(2));
        let lease_lands = now >= self.lease_until - ahead;
        let why = match taken_at {
            Some(at) if now >= at - ahead => StopReason::Interrupted,
            Some(_) | None if lease_lands => StopReason::LeaseEnded,
            Some(_) | None => return,
        };
        for attempt in self.attempts.values_mut() {
            attempt.stop(now, why, attempt.grace);
        }
    }

    /// Lets everything happen that is due.
    fn advance(&mut self, now: Timestamp) {
        for (id, attempt) in &mut self.attempts {
            // Prepared, worked, saved: each attempt goes through no more than these.
            for _ in 0..3 {
                self.has_news |= attempt.step(*id, now, self.heartbeat < SELDOM, &self.ground);
            }
        }
    }

    /// Nothing of it runs any longer; nobody is told.
    fn stop_working(&mut self, now: Timestamp) {
        self.advance(now);
        for (id, attempt) in std::mem::take(&mut self.attempts) {
            self.ground.cease(attempt.experiment, id, self.machine.instance);
        }
    }

    fn wake_at(
        &self,
        now: Timestamp,
        cloud_changes: Option<Timestamp>,
        taken_at: Option<Timestamp>,
    ) -> Timestamp {
        let later = |at: Timestamp| Some(at).filter(|at| *at > now);
        let grace = self.attempts.values().map(|attempt| attempt.grace).max().unwrap_or_default();
        let ahead = (grace + LANDING_MARGIN).min(self.longest_lease.divided_by(2));
        let own = [
            later(self.machine.runs_from),
            later(self.lease_until),
            later(self.lease_until - ahead),
            taken_at.and_then(|at| later(at - ahead)),
            cloud_changes,
            later(self.ask_not_before).filter(|_| self.has_news),
        ];
        let works = self.attempts.values().map(|attempt| attempt.next().and_then(later));
        own.into_iter().chain(works).flatten().min().unwrap_or(now + LOOK_AGAIN)
    }
}

/// The answer to what was asked; never, where nothing was.
async fn answer_of(asked: &mut Option<Asked>) -> Option<AgentAnswer> {
    match asked {
        Some(asked) => (&mut asked.answer).await.ok(),
        None => std::future::pending().await,
    }
}

impl Attempt {
    fn begin(experiment: ExperimentId, work: &Work, on: InstanceId, now: Timestamp) -> Self {
        Self {
            experiment,
            job: Job::of(work),
            rank: work.rank,
            on,
            grace: Span::from_millis(work.grace_ms as i64),
            phase: Phase::Preparing { until: now + PREPARING },
            done: Span::ZERO,
            started_at: None,
            saved_at: None,
        }
    }

    /// Tells it to stop: it saves, if its grace lets it.
    fn stop(&mut self, now: Timestamp, why: StopReason, grace: Span) {
        match self.phase {
            Phase::Preparing { .. } => {
                self.phase = Phase::Ended { at: now, end: AttemptEnd::Stopped { why } };
            }
            Phase::Running { since, done_before } => {
                let done = done_before + now.since(since);
                // What is cut short saves nothing new.
                let done = if grace >= SAVING { done } else { done_before };
                self.done = done;
                self.phase = Phase::Saving { done, until: now + SAVING.min(grace), why };
            }
            Phase::Saving { .. } | Phase::Ended { .. } => {}
        }
    }

    /// The next thing that happens, if it is due. True when the daemon should hear of it.
    fn step(&mut self, id: AttemptId, now: Timestamp, tells_saves: bool, ground: &Ground) -> bool {
        match self.phase {
            Phase::Preparing { until } if until <= now => {
                let done_before = ground.begin(self.experiment, id, self.on);
                self.started_at = Some(until);
                self.phase = Phase::Running { since: until, done_before };
                true
            }
            Phase::Running { since, done_before } => {
                let ends_at = since + self.job.duration.saturating_sub(done_before);
                self.done = done_before + ends_at.min(now).since(since);
                let saved = self.last_save(since, ends_at.min(now));
                let news = saved > self.saved_at;
                if let Some(at) = saved.filter(|_| news) {
                    self.saved_at = saved;
                    self.save(done_before + at.since(since), ground);
                }
                if ends_at > now {
                    return news && tells_saves;
                }
                if self.rank == 0 {
                    ground.finish(self.experiment);
                }
                ground.cease(self.experiment, id, self.on);
                self.phase =
                    Phase::Ended { at: ends_at, end: AttemptEnd::Exited { code: self.job.exit_code } };
                true
            }
            Phase::Saving { done, until, why } if until <= now => {
                self.save(done, ground);
                ground.cease(self.experiment, id, self.on);
                self.saved_at = Some(until);
                self.phase = Phase::Ended { at: until, end: AttemptEnd::Stopped { why } };
                true
            }
            Phase::Preparing { .. } | Phase::Saving { .. } | Phase::Ended { .. } => false,
        }
    }

    /// The first node saves for all, as with data-parallel training.
    fn save(&self, done: Span, ground: &Ground) {
        if self.rank == 0 {
            ground.save(self.experiment, done);
        }
    }

    fn last_save(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let every = self.job.save_every.as_millis().max(1);
        let saves = now.since(since).as_millis() / every;
        (saves > 0).then(|| since + Span::from_millis(saves * every))
    }

    fn next(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Preparing { until } | Phase::Saving { until, .. } => Some(until),
            Phase::Running { since, done_before } => {
                let ends_at = since + self.job.duration.saturating_sub(done_before);
                let last = self.saved_at.unwrap_or(since);
                Some(ends_at.min(last + self.job.save_every))
            }
            Phase::Ended { .. } => None,
        }
    }

    fn report(&self, attempt: AttemptId, now: Timestamp) -> AttemptReport {
        let age = |at: Timestamp| now.since(at).as_millis() as u64;
        let state = match &self.phase {
            Phase::Preparing { .. } => ReportedState::Preparing,
            Phase::Running { since, .. } => ReportedState::Running { age_ms: age(*since) },
            Phase::Saving { .. } => ReportedState::Running { age_ms: self.started_at.map_or(0, age) },
            Phase::Ended { at, end } => ReportedState::Ended {
                age_ms: age(*at),
                ran_ms: self.started_at.map(|started| at.since(started).as_millis() as u64),
                end: end.clone(),
            },
        };
        AttemptReport {
            attempt,
            state,
            checkpoint_age_ms: self.saved_at.filter(|_| self.rank == 0).map(age),
            checkpoint_took_ms: None,
            metrics: self.job.metrics(self.done),
            ran_with: None,
            gpu_idle_ms: None,
        }
    }
}
