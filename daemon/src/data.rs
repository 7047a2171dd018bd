//! Where what an experiment gets and leaves lies: worked out from its spec and the installation's store, and opened with
//! the credentials of the store at the last moment.

use std::{collections::BTreeMap, time::Duration};

use bursar_config::Storage;
use bursar_model::{
    ExperimentId, ExperimentSpec,
    agent_api::{CheckpointStore, Data, StoreAccess},
};
use bursar_storage::{Place, explain, probe};

use crate::secrets;

/// How long somebody waits to hear whether the store is well: three requests, each with a connection of its own at worst.
const STORE_PATIENCE: Duration = Duration::from_secs(20);

/// How many checkpoints are kept in a store that only the spec names.
const CHECKPOINTS_KEPT: u32 = 2;

/// All that an attempt of an experiment has to do with stores, without what opens them.
pub(crate) fn data_of(spec: &ExperimentSpec, experiment: ExperimentId, storage: Option<&Storage>) -> Data {
    let at = |url: String| access(url, storage);
    let store = spec.checkpoint.store.as_deref().or_else(|| storage.map(|storage| &*storage.url));
    let mounts = spec.data.mounts.iter().map(|(target, url)| (target.clone(), at(url.clone())));
    Data {
        checkpoints: store.map(|url| CheckpointStore {
            access: at(format!("{url}/checkpoints/{experiment}")),
            kept: storage.map_or(CHECKPOINTS_KEPT, |storage| storage.checkpoints_kept),
        }),
        checkpoint_path: spec.checkpoint.path.clone(),
        mounts: mounts.collect(),
        outputs: outputs_of(spec, experiment, storage),
    }
}

/// Where the outputs of an experiment are, by their paths. Without a store, those that name none are nowhere.
pub(crate) fn outputs_of(
    spec: &ExperimentSpec,
    experiment: ExperimentId,
    storage: Option<&Storage>,
) -> BTreeMap<String, StoreAccess> {
    let outputs = spec.data.outputs.iter().filter_map(|(path, url)| {
        let url = match (url, storage) {
            (Some(url), _) => format!("{url}/{experiment}"),
            (None, Some(storage)) => format!("{}/outputs/{experiment}", storage.url),
            (None, None) => return None,
        };
        Some((path.clone(), access(url, storage)))
    });
    outputs.collect()
}

/// Puts the credentials of the installation's store to a place of its kind. What went wrong is for people.
pub(crate) async fn unlock(place: &mut StoreAccess, storage: Option<&Storage>) -> Result<(), String> {
    let Some(storage) = storage.filter(|storage| is_of_its_kind(&place.url, storage)) else { return Ok(()) };
    for (name, secret) in &storage.credentials {
        let value =
            secrets::read(secret).await.map_err(|why| format!("storage.credentials.{name}: {why}"))?;
        place.credentials.insert(name.clone(), value);
    }
    Ok(())
}

/// Tries the installation's store with a small object of this name. What went wrong is for people.
pub(crate) async fn try_store(storage: &Storage, name: &str) -> Result<(), String> {
    let mut place = access(storage.url.clone(), Some(storage));
    unlock(&mut place, Some(storage)).await?;
    let place = Place::open_once(&place).map_err(|error| explain(&error))?;
    match tokio::time::timeout(STORE_PATIENCE, probe(&place, name)).await {
        Ok(tried) => tried.map_err(|error| explain(&error)),
        Err(_) => Err(format!("{place} does not answer within {} s", STORE_PATIENCE.as_secs())),
    }
}

/// A place at a URL. What is of the kind of the installation's store answers where that does.
fn access(url: String, storage: Option<&Storage>) -> StoreAccess {
    let storage = storage.filter(|storage| is_of_its_kind(&url, storage));
    StoreAccess {
        endpoint: storage.and_then(|storage| storage.endpoint.clone()),
        region: storage.and_then(|storage| storage.region.clone()),
        credentials: BTreeMap::new(),
        url,
    }
}

fn is_of_its_kind(url: &str, storage: &Storage) -> bool {
    let scheme = |url: &str| url.split_once("://").map(|(scheme, _)| scheme.to_owned());
    scheme(url) == scheme(&storage.url)
}
