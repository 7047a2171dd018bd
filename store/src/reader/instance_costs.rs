//! What each instance was charged, as a cloud's bill would say it: what a bill is compared with.

use std::collections::BTreeMap;

use bursar_model::{CloudId, Instance, InstanceId, Period, ProviderName, Timestamp, Usd};

use super::{Cursor, Page, Reader, Select};
use crate::{StoreError, sqlite::rows};

/// What an instance was charged at contracted prices: without the overhead of this installation, which no cloud bills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceCosts {
    /// Which.
    pub instance: InstanceId,
    /// The cloud's name of it, where there was one.
    pub cloud_id: Option<CloudId>,
    /// Where it was.
    pub provider: ProviderName,
    /// Whether it is gone: it will not be metered any more.
    pub gone: bool,
    /// What was metered covers this time. None where nothing was.
    pub metered: Option<Period>,
    /// By the UTC month in which the charged time began; the key is the month's first moment.
    pub months: BTreeMap<Timestamp, MonthCosts>,
}

/// What an instance was charged in a month, by the class of the charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MonthCosts {
    /// Of class `Usage`.
    pub usage: Usd,
    /// Of class `Correction`.
    pub correction: Usd,
}

impl Reader {
    /// What each instance was charged, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn instance_costs(
        &self,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<InstanceCosts>, StoreError> {
        let mut select = Select::new("SELECT body, id FROM instances");
        select.after("id", after);
        let Page { rows: instances, next } =
            self.page(select, limit, |row| Ok((rows::json::<Instance>(row, 0)?, row.get(1)?)))?;
        let mut costs: Vec<InstanceCosts> = instances.into_iter().map(InstanceCosts::of).collect();
        if let [first, ..] = &costs[..]
            && let [.., last] = &costs[..]
        {
            let ids = (rows::number(first.instance), rows::number(last.instance));
            self.with(|connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT instance, \
                            1000 * CAST(strftime('%s', since / 1000, 'unixepoch', 'start of month') AS INTEGER) \
                                AS month, \
                            sum(iif(correction, 0, contracted)), sum(iif(correction, contracted, 0)), \
                            min(iif(correction, NULL, since)), max(iif(correction, NULL, until)) \
                     FROM charges JOIN charge_lines ON charge = seq \
                     WHERE instance BETWEEN ?1 AND ?2 GROUP BY instance, month ORDER BY instance",
                )?;
                let mut sums = statement.query(ids)?;
                let mut of = costs.iter_mut();
                let mut found = of.next();
                while let Some(row) = sums.next()? {
                    let instance: InstanceId = rows::id(row.get(0)?);
                    // Both are in the order of ids, and every charge has its instance.
                    while found.as_ref().is_some_and(|found| found.instance < instance) {
                        found = of.next();
                    }
                    if let Some(found) = found.as_mut().filter(|found| found.instance == instance) {
                        found.add(row)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(Page { rows: costs, next })
    }
}

impl InstanceCosts {
    /// Nothing was charged so far.
    fn of(instance: Instance) -> Self {
        Self {
            gone: !instance.is_live(),
            instance: instance.id,
            cloud_id: instance.cloud_id,
            provider: instance.offering.provider,
            metered: None,
            months: BTreeMap::new(),
        }
    }

    /// Adds the sums of a month.
    fn add(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        let month = Timestamp::from_millis(row.get(1)?);
        let costs =
            MonthCosts { usage: Usd::from_nanos(row.get(2)?), correction: Usd::from_nanos(row.get(3)?) };
        self.months.insert(month, costs);
        if let (Some(from), Some(to)) = (row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?) {
            let (from, to) = (Timestamp::from_millis(from), Timestamp::from_millis(to));
            let known = self.metered.unwrap_or_else(|| Period::new(from, to));
            self.metered = Some(Period::new(known.from.min(from), known.to.max(to)));
        }
        Ok(())
    }
}
