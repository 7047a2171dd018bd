//! Why an experiment waits. Every "no" of the planner is one of these, and a person can read it.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    budget::BudgetKey,
    id::InstanceId,
    money::{Usd, UsdPerHour},
    offering::Quota,
    time::Timestamp,
};

/// What a queued experiment waits for. Thousands may wait for the same, so that it is small and cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "on")]
pub enum WaitingOn {
    /// An instance that it will share or have is on its way.
    Instance {
        /// That instance.
        instance: InstanceId,
    },
    /// A budget above it has no room for the hold of a launch now; held money may come back.
    Budget(Arc<NoRoom>),
    /// Its sweep runs as many trials as it may.
    SweepParallel {
        /// `max_parallel` of the sweep.
        limit: u32,
    },
    /// As many instances run as the configuration allows.
    InstanceLimit {
        /// `max_instances`.
        limit: u32,
    },
    /// All that would do counts in quotas of the account that are used up.
    Quota {
        /// One of them.
        quota: Arc<Quota>,
        /// What our instances take of it.
        used: u32,
        /// What it would take besides.
        needed: u32,
    },
    /// All that would do was refused lately by the providers.
    Capacity {
        /// How many offerings would do.
        offerings: u32,
        /// When the first of them is asked again.
        until: Timestamp,
    },
    /// All that would do costs more than a ceiling.
    Ceiling {
        /// The lowest price on offer.
        lowest: UsdPerHour,
        /// The ceiling.
        ceiling: UsdPerHour,
    },
    /// What would do is listed without a price.
    UnknownPrice {
        /// How many offerings.
        offerings: u32,
    },
    /// Nothing on the market does what it asks.
    NoOffering {
        /// What is missing, for people.
        missing: Arc<str>,
    },
    /// It reached a rung of its sweep's asha and is not among the best there, so far.
    Rung {
        /// The rung, counted from 0.
        rung: u32,
        /// Its place there, from 1 for the best.
        rank: u32,
        /// How many have reached the rung.
        of: u32,
        /// One in so many goes on.
        eta: u32,
    },
    /// What is left of its sweep's budget, what runs paid for, is not expected to bring it to its next rung.
    RungBudget {
        /// What is left.
        left: Usd,
        /// What reaching the rung is expected to cost.
        expected: Usd,
    },
    /// It failed and will be tried again.
    Backoff {
        /// Then.
        until: Timestamp,
        /// Instances in a row that were lost under it.
        losses: u32,
    },
}

/// A budget without room for a launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// Which budget.
    pub key: BudgetKey,
    /// Its limit.
    pub limit: Usd,
    /// What was spent of it.
    pub spent: Usd,
    /// What leases that run hold of it.
    pub held: Usd,
    /// What is kept for the next leases of what runs.
    pub kept: Usd,
    /// What the cheapest launch has to hold.
    pub needed: Usd,
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance { instance } => write!(f, "{instance} is on its way"),
            Self::Budget(no_room) => fmt::Display::fmt(no_room, f),
            Self::SweepParallel { limit } => {
                write!(f, "its sweep runs {limit} trials at once (max_parallel)")
            }
            Self::InstanceLimit { limit } => write!(f, "{limit} instances run, which is max_instances"),
            Self::Quota { quota, used, needed } => write!(
                f,
                "the quota {} ({}) is {}, of which {used} is in use, and {needed} more is needed: `bursar doctor` says how \
                 to raise it",
                quota.title, quota.name, quota.limit
            ),
            Self::Capacity { offerings, until } => {
                write!(
                    f,
                    "the providers refused all {offerings} offerings that would do; next try at {until}"
                )
            }
            Self::Ceiling { lowest, ceiling } => write!(
                f,
                "the lowest price that would do is {}, above the ceiling of {}",
                lowest.rounded(),
                ceiling.rounded()
            ),
            Self::UnknownPrice { offerings } => {
                write!(f, "{offerings} offerings would do, but none has a known price")
            }
            Self::NoOffering { missing } => write!(f, "nothing on offer does: {missing}"),
            Self::Rung { rung, rank, of, eta } => write!(
                f,
                "paused by asha as rank {rank} of {of} at rung {rung}, where 1 in {eta} goes on: at this rank once {} \
                 have reported",
                u64::from(*rank) * u64::from(*eta)
            ),
            Self::RungBudget { left, expected } => write!(
                f,
                "the sweep's budget has {} left beside what runs, reaching its next rung of asha takes about {}",
                left.rounded(),
                expected.rounded()
            ),
            Self::Backoff { until, losses: 0 } => write!(f, "it failed; next try at {until}"),
            Self::Backoff { until, losses } => write!(
                f,
                "its instance was lost under it, {losses} in a row; next try at {until}, on an instance of its own"
            ),
        }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, limit, spent, held, kept, needed } = self;
        write!(f, "{key} has no room: {} spent and {} held", spent.rounded(), held.rounded())?;
        if *kept > Usd::ZERO {
            write!(f, " and {} kept for what runs", kept.rounded())?;
        }
        write!(f, " of {}, a launch must hold {}", limit.rounded(), needed.rounded())
    }
}
