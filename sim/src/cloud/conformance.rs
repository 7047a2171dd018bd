//! The simulated cloud keeps the contract that the daemon relies on, with its late listings and slow machines.

use async_trait::async_trait;
use bursar_daemon::rules::Pricing;
use bursar_model::{Clock, IdGen, InstanceId, Offering, Scope, Span, Timestamp};
use bursar_providers::{LaunchRequest, Provider, conformance::Harness, provider_conformance};

use super::{SimCloud, SimProvider, Troubles};
use crate::{chance::Chance, clock::SimClock, ground::Ground, market::small_market};

provider_conformance!(sim, SimHarness::new(), (start_paused = true));

struct SimHarness {
    cloud: SimCloud,
    clock: SimClock,
    provider: SimProvider,
    ids: std::sync::Mutex<IdGen>,
}

impl SimHarness {
    fn new() -> Self {
        let name = "cloud".into();
        let chance = Chance::new(4);
        let clock = SimClock::starting_at(Timestamp::from_millis(1_790_000_000_000));
        let ground = Ground::new(&chance);
        let cloud = SimCloud::new(
            Pricing::default(),
            small_market(&name),
            Troubles::default(),
            clock,
            ground,
            &chance,
        );
        cloud.sell_out(&Scope::of(&rare().key()), clock.now() + Span::from_hours(24));
        let provider = cloud.provider(&name, "ours");
        Self { cloud, clock, provider, ids: std::sync::Mutex::new(IdGen::new(4)) }
    }

    fn request_for(&self, offering: Offering) -> LaunchRequest {
        let now = self.clock.now();
        LaunchRequest {
            installation: "ours".to_owned(),
            instance: self.ids.lock().expect("nobody panics with it").instance(now),
            offering,
            disk_gib: 10,
            lease_until: now + Span::from_secs(600),
            lease: Span::from_secs(600),
            agents: Default::default(),
            daemon_url: "http://daemon".to_owned(),
            secret: "secret".to_owned(),
            labels: Default::default(),
        }
    }

    fn reached_by(&self, installation: &str) -> Box<dyn Provider> {
        Box::new(self.cloud.provider(self.provider.name(), installation))
    }
}

/// On-demand in the first zone, and in the second, where it is sold out.
fn common() -> Offering {
    small_market(&"cloud".into())[0].offering.clone()
}

fn rare() -> Offering {
    small_market(&"cloud".into())[2].offering.clone()
}

#[async_trait]
impl Harness for SimHarness {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn restarted(&self) -> Box<dyn Provider> {
        self.reached_by("ours")
    }

    fn other_installation(&self) -> Box<dyn Provider> {
        self.reached_by("theirs")
    }

    fn request(&self) -> LaunchRequest {
        self.request_for(common())
    }

    fn unmeetable_request(&self) -> LaunchRequest {
        self.request_for(rare())
    }

    fn restocked(&self) -> Box<dyn Provider> {
        self.cloud.sell_out(&Scope::of(&rare().key()), self.clock.now());
        self.restarted()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, span: Span) {
        tokio::time::sleep(span.to_std()).await;
    }

    fn has_machines(&self) -> bool {
        true
    }

    /// The script of faults in front of it does that.
    fn lose_launch_reply(&self) -> bool {
        false
    }

    fn runs(&self, instance: InstanceId) -> bool {
        self.cloud.running().contains(&instance)
    }
}
