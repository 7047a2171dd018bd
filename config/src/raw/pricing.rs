//! What listed prices come to, as it was written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Written;

/// What listed prices come to for this account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawPricing {
    /// Discounts of the account on what providers list. The first that applies counts. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<RawDiscount>,
}

/// A discount on listed prices. A condition that is left out applies to all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["percent"]))]
pub struct RawDiscount {
    /// At the provider of this name. Default at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// In this region. Default in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// On this instance type; a `*` at the end stands for anything, as in `p4d.*`. Default on all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// On `spot`, `on-demand` or `reserved` capacity only. Default on all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["spot", "on-demand", "reserved", null]))]
    pub capacity_type: Option<String>,
    /// How much is taken off the listed price: more than 0 and less than 100, with at most four decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Written>,
}

/// For how much time the provider bills.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawBilling {
    /// The unit of time that counts whole once it has begun, `1ms` to `24h`. Default `1ms` for `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<String>,
    /// What is billed at least once billing has begun, at most `24h`. Default `0s` for `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<String>,
    /// When billing begins: with the `launch`, or once the instance is `running`. Default `launch` for `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["launch", "running", null]))]
    pub starts: Option<String>,
    /// When billing ends: as soon as the instance is `stopping`, or once it is `gone`. Default `gone` for `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["stopping", "gone", null]))]
    pub ends: Option<String>,
}
