//! How rows are encoded: the one place where writing, loading and reading agree.
//!
//! Experiments are columns, because tens of thousands of them are written and loaded at a time and most have nothing
//! but their defaults. What is rarer or richer keeps its JSON in `body`, with the columns beside it that queries need.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{
    Account, Budget, BudgetKey, ByBasis, Category, Experiment, ExperimentId, ExperimentSpec, ExperimentState,
    Params, ProjectName, Span, SpecId, Timestamp, TypedId, Usd, UserName,
};
use rusqlite::{
    Connection, Row,
    types::{FromSqlError, Type, Value, ValueRef},
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The columns that `experiment` reads, in its order.
pub(crate) const EXPERIMENT_COLUMNS: &str = "id, state, name, account, spec, params, queued_at, detail, attempts, \
     failures, not_before, checkpoint_at, metrics, cancelled, losses, expected, checkpoint_took";

/// How many columns that is.
pub(crate) const EXPERIMENT_WIDTH: usize = 17;

/// The state that has no `detail`.
const QUEUED: &str = "queued";

/// Accounts by their number, each read once and its names shared by all that have them.
pub(crate) struct Accounts<'c> {
    connection: &'c Connection,
    known: FxHashMap<i64, Arc<Account>>,
    projects: FxHashMap<Box<str>, ProjectName>,
    users: FxHashMap<Box<str>, UserName>,
}

impl<'c> Accounts<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            known: FxHashMap::default(),
            projects: FxHashMap::default(),
            users: FxHashMap::default(),
        }
    }

    pub(crate) fn get(&mut self, number: i64) -> rusqlite::Result<Arc<Account>> {
        if let Some(account) = self.known.get(&number) {
            return Ok(account.clone());
        }
        let mut statement =
            self.connection.prepare_cached("SELECT project, user, sweep FROM accounts WHERE id = ?1")?;
        let account = statement.query_row([number], |row| {
            Ok(Arc::new(Account {
                project: shared(&mut self.projects, row.get_ref(0)?.as_str()?),
                user: shared(&mut self.users, row.get_ref(1)?.as_str()?),
                sweep: row.get::<_, Option<i64>>(2)?.map(id),
            }))
        })?;
        self.known.insert(number, account.clone());
        Ok(account)
    }
}

fn shared<T: Clone + for<'a> From<&'a str>>(known: &mut FxHashMap<Box<str>, T>, name: &str) -> T {
    if let Some(found) = known.get(name) {
        return found.clone();
    }
    let made = T::from(name);
    known.insert(name.into(), made.clone());
    made
}

/// Specs by their id, each read and parsed once.
pub(crate) struct Specs<'c> {
    connection: &'c Connection,
    known: FxHashMap<SpecId, Arc<ExperimentSpec>>,
}

impl<'c> Specs<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self { connection, known: FxHashMap::default() }
    }

    pub(crate) fn get(&mut self, id: SpecId) -> rusqlite::Result<Arc<ExperimentSpec>> {
        if let Some(spec) = self.known.get(&id) {
            return Ok(spec.clone());
        }
        let mut statement = self.connection.prepare_cached("SELECT body FROM specs WHERE id = ?1")?;
        let spec: Arc<ExperimentSpec> =
            statement.query_row([id.to_bytes()], |row| json(row, 0).map(Arc::new))?;
        self.known.insert(id, spec.clone());
        Ok(spec)
    }

    /// All that were asked for.
    pub(crate) fn into_known(self) -> Vec<(SpecId, Arc<ExperimentSpec>)> {
        self.known.into_iter().collect()
    }
}

/// The labels of a spec: a small part of it, and all that reports and exports want of it.
pub(crate) fn labels(
    connection: &Connection,
    spec: SpecId,
) -> rusqlite::Result<Arc<BTreeMap<String, String>>> {
    #[derive(Deserialize)]
    struct Labelled {
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    let mut statement = connection.prepare_cached("SELECT body FROM specs WHERE id = ?1")?;
    statement.query_row([spec.to_bytes()], |row| json(row, 0).map(|Labelled { labels }| Arc::new(labels)))
}

/// Reads `EXPERIMENT_COLUMNS`.
pub(crate) fn experiment(row: &Row<'_>, accounts: &mut Accounts<'_>) -> rusqlite::Result<Experiment> {
    let state = match row.get_ref(1)?.as_str()? {
        QUEUED => ExperimentState::Queued,
        _ => json(row, 7)?,
    };
    let params: Option<Params> = optional_json(row, 5)?;
    // JSON has no NaN and no infinity: a metric that was one was written as null.
    let metrics: Option<BTreeMap<String, Option<f64>>> = optional_json(row, 12)?;
    Ok(Experiment {
        id: id(row.get(0)?),
        name: row.get_ref(2)?.as_str()?.into(),
        account: accounts.get(row.get(3)?)?,
        spec: SpecId::from_digest(row.get(4)?),
        params: params.unwrap_or_default(),
        queued_at: Timestamp::from_millis(row.get(6)?),
        state,
        attempts: row.get(8)?,
        failures: row.get(9)?,
        not_before: row.get::<_, Option<i64>>(10)?.map(Timestamp::from_millis),
        checkpoint_at: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_millis),
        metrics: metrics
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, value.unwrap_or(f64::NAN)))
            .collect(),
        cancelled: row.get(13)?,
        losses: row.get(14)?,
        expected: optional_json(row, 15)?,
        checkpoint_took: row.get::<_, Option<i64>>(16)?.map(Span::from_millis),
    })
}

