//! What was spent over time, in equal steps: for burn-down charts and forecasts.

use bursar_model::{Period, Span, Timestamp, Usd};
use rusqlite::params_from_iter;

use super::{Dimension, Reader, ReportFilter, ReportKey, ReportQuery, Select};
use crate::StoreError;

/// The steps of a series, by UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesUnit {
    /// Hours: added up from the charges, for some weeks at most.
    Hour,
    /// Days: added up from the sums.
    Day,
}

impl SeriesUnit {
    /// How long a step is.
    #[must_use]
    pub const fn span(self) -> Span {
        match self {
            Self::Hour => Span::from_hours(1),
            Self::Day => Span::from_hours(24),
        }
    }
}

impl Reader {
    /// What was spent in each hour or day in which something was, the oldest first. A charge counts where its period
    /// begins; the first and the last step have only what begins within `[since, until)`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn spend_series(
        &self,
        filter: &ReportFilter,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        unit: SeriesUnit,
    ) -> Result<Vec<(Period, Usd)>, StoreError> {
        let step = |from: Timestamp, amount| (Period::new(from, from + unit.span()), amount);
        match unit {
            SeriesUnit::Day => {
                let query = ReportQuery { by: vec![Dimension::Day], since, until, filter: filter.clone() };
                let days = self.report(&query)?.into_iter().filter_map(|row| match row.keys.as_slice() {
                    [ReportKey::Day(day)] => Some(step(*day, row.costs.effective)),
                    _ => None,
                });
                Ok(days.collect())
            }
            SeriesUnit::Hour => {
                let millis = unit.span().as_millis();
                let select = of_hours(millis, filter, since, until);
                self.with(|connection| {
                    let mut statement = connection.prepare_cached(&select.sql)?;
                    let hours = statement.query_map(params_from_iter(select.values), |row| {
                        let from = Timestamp::from_millis(row.get::<_, i64>(0)? * millis);
                        Ok(step(from, Usd::from_nanos(row.get(1)?)))
                    })?;
                    Ok(hours.collect::<Result<_, _>>()?)
                })
            }
        }
    }
}

fn of_hours(
    millis: i64,
    filter: &ReportFilter,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Select {
    let mut select = Select::new(&format!("SELECT at / {millis} AS hour, sum(effective) FROM costs"));
    select.within(since, until);
    select.of(filter);
    select.sql.push_str(" GROUP BY hour ORDER BY hour");
    select
}
