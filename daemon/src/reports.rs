//! Reports as people read them: one self-contained HTML page, markdown for pull requests and chat, bars for a terminal.
//!
//! Everything here is a pure function from [`SpendReport`] to text; whoever calls has gathered the data. So the page can
//! be made by a daemon, by the command line over the store of a daemon that is down, and by a test, all the same.
//! Amounts stay whole nano-dollars until they are written, and places in charts are whole tenths of a pixel: the same
//! report gives the same bytes everywhere.

pub mod bars;
mod chart;
pub mod comparison;
pub(crate) mod figures;
pub mod focus;
mod gather;
mod headlines;
mod html;
mod markdown;
mod series;

use std::{collections::BTreeMap, fmt};

use bursar_model::{Category, ExperimentId, Period, Timestamp, Usd, UsdPerHour};
use serde::{Deserialize, Serialize};

pub use self::{html::html, markdown::markdown};
use crate::views::ReportView;

/// All that a report shows. Amounts are US dollars; moments and days are UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SpendReport {
    /// The heading, such as `Spend in November`.
    pub title: String,
    /// Whose money it is: the installation's name.
    pub installation: String,
    /// The charges of this period.
    pub period: Period,
    /// When the report was made.
    pub generated_at: Timestamp,
    /// The sums of the period.
    pub totals: Totals,
    /// Spend over time: every day (or week, or month) of the period up to `generated_at` in order, those without spend
    /// too, because a time axis that skips days lies.
    pub timeline: Vec<TimeBin>,
    /// The rows that were asked for.
    pub table: ReportView,
    /// What each project's money went on.
    pub projects: Vec<ProjectSpend>,
    /// Budgets, the widest first.
    pub budgets: Vec<BudgetReport>,
    /// Experiments and sweeps that ended, with what they were expected to cost.
    pub estimates: Vec<EstimateLine>,
    /// The most expensive experiments, the most expensive first.
    pub top: Vec<TopExperiment>,
}

/// The sums of a period under each of the prices that FOCUS 1.2 tells apart, and at on-demand prices.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    /// What it cost (`EffectiveCost`), by what it went on.
    pub spent: Breakdown,
    /// At negotiated prices (`ContractedCost`).
    pub contracted: Usd,
    /// At public prices (`ListCost`).
    pub list: Usd,
    /// What the work that was kept would have cost at on-demand prices.
    pub on_demand: Usd,
}

/// What money went on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Breakdown {
    /// By category. Every charge is in exactly one.
    pub by_category: BTreeMap<Category, Usd>,
    /// The part of [`Category::Run`] that attempts cost which failed.
    pub failed_attempts: Usd,
}

/// Money that brought no result, by name. What is none of these is work that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waste {
    /// From the launch until work could start.
    Boot,
    /// Nothing to do.
    Idle,
    /// Checkpointing, stopping, shutting down.
    Drain,
    /// Work since the last checkpoint, lost at an interruption.
    Lost,
    /// The work of attempts that failed.
    FailedAttempts,
}

/// A day, week or month of the timeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimeBin {
    /// `2026-11-22`, `2026-W47` or `2026-11`.
    pub label: String,
    /// What each project spent. Corrections may make it negative.
    pub by_project: BTreeMap<String, Usd>,
    /// What the work that was kept would have cost at on-demand prices.
    pub on_demand: Usd,
}

/// What one project's money went on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProjectSpend {
    /// The project.
    pub project: String,
    /// What it went on.
    pub spent: Breakdown,
}

/// A budget in one window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BudgetReport {
    /// Which, as in [`crate::views::budget_name`].
    pub name: String,
    /// What the limit is for: `total`, or the schedule of its windows.
    pub window: String,
    /// The window to show. For `total` the caller chooses, because it has no end.
    pub period: Period,
    /// The most that may be spent in the window; none has no limit.
    pub limit: Option<Usd>,
    /// Charged in the window so far.
    pub spent: Usd,
    /// Held for leases that run.
    pub held: Usd,
    /// The parts of the limit, in percent, at which people are told.
    pub thresholds: Vec<u32>,
    /// Spent since the start of the window, at moments in order.
    pub series: Vec<(Timestamp, Usd)>,
    /// Where it is heading, where anything can be said.
    pub projection: Option<Projection>,
}

