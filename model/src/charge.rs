//! Charges: what an instance cost over a period, and who pays which part of it for what.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    budget::Account,
    id::{ExperimentId, InstanceId},
    pricing::{Costs, Rates},
    time::Period,
};

/// What the money went on. Each instance-second is in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// An attempt's work.
    Run,
    /// From the launch until work could start.
    Boot,
    /// Nothing to do.
    Idle,
    /// Checkpointing, stopping, shutting down.
    Drain,
    /// Work since the last checkpoint, lost at an interruption.
    Lost,
}

impl Category {
    /// All, in the order of reports.
    pub const ALL: [Self; 5] = [Self::Run, Self::Boot, Self::Idle, Self::Drain, Self::Lost];
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Run => "run",
            Self::Boot => "boot",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Lost => "lost",
        })
    }
}

/// Whether a charge is the first word on its period or mends an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChargeClass {
    /// Metered.
    Usage,
    /// Mends earlier charges. Its lines may be negative; its period may lie over theirs.
    Correction,
}

/// What an instance cost over a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Which instance.
    pub instance: InstanceId,
    /// When.
    pub period: Period,
    /// Metered or corrected.
    pub class: ChargeClass,
    /// What an hour cost.
    pub rates: Rates,
    /// Who pays which part for what. The sum is the cost of the period, exactly (L1).
    pub lines: Vec<ChargeLine>,
}

/// One payer's part of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeLine {
    /// The experiment that caused it.
    pub payer: ExperimentId,
    /// Whose money that is.
    pub account: Arc<Account>,
    /// What for.
    pub category: Category,
    /// How much.
    pub costs: Costs,
}

impl Charge {
    /// What the period cost.
    #[must_use]
    pub fn costs(&self) -> Costs {
        self.lines.iter().map(|line| line.costs).sum()
    }
}
