//! What is done in the world, as the state demands it: launch what is intended, end what is terminating, look at what
//! there is, ask what is offered. Each effect is one call in a task of its own, whose result comes back as a message.
//! Nothing is retried inside a task: the state still demands it afterwards, and the back-off is kept there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_model::{Fleet, Instance, InstanceId, InstanceState, ProviderName, Span, Timestamp, Together};
use bursar_providers::{LaunchRequest, Provider};
use tokio::{task::JoinHandle, time::Instant};
use tracing::warn;

use crate::{
    agent_binaries::AgentBinaries,
    clock::elapsed,
    inbox::{Inbox, Message},
    reconciler::chain,
    rules::Rules,
    secrets::InstallationKey,
};

/// How often, at least, each provider is asked what it has of ours though we know of nothing: an orphan can only be
/// found by looking.
const ORPHAN_SWEEP: Span = Span::from_secs(300);

/// How often prices are asked for.
const OFFERINGS_REFRESH: Span = Span::from_secs(300);

/// How long an asked-for end may take before it is asked for again.
const TERMINATE_AGAIN: Span = Span::from_secs(30);

/// Calls to all providers that are under way at once. Each launch is one; a burst of a thousand must not open a
/// thousand connections.
const CALLS_MAX: usize = 64;

/// What an effect needs to know of the installation.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The installation's name: a tag on everything.
    pub installation: String,
    /// Where agents find the daemon.
    pub daemon_url: String,
    /// The agents that it serves.
    pub agents: Arc<AgentBinaries>,
    /// Makes the instances' secrets.
    pub key: InstallationKey,
}

/// The effects under way and when the next are due. Not durable: after a restart everything is asked again, with the
/// same tokens.
#[derive(Debug)]
pub(crate) struct Effects {
    providers: BTreeMap<ProviderName, Arc<dyn Provider>>,
    surroundings: Surroundings,
    inbox: Inbox,
    calls: BTreeSet<InstanceId>,
    call_again_at: BTreeMap<InstanceId, Timestamp>,
    /// When the launch of an instance was answered: lists that were asked for before say nothing of it.
    launched_at: BTreeMap<InstanceId, Timestamp>,
    /// Launches that were asked for without an answer that says what came of it.
    unknown: BTreeSet<InstanceId>,
    watches: BTreeMap<ProviderName, Watch>,
}

/// What is due at one provider.
#[derive(Debug, Default)]
struct Watch {
    /// Since when a listing is under way.
    listing: Option<Instant>,
    listed_at: Option<Timestamp>,
    asking: bool,
    asked_at: Option<Timestamp>,
    /// When it was asked last to end what else is left, and that call.
    swept_at: Option<Timestamp>,
    sweep: Option<JoinHandle<()>>,
    /// What its listings lack, and since when: by what went by and not by the clock, which may have stepped.
    missing: BTreeMap<InstanceId, Instant>,
}

