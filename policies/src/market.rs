//! The market: all offerings, indexed so that the cheapest that does is found without looking at all.

use bursar_model::Offering;

/// All that can be rented now.
#[derive(Debug, Clone, Default)]
pub struct Market {
    offerings: Vec<Offering>,
}

impl Market {
    /// Indexes these offerings.
    #[must_use]
    pub fn new(offerings: Vec<Offering>) -> Self {
        Self { offerings }
    }

    /// All offerings.
    #[must_use]
    pub fn offerings(&self) -> &[Offering] {
        &self.offerings
    }

    /// The offering of this key, if it is on offer now.
    #[must_use]
    pub fn find(&self, key: &bursar_model::OfferingKey) -> Option<&Offering> {
        self.offerings.iter().find(|offering| offering.key() == *key)
    }
}
