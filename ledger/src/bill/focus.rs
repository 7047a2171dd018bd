//! Bills in FOCUS columns: any cloud's, AWS's by name.
//!
//! Columns: <https://focus.finops.org/focus-specification/>; with those of AWS:
//! <https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-0-aws-columns.html> and
//! <https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-2-aws-columns.html>.

use bursar_model::Span;
use csv::StringRecord;

use super::{
    BilledCost, OurTags,
    fields::{Column, Kind, Row, RowError, amount, check_currency, hours, needed_amount, period},
};

/// Without these it is no bill in FOCUS.
pub(super) const NEEDED: [&str; 5] =
    ["BilledCost", "BillingCurrency", "ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd"];

/// Where the columns are.
pub(super) struct Focus {
    billed_cost: Column,
    effective_cost: Column,
    list_cost: Column,
    currency: Column,
    category: Column,
    class: Column,
    from: Column,
    to: Column,
    resource_id: Column,
    resource_name: Column,
    account: Column,
    region: Column,
    quantity: Column,
    unit: Column,
    tags: Column,
}

impl Focus {
    pub(super) fn new(header: &[String]) -> Self {
        let find = |name| Column::find(header, name);
        Self {
            billed_cost: find("billed_cost"),
            effective_cost: find("effective_cost"),
            list_cost: find("list_cost"),
            currency: find("billing_currency"),
            category: find("charge_category"),
            class: find("charge_class"),
            from: find("charge_period_start"),
            to: find("charge_period_end"),
            resource_id: find("resource_id"),
            resource_name: find("resource_name"),
            account: find("sub_account_id"),
            region: find("region_id"),
            quantity: find("consumed_quantity"),
            unit: find("consumed_unit"),
            tags: find("tags"),
        }
    }

    pub(super) fn row<'a>(&self, record: &'a StringRecord) -> Result<Row<'a>, RowError> {
        check_currency("BillingCurrency", self.currency.of(record))?;
        let billed = needed_amount("BilledCost", self.billed_cost.of(record))?;
        let kind = match (self.category.of(record), self.class.of(record)) {
            ("Tax", _) => Kind::Tax,
            // A correction is about a month billed earlier: it does not say that this bill has that month.
            ("Usage", class) if class != "Correction" => Kind::Usage,
            _ => Kind::Other,
        };
        // The units are free text; these are what the specification's unit format and AWS make of hours.
        let unit_hours = match self.unit.of(record) {
            "Hours" | "Hour" | "Hrs" => hours("ConsumedQuantity", self.quantity.of(record))?,
            _ => Span::ZERO,
        };
        Ok(Row {
            resource: self.resource_id.of(record),
            name: self.resource_name.of(record),
            account: self.account.of(record),
            region: self.region.of(record),
            tags: OurTags::from_json(self.tags.of(record)).map_err(RowError::Bad)?,
            kind,
            period: period(
                ("ChargePeriodStart", self.from.of(record)),
                ("ChargePeriodEnd", self.to.of(record)),
            )?,
            cost: BilledCost {
                billed,
                effective: amount("EffectiveCost", self.effective_cost.of(record))?.unwrap_or(billed),
                list: amount("ListCost", self.list_cost.of(record))?.unwrap_or_default(),
            },
            unit_hours,
        })
    }
}