impl Effects {
    pub(crate) fn new(providers: Vec<Arc<dyn Provider>>, surroundings: Surroundings, inbox: Inbox) -> Self {
        let watches = providers.iter().map(|provider| (provider.name().clone(), Watch::default())).collect();
        let providers = providers.into_iter().map(|provider| (provider.name().clone(), provider)).collect();
        Self {
            providers,
            surroundings,
            inbox,
            calls: BTreeSet::new(),
            call_again_at: BTreeMap::new(),
            launched_at: BTreeMap::new(),
            unknown: BTreeSet::new(),
            watches,
        }
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    pub(crate) fn provider_count(&self) -> usize {
        self.providers.len()
    }

    /// A call about this instance has come back.
    pub(crate) fn call_done(&mut self, instance: InstanceId, again_at: Option<Timestamp>) {
        self.calls.remove(&instance);
        match again_at {
            Some(at) => self.call_again_at.insert(instance, at),
            None => self.call_again_at.remove(&instance),
        };
    }

    /// What was asked about this instance before it was there is asked again at once.
    pub(crate) fn ask_again(&mut self, instance: InstanceId) {
        self.call_again_at.remove(&instance);
    }

    /// A launch was answered with an instance.
    pub(crate) fn launch_answered(&mut self, instance: InstanceId, now: Timestamp) {
        self.launched_at.insert(instance, now);
    }

    /// When it was, in this life of the daemon.
    pub(crate) fn launched_at(&self, instance: InstanceId) -> Option<Timestamp> {
        self.launched_at.get(&instance).copied()
    }

    /// Whether a call about this instance is under way.
    pub(crate) fn is_calling(&self, instance: InstanceId) -> bool {
        self.calls.contains(&instance)
    }

    /// A launch may have taken effect though its answer did not come.
    pub(crate) fn launch_unknown(&mut self, instance: InstanceId) {
        self.unknown.insert(instance);
    }

    /// Whether a launch may have taken effect unheard.
    pub(crate) fn is_launch_unknown(&self, instance: InstanceId) -> bool {
        self.unknown.contains(&instance)
    }

    /// A listing lacks these. Answers with how long all listings have lacked each of them: a single one may be old.
    pub(crate) fn missing(
        &mut self,
        provider: &ProviderName,
        lacks: &BTreeSet<InstanceId>,
        asked: Instant,
    ) -> Vec<(InstanceId, Span)> {
        let Some(watch) = self.watches.get_mut(provider) else { return Vec::new() };
        watch.missing.retain(|instance, _| lacks.contains(instance));
        for instance in lacks {
            watch.missing.entry(*instance).or_insert(asked);
        }
        watch.missing.iter().map(|(instance, since)| (*instance, elapsed(*since, asked))).collect()
    }

    /// A provider has answered what it has. Says when it was asked.
    pub(crate) fn listing_done(&mut self, provider: &ProviderName) -> Instant {
        let asked = self.watches.get_mut(provider).and_then(|watch| watch.listing.take());
        asked.unwrap_or_else(Instant::now)
    }

    /// A provider has answered what it offers. Asked again soon where it failed.
    pub(crate) fn asking_done(&mut self, provider: &ProviderName, failed: bool, now: Timestamp) {
        if let Some(watch) = self.watches.get_mut(provider) {
            watch.asking = false;
            if failed {
                watch.asked_at = Some(now - OFFERINGS_REFRESH + Span::from_secs(10));
            }
        }
    }

    /// When an end was asked for, if it is not over, it is asked for again then.
    pub(crate) fn terminate_again_at(now: Timestamp) -> Timestamp {
        now + TERMINATE_AGAIN
    }

    /// Starts all that is due. Answers with when more will be.
    pub(crate) fn start_due(&mut self, rules: &Rules, fleet: &Fleet, now: Timestamp) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        let mut wake = |at: Timestamp| next = Some(next.map_or(at, |before| before.min(at)));
        let mut busy: BTreeMap<&ProviderName, bool> = BTreeMap::new();
        self.unknown.retain(|id| fleet.instances.contains_key(id));
        self.launched_at.retain(|id, _| fleet.instances.contains_key(id));

        for instance in fleet.instances.values() {
            let is_busy = busy.entry(&instance.offering.provider).or_default();
            let is_call = match instance.state {
                InstanceState::Intended { .. } | InstanceState::Terminating { .. } => true,
                InstanceState::Booting { .. } => {
                    *is_busy = true;
                    false
                }
                InstanceState::Ready { .. } | InstanceState::Draining { .. } => {
                    // Only the provider can tell since when it bills; until then nothing that runs is charged.
                    *is_busy |= instance.meter.from.is_none();
                    false
                }
                InstanceState::Gone { .. } => false,
            };
            if !is_call {
                continue;
            }
            *is_busy = true;
            if self.calls.contains(&instance.id) {
                continue;
            }
            let not_before = instance.backoff.not_before.max(self.call_again_at.get(&instance.id).copied());
            if let Some(at) = not_before.filter(|at| *at > now) {
                wake(at);
            } else if self.calls.len() < CALLS_MAX {
                match self.together(instance) {
                    Some(together) if together.instances.iter().any(|id| self.calls.contains(id)) => {}
                    Some(together) => self.launch_together(fleet, instance, &together),
                    None => self.call(instance),
                }
            }
        }

        let Self { providers, inbox, watches, .. } = self;
        for (name, watch) in watches {
            let provider = &providers[name];
            let interval = match busy.get(name) {
                Some(true) => rules.observe_interval_busy,
                Some(false) => rules.observe_interval,
                None => ORPHAN_SWEEP,
            };
            let list_at = watch.listed_at.map_or(now, |at| at + interval);
            if watch.listing.is_none() && list_at <= now {
                watch.listing = Some(Instant::now());
                watch.listed_at = Some(now);
                list(provider.clone(), inbox.clone(), now);
            } else if watch.listing.is_none() {
                wake(list_at);
            }
            // Not at once, when there is more urgent to do, and never worth a turn of its own.
            let swept_at = *watch.swept_at.get_or_insert(now);
            let is_sweeping = watch.sweep.as_ref().is_some_and(|sweep| !sweep.is_finished());
            if !is_sweeping && swept_at + ORPHAN_SWEEP <= now {
                watch.swept_at = Some(now);
                watch.sweep = Some(sweep(provider.clone()));
            }
            let ask_at = watch.asked_at.map_or(now, |at| at + OFFERINGS_REFRESH);
            if !watch.asking && ask_at <= now {
                watch.asking = true;
                watch.asked_at = Some(now);
                ask_offerings(provider.clone(), inbox.clone());
            } else if !watch.asking {
                wake(ask_at);
            }
        }
        next
    }

