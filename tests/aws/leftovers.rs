//! What is left of instances that are gone.

use bursar_model::{CapacityType, Span};
use bursar_providers::Provider;

use crate::account::{Account, offering, request};

const REGION: &str = "us-west-2";

/// Makes a disk that no instance has, as one of this installation.
fn volume(account: &Account, installation: &str) -> String {
    let tag = "TagSpecification.1.Tag.1";
    let said = account.peer.ec2(
        REGION,
        &format!(
            "Action=CreateVolume&Size=1&AvailabilityZone={REGION}a&TagSpecification.1.ResourceType=volume&\
             {tag}.Key=bursar%3Ainstallation&{tag}.Value={installation}"
        ),
    );
    said.split("<volumeId>").nth(1).unwrap().split("</volumeId>").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_ours_that_was_left_behind_is_deleted_after_an_hour_and_nothing_else() {
    let account = Account::open();
    let provider = account.provider("ours");
    let mut asked = request(&account, offering("g6.xlarge", CapacityType::Spot));
    asked.offering.region = bursar_model::Region::new(REGION);
    asked.offering.zone = bursar_model::Zone::new(&format!("{REGION}a"));
    provider.launch(&asked).await.unwrap();
    let (ours, theirs) = (volume(&account, "ours"), volume(&account, "theirs"));
    let before = account.peer.ec2(REGION, "Action=DescribeVolumes");
    provider.sweep().await.unwrap();
    assert_eq!(account.peer.ec2(REGION, "Action=DescribeVolumes").len(), before.len(), "too young");
    account.pass(Span::from_hours(2));
    provider.sweep().await.unwrap();
    let after = account.peer.ec2(REGION, "Action=DescribeVolumes");
    assert!(!after.contains(&ours) && after.contains(&theirs), "{after}");
    // The instance has its own still, and its spot request.
    assert_eq!(after.matches("<volumeId>").count(), before.matches("<volumeId>").count() - 1, "{after}");
    assert_eq!(account.peer.alive().len(), 1);
    assert!(account.peer.calls("CancelSpotInstanceRequests").is_empty());
    // What is gone already is nobody's trouble.
    provider.sweep().await.unwrap();
}
