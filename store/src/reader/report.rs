//! Reports: what was spent, added up by any of a few dimensions.
//!
//! Whole days come from the sums that are kept with the charges, so a report over a million charges reads some
//! thousand rows. A report that starts or ends within a day adds up the charges themselves, through the view that the
//! sums are checked against.

use std::{collections::BTreeMap, fmt};

use bursar_model::{
    Category, Costs, ExperimentId, ProjectName, ProviderName, Span, SweepId, Timestamp, Usd, UserName,
};
use rusqlite::{Connection, params_from_iter};
use rustc_hash::FxHashMap;

use super::{Reader, Select};
use crate::{
    StoreError,
    sqlite::rows::{self, Accounts},
};

const DAY_MILLIS: i64 = 86_400_000;

/// What a report is by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// The experiment's id.
    Experiment,
    /// The sweep's id; empty where the experiment is no trial.
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
    pub keys: Vec<String>,
    /// What it cost, on each basis.
    pub costs: Costs,
    /// What the money went on.
    pub by_category: BTreeMap<Category, Usd>,
    /// Instance time, shared instances by their parts.
    pub time: Span,
}

impl Dimension {
    /// All, in the order of their documentation.
    pub const ALL: [Self; 10] = [
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
        })
    }
}

impl Reader {
    /// What was spent, by the wanted dimensions, in the order of their values.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn report(&self, query: &ReportQuery) -> Result<Vec<ReportRow>, StoreError> {
        let select = select(query);
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut found = statement.query(params_from_iter(select.values))?;
            let (mut accounts, places) = (Accounts::new(connection), places(connection)?);
            let mut report = BTreeMap::new();
            while let Some(row) = found.next()? {
                let account = match row.get::<_, Option<i64>>(1)? {
                    Some(number) => Some(accounts.get(number)?),
                    None => None,
                };
                let place = row.get::<_, Option<i64>>(3)?.and_then(|number| places.get(&number));
                let category = rows::category(row, 4)?;
                let of_account = |of: fn(&bursar_model::Account) -> String| {
                    account.as_deref().map_or_else(String::new, of)
                };
                let of_place = |index: usize| place.map_or_else(String::new, |place| place[index].clone());
                let key = |dimension: &Dimension| -> rusqlite::Result<String> {
                    Ok(match dimension {
                        Dimension::Experiment => rows::id::<ExperimentId>(row.get(2)?).to_string(),
                        Dimension::Sweep => {
                            of_account(|a| a.sweep.map_or_else(String::new, |id| id.to_string()))
                        }
                        Dimension::Project => of_account(|a| a.project.to_string()),
                        Dimension::User => of_account(|a| a.user.to_string()),
                        Dimension::Provider => of_place(0),
                        Dimension::Region => of_place(1),
                        Dimension::InstanceType => of_place(2),
                        Dimension::CapacityType => of_place(3),
                        Dimension::Category => category.to_string(),
                        Dimension::Day => day_text(row.get(0)?),
                    })
                };
                let keys = query.by.iter().map(key).collect::<rusqlite::Result<Vec<_>>>()?;
                let sum = report.entry(keys).or_insert_with(Sum::default);
                let costs = rows::by_basis(row, 5)?.map(Usd::from_nanos);
                sum.costs += costs;
                sum.millis += row.get::<_, i64>(9)?;
                *sum.by_category.entry(category).or_default() += costs.effective;
            }
            let rows = report.into_iter().map(|(keys, sum)| {
                let Sum { costs, by_category, millis } = sum;
                ReportRow { keys, costs, by_category, time: Span::from_millis(millis) }
            });
            Ok(rows.collect())
        })
    }
}

#[derive(Default)]
struct Sum {
    costs: Costs,
    by_category: BTreeMap<Category, Usd>,
    millis: i64,
}

/// Sums by the numbers of what is asked for; what they stand for is looked up afterwards, once for each.
fn select(query: &ReportQuery) -> Select {
    let ReportQuery { by, since, until, filter } = query;
    let by_any = |dimensions: &[Dimension]| dimensions.iter().any(|dimension| by.contains(dimension));
    let columns = [
        ("day", by_any(&[Dimension::Day])),
        ("account", by_any(&[Dimension::Sweep, Dimension::Project, Dimension::User])),
        ("experiment", by_any(&[Dimension::Experiment])),
        (
            "place",
            by_any(&[
                Dimension::Provider,
                Dimension::Region,
                Dimension::InstanceType,
                Dimension::CapacityType,
            ]),
        ),
        ("category", true),
    ];
    let selected: Vec<_> = columns.iter().map(|(name, wanted)| if *wanted { name } else { "NULL" }).collect();
    let grouped: Vec<_> = columns.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();

    let is_midnight = |at: &Option<Timestamp>| at.is_none_or(|at| at.as_millis() % DAY_MILLIS == 0);
    let whole_days = is_midnight(since) && is_midnight(until);
    let mut select = Select::new(&format!(
        "SELECT {}, sum(effective), sum(contracted), sum(list), sum(on_demand), sum(millis) FROM {}",
        selected.join(", "),
        if whole_days { "sums" } else { "costs" }
    ));
    let (column, unit) = if whole_days { ("day", DAY_MILLIS) } else { ("at", 1) };
    select.matching(&format!("{column} >= ?"), since.map(|at| at.as_millis() / unit));
    select.matching(&format!("{column} < ?"), until.map(|at| at.as_millis() / unit));

    let ReportFilter { experiment, sweep, project, user, provider } = filter;
    select.matching("experiment = ?", experiment.map(rows::number));
    let of_accounts = |column| format!("account IN (SELECT id FROM accounts WHERE {column} = ?)");
    select.matching(&of_accounts("sweep"), sweep.map(rows::number));
    select.matching(&of_accounts("project"), project.as_ref().map(|name| name.as_str().to_owned()));
    select.matching(&of_accounts("user"), user.as_ref().map(|name| name.as_str().to_owned()));
    select.matching(
        "place IN (SELECT id FROM places WHERE provider = ?)",
        provider.as_ref().map(|name| name.as_str().to_owned()),
    );
    select.sql.push_str(&format!(" GROUP BY {}", grouped.join(", ")));
    select
}

/// Provider, region, instance type and capacity type by number. There are as many as there are kinds of machines in
/// use, some thousand at the very most.
fn places(connection: &Connection) -> rusqlite::Result<FxHashMap<i64, [String; 4]>> {
    connection
        .prepare_cached("SELECT id, provider, region, instance_type, capacity_type FROM places")?
        .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])))?
        .collect()
}

fn day_text(day: i64) -> String {
    let mut text = Timestamp::from_millis(day * DAY_MILLIS).to_string();
    text.truncate("2026-11-22".len());
    text
}
