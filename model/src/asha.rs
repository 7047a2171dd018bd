//! Asynchronous successive halving (ASHA) of a sweep: its rules and how its trials stand.
//!
//! After Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2. A trial runs until it
//! reports a rung's resource; the best 1/eta of a rung go on to the next, the others pause with their checkpoint. Who
//! may go on, and when nobody waits in vain any longer, is decided by `policies`; here is what it is decided from.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{id::ExperimentId, money::Usd};

/// How the trials of a sweep are halved, as its spec says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AshaRules {
    /// The metric that trials are compared by.
    pub metric: String,
    /// Which values of it are better.
    pub mode: AshaMode,
    /// The metric that says how far a trial is: a number that grows, such as `step` or `epoch`.
    pub resource: String,
    /// One in so many goes on from each rung; at least 2.
    pub eta: u32,
    /// The resource of the first rung; at least 1.
    pub min: u64,
    /// The resource up to which trials are compared; more than `min`.
    pub max: u64,
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AshaMode {
    /// Lower ones, as of a loss.
    Min,
    /// Higher ones, as of an accuracy.
    Max,
}

/// The halving of a sweep. The scores outlive the trials, because those who come later are ranked among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asha {
    /// How it goes.
    pub rules: AshaRules,
    /// Its rungs from the first to the one at `max`, from which nobody is promoted.
    pub rungs: Vec<Rung>,
}

/// A rung: where trials are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// The resource at which trials reach it.
    pub resource: u64,
    /// The trials that have reached it.
    pub standings: BTreeMap<ExperimentId, Standing>,
}

/// How a trial stands at a rung.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// What it first reported there; none where that was no finite number, which is worse than any.
    pub score: Option<f64>,
    /// What it had been charged by then.
    pub cost: Usd,
    /// It may run to the next rung.
    pub promoted: bool,
}

impl AshaRules {
    /// The resources of the rungs: `min`, `min`·eta, `min`·eta², … below `max`, and `max`.
    #[must_use]
    pub fn resources(&self) -> Vec<u64> {
        let Self { eta, min, max, .. } = self;
        let next = |resource: &u64| resource.checked_mul(u64::from(*eta)).filter(|next| next > resource);
        let below = std::iter::successors(Some(*min), next).take_while(|resource| resource < max);
        below.chain([*max]).collect()
    }
}