/// What `detail` keeps of a state.
pub(crate) fn state_detail(state: &ExperimentState) -> Option<&ExperimentState> {
    match state {
        ExperimentState::Queued => None,
        ExperimentState::Running { .. } | ExperimentState::Ended { .. } => Some(state),
    }
}

/// The kind of the budgets of experiments, which are many.
pub(crate) const EXPERIMENT_BUDGET: i64 = 4;

/// The primary key of a budget.
pub(crate) fn budget_key(key: &BudgetKey) -> (i64, Value) {
    match key {
        BudgetKey::Installation => (0, Value::Integer(0)),
        BudgetKey::Project(name) => (1, Value::Text(name.as_str().to_owned())),
        BudgetKey::User(name) => (2, Value::Text(name.as_str().to_owned())),
        BudgetKey::Sweep(id) => (3, Value::Integer(number(*id))),
        BudgetKey::Experiment(id) => (EXPERIMENT_BUDGET, Value::Integer(number(*id))),
    }
}

/// Reads `kind, key, spent, held, rest`.
pub(crate) fn budget(row: &Row<'_>) -> rusqlite::Result<(BudgetKey, Budget)> {
    let key = match (row.get(0)?, row.get_ref(1)?) {
        (0, _) => BudgetKey::Installation,
        (1, ValueRef::Text(_)) => BudgetKey::Project(row.get_ref(1)?.as_str()?.into()),
        (2, ValueRef::Text(_)) => BudgetKey::User(row.get_ref(1)?.as_str()?.into()),
        (3, ValueRef::Integer(sweep)) => BudgetKey::Sweep(id(sweep)),
        (EXPERIMENT_BUDGET, ValueRef::Integer(experiment)) => BudgetKey::Experiment(id(experiment)),
        (_, key) => return Err(unreadable(1, key.data_type(), FromSqlError::InvalidType)),
    };
    Ok((key, budget_amounts(row, 2)?))
}

/// Reads `spent, held, rest` from this column on.
pub(crate) fn budget_amounts(row: &Row<'_>, from: usize) -> rusqlite::Result<Budget> {
    let rest: Option<Budget> = optional_json(row, from + 2)?;
    Ok(Budget {
        spent: Usd::from_nanos(row.get(from)?),
        held: Usd::from_nanos(row.get(from + 1)?),
        ..rest.unwrap_or_default()
    })
}

/// What `rest` keeps of a budget: all but the amounts that have columns, where there is anything.
pub(crate) fn budget_rest(budget: &Budget) -> Option<Budget> {
    let rest = Budget { spent: Usd::ZERO, held: Usd::ZERO, ..budget.clone() };
    (rest != Budget::default()).then_some(rest)
}

/// The number of a category: its place in `Category::ALL`.
pub(crate) fn category_number(category: Category) -> i64 {
    match category {
        Category::Run => 0,
        Category::Boot => 1,
        Category::Idle => 2,
        Category::Drain => 3,
        Category::Lost => 4,
    }
}

/// Reads the number of a category.
pub(crate) fn category(row: &Row<'_>, column: usize) -> rusqlite::Result<Category> {
    let number: i64 = row.get(column)?;
    usize::try_from(number)
        .ok()
        .and_then(|index| Category::ALL.get(index).copied())
        .ok_or_else(|| unreadable(column, Type::Integer, FromSqlError::OutOfRange(number)))
}

/// Reads `effective, contracted, list, on_demand` from this column on, in nano-dollars.
pub(crate) fn by_basis(row: &Row<'_>, from: usize) -> rusqlite::Result<ByBasis<i64>> {
    Ok(ByBasis {
        effective: row.get(from)?,
        contracted: row.get(from + 1)?,
        list: row.get(from + 2)?,
        on_demand: row.get(from + 3)?,
    })
}

/// Reads a number that SQL counted.
pub(crate) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|count| count as u64)
}

/// An id as the integer that it is in a column. Ids have 63 bits.
pub(crate) fn number(id: impl TypedId) -> i64 {
    id.as_u64() as i64
}

/// The id of this integer.
pub(crate) fn id<T: TypedId>(number: i64) -> T {
    T::from_u64(number as u64)
}

/// Ids in a row, eight bytes each.
pub(crate) fn pack_ids(ids: &[ExperimentId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.as_u64().to_be_bytes()).collect()
}

/// Reads what `pack_ids` wrote.
pub(crate) fn unpack_ids(bytes: &[u8]) -> Vec<ExperimentId> {
    let (ids, _) = bytes.as_chunks::<8>();
    ids.iter().map(|bytes| TypedId::from_u64(u64::from_be_bytes(*bytes))).collect()
}

/// JSON text for a column.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the model's types have text keys and no failing serializers")
}

/// Reads JSON from a column.
pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| unreadable(column, Type::Text, error))
}

fn optional_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
            json(row, column).map(Some)
        }
    }
}

/// The error of a column that holds what this program never wrote.
pub(crate) fn unreadable(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}
