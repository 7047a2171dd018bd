//! Google Cloud's billing export, taken out of BigQuery as JSON lines or CSV.
//!
//! Columns: <https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage> and, with
//! `resource` and `cost_at_list`, <https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/detailed-usage>.
//! BigQuery exports nested columns as JSON only (<https://cloud.google.com/bigquery/docs/exporting-data>); a CSV is
//! the result of a query that selects `resource.name AS resource_name` and `TO_JSON_STRING(labels) AS labels`.
//!
//! Rows are best selected by usage time. By invoice month the export has the late usage of the month before as well, and
//! an instance of that last day would seem to be in it wholly.
//!
//! What a committed use discount covers is billed at nothing by its credit, and the fee of the commitment is in rows of
//! its own: the export does not say what the usage cost in effect, so `effective` is what is billed.

use std::borrow::Cow;

use bursar_model::{Span, Usd};
use csv::StringRecord;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    BilledCost, OurTags,
    fields::{Column, Kind, Row, RowError, amount, check_currency, hours, needed_amount, period},
};

/// Without these it is no billing export of GCP.
pub(super) const NEEDED: [&str; 4] = ["cost", "currency", "usage_start_time", "usage_end_time"];

/// Where the columns of a CSV are.
pub(super) struct Gcp {
    cost: Column,
    cost_at_list: Column,
    currency: Column,
    cost_type: Column,
    from: Column,
    to: Column,
    resource_name: Column,
    resource_global_name: Column,
    project: Column,
    region: Column,
    quantity: Column,
    unit: Column,
    labels: Column,
    credits: Column,
}

/// The fields of a row, from either format, as text.
struct Fields<'a> {
    cost: &'a str,
    cost_at_list: &'a str,
    currency: &'a str,
    cost_type: &'a str,
    from: &'a str,
    to: &'a str,
    resource_name: &'a str,
    resource_global_name: &'a str,
    project: &'a str,
    region: &'a str,
    quantity: &'a str,
    unit: &'a str,
    labels: &'a str,
    credits: &'a str,
}

/// A line of JSON. Numbers stay text: as floats they would be rounded before we round them.
#[derive(Deserialize)]
pub(super) struct JsonRow<'a> {
    #[serde(borrow)]
    cost: &'a RawValue,
    #[serde(borrow)]
    currency: Cow<'a, str>,
    #[serde(borrow)]
    usage_start_time: Cow<'a, str>,
    #[serde(borrow)]
    usage_end_time: Cow<'a, str>,
    #[serde(default)]
    cost_type: Option<String>,
    #[serde(borrow, default)]
    cost_at_list: Option<&'a RawValue>,
    #[serde(default)]
    resource: Option<Resource>,
    #[serde(default)]
    project: Option<Project>,
    #[serde(default)]
    location: Option<Location>,
    #[serde(borrow, default)]
    usage: Option<Usage<'a>>,
    #[serde(borrow, default)]
    labels: Option<&'a RawValue>,
    #[serde(borrow, default)]
    credits: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    global_name: Option<String>,
}

#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    id: Option<String>,
}

#[derive(Deserialize)]
struct Location {
    #[serde(default)]
    region: Option<String>,
}

#[derive(Deserialize)]
struct Usage<'a> {
    #[serde(borrow, default)]
    amount_in_pricing_units: Option<&'a RawValue>,
    #[serde(default)]
    pricing_unit: Option<String>,
}

#[derive(Deserialize)]
struct Credit<'a> {
    #[serde(borrow)]
    amount: &'a RawValue,
}

impl Gcp {
    pub(super) fn new(header: &[String]) -> Self {
        let find = |name| Column::find(header, name);
        Self {
            cost: find("cost"),
            cost_at_list: find("cost_at_list"),
            currency: find("currency"),
            cost_type: find("cost_type"),
            from: find("usage_start_time"),
            to: find("usage_end_time"),
            resource_name: find("resource_name"),
            resource_global_name: find("resource_global_name"),
            project: find("project_id"),
            region: find("location_region"),
            quantity: find("usage_amount_in_pricing_units"),
            unit: find("usage_pricing_unit"),
            labels: find("labels"),
            credits: find("credits"),
        }
    }