    /// Ends a cloud instance that nobody knows.
    pub(crate) fn terminate_orphan(&mut self, provider: &ProviderName, cloud: &bursar_model::CloudInstance) {
        let Some(provider) = self.providers.get(provider).cloned() else { return };
        if !self.calls.insert(cloud.instance) {
            return;
        }
        let (inbox, instance, cloud_id) = (self.inbox.clone(), cloud.instance, cloud.cloud_id.clone());
        tokio::spawn(async move {
            let result = provider.terminate(instance, Some(&cloud_id)).await;
            // Nobody is left to hear it when the daemon stops.
            let _ = inbox.tell(Message::Terminated { instance, result }).await;
        });
    }

    /// Those that one call launches with an instance, where its provider can do that.
    fn together(&self, instance: &Instance) -> Option<Arc<Together>> {
        let provider = self.providers.get(&instance.offering.provider)?;
        let is_intended = matches!(instance.state, InstanceState::Intended { .. });
        instance.together.clone().filter(|_| is_intended && provider.launches_at_once() >= Together::MAX)
    }

    /// Asks for those that are launched with an instance, itself among them. What a call is about that is asked for again
    /// is the same as at first, whatever became of some of them since.
    fn launch_together(&mut self, fleet: &Fleet, instance: &Instance, together: &Together) {
        let Some(provider) = self.providers.get(&instance.offering.provider).cloned() else { return };
        let is_intended = |id: &InstanceId| {
            let found = fleet.instances.get(id);
            found.is_some_and(|found| matches!(found.state, InstanceState::Intended { .. }))
        };
        self.calls.extend(together.instances.iter().filter(|id| is_intended(id)));
        let one = self.launch_request(instance);
        let intended_at = one.lease_until - one.lease;
        let requests: Vec<LaunchRequest> = together
            .instances
            .iter()
            .map(|id| LaunchRequest {
                instance: *id,
                secret: self.surroundings.key.instance_secret(*id),
                lease_until: together.lease_until,
                lease: together.lease_until.since(intended_at),
                // Each is for an experiment of its own.
                labels: one
                    .labels
                    .iter()
                    .filter(|(label, _)| *label != "experiment")
                    .map(|(label, of)| (label.clone(), of.clone()))
                    .collect(),
                ..one.clone()
            })
            .collect();
        let (inbox, whole) = (self.inbox.clone(), together.whole);
        tokio::spawn(async move {
            let results = provider.launch_together(&requests, whole).await;
            for (request, result) in requests.iter().zip(results) {
                let _ = inbox.tell(Message::Launched { instance: request.instance, result }).await;
            }
        });
    }

