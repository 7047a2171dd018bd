//! Whether the store is sound, for `bursar doctor`: the file, and the sums against the charges.

use bursar_model::{Violation, invariant};

use super::Reader;
use crate::{
    StoreError,
    sqlite::{load::load, rows},
};

/// Problems of the file that are told; the first few say enough.
const PROBLEMS_MAX: u32 = 20;

/// What was found. Sound when there is nothing in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Integrity {
    /// What SQLite says of the file.
    pub file: Vec<String>,
    /// Sums that differ from a recount of the charges.
    pub wrong_sums: u64,
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

    /// Reads the whole store and recounts all sums: seconds for a store of some hundred MB.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub fn integrity(&self) -> Result<Integrity, StoreError> {
        self.with(|connection| {
            let mut check = connection.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
            let said = check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            let file = said.into_iter().filter(|line| line != "ok").collect();
            Ok(Integrity {
                file,
                wrong_sums: connection.query_row(WRONG_SUMS, [], |row| rows::count(row, 0))?,
                dangling: connection.query_row(DANGLING, [], |row| rows::count(row, 0))?,
            })
        })
    }
}

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
