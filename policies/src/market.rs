//! The market: all offerings, indexed so that the cheapest that does is found without looking at all.
//!
//! Zones and regions multiply a few hundred machine types to a hundred thousand offerings. What an experiment needs
//! is decided by the type, what it costs by the cheapest place that sells it. So offerings are kept by type, cheapest
//! first, and types by accelerator, cheapest first: the first that fits is the cheapest that fits.

use std::{cmp::Ordering, sync::Arc};

use bursar_model::{AcceleratorName, CapacityType, InstanceType, Offering, OfferingKey, UsdPerHour};
use rustc_hash::FxHashMap;

/// All that can be rented now.
#[derive(Debug, Clone, Default)]
pub struct Market {
    /// By key, so that an index names an offering, finds it and breaks ties all at once.
    offerings: Vec<Offering>,
    kinds: Vec<Kind>,
    spot: Shelf,
    firm: Shelf,
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

/// The types that are sold at a known price, each list with the cheapest first.
#[derive(Debug, Clone, Default)]
struct Shelf {
    all: Vec<Row>,
    by_accelerator: FxHashMap<AcceleratorName, Vec<Row>>,
}

/// A type in a list, with as much of it as rules most of them out without following a pointer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What the cheapest offering of the type costs.
    pub(crate) price: UsdPerHour,
    pub(crate) cpus_milli: u32,
    pub(crate) memory_mib: u64,
    pub(crate) kind: u32,
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
        market.spot = Shelf::new(&market, Firmness::Spot);
        market.firm = Shelf::new(&market, Firmness::Firm);
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
        let wanted = (&key.provider, &key.region, &key.zone, &key.instance_type, key.capacity_type);
        let found = self.offerings.binary_search_by(|offering| parts(offering).cmp(&wanted)).ok()?;
        Some(&self.offerings[found])
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

    /// The types with this accelerator, or all types, that are sold at a known price.
    pub(crate) fn rows(&self, firmness: Firmness, accelerator: Option<&AcceleratorName>) -> &[Row] {
        let shelf = match firmness {
            Firmness::Spot => &self.spot,
            Firmness::Firm => &self.firm,
        };
        match accelerator {
            Some(name) => shelf.by_accelerator.get(name).map_or(&[], Vec::as_slice),
            None => &shelf.all,
        }
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
    fn new(market: &Market, firmness: Firmness) -> Self {
        let mut shelf = Self::default();
        for (index, kind) in (0_u32..).zip(&market.kinds) {
            let Some(cheapest) = kind.offerings(firmness).first() else { continue };
            let Some(price) = known_price(market.offering(*cheapest)) else { continue };
            let InstanceType { accelerators, cpus_milli, memory_mib, name: _, disk_gib: _ } =
                &*kind.instance_type;
            let row = Row { price, cpus_milli: *cpus_milli, memory_mib: *memory_mib, kind: index };
            shelf.all.push(row);
            if let Some(accelerators) = accelerators {
                shelf.by_accelerator.entry(accelerators.name.clone()).or_default().push(row);
            }
        }
        for rows in shelf.by_accelerator.values_mut().chain([&mut shelf.all]) {
            rows.sort_by_key(|row| (row.price, row.kind));
        }
        shelf
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
    let Offering { provider, region, zone, instance_type, capacity_type, price: _, on_demand_price: _ } =
        offering;
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
        let rows = market.rows(Firmness::Firm, Some(&"T4".into()));
        assert_eq!(rows.len(), 1);
        assert_eq!(market.kind(rows[0].kind).instance_type.name.as_str(), "b");
        assert_eq!(market.kinds().iter().map(|kind| kind.unpriced.len()).sum::<usize>(), 1);
    }
}
