//! Budgets as they were written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Written;

/// A budget that outlives the work that it pays for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawBudget {
    /// The most that may be spent, in USD: in each period where there are periods, else ever. Default no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Written>,
    /// When a new period begins, with nothing spent: `total` is never; `hour`, `day`, `week` (on Monday), `month`,
    /// `quarter` and `year` begin with the calendar's; the five fields of a crontab say any other, such as
    /// `0 0 25 * *` for the 25th of each month. Default `total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// The time zone of the calendar that `per` speaks of, such as `Europe/Berlin`. Default `UTC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// At which parts of the limit somebody is told, in whole percent; `[]` is never. Default `[50, 80, 100]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<i64>>,
    /// What becomes of running work when the money is used up. `checkpoint-and-stop`: it is told to save early enough,
    /// and stops before the limit. `stop`: it stops just before the limit, without time to save. `finish-running`: work
    /// starts only where money for the rest of its `estimate` can be held, and then finishes. `notify-only`: it goes on
    /// and new work starts; the limit is a mark, not a cap. Default `checkpoint-and-stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["checkpoint-and-stop", "stop", "finish-running", "notify-only", null]))]
    pub on_exhausted: Option<String>,
}

/// A budget that ends with the work that it pays for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-not-here" = {
    "per": "the budget of an experiment or a sweep has no periods: it counts all that the work ever costs",
    "timezone": "the budget of an experiment or a sweep has no periods: it counts all that the work ever costs"
}))]
pub struct RawWorkBudget {
    /// The most that may ever be spent, in USD. Default no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Written>,
    /// At which parts of the limit somebody is told, in whole percent. Default never for an experiment, and
    /// `[50, 80, 100]` for a sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<i64>>,
    /// What becomes of running work when the money is used up: `checkpoint-and-stop`, `stop`, `finish-running` (needs
    /// an `estimate`) or `notify-only`, as for the budgets of the daemon. Default `checkpoint-and-stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["checkpoint-and-stop", "stop", "finish-running", "notify-only", null]))]
    pub on_exhausted: Option<String>,
}

impl From<Written> for RawBudget {
    fn from(limit: Written) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }
}

impl From<Written> for RawWorkBudget {
    fn from(limit: Written) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }
}
