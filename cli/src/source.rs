//! Where reading commands read: the daemon, or the store of a daemon that is down.

use std::{collections::BTreeMap, sync::Arc};

use bursar_config::Config;
use bursar_daemon::{
    http::dimensions,
    serve::store_path,
    views::{
        AllocationView, BudgetView, ExperimentDetail, ExperimentView, InstanceView, List, ReportView,
        SweepView, Views,
    },
};
use bursar_model::{InstanceId, SweepId};
use bursar_store::{Cursor, ExperimentFilter, Reader, ReportFilter, ReportQuery, SweepFilter};

use crate::{
    client::Client,
    exit::{Failure, NOT_FOUND, UNREACHABLE, USAGE},
    output::note,
};

/// Rows of one page.
const PAGE: u32 = 1000;

/// Answers to reading commands.
#[derive(Debug)]
pub(crate) enum Source {
    /// A daemon that answers.
    Daemon(Client),
    /// The store of one that does not.
    Store(Views),
}

/// Which experiments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) state: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) sweep: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) live: bool,
}

/// Which costs.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReportWanted {
    pub(crate) by: String,
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) experiment: Option<String>,
    pub(crate) sweep: Option<String>,
    pub(crate) project: Option<String>,
}

impl Source {
    /// The daemon if it answers, else its store if that is on this machine.
    pub(crate) async fn find(client: Client, config: &Config, is_local: bool) -> Result<Self, Failure> {
        let unreachable = match client.get::<bursar_daemon::http::Health>("/v1/health", &[]).await {
            Ok(_) => return Ok(Self::Daemon(client)),
            Err(failure) if failure.code == UNREACHABLE && is_local => failure,
            Err(failure) => return Err(failure),
        };
        let path = store_path(config);
        if !path.is_file() {
            return Err(unreachable);
        }
        note(&format!("note: no daemon at {}; reading {}", client.url(), path.display()));
        Ok(Self::Store(Views::new(Reader::open(&path)?, Arc::new(BTreeMap::new()))))
    }

    /// Experiments, the newest first, at most `limit`.
    pub(crate) async fn experiments(
        &self,
        wanted: &Wanted,
        limit: usize,
    ) -> Result<Vec<ExperimentView>, Failure> {
        let Wanted { state, project, sweep, user, text, live } = wanted;
        match self {
            Self::Daemon(client) => {
                let mut query = vec![("live", live.to_string())];
                for (key, value) in
                    [("state", state), ("project", project), ("sweep", sweep), ("user", user), ("text", text)]
                {
                    query.extend(value.clone().map(|value| (key, value)));
                }
                pages(client, "/v1/experiments", query, limit).await
            }
            Self::Store(views) => {
                let sweep = match sweep {
                    Some(named) => Some(find_sweep(views, named)?.id),
                    None => None,
                };
                let filter = ExperimentFilter {
                    state: state.clone(),
                    project: project.as_deref().map(Into::into),
                    sweep,
                    user: user.as_deref().map(Into::into),
                    name: None,
                    text: text.clone(),
                    ids: Vec::new(),
                    live_only: *live,
                };
                all(limit, |after, page| Ok(views.experiments(&filter, after, page)?))
            }
        }
    }

