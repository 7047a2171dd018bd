//! Budgets, who pays, and what is held.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    id::{ExperimentId, SweepId},
    money::Usd,
    name::{ProjectName, UserName},
    schedule::Schedule,
    time::{Period, Timestamp},
};

/// Which budget.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetKey {
    /// Everything that this installation does.
    Installation,
    /// One project.
    Project(ProjectName),
    /// One user, over all projects.
    User(UserName),
    /// One sweep.
    Sweep(SweepId),
    /// One experiment.
    Experiment(ExperimentId),
}

impl BudgetKey {
    /// Whether the budget ends with the work that it pays for. One that outlives it may be raised or begin anew, so that
    /// work which it cannot pay for now waits; a sweep's or experiment's own budget ends it.
    #[must_use]
    pub fn ends_with_its_work(&self) -> bool {
        match self {
            Self::Installation | Self::Project(_) | Self::User(_) => false,
            Self::Sweep(_) | Self::Experiment(_) => true,
        }
    }
}

impl fmt::Display for BudgetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => f.write_str("the installation's budget"),
            Self::Project(name) => write!(f, "project {name}'s budget"),
            Self::User(name) => write!(f, "user {name}'s budget"),
            Self::Sweep(_) => f.write_str("the sweep's budget"),
            Self::Experiment(_) => f.write_str("the experiment's budget"),
        }
    }
}

/// Who pays for an experiment, at every level above it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account {
    /// The project.
    pub project: ProjectName,
    /// The user who submitted.
    pub user: UserName,
    /// The sweep, where the experiment is a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepId>,
}

impl Account {
    /// The budgets that a cost of this experiment counts in, from the widest to the narrowest.
    pub fn budgets(&self, experiment: ExperimentId) -> impl Iterator<Item = BudgetKey> {
        [
            Some(BudgetKey::Installation),
            Some(BudgetKey::Project(self.project.clone())),
            Some(BudgetKey::User(self.user.clone())),
            self.sweep.map(BudgetKey::Sweep),
            Some(BudgetKey::Experiment(experiment)),
        ]
        .into_iter()
        .flatten()
    }
}

/// What somebody laid down for a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetTerms {
    /// The most that may be spent, in each window where there are windows. `None` has no limit.
    pub limit: Option<Usd>,
    /// When a new window begins, with nothing spent. `None` counts everything ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// At which parts of the limit, in percent, somebody is told. Rising.
    #[serde(default = "BudgetTerms::default_thresholds")]
    pub thresholds: Vec<u16>,
    /// What happens to work when the money is used up.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
}

/// What happens to running work when its budget is used up. Nothing new starts in any case but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExhausted {
    /// It is told to save its work early enough, and stops before the cap.
    #[default]
    CheckpointAndStop,
    /// It stops just before the cap, without time to save.
    Stop,
    /// It finishes: money is held for the rest of its estimate before it starts, so that nothing starts that cannot be
    /// finished. What runs longer than its estimate is told to save and stop like the first.
    FinishRunning,
    /// It goes on and new work starts: the limit is a mark, not a cap. Somebody is told.
    NotifyOnly,
}

impl BudgetTerms {
    /// Just a limit.
    #[must_use]
    pub fn of(limit: Usd) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// The limit, where it is a cap.
    #[must_use]
    pub fn cap(&self) -> Option<Usd> {
        self.limit.filter(|_| self.on_exhausted != OnExhausted::NotifyOnly)
    }

    /// At which parts of the limit somebody is told where nobody says otherwise, in percent.
    #[must_use]
    pub fn default_thresholds() -> Vec<u16> {
        vec![50, 80, 100]
    }
}

impl Default for BudgetTerms {
    fn default() -> Self {
        Self {
            limit: None,
            schedule: None,
            thresholds: Self::default_thresholds(),
            on_exhausted: OnExhausted::default(),
        }
    }
}

/// What a budget allows and what has become of it. `spent + held <= limit`, always (B1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Budget {
    /// What was laid down; `None` has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Arc<BudgetTerms>>,
    /// What the configuration last laid down. What a person sets afterwards stands until the configuration says
    /// something new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<Arc<BudgetTerms>>,
    /// The window that counts now, where there are windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
    /// Charged so far, in this window.
    pub spent: Usd,
    /// Charged already for time after this window: billing minimums reach into it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ahead: Usd,
    /// Reserved for leases that run.
    pub held: Usd,
    /// What was spent and held when somebody set the limit below it. Until that has landed it may only shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing: Option<Usd>,
    /// What somebody was told of it, in this window.
    #[serde(default, skip_serializing_if = "Told::is_nothing")]
    pub told: Told,
}

fn is_zero(amount: &Usd) -> bool {
    *amount == Usd::ZERO
}

/// What somebody was told of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// The highest threshold that was reached, in percent.
    #[serde(default)]
    pub threshold: u16,
    /// That work had to stop or could not start.
    #[serde(default)]
    pub exhausted: bool,
    /// That it will be used up before its window ends.
    #[serde(default)]
    pub forecast: bool,
    /// That the experiment costs far more than expected.
    #[serde(default)]
    pub anomaly: bool,
}

impl Told {
    /// Nobody was told anything.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Something about a budget that somebody is to be told, once a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum BudgetAlert {
    /// This part of the limit is spent, in percent.
    Threshold {
        /// The part.
        percent: u16,
    },
    /// Work had to stop or could not start.
    Exhausted,
    /// It will be used up at this moment if it goes on so.
    Forecast {
        /// Then.
        breach_at: Timestamp,
    },
    /// The experiment costs far more than there was reason to expect.
    Anomaly {
        /// The best guess.
        expected: Usd,
        /// What it should not have exceeded.
        high: Usd,
    },
}