    fn call(&mut self, instance: &Instance) {
        let Some(provider) = self.providers.get(&instance.offering.provider).cloned() else {
            // The provider was taken out of the configuration: nothing can be asked of it. `doctor` says so.
            return;
        };
        let id = instance.id;
        let inbox = self.inbox.clone();
        self.calls.insert(id);
        if matches!(instance.state, InstanceState::Intended { .. }) {
            let request = self.launch_request(instance);
            tokio::spawn(async move {
                let result = provider.launch(&request).await;
                let _ = inbox.tell(Message::Launched { instance: id, result }).await;
            });
        } else {
            let cloud_id = instance.cloud_id.clone();
            tokio::spawn(async move {
                let result = provider.terminate(id, cloud_id.as_ref()).await;
                let _ = inbox.tell(Message::Terminated { instance: id, result }).await;
            });
        }
    }

    fn launch_request(&self, instance: &Instance) -> LaunchRequest {
        LaunchRequest {
            installation: self.surroundings.installation.clone(),
            instance: instance.id,
            offering: instance.offering.clone(),
            disk_gib: instance.disk_gib,
            lease_until: instance.lease_until,
            lease: first_lease(instance),
            agents: self.surroundings.agents.digests(),
            daemon_url: self.surroundings.daemon_url.clone(),
            secret: self.surroundings.key.instance_secret(instance.id),
            labels: labels(instance),
        }
    }
}

/// Whom it is for, as far as all that pay for it agree: what people look for in the cloud's own pages and bills.
fn labels(instance: &Instance) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut agreed = |label: &str, values: BTreeSet<String>| {
        if let [value] = &Vec::from_iter(values)[..] {
            labels.insert(label.to_owned(), value.clone());
        }
    };
    let accounts = || instance.shares.values().map(|share| &share.account);
    agreed("project", accounts().map(|account| account.project.to_string()).collect());
    agreed("user", accounts().map(|account| account.user.to_string()).collect());
    if accounts().all(|account| account.sweep.is_some()) {
        agreed(
            "sweep",
            accounts().filter_map(|account| account.sweep).map(|sweep| sweep.to_string()).collect(),
        );
    }
    agreed("experiment", instance.shares.keys().map(ToString::to_string).collect());
    labels
}

/// How long the lease is that an instance is launched with. It is asked for while it is intended and never later.
fn first_lease(instance: &Instance) -> Span {
    match instance.state {
        InstanceState::Intended { at } => instance.lease_until.since(at),
        InstanceState::Booting { .. }
        | InstanceState::Ready { .. }
        | InstanceState::Draining { .. }
        | InstanceState::Terminating { .. }
        | InstanceState::Gone { .. } => Span::ZERO,
    }
}

fn list(provider: Arc<dyn Provider>, inbox: Inbox, asked_at: Timestamp) {
    tokio::spawn(async move {
        let result = provider.list().await;
        let provider = provider.name().clone();
        let _ = inbox.tell(Message::Listed { provider, asked_at, result }).await;
    });
}

/// Nothing depends on it: what it did and could not do is in the log.
fn sweep(provider: Arc<dyn Provider>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = provider.sweep().await {
            warn!(provider = %provider.name(), error = %chain(&error), "what is left there could not be ended");
        }
    })
}

fn ask_offerings(provider: Arc<dyn Provider>, inbox: Inbox) {
    tokio::spawn(async move {
        let result = provider.offerings().await;
        let provider = provider.name().clone();
        let _ = inbox.tell(Message::Offered { provider, result }).await;
    });
}
