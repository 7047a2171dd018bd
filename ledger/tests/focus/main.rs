//! The FOCUS export against the specification: https://focus.finops.org, versions 1.2 and 1.3.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules;
mod sample;

use std::collections::BTreeMap;

use bursar_ledger::focus::{FocusCharge, FocusClass, FocusCosts, FocusError, FocusLine, FocusWriter};
use bursar_model::{Period, Span, Timestamp, Usd, UsdPerHour};
use proptest::prelude::*;
use sample::Sample;

/// A row by column; null is the empty text.
type Row = BTreeMap<String, String>;

/// The rows of charges.
fn rows_of<'a>(charges: impl IntoIterator<Item = &'a Sample>) -> Vec<Row> {
    let mut export = new_export();
    for charge in charges {
        charge.with(|charge| export.write(charge)).unwrap();
    }
    read(export)
}

/// The rows of one charge.
fn rows_of_one(charge: &FocusCharge<'_>) -> Vec<Row> {
    let mut export = new_export();
    export.write(charge).unwrap();
    read(export)
}

fn new_export() -> FocusWriter<Vec<u8>> {
    FocusWriter::new(Vec::new(), sample::account()).unwrap()
}

fn read(export: FocusWriter<Vec<u8>>) -> Vec<Row> {
    let export = export.finish().unwrap();
    csv::Reader::from_reader(&export[..]).deserialize().collect::<Result<_, _>>().unwrap()
}

fn sum(rows: &[Row], column: &str) -> Usd {
    rows.iter().map(|row| row[column].parse::<Usd>().unwrap()).sum()
}

