//! Budgets and charges.

use bursar_model::{
    Budget, BudgetKey, Charge, ChargeClass, ChargeLine, ExperimentId, InstanceId, Period, ProjectName,
    SweepId, Timestamp, Usd, UsdPerHour,
};
use rusqlite::{Connection, OptionalExtension};

use super::{Cursor, Page, Reader, Select};
use crate::{
    StoreError,
    sqlite::rows::{self, Accounts},
};

/// Which charges. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct ChargeFilter {
    /// Those of which this experiment pays a part.
    pub experiment: Option<ExperimentId>,
    /// Those of which this sweep pays a part.
    pub sweep: Option<SweepId>,
    /// Those of which this project pays a part.
    pub project: Option<ProjectName>,
    /// Those of this instance.
    pub instance: Option<InstanceId>,
    /// Those that start then or later.
    pub since: Option<Timestamp>,
    /// Those that start before.
    pub until: Option<Timestamp>,
}

/// A charge in a list, with the lines of all its payers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRow {
    /// The number of its event in the journal.
    pub seq: u64,
    /// The charge.
    pub charge: Charge,
}

impl Reader {
    /// The budgets that count now: the installation's, the projects', the users', those of what is live. Those of experiments
    /// only where they have a limit, because every experiment that ran has one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn budgets(&self) -> Result<Vec<(BudgetKey, Budget)>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT kind, key, spent, held, rest FROM budgets \
                 WHERE live AND (kind < ?1 OR rest IS NOT NULL) ORDER BY kind, key",
            )?;
            let budgets = statement.query_map([rows::EXPERIMENT_BUDGET], rows::budget)?;
            let budgets: Vec<(BudgetKey, Budget)> = budgets.collect::<Result<_, _>>()?;
            // What there is of an experiment's budget may be only that somebody was told of it.
            let counts = |(key, budget): &(BudgetKey, Budget)| {
                !matches!(key, BudgetKey::Experiment(_)) || budget.terms.is_some()
            };
            Ok(budgets.into_iter().filter(counts).collect())
        })
    }

    /// A budget; `None` where nothing was ever limited, held or spent.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn budget(&self, key: &BudgetKey) -> Result<Option<Budget>, StoreError> {
        self.with(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT spent, held, rest FROM budgets WHERE kind = ?1 AND key = ?2")?;
            let found = statement.query_row(rows::budget_key(key), |row| rows::budget_amounts(row, 0));
            Ok(found.optional()?)
        })
    }

    /// Charges, in the order in which they were made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn charges(
        &self,
        filter: &ChargeFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<ChargeRow>, StoreError> {
        let ChargeFilter { experiment, sweep, project, instance, since, until } = filter;
        let mut select = Select::new(
            "SELECT seq, instance, since, until, correction, effective_price, contracted_price, list_price, \
                 on_demand_price FROM charges",
        );
        select.matching("instance = ?", instance.map(rows::number));
        select.matching(
            "seq IN (SELECT charge FROM charge_lines WHERE experiment = ?)",
            experiment.map(rows::number),
        );
        let of_accounts = |column: &str| {
            format!(
                "EXISTS (SELECT 1 FROM charge_lines JOIN accounts ON accounts.id = account \
                 WHERE charge = seq AND {column} = ?)"
            )
        };
        select.matching(&of_accounts("sweep"), sweep.map(rows::number));
        select.matching(&of_accounts("project"), project.as_ref().map(|name| name.as_str().to_owned()));
        select.matching("since >= ?", since.map(Timestamp::as_millis));
        select.matching("since < ?", until.map(Timestamp::as_millis));
        select.after("seq", after);
        self.with(|connection| {
            let mut accounts = Accounts::new(connection);
            select.page(connection, limit, &mut |row| {
                let seq: i64 = row.get(0)?;
                let period = Period {
                    from: Timestamp::from_millis(row.get(2)?),
                    to: Timestamp::from_millis(row.get(3)?),
                };
                let charge = Charge {
                    instance: rows::id(row.get(1)?),
                    period,
                    class: if row.get(4)? { ChargeClass::Correction } else { ChargeClass::Usage },
                    rates: rows::by_basis(row, 5)?.map(UsdPerHour::from_nanos),
                    lines: lines(connection, seq, &mut accounts)?,
                };
                Ok((ChargeRow { seq: seq as u64, charge }, seq))
            })
        })
    }
}

fn lines(
    connection: &Connection,
    charge: i64,
    accounts: &mut Accounts<'_>,
) -> rusqlite::Result<Vec<ChargeLine>> {
    let mut statement = connection.prepare_cached(
        "SELECT experiment, account, category, effective, contracted, list, on_demand FROM charge_lines \
         WHERE charge = ?1 ORDER BY line",
    )?;
    let lines = statement.query_map([charge], |row| {
        Ok(ChargeLine {
            payer: rows::id(row.get(0)?),
            account: accounts.get(row.get(1)?)?,
            category: rows::category(row, 2)?,
            costs: rows::by_basis(row, 3)?.map(Usd::from_nanos),
        })
    })?;
    lines.collect()
}
