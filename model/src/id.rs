//! Typed identifiers and the generator that makes them.
//!
//! An id is 63 bits: 41 bits of milliseconds since 2020 and 22 bits that start at random and count up. So ids
//! sort by age, fit the integer primary key of a database and read as `exp_` plus 13 characters. Nobody outside
//! one installation relies on them alone: a provider's idempotency token is made of installation *and* instance id.

use std::{fmt, str::FromStr};

use crate::time::Timestamp;

/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, so that an id survives being read aloud.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 13;
const EPOCH_MS: i64 = 1_577_836_800_000; // 2020-01-01T00:00:00Z
const COUNTER_BITS: u32 = 22;

/// A text that is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form {prefix}_ and 13 letters or digits")]
pub struct InvalidId {
    /// The prefix that was wanted, such as `exp`.
    pub prefix: &'static str,
    /// What was given.
    pub text: String,
}

/// What every id type has in common.
pub trait TypedId: Copy + Ord + fmt::Display + Sized {
    /// The letters before the underscore.
    const PREFIX: &'static str;
    /// The id of this number.
    fn from_u64(raw: u64) -> Self;
    /// The number of this id: the primary key in a store.
    fn as_u64(self) -> u64;
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl TypedId for $name {
            const PREFIX: &'static str = $prefix;
            fn from_u64(raw: u64) -> Self {
                Self(raw)
            }
            fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(std::str::from_utf8(&text).expect("the digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(Self)
                    .ok_or_else(|| InvalidId { prefix: $prefix, text: text.to_owned() })
            }
        }

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

typed_id!(
    /// One experiment: what a researcher asked to run to an end.
    ExperimentId, "exp");
typed_id!(
    /// A set of experiments made from one matrix, under one budget.
    SweepId, "swp");
typed_id!(
    /// An instance that we intend, have, or had. Ours; the cloud's own name for it is a `CloudId`.
    InstanceId, "ins");
typed_id!(
    /// One try at running an experiment on one instance.
    AttemptId, "att");
typed_id!(
    /// One message to one webhook.
    NotificationId, "ntf");

/// Makes ids. Given a seed and the same calls it gives the same ids; each kind counts on its own, so that one more
/// instance does not shift the ids of experiments.
#[derive(Debug, Clone)]
pub struct IdGen {
    seed: u64,
    last: [u64; 5],
}

impl IdGen {
    /// A generator of this seed: random in production, fixed in simulation.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, last: [0; 5] }
    }

    /// Makes all further ids later than this number, the highest ever given out.
    pub fn start_after(&mut self, highest: u64) {
        self.last = self.last.map(|last| last.max(highest));
    }

    /// The next id of an experiment.
    pub fn experiment(&mut self, now: Timestamp) -> ExperimentId {
        ExperimentId(self.next(0, now))
    }

    /// The next id of a sweep.
    pub fn sweep(&mut self, now: Timestamp) -> SweepId {
        SweepId(self.next(1, now))
    }

    /// The next id of an instance.
    pub fn instance(&mut self, now: Timestamp) -> InstanceId {
        InstanceId(self.next(2, now))
    }

    /// The next id of an attempt.
    pub fn attempt(&mut self, now: Timestamp) -> AttemptId {
        AttemptId(self.next(3, now))
    }

    /// The next id of a notification.
    pub fn notification(&mut self, now: Timestamp) -> NotificationId {
        NotificationId(self.next(4, now))
    }

    /// Later than every id before, even when the clock stepped back.
    fn next(&mut self, kind: usize, now: Timestamp) -> u64 {
        let ms = now.as_millis().saturating_sub(EPOCH_MS).clamp(0, (1 << 41) - 1) as u64;
        // Half of the counter's range is left for counting up within one millisecond.
        let noise = split_mix(self.seed ^ (kind as u64) << 60 ^ ms) >> (64 - COUNTER_BITS + 1);
        let id = (ms << COUNTER_BITS | noise).max(self.last[kind] + 1);
        self.last[kind] = id;
        id
    }
}

/// The mixing step of SplitMix64 (Steele, Lea, Flood 2014): spreads a seed over all bits. Not for secrets.
#[must_use]
pub fn split_mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn encode(mut raw: u64) -> [u8; TEXT_LEN] {
    let mut text = [b'0'; TEXT_LEN];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(raw & 31) as usize];
        raw >>= 5;
    }
    text
}

fn decode(text: &str) -> Option<u64> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut raw: u64 = 0;
    for byte in text.bytes() {
        let digit = DIGITS.iter().position(|d| *d == byte)? as u64;
        raw = raw.checked_mul(32)?.checked_add(digit)?;
    }
    (raw <= i64::MAX as u64).then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_reads_back() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let id = IdGen::new(7).experiment(now);
        assert!(id.to_string().starts_with("exp_"));
        assert_eq!(id.to_string().parse::<ExperimentId>(), Ok(id));
        assert!(id.to_string().parse::<SweepId>().is_err());
        assert!("exp_".parse::<ExperimentId>().is_err());
        assert!("exp_zzzzzzzzzzzzz".parse::<ExperimentId>().is_err());
    }

    #[test]
    fn ids_rise_though_the_clock_steps_back() {
        let mut ids = IdGen::new(7);
        let mut last = ids.instance(Timestamp::from_millis(1_800_000_000_000));
        for ms in [1_800_000_000_000, 1_700_000_000_000, 0, 1_800_000_000_001] {
            let next = ids.instance(Timestamp::from_millis(ms));
            assert!(next > last);
            last = next;
        }
    }
}
