//! Metering: what an instance cost since it was last charged, and who pays it for what.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bursar_model::{
    Attempt, AttemptState, Budget, BudgetKey, Category, Charge, ChargeClass, ChargeLine, Costs, Event,
    ExperimentId, Instance, InstanceState, Meter, Period, Segment, Timestamp, Usd,
};

use crate::{allocate::allocate, hold::with_holds, shares::used_weights};

/// Charges with what becomes of the meter and the holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Metered {
    /// The charges in order, each with the instance's meter after it. Never empty.
    steps: Vec<(Charge, Meter)>,
    /// What each share holds after the last of them.
    pub held: BTreeMap<ExperimentId, Usd>,
}

impl Metered {
    /// The instance's meter afterwards.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.steps.last().expect("what is metered has a charge").1
    }

    /// The charges, in order.
    pub fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.steps.iter().map(|(charge, _)| charge)
    }

    /// As the events that make it so. Holds shrink with the last: in between both count.
    pub fn into_events(self) -> impl Iterator<Item = Event> {
        let Self { steps, held } = self;
        let last = steps.len() - 1;
        let mut held = Some(held);
        steps.into_iter().enumerate().map(move |(index, (charge, meter))| {
            let held = if index == last { held.take().unwrap_or_default() } else { BTreeMap::new() };
            Event::Charged { charge, meter, held }
        })
    }
}

/// Charges an instance up to `until` at the prices in force, or `None` where nothing is to be charged. `live` are its
/// attempts. To be called before anything changes of its shares or of what runs on it. There is one charge for each
/// price, and a new one at each moment of `cuts` and at midnight UTC, so that every charge lies in one day, and
/// what is charged late for the time before a window is told from what counts in it; and one where the instance or what
/// runs on it was told to stop, so that what it did until then is not taken for that.
#[must_use]
pub fn meter<'a>(
    instance: &Instance,
    live: impl Iterator<Item = &'a Attempt> + Clone,
    until: Timestamp,
    cuts: &BTreeSet<Timestamp>,
) -> Option<Metered> {
    instance.meter.from?;
    let period = Period::new(instance.meter.through, until);
    if period.is_empty() || instance.shares.is_empty() {
        return None;
    }
    let turns = turns(instance, live.clone());
    let mut meter = instance.meter.clone();
    let mut steps = Vec::new();
    for Segment { period, price } in instance.segments(period) {
        let rates = instance.rates_at(price);
        for period in cut(period, cuts, &turns) {
            let parts = parts(instance, live.clone(), period.from);
            let weights: Vec<u32> = parts.iter().map(|(_, _, weight)| *weight).collect();
            let (costs, remainders) = rates.costs_with_remainders(period.span(), meter.remainders);
            let split = costs.map(|cost| allocate(cost, &weights));
            let lines = parts
                .iter()
                .enumerate()
                .map(|(index, (payer, category, _))| ChargeLine {
                    payer: *payer,
                    account: instance.shares[payer].account.clone(),
                    category: *category,
                    costs: Costs {
                        effective: split.effective[index],
                        contracted: split.contracted[index],
                        list: split.list[index],
                        on_demand: split.on_demand[index],
                    },
                })
                .collect();
            meter = Meter { from: meter.from, through: period.to, remainders, costs: meter.costs + costs };
            let charge = Charge { instance: instance.id, period, class: ChargeClass::Usage, rates, lines };
            steps.push((charge, meter.clone()));
        }
    }
    let outstanding = instance.outstanding(meter.through, instance.held_until());
    let mut shares = with_holds(instance, instance.shares.clone(), outstanding);
    // What is charged comes out of what was held, to the nano-dollar: metering never raises the sum of both, as rounding
    // and a price above the ceiling would.
    let mut left: BTreeMap<ExperimentId, Usd> =
        instance.shares.iter().map(|(payer, share)| (*payer, share.held)).collect();
    for line in steps.iter().flat_map(|(charge, _)| &charge.lines) {
        *left.entry(line.payer).or_default() -= line.costs.effective;
    }
    for (payer, share) in &mut shares {
        share.held = share.held.min(left[payer]).max(Usd::ZERO);
    }
    let held = shares.into_iter().map(|(payer, share)| (payer, share.held)).collect();
    Some(Metered { steps, held })
}

/// When the windows of budgets began. Late charges of the time before belong to the windows before. Only budgets that
/// outlive their work have windows; they come first and are few.
#[must_use]
pub fn cuts(budgets: &BTreeMap<BudgetKey, Budget>) -> BTreeSet<Timestamp> {
    let lasting = budgets.iter().take_while(|(key, _)| !key.ends_with_its_work());
    lasting.filter_map(|(_, budget)| budget.window).map(|window| window.from).collect()
}

