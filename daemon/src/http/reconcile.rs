//! Reconciliation with a cloud's bill. Whoever has the bill compares it, because it is large and lies with them: they are
//! given what was charged, and send back what should change.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
};
use bursar_ledger::bill::{Month, OwnCost, charged_by_month, correction};
use bursar_model::{Charge, InstanceId, Usd};
use bursar_store::{ChargeFilter, Cursor, Reader};
use serde::{Deserialize, Serialize};

use super::{Api, ApiError, read::aside, submit::parse};
use crate::{
    inbox::{CorrectError, Message},
    views::{List, ListWanted, ViewError},
};

/// The most corrections in one request: one turn stores them in one transaction, while agents wait.
pub const CORRECTIONS_MAX: usize = 500;

/// The largest difference: a month of the dearest machine there is costs a tenth of it. More than 500 of these would leave
/// the range of `Usd`, and one of them is a bill that was misread.
const DIFFERENCE_MAX: Usd = Usd::from_dollars(1_000_000);

/// Charges read at once.
const PAGE: u32 = 1000;

/// `POST /v1/reconcile`: mends what was charged. All of it or nothing; to repeat it is refused, so nothing is mended twice.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectRequest {
    /// At most 500, each month of an instance once.
    pub corrections: Vec<WantedCorrection>,
}

/// What should change in a month of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedCorrection {
    /// Which instance. It is over.
    pub instance: InstanceId,
    /// Which month, in UTC.
    pub month: Month,
    /// What was charged in it when the bill was compared. Refused where that is no longer so.
    pub charged: Usd,
    /// What the bill asks for beyond that.
    pub difference: Usd,
}

/// How much was mended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CorrectAnswer {
    /// That many months of instances.
    pub corrected: usize,
}

/// `GET /v1/reconcile`: what each instance was charged, the oldest first.
pub(super) async fn own_costs(
    State(api): State<Api>,
    Query(wanted): Query<ListWanted>,
) -> Result<Json<List<OwnCost>>, ApiError> {
    let views = api.views();
    aside(move || views.own_costs(&wanted)).await
}

pub(super) async fn correct(State(api): State<Api>, body: Bytes) -> Result<Json<CorrectAnswer>, ApiError> {
    let CorrectRequest { corrections } = parse(&body)?;
    if corrections.is_empty() || corrections.len() > CORRECTIONS_MAX {
        return Err(ApiError::bad_request(format!("corrections: 1 to {CORRECTIONS_MAX} are taken at once")));
    }
    let corrected = corrections.len();
    // Before the store is read: what is mended in between makes the charges unfit, and is seen by this number.
    let as_of = api.snapshot.borrow().corrections;
    let reader = api.reader.clone();
    let Json(charges) = aside(move || to_charge(&reader, &corrections)).await?;
    api.inbox.ask(|reply| Message::CorrectByBill { charges, as_of, reply }).await??;
    Ok(Json(CorrectAnswer { corrected }))
}

/// The charges that mend what is wanted, where it fits what was charged.
fn to_charge(reader: &Reader, wanted: &[WantedCorrection]) -> Result<Vec<Charge>, ApiError> {
    let mut by_instance: BTreeMap<InstanceId, BTreeMap<Month, WantedCorrection>> = BTreeMap::new();
    for one in wanted {
        let size = one.difference.as_nanos().unsigned_abs();
        if size == 0 || size > DIFFERENCE_MAX.as_nanos().unsigned_abs() {
            let WantedCorrection { instance, month, difference, .. } = one;
            let detail = format!(
                "corrections: {instance} {month} differs by {difference}, which should be more than 0 and at most {DIFFERENCE_MAX}"
            );
            return Err(ApiError::bad_request(detail));
        }
        if by_instance.entry(one.instance).or_default().insert(one.month, *one).is_some() {
            return Err(ApiError::bad_request(format!(
                "corrections: {} {} is there twice",
                one.instance, one.month
            )));
        }
    }
    let mut made = Vec::with_capacity(wanted.len());
    for (id, months) in by_instance {
        let instance = reader.instance(id)?.ok_or_else(|| ViewError::missing("instance", &id.to_string()))?;
        if instance.is_live() {
            return Err(CorrectError::NotOver(id).into());
        }
        let charges = charges_of(reader, id)?;
        let in_months = charged_by_month(&charges);
        for (month, WantedCorrection { charged: seen, difference, .. }) in months {
            if in_months.get(&month).copied().unwrap_or_default() != seen {
                return Err(CorrectError::Changed.into());
            }
            made.push(correction(id, month, difference, &charges).ok_or(CorrectError::NeverCharged(id))?);
        }
    }
    Ok(made)
}

fn charges_of(reader: &Reader, instance: InstanceId) -> Result<Vec<Charge>, ApiError> {
    let filter = ChargeFilter { instance: Some(instance), ..ChargeFilter::default() };
    let mut charges = Vec::new();
    let mut after: Option<Cursor> = None;
    // Ends because every page moves on; an instance has a few charges a lease.
    loop {
        let page = reader.charges(&filter, after, PAGE)?;
        charges.extend(page.rows.into_iter().map(|row| row.charge));
        after = page.next;
        if after.is_none() {
            return Ok(charges);
        }
    }
}
