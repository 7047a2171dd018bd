//! The market: all offerings, indexed so that the cheapest that does is found without looking at all.
//!
//! Zones and regions multiply a few hundred machine types to a hundred thousand offerings. What an experiment needs
//! is decided by the type, what it costs by the cheapest place that sells it. So offerings are kept by type, cheapest
//! first, and types by accelerator, cheapest first: the first that fits is the cheapest that fits.

use std::{cmp::Ordering, sync::Arc};

use bursar_model::{
    AcceleratorName, Accelerators, Amounts, CapacityType, InstanceType, Offering, OfferingKey, Resources,
    UsdPerHour,
};
use rustc_hash::FxHashMap;

/// All that can be rented now.
#[derive(Debug, Clone, Default)]
pub struct Market {
    /// By key, so that an index names an offering, finds it and breaks ties all at once.
    offerings: Vec<Offering>,
    kinds: Vec<Kind>,
    /// All types.
    all: Shelf,
    by_accelerator: FxHashMap<AcceleratorName, Shelf>,
}

/// A machine type with where it is sold, over all providers that call it the same.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) instance_type: Arc<InstanceType>,
    /// Offerings with a known price, the cheapest first, of equals the first by key.
    spot: Vec<u32>,
    firm: Vec<u32>,
    /// Offerings that are listed without a price, or with a price of 0: a hole in the list, not a present.
    pub(crate) unpriced: Vec<u32>,
}

/// Whether the cloud may take it back. Reserved capacity is as firm as on-demand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Firmness {
    Spot,
    Firm,
}

/// Types that are sold at a known price, each list with the cheapest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    spot: Vec<Row>,
    firm: Vec<Row>,
}

/// A type in a list, with as much of it as tells what fits without following a pointer or comparing a name: all on a
/// shelf of an accelerator have that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What the cheapest offering of the type costs.
    pub(crate) price: UsdPerHour,
    pub(crate) kind: u32,
    cpus_milli: u32,
    memory_mib: u64,
    disk_gib: u32,
    accelerators: u32,
    accelerator_memory_gib: Option<u32>,
}

impl Market {
    /// Indexes these offerings. Of several with the same key the last counts.
    #[must_use]
    pub fn new(mut offerings: Vec<Offering>) -> Self {
        offerings.sort_by(by_key);
        offerings.reverse();
        offerings.dedup_by(|a, b| by_key(a, b) == Ordering::Equal);
        offerings.reverse();

        let mut market = Self { offerings, ..Self::default() };
        market.index_kinds();
        market.fill_shelves();
        market
    }

    /// All offerings, in the order of their keys.
    #[must_use]
    pub fn offerings(&self) -> &[Offering] {
        &self.offerings
    }

    /// The offering of this key, if it is on offer now.
    #[must_use]
    pub fn find(&self, key: &OfferingKey) -> Option<&Offering> {
        self.index_of(key).map(|index| self.offering(index))
    }

    /// The index of the offering of this key, if it is on offer now.
    pub(crate) fn index_of(&self, key: &OfferingKey) -> Option<u32> {
        let wanted = (&key.provider, &key.region, &key.zone, &key.instance_type, key.capacity_type);
        let found = self.offerings.binary_search_by(|offering| parts(offering).cmp(&wanted)).ok()?;
        u32::try_from(found).ok()
    }

    pub(crate) fn offering(&self, index: u32) -> &Offering {
        &self.offerings[index as usize]
    }

    pub(crate) fn kind(&self, index: u32) -> &Kind {
        &self.kinds[index as usize]
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The types with this accelerator, if it is sold at all.
    pub(crate) fn shelf(&self, accelerator: &AcceleratorName) -> Option<&Shelf> {
        self.by_accelerator.get(accelerator)
    }

    /// All types.
    pub(crate) fn whole_shelf(&self) -> &Shelf {
        &self.all
    }

    fn index_kinds(&mut self) {
        let mut known: FxHashMap<&InstanceType, usize> = FxHashMap::default();
        for (index, offering) in (0_u32..).zip(&self.offerings) {
            let position = *known.entry(&offering.instance_type).or_insert_with(|| {
                let instance_type = offering.instance_type.clone();
                self.kinds.push(Kind {
                    instance_type,
                    spot: Vec::new(),
                    firm: Vec::new(),
                    unpriced: Vec::new(),
                });
                self.kinds.len() - 1
            });
            let kind = &mut self.kinds[position];
            match (known_price(offering), Firmness::of(offering.capacity_type)) {
                (None, _) => kind.unpriced.push(index),
                (Some(_), Firmness::Spot) => kind.spot.push(index),
                (Some(_), Firmness::Firm) => kind.firm.push(index),
            }
        }
        for kind in &mut self.kinds {
            for priced in [&mut kind.spot, &mut kind.firm] {
                priced.sort_by_key(|index| (known_price(&self.offerings[*index as usize]), *index));
            }
        }
    }

    fn fill_shelves(&mut self) {
        for firmness in [Firmness::Spot, Firmness::Firm] {
            for (index, kind) in (0_u32..).zip(&self.kinds) {
                let Some(cheapest) = kind.offerings(firmness).first() else { continue };
                let Some(price) = known_price(&self.offerings[*cheapest as usize]) else { continue };
                let row = Row::new(price, index, &kind.instance_type);
                self.all.rows_mut(firmness).push(row);
                if let Some(has) = &kind.instance_type.accelerators {
                    self.by_accelerator.entry(has.name.clone()).or_default().rows_mut(firmness).push(row);
                }
            }
            for shelf in self.by_accelerator.values_mut().chain([&mut self.all]) {
                shelf.rows_mut(firmness).sort_by_key(|row| (row.price, row.kind));
            }
        }
    }
}

impl Kind {
    /// Its offerings with a known price, the cheapest first.
    pub(crate) fn offerings(&self, firmness: Firmness) -> &[u32] {
        match firmness {
            Firmness::Spot => &self.spot,
            Firmness::Firm => &self.firm,
        }
    }
}

impl Firmness {
    pub(crate) fn of(capacity_type: CapacityType) -> Self {
        match capacity_type {
            CapacityType::Spot => Self::Spot,
            CapacityType::OnDemand | CapacityType::Reserved => Self::Firm,
        }
    }
}

impl Shelf {
    /// Its types that are sold so, the cheapest first.
    pub(crate) fn rows(&self, firmness: Firmness) -> &[Row] {
        match firmness {
            Firmness::Spot => &self.spot,
            Firmness::Firm => &self.firm,
        }
    }

