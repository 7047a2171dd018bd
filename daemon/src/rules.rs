//! What the configuration says of the loop's work, and may change while the loop runs.
//!
//! The loop keeps one such value and nothing else of the configuration, so that a restart and a reload cannot differ in
//! what they take over.

use std::{collections::BTreeMap, sync::Arc};

use bursar_config::{Config, Notifications, Storage};
use bursar_model::{BudgetKey, BudgetTerms, Discount, ProviderName, Span, Terms};
use bursar_policies::Settings;

/// What the loop goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What planning goes by.
    pub settings: Settings,
    /// How long an agent may wait between two requests.
    pub heartbeat: Span,
    /// How long an instance that nobody knows is left alone.
    pub orphan_grace: Span,
    /// How often a provider with live instances is asked what it has.
    pub observe_interval: Span,
    /// The same while something starts or ends.
    pub observe_interval_busy: Span,
    /// The budgets of the configuration. Those it no longer names have no terms there.
    pub budgets: Vec<(BudgetKey, Option<Arc<BudgetTerms>>)>,
    /// What listed prices come to here.
    pub pricing: Pricing,
    /// Who is told what.
    pub notifications: Notifications,
    /// Where checkpoints and outputs are kept.
    pub storage: Option<Storage>,
}

/// What the configuration says about prices.
#[derive(Debug, Clone, Default)]
pub struct Pricing {
    /// How each provider bills, and what comes on top.
    pub terms: BTreeMap<ProviderName, Terms>,
    /// Discounts on listed prices.
    pub discounts: Vec<Discount>,
}

impl Rules {
    /// Whether agents are to speak, or are given up, at other times by these.
    pub(crate) fn listens_otherwise_than(&self, other: &Self) -> bool {
        let times =
            |rules: &Self| (rules.heartbeat, rules.settings.quiet_after, rules.settings.silence_timeout);
        times(self) != times(other)
    }

    /// What a configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let policy = &config.policy;
        let terms = config.providers.iter().map(|(name, provider)| (name.clone(), provider.terms));
        Self {
            settings: settings(config),
            heartbeat: policy.heartbeat,
            orphan_grace: policy.observe_interval.times(2),
            observe_interval: policy.observe_interval,
            observe_interval_busy: policy.observe_interval.min(OBSERVE_INTERVAL_BUSY),
            budgets: budgets(config),
            pricing: Pricing { terms: terms.collect(), discounts: config.discounts.clone() },
            notifications: config.notifications.clone(),
            storage: config.storage.clone(),
        }
    }
}

/// While something starts or ends somebody waits for it.
const OBSERVE_INTERVAL_BUSY: Span = Span::from_millis(500);

pub(crate) fn settings(config: &Config) -> Settings {
    let policy = &config.policy;
    Settings {
        lease: policy.lease,
        drain_allowance: policy.drain_allowance,
        idle_duration: policy.idle_duration,
        max_instances: policy.max_instances,
        max_price: policy.max_price,
        // An agent that is silent for three heartbeats may be in a slow network; for a lease it is lost.
        quiet_after: policy.heartbeat.times(3),
        silence_timeout: policy.lease,
        ..Settings::default()
    }
}

/// The budgets that the configuration lays down.
fn budgets(config: &Config) -> Vec<(BudgetKey, Option<Arc<BudgetTerms>>)> {
    let projects = config.projects.iter();
    let projects = projects.map(|(name, project)| (BudgetKey::Project(name.clone()), project.budget.clone()));
    let users = config.users.iter().map(|(name, user)| (BudgetKey::User(name.clone()), user.budget.clone()));
    std::iter::once((BudgetKey::Installation, config.budget.clone())).chain(projects).chain(users).collect()
}
