//! Amazon EC2: instances by `RunInstances`, each launch under a token of its own, each with our tags from the first moment.

mod catalog;
mod clients;
mod doctor;
mod errors;
mod interruptions;
mod launch;
mod leftovers;
mod observe;
mod quotas;
mod sources;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use aws_config::SdkConfig;
use aws_sdk_ec2::config::retry::RetryConfig;
use bursar_model::{
    Clock, CloudId, CloudInstance, CloudState, InstanceId, InstanceType, Offering, ProviderName, Region,
    Scope, Terms, Timestamp, Together, Zone,
};
use futures::future::{join_all, try_join_all};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tracing::warn;

use self::{
    catalog::{Catalog, Wanted},
    clients::{Clients, Gate, RegionClient, meaning_of},
    errors::Meaning,
    interruptions::Interruptions,
};
use crate::{EffectMay, ErrorKind, LISTING_LAG, LaunchRequest, Provider, ProviderError};

/// What an installation says of its AWS account.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// The provider's name in the configuration.
    pub name: ProviderName,
    /// Whose instances these are.
    pub installation: String,
    /// Where instances may be. Never empty.
    pub regions: Vec<Region>,
    /// Which types may be rented: names with `*` for any letters.
    pub instance_types: Vec<String>,
    /// The image of all instances: an id or `resolve:ssm:` and the path of a public parameter. Default images of AWS and
    /// Canonical, by what the type has.
    pub image: Option<String>,
    /// The device that the image boots from.
    pub root_device: String,
    /// The subnet for each zone. Default that of the account's default network.
    pub subnets: BTreeMap<Zone, String>,
    /// The security groups for each region. Default that of the network.
    pub security_groups: BTreeMap<Region, Vec<String>>,
    /// The role of the instances, by the name or ARN of its profile.
    pub instance_profile: Option<String>,
    /// What everything is tagged with beside our own tags.
    pub tags: BTreeMap<String, String>,
    /// The URL of the SQS queue into which EventBridge puts interruption warnings.
    pub interruption_queue: Option<String>,
    /// Billing, and what comes on top of prices.
    pub terms: Arc<Terms>,
    /// Where what was read of prices and types is kept.
    pub cache_file: PathBuf,
}

/// The provider whose instances are those of EC2.
pub struct AwsProvider {
    settings: AwsSettings,
    wanted: Wanted,
    clock: Arc<dyn Clock>,
    /// Where it is not that of the environment.
    config: Option<SdkConfig>,
    clients: OnceCell<Clients>,
    catalog: AsyncMutex<Option<Catalog>>,
    known: Mutex<BTreeMap<InstanceId, Known>>,
    interruptions: Interruptions,
    began_at: Timestamp,
}

/// An instance that was seen.
#[derive(Debug, Clone)]
struct Known {
    region: Region,
    cloud: CloudInstance,
}

