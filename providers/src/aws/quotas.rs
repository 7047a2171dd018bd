//! Which quota of the account an instance counts in, and how large it is.
//!
//! EC2 counts virtual CPUs of what runs, on demand and as spot each by itself, by families of types
//! (<https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html>). A new account may run nothing with a
//! GPU at first: who launches without looking learns of it from a refusal, once for each type.

use std::collections::BTreeMap;

use bursar_model::CapacityType;

use super::clients::{Clients, RegionClient};
use crate::ProviderError;

/// A quota as AWS names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownQuota {
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    /// The beginnings of the names of the types that count in it: letters, with the number of the generation where only
    /// some do.
    families: &'static [&'static str],
    is_spot: bool,
}

const fn on_demand(code: &'static str, title: &'static str, families: &'static [&'static str]) -> KnownQuota {
    KnownQuota { code, title, families, is_spot: false }
}

const fn spot(code: &'static str, title: &'static str, families: &'static [&'static str]) -> KnownQuota {
    KnownQuota { code, title, families, is_spot: true }
}

/// What the common families have in common: a letter for what they are good at.
const STANDARD: &[&str] = &["a", "c", "d", "h", "i", "m", "r", "t", "z", "im", "is"];

/// The quotas of those types that can be rented here. AWS's table has none for P6 as spot.
const QUOTAS: &[KnownQuota] = &[
    on_demand("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", STANDARD),
    on_demand("L-DB2E81BA", "Running On-Demand G and VT instances", &["g", "gr", "vt"]),
    on_demand("L-417A185B", "Running On-Demand P instances", &["p"]),
    on_demand("L-7295265B", "Running On-Demand X instances", &["x"]),
    on_demand("L-43DA4232", "Running On-Demand High Memory instances", &["u"]),
    on_demand("L-F7808C92", "Running On-Demand HPC instances", &["hpc"]),
    spot("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", STANDARD),
    spot("L-3819A6DF", "All G and VT Spot Instance Requests", &["g", "gr", "vt"]),
    spot("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", &["p2", "p3", "p4"]),
    spot("L-C4BD4855", "All P5 Spot Instance Requests", &["p5"]),
    spot("L-E3A00192", "All X Spot Instance Requests", &["x"]),
];

/// More pages than there are quotas.
const PAGES_MAX: u32 = 50;

/// The quota that a type counts in.
pub(super) fn quota_of(instance_type: &str, capacity_type: CapacityType) -> Option<KnownQuota> {
    let is_spot = capacity_type == CapacityType::Spot;
    let family = instance_type.split('.').next().unwrap_or_default();
    let letters = family.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let name: String = family.chars().take_while(char::is_ascii_alphabetic).collect();
    let generation: String = letters.chars().skip(name.len()).take_while(char::is_ascii_digit).collect();
    let with_generation = format!("{name}{generation}");
    let counts = |quota: &&KnownQuota| {
        quota.is_spot == is_spot
            && quota.families.iter().any(|known| *known == name || *known == with_generation)
    };
    QUOTAS.iter().find(counts).copied()
}

/// How large the quotas are, by their codes: as applied to the account, else as AWS gives them to everybody.
pub(super) async fn limits(
    clients: &Clients,
    at: &RegionClient,
) -> Result<BTreeMap<String, u32>, ProviderError> {
    let mut found = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let asked = at.quotas.list_service_quotas().service_code("ec2").max_results(100);
        let page = asked.set_next_token(token).send().await;
        let page = page.map_err(|error| clients.failed("servicequotas ListServiceQuotas", None, error))?;
        note(&mut found, page.quotas.unwrap_or_default());
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    if QUOTAS.iter().all(|quota| found.contains_key(quota.code)) {
        return Ok(found);
    }
    let mut defaults = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let asked = at.quotas.list_aws_default_service_quotas().service_code("ec2").max_results(100);
        let page = asked.set_next_token(token).send().await;
        let page =
            page.map_err(|error| clients.failed("servicequotas ListAWSDefaultServiceQuotas", None, error))?;
        note(&mut defaults, page.quotas.unwrap_or_default());
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    defaults.extend(found);
    Ok(defaults)
}

fn note(found: &mut BTreeMap<String, u32>, quotas: Vec<aws_sdk_servicequotas::types::ServiceQuota>) {
    for quota in quotas {
        let is_ours = |code: &str| QUOTAS.iter().any(|known| known.code == code);
        if let (Some(code), Some(value)) = (quota.quota_code, quota.value)
            && is_ours(&code)
        {
            // Whole virtual CPUs, however they are written.
            found.insert(code, value.clamp(0.0, f64::from(u32::MAX)) as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_counts_in_the_quota_of_its_family() {
        let code = |name: &str, capacity_type| quota_of(name, capacity_type).map(|quota| quota.code);
        for (name, on_demand, spot) in [
            ("g6.xlarge", Some("L-DB2E81BA"), Some("L-3819A6DF")),
            ("gr6.4xlarge", Some("L-DB2E81BA"), Some("L-3819A6DF")),
            ("g6e.12xlarge", Some("L-DB2E81BA"), Some("L-3819A6DF")),
            ("p4de.24xlarge", Some("L-417A185B"), Some("L-7212CCBC")),
            ("p5en.48xlarge", Some("L-417A185B"), Some("L-C4BD4855")),
            ("p6-b200.48xlarge", Some("L-417A185B"), None),
            ("m7i.large", Some("L-1216C47A"), Some("L-34B43A08")),
            ("c7g.large", Some("L-1216C47A"), Some("L-34B43A08")),
            ("mac2.metal", None, None),
        ] {
            assert_eq!(code(name, CapacityType::OnDemand), on_demand, "{name}");
            assert_eq!(code(name, CapacityType::Spot), spot, "{name}");
        }
    }
}
