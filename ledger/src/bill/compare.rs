//! Comparing a bill with what we charged.
//!
//! A difference is corrected only where the bill covers the whole life of an instance: a bill of half a life is not
//! wrong, it is not finished. What is corrected counts as charged the next time, so comparing again with the same or a
//! later bill finds nothing more, or only what the cloud changed since.

use std::collections::{BTreeMap, BTreeSet};

use bursar_model::{CloudId, InstanceId, Period, ProviderName, Span, Usd};
use serde::{Deserialize, Serialize};

use super::{Bill, BilledCost, BilledResource, Month};

/// Clouds go on adding usage to a bill for about a day. The last day of a bill that does not end with a month is not
/// taken for whole.
const LATE_USAGE: Span = Span::from_hours(24);

/// What an instance of ours has cost by our own books, as a bill would say it: at contracted prices, without the
/// overhead of this installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCost {
    /// Which.
    pub instance: InstanceId,
    /// The cloud's name of it, where there was one.
    pub cloud_id: Option<CloudId>,
    /// Where it was.
    pub provider: ProviderName,
    /// What was charged covers this time. None where nothing was ever charged.
    pub period: Option<Period>,
    /// Whether it is over: nothing will be charged any more.
    pub over: bool,
    /// What was charged, by the month in which the charged time began.
    pub months: BTreeMap<Month, OwnMonth>,
}

/// What an instance of ours has cost in a month by our own books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnMonth {
    /// What was metered: our estimate of the bill.
    pub metered: Usd,
    /// What earlier comparisons added to that.
    pub corrected: Usd,
}

/// Which cost of the bill is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// What the invoice asks for. Usage that a savings plan or reservation covers costs nothing.
    Billed,
    /// With what commitments cost spread over what they cover. The same as `Billed` where there are none.
    Effective,
}

/// What a comparison found. Together `instances`, `leaks` and `foreign` are the whole bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// The part of the bill's time in which it is taken for whole. None where no row says how far the bill is: it is
    /// empty, or by the month. Nothing is corrected then.
    pub settled: Option<Period>,
    /// Those of ours that the bill shows.
    pub instances: BTreeMap<InstanceId, BillAndCharges>,
    /// How good our estimates were where the bill is whole.
    pub providers: BTreeMap<ProviderName, ProviderError>,
    /// What carries the tag of our installation and belongs to no instance that we know.
    pub leaks: Vec<BilledResource>,
    /// What is not ours.
    pub foreign: BilledCost,
    /// Those of ours that lived in the settled time and cost something, and that the bill does not show. Where it shows
    /// any of ours, only those at the same providers: those elsewhere are in another bill.
    pub unbilled: Vec<Unbilled>,
    /// Why that may be, where there are any.
    pub unbilled_reason: Option<UnbilledReason>,
}

/// One instance by the bill and by our books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BillAndCharges {
    /// Where it was.
    pub provider: ProviderName,
    /// All of what the bill has on it, its disks and addresses included.
    pub billed: BilledCost,
    /// The one of these that counts.
    pub cost: Usd,
    /// From how many resources.
    pub resources: u32,
    /// What was metered.
    pub metered: Usd,
    /// What earlier comparisons added to that.
    pub corrected: Usd,
    /// What the bill asks for beyond what was charged, month by month.
    pub differences: BTreeMap<Month, Usd>,
    /// Whether the bill has all of it.
    pub coverage: Coverage,
}

/// How much of an instance's life is in a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// All of it.
    Whole,
    /// It lived before the first usage in the bill: read the months before in the same comparison.
    BeganBefore,
    /// It is not over, or ended so late that more of it may be billed yet.
    MayGoOn,
    /// Some of its usage has no tag and is known by the cloud id alone. So its disks and addresses, which were charged
    /// as well, have none either and cannot be told from anybody's.
    MachineOnly,
    /// Nothing was ever charged for it, so nobody is there to pay the difference: it was taken for one that never ran.
    NeverCharged,
}

/// How far our estimates were from the bill, over the instances that the bill has wholly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProviderError {
    /// How many instances.
    pub instances: u32,
    /// What the bill asks for them.
    pub billed: Usd,
    /// What was metered for them, corrections left out.
    pub metered: Usd,
    /// The error of the sum, in hundredths of a percent of what was billed; above 0 where we metered too much. None
    /// where nothing was billed.
    pub basis_points: Option<i64>,
    /// The median of the errors of single instances, in hundredths of a percent, without their signs; the lower of the
    /// two in the middle. Instances that were billed at nothing are left out.
    pub median_basis_points: Option<i64>,
    /// The instance with the largest error, and that error with its sign.
    pub worst: Option<(InstanceId, i64)>,
}

