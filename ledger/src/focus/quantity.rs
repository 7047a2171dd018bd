//! Hours, unit prices and ratios in whole 10^-12, exact where they must sum up.
//!
//! Twelve decimals, because a unit price times a quantity must give the cost to the nano-dollar: at 100 dollars an hour
//! half a unit of the last place is 0.05 nano-dollars.

use bursar_model::{Usd, UsdPerHour};

use super::FocusLine;

/// How many decimals the numbers of this module have.
pub(super) const DECIMALS: u32 = 12;
const ONE: i128 = 1_000_000_000_000;
const HOUR_MS: i128 = 3_600_000;
/// Units of this module in a nano-dollar.
const NANO: i128 = 1_000;

/// Dollars an hour, in units of this module.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitPrices {
    pub(super) list: i128,
    pub(super) contracted: i128,
}

/// The quantities of one row, in units of this module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantities {
    /// Hours that the costs stand for.
    pub(super) priced: i128,
    /// Hours of the instance.
    pub(super) consumed: i128,
    /// The part of the whole.
    pub(super) ratio: i128,
}

impl UnitPrices {
    pub(super) fn of(list: UsdPerHour, contracted: UsdPerHour) -> Self {
        Self {
            list: i128::from(list.as_nanos()) * NANO,
            contracted: i128::from(contracted.as_nanos()) * NANO,
        }
    }

    /// What an hour cost on average: a correction mends charges at several prices at once. `None` where it is about
    /// money and no time.
    pub(super) fn average(line: &FocusLine<'_>) -> Option<Self> {
        let ms = i128::from(line.instance_ms);
        let price = |cost: Usd| divide(i128::from(cost.as_nanos()) * NANO * HOUR_MS, ms);
        (ms != 0).then(|| Self { list: price(line.costs.list), contracted: price(line.costs.contracted) })
    }
}

/// The quantities of the lines of a charge. Each is the difference of two rounded running sums, so that they sum to
/// those of the whole, and the ratios to 1, however they are rounded.
///
/// The hours are those that both unit prices agree on best: their sum gives the sum of both costs.
pub(super) fn split(lines: &[FocusLine<'_>], prices: Option<UnitPrices>) -> Vec<Quantities> {
    let price = prices.map_or(0, |prices| prices.list + prices.contracted);
    let weights = weights(lines);
    let whole: i128 = weights.iter().sum();
    let (mut cost, mut ms, mut weight) = (0, 0, 0);
    let mut before = Quantities { priced: 0, consumed: 0, ratio: 0 };
    let parts = lines.iter().zip(weights).map(|(line, of_line)| {
        cost += i128::from(line.costs.list.as_nanos()) + i128::from(line.costs.contracted.as_nanos());
        ms += i128::from(line.instance_ms);
        weight += of_line;
        let consumed = divide(ms * ONE, HOUR_MS);
        // What costs nothing an hour still took its time.
        let priced = if price == 0 { consumed } else { divide(cost * NANO * ONE, price) };
        let so_far = Quantities { priced, consumed, ratio: divide(weight * ONE, whole) };
        let part = Quantities {
            priced: so_far.priced - before.priced,
            consumed: so_far.consumed - before.consumed,
            ratio: so_far.ratio - before.ratio,
        };
        before = so_far;
        part
    });
    parts.collect()
}

/// By what a charge is split: the time of the instance. A minimum that is billed for no time is split like its cost,
/// and nothing at all in equal parts.
fn weights(lines: &[FocusLine<'_>]) -> Vec<i128> {
    let by = |weight: fn(&FocusLine<'_>) -> i64| -> Vec<i128> {
        lines.iter().map(|line| i128::from(weight(line))).collect()
    };
    [by(|line| line.instance_ms), by(|line| line.costs.effective.as_nanos())]
        .into_iter()
        .find(|weights| weights.iter().sum::<i128>() != 0)
        .unwrap_or_else(|| by(|_| 1))
}

/// The quotient, rounded to the nearest.
fn divide(dividend: i128, divisor: i128) -> i128 {
    let (dividend, divisor) = if divisor < 0 { (-dividend, -divisor) } else { (dividend, divisor) };
    (dividend + divisor / 2).div_euclid(divisor)
}
