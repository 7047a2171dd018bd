//! What was paid for attempts that failed of themselves.
//!
//! It is worked out when it is asked for, from the attempts and the charges: an attempt is known to have failed only at
//! its end, when most of it is charged, and to charge it again under another category would say the same thing twice.
//! Attempts that fail are few, and the charges of each are found by its experiment.

use std::collections::BTreeMap;

use bursar_model::{Attempt, AttemptState, Category, Node, ProjectName, Timestamp, Usd};
use rusqlite::params_from_iter;

use super::{Reader, ReportFilter, Select};
use crate::{StoreError, sqlite::rows};

impl Reader {
    /// What each project paid as `run` for attempts that failed of themselves: their process ended with an error, was
    /// killed, or could not be started. What such an attempt had not saved before another one followed is `lost`
    /// already, and not in here again. Projects without any are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn failed_run_costs(
        &self,
        filter: &ReportFilter,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<BTreeMap<ProjectName, Usd>, StoreError> {
        self.with(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut ended = Select::new("SELECT body FROM attempts");
            ended.and("json_extract(body, '$.state.end.is') IN ('exited', 'killed', 'not-started')");
            ended.matching("experiment = ?", filter.experiment.map(rows::number));
            let mut ended_statement = snapshot.prepare_cached(&ended.sql)?;
            let mut found = ended_statement.query(params_from_iter(ended.values))?;
            let mut costs = BTreeMap::new();
            while let Some(row) = found.next()? {
                let attempt: Attempt = rows::json(row, 0)?;
                let AttemptState::Ended { at, end, node: _ } = &attempt.state else { continue };
                if !end.is_failure() {
                    continue;
                }
                for Node { instance, .. } in &attempt.nodes {
                    let mut select = Select::new(
                        "SELECT (SELECT project FROM accounts WHERE id = account), sum(effective) FROM costs",
                    );
                    select.matching("instance = ?", Some(rows::number(*instance)));
                    select.matching("category = ?", Some(rows::category_number(Category::Run)));
                    select.within(since.max(Some(attempt.assigned_at)), Some(until.unwrap_or(*at).min(*at)));
                    select.of(&ReportFilter { experiment: Some(attempt.experiment), ..filter.clone() });
                    select.sql.push_str(" GROUP BY account");
                    let mut statement = snapshot.prepare_cached(&select.sql)?;
                    let mut charged = statement.query(params_from_iter(select.values))?;
                    while let Some(row) = charged.next()? {
                        let project = ProjectName::new(&row.get::<_, String>(0)?);
                        *costs.entry(project).or_insert(Usd::ZERO) += Usd::from_nanos(row.get(1)?);
                    }
                }
            }
            costs.retain(|_, cost| *cost != Usd::ZERO);
            Ok(costs)
        })
    }
}
