//! The rules of FOCUS that can be seen in a row: the table of columns in `columns.csv` (column, whether it may be null,
//! format, allowed values; drawn from the column definitions of FOCUS 1.2 and, for `Allocated…`, 1.3), and the
//! conditions under which a column MUST or MUST NOT be null, by the sentence that says so.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Row, pico};

/// Panics where a row breaks a rule.
pub(crate) fn check(row: &Row) {
    let mut rules = csv::Reader::from_reader(&include_bytes!("columns.csv")[..]);
    let mut columns = Vec::new();
    for rule in rules.records() {
        let rule = rule.unwrap();
        let (column, nullable, format, allowed) = (&rule[0], &rule[1], &rule[2], &rule[3]);
        let value = row.get(column).unwrap_or_else(|| panic!("{column} is missing"));
        columns.push(column.to_owned());
        if value.is_empty() {
            assert_eq!(nullable, "yes", "{column} is null in {row:?}");
            continue;
        }
        assert!(has_format(value, format), "{column} is `{value}`, which is no {format}");
        let mut values = allowed.split(';');
        assert!(allowed.is_empty() || values.any(|allowed| allowed == value), "{column} is `{value}`");
    }
    for column in row.keys().filter(|column| !columns.contains(column)) {
        assert!(column.starts_with("x_"), "FOCUS has no column {column}, and ours begin with x_");
    }
    check_nulls(row);
    check_tags(row);
}

/// Panics where the rows of one split charge break "Data Generator-Calculated Split Cost Allocation Handling" of FOCUS
/// 1.3, sums apart.
pub(crate) fn check_split(rows: &[Row]) {
    let summed = [
        "BilledCost",
        "EffectiveCost",
        "ListCost",
        "ContractedCost",
        "PricingCurrencyEffectiveCost",
        "PricingQuantity",
        "ConsumedQuantity",
    ];
    for (column, value) in &rows[0] {
        let of_the_line =
            column.starts_with("Allocated") || column.starts_with("x_") || summed.contains(&column.as_str());
        if !of_the_line {
            // "FOCUS column values in allocated charges MUST match the corresponding value in the origin charge".
            assert!(
                rows.iter().all(|row| &row[column] == value),
                "{column} differs between the rows of a charge"
            );
        }
    }
    for column in ["x_ChargeId", "x_OriginListCost", "x_OriginContractedCost", "x_OriginEffectiveCost"] {
        assert!(
            rows.iter().all(|row| row[column] == rows[0][column]),
            "{column} differs between the rows of a charge"
        );
    }
}

/// The ratio in `AllocatedMethodDetails`, as it is written.
pub(crate) fn ratio_of(row: &Row) -> String {
    let details = &row["AllocatedMethodDetails"];
    let (_, ratio) = details.split_once("\"AllocatedRatio\":").expect("every element has a ratio");
    ratio.split([',', '}']).next().unwrap().to_owned()
}

fn has_format(value: &str, format: &str) -> bool {
    match format {
        "String" => value.trim() == value,
        "Decimal" => is_decimal(value),
        "Date/Time" => {
            value.len() == 20 && value.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(value).is_ok()
        }
        "Currency" => value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_uppercase()),
        "Unit" => value == "Hours",
        "JSON" => serde_json::from_str::<BTreeMap<String, Value>>(value)
            .is_ok_and(|object| object.values().all(|value| !value.is_object() && !value.is_array())),
        "JSON Object" => serde_json::from_str::<BTreeMap<String, Value>>(value).is_ok(),
        _ => panic!("columns.csv has a format {format} that is not checked"),
    }
}

fn is_decimal(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn check_nulls(row: &Row) {
    let null = |column: &str| row[column].is_empty();
    // "… MUST NOT be null when ChargeCategory is "Usage" … and ChargeClass is not "Correction"".
    if null("ChargeClass") {
        for column in [
            "ConsumedQuantity",
            "ContractedUnitPrice",
            "ListUnitPrice",
            "PricingCategory",
            "PricingQuantity",
            "SkuId",
            "SkuPriceId",
            "PricingCurrencyListUnitPrice",
            "PricingCurrencyContractedUnitPrice",
        ] {
            assert!(!null(column), "{column} is null in a row that is no correction");
        }
    }
    // "… MUST be null when … is null" and "… MUST NOT be null when … is not null".
    for (column, other) in [
        ("ConsumedUnit", "ConsumedQuantity"),
        ("PricingUnit", "PricingQuantity"),
        ("SubAccountName", "SubAccountId"),
        ("SubAccountType", "SubAccountId"),
        ("RegionName", "RegionId"),
        ("ResourceType", "ResourceId"),
        ("CapacityReservationStatus", "CapacityReservationId"),
        ("CommitmentDiscountCategory", "CommitmentDiscountId"),
        ("CommitmentDiscountType", "CommitmentDiscountId"),
        ("CommitmentDiscountStatus", "CommitmentDiscountId"),
        ("CommitmentDiscountUnit", "CommitmentDiscountQuantity"),
        // "MUST be null when a charge is not related to a data generator-calculated split cost allocation", and not
        // otherwise.
        ("AllocatedMethodDetails", "AllocatedMethodId"),
        ("AllocatedResourceId", "AllocatedMethodId"),
        ("AllocatedResourceName", "AllocatedResourceId"),
    ] {
        assert_eq!(null(column), null(other), "{column} goes with {other}");
    }
    assert!(null("AllocatedTags") || !null("AllocatedMethodId"), "AllocatedTags are of allocated charges");
    assert!(
        null("ResourceName") || row["ResourceName"] != row["ResourceId"],
        "a name MUST NOT duplicate the id"
    );
    for column in ["ListUnitPrice", "ContractedUnitPrice"] {
        assert!(null(column) || pico(&row[column]) >= 0, "{column} MUST be non-negative");
    }
    assert!(row["ChargePeriodStart"] <= row["ChargePeriodEnd"]);
    assert!(row["BillingPeriodStart"] < row["BillingPeriodEnd"]);
    assert!(!null("AllocatedMethodId") || null("x_OriginListCost"), "only a part has an origin");
}

fn check_tags(row: &Row) {
    let tags = |column: &str| -> BTreeMap<String, Value> {
        if row[column].is_empty() { BTreeMap::new() } else { serde_json::from_str(&row[column]).unwrap() }
    };
    let (shared, own) = (tags("Tags"), tags("AllocatedTags"));
    // "AllocatedTags MUST NOT include resource tags already present in Tags".
    assert!(own.keys().all(|key| !shared.contains_key(key)), "{own:?} repeats {shared:?}");
    for (tag, column) in [
        ("bursar/experiment", "x_ExperimentId"),
        ("bursar/category", "x_Category"),
        ("bursar/project", "x_Project"),
        ("bursar/user", "x_User"),
    ] {
        let value = shared.get(tag).or_else(|| own.get(tag)).and_then(Value::as_str);
        assert_eq!(value, Some(row[column].as_str()), "{tag} and {column} say the same");
    }
}
