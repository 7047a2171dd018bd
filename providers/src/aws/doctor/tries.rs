//! Launches tried dry: as exact as those that would cost money, one for each kind of image and each way to pay, in every
//! region. What EC2 says of them shows permissions, image, disk, profile and network as a launch meets them.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Image;
use bursar_model::{CapacityType, InstanceId, Offering, Region, Span, Timestamp, TypedId};

use super::{
    asked::{self, Identity, Refusal},
    judge::{Judged, refused, see},
    network::Keys,
};
use crate::{
    LaunchRequest,
    aws::{
        AwsSettings, clients::Gate, clients::RegionClient, errors::Meaning, is_arm, launch::run_instances,
    },
};

const IMAGE: &str = "image";
const LAUNCHES: &str = "launches";

/// A lease of some length.
const LEASE: Span = Span::from_secs(600);

/// A launch that was tried, and what came of it.
#[derive(Debug)]
pub(super) struct Tried {
    what: String,
    image: String,
    answer: Result<(), Refusal>,
}

/// What is tried in a region: of each kind of image and capacity the cheapest, where the configuration names subnets in
/// one of their zones.
pub(super) fn to_try<'a>(
    offerings: &'a [Offering],
    settings: &AwsSettings,
    region: &Region,
) -> Vec<&'a Offering> {
    let mut cheapest: BTreeMap<(bool, bool, CapacityType), &Offering> = BTreeMap::new();
    let rank = |offering: &Offering| {
        (!settings.subnets.contains_key(&offering.zone), offering.price, offering.zone.clone())
    };
    for offering in offerings.iter().filter(|offering| offering.region == *region) {
        let kind = &offering.instance_type;
        let key = (kind.accelerators.is_some(), is_arm(kind.name.as_str()), offering.capacity_type);
        let best = cheapest.entry(key).or_insert(offering);
        if rank(offering) < rank(best) {
            *best = offering;
        }
    }
    cheapest.into_values().collect()
}

/// Tries it with a disk of this size.
pub(super) async fn tried(
    at: &RegionClient,
    settings: &AwsSettings,
    offering: &Offering,
    disk_gib: u32,
    daemon_url: &str,
    now: Timestamp,
) -> Tried {
    // As long as real ones, so that the user data is as long.
    let digest = "0".repeat(64);
    let request = LaunchRequest {
        installation: settings.installation.clone(),
        instance: InstanceId::from_u64(1),
        offering: offering.clone(),
        disk_gib,
        lease_until: now + LEASE,
        lease: LEASE,
        agents: [("x86_64".to_owned(), digest.clone()), ("aarch64".to_owned(), digest.clone())].into(),
        daemon_url: daemon_url.to_owned(),
        secret: digest,
        labels: BTreeMap::new(),
    };
    let kind = &offering.instance_type;
    let what = format!("{} as {} in {}", kind.name, offering.capacity_type, offering.zone);
    at.pass(Gate::Run).await;
    let call = run_instances(at, settings, std::slice::from_ref(&request), true).expect("one is asked for");
    let answer = asked::dry(call.dry_run(true).send().await);
    Tried { what, image: settings.image_for(kind), answer }
}

/// What came of them. `has_faulty_network` says that what is wrong with the network was told already.
pub(super) fn judged(
    keys: Keys<'_>,
    region: &Region,
    tried: &[Tried],
    who: &Identity,
    has_faulty_network: bool,
) -> Vec<Judged> {
    let mut judged: Vec<Judged> = Vec::new();
    for Tried { what, image, answer } in tried {
        let Err(refusal) = answer else { continue };
        let Some(one) = of_refusal(keys, region, what, image, refusal, who, has_faulty_network) else {
            continue;
        };
        // All of them meet the same obstacle.
        if !judged.iter().any(|other| other.check == one.check && other.fix == one.fix) {
            judged.push(one);
        }
    }
    if judged.is_empty() && tried.iter().any(|tried| tried.answer.is_ok()) {
        judged.push(Judged::well(LAUNCHES, Some(region), "would be allowed, as spot and on demand"));
    }
    judged
}

