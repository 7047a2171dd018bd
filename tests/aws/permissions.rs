//! `deploy/aws/iam-policy.json` is complete and minimal: all that the provider does is allowed by it, and it allows nothing
//! that the provider does not do. The peer goes by actions alone; resources and conditions are as AWS's pages describe them.

use std::collections::BTreeSet;

use bursar_model::CapacityType;
use bursar_providers::Provider;
use serde_json::{Value, json};

use crate::{
    account::{Account, offering, request},
    doctor::{IMAGE_PARAMETER, URL, image_of},
};

fn policy() -> Value {
    serde_json::from_str(include_str!("../../deploy/aws/iam-policy.json")).unwrap()
}

/// One action, or a list of them.
fn actions(statement: &Value) -> Vec<String> {
    let named = &statement["Action"];
    let several = named.as_array().cloned().unwrap_or_else(|| vec![named.clone()]);
    several.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_allows_all_that_is_done_and_nothing_else() {
    let account = Account::open();
    let queue = account.peer.queue_of_events("bursar-interruptions");
    let profile = account.profile("bursar-instances");
    let image = image_of(&account, IMAGE_PARAMETER);
    let policy = policy();
    let _ = account.peer.order("policy", &json!({ "policy": policy }));
    account.peer.clear_log();

    let provider = account.provider_with("ours", |settings| {
        settings.interruption_queue = Some(queue.clone());
        settings.instance_profile = Some(profile.clone());
    });
    assert!(!provider.offerings().await.unwrap().is_empty());
    for capacity_type in [CapacityType::Spot, CapacityType::OnDemand] {
        let request = request(&account, offering("g6.xlarge", capacity_type));
        let _ = provider.launch(&request).await.unwrap();
        assert!(!provider.list().await.unwrap().is_empty());
        provider.terminate(request.instance, None).await.unwrap();
    }
    let both = [(), ()].map(|()| request(&account, offering("g6.xlarge", CapacityType::Spot)));
    for made in provider.launch_together(&both, true).await {
        let _ = made.unwrap();
    }
    provider.sweep().await.unwrap();
    assert!(!account.peer.calls("CreateTags").is_empty(), "each gets a tag of its own");
    for finding in provider.doctor(URL).await {
        assert!(finding.ok, "{finding:?}");
    }
    let with_image = account.provider_with("ours", |settings| {
        settings.regions.truncate(1);
        settings.instance_types = vec!["m7i.*".to_owned()];
        settings.image = Some(image);
    });
    for finding in with_image.doctor(URL).await {
        assert!(finding.ok, "{finding:?}");
    }

    let allowed: BTreeSet<String> =
        policy["Statement"].as_array().unwrap().iter().flat_map(actions).collect();
    let mut needed: BTreeSet<String> = account.peer.actions().into_iter().collect();
    // No policy has to allow it.
    needed.remove("sts:GetCallerIdentity");
    assert_eq!(allowed, needed);
}

#[test]
fn what_is_made_or_ended_has_to_have_our_tag() {
    for statement in policy()["Statement"].as_array().unwrap() {
        let condition = statement["Condition"].to_string();
        let is_about_things_of_ours = statement["Resource"].to_string().contains("instance/");
        if is_about_things_of_ours {
            assert!(condition.contains("/bursar:installation"), "{statement}");
        }
        assert!(statement["Resource"] != "*" || actions(statement).iter().all(|action| is_a_look(action)));
    }
}

fn is_a_look(action: &str) -> bool {
    let (_, name) = action.split_once(':').unwrap();
    ["Describe", "Get", "List"].iter().any(|start| name.starts_with(start))
}