impl fmt::Debug for AwsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsProvider").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AwsProvider {
    /// The provider. Nothing is asked of AWS before it is needed.
    #[must_use]
    pub fn new(settings: AwsSettings, clock: Arc<dyn Clock>) -> Self {
        Self::made(settings, clock, None)
    }

    /// The same with credentials and endpoints that no environment says.
    #[must_use]
    pub fn with_config(settings: AwsSettings, clock: Arc<dyn Clock>, config: SdkConfig) -> Self {
        Self::made(settings, clock, Some(config))
    }

    fn made(settings: AwsSettings, clock: Arc<dyn Clock>, config: Option<SdkConfig>) -> Self {
        let began_at = clock.now();
        let wanted = Wanted { patterns: settings.instance_types.clone() };
        Self {
            settings,
            wanted,
            clock,
            config,
            clients: OnceCell::new(),
            catalog: AsyncMutex::new(None),
            known: Mutex::new(BTreeMap::new()),
            interruptions: Interruptions::default(),
            began_at,
        }
    }

    async fn clients(&self) -> &Clients {
        let Self { settings, clients, config, .. } = self;
        let queue = settings.interruption_queue.as_deref();
        clients.get_or_init(|| Clients::load(&settings.name, &settings.regions, queue, config.clone())).await
    }

    /// What AWS could not tell when it was asked last, for people.
    pub async fn troubles(&self) -> Vec<String> {
        self.catalog.lock().await.as_ref().map(Catalog::troubles).unwrap_or_default()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceId, Known>> {
        // Each change is a single step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call for all of them. The answer is one for each, in their order.
    async fn run_together(
        &self,
        requests: &[LaunchRequest],
        whole: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        let clients = self.clients().await;
        let Some(first) = requests.first() else { return Vec::new() };
        let offering = &first.offering;
        let for_all = |error: ProviderError| requests.iter().map(|_| Err(again(&error))).collect();
        let at = match clients.region(&offering.region) {
            Ok(at) => at,
            Err(error) => return for_all(error),
        };
        let Some(call) = launch::run_instances(at, &self.settings, requests, whole) else {
            return Vec::new();
        };
        let key = offering.key();
        // What was intended before this daemon began may have been asked for by the one before.
        let is_new = first.lease_until - first.lease >= self.began_at;
        if let Some(kind) = at.turns.wait(at, &key, requests, is_new).await {
            let message = format!("EC2 refused others of {key} a moment ago");
            return for_all(self.refused(kind, message));
        }
        let asked_at = self.clock.now();
        let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
        let answer = call.customize().config_override(once).send().await;
        let made = match answer {
            Ok(answer) => answer.instances.unwrap_or_default(),
            Err(error) if meaning_of(&error) == Some(Meaning::TokenUsed) => {
                at.turns.heard(&key, requests, None);
                warn!(error = %error, "a launch was asked for again in other words; what it made is looked for");
                return self.found_of(clients, at, requests).await;
            }
            Err(error) => {
                let asked = format!("RunInstances of {} in {}", offering.instance_type.name, offering.zone);
                let error = clients.failed(&asked, Some(offering), error);
                at.turns.heard(&key, requests, Some(&error));
                return for_all(error);
            }
        };
        let mut by_index: BTreeMap<usize, CloudInstance> = BTreeMap::new();
        for instance in &made {
            let index = observe::launch_index(instance);
            let of = index.and_then(|index| Some((index, requests.get(index)?)));
            if let Some((index, request)) = of
                && let Some(record) = observe::record(instance, request.instance, asked_at)
            {
                by_index.insert(index, record);
            }
        }
        // Asked again under the same token, EC2 answers as it did the first time, whatever became of them since.
        let is_old = by_index.values().any(|record| {
            record.launched_at.as_millis() / 1000 < asked_at.as_millis() / 1000
                || self.known().contains_key(&record.instance)
        });
        if is_old {
            for found in self.found_of(clients, at, requests).await.into_iter().flatten() {
                let same = by_index.values_mut().find(|record| record.instance == found.instance);
                if let Some(record) = same {
                    *record = found;
                }
            }
        }
        self.note(&offering.region, by_index.values());
        let made = by_index.len();
        let lacking = || {
            let message = format!("RunInstances made {made} of {} instances", requests.len());
            self.refused(ErrorKind::InsufficientCapacity(Scope::of(&key)), message)
        };
        at.turns.heard(&key, requests, (made < requests.len()).then(lacking).as_ref());
        (0..requests.len()).map(|index| by_index.get(&index).cloned().ok_or_else(lacking)).collect()
    }

    fn refused(&self, kind: ErrorKind, message: String) -> ProviderError {
        ProviderError {
            provider: self.settings.name.clone(),
            kind,
            effect: EffectMay::No,
            message,
            source: None,
        }
    }

    /// What is there of these requests, by their tags.
    async fn found_of(
        &self,
        clients: &Clients,
        at: &RegionClient,
        requests: &[LaunchRequest],
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        let Some(first) = requests.first() else { return Vec::new() };
        let (id, installation, now) = (first.instance, &self.settings.installation, self.clock.now());
        let found = match requests.len() {
            1 => observe::of_instance(clients, at, installation, id, now).await,
            _ => observe::launched_with(clients, at, installation, id, now).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return requests.iter().map(|_| Err(unknown(again(&error)))).collect(),
        };
        let unseen = || ProviderError {
            provider: self.settings.name.clone(),
            kind: ErrorKind::Unavailable,
            effect: EffectMay::Maybe,
            message: "was launched, and is not listed yet".to_owned(),
            source: None,
        };
        // They began together: once listings must show one of them, those that they lack were never made, for want of
        // capacity, or have ended long ago.
        let is_settled = found.iter().any(|record| now.since(record.launched_at) >= LISTING_LAG);
        let missing = || {
            if !is_settled {
                return unseen();
            }
            let scope = Scope::of(&first.offering.key());
            let message = "EC2 made only others of those that were launched together".to_owned();
            self.refused(ErrorKind::InsufficientCapacity(scope), message)
        };
        let of = |request: &LaunchRequest| found.iter().find(|record| record.instance == request.instance);
        requests.iter().map(|request| of(request).cloned().ok_or_else(missing)).collect()
    }

    /// Remembers where instances are.
    fn note<'a>(&self, region: &Region, seen: impl Iterator<Item = &'a CloudInstance>) {
        let mut known = self.known();
        for cloud in seen {
            let before = known.get(&cloud.instance).map(|before| before.cloud.state.clone());
            // An end is an end, whatever an older answer says.
            if !matches!(before, Some(CloudState::Gone { .. })) {
                known.insert(cloud.instance, Known { region: region.clone(), cloud: cloud.clone() });
            }
        }
    }

    /// Where an instance is: as it was seen, or else as its tags say in any region.
    async fn whereabouts(&self, clients: &Clients, id: InstanceId) -> Result<Vec<Known>, ProviderError> {
        if let Some(known) = self.known().get(&id).cloned() {
            return Ok(vec![known]);
        }
        let now = self.clock.now();
        let installation = &self.settings.installation;
        let asked = clients.regions.values().map(|at| async move {
            let found = observe::of_instance(clients, at, installation, id, now).await?;
            let ours = found.into_iter().filter(|cloud| cloud.instance == id);
            Ok(ours.map(|cloud| Known { region: at.name.clone(), cloud }).collect::<Vec<Known>>())
        });
        Ok(try_join_all(asked).await?.concat())
    }
}