/// What was charged to a budget, added up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counted {
    /// In its window.
    pub spent: Usd,
    /// For time after it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ahead: Usd,
}

/// Who laid down the terms of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum SetBy {
    /// The daemon's configuration.
    Configuration,
    /// The spec of an experiment or sweep.
    Spec,
    /// Nobody: its window was counted anew, because the clock was put right.
    Clock,
    /// A person, while the daemon ran.
    Person {
        /// Who.
        user: UserName,
    },
}

impl Budget {
    /// With this limit and nothing spent.
    #[must_use]
    pub fn limited(limit: Usd) -> Self {
        Self { terms: Some(Arc::new(BudgetTerms::of(limit))), ..Self::default() }
    }

    /// The most that may be spent, be it a cap or a mark.
    #[must_use]
    pub fn limit(&self) -> Option<Usd> {
        self.terms.as_ref().and_then(|terms| terms.limit)
    }

    /// What happens when it is used up.
    #[must_use]
    pub fn on_exhausted(&self) -> OnExhausted {
        self.terms.as_ref().map_or_else(OnExhausted::default, |terms| terms.on_exhausted)
    }

    /// The most that may be spent, where that is a cap.
    #[must_use]
    pub fn cap(&self) -> Option<Usd> {
        self.terms.as_ref().and_then(|terms| terms.cap())
    }

    /// What is spent and held.
    #[must_use]
    pub fn committed(&self) -> Usd {
        self.spent.saturating_add(self.ahead).saturating_add(self.held)
    }

    /// By how much it is over its cap. More than nothing only where somebody lowered the limit, or a bill said more than
    /// was metered.
    #[must_use]
    pub fn over(&self) -> Usd {
        self.cap().map_or(Usd::ZERO, |cap| self.committed().saturating_sub(cap).max(Usd::ZERO))
    }

    /// The highest that `spent + held` may be now (B1), where there is a cap.
    #[must_use]
    pub fn ceiling(&self) -> Option<Usd> {
        self.cap().map(|cap| self.landing.map_or(cap, |landing| landing.max(cap)))
    }
}

/// How budgets change: by `Fleet::apply` alone.
impl Budget {
    pub(crate) fn set_terms(
        &mut self,
        terms: Option<Arc<BudgetTerms>>,
        by: &SetBy,
        window: Option<Period>,
        counted: Option<Counted>,
    ) {
        if *by == SetBy::Configuration {
            self.configured = terms.clone();
        }
        self.terms = terms;
        self.window = window;
        if let Some(Counted { spent, ahead }) = counted {
            (self.spent, self.ahead) = (spent, ahead);
        }
        self.landing = None;
        self.land();
        // What was told of the old limit and is true of the new one is not told again.
        let Told { threshold, anomaly, exhausted: _, forecast: _ } = self.told;
        self.told = Told { threshold: threshold.min(self.reached()), anomaly, ..Told::default() };
    }

    pub(crate) fn begin_window(&mut self, window: Period) {
        let follows = self.window.is_some_and(|before| before.to == window.from);
        self.window = Some(window);
        let ahead = std::mem::take(&mut self.ahead);
        self.spent = if follows { ahead } else { Usd::ZERO };
        self.told = Told::default();
        self.landing = None;
        self.land();
    }

    pub(crate) fn note_alert(&mut self, alert: BudgetAlert) {
        match alert {
            BudgetAlert::Threshold { percent } => self.told.threshold = percent,
            BudgetAlert::Exhausted => self.told.exhausted = true,
            BudgetAlert::Forecast { .. } => self.told.forecast = true,
            BudgetAlert::Anomaly { .. } => self.told.anomaly = true,
        }
    }

    /// Counts a cost in the window in which its time began. What is charged late for an earlier window belongs to that
    /// one: it was held there.
    pub(crate) fn spend(&mut self, amount: Usd, began: Timestamp) {
        match self.window {
            Some(window) if began < window.from => {}
            Some(window) if began >= window.to => self.ahead += amount,
            Some(_) | None => self.spent += amount,
        }
    }

    /// What has landed may not rise again; once all has, there is nothing to land.
    pub(crate) fn landed(&mut self) {
        let committed = self.committed();
        let still_over = self.over() > Usd::ZERO;
        self.landing = self.landing.filter(|_| still_over).map(|landing| landing.min(committed));
    }

    /// What is over the cap now may land.
    pub(crate) fn land(&mut self) {
        self.landing = (self.over() > Usd::ZERO).then(|| self.committed());
    }

    /// Whether somebody was told this already: a threshold or a higher one, anything else at all.
    #[must_use]
    pub fn was_told(&self, alert: BudgetAlert) -> bool {
        match alert {
            BudgetAlert::Threshold { percent } => self.told.threshold >= percent,
            BudgetAlert::Exhausted => self.told.exhausted,
            BudgetAlert::Forecast { .. } => self.told.forecast,
            BudgetAlert::Anomaly { .. } => self.told.anomaly,
        }
    }

    /// Whether somebody wants to be told of it: most budgets of experiments are nobody's business.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| !terms.thresholds.is_empty())
    }

    /// The highest threshold that is reached, in percent of the limit; 0 for none.
    #[must_use]
    pub fn reached(&self) -> u16 {
        let Some(terms) = &self.terms else { return 0 };
        let Some(limit) = terms.limit else { return 0 };
        let spent = i128::from(self.spent.as_nanos()) * 100;
        let is_reached =
            |percent: &&u16| spent > 0 && spent >= i128::from(limit.as_nanos()) * i128::from(**percent);
        terms.thresholds.iter().filter(is_reached).max().copied().unwrap_or(0)
    }
}
