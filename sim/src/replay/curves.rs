//! Curves over a replay: what changed when, as few points as a picture can show.

use bursar_model::{Timestamp, Usd};
use serde::Serialize;

use super::figures::Steps;

/// As many as a picture of 700 pixels can show.
const POINTS: i64 = 240;

/// Values at evenly spaced moments. Counts are means over the time up to their moment, in thousandths, because a
/// machine that lived between two moments would not be seen otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Curves {
    /// The moments; the first is the start.
    pub at: Vec<Timestamp>,
    /// What was charged by then.
    pub cost_usd: Vec<Usd>,
    /// Spot instances.
    pub spot_instances_milli: Vec<i64>,
    /// On-demand instances.
    pub on_demand_instances_milli: Vec<i64>,
    /// Jobs that waited.
    pub queue_milli: Vec<i64>,
    #[serde(skip)]
    pub(super) fleet_peak: u32,
    #[serde(skip)]
    pub(super) fleet_mean: f64,
}

impl Curves {
    #[expect(clippy::float_arithmetic, reason = "a mean for people")]
    pub(super) fn new(steps: Steps, from: Timestamp, to: Timestamp) -> Self {
        let Steps { cost, spot, on_demand, queue } = steps;
        let width = to.since(from).as_millis().max(1);
        let at: Vec<Timestamp> =
            (0..=POINTS).map(|n| Timestamp::from_millis(from.as_millis() + width * n / POINTS)).collect();
        let fleet = in_order(spot.iter().chain(&on_demand).copied().collect());
        let mut sum = 0;
        let levels = fleet.iter().map(|(_, by)| {
            sum += by;
            sum
        });
        let fleet_peak = u32::try_from(levels.max().unwrap_or_default()).unwrap_or_default();
        let ends = [from, to];
        let mean = means(fleet, &ends)[1];
        let mut spent = in_order(cost).into_iter().peekable();
        let mut cost = Usd::ZERO;
        let cost_by = |moment: &Timestamp| {
            while let Some((_, nanos)) = spent.next_if(|(when, _)| when <= moment) {
                cost += Usd::from_nanos(nanos);
            }
            cost
        };
        Self {
            cost_usd: at.iter().map(cost_by).collect(),
            spot_instances_milli: means(in_order(spot), &at),
            on_demand_instances_milli: means(in_order(on_demand), &at),
            queue_milli: means(in_order(queue), &at),
            fleet_peak,
            fleet_mean: mean as f64 / 1000.0,
            at,
        }
    }
}

fn in_order(mut steps: Vec<(Timestamp, i64)>) -> Vec<(Timestamp, i64)> {
    // Falls before rises of the same moment, so that what follows on something else is not both.
    steps.sort_unstable();
    steps
}

/// For each moment the mean of a count since the moment before, in thousandths.
fn means(steps: Vec<(Timestamp, i64)>, at: &[Timestamp]) -> Vec<i64> {
    let mut steps = steps.into_iter().peekable();
    let mut level: i64 = 0;
    let mut before = at.first().copied().unwrap_or_default();
    let mut mean = |moment: &Timestamp| {
        let (began, mut area) = (before, 0_i128);
        while let Some((when, by)) = steps.next_if(|(when, _)| when <= moment) {
            area += i128::from(level) * i128::from(when.since(before).as_millis());
            (before, level) = (before.max(when), level + by);
        }
        area += i128::from(level) * i128::from(moment.since(before).as_millis());
        before = *moment;
        let width = moment.since(began).as_millis();
        if width == 0 { level * 1000 } else { (area * 1000 / i128::from(width)) as i64 }
    };
    at.iter().map(&mut mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_between_two_moments_is_seen() {
        let at = Timestamp::from_millis;
        let steps = vec![(at(10), 1), (at(15), -1), (at(40), 2)];
        assert_eq!(means(steps, &[at(0), at(20), at(40), at(50)]), [0, 250, 0, 2000]);
    }

    #[test]
    fn what_follows_at_once_is_no_peak() {
        let at = Timestamp::from_millis;
        let steps =
            Steps { spot: vec![(at(0), 1), (at(50), -1)], on_demand: vec![(at(50), 1)], ..Steps::default() };
        let curves = Curves::new(steps, at(0), at(100));
        assert_eq!(curves.fleet_peak, 1);
        assert_eq!(curves.at.len(), 241);
    }
}
