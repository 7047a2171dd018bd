//! A place in an object store: a URL with what opens it, made into something to read from and write to.

use std::{fmt, sync::Arc, time::Duration};

use bursar_model::agent_api::StoreAccess;
use futures::TryStreamExt;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use url::Url;

use crate::StorageError;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take: a part gets through at a third of a megabyte a second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How often, and for how long, a request is made again that failed for a moment: a store that is away for two minutes
/// must not fail what was about to start.
const RETRIES_MAX: usize = 10;
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// What signs where the endpoint is no cloud's: such stores ask for some region and care for none.
const REGION_DEFAULT: &str = "us-east-1";

/// A folder in an object store. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    base: Path,
    /// The URL, for people.
    url: String,
    /// What would open it, where nothing was given that does: the machine may still have a role.
    keys_missing: Option<&'static str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Place {
    /// Opens a place. Asks nobody: whether it is there and lets us in shows at the first request.
    ///
    /// # Errors
    /// When the URL or what opens it is not understood.
    pub fn open(access: &StoreAccess) -> Result<Self, StorageError> {
        Self::open_with(access, retries())
    }

    /// The same for somebody who waits: what fails is not tried again.
    ///
    /// # Errors
    /// When the URL or what opens it is not understood.
    pub fn open_once(access: &StoreAccess) -> Result<Self, StorageError> {
        Self::open_with(access, RetryConfig { max_retries: 0, ..retries() })
    }

    fn open_with(access: &StoreAccess, retries: RetryConfig) -> Result<Self, StorageError> {
        let refused = |why: String| StorageError::Address { url: access.url.clone(), why };
        let url = Url::parse(&access.url).map_err(|error| refused(error.to_string()))?;
        let unusable = |error: object_store::Error| refused(error.to_string());
        let below = |path: &str| Path::from_url_path(path).map_err(|error| refused(error.to_string()));
        let (store, base): (Arc<dyn ObjectStore>, Path) = match url.scheme() {
            "file" => {
                // A file store's own root: its paths are then those of the machine.
                (Arc::new(LocalFileSystem::new().with_fsync(true)), below(url.path())?)
            }
            "s3" | "s3a" => {
                let region = access
                    .region
                    .clone()
                    .or_else(|| access.endpoint.is_some().then(|| REGION_DEFAULT.to_owned()));
                let mut builder = AmazonS3Builder::new()
                    .with_url(&access.url)
                    .with_retry(retries.clone())
                    .with_client_options(client_options(access));
                if let Some(region) = region {
                    builder = builder.with_region(region);
                }
                if let Some(endpoint) = &access.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                for (name, value) in &access.credentials {
                    let key = name.to_ascii_lowercase().parse().map_err(unusable)?;
                    builder = builder.with_config(key, value);
                }
                (Arc::new(builder.build().map_err(unusable)?), below(url.path())?)
            }
            "gs" => {
                let mut builder = GoogleCloudStorageBuilder::new()
                    .with_url(&access.url)
                    .with_retry(retries.clone())
                    .with_client_options(client_options(access));
                if let Some(endpoint) = &access.endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                for (name, value) in &access.credentials {
                    let key = name.to_ascii_lowercase().parse().map_err(unusable)?;
                    builder = builder.with_config(key, value);
                }
                (Arc::new(builder.build().map_err(unusable)?), below(url.path())?)
            }
            "az" => {
                let mut builder = MicrosoftAzureBuilder::new()
                    .with_url(&access.url)
                    .with_retry(retries.clone())
                    .with_client_options(client_options(access));
                if let Some(endpoint) = &access.endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                for (name, value) in &access.credentials {
                    let key = name.to_ascii_lowercase().parse().map_err(unusable)?;
                    builder = builder.with_config(key, value);
                }
                (Arc::new(builder.build().map_err(unusable)?), below(url.path())?)
            }
            other => return Err(refused(format!("`{other}` is none of s3, gs, az and file"))),
        };
        Ok(Self {
            store,
            base,
            url: access.url.trim_end_matches('/').to_owned(),
            keys_missing: keys_missing(access),
        })
    }

    /// A place in a store of the caller's.
    #[must_use]
    pub fn within(store: Arc<dyn ObjectStore>, base: &str) -> Self {
        Self { store, base: Path::from(base), url: base.to_owned(), keys_missing: None }
    }

    /// A place in this one. `below` is made of names with `/` between.
    #[must_use]
    pub fn join(&self, below: &str) -> Self {
        Self {
            store: self.store.clone(),
            base: self.path(below),
            url: format!("{}/{below}", self.url),
            keys_missing: self.keys_missing,
        }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    pub(crate) fn path(&self, below: &str) -> Path {
        below.split('/').filter(|part| !part.is_empty()).fold(self.base.clone(), |path, part| path.join(part))
    }

    /// For an error: the request, where, and what the store said.
    pub(crate) fn failed(
        &self,
        what: &'static str,
        name: &str,
    ) -> impl FnOnce(object_store::Error) -> StorageError {
        let at = format!("{}/{name}", self.url);
        let keys_missing = self.keys_missing;
        move |source| match keys_missing {
            Some(keys) if asked_for_a_role(&source) => StorageError::NoCredentials { at, keys },
            _ => StorageError::Store { what, at, source },
        }
    }

    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        let put = self.store.put(&self.path(name), PutPayload::from(bytes)).await;
        put.map(drop).map_err(self.failed("write", name))
    }

    /// Writes what must not be there yet. Our own earlier try, of which no answer came, counts as done.
    pub(crate) async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&self.path(name), PutPayload::from(bytes.clone()), options).await;
        match put {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) if self.get(name).await? == bytes => Ok(()),
            Err(error) => Err(self.failed("write", name)(error)),
        }
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.get_with(name, GetOptions::default()).await
    }

    pub(crate) async fn get_with(&self, name: &str, options: GetOptions) -> Result<Vec<u8>, StorageError> {
        let got = self.store.get_opts(&self.path(name), options).await.map_err(self.failed("read", name))?;
        Ok(got.bytes().await.map_err(self.failed("read", name))?.into())
    }

    /// Removes an object; one that is not there is removed.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), StorageError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", name)(error)),
        }
    }

    /// All objects of a folder of this place, at most so many.
    pub(crate) async fn list(&self, folder: &str, most: usize) -> Result<Vec<ObjectMeta>, StorageError> {
        let path = self.path(folder);
        let mut listed = self.store.list(Some(&path));
        let mut found = Vec::new();
        while let Some(object) = listed.try_next().await.map_err(self.failed("list", folder))? {
            if found.len() >= most {
                return Err(StorageError::TooMany { path: format!("{self}/{folder}").into(), most });
            }
            found.push(object);
        }
        Ok(found)
    }
}

