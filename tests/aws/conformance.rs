//! The contract of `Provider`, sentence by sentence, with EC2 as the peer plays it.

use async_trait::async_trait;
use bursar_model::{CapacityType, Clock, InstanceId, Span, Timestamp};
use bursar_providers::{
    LaunchRequest, Provider,
    aws::AwsProvider,
    conformance::{Harness, SENTENCES},
};
use serde_json::json;

use crate::account::{Account, TYPES, offering, request};

struct AwsHarness {
    account: Account,
    provider: AwsProvider,
}

impl AwsHarness {
    fn new() -> Self {
        let account = Account::open();
        let provider = account.provider("ours");
        Self { account, provider }
    }

    /// An account as at first, with one type sold out.
    fn begin(&self, after_end: &str) {
        let _ = self.account.peer.order("reset", &json!({}));
        let _ = self.account.peer.order("types", &json!({ "types": TYPES }));
        let _ = self.account.peer.order("tokens", &json!({ "after_end": after_end }));
        // The peer forgets what went by, our clock does not.
        self.account.catch_up();
        let limits = json!({ "limits": [{ "type": "g5.xlarge", "instances": 0 }] });
        let _ = self.account.peer.order("capacity", &limits);
    }
}

#[async_trait]
impl Harness for AwsHarness {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn restarted(&self) -> Box<dyn Provider> {
        Box::new(self.account.provider("ours"))
    }

    fn other_installation(&self) -> Box<dyn Provider> {
        Box::new(self.account.provider("theirs"))
    }

    fn request(&self) -> LaunchRequest {
        request(&self.account, offering("g6.xlarge", CapacityType::Spot))
    }

    fn unmeetable_request(&self) -> LaunchRequest {
        request(&self.account, offering("g5.xlarge", CapacityType::OnDemand))
    }

    fn restocked(&self) -> Box<dyn Provider> {
        let _ = self.account.peer.order("capacity", &json!({ "limits": [] }));
        self.restarted()
    }

    fn now(&self) -> Timestamp {
        self.account.clock.now()
    }

    async fn pass(&self, span: Span) {
        self.account.pass(span);
    }

    /// The peer keeps records and boots nothing: `machines` in this suite boots by the user data of a launch.
    fn has_machines(&self) -> bool {
        false
    }

    fn lose_launch_reply(&self) -> bool {
        let fault = json!({ "action": "RunInstances", "times": 1, "drop": "after" });
        let _ = self.account.peer.order("faults", &fault);
        true
    }

    fn runs(&self, instance: InstanceId) -> bool {
        let id = instance.to_string();
        let named = |one: &serde_json::Value| one["tags"]["bursar:instance"].as_str() == Some(&id);
        self.account.peer.alive().iter().any(named)
    }
}

/// One peer for all of them: starting it takes longer than any sentence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sentence_of_the_contract_holds() {
    let harness = AwsHarness::new();
    for (name, sentence) in SENTENCES {
        eprintln!("{name}");
        harness.begin("same");
        sentence(&harness).await;
    }
}

/// AWS documents more than one answer to a token whose instances have ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_asked_for_after_its_end_is_the_one_that_ended_whatever_ec2_says_of_its_token() {
    let harness = AwsHarness::new();
    let of_tokens = |name: &&str| name.contains("again_after_the_end") || name.contains("together_again");
    for after_end in ["refused-if-any", "refused-if-all"] {
        for (name, sentence) in SENTENCES.iter().filter(|(name, _)| of_tokens(name)) {
            eprintln!("{name}, {after_end}");
            harness.begin(after_end);
            sentence(&harness).await;
        }
    }
}
