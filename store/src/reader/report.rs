//! Reports: what was spent, added up by any of a few dimensions.
//!
//! Whole days come from the sums in memory (`super::sums`); what a report has of the days at its two ends, where it does
//! not begin or end at midnight, is added up by SQLite from the charges of these days.
//!
//! Rows are put into groups dimension by dimension: what a row's group is so far, and its value along the next, is its
//! group from there on. So any number of dimensions costs the same a piece, and nothing is made of a row but small
//! numbers; the values themselves are only given to the rows of the answer.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError},
};

use bursar_model::{
    BudgetKey, Category, Costs, ExperimentId, ProjectName, ProviderName, Span, SweepId, Timestamp, Usd,
    UserName,
};
use chrono::{DateTime, Datelike, Utc};
use rusqlite::{Connection, params_from_iter};

use super::{
    Reader, Select, groups,
    members::Column,
    sums::{Sum, Sums, sum},
};
use crate::StoreError;

const DAY_MILLIS: i64 = 86_400_000;

/// What a report is by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// The experiment's id.
    Experiment,
    /// The sweep's id; nothing where the experiment is no trial.
    Sweep,
    /// The project.
    Project,
    /// The user.
    User,
    /// The provider.
    Provider,
    /// Its region.
    Region,
    /// The instance type.
    InstanceType,
    /// Spot or on-demand.
    CapacityType,
    /// What the money went on.
    Category,
    /// The day (UTC) on which the charged period starts, as `2026-11-22`.
    Day,
    /// The week of that day by ISO 8601, from Monday on, as `2026-W47`.
    Week,
    /// The month of that day, as `2026-11`.
    Month,
    /// The value of this label of the experiment's spec; nothing where it has none.
    Label(String),
}

/// A name that is no dimension.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of {known}, label:KEY", known = Dimension::PLAIN.map(|dimension| dimension.to_string()).join(", "))]
pub struct UnknownDimension(pub String);

/// A value along a dimension. Values sort as they read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportKey {
    /// There is none: no sweep, no such label. Reads as nothing.
    Missing,
    /// An experiment.
    Experiment(ExperimentId),
    /// A sweep.
    Sweep(SweepId),
    /// What has a name, or the value of a label.
    Name(Arc<str>),
    /// What the money went on.
    Category(Category),
    /// The day that begins then (UTC), and reads as `2026-11-22`.
    Day(Timestamp),
    /// The week that begins then, a Monday, and reads as `2026-W47`.
    Week(Timestamp),
    /// The month that begins then, and reads as `2026-11`.
    Month(Timestamp),
}

/// Whose costs. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct ReportFilter {
    /// Of this experiment.
    pub experiment: Option<ExperimentId>,
    /// Of this sweep.
    pub sweep: Option<SweepId>,
    /// Of this project.
    pub project: Option<ProjectName>,
    /// Of this user.
    pub user: Option<UserName>,
    /// At this provider.
    pub provider: Option<ProviderName>,
    /// Of experiments whose specs have all these labels.
    pub labels: BTreeMap<String, String>,
}

/// What to report.
#[derive(Debug, Clone, Default)]
pub struct ReportQuery {
    /// One row for each combination that occurs; a single row for none.
    pub by: Vec<Dimension>,
    /// Charges that start then or later.
    pub since: Option<Timestamp>,
    /// Charges that start before.
    pub until: Option<Timestamp>,
    /// Whose.
    pub filter: ReportFilter,
}

/// One row of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// The values of the dimensions that were asked for, in that order.
    pub keys: Vec<ReportKey>,
    /// What it cost, on each basis.
    pub costs: Costs,
    /// What the money went on.
    pub by_category: ByCategory,
    /// Instance time, shared instances by their parts.
    pub time: Span,
}

impl ReportFilter {
    /// What counts in a budget.
    #[must_use]
    pub fn of(key: &BudgetKey) -> Self {
        let all = Self::default();
        match key {
            BudgetKey::Installation => all,
            BudgetKey::Project(name) => Self { project: Some(name.clone()), ..all },
            BudgetKey::User(name) => Self { user: Some(name.clone()), ..all },
            BudgetKey::Sweep(id) => Self { sweep: Some(*id), ..all },
            BudgetKey::Experiment(id) => Self { experiment: Some(*id), ..all },
        }
    }
}

/// What each category cost, as it was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByCategory([Usd; Category::ALL.len()]);

