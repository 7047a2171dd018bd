//! Providers: where instances come from. The trait is the contract; each sentence of it is a test in `conformance`.

#[cfg(feature = "aws")]
pub mod aws;
pub mod bootstrap;
pub mod conformance;
pub mod faulty;
mod finding;
#[cfg(feature = "aws")]
mod gpus;
pub mod local;
pub mod memory;

use std::{collections::BTreeMap, fmt};

use bursar_model::{CloudId, CloudInstance, InstanceId, Offering, ProviderName, Scope, Span, Timestamp};

pub use self::finding::Finding;

/// A place that rents out instances.
///
/// What every implementation promises:
///
/// 1. `launch` is idempotent by `LaunchRequest::instance`: asked again with the same request, it answers with the same
///    cloud instance and never makes a second one, across restarts of the daemon too, even after that instance ended.
/// 2. `launch` carries the installation and the instance id as tags *at creation*, so that `list` shows it, at the latest
///    [`LISTING_LAG`] after the launch: a listing may be as old as that.
/// 3. A refused launch says so with `EffectMay::No` and leaves nothing behind. Where it is not known whether the call
///    took effect, the error says `EffectMay::Maybe`; what has not taken effect after [`LAUNCH_LAG`] never will.
/// 4. `list` shows every instance of the installation that may still cost money, and those that ended for at least
///    [`LIST_KEEPS_ENDED`], each with its end, which is always the same.
/// 5. `terminate` is idempotent, also for what is gone or never was. After it, `list` shows the end sooner or later.
/// 6. An instance is `Gone` in `list` only when it costs nothing any more and nothing of it runs.
/// 7. Instances of other installations are never shown nor touched, and each call touches no other instance of ours.
/// 8. An instance that hears nothing ends by itself, at the end of its lease or soon after. Only what runs nothing need
///    not.
#[async_trait::async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// Its name in the configuration.
    fn name(&self) -> &ProviderName;

    /// What can be rented, at today's prices.
    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError>;

    /// Makes an instance, or finds the one that this request made before.
    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError>;

    /// How many instances one call can make, at most [`bursar_model::Together::MAX`] of which are asked for at once.
    fn launches_at_once(&self) -> usize {
        1
    }

    /// Makes several instances that are alike but for their ids and secrets, with few calls: `launch` for each of them, and
    /// answered for each in their order. Asked again, it is asked for all of them again. Where `whole` is set all are made
    /// or none, if the provider can tell before.
    async fn launch_together(
        &self,
        requests: &[LaunchRequest],
        whole: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        let _ = whole;
        futures::future::join_all(requests.iter().map(|request| self.launch(request))).await
    }

    /// All instances of this installation.
    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError>;

    /// Ends what else costs money and is of no instance any more, such as disks that were left behind: asked for now and
    /// then, so that a bounded part at a time is enough. Nothing by default: where nothing can be left, nothing is.
    async fn sweep(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Ends an instance. Named by our id, so that one whose launch answer was lost can be ended too.
    async fn terminate(&self, instance: InstanceId, cloud_id: Option<&CloudId>) -> Result<(), ProviderError>;
}

/// What to launch. Made from the committed intent alone, so that a restarted daemon asks for exactly the same.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchRequest {
    /// This installation of bursar: a tag, and part of the idempotency token.
    pub installation: String,
    /// Which instance of ours: a tag, and the rest of the token.
    pub instance: InstanceId,
    /// What to rent.
    pub offering: Offering,
    /// Disk in GiB.
    pub disk_gib: u32,
    /// When the first lease ends: the instance ends itself by then if it hears nothing.
    pub lease_until: Timestamp,
    /// How long it is: what a machine may run at most whose clock is wrong.
    pub lease: Span,
    /// The SHA-256, in hex, of the agent for each kind of machine, as `uname -m` names it. The daemon serves the agent below
    /// `/v1/agent/binary/`.
    pub agents: BTreeMap<String, String>,
    /// Where its agent finds the daemon, such as `http://127.0.0.1:7733`.
    pub daemon_url: String,
    /// The one-time secret that its agent registers with.
    pub secret: String,
    /// What it is for, for people who look at the cloud's own pages and bills: `project`, `experiment` and the like.
    pub labels: BTreeMap<String, String>,
}

/// A call that did not do what it was to.
#[derive(Debug, thiserror::Error)]
#[error("{provider}: {message}")]
pub struct ProviderError {
    /// Which provider.
    pub provider: ProviderName,
    /// What the caller does next depends on this.
    pub kind: ErrorKind,
    /// Whether the call may have taken effect.
    pub effect: EffectMay,
    /// What the provider said, for people.
    pub message: String,
    /// What lies beneath.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of error, by what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// This part of the market has nothing now: ask elsewhere, and here again later.
    InsufficientCapacity(Scope),
    /// A quota is full: the same, but only a person can raise it.
    Quota(Scope),
    /// Asked too often: again after a while.
    Throttled {
        /// Where the provider says how long.
        retry_after: Option<Span>,
    },
    /// Credentials or permissions: a person must act; asked again now and then.
    Auth,
    /// The request itself is wrong: asking again will not help.
    Invalid,
    /// The provider or the way to it is down: again after a while.
    Unavailable,
}

/// Whether a failed call may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectMay {
    /// It did not.
    No,
    /// Nobody knows: only the same token, or `list`, can tell.
    Maybe,
}

/// By how much a listing may be late: clouds call it eventually consistent.
pub const LISTING_LAG: Span = Span::from_secs(60);

/// How long after its caller is gone a launch may still take effect, at most: requests under way outlive who sent them.
pub const LAUNCH_LAG: Span = Span::from_secs(600);

/// How long `list` shows an instance after its end, at least.
pub const LIST_KEEPS_ENDED: Span = Span::from_secs(3600);
