//! Amounts and prices in whole nano-dollars. No float is ever added up; rounding is always written out.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use crate::time::Span;

const NANOS: i64 = 1_000_000_000;
const HOUR_MS: i128 = 3_600_000;

/// An amount of money in nano-dollars (10^-9 USD). Reaches 9.2 billion dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd(i64);

/// A price in nano-dollars an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UsdPerHour(i64);

/// A text that is no amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount in dollars such as 12, 0.35 or $1.20 (at most nine decimals)")]
pub struct InvalidAmount(pub String);

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than anything: the limit of a budget without a limit.
    pub const MAX: Self = Self(i64::MAX);

    /// So many nano-dollars.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// So many whole dollars.
    #[must_use]
    pub const fn from_dollars(dollars: i64) -> Self {
        Self(dollars * NANOS)
    }

    /// The amount in nano-dollars.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The sum, held at the ends of the range instead of wrapping round.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, held at the ends of the range instead of wrapping round.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// For people: cents, and more decimals where the amount is small. Rounded half away from zero.
    #[must_use]
    pub fn rounded(self) -> String {
        let magnitude = self.0.unsigned_abs();
        let decimals: u32 = match magnitude {
            0 => 2,
            m if m < 1_000_000 => 6,
            m if m < 1_000_000_000 => 4,
            _ => 2,
        };
        let unit = 10_u64.pow(9 - decimals);
        let rounded = (magnitude + unit / 2) / unit;
        let scale = 10_u64.pow(decimals);
        let sign = if self.0 < 0 { "-" } else { "" };
        format!("{sign}${}.{:0width$}", rounded / scale, rounded % scale, width = decimals as usize)
    }
}

impl UsdPerHour {
    /// No price.
    pub const ZERO: Self = Self(0);

    /// So many nano-dollars an hour.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The price in nano-dollars an hour.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// So many times the price.
    #[must_use]
    pub const fn times(self, count: u32) -> Self {
        Self(self.0.saturating_mul(count as i64))
    }

    /// What this price costs over a time, rounded up: for holds, which must never be short.
    #[must_use]
    pub fn cost_rounded_up(self, span: Span) -> Usd {
        let product = i128::from(self.0) * i128::from(span.as_millis());
        Usd(saturate(-(-product).div_euclid(HOUR_MS)))
    }

    /// What this price costs over a time given the remainder that earlier periods left behind, and the new remainder
    /// (in nano-dollar milliseconds per hour). So the sum over any split of a period equals the cost of the whole,
    /// rounded down once.
    #[must_use]
    pub fn cost_with_remainder(self, span: Span, remainder: i64) -> (Usd, i64) {
        let product = i128::from(self.0) * i128::from(span.as_millis()) + i128::from(remainder);
        let rest = product.rem_euclid(HOUR_MS);
        (Usd(saturate(product.div_euclid(HOUR_MS))), rest as i64)
    }

    /// For people: `$3.06/h`.
    #[must_use]
    pub fn rounded(self) -> String {
        format!("{}/h", Usd(self.0).rounded())
    }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl Add for Usd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Add for UsdPerHour {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for UsdPerHour {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for Usd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Neg for Usd {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

fn write_decimal(nanos: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let (whole, fraction) = (magnitude / NANOS as u64, magnitude % NANOS as u64);
    if fraction == 0 {
        return write!(f, "{sign}{whole}");
    }
    let digits = format!("{fraction:09}");
    write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
}

fn parse_decimal(text: &str) -> Result<i64, InvalidAmount> {
    let invalid = || InvalidAmount(text.chars().take(40).collect());
    let trimmed = text.trim();
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed),
    };
    let digits = digits.strip_prefix('$').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty()
        || !all_digits(whole)
        || !all_digits(fraction)
        || fraction.len() > 9
    {
        return Err(invalid());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    let nanos = whole.checked_mul(NANOS).and_then(|n| n.checked_add(fraction)).ok_or_else(invalid)?;
    Ok(if negative { -nanos } else { nanos })
}

macro_rules! decimal_text {
    ($name:ident) => {
        /// Exact decimal dollars without trailing zeros, as in JSON.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_decimal(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidAmount;
            fn from_str(text: &str) -> Result<Self, InvalidAmount> {
                parse_decimal(text).map(Self)
            }
        }

        /// A decimal string in dollars: JSON numbers are floats in most readers.
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

decimal_text!(Usd);
decimal_text!(UsdPerHour);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!("0.1".parse::<Usd>().unwrap() + "0.2".parse().unwrap(), "0.3".parse().unwrap());
        assert_eq!(Usd::from_nanos(-1_500_000_000).to_string(), "-1.5");
        assert_eq!("$12".parse::<Usd>().unwrap(), Usd::from_dollars(12));
        for bad in ["", ".", "1e3", "0.0000000001", "12 USD", "99999999999", "--1"] {
            assert!(bad.parse::<Usd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn people_see_more_decimals_where_amounts_are_small() {
        assert_eq!(Usd::from_dollars(1234).rounded(), "$1234.00");
        assert_eq!(Usd::from_nanos(42_150_000).rounded(), "$0.0422");
        assert_eq!(Usd::from_nanos(1_500).rounded(), "$0.000002");
        assert_eq!(Usd::ZERO.rounded(), "$0.00");
    }

    proptest! {
        #[test]
        fn any_split_of_a_period_costs_the_same(price in 0_i64..1_000_000_000_000, cuts in prop::collection::vec(0_i64..100_000_000, 1..20)) {
            let price = UsdPerHour::from_nanos(price);
            let (mut total, mut remainder) = (Usd::ZERO, 0);
            for cut in &cuts {
                let (cost, rest) = price.cost_with_remainder(Span::from_millis(*cut), remainder);
                total += cost;
                remainder = rest;
            }
            let whole = price.cost_with_remainder(Span::from_millis(cuts.iter().sum()), 0);
            prop_assert_eq!((total, remainder), whole);
        }

        #[test]
        fn text_form_reads_back(nanos in any::<i64>().prop_filter("min has no positive", |n| *n != i64::MIN)) {
            prop_assert_eq!(Usd::from_nanos(nanos).to_string().parse::<Usd>(), Ok(Usd::from_nanos(nanos)));
        }

        #[test]
        fn rounding_up_is_never_short(price in 0_i64..1_000_000_000_000, ms in 0_i64..10_000_000_000) {
            let (price, span) = (UsdPerHour::from_nanos(price), Span::from_millis(ms));
            let exact = price.cost_with_remainder(span, 0).0;
            let up = price.cost_rounded_up(span);
            prop_assert!(up >= exact && (up - exact).as_nanos() <= 1);
        }
    }
}
