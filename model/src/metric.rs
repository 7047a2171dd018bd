//! Metrics over time, as agents write them down and deliver them: JSON lines, one point each.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// The most that is kept of one attempt's points: 32 MiB, some hundred thousand of them. Where more come, they are kept ever
/// more thinly.
pub const POINTS_BYTES_MAX: u64 = 32 << 20;

/// What an attempt reported at one moment: a line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it was read, in milliseconds since its agent got the attempt.
    #[serde(rename = "t")]
    pub age_ms: u64,
    /// Of so many points this is the one that was kept.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub every: u64,
    /// The values, `step` among them where the experiment counts steps. One that is no number travels as null.
    #[serde(rename = "v", deserialize_with = "nulls_as_nan")]
    pub values: BTreeMap<String, f64>,
}

impl Point {
    /// The name of the value that says how far an experiment is.
    pub const STEP: &'static str = "step";

    /// How far the experiment was, where it said so.
    #[must_use]
    pub fn step(&self) -> Option<f64> {
        self.values.get(Self::STEP).copied().filter(|step| step.is_finite())
    }
}

/// JSON has no way to write what is no number, and `serde_json` writes null, but does not read it back.
pub(crate) fn nulls_as_nan<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, f64>, D::Error> {
    let found = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(found.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_one(every: &u64) -> bool {
    *every == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_short_line_and_what_is_no_number_comes_back() {
        let values = BTreeMap::from([("loss".to_owned(), f64::NAN), ("step".to_owned(), 3.0)]);
        let point = Point { age_ms: 1500, every: 1, values };
        let line = serde_json::to_string(&point).unwrap();
        assert_eq!(line, r#"{"t":1500,"v":{"loss":null,"step":3.0}}"#);
        let read: Point = serde_json::from_str(&line).unwrap();
        assert!(read.values["loss"].is_nan());
        assert_eq!((read.step(), read.every), (Some(3.0), 1));
    }
}
