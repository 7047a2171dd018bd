//! One row: its columns in their order, and where each value comes from.

use std::io;

use bursar_model::{CapacityType, Usd};

use super::{
    ALLOCATED_METHOD, FocusAccount, FocusCharge, FocusClass, FocusCosts, FocusLine, Times, Vendor,
    quantity::{DECIMALS, Quantities, UnitPrices},
    text::{Object, decimal},
};

/// The columns in their order: those of FOCUS by name, then our own.
pub(super) const COLUMNS: [&str; 71] = [
    "AllocatedMethodDetails",
    "AllocatedMethodId",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "AllocatedTags",
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_Category",
    "x_ChargeId",
    "x_ExperimentId",
    "x_OriginContractedCost",
    "x_OriginEffectiveCost",
    "x_OriginListCost",
    "x_Project",
    "x_SweepId",
    "x_User",
];

const CURRENCY: &str = "USD";
const UNIT: &str = "Hours";

/// What one row is made of.
pub(super) struct Row<'a> {
    pub(super) account: &'a FocusAccount,
    pub(super) charge: &'a FocusCharge<'a>,
    pub(super) times: &'a Times,
    pub(super) line: &'a FocusLine<'a>,
    pub(super) sub_account: Option<&'a str>,
    pub(super) tags: &'a [u8],
    /// What an hour cost; `None` where only amounts are known, and no quantities either.
    pub(super) prices: Option<UnitPrices>,
    pub(super) quantities: Quantities,
    /// What it is a part of; `None` where it is a charge of its own.
    pub(super) split: Option<Split<'a>>,
}

/// A row as a part of an origin charge.
pub(super) struct Split<'a> {
    pub(super) origin: FocusCosts,
    pub(super) tags: &'a [u8],
}

