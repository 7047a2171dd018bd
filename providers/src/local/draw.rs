//! When a spot instance is taken back: drawn anew for each, the same for the same seed and instance.

use bursar_model::{InstanceId, Span, TypedId, id::split_mix};

const HOUR_MS: f64 = 3_600_000.0;

/// How long after its boot an instance gets its notice, given how often that happens in an hour on average: without
/// memory, so exponentially distributed.
#[expect(clippy::float_arithmetic, reason = "a random time, no money")]
pub(crate) fn interruption(seed: u64, instance: InstanceId, per_hour: f64) -> Option<Span> {
    if per_hour <= 0.0 {
        return None;
    }
    // 53 bits are what a float holds: a number in [0, 1).
    let uniform = (split_mix(seed ^ split_mix(instance.as_u64())) >> 11) as f64 / (1_u64 << 53) as f64;
    let hours = -(1.0 - uniform).ln() / per_hour;
    // Saturates where the rate is tiny: longer than anybody waits.
    Some(Span::from_millis((hours * HOUR_MS) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interruptions_come_as_often_as_told() {
        let spans = (1..=20_000).filter_map(|i| interruption(7, InstanceId::from_u64(i), 2.0));
        let mean_hours = spans.map(|span| span.as_millis() as f64).sum::<f64>() / 20_000.0 / HOUR_MS;
        assert!((0.48..0.52).contains(&mean_hours), "{mean_hours}");
    }

    #[test]
    fn what_is_never_interrupted_gets_no_time() {
        assert_eq!(interruption(7, InstanceId::from_u64(1), 0.0), None);
    }
}
