//! The contract of `Provider`, over each implementation that needs nothing but this machine.
use std::sync::Arc;

use async_trait::async_trait;
use bursar_model::{CapacityType, Clock, InstanceId, ProviderName, Scope, Span, Timestamp};
use bursar_providers::{
    EffectMay, ErrorKind, LaunchRequest, Provider,
    conformance::Harness,
    faulty::{Call, Fault, FaultyProvider},
    local::LocalProvider,
    memory::{MemoryCloud, MemoryProvider},
    provider_conformance,
};

use crate::support::{COMMON, LocalCloud, RARE, TestClock, offering, request};

provider_conformance!(memory, MemoryHarness::new());
provider_conformance!(faulty, FaultyHarness::new());
provider_conformance!(local, LocalHarness::new());

pub(crate) struct MemoryHarness {
    pub(crate) cloud: MemoryCloud,
    pub(crate) provider: MemoryProvider,
    pub(crate) clock: Arc<TestClock>,
}

impl MemoryHarness {
    pub(crate) fn new() -> Self {
        let offerings = vec![offering(COMMON, CapacityType::Spot), offering(RARE, CapacityType::Spot)];
        let clock = Arc::new(TestClock::default());
        let cloud = MemoryCloud::new(ProviderName::new("test"), offerings, clock.clone());
        cloud.sell_out(sold_out());
        Self { provider: cloud.provider("ours"), cloud, clock }
    }
}

fn sold_out() -> Scope {
    Scope::of(&offering(RARE, CapacityType::Spot).key())
}

#[async_trait]
impl Harness for MemoryHarness {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn restarted(&self) -> Box<dyn Provider> {
        Box::new(self.cloud.provider("ours"))
    }

    fn other_installation(&self) -> Box<dyn Provider> {
        Box::new(self.cloud.provider("theirs"))
    }

    fn request(&self) -> LaunchRequest {
        request(offering(COMMON, CapacityType::Spot))
    }

    fn unmeetable_request(&self) -> LaunchRequest {
        request(offering(RARE, CapacityType::Spot))
    }

    fn restocked(&self) -> Box<dyn Provider> {
        self.cloud.restock(&sold_out());
        self.restarted()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, span: Span) {
        self.clock.advance(span);
    }

    fn has_machines(&self) -> bool {
        false
    }

    fn lose_launch_reply(&self) -> bool {
        false
    }

    fn runs(&self, instance: InstanceId) -> bool {
        self.cloud.runs(instance)
    }
}

/// The memory cloud behind a provider that loses replies when told.
struct FaultyHarness {
    memory: MemoryHarness,
    provider: FaultyProvider,
}

impl FaultyHarness {
    fn new() -> Self {
        let memory = MemoryHarness::new();
        let provider = FaultyProvider::new(Arc::new(memory.provider.clone()));
        Self { memory, provider }
    }
}

#[async_trait]
impl Harness for FaultyHarness {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn restarted(&self) -> Box<dyn Provider> {
        self.memory.restarted()
    }

    fn other_installation(&self) -> Box<dyn Provider> {
        self.memory.other_installation()
    }

    fn request(&self) -> LaunchRequest {
        self.memory.request()
    }

    fn unmeetable_request(&self) -> LaunchRequest {
        self.memory.unmeetable_request()
    }

    fn restocked(&self) -> Box<dyn Provider> {
        self.memory.restocked()
    }

    fn now(&self) -> Timestamp {
        self.memory.now()
    }

    async fn pass(&self, span: Span) {
        self.memory.pass(span).await;
    }

    fn has_machines(&self) -> bool {
        false
    }

    fn lose_launch_reply(&self) -> bool {
        self.provider.inject(Call::Launch, Fault::LoseReply);
        true
    }

    fn runs(&self, instance: InstanceId) -> bool {
        self.memory.runs(instance)
    }
}

/// Real processes.
struct LocalHarness {
    cloud: LocalCloud,
    provider: LocalProvider,
}

impl LocalHarness {
    fn new() -> Self {
        let cloud = LocalCloud::new();
        Self { provider: cloud.provider("ours"), cloud }
    }
}

#[async_trait]
impl Harness for LocalHarness {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn restarted(&self) -> Box<dyn Provider> {
        Box::new(self.cloud.provider("ours"))
    }

