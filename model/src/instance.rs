//! Instances: ours from the intent to the end, and the cloud's record of them.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    budget::Account,
    host::Boot,
    id::{ExperimentId, InstanceId},
    money::{Usd, UsdPerHour},
    name::CloudId,
    offering::Offering,
    pricing::{Costs, EarlierPrice, Price, Rates, Remainders, Segment, Terms},
    time::{Period, Span, Timestamp},
};

/// An instance of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id. The provider's idempotency token is derived from it.
    pub id: InstanceId,
    /// What we asked for, with the prices of then.
    pub offering: Offering,
    /// Where it is in its life.
    pub state: InstanceState,
    /// The cloud's name of it, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_id: Option<CloudId>,
    /// The disk that we asked for, in GiB.
    pub disk_gib: u32,
    /// The highest price that we let it reach: what its holds are made of.
    pub ceiling: UsdPerHour,
    /// The price in force.
    pub price: Price,
    /// The prices in force before, for time that is not charged yet, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_prices: Vec<EarlierPrice>,
    /// It is paid for until then, and for `drain_allowance` after. The agent ends everything by then.
    pub lease_until: Timestamp,
    /// What is paid beyond the lease for checkpointing and shutting down.
    pub drain_allowance: Span,
    /// Money is held until then at least, though the lease is shorter: for those whose budget finishes what it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funded_until: Option<Timestamp>,
    /// Who pays for which part, and what is held for it.
    pub shares: BTreeMap<ExperimentId, Share>,
    /// How far it is charged.
    pub meter: Meter,
    /// SHA-256 of the agent's token, in hex, once it registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
    /// How it came up, once its agent registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Arc<Boot>>,
    /// Where other nodes of an attempt reach it, once its agent said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Since when nothing runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// When the cloud takes it back, once it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Timestamp>,
    /// Why the cloud may take it back soon, once it said so. A hint: nothing is decided by it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk: Option<String>,
    /// Calls to the provider that failed in a row, and when the next may be.
    #[serde(default)]
    pub backoff: Backoff,
    /// Those that one call launches, itself among them, while it is intended. None is asked for by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<Arc<Together>>,
}

/// Launches that are alike, and that one call to the provider asks for: so many at once cost no more calls than one. Laid
/// down with the intent, because a call that is asked for again must be the same to the letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Together {
    /// All of them, in the order in which the provider numbers what it makes.
    pub instances: Vec<InstanceId>,
    /// The lease that they are launched with.
    pub lease_until: Timestamp,
    /// All or none: half of a gang does nothing but cost money.
    pub whole: bool,
}

impl Together {
    /// How many at most: as many ids as fit into the 256 letters of a tag on EC2.
    pub const MAX: usize = 14;
}

/// One payer's part of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Whose money it is.
    pub account: Arc<Account>,
    /// The part, out of `InstanceType::weight` (or of the sum of all weights, where that is more).
    pub weight: u32,
    /// What is held in each budget above the payer.
    pub held: Usd,
}

/// How far an instance is charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// When billing began, by the cloud's record; `None` before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Charged until then; before billing began, the earliest at which it may have.
    pub through: Timestamp,
    /// What rounding left over.
    pub remainders: Remainders,
    /// The sum of all charges.
    pub costs: Costs,
}

/// Calls that failed in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backoff {
    /// How many.
    pub failures: u32,
    /// No call before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// Where an instance is in its life. `Intended` may or may not exist at the cloud: that is what makes leaks impossible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum InstanceState {
    /// Committed; the launch is asked for with the same token until the answer is known.
    Intended {
        /// Since when.
        at: Timestamp,
    },
    /// The cloud said that it exists; its agent has not registered.
    Booting {
        /// Since when.
        at: Timestamp,
    },
    /// Its agent registered and takes work.
    Ready {
        /// Since when.
        since: Timestamp,
    },
    /// No new work; what runs was told to stop.
    Draining {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: DrainReason,
    },
    /// The end is asked for until the cloud says that it is gone.
    Terminating {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: DrainReason,
    },
    /// The cloud said that it is gone, or that it never was.
    Gone {
        /// Since when.
        at: Timestamp,
        /// How.
        end: InstanceEnd,
    },
}

/// Why we end an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainReason {
    /// Nothing to do for `idle_duration`.
    Idle,
    /// Its lease could not be paid for any longer.
    Budget,
    /// Its price passed the ceiling.
    Ceiling,
    /// The cloud takes it back.
    Interrupted,
    /// Its agent did not register in time, or fell silent.
    AgentLost,
    /// Nobody needs it any longer.
    Unneeded,
    /// Its launch was refused, though an earlier request for it may have worked.
    LaunchDoubtful,
    /// Somebody asked for its end.
    Asked,
}

impl fmt::Display for DrainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Budget => "budget",
            Self::Ceiling => "price above the ceiling",
            Self::Interrupted => "interrupted",
            Self::AgentLost => "agent lost",
            Self::Unneeded => "unneeded",
            Self::LaunchDoubtful => "launch doubtful",
            Self::Asked => "ended by hand",
        })
    }
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum InstanceEnd {
    /// The launch was refused: it never existed and cost nothing.
    Refused {
        /// What the provider said.
        message: String,
    },
    /// The cloud took it back.
    Interrupted,
    /// We ended it.
    Terminated {
        /// Why.
        why: DrainReason,
    },
    /// It ended of itself: its lease ran out, it crashed, or somebody ended it by hand.
    Vanished,
}

