//! Where instances come from, as it was written: the keys of all kinds of provider, each of which says whose it is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OneOrMany, RawBilling, Written};

/// Where instances come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["type"]))]
pub struct RawProvider {
    /// What kind of provider: `aws` rents instances of Amazon EC2, `local` makes instances of processes on this machine.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["aws", "local", null]))]
    pub kind: Option<String>,
    /// For how much time it bills. Default as the provider does: `aws` by the second while it runs, a minute at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<RawBilling>,
    /// What a GiB of disk costs a month, in USD. An hour of it is a 730th, as many hours as an average month has; a
    /// cloud's bill counts the hours of the month at hand, 672 to 744. Default 0; for `aws` 0.08, which is gp3 in
    /// most regions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_price: Option<Written>,
    /// What the public address of an instance costs, in USD an hour. Part of every price. Default 0; for
    /// `aws` 0.005.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_price: Option<Written>,
    /// What this installation adds for every instance, in USD an hour. Budgets are charged with it, the provider does not
    /// bill it. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Written>,
    /// `aws`: the regions in which instances may be, such as `[us-east-1, us-west-2]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<OneOrMany>,
    /// `aws`: the instance types that may be rented, with `*` for any letters. Default all with GPUs of NVIDIA, and the
    /// families `c7i`, `m7i` and `r7i` for what needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_types: Option<OneOrMany>,
    /// `aws`: the image of all instances, as `ami-…` or as the path of a public parameter of Systems Manager, such as
    /// `/aws/service/…/ami-id`. Default the newest Deep Learning image of AWS for what has GPUs, Ubuntu for what has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `aws`: the smallest disk that the image fits on, such as `30GB`. Default `75GB`, which the Deep Learning images need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_disk_size: Option<Written>,
    /// `aws`: the device that the image boots from. Default `/dev/sda1`, as of Ubuntu; Amazon Linux has `/dev/xvda`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_device: Option<String>,
    /// `aws`: the subnet for each zone, such as `{us-east-1a: subnet-0123}`. Default the account's default network.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subnets: BTreeMap<String, String>,
    /// `aws`: the security groups for each region, such as `{us-east-1: sg-0123}`. Default the network's default group.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub security_groups: BTreeMap<String, OneOrMany>,
    /// `aws`: the instance profile, by name or ARN: what experiments may do with the account. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// `aws`: tags for everything that is made, beside those of bursar.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// `aws`: the URL of an SQS queue into which EventBridge puts the warnings of spot interruptions. Default none: the
    /// agents on the instances hear of them, and this is for those whose agent does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruption_queue: Option<String>,
    /// `local`: where the random interruptions start. The same seed interrupts at the same ages. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// `local`: the instance types on offer, by name. Default one that is this machine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, RawLocalType>,
    /// `local`: a script for demonstrations: the first spot instance is interrupted so long after its boot, the second after
    /// the second time, and so on. Later ones follow `interruptions_per_hour`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interruptions: Vec<String>,
}

/// An instance type of a local provider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLocalType {
    /// Its accelerators, such as `A100:8` or `A100:80GB:8`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<String>,
    /// Its virtual CPUs. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Written>,
    /// Its memory in GiB. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Written>,
    /// Its disk in GiB. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<Written>,
    /// The zones that offer it. Default one, `local-a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zones: Option<OneOrMany>,
    /// The on-demand price in USD an hour. Default not sold on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<Written>,
    /// The spot price in USD an hour. Default not sold as spot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<Written>,
    /// How often a spot instance is interrupted in an hour, on average. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruptions_per_hour: Option<f64>,
    /// From the notice of an interruption to the end. Default `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// From launch to ready. Default `0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// How many may exist at once, in all zones together. Default no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<i64>,
}
