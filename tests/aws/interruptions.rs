//! Warnings of interruptions, as EventBridge puts them into a queue.

use bursar_model::{CapacityType, Clock, CloudInstance, CloudState, Span};
use bursar_providers::Provider;
use serde_json::json;

use crate::account::{Account, offering, request};

async fn only(provider: &dyn Provider) -> CloudInstance {
    let listed = provider.list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_is_told_with_each_listing_until_the_instance_is_gone() {
    let account = Account::open();
    let queue = account.peer.queue_of_events("warnings");
    let provider =
        account.provider_with("ours", |settings| settings.interruption_queue = Some(queue.clone()));
    let request = request(&account, offering("g6.xlarge", CapacityType::Spot));
    let launched = provider.launch(&request).await.unwrap();
    // The changes of state until here are events as well, and taken out.
    assert_eq!(only(&provider).await.notice, None);
    assert_eq!(account.peer.messages_in(&queue), 0);
    let said = account.peer.order("interrupt", &json!({ "instance": launched.cloud_id.as_str() }));
    assert_eq!(said["delivered"].as_array().unwrap().len(), 1, "{said}");
    let warned = only(&provider).await.notice.expect("a notice");
    let in_time = warned.since(account.clock.now());
    assert!(in_time > Span::from_secs(100) && in_time <= Span::from_secs(120), "{in_time:?}");
    assert_eq!(account.peer.messages_in(&queue), 0);
    // No message says so any more.
    assert_eq!(only(&provider).await.notice, Some(warned));
    account.pass(Span::from_secs(121));
    assert!(matches!(only(&provider).await.state, CloudState::Gone { interrupted: true, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_warning_of_ours_is_taken_out_and_changes_nothing() {
    let account = Account::open();
    let queue = account.peer.queue_of_events("warnings");
    let provider =
        account.provider_with("ours", |settings| settings.interruption_queue = Some(queue.clone()));
    provider.launch(&request(&account, offering("g6.xlarge", CapacityType::Spot))).await.unwrap();
    let stranger = json!({
        "detail-type": "EC2 Spot Instance Interruption Warning", "time": "2026-11-22T12:00:00Z",
        "detail": { "instance-id": "i-0fedcba9876543210", "instance-action": "terminate" },
    });
    let texts = ["hello".to_owned(), "{\"detail\": 3}".to_owned(), stranger.to_string()];
    for text in texts.iter().cycle().take(60) {
        let _ = account.peer.sqs("SendMessage", &json!({ "QueueUrl": queue, "MessageBody": text }));
    }
    assert_eq!(only(&provider).await.notice, None);
    assert_eq!(account.peer.messages_in(&queue), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_read_keeps_nothing_from_being_listed() {
    let account = Account::open();
    let nowhere = format!("{}/123456789012/nowhere", account.peer.endpoint());
    let provider = account.provider_with("ours", |settings| settings.interruption_queue = Some(nowhere));
    provider.launch(&request(&account, offering("g6.xlarge", CapacityType::Spot))).await.unwrap();
    assert_eq!(only(&provider).await.notice, None);
    let hangs = json!({ "service": "sqs", "delay_ms": 20_000 });
    let _ = account.peer.order("faults", &hangs);
    let began = account.clock.now();
    assert_eq!(only(&provider).await.notice, None);
    assert!(account.clock.now().since(began) < Span::from_secs(10));
}
