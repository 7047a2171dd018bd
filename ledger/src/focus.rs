//! Charges as rows of the FinOps Open Cost and Usage Specification, so that finance reads them with the tools that read
//! the clouds' own bills: the columns of FOCUS 1.2 and the split-cost columns of FOCUS 1.3 (`Allocated…`), as CSV.
//!
//! **A plain sum over the export is right.** A charge with one payer and one category is one row. A charge with several
//! lines (a shared instance; a part that runs and a part that idles) is *replaced* by one row a line. FOCUS 1.3 says so
//! under "Data Generator-Calculated Split Cost Allocation Handling": the origin charge is split "into multiple charge
//! records (allocated charges) […] while ensuring the origin charge can be derived from the combination of allocated
//! charges", and the sum of a summable metric across the allocated charges MUST match the origin's. An origin row with
//! its cost would count everything twice; one with zeros would break that MUST. So the origin is not a row of its own:
//! each of its rows carries its number (`x_ChargeId`) and its costs (`x_Origin…Cost`), against which the rows of one
//! charge can be summed.
//!
//! By the same clause dimensions and unit prices of allocated rows are those of the origin. A tag that all lines share
//! is therefore a tag of the origin (`Tags`), what only one line has is a tag of that line (`AllocatedTags`), and the
//! project is a sub account only where it is the same for all. `x_Project`, `x_ExperimentId` and so on say who pays in
//! every row alike, for whoever groups by them.
//!
//! **Corrections** are rows with the signs of their lines, one a line, never allocated: ratios of what cancels out do
//! not exist. FOCUS calls a row a `Correction` only if it mends a month that is over (ChargeClass "MUST be null when […]
//! it represents a correction within the current billing period"). Within the month it is a usage row like any other,
//! with its quantity and unit prices; afterwards it has amounts alone, and belongs to the month in which it was made.
//!
//! **Quantities** follow from costs: `PricingQuantity` is the hours for which list and contracted unit price give list
//! and contracted cost, so billing minimums are in it. `ConsumedQuantity` is the time that was had.
//!
//! What FOCUS leaves open: moments are whole seconds, as its date format has no fraction; both ends are rounded down, so
//! that periods still meet. `BilledCost` is `EffectiveCost`, but 0 for reserved capacity, which is "paid for already".
//! Which commitment or reservation that was is not known here, so `CommitmentDiscount…` and `CapacityReservation…` are
//! null, and so is `InvoiceId`.

mod quantity;
mod row;
mod tags;
mod text;

use std::{collections::BTreeMap, io};

use bursar_model::{
    CapacityType, Category, ExperimentId, InstanceId, InstanceType, Period, SweepId, Timestamp, Usd,
    UsdPerHour,
};
use chrono::{DateTime, Datelike, Utc};

use self::{
    quantity::UnitPrices,
    row::{COLUMNS, Row, Split},
    tags::TagSets,
};

/// What the prefix of our own tags is. Labels of users must not begin with it; those that do are left out.
pub const TAG_PREFIX: &str = "bursar/";

/// Names the rule by which charges are split, which `ARCHITECTURE.md` documents under "Shares": by the share of the
/// instance's scarcest resource over time, with largest remainders.
pub const ALLOCATED_METHOD: &str = "bursar-share-of-instance-v1";

/// Who is billed: the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FocusAccount {
    /// What names the installation for ever.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// One charge with every fact that its rows need.
#[derive(Debug, Clone)]
pub struct FocusCharge<'a> {
    /// The charge's number, unique in the installation.
    pub id: u64,
    /// Metered or mended.
    pub class: FocusClass,
    /// What time it is for. It belongs to the month (UTC) in which it begins.
    pub period: Period,
    /// What was had.
    pub instance: FocusInstance<'a>,
    /// The price before any discount.
    pub list_price: UsdPerHour,
    /// The price with the account's discounts.
    pub contracted_price: UsdPerHour,
    /// Who pays what for what, at least one. They sum to the charge.
    pub lines: &'a [FocusLine<'a>],
}

/// Whether a charge is the first word on its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FocusClass {
    /// Metered.
    Usage,
    /// Mends earlier charges.
    Correction {
        /// When it was written down.
        made_at: Timestamp,
    },
}

/// The instance that a charge is for.
#[derive(Debug, Clone)]
pub struct FocusInstance<'a> {
    /// Ours.
    pub id: InstanceId,
    /// The cloud's own name of it, where it has one.
    pub cloud_id: Option<&'a str>,
    /// The provider as configured.
    pub provider: &'a str,
    /// Whose machines these are.
    pub vendor: Vendor,
    /// The provider's region.
    pub region: &'a str,
    /// The zone in the region.
    pub zone: &'a str,
    /// What it has.
    pub instance_type: &'a InstanceType,
    /// How it was bought.
    pub capacity_type: CapacityType,
}

/// Who makes machines available and sends the invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// The installation itself, on machines of its own.
    Local,
    /// Somebody else, known by the provider's name in the configuration.
    Other,
}

/// One payer's part of a charge in one category.
#[derive(Debug, Clone)]
pub struct FocusLine<'a> {
    /// The experiment that pays.
    pub experiment: ExperimentId,
    /// The experiment's name.
    pub experiment_name: &'a str,
    /// The sweep that it is a trial of.
    pub sweep: Option<SweepId>,
    /// Whose money it is.
    pub project: &'a str,
    /// Who submitted it.
    pub user: &'a str,
    /// What users attached to it.
    pub labels: &'a BTreeMap<String, String>,
    /// What for.
    pub category: Category,
    /// How much.
    pub costs: FocusCosts,
    /// The part of the instance's time, in milliseconds; negative where a correction takes it back, as its costs are.
    pub instance_ms: i64,
}

