//! Who is told what, as it was written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OneOrMany, RawSecret};

/// Who is told what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawNotifications {
    /// Where messages are sent over HTTP, by a name of your choice.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub webhooks: BTreeMap<String, RawWebhook>,
    /// Reports that are sent regularly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<RawReport>,
}

/// A place that takes messages over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct RawWebhook {
    /// Its address, `https://…` or `http://…`. That of a chat is a secret in itself: whoever knows it can write there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The form of the body: `plain` is an object with everything as fields, `slack` is text as incoming webhooks of
    /// Slack take it. Default `plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["plain", "slack", null]))]
    pub format: Option<String>,
    /// The key that each message is signed with, as `{env: NAME}` or `{file: /path}` of the daemon. Default unsigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<RawSecret>,
    /// Which messages it gets: `threshold` (a part of a budget was spent), `exhausted` (a budget stopped work, or let
    /// none start), `forecast` (a budget will be used up before its period ends), `anomaly` (an experiment costs far
    /// more than expected), `idle-gpu` (a GPU stays idle, by `utilization_policy`), `report` (a scheduled report). Default
    /// all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<OneOrMany>,
}

/// A report that is sent regularly. It covers the time since it was last sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["schedule", "to"]))]
pub struct RawReport {
    /// What it is called. Default `report-1` for the first, `report-2` for the second, and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it is sent: the five fields of a crontab, such as `0 8 * * mon` for Mondays at 8, or a word such as `day`
    /// for midnight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone of the schedule, such as `Europe/Berlin`. Default `UTC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What it is by, as `bursar report --by` has it. Default `project`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The webhooks that get it, by name, whatever their `events` say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<OneOrMany>,
}
