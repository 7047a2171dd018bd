//! Agents that wait for news, and what each is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    net::IpAddr,
};

use bursar_model::{
    Attempt, AttemptId, AttemptState, ExperimentSpec, Fleet, InstanceId, InstanceState, Timestamp, TypedId,
    agent_api::{Action, AttemptOrder, ContainerWork, RegistryLogin, SyncReply, Work},
    id::split_mix,
    seed_of,
};
use rustc_hash::FxHasher;
use tokio::sync::oneshot;

use crate::{
    data::data_of,
    inbox::{AgentAnswer, CommitFailed},
    rules::Rules,
    setup::setup_key,
};

/// What the password for an image's registry is called among an attempt's secrets. No variable has such a name.
pub(crate) const REGISTRY_PASSWORD: &str = "registry_auth.password";

/// The agents whose answers are held back.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<InstanceId, Waiter>,
    deadlines: BTreeSet<(Timestamp, InstanceId)>,
    /// Those that came in this turn: they may know less than is true already.
    fresh: BTreeSet<InstanceId>,
}

#[derive(Debug)]
struct Waiter {
    /// The attempts that the agent has reported.
    known: BTreeSet<AttemptId>,
    version: u64,
    deadline: Timestamp,
    reply: oneshot::Sender<AgentAnswer>,
}

impl Waiters {
    /// Holds an answer back until something differs from `version`, at most until `deadline`. An older request of the
    /// same agent is dropped: the agent has given it up.
    pub(crate) fn hold(
        &mut self,
        instance: InstanceId,
        known: BTreeSet<AttemptId>,
        version: u64,
        deadline: Timestamp,
        reply: oneshot::Sender<AgentAnswer>,
    ) {
        if let Some(before) = self.waiting.insert(instance, Waiter { known, version, deadline, reply }) {
            self.deadlines.remove(&(before.deadline, instance));
        }
        self.deadlines.insert((deadline, instance));
        self.fresh.insert(instance);
    }

    /// What came in this turn was not stored: those who said it say it again.
    pub(crate) fn fail_fresh(&mut self, failed: &CommitFailed) {
        for instance in std::mem::take(&mut self.fresh) {
            if let Some(waiter) = self.waiting.remove(&instance) {
                self.deadlines.remove(&(waiter.deadline, instance));
                let _ = waiter.reply.send(AgentAnswer::NotStored(failed.clone()));
            }
        }
    }

    /// Answers that are held back are due by then, news or not.
    pub(crate) fn answer_by(&mut self, deadline: Timestamp) {
        for waiter in self.waiting.values_mut() {
            waiter.deadline = waiter.deadline.min(deadline);
        }
        self.deadlines = self.waiting.iter().map(|(id, waiter)| (waiter.deadline, *id)).collect();
    }

    /// The answer to an agent is due, news or not: it shows that it lives by asking again.
    pub(crate) fn answer_soon(&mut self, instance: InstanceId, now: Timestamp) {
        if let Some(waiter) = self.waiting.get_mut(&instance) {
            self.deadlines.remove(&(waiter.deadline, instance));
            waiter.deadline = waiter.deadline.min(now);
            self.deadlines.insert((waiter.deadline, instance));
        }
    }

    /// When the next answer is due though there is no news.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Answers those whose orders differ from what they know, and those who have waited long enough.
    pub(crate) fn answer(
        &mut self,
        fleet: &Fleet,
        changed: &BTreeSet<InstanceId>,
        now: Timestamp,
        rules: &Rules,
    ) {
        let due =
            self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, instance)| *instance);
        let fresh = std::mem::take(&mut self.fresh);
        let candidates: BTreeSet<InstanceId> = due.chain(changed.iter().copied()).chain(fresh).collect();
        for instance in candidates {
            let Some(waiter) = self.waiting.get(&instance) else { continue };
            let answer = orders(fleet, instance, &waiter.known, now, rules);
            let news = match &answer {
                AgentAnswer::Orders { reply, .. } => reply.version != waiter.version,
                AgentAnswer::Unauthorized | AgentAnswer::NotStored(_) => true,
            };
            if (news || waiter.deadline <= now)
                && let Some(waiter) = self.waiting.remove(&instance)
            {
                self.deadlines.remove(&(waiter.deadline, instance));
                // The agent may have gone meanwhile: it will ask again.
                let _ = waiter.reply.send(answer);
            }
        }
    }
}

