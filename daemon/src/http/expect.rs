//! What submissions are expected to cost: the market and the past looked up once a request, each estimate made once a
//! spec, however many experiments share it. Nothing here is asked of the reconciler, which has other things to do.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{
    Account, CostEstimate, ExperimentSpec, OfferingKey, ProjectName, RefusedScope, Scope, Timestamp, Usd,
};
use bursar_policies::{Market, Past, Prospect, Settings, estimate};
use bursar_store::StoreError;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::{
    rules::settings,
    views::{Views, budget_name},
};

/// Names whose past is looked up in one request. A batch of ten thousand names without estimates is not worth ten thousand
/// questions: those beyond go without.
const NAMES_MAX: usize = 100;

/// What a plan is expected to cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanEstimate {
    /// Each experiment.
    pub each: CostEstimate,
    /// All of them.
    pub all: CostEstimate,
    /// How far the money goes, where there is a limit.
    pub pays_for: Option<PaysFor>,
}

/// How far the money of the budget goes that has the least left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PaysFor {
    /// Which budget, as in lists of them; `own` for that of the experiment or sweep itself.
    pub budget: String,
    /// What is neither spent nor held of it.
    pub left: Usd,
    /// For about so many experiments, as they are expected to cost.
    pub trials: u32,
}

/// Whose cost is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) is_sweep: bool,
    pub(super) spec: &'a ExperimentSpec,
    /// Those of its kind that may run at once.
    pub(super) mates: u32,
    /// Where it would run, where that is known.
    pub(super) on: Option<&'a OfferingKey>,
}

/// What estimates are made from.
pub(super) struct Expectations {
    views: Views,
    market: Arc<Market>,
    refused: Arc<BTreeMap<Scope, RefusedScope>>,
    settings: Settings,
    now: Timestamp,
    kept: BTreeMap<ProjectName, Vec<(Usd, Usd)>>,
    peers: BTreeMap<(String, bool), Vec<Usd>>,
}

impl Expectations {
    pub(super) fn new(api: &Api) -> Self {
        let snapshot = api.snapshot.borrow().clone();
        Self {
            views: api.views(),
            market: snapshot.market,
            refused: snapshot.refused,
            settings: settings(&api.configuration.current()),
            now: api.clock.now(),
            kept: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }

    /// What one such experiment is expected to cost.
    pub(super) fn of(&mut self, wanted: Wanted<'_>) -> Result<Option<CostEstimate>, StoreError> {
        let Wanted { name, is_sweep, spec, mates, on } = wanted;
        let mut past = Past::default();
        if spec.estimate.is_some() {
            past.kept = self.kept_estimates(&spec.project)?;
        } else {
            past.peers = self.costs_of_peers(name, is_sweep)?;
        }
        let Self { market, refused, settings, now, .. } = &*self;
        Ok(estimate(&Prospect { now: *now, market, refused, settings, spec, mates, on, past: &past }))
    }

    /// What a plan of so many is expected to cost. `own` is the limit of the experiment or sweep itself.
    pub(super) fn plan(
        &mut self,
        wanted: Wanted<'_>,
        trials: u32,
        account: &Account,
        own: Option<Usd>,
    ) -> Result<Option<PlanEstimate>, StoreError> {
        let Some(each) = self.of(wanted)? else { return Ok(None) };
        let above = self.views.least_left(account)?.map(|(key, left)| (budget_name(&key), left));
        let own = own.map(|limit| ("own".to_owned(), limit));
        let least = own.into_iter().chain(above).min_by_key(|(_, left)| *left);
        let pays_for = least.map(|(budget, left)| {
            let affordable = left.as_nanos() / each.expected.as_nanos().max(1);
            PaysFor { budget, left, trials: u32::try_from(affordable).unwrap_or(u32::MAX).min(trials) }
        });
        Ok(Some(PlanEstimate { each, all: each.times(trials), pays_for }))
    }

    fn kept_estimates(&mut self, project: &ProjectName) -> Result<Vec<(Usd, Usd)>, StoreError> {
        if let Some(known) = self.kept.get(project) {
            return Ok(known.clone());
        }
        let found = self.views.kept_estimates(project)?;
        self.kept.insert(project.clone(), found.clone());
        Ok(found)
    }

    fn costs_of_peers(&mut self, name: &str, is_sweep: bool) -> Result<Vec<Usd>, StoreError> {
        let key = (name.to_owned(), is_sweep);
        if let Some(known) = self.peers.get(&key) {
            return Ok(known.clone());
        }
        if self.peers.len() >= NAMES_MAX {
            return Ok(Vec::new());
        }
        let found = self.views.costs_of_peers(name, is_sweep)?;
        self.peers.insert(key, found.clone());
        Ok(found)
    }
}