/// An amount before discounts, with the account's discounts, and with everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FocusCosts {
    /// At list prices.
    pub list: Usd,
    /// At contracted prices.
    pub contracted: Usd,
    /// After all, what was paid beforehand included.
    pub effective: Usd,
}

/// Why a charge could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FocusError {
    /// The writer below refused.
    #[error("could not write the FOCUS export")]
    Write(#[source] io::Error),
    /// Nobody pays: the charge is broken.
    #[error("charge {0} has no lines, so nobody pays it: check the store with `bursar doctor`")]
    NoLines(u64),
    /// A moment that no calendar has.
    #[error(
        "charge {charge} names the moment {moment}, which no calendar has: check the store with `bursar doctor`"
    )]
    NoSuchDate {
        /// Which charge.
        charge: u64,
        /// The moment.
        moment: Timestamp,
    },
}

/// Writes charges as rows, one after the other, in constant memory.
#[derive(Debug)]
pub struct FocusWriter<W: io::Write> {
    rows: csv::Writer<W>,
    account: FocusAccount,
}

impl<W: io::Write> FocusWriter<W> {
    /// Begins an export with its header.
    ///
    /// # Errors
    /// When `to` refuses.
    pub fn new(to: W, account: FocusAccount) -> Result<Self, FocusError> {
        let mut rows = csv::Writer::from_writer(to);
        rows.write_record(COLUMNS).map_err(refused)?;
        Ok(Self { rows, account })
    }

    /// Writes the rows of one charge: one, or one a line where it has several.
    ///
    /// # Errors
    /// When the writer below refuses, or the charge has no lines or an impossible moment.
    pub fn write(&mut self, charge: &FocusCharge<'_>) -> Result<(), FocusError> {
        if charge.lines.is_empty() {
            return Err(FocusError::NoLines(charge.id));
        }
        let times = Times::of(charge)?;
        match charge.class {
            FocusClass::Usage => {
                let prices = UnitPrices::of(charge.list_price, charge.contracted_price);
                self.write_rows(charge, &times, Some(prices), charge.lines)
            }
            FocusClass::Correction { .. } => charge.lines.iter().try_for_each(|line| {
                let open = (!times.month_is_over).then(|| {
                    UnitPrices::average(line)
                        .unwrap_or_else(|| UnitPrices::of(charge.list_price, charge.contracted_price))
                });
                self.write_rows(charge, &times, open, std::slice::from_ref(line))
            }),
        }
    }

    /// Ends the export and gives back what it was written to.
    ///
    /// # Errors
    /// When what was still to be written is refused.
    pub fn finish(self) -> Result<W, FocusError> {
        self.rows.into_inner().map_err(|refused| FocusError::Write(refused.into_error()))
    }

    /// Writes lines that are one charge together. Without unit prices the rows have no quantities either.
    fn write_rows(
        &mut self,
        charge: &FocusCharge<'_>,
        times: &Times,
        prices: Option<UnitPrices>,
        lines: &[FocusLine<'_>],
    ) -> Result<(), FocusError> {
        let tags = TagSets::of(&charge.instance, lines);
        let common_tags = tags.common();
        let project = lines[0].project;
        let one_project = lines.iter().all(|line| line.project == project);
        let origin = lines.iter().fold(FocusCosts::default(), |sum, line| sum.plus(line.costs));
        let quantities = quantity::split(lines, prices);
        for (index, (line, quantities)) in lines.iter().zip(quantities).enumerate() {
            let own_tags = tags.own(index);
            let row = Row {
                account: &self.account,
                charge,
                times,
                line,
                sub_account: one_project.then_some(project),
                tags: &common_tags,
                prices,
                quantities,
                split: (lines.len() > 1).then_some(Split { origin, tags: &own_tags }),
            };
            row.write(&mut self.rows).map_err(refused)?;
        }
        Ok(())
    }
}

impl FocusCosts {
    fn plus(self, other: Self) -> Self {
        Self {
            list: self.list + other.list,
            contracted: self.contracted + other.contracted,
            effective: self.effective + other.effective,
        }
    }
}

/// The moments of a charge in the form of FOCUS, and what follows from them.
#[derive(Debug)]
struct Times {
    from: String,
    to: String,
    month_from: String,
    month_to: String,
    /// Whether the charge mends a month that was over when it was made.
    month_is_over: bool,
}

impl Times {
    fn of(charge: &FocusCharge<'_>) -> Result<Self, FocusError> {
        let date = |moment: Timestamp| {
            DateTime::<Utc>::from_timestamp_millis(moment.as_millis())
                .ok_or(FocusError::NoSuchDate { charge: charge.id, moment })
        };
        let (from, to) = (date(charge.period.from)?, date(charge.period.to)?);
        let made_at = match charge.class {
            FocusClass::Usage => from,
            FocusClass::Correction { made_at } => date(made_at)?,
        };
        let month_is_over = month_of(made_at) > month_of(from);
        let month = month_of(if month_is_over { made_at } else { from });
        Ok(Self {
            from: text::moment(from),
            to: text::moment(to),
            month_from: text::month(month),
            month_to: text::month(if month.1 == 12 { (month.0 + 1, 1) } else { (month.0, month.1 + 1) }),
            month_is_over,
        })
    }
}

fn month_of(moment: DateTime<Utc>) -> (i32, u32) {
    (moment.year(), moment.month())
}

fn refused(error: csv::Error) -> FocusError {
    FocusError::Write(error.into())
}
