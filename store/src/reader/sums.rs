//! The sums in memory, which reports add up.
//!
//! The table of sums has a row for each day, payer, place and category: some ten thousand a month. SQLite takes longer to
//! hand over each row than the row takes to be added up, and longer than a report may take. So the numbers are kept here,
//! shared by all connections of a reader, and brought up to date before each report: what was charged since is added as
//! rows of its own, found by the numbers of the charges. Nothing has to be looked for in what is here already, and the
//! writer does nothing for it. Once such rows are as many as the others, all are read anew from the table.
//!
//! A row names what it is of by places in lists (`Members`), so that grouping and choosing look at small numbers only.

use bursar_model::{Costs, Usd};
use rusqlite::{Connection, Row, types::Type};

use super::members::{Column, Members};
use crate::sqlite::rows;

/// Rows kept at most, 64 bytes each. A store with more sums than that is added up by SQLite as it was before there were
/// rows in memory: slower, and with no memory to speak of.
pub(super) const ROWS_MAX: usize = 1 << 20;

/// So many charged lines may follow in any case before all is read anew: a few milliseconds' worth.
const FOLLOWING_MIN: usize = 1 << 14;

/// What was charged to a payer at a place on a day for a category, or a part of that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    /// Of each column, by its number there.
    pub(super) members: [u32; Column::COUNT],
    pub(super) costs: Costs,
    pub(super) millis: i64,
}

/// The sums, with what their numbers stand for.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) members: Members,
    kept: Kept,
    rows_max: usize,
}

#[derive(Debug, Default)]
enum Kept {
    /// Not read, or given up halfway.
    #[default]
    Nothing,
    /// All sums up to this charge: those that were read from the table, and behind them one for each line since.
    Rows { rows: Vec<Sum>, from_table: usize, through: i64 },
    /// There are more than are kept. There never will be fewer.
    TooMany,
}

impl Sums {
    pub(super) fn new(rows_max: usize) -> Self {
        Self { members: Members::default(), kept: Kept::Nothing, rows_max }
    }

    /// Brings the rows up to date with what the transaction sees. `false` where they are too many to be kept.
    pub(super) fn read(&mut self, transaction: &Connection) -> rusqlite::Result<bool> {
        let newest: i64 = transaction
            .prepare_cached("SELECT ifnull(max(seq), 0) FROM charges")?
            .query_row([], |row| row.get(0))?;
        // Taken out, so that what fails halfway leaves nothing half done behind.
        self.kept = match std::mem::take(&mut self.kept) {
            Kept::Rows { rows, from_table, through } if through == newest => {
                Kept::Rows { rows, from_table, through }
            }
            Kept::TooMany => {
                self.members.read(transaction)?;
                Kept::TooMany
            }
            Kept::Rows { rows, from_table, through } => {
                self.members.read(transaction)?;
                match self.follow(transaction, rows, from_table, through)? {
                    Some(rows) => Kept::Rows { rows, from_table, through: newest },
                    None => self.read_table(transaction, newest)?,
                }
            }
            Kept::Nothing => {
                self.members.read(transaction)?;
                self.read_table(transaction, newest)?
            }
        };
        Ok(matches!(self.kept, Kept::Rows { .. }))
    }

    /// What `read` found.
    pub(super) fn rows(&self) -> &[Sum] {
        match &self.kept {
            Kept::Rows { rows, .. } => rows,
            Kept::Nothing | Kept::TooMany => &[],
        }
    }

    /// Adds what was charged since; `None` where that is so much that the table is read sooner.
    fn follow(
        &mut self,
        transaction: &Connection,
        mut rows: Vec<Sum>,
        from_table: usize,
        through: i64,
    ) -> rusqlite::Result<Option<Vec<Sum>>> {
        let most = from_table.saturating_add(from_table.max(FOLLOWING_MIN)).min(self.rows_max);
        let mut statement =
            transaction.prepare_cached(&format!("SELECT {COLUMNS} FROM costs WHERE seq > ?1"))?;
        let mut found = statement.query([through])?;
        while let Some(row) = found.next()? {
            if rows.len() >= most {
                return Ok(None);
            }
            rows.push(sum(row, &mut self.members)?);
        }
        Ok(Some(rows))
    }

    fn read_table(&mut self, transaction: &Connection, newest: i64) -> rusqlite::Result<Kept> {
        let mut statement = transaction.prepare_cached(&format!("SELECT {COLUMNS} FROM sums"))?;
        let mut found = statement.query([])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            if rows.len() >= self.rows_max {
                return Ok(Kept::TooMany);
            }
            rows.push(sum(row, &mut self.members)?);
        }
        Ok(Kept::Rows { from_table: rows.len(), rows, through: newest })
    }
}

/// What `sum` reads.
const COLUMNS: &str =
    "day, account, experiment, place, category, effective, contracted, list, on_demand, millis";

/// Reads `day, account, experiment, place, category` and the amounts. Where a column was not asked for it is NULL, and
/// nobody looks at its member.
pub(super) fn sum(row: &Row<'_>, members: &mut Members) -> rusqlite::Result<Sum> {
    let mut numbers = [0; Column::COUNT];
    for (column, number) in Column::ALL.into_iter().zip(&mut numbers) {
        if let Some(found) = row.get(column as usize)? {
            *number = members.member(column, found).ok_or_else(|| {
                let error = rusqlite::types::FromSqlError::OutOfRange(found);
                rows::unreadable(column as usize, Type::Integer, error)
            })?;
        }
    }
    Ok(Sum {
        members: numbers,
        costs: rows::by_basis(row, Column::COUNT)?.map(Usd::from_nanos),
        millis: row.get(Column::COUNT + 4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Dimension, Reader, ReportQuery};
    use crate::{Durability, OpenOptions, SqliteStore, Store, conformance::Script};

    #[tokio::test]
    async fn a_report_is_the_same_however_many_sums_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bursar.db");
        let mut store = SqliteStore::open(&path, OpenOptions { durability: Durability::Process }).unwrap();
        let mut script = Script::new(store.load().await.unwrap());
        let readers = [0, 3, 10, 20].map(|most| Reader::keeping(&path, most));
        let label = Dimension::Label("team".to_owned());
        let mut rows_seen = 0;
        for turn in 0..120_u64 {
            script.step(turn * 977);
            script.step(turn * 256 * 7 + 4);
            script.step(turn * 256 * 360_007 + 15);
            store.commit(&script.commit()).await.unwrap();
            for by in [Dimension::Experiment, Dimension::Day, Dimension::Region, label.clone()] {
                let query = ReportQuery { by: vec![by, Dimension::Category], ..ReportQuery::default() };
                let all_kept = store.reader().report(&query).unwrap();
                for reader in &readers {
                    assert_eq!(reader.report(&query).unwrap(), all_kept, "{query:?} in turn {turn}");
                }
                rows_seen = rows_seen.max(all_kept.len());
            }
        }
        assert!(rows_seen > 20, "the largest of them did not keep all: {rows_seen}");
    }
}
