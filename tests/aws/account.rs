//! An account at the peer, and providers that work with it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use aws_config::{BehaviorVersion, Region as AwsRegion, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use bursar_model::{
    BillingRules, CapacityType, Clock, InstanceId, InstanceType, Offering, ProviderName, Region, Span, Terms,
    Timestamp, TypeName, TypedId, UsdPerHour, Zone,
};
use bursar_providers::{
    LaunchRequest,
    aws::{AwsProvider, AwsSettings},
};
use bursar_tests::AwsPeer;

/// What the peer sells in tests.
pub(crate) const TYPES: &[&str] = &["g6.xlarge", "g6.12xlarge", "g5.xlarge", "g5g.xlarge", "m7i.large"];

/// A peer, and the time there.
pub(crate) struct Account {
    pub(crate) peer: AwsPeer,
    pub(crate) clock: Arc<PeerClock>,
    pub(crate) folder: tempfile::TempDir,
}

/// The machine's time and what tests let go by.
#[derive(Debug, Default)]
pub(crate) struct PeerClock {
    ahead_ms: AtomicI64,
}

impl Clock for PeerClock {
    fn now(&self) -> Timestamp {
        bursar_agent::wall_clock() + Span::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
}

impl Account {
    /// One of its own.
    pub(crate) fn open() -> Self {
        let peer = AwsPeer::start(TYPES);
        Self { peer, clock: Arc::default(), folder: tempfile::tempdir().unwrap() }
    }

    /// Lets time go by, for all.
    pub(crate) fn pass(&self, span: Span) {
        self.peer.advance(span.as_millis() / 1000);
        self.clock.ahead_ms.fetch_add(span.as_millis() / 1000 * 1000, Ordering::SeqCst);
    }

    /// Moves the peer's clock, which was reset, to where ours is.
    pub(crate) fn catch_up(&self) {
        self.peer.advance(self.clock.ahead_ms.load(Ordering::SeqCst) / 1000);
    }

    /// The account as an installation sees it.
    pub(crate) fn provider(&self, installation: &str) -> AwsProvider {
        self.provider_with(installation, |_| {})
    }

    pub(crate) fn provider_with(
        &self,
        installation: &str,
        change: impl FnOnce(&mut AwsSettings),
    ) -> AwsProvider {
        let mut settings = self.settings(installation);
        change(&mut settings);
        AwsProvider::with_config(settings, self.clock.clone(), self.config())
    }

    pub(crate) fn settings(&self, installation: &str) -> AwsSettings {
        AwsSettings {
            name: ProviderName::new("aws"),
            installation: installation.to_owned(),
            regions: vec![Region::new("us-east-1"), Region::new("us-west-2")],
            instance_types: vec!["*".to_owned()],
            image: None,
            root_device: "/dev/sda1".to_owned(),
            subnets: Default::default(),
            security_groups: Default::default(),
            instance_profile: None,
            tags: Default::default(),
            interruption_queue: None,
            terms: Arc::new(Terms {
                billing: BillingRules::PER_SECOND,
                disk_min_gib: 75,
                ..Terms::default()
            }),
            cache_file: self.folder.path().join("catalog.json"),
        }
    }

    pub(crate) fn config(&self) -> SdkConfig {
        let keys = Credentials::from_keys("AKIAIOSFODNN7EXAMPLE", "not a secret", None);
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(self.peer.endpoint())
            .region(AwsRegion::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build()
    }
}

/// What is on offer in one zone of the first region.
pub(crate) fn offering(instance_type: &str, capacity_type: CapacityType) -> Offering {
    let price = Some(UsdPerHour::from_nanos(800_000_000));
    Offering {
        provider: ProviderName::new("aws"),
        region: Region::new("us-east-1"),
        zone: Zone::new("us-east-1a"),
        instance_type: Arc::new(InstanceType {
            name: TypeName::new(instance_type),
            accelerators: None,
            cpus_milli: 4000,
            memory_mib: 16 << 10,
            disk_gib: 1000,
        }),
        capacity_type,
        price,
        list_price: None,
        on_demand_price: price,
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    }
}

/// A launch that was never asked for.
pub(crate) fn request(account: &Account, offering: Offering) -> LaunchRequest {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let lease = Span::from_secs(600);
    LaunchRequest {
        installation: "ours".to_owned(),
        instance: InstanceId::from_u64(NEXT.fetch_add(1, Ordering::Relaxed)),
        offering,
        disk_gib: 100,
        lease_until: account.clock.now() + lease,
        lease,
        agents: [("x86_64".to_owned(), "00".repeat(32))].into(),
        daemon_url: "http://10.0.0.5:7733".to_owned(),
        secret: "a secret for one time".to_owned(),
        labels: [("project".to_owned(), "vision".to_owned())].into(),
    }
}
