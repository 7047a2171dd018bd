//! Whether the secrets that a spec names are there. They are looked up once more for every attempt, but one that is missing
//! then is found out on a machine that is paid for; so whoever asks is told when they ask.

use std::collections::BTreeMap;

use bursar_config::{Problem, Problems};
use bursar_model::{ExperimentSpec, RegistryAuth, SecretRef};

use super::ApiError;
use crate::secrets;

/// Refuses a spec whose secrets the daemon does not find.
pub(super) async fn have_secrets(spec: &ExperimentSpec) -> Result<(), ApiError> {
    let mut missing = Vec::new();
    for (key, secret) in named(spec) {
        if let Err(why) = secrets::read(secret).await {
            missing.push(Problem::new(key, why).hint(remedy(secret)));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Problems(missing).into()) }
}

/// All secrets of a spec by the keys that they stand at.
fn named(spec: &ExperimentSpec) -> BTreeMap<String, &SecretRef> {
    let own = spec.secrets.iter().map(|(name, secret)| (format!("secrets.{name}"), secret));
    let registry = spec
        .registry_auth
        .iter()
        .map(|RegistryAuth { username: _, password }| ("registry_auth.password".to_owned(), password));
    own.chain(registry).collect()
}

fn remedy(secret: &SecretRef) -> &'static str {
    match secret {
        SecretRef::Env(_) => {
            "set it in the environment of `bursar serve` and start that again, or name a file: {file: /path}"
        }
        SecretRef::File(_) => "put it there on the daemon's machine, readable for the daemon's user",
    }
}
