//! What an offering costs *us*: a provider lists a price for everybody, this installation has discounts, pays for an
//! address, and may add an overhead of its own.

use bursar_model::{Discount, Offering, Terms, UsdPerHour};

/// Turns what a provider lists into what it comes to here. Of several discounts the first that applies counts; savings
/// are measured against the on-demand price after its own discount. A price that is unknown, or listed as 0, stays
/// unknown.
#[must_use]
pub fn quote(listed: Offering, terms: &Terms, discounts: &[Discount]) -> Offering {
    let Terms { address, overhead, .. } = *terms;
    let known = |price: Option<UsdPerHour>| price.filter(|price| *price > UsdPerHour::ZERO);
    let effective = |offering: &Offering, price: Option<UsdPerHour>| {
        let discount = discounts.iter().find(|discount| discount.is_on(offering));
        known(price).map(|price| less(price, discount) + address + overhead)
    };
    let as_on_demand = Offering { capacity_type: bursar_model::CapacityType::OnDemand, ..listed.clone() };
    let on_demand_price = effective(&as_on_demand, listed.on_demand_price);
    Offering {
        price: effective(&listed, listed.price),
        list_price: known(listed.price).map(|price| price + address),
        on_demand_price,
        terms: std::sync::Arc::new(*terms),
        ..listed
    }
}

/// A price less a discount, rounded to the nearest nano-dollar, half up.
fn less(price: UsdPerHour, discount: Option<&Discount>) -> UsdPerHour {
    const WHOLE: i128 = 1_000_000;
    let Some(discount) = discount else { return price };
    let part = i128::from(price.as_nanos()) * (WHOLE - i128::from(discount.millionths).min(WHOLE));
    UsdPerHour::from_nanos(((part + WHOLE / 2) / WHOLE) as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bursar_model::{CapacityType, InstanceType};

    use super::*;

    fn listed(name: &str, capacity_type: CapacityType, price: &str) -> Offering {
        Offering {
            provider: "aws".into(),
            region: "us-east-1".into(),
            zone: "us-east-1a".into(),
            instance_type: Arc::new(InstanceType {
                name: name.into(),
                accelerators: None,
                cpus_milli: 4000,
                memory_mib: 16384,
                disk_gib: 100,
            }),
            capacity_type,
            price: Some(price.parse().unwrap()),
            list_price: None,
            on_demand_price: Some("3".parse().unwrap()),
            price_since: None,
            quota: None,
            notice: None,
            terms: Arc::default(),
        }
    }

    #[test]
    fn the_first_discount_that_applies_counts_and_extras_come_on_top() {
        let discounts = [
            Discount { instance_type: Some("p4d.*".into()), millionths: 100_000, ..Discount::default() },
            Discount {
                capacity_type: Some(CapacityType::OnDemand),
                millionths: 500_000,
                ..Discount::default()
            },
        ];
        let terms = Terms {
            address: "0.005".parse().unwrap(),
            overhead: "0.01".parse().unwrap(),
            ..Terms::default()
        };
        let spot = quote(listed("p4d.24xlarge", CapacityType::Spot, "1"), &terms, &discounts);
        assert_eq!(spot.price, Some("0.915".parse().unwrap()));
        assert_eq!(spot.list_price, Some("1.005".parse().unwrap()));
        assert_eq!(spot.on_demand_price, Some("2.715".parse().unwrap()));
        let firm = quote(listed("g5.xlarge", CapacityType::OnDemand, "3"), &terms, &discounts);
        assert_eq!(firm.price, Some("1.515".parse().unwrap()));
        assert_eq!(firm.price, firm.on_demand_price);
    }

    #[test]
    fn a_price_of_nothing_stays_unknown() {
        let terms = Terms { address: "0.005".parse().unwrap(), ..Terms::default() };
        let quoted = quote(listed("a", CapacityType::OnDemand, "0"), &terms, &[]);
        assert_eq!((quoted.price, quoted.list_price), (None, None));
    }
}
