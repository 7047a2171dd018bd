//! What somebody is to be told over a webhook, from the decision until it was delivered or given up.
//!
//! A notification is queued in the commit of what it tells of, so that it is made once whatever crashes. It waits in the
//! outbox until the webhook took it. That may happen twice where the answer is lost, always with the same id.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    budget::{BudgetAlert, BudgetKey},
    id::{ExperimentId, NotificationId},
    instance::Backoff,
    money::Usd,
    time::{Period, Timestamp},
};

/// One message to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Its id, the same for every try.
    pub id: NotificationId,
    /// When it was queued.
    pub at: Timestamp,
    /// The webhook, by the name that the configuration gives it.
    pub to: String,
    /// What it tells of.
    pub about: NotificationAbout,
    /// What became of it.
    pub state: NotificationState,
    /// The tries that failed.
    #[serde(default)]
    pub backoff: Backoff,
    /// Why the last of them failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a notification tells of, with the numbers of the moment at which it was queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum NotificationAbout {
    /// Of a budget.
    Budget {
        /// Which budget.
        key: BudgetKey,
        /// What people call the sweep or experiment, where it is the budget of one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Arc<str>>,
        /// What happened.
        alert: BudgetAlert,
        /// The most that may be spent.
        limit: Option<Usd>,
        /// Charged, in the window where there is one.
        spent: Usd,
        /// Held for leases that run.
        held: Usd,
        /// The window.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Period>,
    },
    /// Of a GPU that stays idle.
    IdleGpu {
        /// Whose it is.
        experiment: ExperimentId,
        /// What people call that.
        name: Arc<str>,
        /// Since when.
        since: Timestamp,
        /// A GPU that is used for less than this, in percent, is idle.
        min_gpu_utilization: u8,
    },
    /// A scheduled report. It is made when it is sent, of the charges of its period.
    Report {
        /// What the report is called.
        name: String,
        /// What its rows are by, as `bursar report --by` has it.
        by: String,
        /// From the firing of its schedule before to this one.
        period: Period,
    },
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum NotificationState {
    /// It is to be delivered.
    Waiting,
    /// The webhook took it.
    Delivered {
        /// When.
        at: Timestamp,
    },
    /// It is not tried again.
    Dropped {
        /// When.
        at: Timestamp,
        /// Why.
        why: DropReason,
    },
}

/// Why a notification is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// It failed for so long that nobody wants to hear it any more.
    TooOld,
    /// The webhook refused it again and again.
    Refused,
    /// The configuration does not name the webhook any more.
    NoWebhook,
    /// Too many others waited for the same webhook.
    TooMany,
}

impl Notification {
    /// Whether it is still to be delivered.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state == NotificationState::Waiting
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooOld => "given up: it could not be delivered for too long",
            Self::Refused => "given up: the webhook refuses it",
            Self::NoWebhook => "the configuration has no such webhook any more",
            Self::TooMany => "too many others waited for the same webhook",
        })
    }
}