/// Where a budget is heading if spending goes on as it did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Projection {
    /// Spent an hour.
    pub rate: UsdPerHour,
    /// Spent at the end of the window, expected. It may pass the limit, which spending itself never does.
    pub expected: Usd,
    /// The low end of the interval around it.
    pub low: Usd,
    /// The high end.
    pub high: Usd,
    /// When the limit is reached, where that is before the end of the window.
    pub breach_at: Option<Timestamp>,
}

/// What something was expected to cost and did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EstimateLine {
    /// The name of the experiment or sweep.
    pub name: String,
    /// Expected before it ran.
    pub expected: Usd,
    /// The low end of the interval.
    pub low: Usd,
    /// The high end.
    pub high: Usd,
    /// What it cost.
    pub actual: Usd,
}

/// One of the most expensive experiments.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopExperiment {
    /// Its id.
    pub id: ExperimentId,
    /// What people call it.
    pub name: String,
    /// The project that pays.
    pub project: String,
    /// As in [`crate::views::ExperimentView::state`].
    pub state: String,
    /// Charged in the period.
    pub cost: Usd,
}

impl Totals {
    /// What on-demand prices would have cost more; negative where waste ate the saving.
    #[must_use]
    pub fn saved(&self) -> Usd {
        self.on_demand.saturating_sub(self.spent.total())
    }
}

impl Breakdown {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Usd {
        self.by_category.values().copied().sum()
    }

    /// One category.
    #[must_use]
    pub fn category(&self, category: Category) -> Usd {
        self.by_category.get(&category).copied().unwrap_or_default()
    }

    /// One kind of waste.
    #[must_use]
    pub fn waste(&self, kind: Waste) -> Usd {
        match kind {
            Waste::Boot => self.category(Category::Boot),
            Waste::Idle => self.category(Category::Idle),
            Waste::Drain => self.category(Category::Drain),
            Waste::Lost => self.category(Category::Lost),
            Waste::FailedAttempts => self.failed_attempts,
        }
    }

    /// This and another together.
    pub fn add(&mut self, other: &Self) {
        for (category, amount) in &other.by_category {
            *self.by_category.entry(*category).or_default() += *amount;
        }
        self.failed_attempts += other.failed_attempts;
    }

    /// All waste. The kinds do not overlap: work that was lost is no longer `run`.
    #[must_use]
    pub fn wasted(&self) -> Usd {
        Waste::ALL.iter().map(|kind| self.waste(*kind)).sum()
    }
}

impl BudgetReport {
    /// What becomes of it, in a few words.
    #[must_use]
    pub fn outlook(&self) -> String {
        let Some(limit) = self.limit else { return "no limit".to_owned() };
        if self.spent >= limit {
            return "exhausted".to_owned();
        }
        match &self.projection {
            None => "too early to say".to_owned(),
            Some(Projection { breach_at: Some(at), .. }) => format!("limit reached {}", figures::day(*at)),
            Some(projection) if projection.high > limit => "limit may be reached".to_owned(),
            Some(_) => "lasts".to_owned(),
        }
    }
}

impl Waste {
    /// All, in the order of reports.
    pub const ALL: [Self; 5] = [Self::Boot, Self::Idle, Self::Drain, Self::Lost, Self::FailedAttempts];
}

impl fmt::Display for Waste {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Boot => "boot",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Lost => "lost",
            Self::FailedAttempts => "failed attempts",
        })
    }
}

impl TimeBin {
    /// What all projects spent.
    #[must_use]
    pub fn spent(&self) -> Usd {
        self.by_project.values().copied().sum()
    }
}
