//! How FOCUS writes numbers, moments and key-value objects.

use chrono::{DateTime, SecondsFormat, Utc};

/// A decimal number without trailing zeros: `value` × 10^-`decimals`.
pub(super) fn decimal(to: &mut Vec<u8>, value: i128, decimals: u32) {
    // 39 digits of 128 bits and as many places as anybody asks for.
    let mut digits = [b'0'; 64];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    let point = digits.len() - decimals as usize;
    while rest > 0 || at >= point {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let end = point + digits[point..].iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    if value < 0 {
        to.push(b'-');
    }
    to.extend_from_slice(&digits[at..point]);
    if end > point {
        to.push(b'.');
        to.extend_from_slice(&digits[point..end]);
    }
}

/// A moment in whole seconds, rounded down: FOCUS has `YYYY-MM-DDTHH:mm:ssZ` and no fraction.
pub(super) fn moment(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The first moment of a month.
pub(super) fn month((year, month): (i32, u32)) -> String {
    format!("{year:04}-{month:02}-01T00:00:00Z")
}

/// A JSON object of texts and numbers, built up entry by entry.
#[derive(Debug, Default)]
pub(super) struct Object(Vec<u8>);

impl Object {
    /// Adds a text.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        string(&mut self.0, value);
    }

    /// Adds a decimal number.
    pub(super) fn number(&mut self, key: &str, value: i128, decimals: u32) {
        self.key(key);
        decimal(&mut self.0, value, decimals);
    }

    /// The object as text; nothing where it has no entries, because FOCUS has null for that.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.0.is_empty() {
            self.0.push(b'}');
        }
        self.0
    }

    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        string(&mut self.0, key);
        self.0.push(b':');
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(to, text).expect("memory takes every text");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: i128, decimals: u32) -> String {
        let mut text = Vec::new();
        decimal(&mut text, value, decimals);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn decimals_are_written_without_trailing_zeros() {
        assert_eq!(written(0, 9), "0");
        assert_eq!(written(-1_500_000_000, 9), "-1.5");
        assert_eq!(written(20, 0), "20");
        assert_eq!(written(1, 12), "0.000000000001");
    }

    proptest! {
        #[test]
        fn nano_dollars_are_written_as_elsewhere(nanos in any::<i64>()) {
            let elsewhere = bursar_model::Usd::from_nanos(nanos).to_string();
            prop_assert_eq!(written(i128::from(nanos), 9), elsewhere);
        }
    }
}
