//! The agent's loop: wait for something to happen, then look at everything and do what is due.

use std::{collections::BTreeMap, mem::Discriminant, time::Duration};

use bursar_model::{
    AttemptId, Host, InstanceId, StopReason,
    agent_api::{Action, RegisterRequest, ReportedState, Stream, StreamReply, SyncReply, SyncRequest},
};
use rustix::process::{getpid, set_child_subreaper};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    AgentError,
    attempt::Attempt,
    cache::{Cache, Held},
    containers::{Engine, REMOVAL_LIMIT, node_label, remove},
    deadline::{Deadline, LONGEST},
    helpers::Helpers,
    host,
    link::{Backoff, Link, LinkError},
    notice::{self, News, Notice},
    power,
    prepare::Prepared,
    processes,
    settings::AgentSettings,
    shim,
    usage::{self, FIRST_SAMPLE, SAMPLE_EVERY, Sample, Sampler},
    wall_clock,
    workdir::Carrier,
};

/// The longest sleep: a safety net under all that should wake the agent.
const TICK: Duration = Duration::from_millis(500);

/// Between two requests at least: a daemon that never holds an answer back must not be asked without pause.
const SYNC_SPACING: Duration = Duration::from_millis(10);

/// Waits for the daemon's first word on how long to wait.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(1);

