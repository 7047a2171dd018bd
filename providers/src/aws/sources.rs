//! Where the catalogue comes from: four answers of AWS for each region, each read page by page into plain records.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{
    primitives::DateTime,
    types::{InstanceType as AwsType, InstanceTypeInfo, LocationType, UsageClassType},
};
use aws_sdk_pricing::types::{Filter as PriceFilter, FilterType};
use bursar_model::{InstanceType, Region, Span, Timestamp, TypeName, UsdPerHour, Zone};
use serde::{Deserialize, Serialize};

use super::clients::{Clients, Gate, RegionClient};
use crate::{ProviderError, gpus};

/// More pages than any answer has: a service that repeats itself must not be asked for ever.
const PAGES_MAX: u32 = 500;

/// The largest gp3 volume (<https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html>), in GiB. It was 16 TiB
/// until 2025 and is so still for older types.
const DISK_GIB_MAX: u32 = 16_384;

/// An instance type as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TypeRecord {
    pub(super) instance_type: InstanceType,
    /// Whether it is sold as spot, and on demand.
    pub(super) spot: bool,
    pub(super) on_demand: bool,
}

/// A spot price and since when it is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpotPrice {
    pub(super) price: UsdPerHour,
    pub(super) since: Timestamp,
}

pub(super) type SpotPrices = BTreeMap<(TypeName, Zone), SpotPrice>;