/// What is to be given for a store of which nothing was.
fn keys_missing(access: &StoreAccess) -> Option<&'static str> {
    let has = |name: &str| access.credentials.contains_key(name);
    let scheme = access.url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "s3" | "s3a" if !has("AWS_ACCESS_KEY_ID") => Some("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        "gs" if !has("GOOGLE_SERVICE_ACCOUNT_KEY") => Some("GOOGLE_SERVICE_ACCOUNT_KEY"),
        "az" if !has("AZURE_STORAGE_ACCOUNT_KEY") && !has("AZURE_STORAGE_TOKEN") => {
            Some("AZURE_STORAGE_ACCOUNT_KEY")
        }
        _ => None,
    }
}

/// Whether it was the machine's own role that could not be had: the addresses at which clouds tell machines of theirs.
fn asked_for_a_role(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    // Ends with the chain of causes.
    while let Some(error) = cause {
        let said = error.to_string();
        if ["169.254.169.254", "169.254.170.2", "metadata.google.internal", "gcloud/application_default"]
            .iter()
            .any(|address| said.contains(address))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

fn client_options(access: &StoreAccess) -> ClientOptions {
    let plain = access.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(plain)
        // Where no certificate is shown, none is verified: a machine without any can reach such a store.
        .with_no_system_certificates(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, credentials: &[(&str, &str)]) -> String {
        let credentials = credentials.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let access = StoreAccess { credentials: credentials.collect(), ..StoreAccess::at(url) };
        Place::open(&access).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_store_is_named() {
        assert!(refusal("ftp://host/x", &[]).contains("`ftp` is none of s3, gs, az and file"));
        assert!(refusal("nonsense", &[]).contains("`nonsense` cannot be used"));
        assert!(refusal("s3://bucket", &[("AWS_KEY", "x")]).contains("aws_key"));
    }

    #[test]
    fn every_kind_of_store_can_be_opened() {
        let key = "c2VjcmV0";
        for (url, credentials) in [
            ("s3://bucket/prefix", vec![("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]),
            ("gs://bucket/prefix", vec![]),
            (
                "az://container/prefix",
                vec![("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", key)],
            ),
            ("file:///shared/folder", vec![]),
        ] {
            let credentials = credentials.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let access = StoreAccess { credentials: credentials.collect(), ..StoreAccess::at(url) };
            let place = Place::open(&access).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(place.join("x").to_string(), format!("{url}/x"));
        }
    }
}
