//! Budgets with what has become of them and where they lead.

use std::collections::BTreeMap;

use bursar_ledger::{BurnDown, Spending};
use bursar_model::{Budget, BudgetKey, ExperimentId, Period, Span, SweepId, Timestamp, Usd};
use bursar_store::{ChargeFilter, ReportFilter, SeriesUnit, StoreError};

use super::{
    Views,
    shapes::{BudgetView, budget_view},
};

/// Budgets whose spending is forecast, the widest first. Each costs a question to the store; a person reads fewer.
const FORECASTS_MAX: usize = 200;

/// How far back a forecast looks (see `bursar_ledger::forecast`), and the day that is not over yet.
const FORECAST_LOOK_BACK: Span = Span::from_hours(8 * 24);

const DAY: Span = Span::from_hours(24);

impl Views {
    /// Budgets, the widest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn budgets(&self) -> Result<Vec<BudgetView>, StoreError> {
        let budgets = self.reader.budgets()?;
        let names = self.names_of_work(&budgets)?;
        let began = self.first_charge()?;
        let mut forecasts_left = FORECASTS_MAX;
        let mut views = Vec::with_capacity(budgets.len());
        for (key, budget) in &budgets {
            let can_be_forecast = forecasts_left > 0 && budget.limit().is_some() && budget.spent > Usd::ZERO;
            let forecast = match began {
                Some(began) if can_be_forecast => {
                    forecasts_left -= 1;
                    Some(self.forecast(key, budget, began)?)
                }
                Some(_) | None => None,
            };
            views.push(budget_view(key, budget, names.get(key).cloned(), forecast.as_ref()));
        }
        Ok(views)
    }

    /// One budget; without limit and spending where nobody knows it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn budget(&self, key: &BudgetKey) -> Result<BudgetView, StoreError> {
        let known = [(key.clone(), self.reader.budget(key)?.unwrap_or_default())];
        let mut names = self.names_of_work(&known)?;
        let [(_, budget)] = known;
        let forecast = match self.first_charge()? {
            Some(began) if budget.limit().is_some() => Some(self.forecast(key, &budget, began)?),
            Some(_) | None => None,
        };
        Ok(budget_view(key, &budget, names.remove(key), forecast.as_ref()))
    }

    /// Where the spending of a budget leads, by what was charged lately.
    pub(crate) fn forecast(
        &self,
        key: &BudgetKey,
        budget: &Budget,
        began: Timestamp,
    ) -> Result<BurnDown, StoreError> {
        // Whole days are added up already. Before the first charge there is nothing.
        let recent = self.spend_by_day(key, day_of(began.max(self.now - FORECAST_LOOK_BACK)), began)?;
        Ok(BurnDown::of(&Spending {
            limit: budget.limit(),
            spent: budget.spent,
            held: budget.held,
            window: budget.window,
            recent: &recent,
            since: began,
            now: self.now,
        }))
    }

    /// What was charged to a budget on each day (UTC) from `from` on, in order and without the days on which nothing was.
    /// The first day of all begins with the first charge: an installation of an hour has no whole day behind it.
    pub(crate) fn spend_by_day(
        &self,
        key: &BudgetKey,
        from: Timestamp,
        began: Timestamp,
    ) -> Result<Vec<(Period, Usd)>, StoreError> {
        let days = self.reader.spend_series(&ReportFilter::of(key), Some(from), None, SeriesUnit::Day)?;
        let within =
            |(day, amount): (Period, Usd)| (Period::new(day.from.max(from).max(began), day.to), amount);
        Ok(days.into_iter().map(within).collect())
    }

    /// When the first charge of all begins: from then on the record is complete.
    pub(crate) fn first_charge(&self) -> Result<Option<Timestamp>, StoreError> {
        let first = self.reader.charges(&ChargeFilter::default(), None, 1)?;
        Ok(first.rows.first().map(|row| row.charge.period.from))
    }

    /// What people call the sweeps and experiments that budgets are for.
    fn names_of_work(
        &self,
        budgets: &[(BudgetKey, Budget)],
    ) -> Result<BTreeMap<BudgetKey, String>, StoreError> {
        let mut names = BTreeMap::new();
        let mut experiments: Vec<ExperimentId> = Vec::new();
        for (key, _) in budgets {
            match key {
                BudgetKey::Installation | BudgetKey::Project(_) | BudgetKey::User(_) => {}
                BudgetKey::Sweep(id) => {
                    let id: SweepId = *id;
                    if let Some(row) = self.reader.sweep(id)? {
                        names.insert(key.clone(), row.sweep.name.to_string());
                    }
                }
                BudgetKey::Experiment(id) => experiments.push(*id),
            }
        }
        for row in self.experiments_of_ids(experiments)? {
            names.insert(BudgetKey::Experiment(row.experiment.id), row.experiment.name.to_string());
        }
        Ok(names)
    }
}

/// The beginning of a moment's day (UTC).
pub(crate) fn day_of(at: Timestamp) -> Timestamp {
    let day = DAY.as_millis();
    Timestamp::from_millis(at.as_millis().div_euclid(day) * day)
}
