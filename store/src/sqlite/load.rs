//! What the daemon starts with: the live rows, found by partial indexes among any number of rows that are over.

use bursar_model::{Fleet, FleetParts, RefusedScope, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::rows::{self, Accounts, Specs};
use crate::{Loaded, StoreError};

pub(crate) fn load(connection: &Connection, epoch: u64) -> Result<Loaded, StoreError> {
    // One transaction, one state. Nothing else is open on the connection: a load is never part of a commit.
    let transaction = connection.unchecked_transaction()?;
    let mut accounts = Accounts::new(&transaction);
    let mut specs = Specs::new(&transaction);
    let experiments = query(
        &transaction,
        &format!("SELECT {} FROM experiments WHERE live", rows::EXPERIMENT_COLUMNS),
        |row| {
            let experiment = rows::experiment(row, &mut accounts)?;
            specs.get(experiment.spec)?;
            Ok(experiment)
        },
    )?;
    let parts = FleetParts {
        specs: specs.into_known(),
        experiments,
        sweeps: query(&transaction, "SELECT body FROM sweeps WHERE live", |row| rows::json(row, 0))?,
        attempts: query(&transaction, "SELECT body FROM attempts WHERE live", |row| rows::json(row, 0))?,
        instances: query(&transaction, "SELECT body FROM instances WHERE live", |row| rows::json(row, 0))?,
        budgets: query(
            &transaction,
            "SELECT kind, key, spent, held, rest FROM budgets WHERE live",
            rows::budget,
        )?,
        refused: query(&transaction, "SELECT scope, failures, until FROM refused", |row| {
            let until = Timestamp::from_millis(row.get(2)?);
            Ok((rows::json(row, 0)?, RefusedScope { failures: row.get(1)?, until }))
        })?,
        outbox: query(&transaction, "SELECT body FROM notifications WHERE live", |row| rows::json(row, 0))?,
        reported: query(&transaction, "SELECT report, until FROM reported", |row| {
            Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?)))
        })?,
    };
    let highest_id: i64 = transaction.query_row(
        "SELECT max(ifnull((SELECT max(id) FROM experiments), 0), ifnull((SELECT max(id) FROM sweeps), 0), \
             ifnull((SELECT max(id) FROM attempts), 0), ifnull((SELECT max(id) FROM instances), 0), \
             ifnull((SELECT max(id) FROM notifications), 0))",
        [],
        |row| row.get(0),
    )?;
    let newest_commit = transaction
        .query_row("SELECT at FROM journal ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()?
        .map(Timestamp::from_millis);
    drop(accounts);
    Ok(Loaded { fleet: Fleet::from_parts(parts), epoch, highest_id: highest_id as u64, newest_commit })
}

fn query<T>(
    transaction: &Transaction<'_>,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    transaction.prepare_cached(sql)?.query_map([], read)?.collect()
}