#[async_trait::async_trait]
impl Provider for AwsProvider {
    fn name(&self) -> &ProviderName {
        &self.settings.name
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        let clients = self.clients().await;
        let mut kept = self.catalog.lock().await;
        let catalog = kept.get_or_insert_with(|| Catalog::load(self.settings.cache_file.clone()));
        catalog.refresh(clients, &self.wanted, self.clock.now()).await;
        let offerings = catalog.offerings(&self.settings.name, &self.settings.terms, self.clock.now());
        let troubles = catalog.troubles();
        for trouble in &troubles {
            warn!(provider = %self.settings.name, "{trouble}");
        }
        if offerings.is_empty() && !troubles.is_empty() {
            return Err(ProviderError {
                provider: self.settings.name.clone(),
                kind: ErrorKind::Unavailable,
                effect: EffectMay::No,
                message: troubles.join("; "),
                source: None,
            });
        }
        Ok(offerings)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let mut answers = self.run_together(std::slice::from_ref(request), true).await;
        answers.pop().expect("one was asked for")
    }

    fn launches_at_once(&self) -> usize {
        Together::MAX
    }

    async fn launch_together(
        &self,
        requests: &[LaunchRequest],
        whole: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        self.run_together(requests, whole).await
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        let clients = self.clients().await;
        let now = self.clock.now();
        let installation = &self.settings.installation;
        let asked = clients.regions.values().map(|at| async move {
            Ok((at.name.clone(), observe::in_region(clients, at, installation, None, now).await?))
        });
        let warned = async {
            if let (Some(sqs), Some(queue)) = (&clients.sqs, &self.settings.interruption_queue) {
                self.interruptions.poll(sqs, queue, now).await;
            }
        };
        let (answers, ()) = futures::join!(try_join_all(asked), warned);
        let mut listed = Vec::new();
        for (region, found) in answers? {
            self.note(&region, found.iter().map(|seen| &seen.cloud));
            listed.extend(found.into_iter().map(|seen| seen.cloud));
        }
        self.interruptions.tell(&mut listed, now);
        let ids: BTreeSet<InstanceId> = listed.iter().map(|cloud| cloud.instance).collect();
        let mut known = self.known();
        known.retain(|id, known| {
            ids.contains(id) || now.since(known.cloud.launched_at) < crate::LIST_KEEPS_ENDED
        });
        // The first time of an end that was told is the one that stays.
        for cloud in &mut listed {
            if let Some(before) = known.get(&cloud.instance)
                && matches!(before.cloud.state, CloudState::Gone { .. })
            {
                cloud.state = before.cloud.state.clone();
            }
        }
        Ok(listed)
    }

