//! Reads what a report shows out of the store.

use std::{cmp::Reverse, collections::BTreeMap};

use bursar_ledger::{BurnDown, Interval};
use bursar_model::{
    Budget, BudgetKey, Category, CostEstimate, Experiment, ExperimentId, ExperimentState, Period,
    ProjectName, Span, Timestamp, Usd,
};
use bursar_store::{
    Dimension, ExperimentFilter, ReportFilter, ReportKey, ReportQuery, ReportRow, StoreError,
};

use super::{
    Breakdown, BudgetReport, EstimateLine, ProjectSpend, Projection, SpendReport, TimeBin, TopExperiment,
    Totals,
};
use crate::views::{ReportWanted, ViewError, Views, budget_name, day_of};

const DAY: Span = Span::from_hours(24);
/// More columns than these are narrower than what tells them apart; beyond, a column is a week.
const DAYS_MAX: i64 = 92;
/// The most expensive experiments that are listed: whoever wants more asks for a table of them.
const TOP_MAX: usize = 10;
/// The estimates that are held against what became of them.
const ESTIMATES_MAX: usize = 20;
/// Experiments among which they are looked for, the newest: a page of the store.
const ESTIMATES_LOOKED_THROUGH: u32 = 1000;

impl Views {
    /// All that a report shows, for an installation of this name.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn spend_report(&self, wanted: &ReportWanted, installation: &str) -> Result<SpendReport, ViewError> {
        let query = self.report_query(wanted)?;
        let began = self.first_charge()?.unwrap_or_else(|| self.now());
        let today_ends = day_of(self.now()) + DAY;
        let from = query.since.unwrap_or_else(|| day_of(began));
        let period = Period::new(from, query.until.unwrap_or(today_ends));
        let by = |by: &[Dimension]| self.reader().report(&ReportQuery { by: by.to_vec(), ..query.clone() });
        let shown = Period::new(from.max(day_of(began)), period.to.min(today_ends));
        let failed = self.reader().failed_run_costs(&query.filter, query.since, query.until)?;
        Ok(SpendReport {
            title: title(wanted),
            installation: installation.to_owned(),
            period,
            generated_at: self.now(),
            totals: totals(&by(&[Dimension::Category])?, failed.values().copied().sum()),
            timeline: timeline(shown, &by(&[Dimension::Day, Dimension::Project, Dimension::Category])?),
            table: self.report(wanted)?,
            projects: projects(by(&[Dimension::Project])?, &failed),
            budgets: self.budget_reports(&query.filter, began)?,
            estimates: self.estimates(&query.filter, period)?,
            top: self.top(by(&[Dimension::Experiment])?)?,
        })
    }

    /// The budgets of what is asked for; those that outlive their work where everything is.
    fn budget_reports(
        &self,
        filter: &ReportFilter,
        began: Timestamp,
    ) -> Result<Vec<BudgetReport>, StoreError> {
        let ReportFilter { experiment, sweep, project, user, provider: _, labels: _ } = filter;
        let mut named: Vec<BudgetKey> = Vec::new();
        named.extend(project.clone().map(BudgetKey::Project));
        named.extend(user.clone().map(BudgetKey::User));
        named.extend(sweep.map(BudgetKey::Sweep));
        named.extend(experiment.map(BudgetKey::Experiment));
        let budgets: Vec<(BudgetKey, Budget)> = if named.is_empty() {
            let lasting = self.reader().budgets()?.into_iter();
            lasting.filter(|(key, _)| !key.ends_with_its_work()).collect()
        } else {
            let with_budget =
                |key: BudgetKey| Ok((key.clone(), self.reader().budget(&key)?.unwrap_or_default()));
            named.into_iter().map(with_budget).collect::<Result<_, StoreError>>()?
        };
        let shown =
            budgets.iter().filter(|(_, budget)| budget.limit().is_some() || budget.spent != Usd::ZERO);
        shown.map(|(key, budget)| self.budget_report(key, budget, began)).collect()
    }

    fn budget_report(
        &self,
        key: &BudgetKey,
        budget: &Budget,
        began: Timestamp,
    ) -> Result<BudgetReport, StoreError> {
        let forecast = self.forecast(key, budget, began)?;
        let period =
            budget.window.unwrap_or_else(|| Period::new(day_of(began), day_of(forecast.until) + DAY));
        let mut spent = Usd::ZERO;
        let mut series = Vec::new();
        for (day, amount) in self.spend_by_day(key, period.from, began)? {
            spent += amount;
            series.push((day.to.min(self.now()), spent));
        }
        let terms = budget.terms.as_deref();
        let schedule = terms.and_then(|terms| terms.schedule.as_ref());
        Ok(BudgetReport {
            name: budget_name(key),
            window: schedule.map_or_else(|| "total".to_owned(), ToString::to_string),
            period,
            limit: budget.limit(),
            spent: budget.spent,
            held: budget.held,
            thresholds: terms
                .map(|terms| terms.thresholds.iter().copied().map(u32::from).collect())
                .unwrap_or_default(),
            series,
            projection: projection(&forecast),
        })
    }

    /// Of the newest experiments that succeeded in the period, those that cost the most.
    fn estimates(&self, filter: &ReportFilter, period: Period) -> Result<Vec<EstimateLine>, StoreError> {
        let ReportFilter { experiment, sweep, project, user, provider: _, labels: _ } = filter.clone();
        let filter = ExperimentFilter {
            state: Some("succeeded".to_owned()),
            project,
            sweep,
            user,
            ids: experiment.into_iter().collect(),
            ..ExperimentFilter::default()
        };
        let rows = self.reader().experiments(&filter, None, ESTIMATES_LOOKED_THROUGH)?.rows.into_iter();
        let ended_within = |experiment: &Experiment| match experiment.state {
            ExperimentState::Ended { at, .. } => period.from <= at && at < period.to,
            ExperimentState::Queued | ExperimentState::Running { .. } => false,
        };
        let mut lines: Vec<EstimateLine> = rows
            .filter(|row| ended_within(&row.experiment))
            .filter_map(|row| {
                let CostEstimate { expected, low, high } = row.experiment.expected?;
                let name = row.experiment.name.to_string();
                Some(EstimateLine { name, expected, low, high, actual: row.spent })
            })
            .collect();
        lines.sort_by_key(|line| Reverse(line.actual));
        lines.truncate(ESTIMATES_MAX);
        Ok(lines)
    }

    fn top(&self, mut rows: Vec<ReportRow>) -> Result<Vec<TopExperiment>, StoreError> {
        rows.sort_by_key(|row| Reverse(row.costs.effective));
        rows.truncate(TOP_MAX);
        let costs: BTreeMap<ExperimentId, Usd> = rows
            .iter()
            .filter_map(|row| match row.keys.as_slice() {
                [ReportKey::Experiment(id)] => Some((*id, row.costs.effective)),
                _ => None,
            })
            .collect();
        let mut top: Vec<TopExperiment> = self
            .experiments_of_ids(costs.keys().copied().collect())?
            .into_iter()
            .map(|row| TopExperiment {
                id: row.experiment.id,
                name: row.experiment.name.to_string(),
                project: row.experiment.account.project.to_string(),
                state: row.experiment.state_name().to_owned(),
                cost: costs.get(&row.experiment.id).copied().unwrap_or_default(),
            })
            .collect();
        top.sort_by_key(|line| (Reverse(line.cost), line.id));
        Ok(top)
    }
}