impl AshaMode {
    /// The order from the best score to the worst.
    #[must_use]
    pub fn compare(self, one: Option<f64>, other: Option<f64>) -> Ordering {
        match (one, other) {
            (Some(one), Some(other)) => match self {
                Self::Min => one.total_cmp(&other),
                Self::Max => other.total_cmp(&one),
            },
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

impl Asha {
    /// Before any trial has reported.
    #[must_use]
    pub fn new(rules: AshaRules) -> Self {
        let rungs = rules
            .resources()
            .into_iter()
            .map(|resource| Rung { resource, standings: BTreeMap::new() })
            .collect();
        Self { rules, rungs }
    }

    /// The number of the rung at `max`.
    #[must_use]
    pub fn last(&self) -> usize {
        self.rungs.len() - 1
    }

    /// The number of the rung to which a trial may run: the first from which it was not promoted.
    #[must_use]
    pub fn rung_of(&self, trial: ExperimentId) -> usize {
        let promoted = |rung: &Rung| rung.standings.get(&trial).is_some_and(|standing| standing.promoted);
        self.rungs.iter().position(|rung| !promoted(rung)).expect("nobody is promoted from the last rung")
    }

    /// Whether a trial has reached the rung to which it may run, and may not go on from there.
    #[must_use]
    pub fn is_paused(&self, trial: ExperimentId) -> bool {
        let rung = self.rung_of(trial);
        rung < self.last() && self.rungs[rung].standings.contains_key(&trial)
    }

    /// The rung that a trial reaches with a report of these metrics, and its score there. Only a report that has both
    /// the resource and the metric counts.
    #[must_use]
    pub fn reached(
        &self,
        trial: ExperimentId,
        metrics: &BTreeMap<String, f64>,
    ) -> Option<(usize, Option<f64>)> {
        let AshaRules { metric, resource, .. } = &self.rules;
        let (score, resource) = (metrics.get(metric)?, metrics.get(resource)?);
        let number = self.rung_of(trial);
        let rung = &self.rungs[number];
        let reached = *resource >= rung.resource as f64 && !rung.standings.contains_key(&trial);
        reached.then(|| (number, Some(*score).filter(|score| score.is_finite())))
    }

    /// The trials of a rung from the best to the worst; of equal ones the older comes first.
    #[must_use]
    pub fn ranking(&self, rung: usize) -> Vec<(ExperimentId, Standing)> {
        let mut ranking: Vec<_> =
            self.rungs[rung].standings.iter().map(|(id, standing)| (*id, *standing)).collect();
        // Stable, and in the order of ids before.
        ranking.sort_by(|(_, one), (_, other)| self.rules.mode.compare(one.score, other.score));
        ranking
    }

    /// Enters a trial's score at the rung to which it may run. False, and nothing entered, where it has one there or may
    /// not run to that rung.
    pub(crate) fn enter(&mut self, trial: ExperimentId, rung: usize, score: Option<f64>, cost: Usd) -> bool {
        let legal = self.rung_of(trial) == rung && !self.rungs[rung].standings.contains_key(&trial);
        if legal {
            self.rungs[rung].standings.insert(trial, Standing { score, cost, promoted: false });
        }
        legal
    }

    /// Lets a trial go on from a rung. False, and nothing changed, where it is not paused there.
    pub(crate) fn promote(&mut self, trial: ExperimentId, rung: usize) -> bool {
        let legal = self.rung_of(trial) == rung && self.is_paused(trial);
        if legal && let Some(standing) = self.rungs[rung].standings.get_mut(&trial) {
            standing.promoted = true;
        }
        legal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TypedId;

    fn rules(mode: AshaMode, eta: u32, min: u64, max: u64) -> AshaRules {
        AshaRules { metric: "loss".into(), mode, resource: "step".into(), eta, min, max }
    }

    fn trial(number: u64) -> ExperimentId {
        ExperimentId::from_u64(number)
    }

    fn report(step: f64, loss: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("step".to_owned(), step), ("loss".to_owned(), loss)])
    }

    #[test]
    fn rungs_stand_at_powers_of_eta_below_the_maximum_and_at_it() {
        assert_eq!(rules(AshaMode::Min, 3, 1, 27).resources(), [1, 3, 9, 27]);
        assert_eq!(rules(AshaMode::Min, 4, 10, 100).resources(), [10, 40, 100]);
        assert_eq!(rules(AshaMode::Min, 2, 5, 6).resources(), [5, 6]);
        assert_eq!(rules(AshaMode::Min, 2, u64::MAX / 2 + 1, u64::MAX).resources().len(), 2, "no overflow");
    }

    #[test]
    fn what_is_no_finite_number_ranks_last_and_ties_go_to_the_older() {
        for (mode, order) in [(AshaMode::Min, [4, 2, 3, 1, 5]), (AshaMode::Max, [2, 3, 4, 1, 5])] {
            let mut asha = Asha::new(rules(mode, 3, 1, 9));
            let scores = [f64::NAN, 0.5, 0.5, 0.1, f64::NEG_INFINITY];
            for (number, score) in (1..).zip(scores) {
                let (rung, score) = asha.reached(trial(number), &report(1.0, score)).unwrap();
                assert!(asha.enter(trial(number), rung, score, Usd::ZERO));
            }
            let ranking: Vec<_> = asha.ranking(0).into_iter().map(|(id, _)| id.as_u64()).collect();
            assert_eq!(ranking, order);
        }
    }

    #[test]
    fn a_trial_is_scored_once_a_rung_and_climbs_one_rung_a_promotion() {
        let mut asha = Asha::new(rules(AshaMode::Min, 3, 2, 10));
        let one = trial(1);
        assert_eq!(asha.reached(one, &report(1.9, 0.5)), None, "not there yet");
        assert_eq!(asha.reached(one, &BTreeMap::from([("step".to_owned(), 5.0)])), None, "no score");
        assert_eq!(asha.reached(one, &report(7.0, 0.5)), Some((0, Some(0.5))), "rungs are not jumped over");
        assert!(!asha.promote(one, 0), "it has not reported");
        assert!(asha.enter(one, 0, Some(0.5), Usd::ZERO));
        assert!(!asha.enter(one, 0, Some(0.1), Usd::ZERO), "the first report counts");
        assert!(!asha.enter(one, 1, Some(0.1), Usd::ZERO), "it may not run there");
        assert!(asha.is_paused(one));
        assert_eq!(asha.reached(one, &report(7.0, 0.4)), None);
        assert!(asha.promote(one, 0) && !asha.promote(one, 0));
        assert_eq!((asha.rung_of(one), asha.is_paused(one)), (1, false));
        assert_eq!(asha.reached(one, &report(7.0, 0.4)), Some((1, Some(0.4))));
        assert!(asha.enter(one, 1, Some(0.4), Usd::ZERO) && asha.promote(one, 1));
        assert!(asha.enter(one, 2, Some(0.3), Usd::ZERO));
        assert!(!asha.is_paused(one) && !asha.promote(one, 2), "at the maximum it runs on");
    }

    #[test]
    fn standings_survive_being_written_down() {
        let mut asha = Asha::new(rules(AshaMode::Max, 3, 1, 9));
        assert!(asha.enter(trial(1), 0, None, Usd::from_dollars(1)));
        assert!(asha.enter(trial(2), 0, Some(0.1 + 0.2), Usd::ZERO) && asha.promote(trial(2), 0));
        let text = serde_json::to_string(&asha).unwrap();
        assert_eq!(serde_json::from_str::<Asha>(&text).unwrap(), asha);
    }
}
