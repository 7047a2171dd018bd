//! Lists of experiments and sweeps.

use std::sync::Arc;

use bursar_model::{
    Budget, Experiment, ExperimentId, ExperimentSpec, ProjectName, Sweep, SweepId, TypedId, Usd, UserName,
};
use rusqlite::{OptionalExtension, Row};

use super::{Cursor, Page, Reader, Select};
use crate::{
    StoreError,
    sqlite::rows::{self, Accounts, EXPERIMENT_COLUMNS, EXPERIMENT_WIDTH, Specs},
};

/// Experiments of one name that are told apart; nobody reads a longer list to find the one that was meant.
const RESOLVED_MAX: u32 = 20;

/// Which experiments. What is `None` or empty does not matter.
#[derive(Debug, Clone, Default)]
pub struct ExperimentFilter {
    /// The state, as `Experiment::state_name` has it.
    pub state: Option<String>,
    /// Who pays.
    pub project: Option<ProjectName>,
    /// Trials of this sweep.
    pub sweep: Option<SweepId>,
    /// Who asked.
    pub user: Option<UserName>,
    /// The whole name.
    pub name: Option<String>,
    /// A part of the name, in whatever case.
    pub text: Option<String>,
    /// One of these; at most a page of them makes sense.
    pub ids: Vec<ExperimentId>,
    /// Only those that are not over.
    pub live_only: bool,
}

/// An experiment in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentRow {
    /// The experiment.
    pub experiment: Experiment,
    /// Its spec.
    pub spec: Arc<ExperimentSpec>,
    /// What it cost so far.
    pub spent: Usd,
}

/// Which sweeps. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct SweepFilter {
    /// Who pays.
    pub project: Option<ProjectName>,
    /// The whole name.
    pub name: Option<String>,
    /// Only those with open trials.
    pub live_only: bool,
}

/// A sweep in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepRow {
    /// The sweep. Its trials are the experiments with `ExperimentFilter::sweep`.
    pub sweep: Sweep,
    /// Its budget; without a limit where it has none.
    pub budget: Budget,
}

impl Reader {
    /// Experiments, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn experiments(
        &self,
        filter: &ExperimentFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<ExperimentRow>, StoreError> {
        let ExperimentFilter { state, project, sweep, user, name, text, ids, live_only } = filter;
        let mut select = Select::new(&select_experiments());
        // States of the living are said to be living, so that the index of these few finds them.
        let is_live_state = matches!(state.as_deref(), Some("queued" | "running"));
        select.when(*live_only || is_live_state, "live");
        select.matching("state = ?", state.clone());
        let of_accounts = |column| format!("account IN (SELECT id FROM accounts WHERE {column} = ?)");
        select.matching(&of_accounts("project"), project.as_ref().map(|name| name.as_str().to_owned()));
        select.matching(&of_accounts("sweep"), sweep.map(rows::number));
        select.matching(&of_accounts("user"), user.as_ref().map(|name| name.as_str().to_owned()));
        select.matching("name = ?", name.clone());
        select.matching("instr(lower(name), lower(?)) > 0", text.clone());
        let ids =
            (!ids.is_empty()).then(|| rows::to_json(&ids.iter().map(|id| id.as_u64()).collect::<Vec<_>>()));
        select.matching("id IN (SELECT value FROM json_each(?))", ids);
        select.before("id", after);
        self.with(|connection| {
            let (mut accounts, mut specs) = (Accounts::new(connection), Specs::new(connection));
            select.page(connection, limit, &mut |row| {
                let row = experiment_row(row, &mut accounts, &mut specs)?;
                let at = rows::number(row.experiment.id);
                Ok((row, at))
            })
        })
    }

    /// An experiment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn experiment(&self, id: ExperimentId) -> Result<Option<ExperimentRow>, StoreError> {
        self.with(|connection| {
            let (mut accounts, mut specs) = (Accounts::new(connection), Specs::new(connection));
            let mut statement = connection.prepare_cached(&(select_experiments() + " WHERE id = ?1"))?;
            let found = statement
                .query_row([rows::number(id)], |row| experiment_row(row, &mut accounts, &mut specs))
                .optional()?;
            Ok(found)
        })
    }

    /// The experiments that a person may mean by an id or a name, the newest first: none, the one, or several of
    /// which the newest is the likely one. At most 20.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolve(&self, id_or_name: &str) -> Result<Vec<ExperimentId>, StoreError> {
        self.with(|connection| {
            if let Ok(id) = id_or_name.parse::<ExperimentId>() {
                let mut statement = connection.prepare_cached("SELECT id FROM experiments WHERE id = ?1")?;
                let found = statement.query_row([rows::number(id)], |_| Ok(id)).optional()?;
                return Ok(found.into_iter().collect());
            }
            let mut statement = connection
                .prepare_cached("SELECT id FROM experiments WHERE name = ?1 ORDER BY id DESC LIMIT ?2")?;
            let found = statement.query_map((id_or_name, RESOLVED_MAX), |row| row.get(0).map(rows::id))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// Sweeps, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sweeps(
        &self,
        filter: &SweepFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SweepRow>, StoreError> {
        let SweepFilter { project, name, live_only } = filter;
        let mut select = Select::new(SELECT_SWEEPS);
        select.when(*live_only, "sweeps.live");
        select.matching("project = ?", project.as_ref().map(|name| name.as_str().to_owned()));
        select.matching("name = ?", name.clone());
        select.before("id", after);
        self.page(select, limit, |row| {
            let row = sweep_row(row)?;
            let at = rows::number(row.sweep.id);
            Ok((row, at))
        })
    }

    /// A sweep.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sweep(&self, id: SweepId) -> Result<Option<SweepRow>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT_SWEEPS} WHERE id = ?1"))?;
            Ok(statement.query_row([rows::number(id)], sweep_row).optional()?)
        })
    }
}

// `budgets.key` has no affinity: the `+` takes it from the other side too, without which no index is used.
fn select_experiments() -> String {
    format!(
        "SELECT {EXPERIMENT_COLUMNS}, \
             (SELECT spent FROM budgets WHERE kind = {} AND key = +experiments.id) FROM experiments",
        rows::EXPERIMENT_BUDGET
    )
}

fn experiment_row(
    row: &Row<'_>,
    accounts: &mut Accounts<'_>,
    specs: &mut Specs<'_>,
) -> rusqlite::Result<ExperimentRow> {
    let experiment = rows::experiment(row, accounts)?;
    let spec = specs.get(experiment.spec)?;
    let spent = row.get::<_, Option<i64>>(EXPERIMENT_WIDTH)?.map_or(Usd::ZERO, Usd::from_nanos);
    Ok(ExperimentRow { experiment, spec, spent })
}

const SELECT_SWEEPS: &str = "SELECT body, ifnull(spent, 0), ifnull(held, 0), rest FROM sweeps LEFT JOIN budgets ON kind = 3 AND key = +id";

fn sweep_row(row: &Row<'_>) -> rusqlite::Result<SweepRow> {
    Ok(SweepRow { sweep: rows::json(row, 0)?, budget: rows::budget_amounts(row, 1)? })
}