/// What is reported on, in the words that it was asked for with.
fn title(wanted: &ReportWanted) -> String {
    let ReportWanted { by: _, since: _, until: _, experiment, sweep, project, user, provider, label } =
        wanted;
    let parts: Vec<String> = [
        ("of experiment", experiment),
        ("of sweep", sweep),
        ("of project", project),
        ("of user", user),
        ("at", provider),
        ("labelled", label),
    ]
    .into_iter()
    .filter_map(|(word, name)| name.as_ref().map(|name| format!(" {word} {name}")))
    .collect();
    format!("Spend{}", parts.join(""))
}

/// Of rows by category.
fn totals(rows: &[ReportRow], failed_attempts: Usd) -> Totals {
    let mut totals = Totals::default();
    totals.spent.failed_attempts = failed_attempts;
    for row in rows {
        for (category, amount) in row.by_category.costs() {
            *totals.spent.by_category.entry(category).or_default() += amount;
        }
        totals.contracted += row.costs.contracted;
        totals.list += row.costs.list;
        totals.on_demand += kept_on_demand(row);
    }
    totals
}

/// Of a row whose last key is a category: what it would have cost on demand, if it is work that was kept.
fn kept_on_demand(row: &ReportRow) -> Usd {
    let is_run = row.keys.last() == Some(&ReportKey::Category(Category::Run));
    if is_run { row.costs.on_demand } else { Usd::ZERO }
}

/// What a project paid for attempts that failed.
fn failed_attempts(project: Option<&ReportKey>, failed: &BTreeMap<ProjectName, Usd>) -> Usd {
    let Some(ReportKey::Name(name)) = project else { return Usd::ZERO };
    failed.get(&ProjectName::new(name)).copied().unwrap_or_default()
}

fn projects(rows: Vec<ReportRow>, failed: &BTreeMap<ProjectName, Usd>) -> Vec<ProjectSpend> {
    let mut projects: Vec<ProjectSpend> = rows
        .into_iter()
        .map(|row| ProjectSpend {
            spent: Breakdown {
                by_category: row.by_category.costs().collect(),
                failed_attempts: failed_attempts(row.keys.first(), failed),
            },
            project: row.keys.first().map(ToString::to_string).unwrap_or_default(),
        })
        .collect();
    projects.sort_by_key(|project| Reverse(project.spent.total()));
    projects
}