/// An instance of ours that the bill does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unbilled {
    /// Which.
    pub instance: InstanceId,
    /// Where it was.
    pub provider: ProviderName,
    /// What was charged for it so far.
    pub charged: Usd,
}

/// The likelier reason for which a bill does not show what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnbilledReason {
    /// The bill has no tag of this installation at all: the cost allocation tags `bursar:installation` and
    /// `bursar:instance` are not activated (AWS), or the export leaves tags out.
    TagsNotActivated,
    /// Others are there: the cloud has not billed these yet, or they are in another account's bill.
    NotBilledYet,
}

impl OwnCost {
    /// What was charged in all.
    #[must_use]
    pub fn charged(&self) -> Usd {
        let OwnMonth { metered, corrected } = self.total();
        metered.saturating_add(corrected)
    }

    /// The sum of all months.
    #[must_use]
    pub fn total(&self) -> OwnMonth {
        self.months.values().fold(OwnMonth::default(), |sum, month| OwnMonth {
            metered: sum.metered.saturating_add(month.metered),
            corrected: sum.corrected.saturating_add(month.corrected),
        })
    }
}

impl BillAndCharges {
    /// What the bill asks for beyond what was charged; less than nothing where it asks for less.
    #[must_use]
    pub fn difference(&self) -> Usd {
        self.cost.saturating_sub(self.metered.saturating_add(self.corrected))
    }

    /// The corrections that make the charges equal to the bill, month by month. None where they are, or where the bill
    /// may not have all of the instance.
    pub fn wanted_corrections(&self) -> impl Iterator<Item = (Month, Usd)> {
        let is_whole = self.coverage == Coverage::Whole;
        let differing =
            self.differences.iter().filter(move |(_, difference)| is_whole && **difference != Usd::ZERO);
        differing.map(|(month, difference)| (*month, *difference))
    }
}

/// Compares a bill with what we charged.
///
/// `ours` are all instances that were ever on the accounts of the bill, each once: those that lived at another time
/// keep what the bill still has of them from being leaks. Those on other accounts of the same providers must not be among
/// them, because the bill cannot show them. `installation` is the value of our installation tag.
///
/// A resource belongs to an instance by its instance tag, else by the instance's cloud id (the machine alone then, which
/// is shown but not corrected). What carries the tag of another installation is foreign whatever else it says.
#[must_use]
pub fn compare(
    bill: &Bill,
    installation: &str,
    basis: Basis,
    ours: impl IntoIterator<Item = OwnCost>,
) -> Reconciliation {
    let ours: BTreeMap<InstanceId, OwnCost> = ours.into_iter().map(|own| (own.instance, own)).collect();
    let by_cloud_id: BTreeMap<&CloudId, InstanceId> = ours
        .values()
        .filter_map(|own| own.cloud_id.as_ref().map(|cloud_id| (cloud_id, own.instance)))
        .collect();
    let settled = bill.period().map(settled);

    let mut found = Reconciliation {
        settled,
        instances: BTreeMap::new(),
        providers: BTreeMap::new(),
        leaks: Vec::new(),
        foreign: bill.other(),
        unbilled: Vec::new(),
        unbilled_reason: None,
    };
    let mut any_tag = false;
    for resource in bill.resources() {
        let is_ours = resource.tags.installation.as_deref() == Some(installation);
        any_tag |= is_ours;
        match owner(resource, installation, &ours, &by_cloud_id) {
            Some(own) => found
                .instances
                .entry(own.instance)
                .or_insert_with(|| BillAndCharges::new(own, settled))
                .add(resource, basis),
            None if is_ours => found.leaks.push(resource.clone()),
            None => found.foreign = found.foreign.plus(resource.cost()),
        }
    }
    let shown: BTreeSet<&ProviderName> =
        found.instances.values().map(|compared| &compared.provider).collect();
    // In an order that the rows of the files do not change.
    found.leaks.sort_by(|a, b| (&a.resource, &a.tags).cmp(&(&b.resource, &b.tags)));

    found.providers = provider_errors(&found.instances);
    found.unbilled = ours
        .values()
        .filter(|own| coverage(own, settled) == Coverage::Whole && own.charged() != Usd::ZERO)
        .filter(|own| !found.instances.contains_key(&own.instance))
        .filter(|own| shown.is_empty() || shown.contains(&own.provider))
        .map(|own| Unbilled {
            instance: own.instance,
            provider: own.provider.clone(),
            charged: own.charged(),
        })
        .collect();
    if !found.unbilled.is_empty() {
        let reason = if any_tag { UnbilledReason::NotBilledYet } else { UnbilledReason::TagsNotActivated };
        found.unbilled_reason = Some(reason);
    }
    found
}

