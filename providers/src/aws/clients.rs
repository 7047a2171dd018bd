//! The ways to AWS: a client for each service and region, how long a call may take, and how often one may ask.

use std::{collections::BTreeMap, error::Error, num::NonZeroU32, time::Duration};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::{
    config::{Region as AwsRegion, http::HttpResponse, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
};
use bursar_model::{Offering, ProviderName, Region};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::{
    errors::{self, Meaning},
    interruptions,
    turns::Turns,
};
use crate::{EffectMay, ErrorKind, ProviderError};

/// A connection is there by then, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One try of one call. `RunInstances` takes seconds where it creates encrypted disks.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// All tries of one call together.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Tries of a call that only looks, or that may be repeated at will. Launches are tried once: a refusal for lack of
/// capacity is HTTP 500, which the SDK would take for trouble of the moment, and the planner has to hear of it at once.
const ATTEMPTS_MAX: u32 = 3;

/// The Price List answers in few regions, alike for all
/// (<https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html>).
pub(super) const PRICING_REGION: &str = "us-east-1";

/// All ways to AWS of one provider.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) provider: ProviderName,
    pub(super) regions: BTreeMap<Region, RegionClient>,
    pub(super) pricing: aws_sdk_pricing::Client,
    pub(super) sts: aws_sdk_sts::Client,
    pub(super) sqs: Option<aws_sdk_sqs::Client>,
}

/// The ways to one region.
#[derive(Debug)]
pub(super) struct RegionClient {
    pub(super) name: Region,
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) quotas: aws_sdk_servicequotas::Client,
    gates: Gates,
    pub(super) turns: Turns,
}

/// How often EC2 lets an account ask in a region, as token buckets of our own: who waits here is not refused there.
#[derive(Debug)]
struct Gates {
    run: DefaultDirectRateLimiter,
    change: DefaultDirectRateLimiter,
    look: DefaultDirectRateLimiter,
}

/// What kind of call, by the bucket that it is counted in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gate {
    /// `RunInstances`.
    Run,
    /// What changes anything else.
    Change,
    /// What only looks.
    Look,
}

impl Gates {
    /// The request rate limits of EC2, "Request token bucket sizes and refill rates"
    /// (<https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>): `RunInstances` 5 and 2 a second,
    /// `TerminateInstances` 100 and 5, what lists with a filter or in pages 100 and 20.
    fn new() -> Self {
        let bucket = |size: u32, refill: u32| {
            let some = |count| NonZeroU32::new(count).expect("a bucket holds something");
            RateLimiter::direct(Quota::per_second(some(refill)).allow_burst(some(size)))
        };
        Self { run: bucket(5, 2), change: bucket(100, 5), look: bucket(100, 20) }
    }
}

impl Clients {
    /// Clients by these settings, or by those that every AWS tool reads: the environment, `~/.aws`, the role of the
    /// machine.
    pub(super) async fn load(
        provider: &ProviderName,
        regions: &[Region],
        queue: Option<&str>,
        shared: Option<SdkConfig>,
    ) -> Self {
        let first = regions.first().map_or(PRICING_REGION, Region::as_str).to_owned();
        let shared = match shared {
            Some(shared) => shared,
            None => aws_config::defaults(BehaviorVersion::v2026_01_12()).load().await,
        };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let shared = shared
            .to_builder()
            .region(AwsRegion::new(first))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
            .timeout_config(timeouts)
            .build();
        let regions =
            regions.iter().map(|region| (region.clone(), RegionClient::new(&shared, region))).collect();
        Self {
            provider: provider.clone(),
            regions,
            pricing: aws_sdk_pricing::Client::new(&in_region(&shared, PRICING_REGION)),
            sts: aws_sdk_sts::Client::new(&shared),
            sqs: queue.map(|url| {
                let at = interruptions::region_of(url).map(|region| in_region(&shared, region.as_str()));
                aws_sdk_sqs::Client::new(at.as_ref().unwrap_or(&shared))
            }),
        }
    }

    /// The way to a region, which is one of those configured.
    pub(super) fn region(&self, region: &Region) -> Result<&RegionClient, ProviderError> {
        self.regions.get(region).ok_or_else(|| ProviderError {
            provider: self.provider.clone(),
            kind: ErrorKind::Invalid,
            effect: EffectMay::No,
            message: format!("{region} is none of the regions of this provider in the configuration"),
            source: None,
        })
    }

    /// What a call that failed means. `asked` says what was asked, `offering` what was to be rented, if anything.
    pub(super) fn failed<E>(
        &self,
        asked: &str,
        offering: Option<&Offering>,
        error: SdkError<E, HttpResponse>,
    ) -> ProviderError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let (kind, effect, said) = if let SdkError::ServiceError(refused) = &error {
            let code = refused.err().code().unwrap_or("no code");
            let meaning = errors::meaning(code, refused.raw().status().as_u16());
            let (kind, effect) = meaning.kind(offering);
            (kind, effect, format!("{code}: {}", refused.err().message().unwrap_or("no message")))
        } else if let SdkError::ConstructionFailure(_) = &error {
            (ErrorKind::Invalid, EffectMay::No, chain(&error))
        } else if is_about_credentials(&error) {
            (ErrorKind::Auth, EffectMay::No, format!("no credentials: {}", chain(&error)))
        } else if was_never_sent(&error) {
            (ErrorKind::Unavailable, EffectMay::No, chain(&error))
        } else {
            (ErrorKind::Unavailable, EffectMay::Maybe, chain(&error))
        };
        ProviderError {
            provider: self.provider.clone(),
            kind,
            effect,
            message: format!("{asked}: {said}"),
            source: Some(Box::new(error)),
        }
    }
}

impl RegionClient {
    fn new(shared: &SdkConfig, region: &Region) -> Self {
        let here = in_region(shared, region.as_str());
        Self {
            name: region.clone(),
            ec2: aws_sdk_ec2::Client::new(&here),
            quotas: aws_sdk_servicequotas::Client::new(&here),
            gates: Gates::new(),
            turns: Turns::default(),
        }
    }

    /// Waits until one more call may be made.
    pub(super) async fn pass(&self, gate: Gate) {
        let bucket = match gate {
            Gate::Run => &self.gates.run,
            Gate::Change => &self.gates.change,
            Gate::Look => &self.gates.look,
        };
        bucket.until_ready().await;
    }
}

/// What a refusal means, whatever was asked; nothing where AWS did not answer.
pub(super) fn meaning_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Meaning> {
    let SdkError::ServiceError(refused) = error else { return None };
    Some(errors::meaning(refused.err().code()?, refused.raw().status().as_u16()))
}

fn in_region(shared: &SdkConfig, region: &str) -> SdkConfig {
    shared.to_builder().region(AwsRegion::new(region.to_owned())).build()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = causes(error).map(ToString::to_string).collect();
    causes.join(": ")
}

pub(super) fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<aws_credential_types::provider::error::CredentialsError>())
}

/// Whether the connection was refused: nothing was asked then.
fn was_never_sent(error: &(dyn Error + 'static)) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable))
}
