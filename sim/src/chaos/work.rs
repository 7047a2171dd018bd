//! What is asked of a world while things go wrong in it.

use std::sync::Arc;

use bursar_model::{
    AshaMode, AshaRules, BudgetTerms, ExperimentId, ExperimentSpec, InvariantId, Span, SpotPolicy, Usd,
    UsdPerHour,
};

use super::ChaosKind;
use crate::{chance::Chance, job::Job, world::World};

/// More work than this is not submitted to a run that must get all of it done: the market has room for about a dozen
/// at once.
const SUBMISSIONS_MAX: usize = 12;

/// One that need not get done has more than it can do.
const SAFETY_SUBMISSIONS_MAX: usize = 60;

/// The experiments and sweeps of a run.
#[derive(Debug)]
pub(super) struct Work {
    chance: Chance,
    nodes: Chance,
    submitted: Vec<ExperimentId>,
    next_name: usize,
    newest: Option<(String, ExperimentSpec)>,
    most: usize,
}

impl Work {
    pub(super) fn new(kind: ChaosKind, chance: Chance) -> Self {
        let most = match kind {
            ChaosKind::Safety => SAFETY_SUBMISSIONS_MAX,
            ChaosKind::Liveness => SUBMISSIONS_MAX,
        };
        Self { nodes: chance.child(1), chance, submitted: Vec::new(), next_name: 0, newest: None, most }
    }

    /// One that was accepted, over or not.
    pub(super) fn some_experiment(&mut self) -> Option<ExperimentId> {
        self.chance.pick(&self.submitted).copied()
    }

    /// What was accepted is known for ever: over, or waiting (E2).
    pub(super) fn judge(&self, world: &World) {
        for experiment in self.submitted.iter().filter(|id| !world.knows(**id)) {
            world.report(InvariantId::E2, format!("{experiment} was accepted and is unknown"));
        }
    }

    /// Submits something, under the same key again where the daemon died over it.
    pub(super) fn submit(&mut self, world: &mut World) {
        if self.next_name >= self.most {
            return;
        }
        if self.chance.per_mille(150) {
            return self.submit_sweep(world);
        }
        if let Some((name, spec)) = self.newest.clone().filter(|_| self.chance.per_mille(150)) {
            // Whoever is not sure asks again, and gets the same.
            world.submit(&name, spec);
            return;
        }
        let duration = self.chance.span(Span::from_secs(60), Span::from_secs(9000));
        let mut job = Job::lasting(duration);
        job.exit_code = i32::from(self.chance.per_mille(100));
        let mut spec = job.spec();
        let policies = [SpotPolicy::Auto, SpotPolicy::Spot, SpotPolicy::OnDemand];
        spec.spot_policy = self.chance.pick(&policies).copied().unwrap_or_default();
        // Spot passes this now and then, and comes back.
        let is_picky = spec.spot_policy != SpotPolicy::OnDemand && self.chance.per_mille(250);
        spec.max_price = is_picky.then(|| UsdPerHour::from_nanos(600_000_000));
        spec.budget = self.chance.per_mille(200).then(|| Arc::new(BudgetTerms::of(Usd::from_dollars(1))));
        spec.max_duration = self.chance.per_mille(100).then_some(Span::from_secs(3600));
        spec.priority = self.chance.below(3) as i32;
        // Drawn apart, so that worlds without are as they were. A zone has but two spot machines.
        spec.num_nodes = if self.nodes.per_mille(200) { 2 } else { 1 };
        let name = format!("e{}", self.next_name);
        if let Some(experiment) = world.submit(&name, spec.clone()) {
            self.submitted.push(experiment);
            self.next_name += 1;
            self.newest = Some((name, spec));
        }
    }

    /// A sweep whose trials are halved, some of which fail.
    fn submit_sweep(&mut self, world: &mut World) {
        let trials = 2 + self.chance.below(5);
        let jobs: Vec<Job> = (0..trials)
            .map(|_| {
                let mut job = Job::lasting(Span::from_secs(3600));
                job.loss = Some(self.chance.below(100) as i32);
                job.exit_code = i32::from(self.chance.per_mille(100));
                job
            })
            .collect();
        let asha = AshaRules {
            metric: "loss".to_owned(),
            mode: AshaMode::Min,
            resource: "step".to_owned(),
            eta: 2 + self.chance.below(2) as u32,
            min: 4 + self.chance.below(8),
            max: 50,
        };
        let budget = self.chance.per_mille(400).then(|| Usd::from_dollars(1 + self.chance.below(3) as i64));
        let max_parallel = self.chance.per_mille(400).then_some(2);
        let (name, spec) = (format!("s{}", self.next_name), jobs[0].spec());
        if let Some(sweep) = world.submit_sweep(&name, spec, &jobs, budget, max_parallel, Some(asha)) {
            self.submitted.extend(sweep.experiments);
            self.next_name += 1;
        }
    }
}
