//! What the result of `setup` depends on, as one key: the same key on the same instance needs it only once.

use std::collections::BTreeMap;

use bursar_model::{Digest, ExperimentSpec, SecretRef, Workdir};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// All that `setup` can see. Not among it: the parameters of a trial and who the attempt is, which `setup` does not see or
/// has no use for; and the *values* of secrets, which change while what they give access to stays.
#[derive(Serialize)]
struct Seen<'a> {
    setup: &'a str,
    workdir: &'a Option<Workdir>,
    image: &'a Option<String>,
    envs: &'a BTreeMap<String, String>,
    secrets: &'a BTreeMap<String, SecretRef>,
}

/// The key of a spec's `setup`, where it has one.
pub(crate) fn setup_key(spec: &ExperimentSpec) -> Option<Digest> {
    let ExperimentSpec { setup, workdir, image, envs, secrets, .. } = spec;
    let seen = Seen { setup: setup.as_deref()?, workdir, image, envs, secrets };
    let json = serde_json::to_vec(&seen).expect("a spec is plain data");
    Some(Digest::from_bytes(Sha256::digest(json).into()))
}
