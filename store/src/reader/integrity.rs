//! Whether the store is sound, for `bursar doctor`: the file, and everything that is made of charges against the charges.

use bursar_model::{BudgetKey, Costs, Instance, Usd, Violation, invariant};
use rusqlite::Connection;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{Reader, ReportFilter, Select};
use crate::{
    StoreError,
    sqlite::{
        load::load,
        rows::{self, Accounts},
    },
};

/// Problems of the file that are told; the first few say enough.
const PROBLEMS_MAX: u32 = 20;

/// What was found. Sound when there is nothing in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Integrity {
    /// What SQLite says of the file.
    pub file: Vec<String>,
    /// Sums that differ from a recount of the charges.
    pub wrong_sums: u64,
    /// Budgets of which something else is spent, in their window where they have one, than their charges say.
    pub wrong_budgets: u64,
    /// Instances whose meter shows something else than the sum of their charges (L1).
    pub wrong_meters: u64,
    /// Metered charges that do not begin where the one before of the same instance ended (L2).
    pub gaps: u64,
    /// Rows that point at a row that is not there.
    pub dangling: u64,
}

impl Integrity {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        *self == Self::default()
    }
}

impl Reader {
    /// The live state as it is stored, held against the invariants. Empty when all is well.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn violations(&self) -> Result<Vec<Violation>, StoreError> {
        self.with(|connection| Ok(invariant::check(&load(connection, 0)?.fleet)))
    }

    /// Reads the whole store and recounts all that is made of charges: seconds for a store of some hundred MB.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub fn integrity(&self) -> Result<Integrity, StoreError> {
        self.with(|connection| {
            // One moment, so that what is charged meanwhile is nowhere missing.
            let connection = &*connection.unchecked_transaction()?;
            let mut check = connection.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
            let said = check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            let file = said.into_iter().filter(|line| line != "ok").collect();
            Ok(Integrity {
                file,
                wrong_sums: connection.query_row(WRONG_SUMS, [], |row| rows::count(row, 0))?,
                wrong_budgets: wrong_budgets(connection)?,
                wrong_meters: wrong_meters(connection)?,
                gaps: connection.query_row(GAPS, [], |row| rows::count(row, 0))?,
                dangling: connection.query_row(DANGLING, [], |row| rows::count(row, 0))?,
            })
        })
    }
}

fn wrong_budgets(connection: &Connection) -> Result<u64, StoreError> {
    let ever = Ever::read(connection)?;
    let mut statement = connection.prepare("SELECT kind, key, spent, held, rest FROM budgets")?;
    let mut found = statement.query([])?;
    let mut wrong = 0;
    while let Some(row) = found.next()? {
        let (key, budget) = rows::budget(row)?;
        let counted = match budget.window {
            None => (ever.of(&key), Usd::ZERO),
            // Few have windows: the installation, projects and users.
            Some(window) => {
                let of = ReportFilter::of(&key);
                let of_time = |since, until| -> rusqlite::Result<Usd> {
                    let mut select = Select::new("SELECT ifnull(sum(effective), 0) FROM costs");
                    select.within(Some(since), until);
                    select.of(&of);
                    let values = rusqlite::params_from_iter(select.values);
                    let sum = connection.prepare_cached(&select.sql)?.query_row(values, |row| row.get(0))?;
                    Ok(Usd::from_nanos(sum))
                };
                (of_time(window.from, Some(window.to))?, of_time(window.to, None)?)
            }
        };
        wrong += u64::from(counted != (budget.spent, budget.ahead));
    }
    Ok(wrong)
}

/// What was ever charged to each budget.
#[derive(Default)]
struct Ever {
    sums: FxHashMap<BudgetKey, Usd>,
}

impl Ever {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut ever = Self::default();
        let mut accounts = Accounts::new(connection);
        let mut statement = connection
            .prepare("SELECT account, experiment, sum(effective) FROM costs GROUP BY account, experiment")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let account = accounts.get(row.get(0)?)?;
            let cost = Usd::from_nanos(row.get(2)?);
            for key in account.budgets(rows::id(row.get(1)?)) {
                *ever.sums.entry(key).or_default() += cost;
            }
        }
        Ok(ever)
    }

    fn of(&self, key: &BudgetKey) -> Usd {
        self.sums.get(key).copied().unwrap_or_default()
    }
}

fn wrong_meters(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare(
        "SELECT instance, sum(effective), sum(contracted), sum(list), sum(on_demand) FROM costs GROUP BY instance",
    )?;
    let sums = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, rows::by_basis(row, 1)?.map(Usd::from_nanos))))?;
    let mut sums: FxHashMap<i64, Costs> = sums.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare("SELECT body FROM instances")?;
    let mut found = statement.query([])?;
    let mut wrong = 0;
    while let Some(row) = found.next()? {
        let instance: Instance = rows::json(row, 0)?;
        let charged = sums.remove(&rows::number(instance.id)).unwrap_or_default();
        wrong += u64::from(charged != instance.meter.costs);
    }
    Ok(wrong)
}

