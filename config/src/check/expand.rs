//! One parameter of a matrix: the values that a list, a range or a space comes to, and random draws.
//!
//! The same document gives the same trials on every machine. Draws come from SplitMix64 keyed by seed, name and number
//! of the sample; results of `ln` and `exp`, whose last bit differs between C libraries, are rounded to nine digits.
#![expect(
    clippy::float_arithmetic,
    reason = "parameters of experiments are floats; no money is computed here"
)]

use bursar_model::{ParamValue, id::split_mix};

use super::{sweep::TRIALS_MAX, words};
use crate::{
    problem::{Problem, Report, shortened},
    raw::{RawDimension, RawSpace},
};

/// What one parameter takes on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dimension {
    Values(Vec<ParamValue>),
    Random(RandomDimension),
}

/// What a random parameter is drawn from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RandomDimension {
    Uniform { low: f64, high: f64 },
    LogUniform { low: f64, high: f64 },
    Integer { low: i64, width: u64 },
    Choice(Vec<ParamValue>),
}

/// Reads what one parameter takes on.
pub(super) fn dimension(report: &mut Report, path: &str, raw: &RawDimension) -> Option<Dimension> {
    match raw {
        RawDimension::Values(values) => some_values(report, path, values).map(Dimension::Values),
        RawDimension::Range(text) => {
            let values = range(text);
            if values.is_none() {
                let message = format!("`{}` is no range of 1 to {TRIALS_MAX} whole numbers", shortened(text));
                report.error(Problem::new(path, message).hint(
                    "write `0..4` for 0, 1, 2, 3, or `0..=4` for 4 too; a single value goes in a list",
                ));
            }
            values.map(Dimension::Values)
        }
        RawDimension::Space(space) => space_of(report, path, space),
    }
}

impl RandomDimension {
    /// Draw number `k` of the parameter of this name.
    pub(super) fn draw(&self, name: &str, seed: u64, k: usize) -> ParamValue {
        let bits = split_mix(split_mix(seed ^ hash(name)).wrapping_add(k as u64));
        match self {
            Self::Uniform { low, high } => {
                // Written so that no difference of two huge bounds overflows.
                let share = unit(bits);
                ParamValue::Float(rounded(low * (1.0 - share) + high * share).clamp(*low, *high))
            }
            Self::LogUniform { low, high } => {
                let share = unit(bits);
                let value = (low.ln() * (1.0 - share) + high.ln() * share).exp();
                ParamValue::Float(rounded(value).clamp(*low, *high))
            }
            Self::Integer { low, width } => {
                ParamValue::Int(low.wrapping_add(below(bits, *width).cast_signed()))
            }
            Self::Choice(values) => values[below(bits, values.len() as u64) as usize].clone(),
        }
    }
}

/// Refuses what no environment variable and no JSON can hold.
pub(super) fn check_value(report: &mut Report, path: impl FnOnce() -> String, value: &ParamValue) {
    match value {
        ParamValue::Text(text) => words::process_text(report, path, text),
        ParamValue::Float(float) if !float.is_finite() => {
            report.error(Problem::new(path(), format!("`{float}` is no number")));
        }
        ParamValue::Float(_) | ParamValue::Int(_) | ParamValue::Bool(_) => {}
    }
}

fn some_values(report: &mut Report, path: &str, values: &[ParamValue]) -> Option<Vec<ParamValue>> {
    if !(1..=TRIALS_MAX).contains(&values.len()) {
        report.error(Problem::new(path, format!("a list of 1 to {TRIALS_MAX} values is needed")));
        return None;
    }
    for (index, value) in values.iter().enumerate() {
        check_value(report, || format!("{path}[{index}]"), value);
    }
    Some(values.to_vec())
}

/// `0..4` without 4, `0..=4` with it, as in Rust; Python's `range` and most samplers leave out the end too.
fn range(text: &str) -> Option<Vec<ParamValue>> {
    let (low, high) = text.split_once("..")?;
    let (high, closed) = high.strip_prefix('=').map_or((high, false), |high| (high, true));
    let low: i64 = low.trim().parse().ok()?;
    let high: i64 = high.trim().parse().ok()?;
    let end = high.checked_add(i64::from(closed))?;
    let count = usize::try_from(end.checked_sub(low)?).ok()?;
    (1..=TRIALS_MAX).contains(&count).then(|| (low..end).map(ParamValue::Int).collect())
}

fn space_of(report: &mut Report, path: &str, space: &RawSpace) -> Option<Dimension> {
    let RawSpace { linspace, logspace, uniform, loguniform, randint, choice } = space;
    let floats = |values: Vec<f64>| Dimension::Values(values.into_iter().map(ParamValue::Float).collect());
    let result = match (linspace, logspace, uniform, loguniform, randint, choice) {
        (Some(space), None, None, None, None, None) => divided(space, false).map(floats),
        (None, Some(space), None, None, None, None) => divided(space, true).map(floats),
        (None, None, Some(space), None, None, None) => {
            bounds(space, false).map(|(low, high)| Dimension::Random(RandomDimension::Uniform { low, high }))
        }
        (None, None, None, Some(space), None, None) => bounds(space, true)
            .map(|(low, high)| Dimension::Random(RandomDimension::LogUniform { low, high })),
        (None, None, None, None, Some(space), None) => whole(space),
        (None, None, None, None, None, Some(values)) => {
            let values = some_values(report, &format!("{path}.choice"), values)?;
            return Some(Dimension::Random(RandomDimension::Choice(values)));
        }
        _ => Err("name exactly one of linspace, logspace, uniform, loguniform, randint, choice"),
    };
    report.take(path, result)
}