impl Row<'_> {
    pub(super) fn write<W: io::Write>(&self, to: &mut csv::Writer<W>) -> csv::Result<()> {
        let Self { account, charge, times, line, sub_account, tags, prices, quantities, split } = self;
        let instance = &charge.instance;
        let kind = instance.instance_type;
        let costs = line.costs;
        let vendor = VendorNames::of(self);
        let experiment = line.experiment.to_string();
        let instance_id = instance.id.to_string();
        let unit_price = |of: fn(&UnitPrices) -> i128| prices.as_ref().map(of);
        let quantity = |of: fn(&Quantities) -> i128| prices.map(|_| of(quantities));
        let unit = prices.map(|_| UNIT);
        let origin = |cost: fn(&FocusCosts) -> Usd| split.as_ref().map(|split| cost(&split.origin));

        let mut row = Fields { to, scratch: Vec::new(), written: 0 };
        row.json("AllocatedMethodDetails", split.as_ref().map(|_| method_details(quantities)))?;
        row.text("AllocatedMethodId", split.as_ref().map(|_| ALLOCATED_METHOD))?;
        // With the category, because one experiment may pay for several parts of one charge.
        let allocated = split.as_ref().map(|_| format!("{experiment}/{}", line.category));
        row.text("AllocatedResourceId", allocated)?;
        row.text("AllocatedResourceName", split.as_ref().map(|_| line.experiment_name))?;
        row.json("AllocatedTags", split.as_ref().map(|split| split.tags))?;
        row.text("AvailabilityZone", Some(instance.zone))?;
        row.usd("BilledCost", Some(billed(instance.capacity_type, costs)))?;
        row.text("BillingAccountId", Some(&account.id))?;
        row.text("BillingAccountName", Some(&account.name))?;
        row.text("BillingAccountType", Some("Installation"))?;
        row.text("BillingCurrency", Some(CURRENCY))?;
        row.text("BillingPeriodEnd", Some(&times.month_to))?;
        row.text("BillingPeriodStart", Some(&times.month_from))?;
        row.null("CapacityReservationId")?;
        row.null("CapacityReservationStatus")?;
        row.text("ChargeCategory", Some("Usage"))?;
        row.text("ChargeClass", times.month_is_over.then_some("Correction"))?;
        row.text("ChargeDescription", Some(description(charge)))?;
        row.text("ChargeFrequency", Some("Usage-Based"))?;
        row.text("ChargePeriodEnd", Some(&times.to))?;
        row.text("ChargePeriodStart", Some(&times.from))?;
        row.null("CommitmentDiscountCategory")?;
        row.null("CommitmentDiscountId")?;
        row.null("CommitmentDiscountName")?;
        row.null("CommitmentDiscountQuantity")?;
        row.null("CommitmentDiscountStatus")?;
        row.null("CommitmentDiscountType")?;
        row.null("CommitmentDiscountUnit")?;
        row.decimal("ConsumedQuantity", quantity(|hours| hours.consumed))?;
        row.text("ConsumedUnit", unit)?;
        row.usd("ContractedCost", Some(costs.contracted))?;
        row.decimal("ContractedUnitPrice", unit_price(|prices| prices.contracted))?;
        row.usd("EffectiveCost", Some(costs.effective))?;
        row.null("InvoiceId")?;
        row.text("InvoiceIssuerName", Some(vendor.provider))?;
        row.usd("ListCost", Some(costs.list))?;
        row.decimal("ListUnitPrice", unit_price(|prices| prices.list))?;
        row.text("PricingCategory", Some(pricing_category(instance.capacity_type)))?;
        row.text("PricingCurrency", Some(CURRENCY))?;
        row.decimal("PricingCurrencyContractedUnitPrice", unit_price(|prices| prices.contracted))?;
        row.usd("PricingCurrencyEffectiveCost", Some(costs.effective))?;
        row.decimal("PricingCurrencyListUnitPrice", unit_price(|prices| prices.list))?;
        row.decimal("PricingQuantity", quantity(|hours| hours.priced))?;
        row.text("PricingUnit", unit)?;
        row.text("ProviderName", Some(vendor.provider))?;
        row.text("PublisherName", Some(vendor.provider))?;
        row.text("RegionId", Some(instance.region))?;
        row.text("RegionName", Some(instance.region))?;
        row.text("ResourceId", Some(instance.cloud_id.unwrap_or(&instance_id)))?;
        row.text("ResourceName", instance.cloud_id.map(|_| &instance_id))?;
        row.text("ResourceType", Some("Instance"))?;
        row.text("ServiceCategory", Some("Compute"))?;
        row.text("ServiceName", Some(vendor.service))?;
        row.text("ServiceSubcategory", Some(vendor.subcategory))?;
        row.text("SkuId", Some(format!("{}/{}", instance.provider, kind.name)))?;
        row.text("SkuMeter", Some("Instance Time"))?;
        row.json("SkuPriceDetails", Some(price_details(charge)))?;
        let price_id =
            format!("{}/{}/{}/{}", instance.provider, kind.name, instance.region, instance.capacity_type);
        row.text("SkuPriceId", Some(price_id))?;
        row.text("SubAccountId", *sub_account)?;
        row.text("SubAccountName", *sub_account)?;
        row.text("SubAccountType", sub_account.map(|_| "Project"))?;
        row.json("Tags", Some(tags))?;
        row.text("x_Category", Some(line.category.to_string()))?;
        row.text("x_ChargeId", Some(charge.id.to_string()))?;
        row.text("x_ExperimentId", Some(experiment))?;
        row.usd("x_OriginContractedCost", origin(|costs| costs.contracted))?;
        row.usd("x_OriginEffectiveCost", origin(|costs| costs.effective))?;
        row.usd("x_OriginListCost", origin(|costs| costs.list))?;
        row.text("x_Project", Some(line.project))?;
        row.text("x_SweepId", line.sweep.map(|sweep| sweep.to_string()))?;
        row.text("x_User", Some(line.user))?;
        row.end()
    }
}

/// Puts fields one after the other. Each is given with its column, which must be the next: a debug build panics
/// otherwise.
struct Fields<'a, W: io::Write> {
    to: &'a mut csv::Writer<W>,
    scratch: Vec<u8>,
    written: usize,
}

