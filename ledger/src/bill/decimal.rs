//! Decimal text to nano-dollars, without floats.

use bursar_model::Usd;

/// A text that is no decimal number, or one out of the range of `Usd`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a decimal number such as 12, 0.0000104167 or 1.2E-5 within 9.2 billion")]
pub(super) struct InvalidDecimal(String);

/// As many digits as fit 128 bits with room for one more. What comes after them decides ties only.
const DIGITS_MAX: u32 = 36;

/// Reads dollars with any number of decimals, rounded to the nearest nano-dollar, a half to the even one (IEEE 754's
/// rounding, which has no drift). Nothing is carried from one number to the next: the sum of n rows is within n/2
/// nano-dollars of the exact sum, half a thousandth of a dollar over a million rows.
pub(super) fn usd_from_decimal(text: &str) -> Result<Usd, InvalidDecimal> {
    let nanos = nanos(text.trim()).ok_or_else(|| InvalidDecimal(text.chars().take(40).collect()))?;
    Ok(Usd::from_nanos(nanos))
}

fn nanos(text: &str) -> Option<i64> {
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        // Anything beyond 4 digits of exponent is no amount of money in any notation.
        Some((digits, exponent)) if exponent.len() <= 5 => (digits, exponent.parse::<i64>().ok()?),
        Some(_) => return None,
        None => (text, 0),
    };
    let (negative, digits) = match digits.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };

    // The number is `mantissa × 10^scale`, and a bit more where `inexact`.
    let (mut mantissa, mut scale, mut inexact) = (0_u128, exponent, false);
    let (mut taken, mut seen, mut after_point) = (0, false, false);
    for byte in digits {
        match byte {
            b'.' if !after_point => after_point = true,
            b'0'..=b'9' => {
                seen = true;
                let digit = u128::from(byte - b'0');
                if taken < DIGITS_MAX {
                    mantissa = mantissa * 10 + digit;
                    taken += u32::from(mantissa > 0);
                    scale -= i64::from(after_point);
                } else {
                    inexact |= digit > 0;
                    scale += i64::from(!after_point);
                }
            }
            _ => return None,
        }
    }
    if !seen {
        return None;
    }

    let magnitude = match u32::try_from(scale + 9) {
        Ok(_) if mantissa == 0 => 0,
        Ok(power) => mantissa.checked_mul(10_u128.checked_pow(power)?)?,
        Err(_) => match 10_u128.checked_pow((-(scale + 9)) as u32) {
            Some(divisor) => rounded_half_even(mantissa, divisor, inexact),
            // Less than 10^36 over more than 10^38.
            None => 0,
        },
    };
    let magnitude = i64::try_from(magnitude).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

fn rounded_half_even(mantissa: u128, divisor: u128, inexact: bool) -> u128 {
    let (quotient, rest) = (mantissa / divisor, mantissa % divisor);
    // A rest is below 10^38, so twice it fits.
    let up = match (rest * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => inexact || quotient % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    quotient + u128::from(up)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> i64 {
        usd_from_decimal(text).unwrap().as_nanos()
    }

    #[test]
    fn bills_have_more_decimals_than_nano_dollars() {
        assert_eq!(read("0.0000104167"), 10_417);
        assert_eq!(read("1.2E-5"), 12_000);
        assert_eq!(read("-3.06"), -3_060_000_000);
        assert_eq!(read(" +12 "), 12_000_000_000);
        assert_eq!(read("1e3"), 1_000_000_000_000);
        assert_eq!(read("0E-10"), 0);
        assert_eq!(read("5e-9999"), 0);
        assert_eq!(read(".5"), 500_000_000);
        assert_eq!(read("7."), 7_000_000_000);
    }

    #[test]
    fn a_half_goes_to_the_even_neighbour_unless_more_digits_follow() {
        assert_eq!(read("0.0000000005"), 0);
        assert_eq!(read("0.0000000015"), 2);
        assert_eq!(read("0.0000000025"), 2);
        assert_eq!(read("-0.0000000015"), -2);
        assert_eq!(read("0.00000000250000000000000000000000000000000000000000001"), 3);
        // 36 digits are kept; the one that breaks the tie comes after them.
        assert_eq!(read("0.1000000005000000000000000000000000000000000001"), 100_000_001);
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for bad in [
            "",
            ".",
            "-",
            "abc",
            "1,5",
            "$3",
            "1e",
            "1e99999",
            "--1",
            "1.2.3",
            "9300000000",
            "NaN",
            "1e30",
            "0x1",
        ] {
            assert!(usd_from_decimal(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_equals_exact_rounding(mantissa in 0_u64..1_000_000_000_000_000_000, decimals in 0_usize..27, negative: bool) {
            let digits = format!("{mantissa:0>width$}", width = decimals + 1);
            let (whole, fraction) = digits.split_at(digits.len() - decimals);
            let sign = if negative { "-" } else { "" };
            let plain = format!("{sign}{whole}.{fraction}");
            let scientific = format!("{sign}{mantissa}E-{decimals}");

            // The exact value is mantissa × 10^9 / 10^decimals; its distance to what was read is compared in integers.
            let (numerator, divisor) = (i128::from(mantissa) * 1_000_000_000, 10_i128.pow(decimals as u32));
            let (Ok(from_plain), from_scientific) = (usd_from_decimal(&plain), usd_from_decimal(&scientific)) else {
                prop_assert!(numerator / divisor >= i128::from(i64::MAX), "{plain} was refused");
                return Ok(());
            };
            prop_assert_eq!(Ok(from_plain), from_scientific);
            let read = i128::from(from_plain.as_nanos().abs());
            let twice_off = (read * divisor - numerator).abs() * 2;
            prop_assert!(twice_off < divisor || twice_off == divisor && read % 2 == 0, "{plain} was read as {from_plain}");
            prop_assert!(read == 0 || negative == (from_plain < Usd::ZERO));
        }
    }
}