/// The cloud's record of an instance that carries our tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInstance {
    /// The cloud's name of it.
    pub cloud_id: CloudId,
    /// Which of ours it is, by its tag.
    pub instance: InstanceId,
    /// Whether it still costs money.
    pub state: CloudState,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// Since when it runs, where the cloud says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<Timestamp>,
    /// Since when it ends, where the cloud says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<Timestamp>,
    /// When the cloud will take it back, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Timestamp>,
}

/// The cloud's word on an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum CloudState {
    /// It starts.
    Pending,
    /// It runs.
    Running,
    /// It was told to end.
    Stopping,
    /// It is over.
    Gone {
        /// Since when.
        at: Timestamp,
        /// Whether the cloud took it back.
        interrupted: bool,
    },
}

impl Instance {
    /// Whether it may exist at the cloud.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.state, InstanceState::Gone { .. })
    }

    /// Until when it is paid for.
    #[must_use]
    pub fn paid_until(&self) -> Timestamp {
        self.lease_until + self.drain_allowance
    }

    /// What is held for it in all.
    #[must_use]
    pub fn held(&self) -> Usd {
        self.shares.values().map(|share| share.held).sum()
    }

    /// Until when money is held for it: for its lease, or for as long as what runs on it is to be finished.
    #[must_use]
    pub fn held_until(&self) -> Timestamp {
        self.lease_until.max(self.funded_until.unwrap_or(self.lease_until)) + self.drain_allowance
    }

    /// What may still be billed of it, given that it is charged up to `through` and gone by `end`.
    #[must_use]
    pub fn outstanding(&self, through: Timestamp, end: Timestamp) -> Span {
        self.offering.terms.billing.outstanding(self.meter.from, through, end)
    }

    /// What its disk costs an hour.
    #[must_use]
    pub fn disk_price(&self) -> UsdPerHour {
        self.offering.terms.disk_gib.times(self.disk_gib)
    }

    /// What an hour costs at this price, on each basis.
    #[must_use]
    pub fn rates_at(&self, price: Price) -> Rates {
        let disk = self.disk_price();
        let Terms { overhead, .. } = *self.offering.terms;
        Rates {
            effective: price.effective + disk,
            contracted: price.effective + disk - overhead,
            list: price.list + disk,
            on_demand: self.offering.on_demand_price.unwrap_or(price.effective) + disk,
        }
    }

    /// A period that is not charged yet, cut where the price changed.
    #[must_use]
    pub fn segments(&self, period: Period) -> Vec<Segment> {
        let mut segments = Vec::with_capacity(self.earlier_prices.len() + 1);
        let mut from = period.from;
        for EarlierPrice { until, price } in &self.earlier_prices {
            let part = Period::new(from, (*until).min(period.to));
            if !part.is_empty() {
                segments.push(Segment { period: part, price: *price });
                from = part.to;
            }
        }
        let rest = Period::new(from, period.to);
        if !rest.is_empty() {
            segments.push(Segment { period: rest, price: self.price });
        }
        segments
    }

    /// What all shares are parts of: the type's weight, or the sum of the shares where that is more.
    #[must_use]
    pub fn total_weight(&self) -> u32 {
        let sum: u32 = self.shares.values().map(|share| share.weight).sum();
        sum.max(self.offering.instance_type.weight())
    }

    /// The cloud bills it since then.
    pub(crate) fn begin_billing(&mut self, at: Timestamp) {
        self.meter.from = Some(at);
        self.meter.through = at;
        self.earlier_prices.retain(|earlier| earlier.until > at);
    }

    /// Another price is in force from then on, or from where it is charged to.
    pub(crate) fn change_price(&mut self, at: Timestamp, price: Price) {
        let newest = self.earlier_prices.last().map_or(self.meter.through, |earlier| earlier.until);
        let at = at.max(newest);
        if at > newest {
            self.earlier_prices.push(EarlierPrice { until: at, price: self.price });
        }
        if self.earlier_prices.len() > Self::EARLIER_PRICES_MAX {
            let oldest = self.earlier_prices.remove(0);
            // Never too little: time whose price is forgotten counts at the higher of the two.
            let next = &mut self.earlier_prices[0].price;
            next.effective = next.effective.max(oldest.price.effective);
            next.list = next.list.max(oldest.price.list);
        }
        self.price = price;
    }

    /// The most prices that are kept for time that is not charged yet: one a minute over ten hours of silence.
    const EARLIER_PRICES_MAX: usize = 600;

    /// One word for lists and filters.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            InstanceState::Intended { .. } => "intended",
            InstanceState::Booting { .. } => "booting",
            InstanceState::Ready { .. } => "ready",
            InstanceState::Draining { .. } => "draining",
            InstanceState::Terminating { .. } => "terminating",
            InstanceState::Gone { .. } => "gone",
        }
    }
}
