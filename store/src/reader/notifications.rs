//! What webhooks were and are to be told, and what experiments like another came to.

use bursar_model::{Notification, ProjectName, SweepId, Usd};

use super::{Cursor, Page, Reader, Select};
use crate::{StoreError, sqlite::rows};

/// Among which experiments one is usual or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peers {
    /// The trials of a sweep.
    Sweep(SweepId),
    /// All experiments of a project.
    Project(ProjectName),
}

impl Reader {
    /// Notifications, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn notifications(&self, after: Option<Cursor>, limit: u32) -> Result<Page<Notification>, StoreError> {
        let mut select = Select::new("SELECT body, id FROM notifications");
        select.before("id", after);
        self.page(select, limit, |row| Ok((rows::json(row, 0)?, row.get(1)?)))
    }

    /// What the newest of these that succeeded cost, at most so many. Those that failed or were stopped say nothing of
    /// what it takes to come to the end.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn costs_of_peers(&self, peers: &Peers, limit: u32) -> Result<Vec<Usd>, StoreError> {
        let (column, value) = match peers {
            Peers::Sweep(id) => ("sweep", rusqlite::types::Value::Integer(rows::number(*id))),
            Peers::Project(name) => ("project", rusqlite::types::Value::Text(name.as_str().to_owned())),
        };
        let sql = format!(
            "SELECT spent FROM experiments JOIN budgets ON kind = ?1 AND key = experiments.id \
             WHERE account IN (SELECT id FROM accounts WHERE {column} = ?2) AND state = 'succeeded' \
             ORDER BY experiments.id DESC LIMIT ?3"
        );
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let costs = statement
                .query_map((rows::EXPERIMENT_BUDGET, value, limit), |row| row.get(0).map(Usd::from_nanos))?;
            Ok(costs.collect::<Result<_, _>>()?)
        })
    }
}