impl ByCategory {
    /// What this category cost.
    #[must_use]
    pub fn of(&self, category: Category) -> Usd {
        self.0[category as usize]
    }

    /// The categories that cost something, or gave something back, in their order.
    pub fn costs(&self) -> impl Iterator<Item = (Category, Usd)> {
        Category::ALL.into_iter().zip(self.0).filter(|(_, cost)| *cost != Usd::ZERO)
    }

    pub(super) fn add(&mut self, category: usize, cost: Usd) {
        self.0[category] += cost;
    }
}

impl Dimension {
    /// All but the labels, in the order of their documentation.
    pub const PLAIN: [Self; 12] = [
        Self::Experiment,
        Self::Sweep,
        Self::Project,
        Self::User,
        Self::Provider,
        Self::Region,
        Self::InstanceType,
        Self::CapacityType,
        Self::Category,
        Self::Day,
        Self::Week,
        Self::Month,
    ];
}

/// The name that people and columns use.
impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Experiment => "experiment",
            Self::Sweep => "sweep",
            Self::Project => "project",
            Self::User => "user",
            Self::Provider => "provider",
            Self::Region => "region",
            Self::InstanceType => "instance-type",
            Self::CapacityType => "capacity-type",
            Self::Category => "category",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Label(key) => return write!(f, "{LABEL}{key}"),
        })
    }
}

const LABEL: &str = "label:";

impl FromStr for Dimension {
    type Err = UnknownDimension;
    fn from_str(name: &str) -> Result<Self, UnknownDimension> {
        if let Some(key) = name.strip_prefix(LABEL).filter(|key| !key.is_empty()) {
            return Ok(Self::Label(key.to_owned()));
        }
        let found = Self::PLAIN.into_iter().find(|dimension| dimension.to_string() == name);
        found.ok_or_else(|| UnknownDimension(name.to_owned()))
    }
}

impl ReportKey {
    /// The week of a day.
    pub(super) fn week_of(day: Timestamp) -> Self {
        let days_since_monday = date(day).map_or(0, |date| date.weekday().num_days_from_monday());
        Self::Week(day - Span::from_hours(24 * i64::from(days_since_monday)))
    }

    /// The month of a day.
    pub(super) fn month_of(day: Timestamp) -> Self {
        let days_since_first = date(day).map_or(0, |date| date.day0());
        Self::Month(day - Span::from_hours(24 * i64::from(days_since_first)))
    }
}

/// The date in the calendar; there is none for moments that are off by 200,000 years.
fn date(day: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(day.as_millis())
}

impl fmt::Display for ReportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dated = |f: &mut fmt::Formatter<'_>, at: &Timestamp, form: &str| match date(*at) {
            Some(date) => date.format(form).fmt(f),
            None => at.fmt(f),
        };
        match self {
            Self::Missing => Ok(()),
            Self::Experiment(id) => id.fmt(f),
            Self::Sweep(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Category(category) => category.fmt(f),
            Self::Day(day) => dated(f, day, "%Y-%m-%d"),
            Self::Week(monday) => dated(f, monday, "%G-W%V"),
            Self::Month(first) => dated(f, first, "%Y-%m"),
        }
    }
}

impl Reader {
    /// What was spent, by the wanted dimensions, in the order of their values.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn report(&self, query: &ReportQuery) -> Result<Vec<ReportRow>, StoreError> {
        let ReportQuery { by, since, until, filter } = query;
        self.with(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut sums = self.shared.sums.lock().unwrap_or_else(PoisonError::into_inner);
            let in_memory = sums.read(&snapshot)?;
            let parts = Parts::of(*since, *until);
            let mut read = Vec::new();
            for (from, to) in parts.within_days {
                let select = of_charges(from, to);
                add_rows(&snapshot, select, &mut sums, &mut read)?;
            }
            if !in_memory && let Some(days) = parts.days {
                add_rows(&snapshot, of_days(query, days), &mut sums, &mut read)?;
            }

            let axes = by.iter().map(|dimension| sums.members.axis(&snapshot, dimension));
            let axes = axes.collect::<rusqlite::Result<Vec<_>>>()?;
            let mut wanted = Vec::new();
            for (dimension, key) in conditions(filter) {
                let axis = sums.members.axis(&snapshot, &dimension)?;
                let Ok(value) = axis.keys.binary_search(&key) else { return Ok(Vec::new()) };
                wanted.push((axis, value as u32));
            }
            let has_all = |sum: &&Sum| wanted.iter().all(|(axis, value)| axis.value(sum) == *value);
            let days = sums.members.days_within(parts.days);
            let in_days = |sum: &&Sum| days[sum.members[Column::Day as usize] as usize];
            let kept = sums.rows().iter().filter(in_days);
            Ok(groups::add_up(kept.chain(&read).filter(has_all), &axes))
        })
    }
}

