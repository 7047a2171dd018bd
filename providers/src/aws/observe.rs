//! What EC2 says of instances, as records of ours.
//!
//! Which of ours an instance is, its tags say. One that was launched alone carries its id. Those that were launched by one
//! call carry the same tags at first: the ids of all in `bursar:together`, among which the launch index that EC2 gave to each
//! says which it is. The sweep gives each a tag of its own (`give_own_tags`), as bills go by that.

use aws_sdk_ec2::types::{Filter, Instance, InstanceStateName, Tag};
use bursar_model::{CloudId, CloudInstance, CloudState, InstanceId, Timestamp};
use chrono::NaiveDateTime;
use tracing::warn;

use super::clients::{Clients, Gate, RegionClient};
use crate::ProviderError;

/// Whose it is.
pub(super) const INSTALLATION_TAG: &str = "bursar:installation";

/// Which of ours it is.
pub(super) const INSTANCE_TAG: &str = "bursar:instance";

/// Those that were launched together, in the order of their launch index, separated by spaces.
pub(super) const TOGETHER_TAG: &str = "bursar:together";

/// More pages than any installation has, of 1,000 instances each.
const PAGES_MAX: u32 = 100;

/// Reads what EC2 says of an instance. Nothing for those of others, and for what carries no id of ours.
pub(super) fn read(instance: &Instance, installation: &str, now: Timestamp) -> Option<CloudInstance> {
    let tags = instance.tags.as_deref().unwrap_or_default();
    if value_of(tags, INSTALLATION_TAG)? != installation {
        return None;
    }
    let together = || value_of(tags, TOGETHER_TAG)?.split(' ').nth(launch_index(instance)?);
    let id = value_of(tags, INSTANCE_TAG).or_else(together)?;
    record(instance, id.parse().ok()?, now)
}

/// What is to be tagged with an id of its own: an instance that was launched with others, and its disks. Nothing once it is.
pub(super) fn lacks_own_tag(instance: &Instance) -> Vec<String> {
    let tags = instance.tags.as_deref().unwrap_or_default();
    if value_of(tags, INSTANCE_TAG).is_some() || value_of(tags, TOGETHER_TAG).is_none() {
        return Vec::new();
    }
    let disks = instance.block_device_mappings.as_deref().unwrap_or_default();
    let disks = disks.iter().filter_map(|disk| disk.ebs.as_ref()?.volume_id.clone());
    instance.instance_id.clone().into_iter().chain(disks).collect()
}

/// Which of those that were launched together it is, from 0 on.
pub(super) fn launch_index(instance: &Instance) -> Option<usize> {
    usize::try_from(instance.ami_launch_index.unwrap_or(0)).ok()
}

/// The same for an instance that is known to be this one of ours.
pub(super) fn record(instance: &Instance, id: InstanceId, now: Timestamp) -> Option<CloudInstance> {
    let launched_at = instance.launch_time.map_or(now, |at| Timestamp::from_millis(at.secs() * 1000));
    let changed_at = instance.state_transition_reason.as_deref().and_then(time_in);
    let name = instance.state.as_ref().and_then(|state| state.name.as_ref());
    let state = match name {
        None | Some(InstanceStateName::Pending) => CloudState::Pending,
        Some(InstanceStateName::ShuttingDown) => CloudState::Stopping,
        Some(InstanceStateName::Terminated) => CloudState::Gone {
            // Where EC2 does not say when, nobody does: seen from here it is over since now.
            at: changed_at.unwrap_or(now).max(launched_at),
            interrupted: is_interrupted(instance),
        },
        // One that somebody stopped by hand is cut off: its agent is silent, and it is ended for that.
        Some(_) => CloudState::Running,
    };
    Some(CloudInstance {
        cloud_id: CloudId::new(instance.instance_id.as_deref()?),
        instance: id,
        // EC2 keeps no time of the first run: it is taken to be billed from the launch on, never too little.
        running_at: (state != CloudState::Pending).then_some(launched_at),
        state,
        launched_at,
        stopping_at: changed_at,
        notice: None,
    })
}

/// All instances of this installation in a region that match one more filter, if there is one.
pub(super) async fn in_region(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    only: Option<Filter>,
    now: Timestamp,
) -> Result<Vec<Seen>, ProviderError> {
    let ours = Filter::builder().name(format!("tag:{INSTALLATION_TAG}")).values(installation).build();
    let filters: Vec<Filter> = std::iter::once(ours).chain(only).collect();
    let mut found = Vec::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        at.pass(Gate::Look).await;
        let asked = at.ec2.describe_instances().set_filters(Some(filters.clone())).max_results(1000);
        let page = asked.set_next_token(token).send().await;
        let page =
            page.map_err(|error| clients.failed(&format!("DescribeInstances in {}", at.name), None, error))?;
        let reservations = page.reservations.unwrap_or_default();
        let instances = reservations.iter().flat_map(|one| one.instances.as_deref().unwrap_or_default());
        found.extend(instances.filter_map(|instance| {
            let cloud = read(instance, installation, now)?;
            Some(Seen { cloud, untagged: lacks_own_tag(instance) })
        }));
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    Ok(found)
}

