//! Launches and ends: what is asked of EC2, and what its answers mean.

use bursar_model::{CapacityType, CloudInstance, Together};
use bursar_providers::{EffectMay, ErrorKind, LISTING_LAG, LaunchRequest, Provider, ProviderError};
use serde_json::{Value, json};

use crate::account::{Account, offering, request};

fn only_launch(account: &Account) -> Value {
    let calls = account.peer.calls("RunInstances");
    assert_eq!(calls.len(), 1);
    calls[0]["params"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_says_all_that_an_instance_needs_and_nothing_that_lets_it_live_on() {
    let account = Account::open();
    let request = request(&account, offering("g6.xlarge", CapacityType::Spot));
    account.provider("ours").launch(&request).await.unwrap();
    let asked = only_launch(&account);
    let is = |path: &str, value: Value| assert_eq!(asked.pointer(path), Some(&value), "{path} in {asked}");
    is("/InstanceInitiatedShutdownBehavior", json!("terminate"));
    is("/MetadataOptions/HttpTokens", json!("required"));
    is("/MetadataOptions/HttpPutResponseHopLimit", json!(1));
    is("/BlockDeviceMappings/0/Ebs/Encrypted", json!(true));
    is("/BlockDeviceMappings/0/Ebs/VolumeType", json!("gp3"));
    is("/BlockDeviceMappings/0/Ebs/VolumeSize", json!(100));
    is("/BlockDeviceMappings/0/Ebs/DeleteOnTermination", json!(true));
    is("/InstanceMarketOptions/MarketType", json!("spot"));
    is("/InstanceMarketOptions/SpotOptions/SpotInstanceType", json!("one-time"));
    assert!(asked.pointer("/InstanceMarketOptions/SpotOptions/MaxPrice").is_none());
    is("/Placement/AvailabilityZone", json!("us-east-1a"));
    assert!(asked["ClientToken"].as_str().is_some_and(|token| token.len() <= 64));
    let instance = &account.peer.instances()[0];
    let tag = |key: &str| instance["tags"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(tag("bursar:installation"), "ours");
    assert_eq!(tag("bursar:instance"), request.instance.to_string());
    assert_eq!(tag("bursar:lease-until"), request.lease_until.to_string());
    assert_eq!(tag("bursar:project"), "vision");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_lack_of_capacity_is_heard_after_one_call() {
    let account = Account::open();
    let provider = account.provider("ours");
    // The clients are made and connected by a first call.
    provider.list().await.unwrap();
    let fault =
        json!({ "action": "RunInstances", "code": "InsufficientInstanceCapacity", "message": "none" });
    let _ = account.peer.order("faults", &fault);
    let error =
        provider.launch(&request(&account, offering("g6.xlarge", CapacityType::Spot))).await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::InsufficientCapacity(_)) && error.effect == EffectMay::No,
        "{error:?}"
    );
    assert_eq!(account.peer.calls("RunInstances").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_means_what_the_table_says() {
    let account = Account::open();
    let provider = account.provider("ours");
    for (code, status, expected, effect) in [
        ("VcpuLimitExceeded", 400, "Quota", EffectMay::No),
        ("MaxSpotInstanceCountExceeded", 400, "Quota", EffectMay::No),
        ("InsufficientInstanceCapacity", 500, "InsufficientCapacity", EffectMay::No),
        ("Unsupported", 400, "InsufficientCapacity", EffectMay::No),
        ("RequestLimitExceeded", 503, "Throttled", EffectMay::No),
        ("UnauthorizedOperation", 403, "Auth", EffectMay::No),
        ("InvalidParameterValue", 400, "Invalid", EffectMay::No),
        ("InternalError", 500, "Unavailable", EffectMay::Maybe),
    ] {
        let fault =
            json!({ "action": "RunInstances", "times": 1, "code": code, "status": status, "message": "no" });
        let _ = account.peer.order("faults", &fault);
        let asked = request(&account, offering("g6.xlarge", CapacityType::OnDemand));
        let error = provider.launch(&asked).await.unwrap_err();
        assert!(format!("{:?}", error.kind).starts_with(expected), "{code}: {error:?}");
        assert_eq!(error.effect, effect, "{code}");
        assert!(error.to_string().contains(code), "{error}");
    }
    assert!(account.peer.alive().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_asked_for_again_in_other_words_finds_what_the_first_made() {
    let account = Account::open();
    let provider = account.provider("ours");
    let mut request = request(&account, offering("g6.xlarge", CapacityType::OnDemand));
    let first = provider.launch(&request).await.unwrap();
    request.daemon_url = "http://10.0.0.6:7733".to_owned();
    let second = account.provider("ours").launch(&request).await.unwrap();
    assert_eq!(first.cloud_id, second.cloud_id);
    assert_eq!(account.peer.alive().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fourteen_that_are_alike_are_one_call_and_what_there_is_no_capacity_for_is_refused() {
    let account = Account::open();
    let provider = account.provider("ours");
    let first = request(&account, offering("g6.xlarge", CapacityType::Spot));
    let mut requests = vec![first.clone()];
    for _ in 1..Together::MAX {
        let LaunchRequest { instance, .. } = request(&account, first.offering.clone());
        requests.push(LaunchRequest { instance, ..first.clone() });
    }
    let limits = json!({ "limits": [{ "type": "g6.xlarge", "instances": 9 }] });
    let _ = account.peer.order("capacity", &limits);
    let answers = provider.launch_together(&requests, true).await;
    assert!(answers.iter().all(is_lack_of_capacity), "all or none: {answers:?}");
    let mut others = requests.clone();
    others.reverse();
    let answers = provider.launch_together(&others, false).await;
    let made = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(made, 9);
    assert!(answers[9..].iter().all(is_lack_of_capacity));
    assert_eq!(account.peer.calls("RunInstances").len(), 2);
    let listed = provider.list().await.unwrap();
    for (request, answer) in others.iter().zip(&answers).take(9) {
        let found = listed.iter().find(|one| one.instance == request.instance).unwrap();
        assert_eq!(found.cloud_id, answer.as_ref().unwrap().cloud_id);
    }
    // Bills go by a tag that names one.
    provider.sweep().await.unwrap();
    for instance in account.peer.alive() {
        let known =
            answers.iter().flatten().find(|one| Some(one.cloud_id.as_str()) == instance["id"].as_str());
        let id = known.unwrap().instance.to_string();
        assert_eq!(instance["tags"]["bursar:instance"].as_str(), Some(&*id));
    }
    account.peer.clear_log();
    assert_eq!(account.provider("ours").list().await.unwrap().len(), 9);
    provider.sweep().await.unwrap();
    assert!(account.peer.calls("CreateTags").is_empty(), "once is enough");
    // What is asked for again is found, whatever its tags are by now.
    let again = account.provider("ours").launch_together(&others, false).await;
    assert_eq!(again.iter().filter(|answer| answer.is_ok()).count(), 9);
    assert_eq!(account.peer.alive().len(), 9);
    // In other words EC2 does not know it: what listings lack after so long was never made.
    for one in &mut others {
        one.daemon_url = "http://10.0.0.6:7733".to_owned();
    }
    account.pass(LISTING_LAG);
    let reworded = account.provider("ours").launch_together(&others, false).await;
    assert_eq!(reworded.iter().filter(|answer| answer.is_ok()).count(), 9);
    assert_eq!(reworded.iter().filter(|answer| is_lack_of_capacity(answer)).count(), others.len() - 9);
    assert_eq!(account.peer.alive().len(), 9);
}

fn is_lack_of_capacity(answer: &Result<CloudInstance, ProviderError>) -> bool {
    let kind = answer.as_ref().err().map(|error| (&error.kind, error.effect));
    matches!(kind, Some((ErrorKind::InsufficientCapacity(_), EffectMay::No)))
}
