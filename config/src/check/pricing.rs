//! What a provider's list comes to: discounts, and what is billed beside the price and for how long.

use std::collections::BTreeMap;

use bursar_model::{
    BillingEnd, BillingRules, BillingStart, CapacityType, Discount, ProviderName, Region, Span, Terms,
    TypeName, Usd, UsdPerHour,
};

use super::{quantities, words};
use crate::{
    config::Provider,
    problem::{Problem, Report, did_you_mean, shortened},
    raw::{RawBilling, RawDiscount, Written},
};

/// Each offering is held against each discount whenever prices are looked at. No contract has nearly as many.
const DISCOUNTS_MAX: usize = 1000;
/// The coarsest billing there is counts hours; a minimum of more than a day is a slip of the unit.
const BILLED_AT_ONCE_MAX: Span = Span::from_hours(24);
/// Hours in an average month (365 × 24 / 12), with which clouds turn prices for a month into prices for an hour.
const HOURS_PER_MONTH: u64 = 730;

/// The discounts, in the order in which they are tried.
pub(super) fn check_discounts(
    report: &mut Report,
    raw: Vec<RawDiscount>,
    providers: &BTreeMap<ProviderName, Provider>,
) -> Vec<Discount> {
    let path = "pricing.discounts";
    if raw.len() > DISCOUNTS_MAX {
        report.error(Problem::new(path, format!("{} are more than {DISCOUNTS_MAX}", raw.len())));
    }
    let raw = raw.into_iter().take(DISCOUNTS_MAX).enumerate();
    raw.filter_map(|(index, raw)| check_discount(report, &format!("{path}[{index}]"), raw, providers))
        .collect()
}

/// What a provider charges beside its prices, with `default` where nothing is said.
pub(super) fn check_terms(
    report: &mut Report,
    path: &str,
    default: Terms,
    billing: Option<RawBilling>,
    disk_price: Option<&Written>,
    address_price: Option<&Written>,
    overhead: Option<&Written>,
) -> Terms {
    let mut extra = |key: &str, written: Option<&Written>| {
        written.and_then(|amount| words::extra(report, &format!("{path}.{key}"), amount))
    };
    let plain = |amount: Usd| UsdPerHour::from_nanos(amount.as_nanos());
    let (disk, address) = (extra("disk_price", disk_price), extra("address_price", address_price));
    let overhead = extra("overhead", overhead);
    Terms {
        billing: check_billing(
            report,
            &format!("{path}.billing"),
            default.billing,
            billing.unwrap_or_default(),
        ),
        disk_gib: disk.map_or(default.disk_gib, hourly),
        address: address.map_or(default.address, plain),
        overhead: overhead.map_or(default.overhead, plain),
        ..default
    }
}

fn check_discount(
    report: &mut Report,
    path: &str,
    raw: RawDiscount,
    providers: &BTreeMap<ProviderName, Provider>,
) -> Option<Discount> {
    let RawDiscount { provider, region, instance_type, capacity_type, percent } = raw;
    let at = |key: &str| format!("{path}.{key}");
    if let Some(name) = &provider
        && !providers.contains_key(name.as_str())
    {
        let hint = did_you_mean(name, providers.keys().map(ProviderName::as_str));
        let message = format!("there is no provider `{}`, so it has no effect", shortened(name));
        report.warn(Problem::new(at("provider"), message).maybe_hint(hint));
    }
    if let Some(name) = &instance_type
        && name.strip_suffix('*').unwrap_or(name).contains('*')
    {
        let problem = Problem::new(at("instance_type"), "a `*` stands for anything at the end only");
        report.error(problem.hint("write one discount for each beginning, such as `p4d.*`"));
    }
    let capacity_types = [
        ("spot", CapacityType::Spot),
        ("on-demand", CapacityType::OnDemand),
        ("reserved", CapacityType::Reserved),
    ];
    let capacity_type =
        capacity_type.and_then(|text| words::word(report, &at("capacity_type"), &text, &capacity_types));
    let Some(percent) = percent else {
        let problem = Problem::new(at("percent"), "is missing");
        report.error(problem.hint("say how much is taken off, such as `percent: 12.5`"));
        return None;
    };
    Some(Discount {
        millionths: quantities::percent_millionths(report, &at("percent"), &percent)?,
        provider: provider.map(|name| ProviderName::new(&name)),
        region: region.map(|name| Region::new(&name)),
        instance_type: instance_type.map(|name| TypeName::new(&name)),
        capacity_type,
    })
}

fn check_billing(report: &mut Report, path: &str, default: BillingRules, raw: RawBilling) -> BillingRules {
    let RawBilling { granularity, minimum, starts, ends } = raw;
    let (starts_at, ends_at) = (format!("{path}.starts"), format!("{path}.ends"));
    let starting = [("launch", BillingStart::Launch), ("running", BillingStart::Running)];
    let ending = [("stopping", BillingEnd::Stopping), ("gone", BillingEnd::Gone)];
    BillingRules {
        granularity: granularity
            .and_then(|text| {
                let path = format!("{path}.granularity");
                let span = words::some_span(report, &path, &text)?;
                at_most_a_day(report, &path, span)
            })
            .unwrap_or(default.granularity),
        minimum: minimum
            .and_then(|text| {
                let path = format!("{path}.minimum");
                let span = words::span(report, &path, &text)?;
                at_most_a_day(report, &path, span)
            })
            .unwrap_or(default.minimum),
        starts: starts
            .and_then(|text| words::word(report, &starts_at, &text, &starting))
            .unwrap_or(default.starts),
        ends: ends.and_then(|text| words::word(report, &ends_at, &text, &ending)).unwrap_or(default.ends),
    }
}

fn at_most_a_day(report: &mut Report, path: &str, span: Span) -> Option<Span> {
    if span > BILLED_AT_ONCE_MAX {
        report.error(Problem::new(path, format!("{span} is more than {BILLED_AT_ONCE_MAX}")));
        return None;
    }
    Some(span)
}

/// The price of an hour that is a 730th of this, rounded up: what is held must never be short.
pub(super) fn hourly(monthly: Usd) -> UsdPerHour {
    let nanos = u64::try_from(monthly.as_nanos()).expect("prices are not negative").div_ceil(HOURS_PER_MONTH);
    UsdPerHour::from_nanos(i64::try_from(nanos).expect("a part is not more than the whole"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_average_month_costs_the_monthly_price_and_less_than_a_nanodollar_an_hour_more(
            nanos in 0_i64..1_000_000_000_000_000_000
        ) {
            let month = i128::from(hourly(Usd::from_nanos(nanos)).as_nanos()) * 730;
            prop_assert!((0..730).contains(&(month - i128::from(nanos))));
        }
    }
}