/// An instance as it was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) cloud: CloudInstance,
    /// What of it still lacks a tag of its own.
    untagged: Vec<String>,
}

/// Those that one of ours is among: launched alone, or with others.
pub(super) async fn of_instance(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    id: InstanceId,
    now: Timestamp,
) -> Result<Vec<CloudInstance>, ProviderError> {
    let alone = Filter::builder().name(format!("tag:{INSTANCE_TAG}")).values(id.to_string()).build();
    let found = in_region(clients, at, installation, Some(alone), now).await?;
    if found.is_empty() {
        return launched_with(clients, at, installation, id, now).await;
    }
    Ok(found.into_iter().map(|seen| seen.cloud).collect())
}

/// Those that were launched together with one of ours, itself among them.
pub(super) async fn launched_with(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    id: InstanceId,
    now: Timestamp,
) -> Result<Vec<CloudInstance>, ProviderError> {
    let together = Filter::builder().name(format!("tag:{TOGETHER_TAG}")).values(format!("*{id}*")).build();
    let found = in_region(clients, at, installation, Some(together), now).await?;
    Ok(found.into_iter().map(|seen| seen.cloud).collect())
}

/// Gives those that were launched together a tag of their own each. Where that fails, the next look tries again.
pub(super) async fn give_own_tags(at: &RegionClient, seen: &[Seen]) {
    let untagged = seen.iter().filter(|one| !one.untagged.is_empty());
    for Seen { cloud, untagged } in untagged.take(TAGGED_AT_ONCE) {
        at.pass(Gate::Change).await;
        let own = Tag::builder().key(INSTANCE_TAG).value(cloud.instance.to_string()).build();
        let call = at.ec2.create_tags().set_resources(Some(untagged.clone())).tags(own);
        if let Err(error) = call.send().await {
            warn!(instance = %cloud.instance, %error, "it could not be given a tag of its own");
        }
    }
}

/// So many in one look: the others are tagged by the next.
const TAGGED_AT_ONCE: usize = 50;

fn value_of<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key.as_deref() == Some(key))?.value.as_deref()
}

/// AWS took it back (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html>).
fn is_interrupted(instance: &Instance) -> bool {
    let reason = instance.state_reason.as_ref().and_then(|reason| reason.code.as_deref());
    matches!(reason, Some("Server.SpotInstanceTermination" | "Server.SpotInstanceShutdown"))
}

/// The time in `User initiated (2026-11-22 17:02:03 GMT)`.
fn time_in(reason: &str) -> Option<Timestamp> {
    let (_, rest) = reason.rsplit_once('(')?;
    let text = rest.trim_end_matches(')').trim_end_matches("GMT").trim_end_matches("UTC").trim();
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
    Some(Timestamp::from_millis(time.and_utc().timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::{
        primitives::DateTime,
        types::{InstanceState, StateReason},
    };
    use bursar_model::IdGen;

    use super::*;

    fn tagged(ids: &str) -> aws_sdk_ec2::types::builders::InstanceBuilder {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        Instance::builder()
            .instance_id("i-0123456789abcdef0")
            .launch_time(DateTime::from_secs(1_800_000_000))
            .tags(tag(INSTALLATION_TAG, "lab"))
            .tags(tag(TOGETHER_TAG, ids))
    }

    fn in_state(name: InstanceStateName) -> InstanceState {
        InstanceState::builder().name(name).build()
    }

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_500_000);

    #[test]
    fn those_launched_together_are_told_apart_by_their_launch_index() {
        let mut ids = IdGen::new(1);
        let (one, two) = (ids.instance(NOW), ids.instance(NOW));
        let instance = tagged(&format!("{one} {two}")).ami_launch_index(1).build();
        assert_eq!(read(&instance, "lab", NOW).map(|found| found.instance), Some(two));
        let beyond = tagged(&format!("{one} {two}")).ami_launch_index(2).build();
        assert!(read(&beyond, "lab", NOW).is_none());
        assert!(read(&instance, "other", NOW).is_none());
    }

    #[test]
    fn an_end_is_when_ec2_says_and_by_whom() {
        let id = IdGen::new(1).instance(NOW).to_string();
        let ended = |reason: &str, code: &str| {
            let instance = tagged(&id)
                .state(in_state(InstanceStateName::Terminated))
                .state_transition_reason(reason)
                .state_reason(StateReason::builder().code(code).build())
                .build();
            read(&instance, "lab", NOW).map(|found| found.state)
        };
        let at = "2027-01-15T08:05:00Z".parse().unwrap();
        assert_eq!(
            ended("User initiated (2027-01-15 08:05:00 GMT)", "Client.UserInitiatedShutdown"),
            Some(CloudState::Gone { at, interrupted: false })
        );
        assert_eq!(
            ended("", "Server.SpotInstanceTermination"),
            Some(CloudState::Gone { at: NOW, interrupted: true })
        );
    }
}
