//! Metering: what an instance cost since it was last charged, and who pays it for what.

use std::collections::BTreeMap;

use bursar_model::{
    Attempt, AttemptState, Category, Charge, ChargeClass, ChargeLine, Event, ExperimentId, Instance,
    InstanceState, Meter, Period, Timestamp, Usd,
};

use crate::{allocate::allocate, hold::with_holds, shares::used_weights};

/// A charge with what becomes of the meter and the holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Metered {
    /// The charge.
    pub charge: Charge,
    /// The instance's meter afterwards.
    pub meter: Meter,
    /// What each share holds afterwards.
    pub held: BTreeMap<ExperimentId, Usd>,
}

impl Metered {
    /// As the event that makes it so.
    #[must_use]
    pub fn into_event(self) -> Event {
        let Self { charge, meter, held } = self;
        Event::Charged { charge, meter, held }
    }
}

/// Charges an instance up to `until` at the price in force, or `None` where nothing is to be charged. `live` are its
/// attempts. To be called before anything changes of its price, its shares or what runs on it.
#[must_use]
pub fn meter<'a>(
    instance: &Instance,
    live: impl Iterator<Item = &'a Attempt> + Clone,
    until: Timestamp,
) -> Option<Metered> {
    instance.meter.from?;
    let period = Period::new(instance.meter.through, until);
    if period.span().as_millis() == 0 || instance.shares.is_empty() {
        return None;
    }
    let od_price = instance.offering.on_demand_price.unwrap_or(instance.price);
    let (cost, remainder) = instance.price.cost_with_remainder(period.span(), instance.meter.remainder);
    let (on_demand, on_demand_remainder) =
        od_price.cost_with_remainder(period.span(), instance.meter.on_demand_remainder);

    let parts = parts(instance, live);
    let weights: Vec<u32> = parts.iter().map(|(_, _, weight)| *weight).collect();
    let amounts = allocate(cost, &weights);
    let on_demand_amounts = allocate(on_demand, &weights);
    let lines = parts
        .iter()
        .zip(amounts.into_iter().zip(on_demand_amounts))
        .map(|((payer, category, _), (amount, on_demand_amount))| ChargeLine {
            payer: *payer,
            account: instance.shares[payer].account.clone(),
            category: *category,
            amount,
            on_demand_amount,
        })
        .collect();

    let meter = Meter {
        from: instance.meter.from,
        through: period.to,
        remainder,
        on_demand_remainder,
        cost: instance.meter.cost + cost,
    };
    let uncharged = instance.paid_until().since(meter.through);
    let shares = with_holds(instance, instance.shares.clone(), uncharged);
    let held = shares.into_iter().map(|(payer, share)| (payer, share.held)).collect();
    let charge = Charge {
        instance: instance.id,
        period,
        class: ChargeClass::Usage,
        price: instance.price,
        on_demand_price: od_price,
        lines,
    };
    Some(Metered { charge, meter, held })
}

/// The parts of an instance: payer, category and weight. Every share is in it once or, where only a part of it is used,
/// twice.
fn parts<'a>(
    instance: &Instance,
    live: impl Iterator<Item = &'a Attempt> + Clone,
) -> Vec<(ExperimentId, Category, u32)> {
    let unused = match instance.state {
        InstanceState::Intended { .. } | InstanceState::Booting { .. } => Category::Boot,
        InstanceState::Ready { .. } => Category::Idle,
        InstanceState::Draining { .. } | InstanceState::Terminating { .. } | InstanceState::Gone { .. } => {
            Category::Drain
        }
    };
    let stopping: BTreeMap<ExperimentId, bool> = live
        .clone()
        .map(|attempt| (attempt.experiment, matches!(attempt.state, AttemptState::Stopping { .. })))
        .collect();
    let used = used_weights(&instance.offering.instance_type, live);

    let mut parts = Vec::with_capacity(instance.shares.len() + used.len());
    for (payer, share) in &instance.shares {
        let own_use = used.get(payer).copied().unwrap_or(0).min(share.weight);
        if own_use > 0 {
            let category = if stopping.get(payer) == Some(&true) { Category::Drain } else { Category::Run };
            parts.push((*payer, category, own_use));
        }
        if share.weight > own_use {
            parts.push((*payer, unused, share.weight - own_use));
        }
    }
    parts
}

/// Turns what was charged as `run` since the last checkpoint into `lost`, for an attempt whose work since then is lost
/// at `at`. Two lines that cancel out: the cost of the instance stays as it is.
#[must_use]
pub fn lost_work(instance: &Instance, attempt: &Attempt, at: Timestamp) -> Option<Metered> {
    let safe_until = attempt.checkpoint_at.max(attempt.started_at).unwrap_or(attempt.assigned_at);
    let share = instance.shares.get(&attempt.experiment)?;
    let (mut amount, mut on_demand_amount) = (Usd::ZERO, Usd::ZERO);
    for charge in &attempt.unsaved {
        let unsafe_part = Period::new(charge.period.from.max(safe_until), charge.period.to);
        amount += part_by_time(charge.amount, unsafe_part, charge.period);
        on_demand_amount += part_by_time(charge.on_demand_amount, unsafe_part, charge.period);
    }
    if amount == Usd::ZERO {
        return None;
    }
    let line = |category, amount, on_demand_amount| ChargeLine {
        payer: attempt.experiment,
        account: share.account.clone(),
        category,
        amount,
        on_demand_amount,
    };
    Some(Metered {
        charge: Charge {
            instance: instance.id,
            period: Period::new(safe_until, at),
            class: ChargeClass::Correction,
            price: instance.price,
            on_demand_price: instance.offering.on_demand_price.unwrap_or(instance.price),
            lines: vec![
                line(Category::Run, -amount, -on_demand_amount),
                line(Category::Lost, amount, on_demand_amount),
            ],
        },
        meter: instance.meter.clone(),
        held: BTreeMap::new(),
    })
}

/// The part of an amount that falls on a part of its period, rounded down.
fn part_by_time(amount: Usd, part: Period, whole: Period) -> Usd {
    let product = i128::from(amount.as_nanos()) * i128::from(part.span().as_millis());
    let nanos = product.div_euclid(i128::from(whole.span().as_millis().max(1)));
    Usd::from_nanos(nanos as i64)
}