    fn rows_mut(&mut self, firmness: Firmness) -> &mut Vec<Row> {
        match firmness {
            Firmness::Spot => &mut self.spot,
            Firmness::Firm => &mut self.firm,
        }
    }
}

impl Row {
    fn new(price: UsdPerHour, index: u32, kind: &InstanceType) -> Self {
        let InstanceType { accelerators, cpus_milli, memory_mib, disk_gib, name: _ } = kind;
        Self {
            price,
            kind: index,
            cpus_milli: *cpus_milli,
            memory_mib: *memory_mib,
            disk_gib: *disk_gib,
            accelerators: accelerators.as_ref().map_or(0, |has| has.count),
            accelerator_memory_gib: accelerators.as_ref().and_then(|has| has.memory_gib),
        }
    }

    /// What `Resources::amounts_on` says of the type, given the alternatives that name its accelerator.
    pub(crate) fn amounts<'w>(
        &self,
        resources: &Resources,
        mut alternatives: impl Iterator<Item = &'w Accelerators>,
    ) -> Option<Amounts> {
        let Resources { accelerators: wanted, cpus_milli, memory_mib, disk_gib } = resources;
        if self.cpus_milli < *cpus_milli || self.memory_mib < *memory_mib || self.disk_gib < *disk_gib {
            return None;
        }
        let fits = |want: &&Accelerators| want.fit_among(self.accelerators, self.accelerator_memory_gib);
        let accelerators = if wanted.is_empty() { 0 } else { alternatives.find(fits)?.count };
        Some(Amounts { accelerators, cpus_milli: *cpus_milli, memory_mib: *memory_mib })
    }
}

/// The price, unless it is unknown.
pub(crate) fn known_price(offering: &Offering) -> Option<UsdPerHour> {
    offering.price.filter(|price| *price > UsdPerHour::ZERO)
}

type Parts<'a> = (
    &'a bursar_model::ProviderName,
    &'a bursar_model::Region,
    &'a bursar_model::Zone,
    &'a bursar_model::TypeName,
    CapacityType,
);

/// What an offering's key is made of, without making one.
fn parts(offering: &Offering) -> Parts<'_> {
    let Offering { provider, region, zone, instance_type, capacity_type, .. } = offering;
    (provider, region, zone, &instance_type.name, *capacity_type)
}

fn by_key(a: &Offering, b: &Offering) -> Ordering {
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gpu, offering, spot};

    #[test]
    fn an_offering_is_found_by_its_key_and_the_last_of_equals_counts() {
        let market = Market::new(vec![
            offering(&gpu("b", "T4", 1), 2.0),
            offering(&gpu("a", "T4", 1), 1.0),
            offering(&gpu("a", "T4", 1), 3.0),
        ]);
        assert_eq!(market.offerings().len(), 2);
        let key = offering(&gpu("a", "T4", 1), 0.0).key();
        assert_eq!(market.find(&key).and_then(|found| found.price), Some("3".parse().unwrap()));
        assert_eq!(market.find(&spot(&gpu("a", "T4", 1), 1.0, 2.0).key()), None);
    }

    #[test]
    fn what_has_no_price_is_kept_apart() {
        let market = Market::new(vec![offering(&gpu("a", "T4", 1), 0.0), offering(&gpu("b", "T4", 1), 1.0)]);
        let rows = market.shelf(&"T4".into()).unwrap().rows(Firmness::Firm);
        assert_eq!(rows.len(), 1);
        assert_eq!(market.kind(rows[0].kind).instance_type.name.as_str(), "b");
        assert_eq!(market.kinds().iter().map(|kind| kind.unpriced.len()).sum::<usize>(), 1);
    }
}