/// The days of a period, or its weeks where they are many, with what each project spent; of rows by day, project and
/// category.
fn timeline(period: Period, rows: &[ReportRow]) -> Vec<TimeBin> {
    let days = period.span().as_millis().div_euclid(DAY.as_millis()) + 1;
    let label_of = if days <= DAYS_MAX { day_label } else { week_label };
    let mut bins: Vec<TimeBin> = Vec::new();
    let mut day = day_of(period.from);
    // Ends with the period; a century has 36,525 days.
    while day < period.to {
        let label = label_of(day);
        if bins.last().is_none_or(|bin| bin.label != label) {
            bins.push(TimeBin { label, by_project: BTreeMap::new(), on_demand: Usd::ZERO });
        }
        day = day + DAY;
    }
    let places: BTreeMap<String, usize> = (0..).zip(&bins).map(|(at, bin)| (bin.label.clone(), at)).collect();
    for row in rows {
        let [ReportKey::Day(day), project, _category] = row.keys.as_slice() else { continue };
        let Some(bin) = places.get(&label_of(*day)).and_then(|at| bins.get_mut(*at)) else { continue };
        *bin.by_project.entry(project.to_string()).or_default() += row.costs.effective;
        bin.on_demand += kept_on_demand(row);
    }
    bins
}

/// `2026-11-22`.
fn day_label(day: Timestamp) -> String {
    let mut text = day.to_string();
    text.truncate("2026-11-22".len());
    text
}

/// `2026-W47`: the week of ISO 8601, which begins on Monday and belongs to the year of its Thursday.
fn week_label(day: Timestamp) -> String {
    let number = |at: Timestamp| at.as_millis().div_euclid(DAY.as_millis());
    // The first day of 1970 was a Thursday.
    let since_monday = (number(day) + 3).rem_euclid(7);
    let thursday = Timestamp::from_millis((number(day) - since_monday + 3) * DAY.as_millis());
    let year = thursday.to_string().get(..4).unwrap_or_default().to_owned();
    let new_year = format!("{year}-01-01T00:00:00Z").parse().map_or_else(|_| number(thursday), number);
    format!("{year}-W{:02}", (number(thursday) - new_year) / 7 + 1)
}

/// None without an interval: a line without one says that it is certain, and few days say little.
fn projection(forecast: &BurnDown) -> Option<Projection> {
    let Interval { low, high } = forecast.interval?;
    Some(Projection {
        rate: forecast.rate,
        expected: forecast.projected,
        low,
        high,
        breach_at: forecast.breach_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn weeks_belong_to_the_year_of_their_thursday() {
        // From the examples of ISO 8601.
        for (day, week) in [
            ("1970-01-01", "1970-W01"),
            ("2008-12-29", "2009-W01"),
            ("2010-01-03", "2009-W53"),
            ("2024-12-30", "2025-W01"),
            ("2026-11-22", "2026-W47"),
            ("2026-11-23", "2026-W48"),
            ("2027-01-03", "2026-W53"),
        ] {
            assert_eq!(week_label(at(&format!("{day}T00:00:00Z"))), week, "{day}");
        }
    }

    #[test]
    fn every_day_of_a_period_has_its_column_and_of_a_long_one_every_week() {
        let row = |day: &str, category: Category, dollars: i64| ReportRow {
            keys: vec![
                ReportKey::Day(format!("{day}T00:00:00Z").parse().unwrap()),
                ReportKey::Name("lab".into()),
                ReportKey::Category(category),
            ],
            costs: bursar_model::Costs {
                on_demand: Usd::from_dollars(3 * dollars),
                ..bursar_model::Costs::all(Usd::from_dollars(dollars))
            },
            by_category: Default::default(),
            time: Span::ZERO,
        };
        let rows = [
            row("2026-11-20", Category::Run, 4),
            row("2026-11-20", Category::Idle, 1),
            row("2026-11-22", Category::Run, 2),
        ];
        let days = timeline(Period::new(at("2026-11-20T09:00:00Z"), at("2026-11-23T00:00:00Z")), &rows);
        let spent: Vec<(&str, Usd, Usd)> =
            days.iter().map(|bin| (bin.label.as_str(), bin.spent(), bin.on_demand)).collect();
        assert_eq!(
            spent,
            [
                ("2026-11-20", Usd::from_dollars(5), Usd::from_dollars(12)),
                ("2026-11-21", Usd::ZERO, Usd::ZERO),
                ("2026-11-22", Usd::from_dollars(2), Usd::from_dollars(6)),
            ]
        );
        let weeks = timeline(Period::new(at("2026-01-01T00:00:00Z"), at("2026-11-23T00:00:00Z")), &rows);
        assert_eq!(weeks.len(), 47);
        let newest = weeks.last().unwrap();
        assert_eq!((newest.label.as_str(), newest.spent()), ("2026-W47", Usd::from_dollars(7)));
    }
}