/// `[first, last, count]`, both ends among the values.
fn divided(space: &[f64], log: bool) -> Result<Vec<f64>, &'static str> {
    let [first, last, count] = space else { return Err("needs three numbers: [first, last, count]") };
    if log && !(*first > 0.0 && *last > 0.0) {
        return Err("both ends of a logarithmic space must be more than 0");
    }
    if count.fract() != 0.0 || !(1.0..=TRIALS_MAX as f64).contains(count) {
        return Err("the count must be a whole number from 1 to 100000");
    }
    let steps = (count - 1.0).max(1.0);
    let at = |index: usize| {
        let share = index as f64 / steps;
        let between = |first: f64, last: f64| first * (1.0 - share) + last * share;
        match (index, log) {
            (0, _) => *first,
            _ if index + 1 == *count as usize => *last,
            (_, false) => rounded(between(*first, *last)),
            (_, true) => rounded(between(first.ln(), last.ln()).exp()),
        }
    };
    Ok((0..*count as usize).map(at).collect())
}

/// `[low, high]` of a random parameter.
fn bounds(space: &[f64], log: bool) -> Result<(f64, f64), &'static str> {
    match space {
        [low, high] if low < high && (!log || *low > 0.0) => Ok((*low, *high)),
        [low, high] if low < high => Err("both ends of a logarithmic space must be more than 0"),
        _ => Err("needs two numbers, the lower first: [low, high]"),
    }
}

fn whole(space: &[i64]) -> Result<Dimension, &'static str> {
    match space {
        [low, high] if low < high => {
            Ok(Dimension::Random(RandomDimension::Integer { low: *low, width: high.abs_diff(*low) }))
        }
        _ => Err("needs two whole numbers, the lower first: [low, high]"),
    }
}

/// FNV-1a: spreads short names well enough to start SplitMix64 from.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// From 0 to just below 1, from the 53 bits that a float holds.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A whole number below `width`.
fn below(bits: u64, width: u64) -> u64 {
    ((u128::from(bits) * u128::from(width)) >> 64) as u64
}

/// To nine digits: short to read, the same on every machine, and finer than any experiment can tell.
fn rounded(value: f64) -> f64 {
    format!("{value:.8e}").parse().expect("a float reads back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_out_the_end_unless_it_is_asked_for() {
        let ints = |range: std::ops::Range<i64>| Some(range.map(ParamValue::Int).collect::<Vec<_>>());
        assert_eq!(range("0..4"), ints(0..4));
        assert_eq!(range("0..=4"), ints(0..5));
        assert_eq!(range(" -2 .. 1 "), ints(-2..1));
        for text in [
            "4..0",
            "0..0",
            "0",
            "a..b",
            "0..1000000000",
            "-9223372036854775808..9223372036854775807",
            "0..=9223372036854775807",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn spaces_are_divided_into_round_values_with_both_ends() {
        assert_eq!(divided(&[0.0, 1.0, 5.0], false).unwrap(), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(divided(&[0.0, 0.3, 4.0], false).unwrap(), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(divided(&[1e-4, 1e-1, 4.0], true).unwrap(), [1e-4, 1e-3, 1e-2, 1e-1]);
        assert_eq!(divided(&[7.0, 9.0, 1.0], false).unwrap(), [7.0]);
        assert!(divided(&[0.0, 1.0], false).is_err());
        assert!(divided(&[0.0, 1.0, 2.5], false).is_err());
        assert!(divided(&[0.0, 1.0, 1e9], false).is_err());
        assert!(divided(&[0.0, 1.0, 3.0], true).is_err());
    }

    #[test]
    fn draws_stay_within_their_bounds_and_repeat() {
        let uniform = RandomDimension::Uniform { low: -1e308, high: 1e308 };
        let log = RandomDimension::LogUniform { low: 1e-5, high: 1e-1 };
        let integer = RandomDimension::Integer { low: i64::MIN, width: u64::MAX };
        let mut decades = [0; 4];
        for k in 0..4000 {
            let (ParamValue::Float(u), ParamValue::Float(l)) = (uniform.draw("u", 7, k), log.draw("l", 7, k))
            else {
                panic!("these are floats");
            };
            assert!(u.is_finite() && (1e-5..=1e-1).contains(&l));
            decades[((l.log10() + 5.0) as usize).min(3)] += 1;
            assert_eq!(integer.draw("i", 7, k), integer.draw("i", 7, k));
        }
        assert!(
            decades.iter().all(|n| (900..1100).contains(n)),
            "every order of magnitude is as likely: {decades:?}"
        );
        assert_ne!(log.draw("a", 7, 0), log.draw("b", 7, 0));
        assert_ne!(log.draw("a", 7, 0), log.draw("a", 8, 0));
    }
}
