//! What AWS answers when it does not do what it was asked: one table from its error codes to what bursar does next.
//!
//! The codes of EC2 are those of its API reference, "Error codes" (below `API`); each row names the sentence or page that
//! it rests on. What is not in the table goes by its HTTP status: 4xx is refused for good, 5xx may have taken effect.

use bursar_model::{CapacityType, Offering, Scope, Span};

use crate::{EffectMay, ErrorKind};

/// What a code means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// There is nothing to be had now.
    Capacity(Reach),
    /// A quota of the account is full.
    Quota(Reach),
    /// Asked too often.
    Throttled,
    /// Credentials or permissions.
    Auth,
    /// The request is wrong.
    Invalid,
    /// AWS is in trouble; whether the call took effect is not known.
    Unavailable,
    /// The client token was used before, with other parameters: the launch happened.
    TokenUsed,
    /// There is no such resource (any longer).
    NotFound,
    /// A dry run that would have been allowed.
    DryRunPassed,
}

/// How much of the market a refusal speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This type in this zone, as spot or on demand: what AWS calls a capacity pool.
    Pool,
    /// This type in all of the region, as spot or on demand.
    Type,
    /// The whole zone.
    Zone,
    /// The whole region.
    Region,
}

/// One code.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) code: &'static str,
    pub(super) meaning: Meaning,
    /// Where it is documented.
    pub(super) source: &'static str,
}

const fn row(code: &'static str, meaning: Meaning, source: &'static str) -> Row {
    Row { code, meaning, source }
}

const API: &str = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html";
const LAUNCH: &str = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html";
const TOKENS: &str = "https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html";
const THROTTLING: &str = "https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html";
const COMMON: &str = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/CommonErrors.html";
const QUOTAS: &str =
    "https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_GetServiceQuota.html";
const PRICING: &str =
    "https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html";

/// All codes that are more than their HTTP status.
pub(super) const TABLE: &[Row] = &[
    // "There is not enough capacity to fulfill your request": answered with HTTP 500, though nothing was made.
    row("InsufficientInstanceCapacity", Meaning::Capacity(Reach::Pool), LAUNCH),
    row("InsufficientHostCapacity", Meaning::Capacity(Reach::Pool), API),
    row("InsufficientCapacity", Meaning::Capacity(Reach::Pool), API),
    row("InsufficientReservedInstanceCapacity", Meaning::Capacity(Reach::Pool), API),
    // "The requested configuration is currently not supported": this type is not sold in this zone.
    row("Unsupported", Meaning::Capacity(Reach::Pool), LAUNCH),
    // Without a price of our own the bid is the on-demand price, which the spot price does not pass for long.
    row("SpotMaxPriceTooLow", Meaning::Capacity(Reach::Pool), API),
    row("InsufficientVolumeCapacity", Meaning::Capacity(Reach::Zone), API),
    row("InsufficientFreeAddressesInSubnet", Meaning::Capacity(Reach::Zone), API),
    row("InsufficientAddressCapacity", Meaning::Capacity(Reach::Region), API),
    // Quotas of vCPUs count a family of types; which one, `super::quotas` knows and the planner is told beforehand.
    row("VcpuLimitExceeded", Meaning::Quota(Reach::Type), LAUNCH),
    row("MaxSpotInstanceCountExceeded", Meaning::Quota(Reach::Type), API),
    row("InstanceLimitExceeded", Meaning::Quota(Reach::Type), LAUNCH),
    row("SpotInstanceCountExceeded", Meaning::Quota(Reach::Type), API),
    row("VolumeLimitExceeded", Meaning::Quota(Reach::Region), API),
    row("MaxIOPSLimitExceeded", Meaning::Quota(Reach::Region), API),
    row("NetworkInterfaceLimitExceeded", Meaning::Quota(Reach::Region), API),
    row("RequestLimitExceeded", Meaning::Throttled, THROTTLING),
    row("RequestThrottled", Meaning::Throttled, THROTTLING),
    row("EC2ThrottledException", Meaning::Throttled, API),
    row("Throttling", Meaning::Throttled, COMMON),
    row("ThrottlingException", Meaning::Throttled, COMMON),
    row("TooManyRequestsException", Meaning::Throttled, QUOTAS),
    row("AuthFailure", Meaning::Auth, API),
    row("UnauthorizedOperation", Meaning::Auth, API),
    row("AccessDenied", Meaning::Auth, COMMON),
    row("AccessDeniedException", Meaning::Auth, COMMON),
    row("InvalidClientTokenId", Meaning::Auth, COMMON),
    row("UnrecognizedClientException", Meaning::Auth, COMMON),
    row("IncompleteSignature", Meaning::Auth, COMMON),
    row("SignatureDoesNotMatch", Meaning::Auth, COMMON),
    row("MissingAuthenticationToken", Meaning::Auth, COMMON),
    row("OptInRequired", Meaning::Auth, COMMON),
    row("RequestExpired", Meaning::Auth, COMMON),
    row("ExpiredToken", Meaning::Auth, COMMON),
    row("ExpiredTokenException", Meaning::Auth, COMMON),
    row("NotAuthorized", Meaning::Auth, COMMON),
    row("Blocked", Meaning::Auth, API),
    // "Your account is pending verification": hours, and nothing that asking elsewhere would mend.
    row("PendingVerification", Meaning::Auth, API),
    row("IdempotentParameterMismatch", Meaning::TokenUsed, TOKENS),
    row("IdempotentInstanceTerminated", Meaning::TokenUsed, TOKENS),
    row("InvalidInstanceID.NotFound", Meaning::NotFound, API),
    row("InvalidVolume.NotFound", Meaning::NotFound, API),
    row("InvalidSpotInstanceRequestID.NotFound", Meaning::NotFound, API),
    row("NoSuchResourceException", Meaning::NotFound, QUOTAS),
    row("NotFoundException", Meaning::NotFound, PRICING),
    row("DryRunOperation", Meaning::DryRunPassed, API),
    row("InternalError", Meaning::Unavailable, API),
    row("InternalFailure", Meaning::Unavailable, COMMON),
    row("Unavailable", Meaning::Unavailable, API),
    row("ServiceUnavailable", Meaning::Unavailable, COMMON),
    row("ServerInternal", Meaning::Unavailable, API),
];