/// A correction has no time of its own.
const GAPS: &str = "
    SELECT count(*) FROM (
      SELECT since, lag(until) OVER (PARTITION BY instance ORDER BY seq) AS charged_until
      FROM charges WHERE NOT correction
    ) WHERE since <> charged_until";

const WRONG_SUMS: &str = "
    WITH recount AS (
      SELECT day, account, experiment, place, category,
             sum(effective) AS effective, sum(contracted) AS contracted, sum(list) AS list,
             sum(on_demand) AS on_demand, sum(millis) AS millis
      FROM costs GROUP BY day, account, experiment, place, category
    )
    SELECT (SELECT count(*) FROM (SELECT * FROM sums EXCEPT SELECT * FROM recount))
         + (SELECT count(*) FROM (SELECT * FROM recount EXCEPT SELECT * FROM sums))";

const DANGLING: &str = "
    SELECT (SELECT count(*) FROM experiments WHERE account NOT IN (SELECT id FROM accounts))
         + (SELECT count(*) FROM experiments WHERE spec NOT IN (SELECT id FROM specs))
         + (SELECT count(*) FROM attempts WHERE experiment NOT IN (SELECT id FROM experiments))
         + (SELECT count(*) FROM instances WHERE place NOT IN (SELECT id FROM places))
         + (SELECT count(*) FROM charges WHERE instance NOT IN (SELECT id FROM instances))
         + (SELECT count(*) FROM charges WHERE seq NOT IN (SELECT seq FROM journal))
         + (SELECT count(*) FROM charge_lines WHERE charge NOT IN (SELECT seq FROM charges))";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bursar_model::{BudgetTerms, Category, Counted, Event, Period, Schedule, SetBy, Span};

    use super::*;
    use crate::{Durability, OpenOptions, SqliteStore, Store, conformance::Script};

    /// Two shared hours, one of them within the first window of a project's budget, and a correction of either.
    async fn charged(path: &std::path::Path) -> (SqliteStore, Script) {
        let mut store = SqliteStore::open(path, OpenOptions { durability: Durability::Process }).unwrap();
        let mut script = Script::new(store.load().await.unwrap());
        let payers = [script.queue("one", 1, None), script.queue("two", 2, None)];
        let (key, hour) = (BudgetKey::Project("vision".into()), Span::from_hours(1));
        let window = Period::new(script.now, script.now + hour);
        let schedule = Some(Schedule::parse("0 * * * *", None).unwrap());
        let terms = Some(Arc::new(BudgetTerms { schedule, ..BudgetTerms::default() }));
        script.then(Event::BudgetSet {
            key: key.clone(),
            terms,
            by: SetBy::Configuration,
            window: Some(window),
            counted: Some(Counted::default()),
        });
        let instance = script.instance(&payers);
        script.charge(instance, hour, Category::Run);
        script.charge(instance, hour, Category::Drain);
        script.correct(3);
        script.correct(4);
        store.commit(&script.commit()).await.unwrap();
        let ahead = script.fleet.budgets[&key].ahead;
        assert!(ahead > Usd::ZERO, "the second hour is for the next window");
        assert_eq!(store.reader().integrity().unwrap(), Integrity::default());
        script.then(Event::BudgetWindowBegan { key, window: Period::new(window.to, window.to + hour) });
        store.commit(&script.commit()).await.unwrap();
        (store, script)
    }

    #[tokio::test]
    async fn whatever_differs_from_the_charges_is_counted() {
        for (damage, expected) in [
            ("SELECT 1", Integrity::default()),
            (
                "UPDATE sums SET list = list + 1 WHERE category = 3",
                Integrity { wrong_sums: 4, ..Integrity::default() },
            ),
            (
                "UPDATE budgets SET spent = spent - 1 WHERE kind = 1",
                Integrity { wrong_budgets: 1, ..Integrity::default() },
            ),
            (
                "UPDATE budgets SET spent = spent + 1 WHERE kind IN (0, 4)",
                Integrity { wrong_budgets: 3, ..Integrity::default() },
            ),
            (
                "UPDATE instances SET body = json_set(body, '$.meter.costs.list', '17')",
                Integrity { wrong_meters: 1, ..Integrity::default() },
            ),
            (
                "UPDATE charges SET until = until - 1 WHERE NOT correction",
                Integrity { gaps: 1, ..Integrity::default() },
            ),
            ("DELETE FROM specs", Integrity { dangling: 2, ..Integrity::default() }),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("bursar.db");
            let (store, _script) = charged(&path).await;
            Connection::open(&path).unwrap().execute_batch(damage).unwrap();
            assert_eq!(store.reader().integrity().unwrap(), expected, "{damage}");
        }
    }
}
