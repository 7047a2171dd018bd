//! What people and programs are shown: the API's answers, made from the store alone, so that the command line can show
//! the same from the store of a daemon that is down.

mod budgets;
mod find;
mod metrics;
mod moments;
mod notifications;
mod past;
mod progress;
mod shapes;
mod uncharged;

use std::{collections::BTreeMap, sync::Arc};

use bursar_ledger::bill::OwnCost;
use bursar_model::{BudgetKey, Category, ExperimentId, InstanceId, Node, SweepId, Timestamp, Usd, WaitingOn};
use bursar_store::{
    ChargeFilter, Dimension, ExperimentFilter, ExperimentRow, InstanceFilter, Reader, ReportFilter,
    ReportQuery, StoreError, SweepFilter,
};

pub(crate) use self::budgets::day_of;
use self::shapes::{
    attempt_view, experiment_view, instance_view, list, no_cost, own_cost, report_line, sweep_view,
};
pub use self::{
    find::{ListWanted, ReportWanted, ViewError, time_range},
    metrics::{MetricsView, MetricsWanted, SeriesView},
    notifications::{NotificationView, failing_webhooks},
    progress::Progress,
    shapes::{
        AllocationView, AshaView, AttemptView, BestView, BudgetView, ExperimentDetail, ExperimentView,
        InstanceView, List, NodeView, ReportLine, ReportView, RungView, SweepView, budget_name,
    },
    uncharged::Uncharged,
};

/// Answers from the store, with what the newest plan says of those who wait.
#[derive(Debug, Clone)]
pub struct Views {
    reader: Reader,
    waiting: Arc<BTreeMap<ExperimentId, WaitingOn>>,
    now: Timestamp,
}

impl Views {
    /// Views on this store at this time. `waiting` is empty where no daemon runs.
    #[must_use]
    pub fn new(reader: Reader, waiting: Arc<BTreeMap<ExperimentId, WaitingOn>>, now: Timestamp) -> Self {
        Self { reader, waiting, now }
    }