/// A number of at most twelve decimals, in 10^-12.
fn pico(number: &str) -> i128 {
    let (sign, digits) = number.strip_prefix('-').map_or((1, number), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    sign * format!("{whole}{fraction:0<12}").parse::<i128>().unwrap()
}

proptest! {
    #[test]
    fn the_costs_of_all_rows_sum_to_the_costs_of_all_charges(ids in prop::collection::vec(any::<u64>(), 1..40)) {
        let charges: Vec<Sample> = ids.into_iter().map(|id| Sample::new(id >> 16)).collect();
        let rows = rows_of(&charges);
        let cost = |cost: fn(&FocusLine<'_>) -> Usd| -> Usd {
            charges.iter().map(|charge| charge.with(|charge| charge.lines.iter().map(cost).sum())).sum()
        };
        prop_assert_eq!(sum(&rows, "ListCost"), cost(|line| line.costs.list));
        prop_assert_eq!(sum(&rows, "ContractedCost"), cost(|line| line.costs.contracted));
        prop_assert_eq!(sum(&rows, "EffectiveCost"), cost(|line| line.costs.effective));
    }

    #[test]
    fn allocated_rows_sum_to_their_origin(id in 0_u64..1 << 40) {
        let charge = Sample::new(id);
        let rows = rows_of([&charge]);
        for (cost, origin) in [
            ("ListCost", "x_OriginListCost"),
            ("ContractedCost", "x_OriginContractedCost"),
            ("EffectiveCost", "x_OriginEffectiveCost"),
        ] {
            for row in rows.iter().filter(|row| !row["AllocatedMethodId"].is_empty()) {
                prop_assert_eq!(sum(&rows, cost).to_string(), row[origin].clone());
            }
        }
        if rows.iter().any(|row| !row["AllocatedMethodId"].is_empty()) {
            let ms: i128 = charge.with(|charge| charge.lines.iter().map(|line| i128::from(line.instance_ms)).sum());
            let whole = |column: &str| rows.iter().map(|row| pico(&row[column])).sum::<i128>();
            prop_assert_eq!(whole("ConsumedQuantity"), (ms * 1_000_000_000_000 + 1_800_000).div_euclid(3_600_000));
            let ratio: i128 = rows.iter().map(|row| pico(&rules::ratio_of(row))).sum();
            prop_assert_eq!(ratio, pico("1"));
            rules::check_split(&rows);
        }
    }

    #[test]
    fn every_row_keeps_the_rules_of_the_specification(id in 0_u64..1 << 40) {
        for row in rows_of([&Sample::new(id)]) {
            rules::check(&row);
        }
    }

    // What rounding may cost is two nano-dollars: one for the charge, and one for the line within it.
    #[test]
    fn unit_price_times_quantity_gives_the_cost(id in 0_u64..1 << 40) {
        for row in rows_of([&Sample::new(id)]).iter().filter(|row| !row["PricingQuantity"].is_empty()) {
            for (price, cost) in [("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")] {
                let product = pico(&row[price]) * pico(&row["PricingQuantity"]);
                let off = product - pico(&row[cost]) * pico("1");
                prop_assert!(off.abs() <= 2 * 1_000 * pico("1"), "{price} of {row:?} is off by {off}e-24");
            }
        }
    }
}

#[test]
fn one_line_makes_one_row_and_several_make_one_each() {
    for charge in sample::charges(300) {
        let rows = rows_of([&charge]);
        let (lines, class) = charge.with(|charge| (charge.lines.len(), charge.class));
        assert_eq!(rows.len(), lines);
        let split = lines > 1 && class == FocusClass::Usage;
        assert!(rows.iter().all(|row| row["AllocatedMethodId"].is_empty() != split), "{rows:?}");
    }
}

#[test]
fn only_a_correction_of_a_month_that_is_over_is_a_correction_in_focus() {
    let correction = (1..)
        .map(Sample::new)
        .find(|charge| charge.with(|charge| charge.class != FocusClass::Usage))
        .unwrap();
    let made_at = |made_at: &str| {
        correction.with(|charge| {
            let from = "2026-11-30T23:00:00Z".parse().unwrap();
            let class = FocusClass::Correction { made_at: made_at.parse().unwrap() };
            let period = Period::new(from, charge.period.to);
            rows_of_one(&FocusCharge { class, period, ..charge.clone() }).remove(0)
        })
    };
    let within = made_at("2026-11-30T23:59:59Z");
    assert_eq!(within["ChargeClass"], "");
    assert_eq!(within["BillingPeriodStart"], "2026-11-01T00:00:00Z");
    assert_ne!(within["PricingQuantity"], "");
    let after = made_at("2026-12-01T00:00:00Z");
    assert_eq!(after["ChargeClass"], "Correction");
    assert_eq!(after["BillingPeriodStart"], "2026-12-01T00:00:00Z");
    assert_eq!(after["BillingPeriodEnd"], "2027-01-01T00:00:00Z");
    assert_eq!(after["ChargePeriodStart"], "2026-11-30T23:00:00Z");
    assert_eq!(after["PricingQuantity"], "");
}

/// A charge of known numbers: a quarter and three quarters of 50 seconds at 3.6 dollars an hour.
fn quarters<R>(see: impl FnOnce(&FocusCharge<'_>) -> R) -> R {
    let charge = (1..).map(Sample::new).find(|charge| charge.with(|charge| charge.lines.len() == 2)).unwrap();
    charge.with(|charge| {
        let price = UsdPerHour::from_nanos(3_600_000_000);
        let line = |index: usize, instance_ms: i64| {
            let cost = price.cost_with_remainder(Span::from_millis(instance_ms), 0).0;
            let costs = FocusCosts { list: cost, contracted: cost, effective: cost };
            FocusLine { costs, instance_ms, ..charge.lines[index].clone() }
        };
        let lines = [line(0, 12_500), line(1, 37_500)];
        see(&FocusCharge {
            class: FocusClass::Usage,
            list_price: price,
            contracted_price: price,
            lines: &lines,
            ..charge.clone()
        })
    })
}

#[test]
fn a_row_says_what_it_is_a_part_of_and_why() {
    let rows = quarters(rows_of_one);
    assert_eq!(rows[0]["EffectiveCost"], "0.0125");
    assert_eq!(rows[1]["EffectiveCost"], "0.0375");
    assert_eq!(rows[1]["x_OriginEffectiveCost"], "0.05");
    assert_eq!(rows[1]["PricingQuantity"], "0.010416666667");
    let why = r#"{"Elements":[{"AllocatedRatio":0.75,"UsageUnit":"Hours","UsageQuantity":0.010416666667}]}"#;
    assert_eq!(rows[1]["AllocatedMethodDetails"], why);
}

#[test]
fn tags_that_all_lines_share_are_the_origins_and_the_others_the_lines_own() {
    let labels = |seed: &str| {
        BTreeMap::from([("team".to_owned(), "vision".to_owned()), ("seed".to_owned(), seed.to_owned())])
    };
    let (one, two) = (labels("1"), labels("2"));
    let rows = quarters(|charge| {
        let line =
            |index: usize, project, labels| FocusLine { project, labels, ..charge.lines[index].clone() };
        let lines = [line(0, "vision", &one), line(1, "speech", &two)];
        rows_of_one(&FocusCharge { lines: &lines, ..charge.clone() })
    });
    let tags = |row: usize, column: &str| -> Row { serde_json::from_str(&rows[row][column]).unwrap() };
    assert_eq!(tags(0, "Tags")["team"], "vision");
    assert_eq!(tags(0, "AllocatedTags")["seed"], "1");
    assert_eq!(tags(1, "AllocatedTags")["seed"], "2");
    assert_eq!(tags(1, "AllocatedTags")["bursar/project"], "speech");
    assert_eq!(rows[1]["SubAccountId"], "", "the instance is of no single project");
}

#[test]
fn a_label_cannot_pass_for_a_tag_of_ours() {
    let labels = BTreeMap::from([("bursar/project".to_owned(), "other".to_owned())]);
    let rows = quarters(|charge| {
        let line = FocusLine { labels: &labels, ..charge.lines[0].clone() };
        rows_of_one(&FocusCharge { lines: &[line], ..charge.clone() })
    });
    assert_eq!(rows[0]["Tags"].matches("bursar/project").count(), 1);
    rules::check(&rows[0]);
}

#[test]
fn a_minimum_that_is_billed_for_no_time_is_split_like_its_cost() {
    let rows = quarters(|charge| {
        let mut lines = charge.lines.to_vec();
        lines.iter_mut().for_each(|line| line.instance_ms = 0);
        rows_of_one(&FocusCharge { lines: &lines, ..charge.clone() })
    });
    assert_eq!(rows[1]["AllocatedMethodDetails"], r#"{"Elements":[{"AllocatedRatio":0.75}]}"#);
    assert_eq!(rows[1]["ConsumedQuantity"], "0");
    assert_eq!(rows[1]["PricingQuantity"], "0.010416666667", "the hours that are billed");
}

#[test]
fn a_charge_that_nobody_pays_is_refused() {
    let refused = quarters(|charge| new_export().write(&FocusCharge { lines: &[], ..charge.clone() }));
    assert!(matches!(refused, Err(FocusError::NoLines(_))));
}

#[test]
fn a_moment_that_no_calendar_has_is_refused() {
    let refused = quarters(|charge| {
        let period = Period::new(charge.period.from, Timestamp::from_millis(i64::MAX));
        new_export().write(&FocusCharge { period, ..charge.clone() })
    });
    assert!(matches!(refused, Err(FocusError::NoSuchDate { .. })));
}
