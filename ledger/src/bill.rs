//! What a cloud billed, read from its export and compared with what we charged.
//!
//! Metering estimates: it knows the price in force and when an instance ran. The bill is the truth, and comes days
//! later. [`Bill::read`] reads it, [`compare`] finds what differs, [`correction`] makes the charge that mends it, paid by
//! those who paid. All of it is pure; files and the store are somebody else's.
//!
//! A bill of a company has millions of rows and few of them are ours. So rows are added up while they are read, into
//! one [`BilledResource`] for each resource that carries our tags or that we know by its cloud id, and one sum for all
//! the rest: memory grows with our instances, not with the bill.
//!
//! The formats are told apart by their header. Column names are compared in snake case, so that the columns of the
//! legacy AWS report (`lineItem/UsageStartDate`) and of BigQuery's nested records (`resource.name`) need no list of
//! their own:
//!
//! | format | documented at |
//! | --- | --- |
//! | FOCUS 1.0 and 1.2, CSV | <https://focus.finops.org/focus-specification/>, <https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-2-aws-columns.html> |
//! | AWS CUR 2.0 and legacy CUR, CSV | <https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html>, <https://docs.aws.amazon.com/cur/latest/userguide/data-dictionary.html> |
//! | GCP standard and detailed usage cost, CSV and JSON lines | <https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/detailed-usage> |
//!
//! Compressed files and Parquet are refused with the command that turns them into one of these; whoever opens a file may
//! decompress it first.

mod aws;
mod compare;
mod correction;
mod decimal;
mod fields;
mod focus;
mod gcp;
#[cfg(test)]
mod laws;
mod read;
pub mod tags;

use std::{collections::BTreeMap, fmt};

use bursar_model::{CloudId, Period, Span, Timestamp, Usd};
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use self::fields::{Kind, Row};
pub use self::{
    compare::{
        Basis, BillAndCharges, Coverage, OwnCost, OwnMonth, ProviderError, Reconciliation, Unbilled,
        UnbilledReason, compare,
    },
    correction::{charged_by_month, correction, correction_lines},
    read::{BadRow, BillError, BillFormat, FileRead},
    tags::OurTags,
};

/// More resources than this are not ours: a thousand instances a day for a year, with their disks and addresses.
const RESOURCES_MAX: usize = 1_000_000;

/// The longest row that says how far a bill is: a day, the coarsest of the two granularities that can be compared.
const ROW_SPAN_MAX: Span = Span::from_hours(24);

/// What a cloud billed, from any number of files: exports come in parts.
#[derive(Debug, Clone, Default)]
pub struct Bill {
    resources: Vec<BilledResource>,
    /// Where a resource is in `resources`, by `place_name`.
    places: FxHashMap<String, usize>,
    /// Room for one `place_name`, so that looking one up allocates nothing.
    place_name: String,
    other: BilledCost,
    period: Option<Period>,
}

/// What was billed for one resource under one set of our tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BilledResource {
    /// The cloud's name of it, such as `i-0abc` or an ARN. Empty where the row names none.
    pub resource: String,
    /// The part of that name by which it was known as an instance of ours.
    pub cloud_id: Option<CloudId>,
    /// Our tags on it.
    pub tags: OurTags,
    /// The account or project that it is in. Empty where the bill does not say.
    pub account: String,
    /// Its region. Empty where the bill does not say.
    pub region: String,
    /// What it cost, by the month in which the usage began.
    pub months: BTreeMap<Month, BilledCost>,
    /// From its first usage to the end of its last. None where only credits, fees and the like name it.
    pub used: Option<Period>,
    /// The usage whose unit is an hour: of the machine at AWS, of each core and accelerator at GCP.
    pub unit_hours: Span,
    /// How many rows there were.
    pub rows: u64,
}

/// What something cost, under three names of FOCUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BilledCost {
    /// What the invoice asks for, net of discounts and credits. Nothing for what a commitment covers: that is asked
    /// for with the commitment.
    pub billed: Usd,
    /// The same with what a commitment cost spread over what it covers.
    pub effective: Usd,
    /// At public on-demand prices, as far as the bill tells: rows that tell none count as nothing.
    pub list: Usd,
}

/// A calendar month in UTC, as text such as `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    /// The year.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
}

impl Bill {
    /// The resources that carry our tags, or those of another installation, or that are known by their cloud id.
    #[must_use]
    pub fn resources(&self) -> &[BilledResource] {
        &self.resources
    }

    /// Everything else: what nobody tagged for us, and taxes.
    #[must_use]
    pub fn other(&self) -> BilledCost {
        self.other
    }