/// What a code means, with the HTTP status that it came with.
pub(super) fn meaning(code: &str, status: u16) -> Meaning {
    let known = TABLE.iter().find(|row| row.code == code).map(|row| row.meaning);
    known.unwrap_or(if status >= 500 { Meaning::Unavailable } else { Meaning::Invalid })
}

impl Meaning {
    /// What the caller is told, where a call concerned what is offered here (or nothing on offer).
    pub(super) fn kind(self, offering: Option<&Offering>) -> (ErrorKind, EffectMay) {
        let scope = |reach: Reach| offering.map(|offering| reach.scope(offering));
        match self {
            Self::Capacity(reach) => {
                let kind = scope(reach).map_or(ErrorKind::Unavailable, ErrorKind::InsufficientCapacity);
                (kind, EffectMay::No)
            }
            Self::Quota(reach) => (scope(reach).map_or(ErrorKind::Invalid, ErrorKind::Quota), EffectMay::No),
            Self::Throttled => (ErrorKind::Throttled { retry_after: None::<Span> }, EffectMay::No),
            Self::Auth => (ErrorKind::Auth, EffectMay::No),
            Self::Invalid | Self::NotFound | Self::DryRunPassed => (ErrorKind::Invalid, EffectMay::No),
            Self::Unavailable | Self::TokenUsed => (ErrorKind::Unavailable, EffectMay::Maybe),
        }
    }
}

impl Reach {
    fn scope(self, offering: &Offering) -> Scope {
        let by_type = |zone| Scope {
            provider: offering.provider.clone(),
            region: Some(offering.region.clone()),
            zone,
            instance_type: Some(offering.instance_type.name.clone()),
            capacity_type: Some(offering.capacity_type),
        };
        let by_place =
            |zone| Scope { instance_type: None, capacity_type: None::<CapacityType>, ..by_type(zone) };
        match self {
            Self::Pool => by_type(Some(offering.zone.clone())),
            Self::Type => by_type(None),
            Self::Zone => by_place(Some(offering.zone.clone())),
            Self::Region => by_place(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_has_one_meaning_and_a_source() {
        let codes: BTreeSet<&str> = TABLE.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), TABLE.len());
        assert!(TABLE.iter().all(|row| row.source.starts_with("https://docs.aws.amazon.com/")));
    }

    #[test]
    fn what_is_not_in_the_table_goes_by_its_status() {
        assert_eq!(meaning("InvalidParameterValue", 400), Meaning::Invalid);
        assert_eq!(meaning("SomethingNew", 503), Meaning::Unavailable);
        assert_eq!(meaning("InsufficientInstanceCapacity", 500), Meaning::Capacity(Reach::Pool));
    }
}
