//! The cloud as one installation reaches one of its providers: calls that take time, are refused, or find nobody.

use async_trait::async_trait;
use bursar_model::{CloudId, CloudInstance, InstanceId, Offering, ProviderName, Together};
use bursar_providers::{LaunchRequest, Provider, ProviderError};

use super::SimCloud;

/// One provider of a cloud. Copies are the same.
#[derive(Debug, Clone)]
pub struct SimProvider {
    cloud: SimCloud,
    name: ProviderName,
    installation: String,
}

impl SimProvider {
    pub(super) fn new(cloud: SimCloud, name: ProviderName, installation: &str) -> Self {
        Self { cloud, name, installation: installation.to_owned() }
    }
}

#[async_trait]
impl Provider for SimProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        self.cloud.arrive(&self.name).await?;
        let offerings = self.cloud.offerings(&self.name);
        self.cloud.reply().await;
        Ok(offerings)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        self.cloud.arrive(&self.name).await?;
        let made = self.cloud.make(request);
        self.cloud.reply().await;
        made
    }

    fn launches_at_once(&self) -> usize {
        if self.cloud.launches_together(&self.name) { Together::MAX } else { 1 }
    }

    async fn launch_together(
        &self,
        requests: &[LaunchRequest],
        _: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        if let Err(error) = self.cloud.arrive(&self.name).await {
            let ProviderError { provider, kind, effect, message, .. } = error;
            let again = || ProviderError {
                provider: provider.clone(),
                kind: kind.clone(),
                effect,
                message: message.clone(),
                source: None,
            };
            return requests.iter().map(|_| Err(again())).collect();
        }
        let made = requests.iter().map(|request| self.cloud.make(request)).collect();
        self.cloud.reply().await;
        made
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        self.cloud.arrive(&self.name).await?;
        let listed = self.cloud.list(&self.name, &self.installation);
        self.cloud.reply().await;
        Ok(listed)
    }

    async fn terminate(&self, instance: InstanceId, _: Option<&CloudId>) -> Result<(), ProviderError> {
        self.cloud.arrive(&self.name).await?;
        if self.cloud.belongs_to(instance, &self.installation) {
            self.cloud.end(instance);
        }
        self.cloud.reply().await;
        Ok(())
    }
}