/// How often, with how much time between, what is left is killed before the agent exits. What is still there then
/// hangs in the kernel, and only the end of the machine helps.
const LAST_SWEEPS: u32 = 50;
const LAST_SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// Works until the daemon sends it home, its lease ends, or it is told to end (SIGTERM, SIGINT). Nothing that it
/// started runs afterwards.
///
/// # Errors
/// When it cannot begin. Afterwards, errors are told to the daemon or end with the lease.
pub fn run(settings: AgentSettings) -> Result<(), AgentError> {
    let system = |what| move |source| AgentError::System { what, source };
    set_child_subreaper(Some(getpid())).map_err(|error| system("being a subreaper")(error.into()))?;
    // One thread, and the caller's: children die with the *thread* that started them.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("a runtime"))?;
    let result = runtime.block_on(async {
        let mut agent = Agent::new(settings)?;
        let mut child_ended = signal(SignalKind::child()).map_err(system("watching children"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("watching SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("watching SIGINT"))?;
        agent.work(&mut child_ended, &mut terminate, &mut interrupt).await;
        agent.end_everything().await;
        if agent.settings.power_off {
            power::off().await;
        }
        Ok(())
    });
    // A large folder may still be on its way to be copied or removed: not worth waiting for.
    runtime.shutdown_background();
    result
}

/// What a background task brings back.
enum Message {
    Prepared { attempt: AttemptId, result: Result<Prepared, String> },
    ContainersRemoved { attempt: AttemptId, result: Result<(), String> },
    Kept { attempt: AttemptId, result: Result<Held, String> },
    Answered { request: u64, sent: Instant, result: Result<SyncReply, LinkError> },
    Looked(Box<Host>),
    FromCloud(News),
    Sampled { sampler: Sampler, samples: BTreeMap<AttemptId, Sample> },
    Shipped { attempt: AttemptId, stream: Stream, offset: u64, result: Result<StreamReply, LinkError> },
}

/// What of a report cannot wait for the next heartbeat: which attempts there are, in which states, the notice, and
/// whether the instance is at risk.
type Urgent = (Vec<(AttemptId, Discriminant<ReportedState>)>, bool, bool);

/// A request under way.
struct Asking {
    request: u64,
    said: Urgent,
    task: AbortHandle,
}

struct Agent {
    settings: AgentSettings,
    secret: String,
    link: Link,
    carrier: Carrier,
    messages: UnboundedReceiver<Message>,
    sender: UnboundedSender<Message>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Away while it looks.
    sampler: Option<Sampler>,
    sample_at: Instant,
    lease: Deadline,
    notice: Option<(Notice, Deadline)>,
    at_risk: Option<String>,
    /// What the machine has: looked at before it is made known.
    host: Option<Box<Host>>,
    registered: bool,
    /// Told to end by a signal.
    leaving: bool,
    /// Told to end by the daemon.
    power_off: bool,
    asking: Option<Asking>,
    requests: u64,
    ask_not_before: Instant,
    backoff: Backoff,
    version: u64,
    heartbeat: Duration,
}

impl Agent {
    fn new(settings: AgentSettings) -> Result<Self, AgentError> {
        let now = Instant::now();
        let (sender, messages) = unbounded_channel();
        let lease = settings.first_lease();
        let link = Link::new(&settings.daemon_url)?;
        let cache = Cache::new(&settings.work_dir);
        let cache = cache.map_err(|source| AgentError::System { what: "a folder for its cache", source })?;
        Ok(Self {
            secret: settings.secret()?,
            carrier: Carrier { link: link.clone(), cache, helpers: Helpers::default() },
            link,
            settings,
            messages,
            sender,
            attempts: BTreeMap::new(),
            sampler: Some(Sampler::default()),
            sample_at: now,
            lease: Deadline::after(now, lease),
            notice: None,
            at_risk: None,
            host: None,
            registered: false,
            leaving: false,
            power_off: false,
            asking: None,
            requests: 0,
            ask_not_before: now,
            backoff: Backoff::default(),
            version: 0,
            heartbeat: FIRST_HEARTBEAT,
        })
    }

    async fn work(&mut self, child_ended: &mut Signal, terminate: &mut Signal, interrupt: &mut Signal) {
        tracing::info!(instance = %self.settings.instance, daemon = self.settings.daemon_url, "agent started");
        self.start_looking();
        loop {
            let now = Instant::now();
            let wake_at = self.turn(now);
            if self.is_done(now) {
                return;
            }
            tokio::select! {
                biased;
                _ = terminate.recv() => self.leaving = true,
                _ = interrupt.recv() => self.leaving = true,
                _ = child_ended.recv() => {} // The turn reaps.
                Some(message) = self.messages.recv() => self.take(message, Instant::now()),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Looks at everything, does what is due, and says when to look again.
    fn turn(&mut self, now: Instant) -> Instant {
        for (pid, status) in processes::reap() {
            // What is neither a helper nor an attempt's shell is an adopted grandchild: reaping it is all that it needs.
            let _ = self.carrier.helpers.exited(pid, status)
                || self.attempts.values_mut().any(|attempt| attempt.exited(pid, status, now));
        }
        self.land(now);
        let live = self.attempts.values().filter(|attempt| !attempt.is_over());
        let live: Vec<_> = live.map(|attempt| attempt.mark().clone()).collect();
        for attempt in self.attempts.values_mut() {
            attempt.turn(now, &live);
        }
        self.keep_setups();
        self.remove_containers();
        self.remove_forgotten();
        self.sample(now);
        self.ship(now);
        self.ask(now);
        self.wake_at(now)
    }

    fn is_done(&self, now: Instant) -> bool {
        let lease_over = now >= self.lease.at();
        let left = self.leaving && self.attempts.values().all(Attempt::is_over);
        let sent_home = self.power_off && self.attempts.is_empty();
        if lease_over || left || sent_home {
            tracing::info!(lease_over, left, sent_home, "agent ends");
        }
        lease_over || left || sent_home
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let attempts = self.attempts.values().filter_map(|attempt| attempt.wake_at(now));
        let ask = self.asking.is_none().then_some(self.ask_not_before);
        let sample = self.sampler.is_some() && !self.attempts.is_empty();
        let ask = ask.into_iter().chain(sample.then_some(self.sample_at.max(now + SYNC_SPACING)));
        let soonest = attempts.chain(ask).chain([self.lease.at(), now + TICK]).min();
        soonest.unwrap_or(now + TICK)
    }

    /// Looks at the machine once, and from now on where the cloud speaks of its end; both aside, as either may hang.
    fn start_looking(&self) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let _ = sender.send(Message::Looked(Box::new(host::look().await)));
        });
        let (source, sender) = (self.settings.notice.clone(), self.sender.clone());
        tokio::spawn(async move {
            let tell = |news| sender.send(Message::FromCloud(news)).is_ok();
            if let Err(error) = notice::listen(source, tell).await {
                tracing::error!(%error, "the cloud's notices cannot be heard");
            }
        });
    }

    fn take_notice(&mut self, notice: Notice, now: Instant) {
        let remaining = notice.gone_at.since(wall_clock());
        tracing::warn!(%remaining, "the cloud takes this instance back");
        self.notice = Some((notice, Deadline::after(now, remaining.to_std())));
        for attempt in self.attempts.values_mut() {
            attempt.show_notice(notice);
        }
    }

    /// Stops of itself what could not end in time otherwise: before the end of the lease, before the cloud takes the
    /// instance back (should the daemon not have said so), and when told to end.
    fn land(&mut self, now: Instant) {
        let grace = self.attempts.values().map(Attempt::grace).max().unwrap_or_default();
        let mut stop: Option<(StopReason, Deadline)> = None;
        if self.leaving || now >= self.lease.landing(grace) {
            stop = Some((StopReason::LeaseEnded, self.lease));
        }
        if let Some((_, gone)) = self.notice
            && now >= gone.landing(grace)
        {
            stop = Some((StopReason::Interrupted, gone));
        }
        let Some((why, deadline)) = stop else { return };
        for attempt in self.attempts.values_mut() {
            let kill_at = (now + attempt.grace()).min(deadline.last_kill()).min(self.lease.last_kill());
            attempt.stop(why, kill_at, true);
        }
    }

    fn remove_forgotten(&mut self) {
        let is_done =
            |attempt: &mut Attempt| attempt.forgotten && attempt.is_over() && !attempt.folder().is_in_use();
        for (_, attempt) in self.attempts.extract_if(.., |_, attempt| is_done(attempt)) {
            let folder = attempt.folder().clone();
            tokio::task::spawn_blocking(move || folder.remove());
        }
    }

    /// Has the engine remove what is left of attempts that have ended. Aside: it may hang.
    fn remove_containers(&mut self) {
        let instance = self.settings.instance;
        for attempt in self.attempts.values_mut() {
            let Some(engine) = attempt.begin_removal() else { continue };
            let (helpers, sender, attempt) = (self.carrier.helpers.clone(), self.sender.clone(), attempt.id);
            tokio::spawn(async move {
                let result = remove_containers(&helpers, engine, attempt, instance).await;
                let _ = sender.send(Message::ContainersRemoved { attempt, result });
            });
        }
    }

    /// Has it looked at what the attempts use.
    fn sample(&mut self, now: Instant) {
        if now < self.sample_at {
            return;
        }
        let subjects: Vec<_> = self.attempts.values().filter_map(Attempt::subject).collect();
        if subjects.is_empty() {
            self.sample_at = now + FIRST_SAMPLE;
            return;
        }
        let Some(mut sampler) = self.sampler.take() else { return };
        self.sample_at = now + SAMPLE_EVERY;
        let (helpers, sender) = (self.carrier.helpers.clone(), self.sender.clone());
        tokio::spawn(async move {
            let gpus = usage::gpus(&helpers, &subjects).await;
            // What is looked at in `/proc` may keep whoever asks waiting.
            let look = move || Message::Sampled { samples: sampler.look(&subjects, gpus), sampler };
            if let Ok(looked) = tokio::task::spawn_blocking(look).await {
                let _ = sender.send(looked);
            }
        });
    }

    fn ship(&mut self, now: Instant) {
        for attempt in self.attempts.values_mut().filter(|attempt| !attempt.forgotten) {
            for stream in [Stream::Log, Stream::Metrics] {
                let complete = attempt.is_over();
                let Some(chunk) = attempt.delivery(stream).next_chunk(now, complete) else { continue };
                let (link, sender, attempt) = (self.link.clone(), self.sender.clone(), attempt.id);
                tokio::spawn(async move {
                    let result = link.ship(stream, attempt, chunk.offset, chunk.bytes).await;
                    let _ = sender.send(Message::Shipped { attempt, stream, offset: chunk.offset, result });
                });
            }
        }
    }

    /// Keeps one request to the daemon under way. One that is being held back is given up where we have news.
    fn ask(&mut self, now: Instant) {
        let urgent = self.urgent(now);
        if let Some(asking) = &self.asking {
            if asking.said == urgent || !self.registered {
                return;
            }
            asking.task.abort();
        } else if now < self.ask_not_before || self.host.is_none() {
            return;
        }
        self.requests += 1;
        let request = self.requests;
        let (link, sender) = (self.link.clone(), self.sender.clone());
        let task = if self.registered {
            let report = self.report(now);
            tokio::spawn(async move {
                let result = link.sync(&report).await;
                let _ = sender.send(Message::Answered { request, sent: now, result });
            })
        } else {
            let (instance, secret) = (self.settings.instance, self.secret.clone());
            let (token, told) = (link.token().to_owned(), self.settings.address);
            let host = self.host.clone();
            tokio::spawn(async move {
                let result = async {
                    let address = match told {
                        Some(address) => address,
                        None => link.own_address().await?,
                    };
                    link.register(&RegisterRequest { instance, secret, token, address, host }).await
                };
                let result = result.await;
                let _ = sender.send(Message::Answered { request, sent: now, result });
            })
        };
        self.asking = Some(Asking { request, said: urgent, task: task.abort_handle() });
    }

    fn urgent(&self, now: Instant) -> Urgent {
        let known = self.attempts.values().filter(|attempt| !attempt.forgotten);
        let states = known.map(|attempt| (attempt.id, std::mem::discriminant(&attempt.reported_state(now))));
        (states.collect(), self.notice.is_some(), self.at_risk.is_some())
    }

    fn report(&mut self, now: Instant) -> SyncRequest {
        let known = self.attempts.values_mut().filter(|attempt| !attempt.forgotten);
        let remaining = |(_, gone): (Notice, Deadline)| gone.at().saturating_duration_since(now);
        SyncRequest {
            instance: Some(self.settings.instance),
            attempts: known.map(|attempt| attempt.report(now)).collect(),
            notice_remaining_ms: self.notice.map(remaining).map(millis),
            at_risk: self.at_risk.clone(),
            wait_ms: millis(self.heartbeat),
            version: self.version,
        }
    }

    fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Prepared { attempt, result } => {
                if let Some(attempt) = self.attempts.get_mut(&attempt) {
                    attempt.prepared(result, now);
                    if let Some((notice, _)) = self.notice {
                        attempt.show_notice(notice);
                    }
                }
            }
            Message::Kept { attempt, result } => {
                if let Some(attempt) = self.attempts.get_mut(&attempt) {
                    attempt.kept(result, now);
                }
            }
            Message::ContainersRemoved { attempt, result } => {
                if let Some(attempt) = self.attempts.get_mut(&attempt) {
                    attempt.containers_removed(result);
                }
            }
            Message::Sampled { sampler, samples } => {
                self.sampler = Some(sampler);
                for (id, sample) in samples {
                    if let Some(attempt) = self.attempts.get_mut(&id) {
                        attempt.uses(&sample, now);
                    }
                }
            }
            Message::Shipped { attempt, stream, offset, result } => {
                if let Some(attempt) = self.attempts.get_mut(&attempt) {
                    attempt.delivery(stream).sent(now, offset, result);
                }
            }
            Message::Looked(host) => self.host = Some(host),
            Message::FromCloud(News::Gone(notice)) => self.take_notice(notice, now),
            Message::FromCloud(News::AtRisk(why)) => {
                tracing::warn!(why, "the cloud may take this instance back");
                self.at_risk = Some(why);
            }
            // An answer to a request that was given up counts no more: a newer one is under way.
            Message::Answered { request, sent, result } => {
                if self.asking.as_ref().is_some_and(|asking| asking.request == request) {
                    self.asking = None;
                    self.answered(sent, now, result);
                }
            }
        }
    }

    fn answered(&mut self, sent: Instant, now: Instant, result: Result<SyncReply, LinkError>) {
        match result {
            Ok(reply) => {
                self.registered = true;
                self.attempts.values_mut().for_each(Attempt::answered);
                self.backoff.reset();
                self.ask_not_before = now + SYNC_SPACING;
                self.obey(sent, now, reply);
            }
            Err(error) => {
                let wait = self.backoff.next();
                tracing::warn!(%error, ?wait, "the daemon was asked in vain");
                self.ask_not_before = now + wait;
            }
        }
    }

    fn obey(&mut self, sent: Instant, now: Instant, reply: SyncReply) {
        let SyncReply { lease_remaining_ms, heartbeat_ms, attempts: orders, power_off, version } = reply;
        if self.lease.extend(sent, Duration::from_millis(lease_remaining_ms)) {
            self.settings.write_lease(self.lease.at().saturating_duration_since(now));
        }
        self.heartbeat = Duration::from_millis(heartbeat_ms);
        self.version = version;
        self.power_off |= power_off;
        for attempt in self.attempts.values_mut() {
            if !orders.iter().any(|order| order.attempt == attempt.id) {
                // Fenced off: another attempt of the same experiment may run elsewhere already and use the same
                // checkpoints, so there is no grace.
                attempt.forgotten = true;
                attempt.stop(StopReason::Moved, now, true);
            }
        }
        for order in orders {
            let known = self.attempts.get_mut(&order.attempt);
            match (&order.action, known) {
                (Action::Run { .. }, Some(_)) => {}
                // Work comes with the first order only; without it the attempt is one that this agent has reported, in an
                // answer that crossed its forgetting.
                (Action::Run { work: None }, None) => {}
                (Action::Run { work: Some(work) }, None) => {
                    let attempt = Attempt::new(&order, (**work).clone(), &self.settings, now);
                    self.begin(attempt);
                }
                (Action::Stop { why, grace_ms }, Some(attempt)) => {
                    let kill_at = now + Duration::from_millis(*grace_ms).min(LONGEST);
                    attempt.stop(*why, kill_at.min(self.lease.last_kill()), *grace_ms > 0);
                }
                (Action::Stop { why, .. }, None) => {
                    let attempt = Attempt::never_started(&order, *why, &self.settings, now);
                    self.attempts.insert(order.attempt, attempt);
                }
            }
        }
    }

    fn begin(&mut self, mut attempt: Attempt) {
        let (id, sender) = (attempt.id, self.sender.clone());
        let preparation = attempt.preparation(self.carrier.clone());
        let task = tokio::spawn(async move {
            let result = preparation.run().await;
            let _ = sender.send(Message::Prepared { attempt: id, result });
        });
        attempt.waits_for(task.abort_handle());
        self.attempts.insert(id, attempt);
        self.sample_at = self.sample_at.min(Instant::now() + FIRST_SAMPLE);
    }

    fn keep_setups(&mut self) {
        for attempt in self.attempts.values_mut() {
            let Some(keeping) = attempt.keeping() else { continue };
            let (id, sender) = (attempt.id, self.sender.clone());
            let task = tokio::spawn(async move {
                let _ = sender.send(Message::Kept { attempt: id, result: keeping.run().await });
            });
            attempt.waits_for(task.abort_handle());
        }
    }

    /// Kills all that is left, adopted processes without any mark among it.
    async fn end_everything(&self) {
        let everything = processes::Which::DescendedFrom { ancestor: getpid(), except: &[] };
        let mut clean = 0;
        for _ in 0..LAST_SWEEPS {
            let mut none_left = processes::kill(everything);
            for attempt in self.attempts.values() {
                none_left &= attempt.kill_all();
            }
            let _ = processes::reap();
            clean = if none_left { clean + 1 } else { 0 };
            if clean == 2 {
                return;
            }
            sleep(LAST_SWEEP_PAUSE).await;
        }
        tracing::error!("processes of this instance cannot be killed");
    }
}

async fn remove_containers(
    helpers: &Helpers,
    engine: Engine,
    attempt: AttemptId,
    instance: InstanceId,
) -> Result<(), String> {
    let ask = |arguments: Vec<String>| {
        let mut command = shim::tied_to_this_thread(engine.program().as_ref());
        command.args(arguments);
        helpers.run(command, None, REMOVAL_LIMIT)
    };
    remove(engine, &node_label(attempt, instance), ask).await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
