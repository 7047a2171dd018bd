//! What EC2 sells, as it is read.

use std::collections::BTreeSet;

use bursar_model::{CapacityType, Clock, Span};
use bursar_providers::Provider;
use serde_json::json;

use crate::account::Account;

#[tokio::test(flavor = "multi_thread")]
async fn each_type_is_offered_in_each_zone_that_sells_it_on_demand_and_as_spot() {
    let account = Account::open();
    let offered = account.provider("ours").offerings().await.unwrap();
    let of = |name: &'static str| offered.iter().filter(move |one| one.instance_type.name.as_str() == name);
    let gpus = of("g6.12xlarge").next().unwrap().instance_type.accelerators.clone().unwrap();
    assert_eq!((gpus.name.as_str(), gpus.count, gpus.memory_gib), ("L4", 4, Some(24)));
    assert!(of("m7i.large").all(|one| one.instance_type.accelerators.is_none()));
    for (capacity_type, region) in [
        (CapacityType::Spot, "us-east-1"),
        (CapacityType::OnDemand, "us-east-1"),
        (CapacityType::Spot, "us-west-2"),
        (CapacityType::OnDemand, "us-west-2"),
    ] {
        let here = of("g6.xlarge").filter(|one| one.capacity_type == capacity_type);
        assert!(
            here.clone().filter(|one| one.region.as_str() == region).count() >= 2,
            "{region} {capacity_type}"
        );
        assert!(here.clone().all(|one| one.price <= one.on_demand_price), "spot is no dearer");
        let is_told = capacity_type == CapacityType::Spot;
        assert!(
            here.clone().all(|one| one.notice.is_some() == is_told && one.price_since.is_some() == is_told)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_today_is_not_asked_for_again_by_a_daemon_that_starts() {
    let account = Account::open();
    let first = account.provider("ours").offerings().await.unwrap();
    account.peer.clear_log();
    let second = account.provider("ours").offerings().await.unwrap();
    assert_eq!(first, second);
    let asked: Vec<String> =
        account.peer.log().iter().map(|call| call["action"].as_str().unwrap().to_owned()).collect();
    assert!(asked.iter().all(|action| action == "DescribeSpotPriceHistory"), "{asked:?}");
    assert_eq!(asked.len(), 2, "one for each region");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_types_in_the_configuration_are_what_is_offered_from_the_next_start_on() {
    let account = Account::open();
    let names = |types: &str| {
        let provider =
            account.provider_with("ours", |settings| settings.instance_types = vec![types.to_owned()]);
        async move {
            let offered = provider.offerings().await.unwrap();
            offered.iter().map(|one| one.instance_type.name.to_string()).collect::<BTreeSet<String>>()
        }
    };
    assert_eq!(names("g6.*").await, ["g6.12xlarge".to_owned(), "g6.xlarge".to_owned()].into());
    assert_eq!(names("g5.*").await, ["g5.xlarge".to_owned()].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_leaves_what_it_said_before_and_says_so() {
    let account = Account::open();
    let provider = account.provider("ours");
    let before = provider.offerings().await.unwrap();
    let down =
        json!({ "action": "DescribeSpotPriceHistory", "code": "UnauthorizedOperation", "message": "no" });
    let _ = account.peer.order("faults", &down);
    let after = provider.offerings().await.unwrap();
    assert_eq!(before, after);
    let troubles = provider.troubles().await;
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    assert!(
        troubles
            .iter()
            .all(|trouble| trouble.contains("spot prices") && trouble.contains("UnauthorizedOperation"))
    );
    // What nobody could confirm for long is no price: on demand goes on.
    account.pass(Span::from_hours(7));
    let late = provider.offerings().await.unwrap();
    assert!(late.iter().all(|one| one.capacity_type == CapacityType::OnDemand) && !late.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prices_on_demand_there_is_spot() {
    let account = Account::open();
    let down = json!({ "action": "GetProducts", "code": "AccessDeniedException", "message": "no" });
    let _ = account.peer.order("faults", &down);
    let provider = account.provider("ours");
    let offered = provider.offerings().await.unwrap();
    assert!(!offered.is_empty() && offered.iter().all(|one| one.capacity_type == CapacityType::Spot));
    assert!(provider.troubles().await.iter().all(|trouble| trouble.contains("on-demand prices")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spot_price_is_the_newest_with_the_time_from_which_it_counts() {
    let account = Account::open();
    let provider = account.provider("ours");
    let series = json!({ "series": [{
        "region": "us-east-1", "zone": "us-east-1a", "type": "g6.xlarge",
        "changes": [[-108_000, 0.25], [-7200, 0.31]],
    }] });
    let _ = account.peer.order("spot-prices", &series);
    let spot = |offered: Vec<bursar_model::Offering>| {
        let one = offered.into_iter().find(|one| {
            one.capacity_type == CapacityType::Spot
                && one.zone.as_str() == "us-east-1a"
                && one.instance_type.name.as_str() == "g6.xlarge"
        });
        let one = one.unwrap();
        (one.price.unwrap().to_string(), one.price_since.unwrap())
    };
    let (price, since) = spot(provider.offerings().await.unwrap());
    assert_eq!(price, "0.31");
    assert!(account.clock.now().since(since) >= Span::from_secs(7000));
    // It changes while we look: the next look takes it over, and asks for no more than what is new.
    let series = json!({ "series": [{
        "region": "us-east-1", "zone": "us-east-1a", "type": "g6.xlarge",
        "changes": [[-108_000, 0.25], [-7200, 0.31], [0, 0.28]],
    }] });
    let _ = account.peer.order("spot-prices", &series);
    account.pass(Span::from_secs(60));
    assert_eq!(spot(provider.offerings().await.unwrap()).0, "0.28");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_says_which_quota_of_the_account_it_takes_from() {
    let account = Account::open();
    let quotas = json!({ "quotas": [
        { "region": "us-east-1", "code": "L-DB2E81BA", "vcpus": 96 },
        // Never raised: what AWS gives everybody holds.
        { "region": "us-west-2", "code": "L-DB2E81BA", "vcpus": null },
    ] });
    let _ = account.peer.order("quotas", &quotas);
    let offered = account.provider("ours").offerings().await.unwrap();
    let of = |region: &str, capacity_type: CapacityType| {
        let one = offered.iter().find(|one| {
            one.instance_type.name.as_str() == "g6.12xlarge"
                && one.region.as_str() == region
                && one.capacity_type == capacity_type
        });
        one.unwrap().quota.clone().unwrap()
    };
    let firm = of("us-east-1", CapacityType::OnDemand);
    assert_eq!((&*firm.quota.name, firm.quota.limit, firm.units), ("us-east-1/L-DB2E81BA", 96, 48));
    assert_eq!(&*firm.quota.title, "Running On-Demand G and VT instances");
    assert_eq!(of("us-west-2", CapacityType::OnDemand).quota.limit, 0);
    assert_eq!(&*of("us-east-1", CapacityType::Spot).quota.name, "us-east-1/L-3819A6DF");
}
