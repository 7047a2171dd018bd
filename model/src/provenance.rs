//! Where a result comes from: what, beside the spec, has to be known to run an experiment once more.

use serde::{Deserialize, Serialize};

use crate::id::{ExperimentId, TypedId};

/// What an attempt ran with, as its agent found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanWith {
    /// The agent's version of bursar.
    pub bursar: String,
    /// `process`, or the container engine with its version.
    pub runtime: String,
    /// The image as `repository@sha256:…`, by which it can be pulled again; of one that was made on the instance, its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The kernel with its version, and the machine's architecture.
    pub system: String,
    /// The version of the NVIDIA driver, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// The state of the git repository that a submitted working folder is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The commit that was checked out, in hex.
    pub commit: String,
    /// What differed from it, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<Dirty>,
}

/// How a working folder differed from its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirty {
    /// SHA-256, in hex, of the output of `git diff HEAD --binary`: changes to files that git knows.
    pub diff_sha256: String,
    /// How many files there were that git does not know and is not told to ignore.
    pub untracked: u32,
}

/// The seed of an experiment that names none: the same for all its attempts, another for every experiment. Below 2^31, so
/// that whatever takes a seed takes it.
#[must_use]
pub fn seed_of(experiment: ExperimentId) -> u32 {
    // SplitMix64: neighbouring ids get seeds that have nothing to do with each other.
    let mut mixed = experiment.as_u64().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 33) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_for_ever_and_differs_between_neighbours() {
        let seed = |id| seed_of(ExperimentId::from_u64(id));
        // Recorded once: an experiment that is run again must find the seed that it had.
        assert_eq!((seed(1), seed(2), seed(3)), (1_216_681_718, 1_269_570_287, 243_632_754));
        assert!((0..1000).all(|id| seed(id) < 1 << 31));
    }
}
