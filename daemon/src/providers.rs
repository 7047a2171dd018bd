//! The providers of a configuration, each made of what it says.

use std::sync::Arc;

use bursar_config::{Config, ProviderKind};
use bursar_model::{Clock, ProviderName, Terms};
use bursar_providers::{
    Provider,
    local::{LocalProvider, LocalSettings, LocalType},
};

use crate::serve::Programs;

/// A provider that this program was built without.
#[derive(Debug, thiserror::Error)]
#[error(
    "providers.{name}: this bursar was built without {cloud}: build it with `cargo build --release --features {feature}`"
)]
pub struct NotBuilt {
    /// Its name in the configuration.
    pub name: ProviderName,
    /// What it is.
    pub cloud: &'static str,
    /// The feature of the `bursar` package that brings it.
    pub feature: &'static str,
}

/// All providers of a configuration.
///
/// # Errors
/// Where this program was built without one of them.
pub(crate) fn providers(
    config: &Config,
    programs: &Programs,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<dyn Provider>>, NotBuilt> {
    let made = config.providers.iter().map(|(name, provider)| match &provider.kind {
        ProviderKind::Aws(settings) => aws(name, settings, provider.terms, config, clock),
        ProviderKind::Local(settings) => Ok(local(name, settings, config, programs, clock)),
    });
    made.collect()
}

#[cfg(feature = "aws")]
fn aws(
    name: &ProviderName,
    settings: &bursar_config::AwsProvider,
    terms: Terms,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Provider>, NotBuilt> {
    Ok(Arc::new(aws_provider(name, settings, terms, config, clock)))
}

/// The provider itself: `doctor` asks it for more than instances.
#[cfg(feature = "aws")]
#[must_use]
pub fn aws_provider(
    name: &ProviderName,
    settings: &bursar_config::AwsProvider,
    terms: Terms,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> bursar_providers::aws::AwsProvider {
    let bursar_config::AwsProvider {
        regions,
        instance_types,
        image,
        root_device,
        subnets,
        security_groups,
        instance_profile,
        tags,
        interruption_queue,
    } = settings.clone();
    let settings = bursar_providers::aws::AwsSettings {
        name: name.clone(),
        installation: config.installation.clone(),
        regions,
        instance_types,
        image,
        root_device,
        subnets,
        security_groups,
        instance_profile,
        tags,
        interruption_queue,
        terms: Arc::new(terms),
        cache_file: config.data_dir.join("providers").join(name.as_str()).join("catalog.json"),
    };
    bursar_providers::aws::AwsProvider::new(settings, clock.clone())
}

#[cfg(not(feature = "aws"))]
fn aws(
    name: &ProviderName,
    _: &bursar_config::AwsProvider,
    _: Terms,
    _: &Config,
    _: &Arc<dyn Clock>,
) -> Result<Arc<dyn Provider>, NotBuilt> {
    Err(NotBuilt { name: name.clone(), cloud: "AWS", feature: "aws" })
}

fn local(
    name: &ProviderName,
    local: &bursar_config::LocalProvider,
    config: &Config,
    programs: &Programs,
    clock: &Arc<dyn Clock>,
) -> Arc<dyn Provider> {
    let types = local.types.values().map(|kind| LocalType {
        instance_type: Arc::new(kind.instance_type.clone()),
        zones: kind.zones.clone(),
        on_demand: kind.on_demand,
        spot: kind.spot,
        interruptions_per_hour: kind.interruptions_per_hour,
        notice: kind.notice,
        boot: kind.boot,
        max_instances: kind.max_instances,
    });
    let settings = LocalSettings {
        name: name.clone(),
        installation: config.installation.clone(),
        root: config.data_dir.join("providers").join(name.as_str()),
        checkpoint_root: config.data_dir.join("checkpoints"),
        seed: local.seed,
        types: types.collect(),
        interruptions: local.interruptions.clone(),
        host_program: programs.host.clone(),
        agent_program: programs.agent.clone(),
    };
    Arc::new(LocalProvider::new(settings, clock.clone()))
}
