//! A provider that rents instances of Amazon EC2.

use std::collections::BTreeMap;

use bursar_model::{BillingRules, Region, Terms, UsdPerHour, Zone};

use super::{
    pricing::{check_terms, hourly},
    quantities,
};
use crate::{
    config::{AwsProvider, Provider, ProviderKind},
    problem::{Problem, Report, shortened},
    raw::{OneOrMany, RawProvider},
};

/// What may be rented where nobody says: all GPUs of NVIDIA, and the newest common families of Intel for what needs none,
/// without those sizes that differ in nothing but a name.
const TYPES_DEFAULT: &[&str] = &["p*", "g*", "c7i.*", "m7i.*", "r7i.*"];

/// gp3 in most regions, in USD for a GiB and month (<https://aws.amazon.com/ebs/pricing/>).
const DISK_PRICE_MONTHLY: &str = "0.08";

/// The Deep Learning images of AWS are that large (<https://docs.aws.amazon.com/dlami/latest/devguide/>).
const DISK_MIN_GIB: u32 = 75;

/// A public IPv4 address (<https://aws.amazon.com/vpc/pricing/>).
const ADDRESS_PRICE: UsdPerHour = UsdPerHour::from_nanos(5_000_000);

/// As many tags as a resource takes, less those that bursar adds
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html>).
const TAGS_MAX: usize = 40;

pub(super) fn check_aws(report: &mut Report, path: &str, raw: RawProvider) -> Provider {
    let at = |key: &str| format!("{path}.{key}");
    let default = Terms {
        billing: BillingRules::PER_SECOND,
        disk_gib: hourly(DISK_PRICE_MONTHLY.parse().expect("it is an amount")),
        address: ADDRESS_PRICE,
        overhead: UsdPerHour::ZERO,
        disk_min_gib: raw
            .min_disk_size
            .as_ref()
            .and_then(|size| quantities::disk_gib(report, &at("min_disk_size"), size))
            .unwrap_or(DISK_MIN_GIB),
    };
    let (disk, address) = (raw.disk_price.as_ref(), raw.address_price.as_ref());
    let terms = check_terms(report, path, default, raw.billing, disk, address, raw.overhead.as_ref());
    let regions = check_regions(report, &at("regions"), raw.regions);
    let is_among = |region: &str| regions.iter().any(|known| known.as_str() == region);
    for (key, zones) in [("subnets", raw.subnets.keys())] {
        for zone in zones.filter(|zone| !is_among(region_of(zone))) {
            let message = format!("is in none of the regions of {}", at("regions"));
            report.warn(Problem::new(format!("{}.{zone}", at(key)), message));
        }
    }
    for region in raw.security_groups.keys().filter(|region| !is_among(region)) {
        let message = format!("is none of the regions of {}", at("regions"));
        report.warn(Problem::new(format!("{}.{region}", at("security_groups")), message));
    }
    check_tags(report, &at("tags"), &raw.tags);
    let types = raw.instance_types.map_or_else(
        || TYPES_DEFAULT.iter().map(|name| (*name).to_owned()).collect(),
        |OneOrMany(types)| types,
    );
    for name in &types {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'*');
        if name.is_empty() || name.len() > 40 || !name.bytes().all(allowed) {
            let message = format!("`{}` is no instance type", shortened(name));
            let problem = Problem::new(at("instance_types"), message);
            report.error(problem.hint("write it as AWS does, such as `g6.xlarge`, or `g6.*` for all sizes"));
        }
    }
    if let Some(url) = raw.interruption_queue.as_deref().filter(|url| !url.starts_with("http")) {
        let message = format!("`{}` is no URL of a queue", shortened(url));
        let hint =
            "write it as `aws sqs get-queue-url` says it: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME";
        report.error(Problem::new(at("interruption_queue"), message).hint(hint));
    }
    let kind = ProviderKind::Aws(AwsProvider {
        image: raw.image.and_then(|image| check_image(report, &at("image"), &image, regions.len())),
        root_device: raw.root_device.unwrap_or_else(|| "/dev/sda1".to_owned()),
        subnets: raw.subnets.into_iter().map(|(zone, subnet)| (Zone::new(&zone), subnet)).collect(),
        security_groups: raw
            .security_groups
            .into_iter()
            .map(|(region, OneOrMany(groups))| (Region::new(&region), groups))
            .collect(),
        instance_profile: raw.instance_profile,
        instance_types: types,
        tags: raw.tags,
        interruption_queue: raw.interruption_queue,
        regions,
    });
    Provider { terms, kind }
}

fn check_regions(report: &mut Report, path: &str, raw: Option<OneOrMany>) -> Vec<Region> {
    let OneOrMany(mut names) = raw.unwrap_or_else(|| OneOrMany(Vec::new()));
    if names.is_empty() {
        let problem = Problem::new(path, "is missing: nothing is rented where nobody said so");
        report.error(
            problem.hint("name those where your quotas are, such as `regions: [us-east-1, us-west-2]`"),
        );
    }
    for name in &names {
        // Such as us-east-1, us-gov-west-1.
        let parts: Vec<&str> = name.split('-').collect();
        let is_region = parts.len() >= 3
            && parts.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) && !last.is_empty())
            && parts[..parts.len() - 1].iter().all(|part| part.bytes().all(|b| b.is_ascii_lowercase()));
        if !is_region {
            let problem = Problem::new(path, format!("`{}` is no region", shortened(name)));
            report
                .error(problem.hint("write the code of one, such as `us-east-1`; zones are chosen by price"));
        }
    }
    names.sort();
    names.dedup();
    names.iter().map(|name| Region::new(name)).collect()
}

/// As EC2 takes it.
fn check_image(report: &mut Report, path: &str, image: &str, regions: usize) -> Option<String> {
    if image.starts_with('/') {
        return Some(format!("resolve:ssm:{image}"));
    }
    if !image.starts_with("ami-") {
        let problem = Problem::new(path, format!("`{}` is no image of EC2", shortened(image)));
        report.error(problem.hint("write `ami-…`, or the path of a parameter that holds one"));
        return None;
    }
    if regions > 1 {
        let problem = Problem::new(path, "an image is of one region, and there are several");
        report.error(
            problem.hint("put the image's id into a parameter of the same name in each, and name that"),
        );
    }
    Some(image.to_owned())
}

fn check_tags(report: &mut Report, path: &str, tags: &BTreeMap<String, String>) {
    if tags.len() > TAGS_MAX {
        report.error(Problem::new(path, format!("{} are more than {TAGS_MAX}", tags.len())));
    }
    for (key, value) in tags {
        let message = if key.starts_with("aws:") || key.starts_with("bursar:") {
            "begins as the tags of AWS and bursar do"
        } else if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            "is no tag: a key has 1 to 128 letters, a value at most 256"
        } else {
            continue;
        };
        report.error(Problem::new(format!("{path}.{key}"), message));
    }
}

/// The region of a zone: `us-east-1` of `us-east-1a`, and of a local zone such as `us-west-2-lax-1a`.
fn region_of(zone: &str) -> &str {
    let digit = zone.find(|letter: char| letter.is_ascii_digit());
    digit.map_or(zone, |at| &zone[..=at])
}