fn of_refusal(
    keys: Keys<'_>,
    region: &Region,
    what: &str,
    image: &str,
    refusal: &Refusal,
    who: &Identity,
    has_faulty_network: bool,
) -> Option<Judged> {
    let Refusal { code, message, meaning, .. } = refusal;
    let is_of_network = message.contains("subnet") || message.contains("security group");
    let ill = |check: &str, fix: String| Some(Judged::ill(check, Some(region), refusal.shown(), fix));
    match code.as_str() {
        _ if is_of_network && has_faulty_network => None,
        "MissingInput" | "VPCIdNotSpecified" | "DefaultVpcDoesNotExist" if has_faulty_network => None,
        _ if code.starts_with("InvalidAMIID") => ill(
            IMAGE,
            format!(
                "name one of this region in {keys}.image, or leave the key out for the default; tried: {image}"
            ),
        ),
        "InvalidBlockDeviceMapping" => ill(IMAGE, disk_fix(keys, message)),
        "InvalidParameterValue" if message.contains("iamInstanceProfile") => ill(
            "instance profile",
            format!(
                "see which there are: `aws iam list-instance-profiles`, and name one in {keys}.instance_profile"
            ),
        ),
        // Quotas and what there is to be had are not what a dry run looks at; if it does, the planner goes elsewhere.
        _ if matches!(meaning, Some(Meaning::Capacity(_))) => None,
        "UnauthorizedOperation" => Some(refused("ec2:RunInstances", Some(region), refusal, who)),
        _ => {
            let detail = format!("{what}: {}", refusal.shown());
            Some(Judged::ill(LAUNCHES, Some(region), detail, see(code, "mend what it says")))
        }
    }
}

/// `… expect size >= 75GB`.
fn disk_fix(keys: Keys<'_>, message: &str) -> String {
    let needed = needed_gib(message);
    needed.map_or_else(
        || format!("name the device that the image boots from in {keys}.root_device"),
        |gib| format!("set {keys}.min_disk_size to {gib}GB"),
    )
}

fn needed_gib(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("expect size >=")?;
    rest.trim().trim_end_matches(|letter: char| !letter.is_ascii_digit()).parse().ok()
}

/// Images that are named by a parameter of Systems Manager: whether they boot from the device that the configuration says
/// shows by a disk that is too small for any of them, since EC2 compares it with the image only if it is the root.
pub(super) fn root_judged(region: &Region, root_device: &str, tiny: &[Tried]) -> Vec<Judged> {
    let mut judged = Vec::new();
    for Tried { image, answer, .. } in tiny {
        let size = match answer {
            Err(refusal) => needed_gib(&refusal.message),
            Ok(()) => None,
        };
        let name = image.trim_start_matches("resolve:ssm:");
        judged.push(Judged::well(IMAGE, Some(region), match size {
            Some(gib) => format!("{name} boots from {root_device} and needs {gib} GiB"),
            None => format!(
                "{name} is there; whether it boots from {root_device} EC2 did not say: compare with `aws ec2 \
                 describe-images --image-ids` of what `aws ssm get-parameter --name {name}` says"
            ),
        }));
    }
    judged
}

/// An image that is named by its id.
pub(super) fn image_judged(
    keys: Keys<'_>,
    region: &Region,
    id: &str,
    root_device: &str,
    disk_min_gib: u32,
    found: Option<&Image>,
) -> Vec<Judged> {
    let ill = |detail: String, fix: String| vec![Judged::ill(IMAGE, Some(region), detail, fix)];
    let Some(image) = found else {
        let fix = format!(
            "see which of yours there are: `aws ec2 describe-images --region {region} --owners self`, and name one in \
             {keys}.image"
        );
        return ill(format!("{id} does not exist here, or is not shared with this account"), fix);
    };
    let root = image.root_device_name().unwrap_or_default();
    if root != root_device {
        let fix = format!("set {keys}.root_device to {root}");
        return ill(format!("{id} boots from {root} and not from {root_device}"), fix);
    }
    let devices = image.block_device_mappings().iter();
    let size = devices
        .filter(|device| device.device_name() == Some(root))
        .find_map(|device| device.ebs()?.volume_size())
        .and_then(|gib| u32::try_from(gib).ok())
        .unwrap_or(0);
    if size > disk_min_gib {
        let fix = format!("set {keys}.min_disk_size to {size}GB");
        return ill(format!("{id} needs {size} GiB and gets {disk_min_gib}"), fix);
    }
    vec![Judged::well(IMAGE, Some(region), format!("{id} boots from {root} and needs {size} GiB"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_the_size_of_a_disk_says_which_it_takes() {
        let said = "Volume of size 1GB is smaller than snapshot 'snap-1', expect size >= 75GB";
        assert_eq!(needed_gib(said), Some(75));
        assert_eq!(needed_gib("expect size >= 30GB)"), Some(30));
        assert_eq!(needed_gib("something else"), None);
    }
}