impl BillAndCharges {
    fn new(own: &OwnCost, settled: Option<Period>) -> Self {
        let OwnMonth { metered, corrected } = own.total();
        let charged = own.months.iter();
        Self {
            provider: own.provider.clone(),
            billed: BilledCost::default(),
            cost: Usd::ZERO,
            resources: 0,
            metered,
            corrected,
            differences: charged.map(|(month, own)| (*month, -(own.metered + own.corrected))).collect(),
            coverage: coverage(own, settled),
        }
    }

    fn add(&mut self, resource: &BilledResource, basis: Basis) {
        let by_basis = |cost: BilledCost| match basis {
            Basis::Billed => cost.billed,
            Basis::Effective => cost.effective,
        };
        self.billed = self.billed.plus(resource.cost());
        self.cost = by_basis(self.billed);
        self.resources += 1;
        for (month, cost) in &resource.months {
            let difference = self.differences.entry(*month).or_default();
            *difference = difference.saturating_add(by_basis(*cost));
        }
        // Credits may come without tags where usage has them.
        if resource.tags.instance.is_none() && resource.used.is_some() && self.coverage == Coverage::Whole {
            self.coverage = Coverage::MachineOnly;
        }
    }
}

/// Whose resource it is, if it is ours and we know whose.
fn owner<'a>(
    resource: &BilledResource,
    installation: &str,
    ours: &'a BTreeMap<InstanceId, OwnCost>,
    by_cloud_id: &BTreeMap<&CloudId, InstanceId>,
) -> Option<&'a OwnCost> {
    if resource.tags.installation.as_deref().is_some_and(|tag| tag != installation) {
        return None;
    }
    let tag: Option<InstanceId> = resource.tags.instance.as_deref().and_then(|tag| tag.parse().ok());
    let by_tag = tag.and_then(|instance| ours.get(&instance));
    by_tag.or_else(|| ours.get(by_cloud_id.get(resource.cloud_id.as_ref()?)?))
}

/// The time in which a bill has everything. A bill that ends with a month is taken for one that the cloud has closed; in
/// any other the last day may be unfinished. (One fetched in the first hours of the next month is wrong about that: what
/// the cloud adds later is found by the next comparison.)
fn settled(period: Period) -> Period {
    let end_of_month = Month::of(period.to) != Month::of(period.to - Span::from_millis(1));
    Period::new(period.from, if end_of_month { period.to } else { period.to - LATE_USAGE })
}

fn coverage(own: &OwnCost, settled: Option<Period>) -> Coverage {
    let Some(settled) = settled else { return Coverage::MayGoOn };
    let Some(period) = own.period else {
        return if own.over { Coverage::NeverCharged } else { Coverage::MayGoOn };
    };
    if !own.over || period.to > settled.to {
        Coverage::MayGoOn
    } else if period.from < settled.from {
        Coverage::BeganBefore
    } else {
        Coverage::Whole
    }
}

fn provider_errors(
    instances: &BTreeMap<InstanceId, BillAndCharges>,
) -> BTreeMap<ProviderName, ProviderError> {
    let mut providers: BTreeMap<ProviderName, (ProviderError, Vec<i64>)> = BTreeMap::new();
    for (instance, compared) in instances.iter().filter(|(_, compared)| compared.coverage == Coverage::Whole)
    {
        let (error, single) = providers.entry(compared.provider.clone()).or_default();
        error.instances += 1;
        error.billed = error.billed.saturating_add(compared.cost);
        error.metered = error.metered.saturating_add(compared.metered);
        let Some(off) = basis_points(compared.metered, compared.cost) else { continue };
        single.push(off.saturating_abs());
        if error.worst.is_none_or(|(_, worst)| off.saturating_abs() > worst.saturating_abs()) {
            error.worst = Some((*instance, off));
        }
    }
    let finished = providers.into_iter().map(|(provider, (mut error, mut single))| {
        error.basis_points = basis_points(error.metered, error.billed);
        single.sort_unstable();
        error.median_basis_points = single.get(single.len().saturating_sub(1) / 2).copied();
        (provider, error)
    });
    finished.collect()
}

/// By how much an estimate is above what was billed, in hundredths of a percent of that, rounded towards 0.
fn basis_points(metered: Usd, billed: Usd) -> Option<i64> {
    if billed == Usd::ZERO {
        return None;
    }
    let (metered, billed) = (i128::from(metered.as_nanos()), i128::from(billed.as_nanos()));
    let points = (metered - billed) * 10_000 / billed.abs();
    Some(points.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}
