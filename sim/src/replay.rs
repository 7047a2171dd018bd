//! Replays: a workload on a market, with a policy, through a whole `World`.
//!
//! The daemon, its store, its protocol and its books are the real ones; only the cloud is played, from what somebody
//! recorded or by chance. So a replay answers what a policy would have cost and how long people would have waited, and
//! the same invariants are checked as everywhere in simulation. What it leaves out is in `docs/simulate.md`.

mod curves;
mod figures;
mod jobs;
mod market;
mod moment;
mod sources;
mod table;

use std::collections::BTreeMap;

use bursar_config::Config;
use bursar_daemon::rules::{Pricing, Rules};
use bursar_model::{
    BillingRules, Event, OfferingKey, ProviderName, Span, SpotPolicy, Terms, Timestamp, Usd, UsdPerHour,
    Violation,
};
use bursar_store::StoreError;

use self::figures::Tally;
pub use self::{
    curves::Curves,
    figures::Figures,
    jobs::{FleetJob, Workload},
    market::{Market, Wanted},
    moment::parse_moment,
    sources::Sources,
    table::TableError,
};
use crate::{
    market::SimPrices,
    world::{Checks, Scenario, World},
};

/// Jobs that are submitted in one request.
const BATCH_MAX: usize = 500;

/// How long it is waited for jobs after the market's end, in parts of its length, and at least.
const TAIL_LEAST: Span = Span::from_hours(7 * 24);

/// How far the world is run at a time: how often somebody who watches sees progress.
const STRIDE: Span = Span::from_hours(1);

/// How often the store and the cloud are held against what was committed. After every commit, as in tests, would take
/// nine tenths of the time; what is wrong stays wrong, and is found by the next look or at the end.
const CHECK_EVERY: Span = Span::from_hours(24);

/// As many series of prices as colours can be told apart.
const PRICES_MAX: usize = 6;

/// Events of the journal that are read at a time.
const PAGE: u32 = 1000;

/// A workload on a market.
#[derive(Debug, Clone)]
pub struct Replay {
    workload: Workload,
    market: Market,
    seed: u64,
    pace: Span,
}

/// Under which policy it is replayed.
#[derive(Debug, Clone, Copy)]
pub enum Policy<'a> {
    /// That of a configuration.
    Of(&'a Config),
    /// The same, but with on-demand instances alone and without budgets: what savings are measured against.
    OnDemandAlone(&'a Config),
}

/// How far a replay is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Jobs that are over.
    pub over: usize,
    /// All jobs.
    pub jobs: usize,
    /// The time in it.
    pub now: Timestamp,
}

/// What a replay came to.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The figures; those of the wall clock are for whoever has one.
    pub figures: Figures,
    /// The curves.
    pub curves: Curves,
    /// What was charged for each offering, the most first.
    pub costs: Vec<(OfferingKey, Usd)>,
    /// What was wrong. Empty when all is well.
    pub violations: Vec<Violation>,
}

impl Replay {
    /// Of these jobs on this market. `pace` is how coarsely time goes by: leases, heartbeats and looks at the cloud last
    /// at least so long, whatever the policy says, and the replay is quicker for it.
    #[must_use]
    pub fn new(mut workload: Workload, market: Market, seed: u64, pace: Span) -> Self {
        let mut unfit: BTreeMap<String, usize> = BTreeMap::new();
        let length = market.period.span();
        workload.cut(Span::ZERO, length, usize::MAX);
        workload.jobs.retain(|job| {
            let fits = (job.gpus == 0 || job.gpu.is_some() || !market.kinds.is_empty())
                && market.fits(&job.spec(&market.kinds).resources);
            if !fits {
                let kind = job.gpu.as_ref().map_or("accelerators", |kind| kind.as_str());
                *unfit.entry(format!("{} {kind}", job.gpus)).or_default() += 1;
            }
            fits
        });
        let unfit = unfit.into_iter().map(|(wanted, count)| {
            format!(
                "{count} jobs are left out, because no machine on the market has what they want: {wanted}"
            )
        });
        workload.notes.extend(unfit);
        Self { workload, market, seed, pace }
    }

