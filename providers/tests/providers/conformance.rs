//! The contract of `Provider`, over each implementation that needs nothing but this machine.
use std::sync::Arc;

use crate::support::{COMMON, LocalCloud, RARE, TestClock, offering, request};
use bursar_model::{CapacityType, InstanceId, ProviderName, Scope};
use bursar_providers::{
    LaunchRequest, Provider,
    conformance::Harness,
    faulty::{Call, Fault, FaultyProvider},
    local::LocalProvider,
    memory::{MemoryCloud, MemoryProvider},
    provider_conformance,
};

provider_conformance!(memory, MemoryHarness::new());
provider_conformance!(faulty, FaultyHarness::new());
provider_conformance!(local, LocalHarness::new());

fn memory_cloud() -> MemoryCloud {
    let offerings = vec![offering(COMMON, CapacityType::Spot), offering(RARE, CapacityType::Spot)];
    let cloud = MemoryCloud::new(ProviderName::new("test"), offerings, Arc::new(TestClock::default()));
    cloud.sell_out(Scope::of(&offering(RARE, CapacityType::Spot).key()));
    cloud
}

struct MemoryHarness {
    cloud: MemoryCloud,
    provider: MemoryProvider,
}

impl MemoryHarness {
    fn new() -> Self {
        let cloud = memory_cloud();
        Self { provider: cloud.provider("ours"), cloud }
    }
}

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

    fn lose_launch_reply(&self) -> bool {
        false
    }

    fn runs(&self, instance: InstanceId) -> bool {
        crate::support::runs(instance)
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