/// What an instance's agent is to do now. Work, with its secrets, goes out only for attempts that the agent does not know
/// yet: what it knows it has, and a secret that can no longer be read must not disturb it.
pub(crate) fn orders(
    fleet: &Fleet,
    id: InstanceId,
    known: &BTreeSet<AttemptId>,
    now: Timestamp,
    rules: &Rules,
) -> AgentAnswer {
    let mut reply = SyncReply {
        lease_remaining_ms: 0,
        heartbeat_ms: rules.heartbeat.as_millis() as u64,
        attempts: Vec::new(),
        power_off: true,
        version: 0,
    };
    let mut secrets = BTreeMap::new();
    let mut lease_until = now;
    if let Some(instance) = fleet.instances.get(&id) {
        lease_until = instance.lease_until;
        reply.lease_remaining_ms = lease_until.since(now).as_millis() as u64;
        // Machines end by the provider's hand, once, with what they run told to stop before.
        reply.power_off = matches!(instance.state, InstanceState::Gone { .. });
        for attempt in fleet.attempts_on(id) {
            let Some((rank, node)) = attempt.node_on(id) else { continue };
            let Some(experiment) = fleet.experiments.get(&attempt.experiment) else { continue };
            let spec = fleet.spec(experiment);
            let grace_ms = spec.checkpoint.grace.as_millis() as u64;
            let action = match attempt.state {
                AttemptState::Assigned | AttemptState::Running if known.contains(&attempt.id) => {
                    Action::Run { work: None }
                }
                AttemptState::Assigned | AttemptState::Running => {
                    let params =
                        experiment.params.iter().map(|(name, value)| (name.clone(), value.to_string()));
                    let mut envs = spec.envs.clone();
                    let seed = spec.seed.unwrap_or_else(|| seed_of(experiment.id));
                    envs.insert("BURSAR_SEED".to_owned(), seed.to_string());
                    let mut wanted = spec.secrets.clone();
                    if let Some(auth) = &spec.registry_auth {
                        wanted.insert(REGISTRY_PASSWORD.to_owned(), auth.password.clone());
                    }
                    if !wanted.is_empty() {
                        secrets.insert(attempt.id, wanted);
                    }
                    Action::Run {
                        work: Some(Box::new(Work {
                            name: experiment.name.to_string(),
                            setup: spec.setup.clone(),
                            run: spec.run.clone(),
                            envs,
                            params: params.collect(),
                            secrets: spec.secrets.keys().cloned().collect(),
                            workdir: spec.workdir.clone(),
                            setup_key: setup_key(spec),
                            devices: node.devices.clone(),
                            min_gpu_utilization: spec
                                .utilization_policy
                                .map(|policy| policy.min_gpu_utilization),
                            grace_ms,
                            container: container(spec, attempt),
                            data: data_of(spec, experiment.id, rules.storage.as_ref()),
                            rank,
                            nodes: addresses(fleet, attempt),
                            master_port: master_port(attempt.id),
                        })),
                    }
                }
                AttemptState::Stopping { why, at_once, .. } => {
                    Action::Stop { why, grace_ms: if at_once { 0 } else { grace_ms } }
                }
                AttemptState::Ended { .. } => continue,
            };
            reply.attempts.push(AttemptOrder {
                attempt: attempt.id,
                experiment: attempt.experiment,
                number: attempt.number,
                action,
            });
        }
    }
    reply.version = version_of(&reply, lease_until);
    AgentAnswer::Orders { reply: Box::new(reply), secrets }
}

/// The container that an attempt's scripts run in. The password for its registry is filled in when it is sent.
fn container(spec: &ExperimentSpec, attempt: &Attempt) -> Option<ContainerWork> {
    let registry = spec.registry_auth.as_ref();
    Some(ContainerWork {
        image: spec.image.clone()?,
        registry: registry
            .map(|auth| RegistryLogin { username: auth.username.clone(), password: String::new() }),
        memory_mib: attempt.amounts.memory_mib,
        cpus_milli: attempt.amounts.cpus_milli,
    })
}

/// Where the nodes of an attempt are reached, by rank: it is given to instances whose agents have said so.
fn addresses(fleet: &Fleet, attempt: &Attempt) -> Vec<IpAddr> {
    attempt.instances().filter_map(|id| fleet.instances.get(&id)?.address).collect()
}

/// Where the nodes of an attempt may meet: a port outside those that systems hand out by themselves, different for most
/// attempts, since several may have their first node on one machine.
fn master_port(attempt: AttemptId) -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u64 = 10_000;
    FIRST + (split_mix(attempt.as_u64()) % COUNT) as u16
}

/// Differs when the orders do, or the lease. The work of an attempt never changes, so its id stands for it. A longer lease
/// is news: an agent that heard of it late would begin to stop its work in vain.
fn version_of(reply: &SyncReply, lease_until: Timestamp) -> u64 {
    let mut hasher = FxHasher::default();
    lease_until.as_millis().hash(&mut hasher);
    reply.power_off.hash(&mut hasher);
    for order in &reply.attempts {
        order.attempt.as_u64().hash(&mut hasher);
        match &order.action {
            Action::Run { .. } => 0_u8.hash(&mut hasher),
            Action::Stop { why, grace_ms } => (1_u8, *why as u8, *grace_ms).hash(&mut hasher),
        }
    }
    // 0 is what an agent sends that knows nothing yet.
    hasher.finish().max(1)
}
