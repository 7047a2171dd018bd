//! AWS Cost and Usage Reports: CUR 2.0 and the legacy report.
//!
//! Columns of CUR 2.0: <https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html> and the pages below
//! it on line items, pricing, reservations, savings plans, resource tags and tags. The legacy report has the same
//! names in another spelling (<https://docs.aws.amazon.com/cur/latest/userguide/dataexports-migrate.html>) and a column
//! for each tag.

use bursar_model::{Span, Usd};
use csv::StringRecord;

use super::{
    BilledCost, OurTags,
    fields::{Column, Kind, Row, RowError, amount, check_currency, hours, needed_amount, period},
    tags::our_tag,
};

/// Without these it is no Cost and Usage Report.
pub(super) const NEEDED: [&str; 5] = [
    "line_item_unblended_cost",
    "line_item_currency_code",
    "line_item_line_item_type",
    "line_item_usage_start_date",
    "line_item_usage_end_date",
];

/// Where the columns are.
pub(super) struct Cur {
    unblended_cost: Column,
    net_unblended_cost: Column,
    on_demand_cost: Column,
    reservation_cost: Column,
    net_reservation_cost: Column,
    savings_plan_cost: Column,
    net_savings_plan_cost: Column,
    currency: Column,
    line_type: Column,
    from: Column,
    to: Column,
    resource_id: Column,
    account: Column,
    region: Column,
    quantity: Column,
    unit: Column,
    tags: Column,
    /// The columns of single tags of ours, with their names.
    single_tags: Vec<(Column, String)>,
}

impl Cur {
    pub(super) fn new(header: &[String]) -> Self {
        let find = |name| Column::find(header, name);
        let (resource_tags, all_tags) = (find("resource_tags"), find("tags"));
        let ours = header.iter().filter(|name| our_tag(name).is_some());
        Self {
            unblended_cost: find("line_item_unblended_cost"),
            net_unblended_cost: find("line_item_net_unblended_cost"),
            on_demand_cost: find("pricing_public_on_demand_cost"),
            reservation_cost: find("reservation_effective_cost"),
            net_reservation_cost: find("reservation_net_effective_cost"),
            savings_plan_cost: find("savings_plan_savings_plan_effective_cost"),
            net_savings_plan_cost: find("savings_plan_net_savings_plan_effective_cost"),
            currency: find("line_item_currency_code"),
            line_type: find("line_item_line_item_type"),
            from: find("line_item_usage_start_date"),
            to: find("line_item_usage_end_date"),
            resource_id: find("line_item_resource_id"),
            account: find("line_item_usage_account_id"),
            region: find("product_region_code"),
            quantity: find("line_item_usage_amount"),
            unit: find("pricing_unit"),
            tags: if resource_tags.exists() { resource_tags } else { all_tags },
            single_tags: ours.map(|name| (find(name), name.clone())).collect(),
        }
    }

    pub(super) fn row<'a>(&self, record: &'a StringRecord) -> Result<Row<'a>, RowError> {
        check_currency("line_item_currency_code", self.currency.of(record))?;
        let line_type = self.line_type.of(record);
        let kind = match line_type {
            "Usage" | "DiscountedUsage" | "SavingsPlanCoveredUsage" => Kind::Usage,
            "Tax" => Kind::Tax,
            _ => Kind::Other,
        };
        let unit_hours = match self.unit.of(record) {
            "Hrs" | "Hours" => hours("line_item_usage_amount", self.quantity.of(record))?,
            _ => Span::ZERO,
        };
        let mut tags = OurTags::from_json(self.tags.of(record)).map_err(RowError::Bad)?;
        for (column, name) in &self.single_tags {
            tags.set(name, column.of(record));
        }
        Ok(Row {
            resource: self.resource_id.of(record),
            name: "",
            account: self.account.of(record),
            region: self.region.of(record),
            tags,
            kind,
            period: period(
                ("line_item_usage_start_date", self.from.of(record)),
                ("line_item_usage_end_date", self.to.of(record)),
            )?,
            cost: self.cost(line_type, record)?,
            unit_hours,
        })
    }

    /// What a line costs. The net columns exist only in accounts with a discount.
    ///
    /// Usage that a savings plan covers stands in the report at on-demand prices, and a negation somewhere else takes
    /// that away again. FOCUS, and we, count neither as billed: together they are nothing. What the covered usage
    /// cost in effect is in the columns of the plan or the reservation, and then the fees are not counted once more.
    /// (<https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2-savings-plan.html>)
    fn cost(&self, line_type: &str, record: &StringRecord) -> Result<BilledCost, RowError> {
        let first = |columns: [(&str, Column); 2]| {
            for (name, column) in columns {
                if let Some(amount) = amount(name, column.of(record))? {
                    return Ok(Some(amount));
                }
            }
            Ok(None)
        };
        let asked = match amount("line_item_net_unblended_cost", self.net_unblended_cost.of(record))? {
            Some(net) => net,
            None => needed_amount("line_item_unblended_cost", self.unblended_cost.of(record))?,
        };
        let (billed, effective) = match line_type {
            "SavingsPlanCoveredUsage" => {
                let of_plan = first([
                    ("savings_plan_net_savings_plan_effective_cost", self.net_savings_plan_cost),
                    ("savings_plan_savings_plan_effective_cost", self.savings_plan_cost),
                ])?;
                (Usd::ZERO, of_plan.unwrap_or(asked))
            }
            "DiscountedUsage" => {
                let of_reservation = first([
                    ("reservation_net_effective_cost", self.net_reservation_cost),
                    ("reservation_effective_cost", self.reservation_cost),
                ])?;
                (asked, of_reservation.unwrap_or(asked))
            }
            "SavingsPlanNegation" => (Usd::ZERO, Usd::ZERO),
            "SavingsPlanRecurringFee" | "SavingsPlanUpfrontFee" | "RIFee" => (asked, Usd::ZERO),
            _ => (asked, asked),
        };
        let list =
            amount("pricing_public_on_demand_cost", self.on_demand_cost.of(record))?.unwrap_or_default();
        Ok(BilledCost { billed, effective, list })
    }
}
