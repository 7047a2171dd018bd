//! A comparison for people: what was read, how good the estimates were, what differs, what leaks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use bursar_ledger::bill::{
    BillAndCharges, BilledCost, BilledResource, Coverage, ProviderError, Reconciliation, UnbilledReason,
};
use bursar_model::{ExperimentId, InstanceId, Period, Usd};

use super::{Found, NamedFile};
use crate::{
    exit::Failure,
    output::{line, table},
    source::Source,
};

/// Bad rows shown of a file: the others are alike.
const BAD_ROWS_SHOWN: usize = 5;
/// Rows of a table: the largest differences, the dearest leaks. `--json` has all.
const ROWS_SHOWN: usize = 20;
/// Payers named of an instance.
const PAYERS_SHOWN: usize = 3;

/// Everything, one part after the other; what is empty is left out.
pub(super) async fn text(
    source: &Source,
    found: &Found<'_>,
    total: BilledCost,
    period: Option<Period>,
) -> Result<(), Failure> {
    let Found { installation: _, basis: _, files, compared, differing, corrected } = found;
    for file in *files {
        read(file)?;
    }
    line(&extent(compared, total, period))?;
    providers(compared)?;
    differences(source, compared).await?;
    not_corrected(compared)?;
    unbilled(compared)?;
    leaks(compared)?;
    line("")?;
    line(&match (differing, corrected) {
        (0, _) => "nothing to correct".to_owned(),
        (count, 0) => format!(
            "{} to enter, one for each instance and month; run it again with --apply",
            counted(*count, "correction")
        ),
        (_, count) => format!("{} entered", counted(*count, "correction")),
    })
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn read(file: &NamedFile) -> Result<(), Failure> {
    let NamedFile { file, read } = file;
    let bad = if read.bad_row_count == 0 {
        String::new()
    } else {
        format!(", {} not understood", read.bad_row_count)
    };
    line(&format!("{}: {}, {} rows{bad}", file.display(), read.format, read.rows))?;
    for row in read.bad_rows.iter().take(BAD_ROWS_SHOWN) {
        line(&format!("  line {}: {}", row.line, row.why))?;
    }
    Ok(())
}

/// What the bill is over.
fn extent(compared: &Reconciliation, total: BilledCost, period: Option<Period>) -> String {
    let ours: Usd =
        compared.instances.values().map(|found| found.billed.billed).fold(Usd::ZERO, Usd::saturating_add);
    let sums = format!(
        "{} billed, of which {} is for {} known here",
        total.billed.rounded(),
        ours.rounded(),
        counted(compared.instances.len(), "instance")
    );
    match (period, compared.settled) {
        (Some(period), Some(settled)) if settled.to < period.to => {
            format!("{} to {}, complete until {}: {sums}", period.from, period.to, settled.to)
        }
        (Some(period), _) => format!("{} to {}: {sums}", period.from, period.to),
        (None, _) => format!(
            "{sums}; no row is of a day or an hour, so that nothing can be corrected: export it by the day"
        ),
    }
}

fn providers(compared: &Reconciliation) -> Result<(), Failure> {
    if compared.providers.is_empty() {
        return Ok(());
    }
    let row = |(provider, error): (&bursar_model::ProviderName, &ProviderError)| {
        let ProviderError { instances, billed, metered, basis_points, median_basis_points, worst } = error;
        let worst = worst.map(|(instance, points)| format!("{} ({instance})", percent(points)));
        vec![
            provider.to_string(),
            instances.to_string(),
            billed.rounded(),
            metered.rounded(),
            basis_points.map_or_else(|| "-".to_owned(), percent),
            median_basis_points.map_or_else(|| "-".to_owned(), |points| percent(points).replace('+', "")),
            worst.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    line("")?;
    let headers = ["provider", "instances", "billed", "metered", "error", "median", "worst"];
    table(&headers, compared.providers.iter().map(row).collect(), &[1, 2, 3, 4, 5])
}

/// The largest differences first, where there are any.
async fn differences(source: &Source, compared: &Reconciliation) -> Result<(), Failure> {
    let mut differing: Vec<(&InstanceId, &BillAndCharges)> =
        compared.instances.iter().filter(|(_, found)| found.difference() != Usd::ZERO).collect();
    if differing.is_empty() {
        return Ok(());
    }
    differing
        .sort_by_key(|(instance, found)| (Reverse(found.difference().as_nanos().unsigned_abs()), **instance));
    let hidden = differing.len().saturating_sub(ROWS_SHOWN);
    let mut names = BTreeMap::new();
    let mut rows = Vec::new();
    for (instance, found) in differing.into_iter().take(ROWS_SHOWN) {
        rows.push(vec![
            instance.to_string(),
            found.cost.rounded(),
            found.metered.saturating_add(found.corrected).rounded(),
            found.difference().rounded(),
            coverage(found.coverage).to_owned(),
            payers(source, *instance, &mut names).await?,
        ]);
    }
    line("")?;
    table(&["instance", "billed", "charged", "difference", "coverage", "payers"], rows, &[1, 2, 3])?;
    more(hidden)
}

/// Who pays, by name.
async fn payers(
    source: &Source,
    instance: InstanceId,
    names: &mut BTreeMap<ExperimentId, String>,
) -> Result<String, Failure> {
    let mut ids: Vec<ExperimentId> =
        source.allocations(instance).await?.iter().map(|part| part.payer).collect();
    ids.dedup();
    let hidden = ids.len().saturating_sub(PAYERS_SHOWN);
    let mut shown = Vec::new();
    for id in ids.into_iter().take(PAYERS_SHOWN) {
        let name = match names.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(source.experiment(&id.to_string()).await?.experiment.name),
        };
        shown.push(name.clone());
    }
    if hidden > 0 {
        shown.push(format!("{hidden} more"));
    }
    Ok(shown.join(", "))
}

/// What the bill may not have all of, with what to do about it.
fn not_corrected(compared: &Reconciliation) -> Result<(), Failure> {
    let reasons = [
        (Coverage::MayGoOn, "not over, or so late that more may be billed: compare a later bill"),
        (Coverage::BeganBefore, "began before the bill: give the months before in the same command"),
        (
            Coverage::MachineOnly,
            "known by the cloud id alone: disks and addresses carry no tag and are missing",
        ),
        (Coverage::NeverCharged, "never charged to anybody, so nobody is there to pay"),
    ];
    let mut rows = Vec::new();
    for (of, why) in reasons {
        let (mut count, mut billed) = (0_u32, Usd::ZERO);
        for found in compared.instances.values().filter(|found| found.coverage == of) {
            count += 1;
            billed = billed.saturating_add(found.cost);
        }
        if count > 0 {
            rows.push(vec![coverage(of).to_owned(), count.to_string(), billed.rounded(), why.to_owned()]);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    line("")?;
    table(&["not corrected", "instances", "billed", "why"], rows, &[1, 2])
}

fn unbilled(compared: &Reconciliation) -> Result<(), Failure> {
    let Some(reason) = compared.unbilled_reason else { return Ok(()) };
    let reason = match reason {
        UnbilledReason::TagsNotActivated => {
            "the bill has no tag of ours: activate `bursar:installation` and `bursar:instance` for cost allocation, and export tags"
        }
        UnbilledReason::NotBilledYet => "not billed yet, or in another account's bill",
    };
    let count = compared.unbilled.len();
    line("")?;
    line(&format!("not in the bill, though of its time: {}: {reason}", counted(count, "instance")))?;
    let row = |found: &bursar_ledger::bill::Unbilled| {
        vec![found.instance.to_string(), found.provider.to_string(), found.charged.rounded()]
    };
    let rows = compared.unbilled.iter().take(ROWS_SHOWN).map(row).collect();
    table(&["not billed", "provider", "charged"], rows, &[2])?;
    more(count.saturating_sub(ROWS_SHOWN))
}

fn leaks(compared: &Reconciliation) -> Result<(), Failure> {
    if compared.leaks.is_empty() {
        return Ok(());
    }
    let mut dearest: Vec<&BilledResource> = compared.leaks.iter().collect();
    dearest.sort_by_key(|leak| Reverse(leak.cost().billed));
    let row = |leak: &BilledResource| {
        let moment = |at: fn(Period) -> bursar_model::Timestamp| {
            leak.used.map_or_else(|| "-".to_owned(), |used| at(used).to_string())
        };
        vec![
            leak.resource.clone(),
            leak.tags.instance.clone().unwrap_or_else(|| "-".to_owned()),
            leak.account.clone(),
            leak.region.clone(),
            leak.cost().billed.rounded(),
            moment(|used| used.from),
            moment(|used| used.to),
        ]
    };
    let count = dearest.len();
    line("")?;
    let headers = ["leak", "instance tag", "account", "region", "billed", "first used", "last used"];
    table(&headers, dearest.into_iter().take(ROWS_SHOWN).map(row).collect(), &[4])?;
    more(count.saturating_sub(ROWS_SHOWN))
}

fn more(hidden: usize) -> Result<(), Failure> {
    if hidden == 0 { Ok(()) } else { line(&format!("{hidden} more; see all with --json")) }
}

fn coverage(coverage: Coverage) -> &'static str {
    match coverage {
        Coverage::Whole => "whole",
        Coverage::BeganBefore => "began before",
        Coverage::MayGoOn => "may go on",
        Coverage::MachineOnly => "machine only",
        Coverage::NeverCharged => "never charged",
    }
}

/// Hundredths of a percent for people, with their sign.
fn percent(basis_points: i64) -> String {
    let sign = if basis_points < 0 { '-' } else { '+' };
    let size = basis_points.unsigned_abs();
    format!("{sign}{}.{:02}%", size / 100, size % 100)
}
