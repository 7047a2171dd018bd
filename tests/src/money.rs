//! Money as it travels: decimal dollars in text, counted in whole nano-dollars.
//!
//! Written anew and not taken from the product: a fault in reading must not hide a fault in writing.

use serde_json::Value;

/// Nano-dollars of a decimal text such as `"0.004856"`.
///
/// # Panics
/// When it is no text, or not a decimal number with at most nine decimals.
#[must_use]
pub fn nanos(amount: &Value) -> i64 {
    let text = amount.as_str().unwrap_or_else(|| panic!("{amount} is no decimal text"));
    let (sign, magnitude) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, decimals) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    assert!(decimals.len() <= 9, "{text} has more than nine decimals");
    let number =
        |digits: &str| digits.parse::<i64>().unwrap_or_else(|_| panic!("{text} is no decimal number"));
    sign * (number(whole) * 1_000_000_000 + number(&format!("{decimals:0<9}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decimal_dollars_are_counted_in_nano_dollars() {
        assert_eq!(nanos(&json!("0.004856")), 4_856_000);
        assert_eq!(nanos(&json!("12")), 12_000_000_000);
        assert_eq!(nanos(&json!("-0.000000001")), -1);
    }
}
