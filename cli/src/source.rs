//! Where reading commands read: the daemon, or the store of a daemon that is down.

use std::{collections::BTreeMap, sync::Arc};

use bursar_config::Config;
use bursar_daemon::{
    clock::SystemClock,
    http::Health,
    logs::Logs,
    reports::{html, markdown},
    serve::store_path,
    views::{
        AllocationView, BudgetView, ExperimentDetail, ExperimentView, InstanceView, List, ListWanted,
        MetricsView, MetricsWanted, NotificationView, ReportView, ReportWanted, SweepView, ViewError, Views,
    },
};
use bursar_ledger::bill::OwnCost;
use bursar_model::{Clock, InstanceId};
use bursar_store::Reader;
use serde::de::DeserializeOwned;

use crate::{
    client::Client,
    exit::{FAILED, Failure, NOT_FOUND, UNREACHABLE, USAGE},
    output::note,
};

/// Rows of one page.
const PAGE: usize = 1000;

/// Answers to reading commands.
#[derive(Debug)]
pub(crate) enum Source {
    /// A daemon that answers.
    Daemon(Client),
    /// The store of one that does not.
    Store(Views),
}

/// The first rows of a list.
#[derive(Debug)]
pub(crate) struct Rows<T> {
    /// As many as were wanted, or all.
    pub(crate) rows: Vec<T>,
    /// There are others.
    pub(crate) more: bool,
}

impl Source {
    /// The daemon if it answers, else its store if that is on this machine.
    pub(crate) async fn find(client: Client, config: &Config, is_local: bool) -> Result<Self, Failure> {
        let unreachable = match client.get::<Health>("/v1/health").await {
            Ok(_) => return Ok(Self::Daemon(client)),
            Err(failure) if failure.code == UNREACHABLE && is_local => failure,
            Err(failure) => return Err(failure),
        };
        let path = store_path(config);
        if !path.is_file() {
            return Err(unreachable);
        }
        note(&format!("note: no daemon at {}; reading {}", client.url(), path.display()));
        Ok(Self::Store(Views::new(Reader::open(&path)?, Arc::new(BTreeMap::new()), SystemClock.now())))
    }

    /// Experiments, the newest first, at most `limit`.
    pub(crate) async fn experiments(
        &self,
        wanted: ListWanted,
        limit: usize,
    ) -> Result<Rows<ExperimentView>, Failure> {
        self.rows("/v1/experiments", Views::experiments, wanted, limit).await
    }