/// A period in parts that meet at the cuts and turns inside it and at each midnight UTC.
fn cut(period: Period, cuts: &BTreeSet<Timestamp>, turns: &[Timestamp]) -> Vec<Period> {
    const DAY_MILLIS: i64 = 86_400_000;
    let first_midnight = period.from.as_millis().div_euclid(DAY_MILLIS) + 1;
    let last_midnight = period.to.as_millis().div_euclid(DAY_MILLIS);
    let midnights = (first_midnight..=last_midnight).map(|day| Timestamp::from_millis(day * DAY_MILLIS));
    let mut ends: BTreeSet<Timestamp> = midnights.chain(cuts.iter().chain(turns).copied()).collect();
    ends.insert(period.to);
    let mut from = period.from;
    let mut parts = Vec::with_capacity(1);
    for to in ends.range((Bound::Excluded(period.from), Bound::Included(period.to))) {
        parts.push(Period::new(from, *to));
        from = *to;
    }
    parts
}

/// When the instance and what runs on it were told to stop.
fn turns<'a>(instance: &Instance, live: impl Iterator<Item = &'a Attempt>) -> Vec<Timestamp> {
    let stopping = |attempt: &Attempt| match attempt.state {
        AttemptState::Stopping { since, .. } => Some(since),
        AttemptState::Assigned | AttemptState::Running | AttemptState::Ended { .. } => None,
    };
    let ending = match instance.state {
        InstanceState::Draining { since, .. } | InstanceState::Terminating { since, .. } => Some(since),
        InstanceState::Intended { .. }
        | InstanceState::Booting { .. }
        | InstanceState::Ready { .. }
        | InstanceState::Gone { .. } => None,
    };
    live.filter_map(stopping).chain(ending).collect()
}

/// The parts of an instance as of a moment: payer, category and weight. Every share is in it once or, where only a part of
/// it is used, twice, under two categories.
fn parts<'a>(
    instance: &Instance,
    live: impl Iterator<Item = &'a Attempt> + Clone,
    at: Timestamp,
) -> Vec<(ExperimentId, Category, u32)> {
    let unused = match instance.state {
        InstanceState::Intended { .. } | InstanceState::Booting { .. } => Category::Boot,
        InstanceState::Ready { .. } => Category::Idle,
        // Whose agent was never heard only ever booted, however it is ended.
        InstanceState::Draining { .. } | InstanceState::Terminating { .. } | InstanceState::Gone { .. }
            if instance.token_digest.is_none() =>
        {
            Category::Boot
        }
        InstanceState::Draining { since, .. } | InstanceState::Terminating { since, .. } if at < since => {
            Category::Idle
        }
        InstanceState::Draining { .. } | InstanceState::Terminating { .. } | InstanceState::Gone { .. } => {
            Category::Drain
        }
    };
    let stopping: BTreeMap<ExperimentId, bool> = live
        .clone()
        .map(|attempt| {
            let stops = matches!(attempt.state, AttemptState::Stopping { since, .. } if since <= at);
            (attempt.experiment, stops)
        })
        .collect();
    let used = used_weights(&instance.offering.instance_type, live);

    let mut parts = Vec::with_capacity(instance.shares.len() + used.len());
    for (payer, share) in &instance.shares {
        let own_use = used.get(payer).copied().unwrap_or(0).min(share.weight);
        let using = if stopping.get(payer) == Some(&true) { Category::Drain } else { Category::Run };
        // One part where both are the same: work that stops on an instance that drains.
        let own_use = if using == unused { 0 } else { own_use };
        if own_use > 0 {
            parts.push((*payer, using, own_use));
        }
        if share.weight > own_use {
            parts.push((*payer, unused, share.weight - own_use));
        }
    }
    parts
}

/// Turns what was charged on an instance as `run` since the last checkpoint into `lost`, for an attempt whose work since
/// then is lost. Two lines that cancel out for each charge: the cost of the instance stays as it is.
#[must_use]
pub fn lost_work(instance: &Instance, attempt: &Attempt) -> Option<Metered> {
    let safe_until = attempt.checkpoint_at.max(attempt.started_at).unwrap_or(attempt.assigned_at);
    let share = instance.shares.get(&attempt.experiment)?;
    let (_, node) = attempt.node_on(instance.id)?;
    let mut steps = Vec::new();
    for charge in &node.unsaved {
        // Each in its own day and window: there the work was paid for.
        let lost = Period::new(charge.period.from.max(safe_until), charge.period.to);
        let costs = charge.costs.map(|cost| part_by_time(cost, lost, charge.period));
        if costs.effective == Usd::ZERO {
            continue;
        }
        let line = |category, costs| ChargeLine {
            payer: attempt.experiment,
            account: share.account.clone(),
            category,
            costs,
        };
        let charge = Charge {
            instance: instance.id,
            period: lost,
            class: ChargeClass::Correction,
            rates: instance.rates_at(instance.price),
            lines: vec![line(Category::Run, -costs), line(Category::Lost, costs)],
        };
        steps.push((charge, instance.meter.clone()));
    }
    (!steps.is_empty()).then_some(Metered { steps, held: BTreeMap::new() })
}

/// The part of an amount that falls on a part of its period, rounded down.
fn part_by_time(amount: Usd, part: Period, whole: Period) -> Usd {
    let product = i128::from(amount.as_nanos()) * i128::from(part.span().as_millis());
    let nanos = product.div_euclid(i128::from(whole.span().as_millis().max(1)));
    Usd::from_nanos(nanos as i64)
}