    async fn sweep(&self) -> Result<(), ProviderError> {
        let clients = self.clients().await;
        let (now, installation) = (self.clock.now(), &self.settings.installation);
        let swept = clients.regions.values().map(|at| async move {
            let seen = observe::in_region(clients, at, installation, None, now).await?;
            observe::give_own_tags(at, &seen).await;
            leftovers::sweep_region(clients, at, installation, now).await
        });
        join_all(swept).await.into_iter().collect()
    }

    async fn terminate(&self, instance: InstanceId, _: Option<&CloudId>) -> Result<(), ProviderError> {
        let clients = self.clients().await;
        let there = self.whereabouts(clients, instance).await?;
        let alive = there.iter().filter(|known| !matches!(known.cloud.state, CloudState::Gone { .. }));
        let ended = join_all(alive.map(|known| async move {
            let at = clients.region(&known.region)?;
            at.pass(Gate::Change).await;
            let call = at.ec2.terminate_instances().instance_ids(known.cloud.cloud_id.as_str());
            match call.send().await {
                Ok(_) => Ok(()),
                Err(error) if meaning_of(&error) == Some(Meaning::NotFound) => Ok(()),
                Err(error) => {
                    Err(clients.failed(&format!("TerminateInstances {}", known.cloud.cloud_id), None, error))
                }
            }
        }));
        ended.await.into_iter().collect()
    }
}

impl AwsSettings {
    /// The image that an instance of this type boots from.
    fn image_for(&self, kind: &InstanceType) -> String {
        self.image.clone().unwrap_or_else(|| default_image(kind).to_owned())
    }
}

/// Public images: with the driver of NVIDIA for what has GPUs
/// (<https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html>), plain Ubuntu for what has none
/// (<https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/>).
fn default_image(kind: &InstanceType) -> &'static str {
    match (kind.accelerators.is_some(), is_arm(kind.name.as_str())) {
        (true, false) => {
            "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
        }
        (true, true) => {
            "resolve:ssm:/aws/service/deeplearning/ami/arm64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
        }
        (false, false) => {
            "resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
        }
        (false, true) => {
            "resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"
        }
    }
}

/// Types with a Graviton processor have a `g` behind the number of their generation
/// (<https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html>).
fn is_arm(instance_type: &str) -> bool {
    let family = instance_type.split('.').next().unwrap_or_default();
    let options = family.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    family == "a1" || options.trim_start_matches(|letter: char| letter.is_ascii_digit()).contains('g')
}

/// The same error for one more of those who asked together.
fn again(error: &ProviderError) -> ProviderError {
    ProviderError {
        provider: error.provider.clone(),
        kind: error.kind.clone(),
        effect: error.effect,
        message: error.message.clone(),
        source: None,
    }
}

/// An error after which nobody knows whether the launch happened.
fn unknown(error: ProviderError) -> ProviderError {
    ProviderError { effect: EffectMay::Maybe, ..error }
}