    fn other_installation(&self) -> Box<dyn Provider> {
        Box::new(self.cloud.provider("theirs"))
    }

    fn request(&self) -> LaunchRequest {
        request(offering(COMMON, CapacityType::Spot))
    }

    fn unmeetable_request(&self) -> LaunchRequest {
        request(offering(RARE, CapacityType::Spot))
    }

    fn restocked(&self) -> Box<dyn Provider> {
        let mut settings = self.cloud.settings.clone();
        settings.types.iter_mut().for_each(|kind| kind.max_instances = None);
        Box::new(LocalProvider::new(settings, self.cloud.clock.clone()))
    }

    fn now(&self) -> Timestamp {
        self.cloud.clock.now()
    }

    async fn pass(&self, span: Span) {
        self.cloud.clock.advance(span);
    }

    fn has_machines(&self) -> bool {
        true
    }

    fn lose_launch_reply(&self) -> bool {
        false
    }

    fn runs(&self, instance: InstanceId) -> bool {
        crate::support::runs(instance)
    }
}

/// What a fault does to a call is one of the things that the contract allows: nothing, and that is said; or nobody knows.
#[tokio::test]
async fn a_faulty_launch_says_what_it_did_and_the_next_one_keeps_the_contract() {
    let throttled = ErrorKind::Throttled { retry_after: None };
    for (fault, says, makes) in [
        (Fault::Refuse(throttled), Some(EffectMay::No), false),
        (Fault::LoseRequest, Some(EffectMay::Maybe), false),
        (Fault::LoseReply, Some(EffectMay::Maybe), true),
        (Fault::Delay(Span::from_millis(10)), None, true),
    ] {
        let harness = FaultyHarness::new();
        let request = harness.request();
        harness.provider.inject(Call::Launch, fault.clone());
        let said = harness.provider.launch(&request).await.err().map(|error| error.effect);
        assert_eq!((said, harness.runs(request.instance)), (says, makes), "{fault:?}");
        let first = harness.provider.launch(&request).await.unwrap();
        let second = harness.provider.launch(&request).await.unwrap();
        assert_eq!(first, second, "{fault:?}");
        assert_eq!(harness.provider.list().await.unwrap(), [first], "{fault:?}");
    }
}

#[tokio::test]
async fn a_faulty_end_says_what_it_did_and_the_next_one_keeps_the_contract() {
    for (fault, says, ends) in [
        (Fault::Refuse(ErrorKind::Auth), Some(EffectMay::No), false),
        (Fault::LoseRequest, Some(EffectMay::Maybe), false),
        (Fault::LoseReply, Some(EffectMay::Maybe), true),
        (Fault::Delay(Span::from_millis(10)), None, true),
    ] {
        let harness = FaultyHarness::new();
        let instance = harness.provider.launch(&harness.request()).await.unwrap().instance;
        harness.provider.inject(Call::Terminate, fault.clone());
        let said = harness.provider.terminate(instance, None).await.err().map(|error| error.effect);
        assert_eq!((said, !harness.runs(instance)), (says, ends), "{fault:?}");
        harness.provider.terminate(instance, None).await.unwrap();
        assert!(!harness.runs(instance), "{fault:?}");
    }
}

#[tokio::test]
async fn faults_happen_in_the_order_in_which_they_were_told() {
    let harness = FaultyHarness::new();
    let kind = bursar_providers::ErrorKind::Throttled { retry_after: None };
    harness.provider.inject(Call::List, Fault::Refuse(kind.clone()));
    harness.provider.inject(Call::Launch, Fault::LoseRequest);
    harness.provider.inject(Call::List, Fault::LoseReply);
    assert_eq!(harness.provider.list().await.unwrap_err().kind, kind);
    assert!(harness.provider.launch(&harness.request()).await.is_err());
    assert!(harness.provider.list().await.is_err());
    assert!(harness.provider.is_exhausted());
    assert_eq!(harness.provider.list().await.unwrap(), []);
    harness.provider.launch(&harness.request()).await.unwrap();
    harness.provider.inject(Call::List, Fault::Stale);
    assert_eq!(harness.provider.list().await.unwrap(), []);
    assert_eq!(harness.provider.list().await.unwrap().len(), 1);
}