/// The instance types of a region that are wanted and that we can use.
pub(super) async fn instance_types(
    clients: &Clients,
    at: &RegionClient,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<TypeRecord>, ProviderError> {
    let mut found = Vec::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        at.pass(Gate::Look).await;
        let page = at.ec2.describe_instance_types().max_results(100).set_next_token(token).send().await;
        let page = page.map_err(|error| clients.failed("DescribeInstanceTypes", None, error))?;
        let types = page.instance_types.unwrap_or_default();
        found.extend(types.iter().filter(|one| wanted(type_name(one))).filter_map(type_record));
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    Ok(found)
}

/// In which zones of a region each type is sold.
pub(super) async fn zones(
    clients: &Clients,
    at: &RegionClient,
) -> Result<BTreeMap<TypeName, BTreeSet<Zone>>, ProviderError> {
    let mut found: BTreeMap<TypeName, BTreeSet<Zone>> = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        at.pass(Gate::Look).await;
        let asked = at.ec2.describe_instance_type_offerings().location_type(LocationType::AvailabilityZone);
        let page = asked.max_results(1000).set_next_token(token).send().await;
        let page = page.map_err(|error| clients.failed("DescribeInstanceTypeOfferings", None, error))?;
        for offering in page.instance_type_offerings.unwrap_or_default() {
            if let (Some(kind), Some(zone)) = (offering.instance_type, offering.location) {
                found.entry(TypeName::new(kind.as_str())).or_default().insert(Zone::new(&zone));
            }
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    Ok(found)
}

/// The on-demand prices of a region: Linux, shared hardware, nothing preinstalled.
pub(super) async fn on_demand_prices(
    clients: &Clients,
    region: &Region,
) -> Result<BTreeMap<TypeName, UsdPerHour>, ProviderError> {
    let filters: Vec<PriceFilter> = [
        ("regionCode", region.as_str()),
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
        ("marketoption", "OnDemand"),
    ]
    .into_iter()
    .filter_map(|(field, value)| {
        PriceFilter::builder().r#type(FilterType::TermMatch).field(field).value(value).build().ok()
    })
    .collect();
    let mut found = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let asked =
            clients.pricing.get_products().service_code("AmazonEC2").set_filters(Some(filters.clone()));
        let page = asked.format_version("aws_v1").max_results(100).set_next_token(token).send().await;
        let page = page.map_err(|error| clients.failed("pricing GetProducts", None, error))?;
        found.extend(page.price_list.unwrap_or_default().iter().filter_map(|text| product_price(text)));
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    Ok(found)
}

/// The spot prices of these types in a region that were in force at some time since then: the newest of each.
pub(super) async fn spot_prices(
    clients: &Clients,
    at: &RegionClient,
    types: &[TypeName],
    since: Timestamp,
    into: &mut SpotPrices,
) -> Result<(), ProviderError> {
    // Filters take 200 values (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html).
    for types in types.chunks(200) {
        let mut token = None;
        for _ in 0..PAGES_MAX {
            at.pass(Gate::Look).await;
            let asked = at
                .ec2
                .describe_spot_price_history()
                .set_instance_types(Some(types.iter().map(|name| AwsType::from(name.as_str())).collect()))
                .product_descriptions("Linux/UNIX")
                .start_time(DateTime::from_millis(since.as_millis()))
                .max_results(1000)
                .set_next_token(token);
            let page = asked.send().await;
            let page = page.map_err(|error| clients.failed("DescribeSpotPriceHistory", None, error))?;
            for row in page.spot_price_history.unwrap_or_default() {
                let (Some(kind), Some(zone)) = (row.instance_type, row.availability_zone) else { continue };
                let price = row.spot_price.as_deref().and_then(price);
                let since = row.timestamp.map(|at| Timestamp::from_millis(at.secs() * 1000));
                let (Some(price), Some(since)) = (price, since) else { continue };
                let newest = into
                    .entry((TypeName::new(kind.as_str()), Zone::new(&zone)))
                    .or_insert(SpotPrice { price, since });
                if since > newest.since {
                    *newest = SpotPrice { price, since };
                }
            }
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// How far spot prices overlap with those asked for before: clocks differ, and answers are late.
pub(super) const SPOT_OVERLAP: Span = Span::from_secs(600);

fn type_name(info: &InstanceTypeInfo) -> &str {
    info.instance_type.as_ref().map_or("", AwsType::as_str)
}

/// A type that we can use: no FPGA, no accelerator for which the agent's image has no driver, no bare metal, whose boot takes
/// a quarter of an hour.
fn type_record(info: &InstanceTypeInfo) -> Option<TypeRecord> {
    let name = type_name(info);
    let is_other = info.fpga_info.is_some()
        || info.inference_accelerator_info.is_some()
        || info.neuron_info.is_some()
        || info.media_accelerator_info.is_some();
    if is_other || info.bare_metal == Some(true) || name.is_empty() {
        return None;
    }
    let gpus = info.gpu_info.as_ref().and_then(|gpus| gpus.gpus.as_ref()?.first());
    let accelerators = match gpus {
        None => None,
        Some(gpu) if gpu.manufacturer.as_deref() == Some("NVIDIA") => {
            let memory_mib = gpu.memory_info.as_ref().and_then(|memory| memory.size_in_mib).unwrap_or(0);
            let count = u32::try_from(gpu.count.unwrap_or(0)).unwrap_or(0);
            let memory_mib = u64::try_from(memory_mib).unwrap_or(0);
            Some(gpus::accelerators(gpu.name.as_deref()?, count, memory_mib)?)
        }
        Some(_) => return None,
    };
    let cpus = info.v_cpu_info.as_ref().and_then(|cpus| cpus.default_v_cpus)?;
    let memory_mib = info.memory_info.as_ref().and_then(|memory| memory.size_in_mib)?;
    let sold_as = |class: UsageClassType| {
        info.supported_usage_classes.as_ref().is_none_or(|classes| classes.contains(&class))
    };
    Some(TypeRecord {
        instance_type: InstanceType {
            name: TypeName::new(name),
            accelerators,
            cpus_milli: u32::try_from(cpus).ok()?.saturating_mul(1000),
            memory_mib: u64::try_from(memory_mib).ok()?,
            disk_gib: DISK_GIB_MAX,
        },
        spot: sold_as(UsageClassType::Spot),
        on_demand: sold_as(UsageClassType::OnDemand),
    })
}

/// What we read of a product of the price list.
#[derive(Debug, Deserialize)]
struct Product {
    product: Described,
    terms: Terms,
}

#[derive(Debug, Deserialize)]
struct Described {
    attributes: Attributes,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    instance_type: Option<TypeName>,
}

#[derive(Debug, Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand", default)]
    on_demand: BTreeMap<String, Term>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    price_dimensions: BTreeMap<String, Dimension>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dimension {
    unit: String,
    price_per_unit: BTreeMap<String, String>,
}

/// The hourly price that a product of the price list has, if it has one: placeholders cost 0.
fn product_price(text: &str) -> Option<(TypeName, UsdPerHour)> {
    let product: Product = serde_json::from_str(text).ok()?;
    let dimensions = product.terms.on_demand.values().flat_map(|term| term.price_dimensions.values());
    let mut hourly = dimensions.filter(|dimension| dimension.unit == "Hrs");
    let found = hourly.find_map(|dimension| price(dimension.price_per_unit.get("USD")?))?;
    (found > UsdPerHour::ZERO).then_some((product.product.attributes.instance_type?, found))
}

/// AWS writes prices with ten decimals, the last of which is always 0.
fn price(text: &str) -> Option<UsdPerHour> {
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_exactly() {
        assert_eq!(price("0.5260000000"), Some(UsdPerHour::from_nanos(526_000_000)));
        assert_eq!(price("98.3200000000"), Some(UsdPerHour::from_nanos(98_320_000_000)));
        assert_eq!(price("12"), Some(UsdPerHour::from_nanos(12_000_000_000)));
        assert_eq!(price("10.0000000000"), Some(UsdPerHour::from_nanos(10_000_000_000)));
    }

    #[test]
    fn a_product_has_the_hourly_price_of_its_type() {
        let product = |unit: &str, usd: &str| {
            format!(
                r#"{{"product":{{"attributes":{{"instanceType":"g6.xlarge"}}}},"terms":{{"OnDemand":{{"A.B":{{
                "priceDimensions":{{"A.B.C":{{"unit":"{unit}","pricePerUnit":{{"USD":"{usd}"}}}}}}}}}}}}}}"#
            )
        };
        let found = product_price(&product("Hrs", "0.8048000000"));
        assert_eq!(found, Some((TypeName::new("g6.xlarge"), UsdPerHour::from_nanos(804_800_000))));
        assert_eq!(product_price(&product("Quantity", "0.8")), None);
        assert_eq!(product_price(&product("Hrs", "0.0000000000")), None);
        assert_eq!(product_price("{}"), None);
    }
}