    pub(super) fn row<'a>(&self, record: &'a StringRecord) -> Result<Row<'a>, RowError> {
        row(&Fields {
            cost: self.cost.of(record),
            cost_at_list: self.cost_at_list.of(record),
            currency: self.currency.of(record),
            cost_type: self.cost_type.of(record),
            from: self.from.of(record),
            to: self.to.of(record),
            resource_name: self.resource_name.of(record),
            resource_global_name: self.resource_global_name.of(record),
            project: self.project.of(record),
            region: self.region.of(record),
            quantity: self.quantity.of(record),
            unit: self.unit.of(record),
            labels: self.labels.of(record),
            credits: self.credits.of(record),
        })
    }
}

impl JsonRow<'_> {
    pub(super) fn row(&self) -> Result<Row<'_>, RowError> {
        fn text(value: Option<&RawValue>) -> &str {
            value.map_or("", |value| unquoted(value.get()))
        }
        let resource = self.resource.as_ref();
        let usage = self.usage.as_ref();
        row(&Fields {
            cost: unquoted(self.cost.get()),
            cost_at_list: text(self.cost_at_list),
            currency: &self.currency,
            cost_type: self.cost_type.as_deref().unwrap_or(""),
            from: &self.usage_start_time,
            to: &self.usage_end_time,
            resource_name: resource.and_then(|resource| resource.name.as_deref()).unwrap_or(""),
            resource_global_name: resource.and_then(|resource| resource.global_name.as_deref()).unwrap_or(""),
            project: self.project.as_ref().and_then(|project| project.id.as_deref()).unwrap_or(""),
            region: self.location.as_ref().and_then(|location| location.region.as_deref()).unwrap_or(""),
            quantity: text(usage.and_then(|usage| usage.amount_in_pricing_units)),
            unit: usage.and_then(|usage| usage.pricing_unit.as_deref()).unwrap_or(""),
            labels: self.labels.map_or("", RawValue::get),
            credits: self.credits.map_or("", RawValue::get),
        })
    }
}

fn row<'a>(fields: &Fields<'a>) -> Result<Row<'a>, RowError> {
    check_currency("currency", fields.currency)?;
    let cost = needed_amount("cost", fields.cost)?;
    let billed = cost.saturating_add(credits(fields.credits)?);
    let kind = match fields.cost_type {
        // Exports from before there was a `cost_type` have usage only.
        "regular" | "" => Kind::Usage,
        "tax" => Kind::Tax,
        _ => Kind::Other,
    };
    let unit_hours = match fields.unit {
        "hour" => hours("usage.amount_in_pricing_units", fields.quantity)?,
        _ => Span::ZERO,
    };
    // The global name is the one that no other resource ever has; the standard export has neither.
    let resource =
        [fields.resource_global_name, fields.resource_name].into_iter().find(|name| !name.is_empty());
    Ok(Row {
        resource: resource.unwrap_or(""),
        name: fields.resource_name,
        account: fields.project,
        region: fields.region,
        tags: OurTags::from_json(fields.labels).map_err(RowError::Bad)?,
        kind,
        period: period(("usage_start_time", fields.from), ("usage_end_time", fields.to))?,
        cost: BilledCost {
            billed,
            effective: billed,
            list: amount("cost_at_list", fields.cost_at_list)?.unwrap_or_default(),
        },
        unit_hours,
    })
}

/// The sum of the credits: discounts, promotions, free tiers. They are negative.
fn credits(text: &str) -> Result<Usd, RowError> {
    if matches!(text, "" | "[]" | "null") {
        return Ok(Usd::ZERO);
    }
    let credits: Vec<Credit<'_>> = serde_json::from_str(text)
        .map_err(|error| RowError::Bad(format!("credits are not a JSON array of amounts: {error}")))?;
    credits.iter().try_fold(Usd::ZERO, |sum, credit| {
        Ok(sum.saturating_add(needed_amount("credits.amount", unquoted(credit.amount.get()))?))
    })
}

/// BigQuery writes some types of number as JSON strings.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}
