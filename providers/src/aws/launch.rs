//! One call that makes instances, and what its answer says.

use aws_sdk_ec2::{
    operation::run_instances::builders::RunInstancesFluentBuilder,
    types::{
        BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
        InstanceInterruptionBehavior, InstanceMarketOptionsRequest, InstanceMetadataEndpointState,
        InstanceMetadataOptionsRequest, InstanceType as AwsType, MarketType, Placement, ResourceType,
        ShutdownBehavior, SpotInstanceType, SpotMarketOptions, Tag, TagSpecification, VolumeType,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bursar_agent::NoticeSource;
use bursar_model::CapacityType;
use sha2::{Digest, Sha256};

use super::{
    AwsSettings,
    clients::RegionClient,
    observe::{INSTALLATION_TAG, INSTANCE_TAG, TOGETHER_TAG},
};
use crate::{LaunchRequest, bootstrap::user_data};

/// The metadata service of EC2, as every instance reaches it.
const METADATA: &str = "http://169.254.169.254";

/// `RunInstances` for requests that are alike but for their ids and secrets. Made of them and of the configuration alone,
/// so that the same requests make the same call with the same token. `whole` takes all of them or none.
pub(super) fn run_instances(
    at: &RegionClient,
    settings: &AwsSettings,
    requests: &[LaunchRequest],
    whole: bool,
) -> Option<RunInstancesFluentBuilder> {
    let first = requests.first()?;
    let offering = &first.offering;
    let kind = offering.instance_type.name.as_str();
    let is_spot = offering.capacity_type == CapacityType::Spot;
    let tags = tags(settings, requests);
    let tagged =
        |of: ResourceType| TagSpecification::builder().resource_type(of).set_tags(Some(tags.clone())).build();
    let disk = EbsBlockDevice::builder()
        .volume_type(VolumeType::Gp3)
        .volume_size(i32::try_from(first.disk_gib).unwrap_or(i32::MAX))
        .encrypted(true)
        .delete_on_termination(true)
        .build();
    let count = i32::try_from(requests.len()).unwrap_or(i32::MAX);
    let subnet = settings.subnets.get(&offering.zone).cloned();
    let placement = Placement::builder().availability_zone(offering.zone.as_str()).build();
    let mut call = at
        .ec2
        .run_instances()
        .client_token(token(requests))
        .min_count(if whole { count } else { 1 })
        .max_count(count)
        .instance_type(AwsType::from(kind))
        .image_id(settings.image_for(&offering.instance_type))
        .placement(placement)
        .set_subnet_id(subnet)
        .set_security_group_ids(settings.security_groups.get(&offering.region).cloned())
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .metadata_options(
            InstanceMetadataOptionsRequest::builder()
                .http_endpoint(InstanceMetadataEndpointState::Enabled)
                .http_tokens(HttpTokensState::Required)
                // Containers do not reach it: it tells the user data, and whatever the instance profile may do.
                .http_put_response_hop_limit(1)
                .build(),
        )
        .block_device_mappings(
            BlockDeviceMapping::builder().device_name(&settings.root_device).ebs(disk).build(),
        )
        .user_data(STANDARD.encode(user_data(requests, NoticeSource::Aws { endpoint: METADATA.to_owned() })))
        .tag_specifications(tagged(ResourceType::Instance))
        .tag_specifications(tagged(ResourceType::Volume));
    if let Some(profile) = &settings.instance_profile {
        let by = IamInstanceProfileSpecification::builder();
        let by = if profile.starts_with("arn:") { by.arn(profile) } else { by.name(profile) };
        call = call.iam_instance_profile(by.build());
    }
    if is_spot {
        let once = SpotMarketOptions::builder()
            .spot_instance_type(SpotInstanceType::OneTime)
            .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
            .build();
        let market =
            InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).spot_options(once).build();
        call = call
            .instance_market_options(market)
            .tag_specifications(tagged(ResourceType::SpotInstancesRequest));
    }
    Some(call)
}

/// What names a launch for as long as EC2 remembers it: at most 64 letters, the same for the same instances.
pub(super) fn token(requests: &[LaunchRequest]) -> String {
    let mut hasher = Sha256::new();
    for request in requests {
        hasher.update(request.installation.as_bytes());
        hasher.update([0]);
        hasher.update(request.instance.to_string().as_bytes());
        hasher.update([0]);
    }
    let hex: String = hasher.finalize().iter().take(24).map(|byte| format!("{byte:02x}")).collect();
    format!("bursar-{hex}")
}

/// The tags of everything that a launch makes. Ours come last: nothing in the configuration can take their place.
fn tags(settings: &AwsSettings, requests: &[LaunchRequest]) -> Vec<Tag> {
    let mut tags = settings.tags.clone();
    let Some(first) = requests.first() else { return Vec::new() };
    tags.entry("Name".to_owned()).or_insert_with(|| "bursar".to_owned());
    for (label, value) in &first.labels {
        tags.insert(format!("bursar:{label}"), value.clone());
    }
    let ids: Vec<String> = requests.iter().map(|request| request.instance.to_string()).collect();
    tags.insert("bursar:lease-until".to_owned(), first.lease_until.to_string());
    tags.insert(INSTALLATION_TAG.to_owned(), first.installation.clone());
    tags.insert(if ids.len() == 1 { INSTANCE_TAG } else { TOGETHER_TAG }.to_owned(), ids.join(" "));
    tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
