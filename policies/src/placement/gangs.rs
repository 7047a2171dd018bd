//! Experiments of several nodes: a place for every node, or none for any.
//!
//! All nodes are instances of one offering, so of one zone. A gang runs on free places only where there are enough that take
//! work now; it launches all of its nodes otherwise, and waits for no places but those that were launched for it, because
//! nothing would keep others free meanwhile. Where some of its nodes are lost or refused, it launches the same again beside
//! those that it has, or else goes elsewhere. What it leaves behind is given back at once: half of a gang does nothing but
//! cost money.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bursar_model::{Amounts, DrainReason, OfferingKey};

use super::{Entry, Placement};
use crate::{lifecycle, market::Firmness};

/// The nodes that a gang has, all of one offering.
struct Own {
    offering: OfferingKey,
    /// Places that were launched for it, what takes work now first.
    places: Vec<usize>,
    /// Nodes of the attempt that is being interrupted whose instances stay.
    kept: usize,
    amounts: Amounts,
}

impl Placement<'_, '_> {
    /// Sends a gang to the places that were launched for it, if they are as many as its nodes.
    pub(super) fn gather(&mut self, index: usize, places: &[usize]) {
        let nodes = self.groups[self.entries[index].group].wish.nodes as usize;
        let Some(own) = self.own(index, places.iter().copied()) else { return };
        if let Some(wanted) =
            nodes.checked_sub(own.kept).filter(|wanted| (1..=own.places.len()).contains(wanted))
        {
            self.occupy(index, &own.places[..wanted], own.amounts, true);
        }
    }

    /// Launches what a gang lacks beside the nodes that it has. False where it has none, or the rest cannot be had.
    pub(super) fn complete(&mut self, index: usize) -> bool {
        let Entry { experiment, group, moving, .. } = self.entries[index];
        let is_own = |at: &usize| self.places[*at].is_home_of(experiment.id);
        let places: Vec<usize> = (0..self.places.len()).filter(is_own).collect();
        if places.is_empty() && moving.is_none() {
            return false;
        }
        let Some(own) = self.own(index, places.into_iter()) else { return false };
        let wish = self.groups[group].wish.at_leisure();
        let missing =
            wish.nodes.saturating_sub(u32::try_from(own.kept + own.places.len()).unwrap_or(u32::MAX));
        let limit = self.input.settings.max_instances;
        if missing == 0
            || self.instances.saturating_add(missing) > limit
            || self.sweep_has_no_place(index).is_some()
        {
            return false;
        }
        let market = self.view.market;
        let open = market.index_of(&own.offering).filter(|offering| {
            let offering = market.offering(*offering);
            wish.accepts(Firmness::of(offering.capacity_type)) && self.view.is_open(offering, missing)
        });
        let choice = open.and_then(|offering| self.view.choice_of(&wish, offering, own.amounts, 1));
        let is_launched = choice.is_some_and(|choice| self.launch_for(&[index], &choice, missing).is_ok());
        if is_launched {
            self.fill(&own.places, experiment, own.amounts, true);
        }
        is_launched
    }

    /// Takes free places of one offering that take work now, one on each instance. False where there are too few.
    pub(super) fn take_places(&mut self, index: usize) -> bool {
        let Entry { experiment, group, moving, .. } = self.entries[index];
        if self.places.is_empty() || moving.is_some() {
            return false;
        }
        let wish = self.groups[group].wish;
        let mut alike: BTreeMap<OfferingKey, Vec<usize>> = BTreeMap::new();
        for at in self.by_fit(&wish) {
            let place = &self.places[at];
            if !place.ready || !place.may_have(experiment) {
                continue;
            }
            let alike = alike.entry(place.instance.offering.key()).or_default();
            alike.push(at);
            if alike.len() == wish.nodes as usize {
                let ats = std::mem::take(alike);
                let amounts = self.places[at].fits(&wish);
                return amounts.is_some_and(|amounts| self.occupy(index, &ats, amounts, false));
            }
        }
        false
    }

    /// Ends instances that were launched for gangs which go elsewhere, or cannot be had whole.
    pub(super) fn give_back(&mut self) {
        if self.gangs.is_empty() {
            return;
        }
        for place in &self.places {
            let instance = place.instance;
            let is_left = !place.is_taken
                && place.live.is_empty()
                && instance.shares.keys().all(|payer| self.gangs.contains(payer));
            // What this plan has charged already is ended by the next, which follows at once.
            if is_left && !self.lifecycle.settled.contains(&instance.id) {
                lifecycle::end(self.input, self.room, self.plan, instance, &[], DrainReason::Unneeded);
            }
        }
    }

    /// The nodes that a gang has among these places and those that it is moving from: of the offering of which it has the
    /// most, so that it needs to launch the least.
    fn own(&self, index: usize, places: impl Iterator<Item = usize>) -> Option<Own> {
        let Entry { experiment, group, moving, .. } = self.entries[index];
        let wish = self.groups[group].wish.at_leisure();
        let mut by_offering: BTreeMap<OfferingKey, Own> = BTreeMap::new();
        let own_of = |offering: &OfferingKey, amounts| Own {
            offering: offering.clone(),
            places: Vec::new(),
            kept: 0,
            amounts,
        };
        let kept =
            moving.into_iter().flat_map(|attempt| attempt.nodes.iter().map(move |node| (attempt, node)));
        for (attempt, node) in kept {
            let Some(instance) = self.input.fleet.instances.get(&node.instance) else { continue };
            if instance.notice.is_none() && !self.lifecycle.leaving.contains(&instance.id) {
                let key = instance.offering.key();
                by_offering.entry(key.clone()).or_insert_with(|| own_of(&key, attempt.amounts)).kept += 1;
            }
        }
        for at in places {
            let place = &self.places[at];
            let is_old = moving.is_some_and(|attempt| attempt.is_on(place.instance.id));
            let fitting = place.fits(&wish).filter(|_| !is_old && place.may_have(experiment));
            if let Some(amounts) = fitting {
                let key = place.instance.offering.key();
                by_offering.entry(key.clone()).or_insert_with(|| own_of(&key, amounts)).places.push(at);
            }
        }
        let mut own = by_offering.into_values().max_by_key(|own| own.kept + own.places.len())?;
        own.places.sort_by_key(|at| (!self.places[*at].ready, self.places[*at].instance.id));
        own.places.truncate(wish.nodes as usize - own.kept.min(wish.nodes as usize));
        Some(own)
    }
}