    /// One experiment by id or name.
    pub(crate) async fn experiment(&self, named: &str) -> Result<ExperimentDetail, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/experiments/{}", segment(named))).await,
            Self::Store(views) => views.find_experiment(named).map_err(failure),
        }
    }

    /// An experiment's metrics over time. Those of a daemon that is down lie beside its store.
    pub(crate) async fn metrics(
        &self,
        detail: &ExperimentDetail,
        wanted: &MetricsWanted,
        config: &Config,
    ) -> Result<MetricsView, Failure> {
        match self {
            Self::Daemon(client) => {
                client.ask(&format!("/v1/experiments/{}/metrics", detail.experiment.id), wanted).await
            }
            Self::Store(_) => {
                let logs = Logs::new(&store_path(config).with_file_name("logs"))?;
                Ok(MetricsView::read(&logs, detail, wanted)?)
            }
        }
    }

    /// Sweeps, the newest first.
    pub(crate) async fn sweeps(&self, limit: usize) -> Result<Rows<SweepView>, Failure> {
        self.rows("/v1/sweeps", Views::sweeps, ListWanted::default(), limit).await
    }

    /// One sweep by id or name.
    pub(crate) async fn sweep(&self, named: &str) -> Result<SweepView, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/sweeps/{}", segment(named))).await,
            Self::Store(views) => views.find_sweep(named).map_err(failure),
        }
    }

    /// Instances, the newest first.
    pub(crate) async fn instances(&self, live: bool, limit: usize) -> Result<Rows<InstanceView>, Failure> {
        let wanted = ListWanted { live, ..ListWanted::default() };
        self.rows("/v1/instances", Views::instances, wanted, limit).await
    }

    /// One instance.
    pub(crate) async fn instance(&self, id: InstanceId) -> Result<InstanceView, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/instances/{id}")).await,
            Self::Store(views) => views.instance(id).map_err(failure),
        }
    }

    /// Who paid for an instance and for what.
    pub(crate) async fn allocations(&self, instance: InstanceId) -> Result<Vec<AllocationView>, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/instances/{instance}/allocations")).await,
            Self::Store(views) => Ok(views.allocations(instance)?),
        }
    }

    /// What each instance was charged as a bill would say it.
    pub(crate) async fn own_costs(&self) -> Result<Vec<OwnCost>, Failure> {
        Ok(self.rows("/v1/reconcile", Views::own_costs, ListWanted::default(), usize::MAX).await?.rows)
    }

    /// Budgets.
    pub(crate) async fn budgets(&self) -> Result<Vec<BudgetView>, Failure> {
        match self {
            Self::Daemon(client) => client.get("/v1/budgets").await,
            Self::Store(views) => Ok(views.budgets()?),
        }
    }

    /// Notifications, the newest first.
    pub(crate) async fn notifications(
        &self,
        wanted: ListWanted,
        limit: usize,
    ) -> Result<Rows<NotificationView>, Failure> {
        self.rows("/v1/notifications", Views::notifications, wanted, limit).await
    }

    /// What was spent.
    pub(crate) async fn report(&self, wanted: &ReportWanted) -> Result<ReportView, Failure> {
        match self {
            Self::Daemon(client) => client.ask("/v1/report", wanted).await,
            Self::Store(views) => views.report(wanted).map_err(failure),
        }
    }

    /// What was spent, as a page.
    pub(crate) async fn report_html(
        &self,
        wanted: &ReportWanted,
        installation: &str,
    ) -> Result<String, Failure> {
        match self {
            Self::Daemon(client) => client.text("/v1/report.html", wanted).await,
            Self::Store(views) => Ok(html(&views.spend_report(wanted, installation).map_err(failure)?)),
        }
    }

    /// What was spent, as markdown.
    pub(crate) async fn report_markdown(
        &self,
        wanted: &ReportWanted,
        installation: &str,
    ) -> Result<String, Failure> {
        match self {
            Self::Daemon(client) => client.text("/v1/report.md", wanted).await,
            Self::Store(views) => Ok(markdown(&views.spend_report(wanted, installation).map_err(failure)?)),
        }
    }

    /// Reads pages until there are enough rows or no more.
    async fn rows<T: DeserializeOwned>(
        &self,
        path: &str,
        read: fn(&Views, &ListWanted) -> Result<List<T>, ViewError>,
        mut wanted: ListWanted,
        limit: usize,
    ) -> Result<Rows<T>, Failure> {
        let mut rows = Vec::new();
        // Ends at the limit, or where a page says that none follows.
        loop {
            wanted.limit = Some((limit - rows.len()).min(PAGE) as u32);
            let List { rows: mut found, next } = match self {
                Self::Daemon(client) => client.ask(path, &wanted).await?,
                Self::Store(views) => read(views, &wanted).map_err(failure)?,
            };
            rows.append(&mut found);
            wanted.after = next;
            let more = wanted.after.is_some();
            if !more || rows.len() >= limit {
                return Ok(Rows { rows, more });
            }
        }
    }
}

/// What the store's answer means to a shell, as the daemon's means by its status.
pub(crate) fn failure(error: ViewError) -> Failure {
    let code = match &error {
        ViewError::Missing { .. } | ViewError::IsSweep(_) => NOT_FOUND,
        ViewError::Malformed(_) => USAGE,
        ViewError::Ambiguous { .. } => FAILED,
        ViewError::Store(_) => return error.into(),
    };
    Failure::new(code, error.to_string())
}

/// A name as one segment of a path: everything but letters, digits and a few marks is escaped.
pub(crate) fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