    /// One experiment by id or name.
    pub(crate) async fn experiment(&self, named: &str) -> Result<ExperimentDetail, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/experiments/{}", segment(named)), &[]).await,
            Self::Store(views) => {
                let missing = || Failure::new(NOT_FOUND, format!("there is no experiment `{named}`"));
                let id = views.reader().resolve(named)?.into_iter().next().ok_or_else(missing)?;
                views.experiment(id)?.ok_or_else(missing)
            }
        }
    }

    /// Sweeps, the newest first.
    pub(crate) async fn sweeps(&self, limit: usize) -> Result<Vec<SweepView>, Failure> {
        match self {
            Self::Daemon(client) => pages(client, "/v1/sweeps", Vec::new(), limit).await,
            Self::Store(views) => {
                all(limit, |after, page| Ok(views.sweeps(&SweepFilter::default(), after, page)?))
            }
        }
    }

    /// One sweep by id or name.
    pub(crate) async fn sweep(&self, named: &str) -> Result<SweepView, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/sweeps/{}", segment(named)), &[]).await,
            Self::Store(views) => find_sweep(views, named),
        }
    }

    /// Instances, the newest first.
    pub(crate) async fn instances(&self, live: bool, limit: usize) -> Result<Vec<InstanceView>, Failure> {
        match self {
            Self::Daemon(client) => {
                pages(client, "/v1/instances", vec![("live", live.to_string())], limit).await
            }
            Self::Store(views) => all(limit, |after, page| Ok(views.instances(live, after, page)?)),
        }
    }

    /// Who paid for an instance and for what.
    pub(crate) async fn allocations(&self, instance: InstanceId) -> Result<Vec<AllocationView>, Failure> {
        match self {
            Self::Daemon(client) => client.get(&format!("/v1/instances/{instance}/allocations"), &[]).await,
            Self::Store(views) => Ok(views.allocations(instance)?),
        }
    }

    /// Budgets.
    pub(crate) async fn budgets(&self) -> Result<Vec<BudgetView>, Failure> {
        match self {
            Self::Daemon(client) => client.get("/v1/budgets", &[]).await,
            Self::Store(views) => Ok(views.budgets()?),
        }
    }

    /// What was spent.
    pub(crate) async fn report(&self, wanted: &ReportWanted) -> Result<ReportView, Failure> {
        let ReportWanted { by, since, until, experiment, sweep, project } = wanted;
        match self {
            Self::Daemon(client) => {
                let mut query = vec![("by", by.clone())];
                for (key, value) in [
                    ("since", since),
                    ("until", until),
                    ("experiment", experiment),
                    ("sweep", sweep),
                    ("project", project),
                ] {
                    query.extend(value.clone().map(|value| (key, value)));
                }
                client.get("/v1/report", &query).await
            }
            Self::Store(views) => {
                let usage = |error: String| Failure::new(USAGE, error);
                let moment = |text: &Option<String>| {
                    text.as_deref().map(str::parse).transpose().map_err(|error| usage(format!("{error}")))
                };
                let filter = ReportFilter {
                    experiment: match experiment {
                        Some(named) => Some(self.experiment_id(views, named)?),
                        None => None,
                    },
                    sweep: match sweep {
                        Some(named) => Some(find_sweep(views, named)?.id),
                        None => None,
                    },
                    project: project.as_deref().map(Into::into),
                    ..ReportFilter::default()
                };
                let query = ReportQuery {
                    by: dimensions(by).map_err(usage)?,
                    since: moment(since)?,
                    until: moment(until)?,
                    filter,
                };
                Ok(views.report(&query)?)
            }
        }
    }

    fn experiment_id(&self, views: &Views, named: &str) -> Result<bursar_model::ExperimentId, Failure> {
        let found = views.reader().resolve(named)?;
        found
            .first()
            .copied()
            .ok_or_else(|| Failure::new(NOT_FOUND, format!("there is no experiment `{named}`")))
    }
}

fn find_sweep(views: &Views, named: &str) -> Result<SweepView, Failure> {
    let found = match named.parse::<SweepId>() {
        Ok(id) => views.sweep(id)?,
        Err(_) => {
            let filter = SweepFilter { name: Some(named.to_owned()), ..SweepFilter::default() };
            views.sweeps(&filter, None, 1)?.rows.into_iter().next()
        }
    };
    found.ok_or_else(|| Failure::new(NOT_FOUND, format!("there is no sweep `{named}`")))
}

async fn pages<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    query: Vec<(&'static str, String)>,
    limit: usize,
) -> Result<Vec<T>, Failure> {
    let mut rows = Vec::new();
    let mut after: Option<String> = None;
    // Ends at the limit, or where a page says that none follows.
    while rows.len() < limit {
        let page = (limit - rows.len()).min(PAGE as usize);
        let mut query = query.clone();
        query.push(("limit", page.to_string()));
        query.extend(after.take().map(|after| ("after", after)));
        let List { rows: mut found, next } = client.get(path, &query).await?;
        rows.append(&mut found);
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(rows)
}

fn all<T>(
    limit: usize,
    mut read: impl FnMut(Option<Cursor>, u32) -> Result<List<T>, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    // Ends at the limit, or where a page says that none follows.
    while rows.len() < limit {
        let page = (limit - rows.len()).min(PAGE as usize) as u32;
        let List { rows: mut found, next } = read(after, page)?;
        rows.append(&mut found);
        match next.and_then(|next| next.parse().ok()) {
            Some(next) => after = Some(Cursor(next)),
            None => break,
        }
    }
    Ok(rows)
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
