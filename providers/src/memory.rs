//! A cloud that is no more than its records: instances boot at once, run nothing, and end when told. For tests of
//! whatever needs a provider.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bursar_model::{
    Clock, CloudId, CloudInstance, CloudState, InstanceId, Offering, ProviderName, Scope, Timestamp,
};

use crate::{EffectMay, ErrorKind, LIST_KEEPS_ENDED, LaunchRequest, Provider, ProviderError};

/// The cloud's side: shared by all who use it, and untouched by the end of any daemon.
#[derive(Debug, Clone)]
pub struct MemoryCloud {
    name: ProviderName,
    clock: Arc<dyn Clock>,
    records: Arc<Mutex<Records>>,
}

#[derive(Debug, Default)]
struct Records {
    offerings: Vec<Offering>,
    sold_out: BTreeSet<Scope>,
    /// By installation and instance: kept for good, so that a token is never used twice.
    instances: BTreeMap<(String, InstanceId), CloudInstance>,
}

/// The cloud as one installation sees it.
#[derive(Debug, Clone)]
pub struct MemoryProvider {
    cloud: MemoryCloud,
    installation: String,
}

impl MemoryCloud {
    /// A cloud of this name that offers this.
    #[must_use]
    pub fn new(name: ProviderName, offerings: Vec<Offering>, clock: Arc<dyn Clock>) -> Self {
        let records = Records { offerings, ..Records::default() };
        Self { name, clock, records: Arc::new(Mutex::new(records)) }
    }

    /// The cloud as this installation sees it.
    #[must_use]
    pub fn provider(&self, installation: &str) -> MemoryProvider {
        MemoryProvider { cloud: self.clone(), installation: installation.to_owned() }
    }

    /// From now on this is on offer, at these prices.
    pub fn offer(&self, offerings: Vec<Offering>) {
        self.records().offerings = offerings;
    }

    /// From now on launches in this part of the market are refused.
    pub fn sell_out(&self, scope: Scope) {
        self.records().sold_out.insert(scope);
    }

    /// This part of the market can be had again.
    pub fn restock(&self, scope: &Scope) {
        self.records().sold_out.remove(scope);
    }

    /// The cloud says when it will take an instance back.
    pub fn give_notice(&self, instance: InstanceId, gone_at: Timestamp) {
        self.change(instance, |record| record.notice = Some(gone_at));
    }

    /// An instance ends without having been told to: taken back by the cloud, or of itself.
    pub fn end(&self, instance: InstanceId, interrupted: bool) {
        let at = self.clock.now();
        self.change(instance, |record| end(record, at, interrupted));
    }

    /// Whether an instance exists and has not ended.
    #[must_use]
    pub fn runs(&self, instance: InstanceId) -> bool {
        let records = self.records();
        let found = records.instances.values().find(|record| record.instance == instance);
        found.is_some_and(|record| !matches!(record.state, CloudState::Gone { .. }))
    }

    fn change(&self, instance: InstanceId, change: impl Fn(&mut CloudInstance)) {
        let mut records = self.records();
        records.instances.values_mut().filter(|record| record.instance == instance).for_each(change);
    }

    /// Every change is a single step, so that a test that failed half-way left nothing half-done.
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Provider for MemoryProvider {
    fn name(&self) -> &ProviderName {
        &self.cloud.name
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        Ok(self.cloud.records().offerings.clone())
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let now = self.cloud.clock.now();
        let mut records = self.cloud.records();
        let token = (request.installation.clone(), request.instance);
        if let Some(record) = records.instances.get(&token) {
            return Ok(record.clone());
        }
        let refused = |kind, message| ProviderError {
            provider: self.cloud.name.clone(),
            kind,
            effect: EffectMay::No,
            message,
            source: None,
        };
        let key = request.offering.key();
        if !records.offerings.iter().any(|offering| offering.key() == key) {
            return Err(refused(ErrorKind::Invalid, format!("{key} is not on offer")));
        }
        if let Some(scope) = records.sold_out.iter().find(|scope| scope.covers(&request.offering)) {
            return Err(refused(
                ErrorKind::InsufficientCapacity(scope.clone()),
                format!("{scope} is sold out"),
            ));
        }
        let record = CloudInstance {
            cloud_id: CloudId::new(&format!("memory-{}", request.instance)),
            instance: request.instance,
            state: CloudState::Running,
            launched_at: now,
            running_at: None,
            stopping_at: None,
            notice: None,
        };
        records.instances.insert(token, record.clone());
        Ok(record)
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        let now = self.cloud.clock.now();
        let records = self.cloud.records();
        let ours =
            records.instances.iter().filter(|((installation, _), _)| *installation == self.installation);
        Ok(ours.map(|(_, record)| record.clone()).filter(|record| is_listed(record, now)).collect())
    }

    async fn terminate(&self, instance: InstanceId, _: Option<&CloudId>) -> Result<(), ProviderError> {
        let now = self.cloud.clock.now();
        let mut records = self.cloud.records();
        if let Some(record) = records.instances.get_mut(&(self.installation.clone(), instance)) {
            end(record, now, false);
        }
        Ok(())
    }
}

/// An instance ends once.
fn end(record: &mut CloudInstance, at: Timestamp, interrupted: bool) {
    if !matches!(record.state, CloudState::Gone { .. }) {
        record.state = CloudState::Gone { at, interrupted };
    }
}

fn is_listed(record: &CloudInstance, now: Timestamp) -> bool {
    match record.state {
        CloudState::Gone { at, .. } => now.since(at) <= LIST_KEEPS_ENDED,
        CloudState::Pending | CloudState::Running | CloudState::Stopping => true,
    }
}
