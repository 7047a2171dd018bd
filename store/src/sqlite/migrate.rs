//! The schema, as the list of all steps that ever led to it, and whose file it is.
//!
//! The list only grows: a store of any earlier version goes through the steps that it lacks, all in one transaction
//! with the new epoch, so that a store is never between two versions. `schema.sql` shows where the steps lead.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::unopenable;
use crate::StoreError;

/// "burs": what marks a SQLite file as ours.
const APPLICATION_ID: i64 = 0x6275_7273;

/// The steps; a store's version is how many of them it has been through.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_checkpoint_took.sql"),
    include_str!("../migrations/0003_nodes.sql"),
];

/// Whose a file is that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nobody's: it is empty, and becomes ours.
    Empty,
    /// Ours.
    Ours,
}

/// Says whether the file is ours (or empty, so that it may become ours) and not from the future.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<Found, StoreError> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| unopenable(path, error))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID || version < 0 {
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|error| unopenable(path, error))?;
        let is_new = application == 0 && version == 0 && tables == 0;
        return if is_new { Ok(Found::Empty) } else { Err(StoreError::Foreign { path: path.to_owned() }) };
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(StoreError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(Found::Ours)
}

/// Brings a checked store to the newest version and takes the next epoch.
pub(super) fn migrate_and_lead(connection: &mut Connection) -> Result<u64, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = &MIGRATIONS[usize::try_from(version).expect("a checked version is not negative")..];
    for step in missing {
        transaction.execute_batch(step)?;
    }
    if !missing.is_empty() {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        tracing::info!(from = version, to = MIGRATIONS.len(), "migrated the store");
    }
    let epoch: i64 =
        transaction.query_row("UPDATE leader SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(epoch as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_together_lead_to_the_schema_that_is_shown() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_and_lead(&mut connection).unwrap();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").unwrap();
        let schema: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let schema = format!("{};\n", schema.join(";\n\n"));
        assert!(schema == include_str!("../../schema.sql"), "store/schema.sql should be:\n{schema}");
    }
}