impl<W: io::Write> Fields<'_, W> {
    fn text(&mut self, column: &'static str, text: Option<impl AsRef<str>>) -> csv::Result<()> {
        self.put(column, text.as_ref().map_or(&[], |text| text.as_ref().as_bytes()))
    }

    fn json(&mut self, column: &'static str, json: Option<impl AsRef<[u8]>>) -> csv::Result<()> {
        self.put(column, json.as_ref().map_or(&[], |json| json.as_ref()))
    }

    fn usd(&mut self, column: &'static str, amount: Option<Usd>) -> csv::Result<()> {
        self.number(column, amount.map(|amount| i128::from(amount.as_nanos())), 9)
    }

    fn decimal(&mut self, column: &'static str, value: Option<i128>) -> csv::Result<()> {
        self.number(column, value, DECIMALS)
    }

    fn null(&mut self, column: &'static str) -> csv::Result<()> {
        self.put(column, &[])
    }

    fn number(&mut self, column: &'static str, value: Option<i128>, decimals: u32) -> csv::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        if let Some(value) = value {
            decimal(&mut scratch, value, decimals);
        }
        let put = self.put(column, &scratch);
        self.scratch = scratch;
        put
    }

    fn put(&mut self, column: &'static str, field: &[u8]) -> csv::Result<()> {
        debug_assert_eq!(Some(&column), COLUMNS.get(self.written), "fields come in the order of the columns");
        self.written += 1;
        self.to.write_field(field)
    }

    fn end(self) -> csv::Result<()> {
        self.to.write_record(None::<&[u8]>)
    }
}

/// Who is who behind an instance.
struct VendorNames<'a> {
    /// Also the one that sends the invoice.
    provider: &'a str,
    service: &'static str,
    subcategory: &'static str,
}

impl<'a> VendorNames<'a> {
    fn of(row: &Row<'a>) -> Self {
        let (provider, service) = match row.charge.instance.vendor {
            Vendor::Aws => ("AWS", "Amazon Elastic Compute Cloud"),
            Vendor::Gcp => ("Google Cloud", "Compute Engine"),
            // Nobody sends an invoice for machines of one's own: the installation provides them and bills itself.
            Vendor::Local => (row.account.name.as_str(), "Local Machines"),
            Vendor::Other => (row.charge.instance.provider, "Virtual Machines"),
        };
        let subcategory = match row.charge.instance.vendor {
            Vendor::Local => "Other (Compute)",
            Vendor::Aws | Vendor::Gcp | Vendor::Other => "Virtual Machines",
        };
        Self { provider, service, subcategory }
    }
}

/// What is to be paid for the use itself: reserved capacity was paid for when it was bought.
fn billed(capacity_type: CapacityType, costs: FocusCosts) -> Usd {
    match capacity_type {
        CapacityType::Spot | CapacityType::OnDemand => costs.effective,
        CapacityType::Reserved => Usd::ZERO,
    }
}

fn pricing_category(capacity_type: CapacityType) -> &'static str {
    match capacity_type {
        CapacityType::Spot => "Dynamic",
        CapacityType::OnDemand => "Standard",
        CapacityType::Reserved => "Committed",
    }
}

fn description(charge: &FocusCharge<'_>) -> String {
    let instance = &charge.instance;
    let what = match charge.class {
        FocusClass::Usage => "Use of",
        FocusClass::Correction { .. } => "Correction for",
    };
    format!("{what} {} {} in {}", instance.capacity_type, instance.instance_type.name, instance.zone)
}

/// Why the row got its part: FOCUS 1.3, Allocated Method Details Object.
fn method_details(quantities: &Quantities) -> Vec<u8> {
    let mut element = Object::default();
    element.number("AllocatedRatio", quantities.ratio, DECIMALS);
    // A unit alone would say nothing: a minimum billed for no time has no quantity.
    if quantities.consumed != 0 {
        element.text("UsageUnit", UNIT);
        element.number("UsageQuantity", quantities.consumed, DECIMALS);
    }
    let mut details = br#"{"Elements":["#.to_vec();
    details.extend_from_slice(&element.finish());
    details.extend_from_slice(b"]}");
    details
}

/// What the machine has, under the keys of FOCUS; our own begin with `x_`.
fn price_details(charge: &FocusCharge<'_>) -> Vec<u8> {
    let kind = charge.instance.instance_type;
    let mut details = Object::default();
    details.text("InstanceType", kind.name.as_str());
    details.number("CoreCount", i128::from(kind.cpus_milli), 3);
    // GiB: a 1024th has ten decimals.
    details.number("MemorySize", i128::from(kind.memory_mib) * 10_i128.pow(10) / 1024, 10);
    if let Some(accelerators) = &kind.accelerators {
        details.number("GpuCount", i128::from(accelerators.count), 0);
        details.text("x_GpuName", accelerators.name.as_str());
    }
    details.finish()
}