    /// The time at which it is seen.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What they read.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Experiments, the newest first.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn experiments(&self, wanted: &ListWanted) -> Result<List<ExperimentView>, ViewError> {
        let filter = ExperimentFilter {
            state: wanted.state.clone(),
            project: wanted.project.as_deref().map(Into::into),
            sweep: self.wanted_sweep(wanted.sweep.as_deref())?,
            user: wanted.user.as_deref().map(Into::into),
            name: wanted.name.clone(),
            text: wanted.text.clone(),
            ids: Vec::new(),
            live_only: wanted.live,
        };
        let page = self.reader.experiments(&filter, wanted.cursor()?, wanted.page())?;
        Ok(list(page, |row| {
            let waiting = self.waiting.get(&row.experiment.id);
            experiment_view(row, waiting)
        }))
    }

    /// One experiment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn experiment(&self, id: ExperimentId) -> Result<Option<ExperimentDetail>, StoreError> {
        let Some(row) = self.reader.experiment(id)? else { return Ok(None) };
        let mut attempts = Vec::new();
        for attempt in self.reader.attempts_of(id)? {
            let mut nodes = Vec::with_capacity(attempt.nodes.len());
            for Node { instance, devices, .. } in &attempt.nodes {
                let on = self.reader.instance(*instance)?;
                let offering = on.map(|on| on.offering.key().to_string());
                nodes.push(NodeView { instance: *instance, offering, devices: devices.clone() });
            }
            attempts.push(attempt_view(attempt, nodes));
        }
        let filter = ReportFilter { experiment: Some(id), ..ReportFilter::default() };
        let cost_by_category = self
            .reader
            .report(&ReportQuery { filter, ..ReportQuery::default() })?
            .pop()
            .map(|row| row.by_category.costs().collect())
            .unwrap_or_default();
        let spec = row.spec.clone();
        let budget = self.reader.budget(&BudgetKey::Experiment(id))?.and_then(|budget| budget.limit());
        let uncharged = uncharged::uncharged(id, &self.reader.instances_paid_by(id)?, self.now);
        let experiment = experiment_view(row, self.waiting.get(&id));
        let progress = progress::progress(&experiment, &attempts, self.now);
        Ok(Some(ExperimentDetail {
            experiment,
            spec,
            attempts,
            cost_by_category,
            uncharged,
            budget,
            progress,
        }))
    }

    /// Sweeps, the newest first.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn sweeps(&self, wanted: &ListWanted) -> Result<List<SweepView>, ViewError> {
        let filter = SweepFilter {
            project: wanted.project.as_deref().map(Into::into),
            name: wanted.name.clone(),
            live_only: wanted.live,
        };
        Ok(list(self.reader.sweeps(&filter, wanted.cursor()?, wanted.page())?, sweep_view))
    }

    /// One sweep.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sweep(&self, id: SweepId) -> Result<Option<SweepView>, StoreError> {
        Ok(self.reader.sweep(id)?.map(sweep_view))
    }

    /// Instances, the newest first.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn instances(&self, wanted: &ListWanted) -> Result<List<InstanceView>, ViewError> {
        let filter = InstanceFilter { live_only: wanted.live };
        Ok(list(self.reader.instances(&filter, wanted.cursor()?, wanted.page())?, instance_view))
    }

    /// One instance.
    ///
    /// # Errors
    /// When there is none or the store cannot be read.
    pub fn instance(&self, id: InstanceId) -> Result<InstanceView, ViewError> {
        let found = self.reader.instance(id)?;
        found.map(instance_view).ok_or_else(|| ViewError::missing("instance", &id.to_string()))
    }

    /// What each instance was charged as a bill would say it, the oldest first: what a bill is compared with.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn own_costs(&self, wanted: &ListWanted) -> Result<List<OwnCost>, ViewError> {
        Ok(list(self.reader.instance_costs(wanted.cursor()?, wanted.page())?, own_cost))
    }

    /// What was spent, by what was asked for.
    ///
    /// # Errors
    /// When the wish makes no sense or the store cannot be read.
    pub fn report(&self, wanted: &ReportWanted) -> Result<ReportView, ViewError> {
        let query = self.report_query(wanted)?;
        let mut rows: Vec<ReportLine> = self.reader.report(&query)?.into_iter().map(report_line).collect();
        if query.by == [Dimension::Experiment] {
            let ids = rows.iter().filter_map(|row| row.keys.first()?.parse().ok()).collect();
            let known = self.experiments_of_ids(ids)?.into_iter();
            let expected: BTreeMap<String, Usd> = known
                .filter_map(|row| Some((row.experiment.id.to_string(), row.experiment.expected?.expected)))
                .collect();
            for row in &mut rows {
                row.expected_cost = row.keys.first().and_then(|key| expected.get(key)).copied();
            }
        }
        let names = self.names(&query.by, &rows)?;
        let by = query.by.iter().map(ToString::to_string).collect();
        let total = self.reader.report(&ReportQuery { by: Vec::new(), ..query })?;
        let total = total.into_iter().next().map_or_else(no_cost, report_line);
        Ok(ReportView { by, rows, total, names })
    }

    /// Who paid for an instance and for what.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn allocations(&self, instance: InstanceId) -> Result<Vec<AllocationView>, StoreError> {
        let filter = ChargeFilter { instance: Some(instance), ..ChargeFilter::default() };
        let mut sums: BTreeMap<(ExperimentId, Category), Usd> = BTreeMap::new();
        let mut after = None;
        // Ends because every page moves on; an instance has a few charges a lease.
        loop {
            let page = self.reader.charges(&filter, after, 1000)?;
            for line in page.rows.iter().flat_map(|row| &row.charge.lines) {
                *sums.entry((line.payer, line.category)).or_default() += line.costs.effective;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(sums
            .into_iter()
            .filter(|(_, cost)| *cost != Usd::ZERO)
            .map(|((payer, category), cost)| AllocationView { payer, category, cost })
            .collect())
    }

    /// What people call the experiments and sweeps among a report's keys: ids alone say nothing to anybody.
    fn names(&self, by: &[Dimension], rows: &[ReportLine]) -> Result<BTreeMap<String, String>, StoreError> {
        let mut names = BTreeMap::new();
        for (index, dimension) in by.iter().enumerate() {
            let keys = rows.iter().filter_map(|row| row.keys.get(index));
            match dimension {
                Dimension::Experiment => {
                    let ids = keys.filter_map(|key| key.parse().ok()).collect();
                    let found = self.experiments_of_ids(ids)?.into_iter();
                    let name =
                        |row: ExperimentRow| (row.experiment.id.to_string(), row.experiment.name.to_string());
                    names.extend(found.map(name));
                }
                Dimension::Sweep => {
                    for key in keys {
                        let Ok(id) = key.parse() else { continue };
                        if !names.contains_key(key)
                            && let Some(row) = self.reader.sweep(id)?
                        {
                            names.insert(key.clone(), row.sweep.name.to_string());
                        }
                    }
                }
                Dimension::Label(_)
                | Dimension::Project
                | Dimension::User
                | Dimension::Provider
                | Dimension::Region
                | Dimension::InstanceType
                | Dimension::CapacityType
                | Dimension::Category
                | Dimension::Day
                | Dimension::Week
                | Dimension::Month => {}
            }
        }
        Ok(names)
    }

    /// The experiments of these ids, in no order.
    pub(crate) fn experiments_of_ids(
        &self,
        mut ids: Vec<ExperimentId>,
    ) -> Result<Vec<ExperimentRow>, StoreError> {
        /// As many as the store gives in one page.
        const AT_ONCE: usize = 1000;
        ids.sort_unstable();
        ids.dedup();
        let mut rows = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let filter = ExperimentFilter { ids: ids.to_vec(), ..ExperimentFilter::default() };
            rows.extend(self.reader.experiments(&filter, None, AT_ONCE as u32)?.rows);
        }
        Ok(rows)
    }
}