    /// The jobs that are replayed.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The market on which they are.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// Plays it. The same replay under the same policy comes to the same, to the last byte of the journal.
    ///
    /// # Errors
    /// When the store of the world cannot be read.
    pub fn play(
        &self,
        policy: Policy<'_>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Replayed, StoreError> {
        let mut world = World::new(self.seed, self.scenario(policy));
        let from = world.now();
        let jobs = &self.workload.jobs;
        let last = self.market.period.to + TAIL_LEAST + self.market.period.span();
        let mut next = 0;
        // Ends: time goes on by every round until `last`.
        while world.now() < last && (next < jobs.len() || !world.is_idle()) {
            let now = world.now();
            let submit_at = jobs.get(next).map_or(last, |job| from + job.submit);
            if submit_at <= now {
                let due = jobs[next..].iter().take(BATCH_MAX);
                let count = due.take_while(|job| from + job.submit <= now).count();
                self.submit(&mut world, next, count, policy);
                next += count;
                continue;
            }
            world.run_for(submit_at.min(now + STRIDE).min(last).since(now));
            if now.as_millis() / STRIDE.as_millis() != world.now().as_millis() / STRIDE.as_millis() {
                progress(Progress { over: next - world.open(), jobs: jobs.len(), now: world.now() });
            }
        }
        world.judge();
        let mut tally = Tally::default();
        let reader = world.reader();
        let mut after = 0;
        // Ends with the journal: each round reads on from the last event.
        loop {
            let page = reader.events(after, PAGE)?;
            let Some(newest) = page.last() else { break };
            after = newest.seq;
            for entry in &page {
                let event: Event =
                    serde_json::from_str(entry.event.get()).expect("the store holds what it was given");
                tally.see(&event);
            }
        }
        let (mut figures, curves, costs) = tally.finish(from, world.now());
        figures.commits = world.commits();
        Ok(Replayed { figures, curves, costs, violations: world.findings() })
    }

    /// The prices of what was used most, where they moved, at the moments of its curves.
    #[must_use]
    pub fn prices(&self, of: &Replayed) -> Vec<(OfferingKey, Vec<(Timestamp, UsdPerHour)>)> {
        let priced = |(key, _): &(OfferingKey, Usd)| {
            let sold = self.market.offerings.iter().find(|sold| sold.offering.key() == *key)?;
            let SimPrices::Replay(series) = &sold.prices else { return None };
            let prices = of.curves.at.iter().map(|at| (*at, series.at(*at)));
            let moved = prices.clone().any(|(_, price)| Some(price) != sold.offering.price);
            moved.then(|| (key.clone(), prices.collect()))
        };
        of.costs.iter().filter_map(priced).take(PRICES_MAX).collect()
    }

    fn submit(&self, world: &mut World, first: usize, count: usize, policy: Policy<'_>) {
        let specs = self.workload.jobs[first..first + count].iter().map(|job| {
            let mut spec = job.spec(&self.market.kinds);
            if matches!(policy, Policy::OnDemandAlone(_)) {
                spec.spot_policy = SpotPolicy::OnDemand;
                // A ceiling for spot would let it wait for ever.
                spec.max_price = None;
            }
            (job.name.clone(), spec)
        });
        world.submit_all(&format!("jobs from {first}"), specs.collect());
    }

    fn scenario(&self, policy: Policy<'_>) -> Scenario {
        let (config, market) = match policy {
            Policy::Of(config) => (config, self.market.clone()),
            Policy::OnDemandAlone(config) => (config, self.market.on_demand_alone()),
        };
        let pace = self.pace;
        let Rules { mut settings, mut budgets, .. } = Rules::of(config);
        let heartbeat = config.policy.heartbeat.max(pace);
        settings.lease = settings.lease.max(pace.times(3));
        settings.quiet_after = settings.quiet_after.max(heartbeat.times(3));
        settings.silence_timeout = settings.silence_timeout.max(settings.lease);
        if matches!(policy, Policy::OnDemandAlone(_)) {
            settings.max_price = None;
            budgets.clear();
        }
        let names = market.offerings.iter().map(|sold| sold.offering.provider.clone());
        let terms = |name: ProviderName| {
            let own = config.providers.get(&name).map(|provider| provider.terms);
            let by_second = Terms { billing: BillingRules::PER_SECOND, ..Terms::default() };
            (name, own.unwrap_or(by_second))
        };
        Scenario {
            epoch: market.period.from,
            settings,
            budgets,
            pricing: Pricing { terms: names.map(terms).collect(), discounts: config.discounts.clone() },
            heartbeat,
            observe_interval: config.policy.observe_interval.max(pace),
            checks: Checks::Every(CHECK_EVERY),
            judges_plans: false,
            market: market.offerings,
            ..Scenario::default()
        }
    }
}