    /// From the first usage in the bill to the end of the last, whoever's it is; only rows of at most a day count. None
    /// for a bill by the month, which does not say how far it is.
    #[must_use]
    pub fn period(&self) -> Option<Period> {
        self.period
    }

    /// The sum of all rows.
    #[must_use]
    pub fn total(&self) -> BilledCost {
        self.resources.iter().fold(self.other, |sum, resource| sum.plus(resource.cost()))
    }

    /// Adds a row up. Says no where that would be one resource too many.
    fn add(&mut self, row: Row<'_>, is_known: &dyn Fn(&str) -> bool) -> Result<(), TooManyResources> {
        // Some services bill a month as one row from its first day on: such a row does not say how far the bill is.
        if row.kind == Kind::Usage && row.period.span() <= ROW_SPAN_MAX {
            self.period = Some(hull(self.period, row.period));
        }
        let cloud_id = || row.cloud_names().find(|name| !name.is_empty() && is_known(name));
        // A tax is on the invoice, not on a resource: metering does not estimate it, so no correction may bring it.
        if row.kind == Kind::Tax || row.tags.is_empty() && cloud_id().is_none() {
            self.other = self.other.plus(row.cost);
            return Ok(());
        }

        self.place_name.clear();
        for part in [Some(row.resource), row.tags.installation.as_deref(), row.tags.instance.as_deref()] {
            self.place_name.push_str(part.unwrap_or(""));
            // No name of a resource or tag has a control character in it, so no two places have one name.
            self.place_name.push('\u{1f}');
        }
        let index = match self.places.get(&self.place_name) {
            Some(index) => *index,
            None if self.resources.len() == RESOURCES_MAX => return Err(TooManyResources),
            None => {
                self.places.insert(self.place_name.clone(), self.resources.len());
                self.resources.push(BilledResource::new(&row, cloud_id().map(CloudId::new)));
                self.resources.len() - 1
            }
        };
        self.resources[index].add(&row);
        Ok(())
    }
}

impl BilledResource {
    /// What it cost over all months.
    #[must_use]
    pub fn cost(&self) -> BilledCost {
        self.months.values().fold(BilledCost::default(), |sum, cost| sum.plus(*cost))
    }

    fn new(row: &Row<'_>, cloud_id: Option<CloudId>) -> Self {
        Self {
            resource: row.resource.to_owned(),
            cloud_id,
            tags: row.tags.clone(),
            account: row.account.to_owned(),
            region: row.region.to_owned(),
            months: BTreeMap::new(),
            used: None,
            unit_hours: Span::ZERO,
            rows: 0,
        }
    }

    fn add(&mut self, row: &Row<'_>) {
        let month = self.months.entry(Month::of(row.period.from)).or_default();
        *month = month.plus(row.cost);
        if row.kind == Kind::Usage {
            self.used = Some(hull(self.used, row.period));
            self.unit_hours = self.unit_hours + row.unit_hours;
        }
        self.rows += 1;
    }
}

impl BilledCost {
    /// The sum. A bill that leaves the range of `Usd` (9.2 billion dollars) stays at its end.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            billed: self.billed.saturating_add(other.billed),
            effective: self.effective.saturating_add(other.effective),
            list: self.list.saturating_add(other.list),
        }
    }
}

impl Month {
    /// The month of a moment.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let date = DateTime::from_timestamp_millis(at.as_millis()).unwrap_or_default();
        Self { year: date.year(), month: date.month() }
    }

    /// When it begins.
    #[must_use]
    pub fn begin(self) -> Timestamp {
        let date = NaiveDate::from_ymd_opt(self.year, self.month, 1).unwrap_or_default();
        Timestamp::from_millis(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1 }
        } else {
            Self { month: self.month + 1, ..self }
        }
    }
}

/// A text that is no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a month such as 2026-11")]
pub struct InvalidMonth(pub String);

impl TryFrom<String> for Month {
    type Error = InvalidMonth;
    fn try_from(text: String) -> Result<Self, InvalidMonth> {
        let parts =
            text.split_once('-').and_then(|(year, month)| Some((year.parse().ok()?, month.parse().ok()?)));
        match parts {
            Some((year @ 1970..=9999, month @ 1..=12)) => Ok(Self { year, month }),
            _ => Err(InvalidMonth(text)),
        }
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// The bill names more resources than can be ours.
struct TooManyResources;

/// The shortest period over both.
fn hull(known: Option<Period>, new: Period) -> Period {
    known.map_or(new, |known| Period::new(known.from.min(new.from), known.to.max(new.to)))
}