/// The parts of a report's time: days of which it has all, as numbers since 1970, and what else there is of the first
/// and the last day.
struct Parts {
    days: Option<(i64, i64)>,
    within_days: Vec<(i64, i64)>,
}

impl Parts {
    fn of(since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        let (since, until) = (since.map(Timestamp::as_millis), until.map(Timestamp::as_millis));
        let first = since.map_or(i64::MIN, |since| {
            since.div_euclid(DAY_MILLIS) + i64::from(since.rem_euclid(DAY_MILLIS) > 0)
        });
        let end = until.map_or(i64::MAX, |until| until.div_euclid(DAY_MILLIS));
        if first > end {
            // Both are within one day.
            let within = since.zip(until).filter(|(since, until)| since < until);
            return Self { days: None, within_days: within.into_iter().collect() };
        }
        let head = since.map(|since| (since, first * DAY_MILLIS));
        let tail = until.map(|until| (end * DAY_MILLIS, until));
        let within_days = head.into_iter().chain(tail).filter(|(from, to)| from < to).collect();
        Self { days: (first < end).then_some((first, end)), within_days }
    }
}

/// What a filter asks for, as the value that it wants along each dimension.
fn conditions(filter: &ReportFilter) -> Vec<(Dimension, ReportKey)> {
    let ReportFilter { experiment, sweep, project, user, provider, labels } = filter;
    let named = |name: &str| ReportKey::Name(name.into());
    let plain = [
        experiment.map(|id| (Dimension::Experiment, ReportKey::Experiment(id))),
        sweep.map(|id| (Dimension::Sweep, ReportKey::Sweep(id))),
        project.as_ref().map(|name| (Dimension::Project, named(name.as_str()))),
        user.as_ref().map(|name| (Dimension::User, named(name.as_str()))),
        provider.as_ref().map(|name| (Dimension::Provider, named(name.as_str()))),
    ];
    let labels = labels.iter().map(|(key, value)| (Dimension::Label(key.clone()), named(value)));
    plain.into_iter().flatten().chain(labels).collect()
}

/// The charges of a part of a day, added up as the sums are.
fn of_charges(from: i64, to: i64) -> Select {
    let mut select =
        Select::new(&format!("SELECT day, account, experiment, place, category, {AMOUNTS} FROM costs"));
    select.within(Some(Timestamp::from_millis(from)), Some(Timestamp::from_millis(to)));
    select.sql.push_str(" GROUP BY day, account, experiment, place, category");
    select
}

/// The sums of these days, where they are too many for memory: added up by what the report looks at.
fn of_days(query: &ReportQuery, (first, end): (i64, i64)) -> Select {
    let conditions = conditions(&query.filter);
    let mut looked_at: Vec<_> =
        query.by.iter().chain(conditions.iter().map(|(by, _)| by)).map(Column::of).collect();
    looked_at.push(Column::Category);
    let names = ["day", "account", "experiment", "place", "category"];
    let columns = Column::ALL.into_iter().zip(names);
    let selected: Vec<_> = columns
        .clone()
        .map(|(column, name)| if looked_at.contains(&column) { name } else { "NULL" })
        .collect();
    let grouped: Vec<_> =
        columns.filter(|(column, _)| looked_at.contains(column)).map(|(_, name)| name).collect();
    let mut select = Select::new(&format!("SELECT {}, {AMOUNTS} FROM sums", selected.join(", ")));
    select.matching("day >= ?", Some(first));
    select.matching("day < ?", Some(end));
    select.sql.push_str(&format!(" GROUP BY {}", grouped.join(", ")));
    select
}

const AMOUNTS: &str = "sum(effective), sum(contracted), sum(list), sum(on_demand), sum(millis)";

fn add_rows(
    connection: &Connection,
    select: Select,
    sums: &mut Sums,
    to: &mut Vec<Sum>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&select.sql)?;
    let mut found = statement.query(params_from_iter(select.values))?;
    while let Some(row) = found.next()? {
        to.push(sum(row, &mut sums.members)?);
    }
    Ok(())
}
