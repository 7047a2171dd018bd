//! What may be left behind of an instance that is gone: disks that did not go with it, and spot requests that nothing came
//! of. Instances themselves are told by `list`, and launch templates and fleets are never made.
//!
//! A disk is made to go with its instance, and a request is of one launch, so that all of this is rare: it is looked for
//! seldom, a bounded part of it at a time, and each end is a line in the log. Nothing that is younger than an hour is
//! touched: a launch may be about to attach it.

use std::collections::BTreeSet;

use aws_sdk_ec2::{
    primitives::DateTime,
    types::{Filter, SpotInstanceRequest, SpotInstanceState, Volume, VolumeState},
};
use bursar_model::{CloudState, Span, Timestamp};
use tracing::warn;

use super::{
    clients::{Clients, Gate, RegionClient, meaning_of},
    errors::Meaning,
    observe::{self, INSTALLATION_TAG},
};
use crate::ProviderError;

/// What is younger is left alone.
const AGE_MIN: Span = Span::from_hours(1);

/// What one look in a region ends at most: the next look ends more.
const ENDED_MAX: usize = 50;

/// A page of each kind is enough, as the next look goes on where this one ended something.
const PAGE: i32 = 500;

/// Ends what is left of this installation in a region.
pub(super) async fn sweep_region(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    now: Timestamp,
) -> Result<(), ProviderError> {
    volumes(clients, at, installation, now).await?;
    spot_requests(clients, at, installation, now).await
}

async fn volumes(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    now: Timestamp,
) -> Result<(), ProviderError> {
    at.pass(Gate::Look).await;
    let asked =
        at.ec2.describe_volumes().filters(ours(installation)).filters(one_of("status", &["available"]));
    let answer = asked.max_results(PAGE).send().await;
    let answer =
        answer.map_err(|error| clients.failed(&format!("DescribeVolumes in {}", at.name), None, error))?;
    let volumes = answer.volumes.unwrap_or_default();
    for id in
        volumes.iter().filter(|volume| is_left(volume, now)).filter_map(Volume::volume_id).take(ENDED_MAX)
    {
        warn!(volume = id, region = %at.name, "deleting a disk that was left behind");
        at.pass(Gate::Change).await;
        match at.ec2.delete_volume().volume_id(id).send().await {
            Ok(_) => {}
            Err(error) if meaning_of(&error) == Some(Meaning::NotFound) => {}
            Err(error) => return Err(clients.failed(&format!("DeleteVolume {id}"), None, error)),
        }
    }
    Ok(())
}

async fn spot_requests(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    now: Timestamp,
) -> Result<(), ProviderError> {
    at.pass(Gate::Look).await;
    let asked = at.ec2.describe_spot_instance_requests().filters(ours(installation));
    let answer = asked.filters(one_of("state", &["open", "active"])).max_results(PAGE).send().await;
    let answer = answer.map_err(|error| {
        clients.failed(&format!("DescribeSpotInstanceRequests in {}", at.name), None, error)
    })?;
    let old: Vec<SpotInstanceRequest> = answer
        .spot_instance_requests
        .unwrap_or_default()
        .into_iter()
        .filter(|request| is_old(request.create_time(), now))
        .collect();
    let alive = if old.iter().any(|request| request.instance_id().is_some()) {
        alive(clients, at, installation, now).await?
    } else {
        BTreeSet::new()
    };
    let ids: Vec<String> = old
        .iter()
        .filter(|request| is_pointless(request, &alive))
        .filter_map(|request| request.spot_instance_request_id().map(str::to_owned))
        .take(ENDED_MAX)
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    warn!(requests = ids.join(" "), region = %at.name, "cancelling spot requests that nothing came of");
    at.pass(Gate::Change).await;
    let call = at.ec2.cancel_spot_instance_requests().set_spot_instance_request_ids(Some(ids));
    match call.send().await {
        Ok(_) => Ok(()),
        Err(error) if meaning_of(&error) == Some(Meaning::NotFound) => Ok(()),
        Err(error) => Err(clients.failed(&format!("CancelSpotInstanceRequests in {}", at.name), None, error)),
    }
}

async fn alive(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    now: Timestamp,
) -> Result<BTreeSet<String>, ProviderError> {
    let found = observe::in_region(clients, at, installation, None, now).await?;
    let alive = found.into_iter().filter(|seen| !matches!(seen.cloud.state, CloudState::Gone { .. }));
    Ok(alive.map(|seen| seen.cloud.cloud_id.to_string()).collect())
}

/// A disk that is of no instance, for long enough.
fn is_left(volume: &Volume, now: Timestamp) -> bool {
    volume.state() == Some(&VolumeState::Available)
        && volume.attachments().is_empty()
        && is_old(volume.create_time(), now)
}

/// A request that waits for capacity, which a launch of ours never does, or whose instance is no more.
fn is_pointless(request: &SpotInstanceRequest, alive: &BTreeSet<String>) -> bool {
    let is_live = matches!(request.state(), Some(SpotInstanceState::Open | SpotInstanceState::Active));
    is_live && request.instance_id().is_none_or(|id| !alive.contains(id))
}

/// What has no date may be new.
fn is_old(made_at: Option<&DateTime>, now: Timestamp) -> bool {
    made_at.is_some_and(|at| now.since(Timestamp::from_millis(at.secs() * 1000)) >= AGE_MIN)
}

fn ours(installation: &str) -> Filter {
    Filter::builder().name(format!("tag:{INSTALLATION_TAG}")).values(installation).build()
}

fn one_of(name: &str, values: &[&str]) -> Filter {
    values.iter().fold(Filter::builder().name(name), |filter, value| filter.values(*value)).build()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::VolumeAttachment;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn ago(span: Span) -> DateTime {
        DateTime::from_secs((NOW - span).as_millis() / 1000)
    }

    #[test]
    fn a_disk_is_left_behind_where_it_is_of_no_instance_and_an_hour_old() {
        let volume = || Volume::builder().state(VolumeState::Available).create_time(ago(AGE_MIN));
        assert!(is_left(&volume().build(), NOW));
        assert!(!is_left(
            &volume().create_time(ago(AGE_MIN.saturating_sub(Span::from_secs(1)))).build(),
            NOW
        ));
        assert!(!is_left(&volume().state(VolumeState::InUse).build(), NOW));
        assert!(!is_left(&volume().attachments(VolumeAttachment::builder().build()).build(), NOW));
        assert!(!is_left(&Volume::builder().state(VolumeState::Available).build(), NOW));
    }

    #[test]
    fn a_request_is_pointless_where_no_instance_of_it_lives() {
        let request = || SpotInstanceRequest::builder().state(SpotInstanceState::Active);
        let alive: BTreeSet<String> = ["i-1".to_owned()].into();
        assert!(!is_pointless(&request().instance_id("i-1").build(), &alive));
        assert!(is_pointless(&request().instance_id("i-2").build(), &alive));
        assert!(is_pointless(&request().state(SpotInstanceState::Open).build(), &alive));
        assert!(!is_pointless(&request().state(SpotInstanceState::Closed).build(), &alive));
    }
}
