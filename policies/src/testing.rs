//! Small fleets and markets for the tests of this crate.

use std::sync::Arc;

use bursar_model::{Accelerators, CapacityType, InstanceType, Offering, UsdPerHour};

/// A machine type with 8 CPUs and 32 GiB for each of its accelerators.
pub(crate) fn gpu(name: &str, accelerator: &str, count: u32) -> Arc<InstanceType> {
    Arc::new(InstanceType {
        name: name.into(),
        accelerators: Some(Accelerators { name: accelerator.into(), count, memory_gib: Some(16) }),
        cpus_milli: 8_000 * count,
        memory_mib: 32_768 * u64::from(count),
        disk_gib: 1_000,
    })
}

/// On-demand in the only zone, at so many dollars an hour.
pub(crate) fn offering(kind: &Arc<InstanceType>, dollars: f64) -> Offering {
    let price = UsdPerHour::from_nanos((dollars * 1e9).round() as i64);
    Offering {
        provider: "cloud".into(),
        region: "r1".into(),
        zone: "r1a".into(),
        instance_type: kind.clone(),
        capacity_type: CapacityType::OnDemand,
        price: Some(price),
        on_demand_price: Some(price),
    }
}

/// Spot in the only zone, with the on-demand price beside it.
pub(crate) fn spot(kind: &Arc<InstanceType>, dollars: f64, on_demand: f64) -> Offering {
    let on_demand_price = offering(kind, on_demand).price;
    Offering { capacity_type: CapacityType::Spot, on_demand_price, ..offering(kind, dollars) }
}
