//! `POST /v1/storage/check`: whether the installation's store does what it is for. The daemon is asked, since it has what
//! opens the store; whoever asks need not.

use axum::{Json, extract::State};
use bursar_config::Config;
use bursar_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::data::try_store;

/// How the store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageAnswer {
    /// Where it is; none where the installation has none.
    pub url: Option<String>,
    /// What it did not do, for people; none where it is well.
    pub problem: Option<String>,
}

pub(super) async fn check(State(api): State<Api>) -> Json<StorageAnswer> {
    Json(check_storage(&api.configuration.current(), api.clock.now()).await)
}

/// The same by whoever asks, with the credentials of their own environment: where no daemon runs.
pub async fn check_storage(config: &Config, now: Timestamp) -> StorageAnswer {
    let Some(storage) = &config.storage else { return StorageAnswer::default() };
    StorageAnswer {
        url: Some(storage.url.clone()),
        problem: try_store(storage, &format!(".bursar-check-{}", now.as_millis())).await.err(),
    }
}
