//! What can be rented: a type in a zone as spot or on-demand, at a price.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    money::UsdPerHour,
    name::{ProviderName, Region, TypeName, Zone},
    pricing::{Price, Terms},
    resources::InstanceType,
    time::{Span, Timestamp},
};

/// How the provider sells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// Cheap, and the cloud may take it back.
    Spot,
    /// Ours until we end it.
    OnDemand,
    /// Paid for already.
    Reserved,
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
            Self::Reserved => "reserved",
        })
    }
}

/// What names an offering.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OfferingKey {
    /// The provider.
    pub provider: ProviderName,
    /// Its region.
    pub region: Region,
    /// The zone in the region.
    pub zone: Zone,
    /// The instance type.
    pub instance_type: TypeName,
    /// Spot or on-demand.
    pub capacity_type: CapacityType,
}

/// One thing to rent, with its price now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offering {
    /// The provider.
    pub provider: ProviderName,
    /// Its region.
    pub region: Region,
    /// The zone in the region.
    pub zone: Zone,
    /// The instance type with what it has.
    pub instance_type: Arc<InstanceType>,
    /// Spot or on-demand.
    pub capacity_type: CapacityType,
    /// The price now. `None` is unknown, as is a listed price of 0: never chosen. A provider says what it lists; what
    /// the rest of bursar sees has discounts, address and overhead in it (`ledger::quote`).
    pub price: Option<UsdPerHour>,
    /// What the provider lists, address included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_price: Option<UsdPerHour>,
    /// The on-demand price of the same type in the same place, with all that `price` has in it: the default ceiling of a
    /// spot price.
    pub on_demand_price: Option<UsdPerHour>,
    /// Since when the price is in force, where the provider says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_since: Option<Timestamp>,
    /// What an instance takes of a limit of the account, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaUse>,
    /// How long before its end an instance is told that it is taken back, where it can be: 120 s on AWS, 30 s on GCP.
    /// None is not known, or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Span>,
    /// What else is to be paid, and for how much time.
    #[serde(default)]
    pub terms: Arc<Terms>,
}

/// A limit that a provider sets an account, and that several offerings share: on AWS, the virtual CPUs of all instances
/// of some families in a region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quota {
    /// What tells it from all others: the region and the provider's code, such as `us-east-1/L-417A185B`.
    pub name: Arc<str>,
    /// What the provider calls it, such as `Running On-Demand P instances`.
    pub title: Arc<str>,
    /// The most that all instances together may take.
    pub limit: u32,
}

/// What an instance takes of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuotaUse {
    /// Which.
    pub quota: Arc<Quota>,
    /// How much: on AWS, virtual CPUs.
    pub units: u32,
}

impl Offering {
    /// The price now, effective and listed.
    #[must_use]
    pub fn known_price(&self) -> Option<Price> {
        let effective = self.price.filter(|price| *price > UsdPerHour::ZERO)?;
        Some(Price { effective, list: self.list_price.unwrap_or(effective) })
    }

    /// What names it.
    #[must_use]
    pub fn key(&self) -> OfferingKey {
        OfferingKey {
            provider: self.provider.clone(),
            region: self.region.clone(),
            zone: self.zone.clone(),
            instance_type: self.instance_type.name.clone(),
            capacity_type: self.capacity_type,
        }
    }
}

impl fmt::Display for OfferingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { provider, region: _, zone, instance_type, capacity_type } = self;
        write!(f, "{provider}/{zone}/{instance_type}/{capacity_type}")
    }
}

/// A part of the market that a refusal speaks of: what is named matches, what is `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The provider, always named.
    pub provider: ProviderName,
    /// The region, or all.
    pub region: Option<Region>,
    /// The zone, or all.
    pub zone: Option<Zone>,
    /// The instance type, or all.
    pub instance_type: Option<TypeName>,
    /// Spot or on-demand, or both.
    pub capacity_type: Option<CapacityType>,
}

impl Scope {
    /// Just this offering.
    #[must_use]
    pub fn of(key: &OfferingKey) -> Self {
        Self {
            provider: key.provider.clone(),
            region: Some(key.region.clone()),
            zone: Some(key.zone.clone()),
            instance_type: Some(key.instance_type.clone()),
            capacity_type: Some(key.capacity_type),
        }
    }

    /// Whether an offering is inside.
    #[must_use]
    pub fn covers(&self, offering: &Offering) -> bool {
        let Self { provider, region, zone, instance_type, capacity_type } = self;
        *provider == offering.provider
            && region.as_ref().is_none_or(|r| *r == offering.region)
            && zone.as_ref().is_none_or(|z| *z == offering.zone)
            && instance_type.as_ref().is_none_or(|t| *t == offering.instance_type.name)
            && capacity_type.is_none_or(|c| c == offering.capacity_type)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { provider, region, zone, instance_type, capacity_type } = self;
        write!(f, "{provider}")?;
        match (zone, region) {
            (Some(zone), _) => write!(f, "/{zone}")?,
            (None, Some(region)) => write!(f, "/{region}")?,
            (None, None) => {}
        }
        if let Some(name) = instance_type {
            write!(f, "/{name}")?;
        }
        if let Some(capacity_type) = capacity_type {
            write!(f, "/{capacity_type}")?;
        }
        Ok(())
    }
}
