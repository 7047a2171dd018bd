//! What people ask for, in their words: ids or names, dates, dimensions, cursors. Turned here, and nowhere else, into
//! what the store understands, so that the API and the command line mean the same by them.

use std::collections::BTreeMap;

use bursar_model::{BudgetKey, ExperimentId, SweepId, Timestamp};
use bursar_store::{Cursor, Dimension, ExperimentFilter, ReportFilter, ReportQuery, StoreError, SweepFilter};
use serde::{Deserialize, Serialize};

use super::{
    Views,
    moments::moment,
    shapes::{ExperimentDetail, SweepView, sweep_view},
};
use crate::inbox::CancelTarget;

/// Rows of a list where nobody says how many.
const PAGE_DEFAULT: u32 = 100;

/// Which rows of a list. What is not said does not matter; what a kind of row does not have is not looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListWanted {
    /// Experiments in this state.
    pub state: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// Trials of this sweep, by id or name.
    pub sweep: Option<String>,
    /// Experiments of this user.
    pub user: Option<String>,
    /// With this whole name.
    pub name: Option<String>,
    /// Experiments with this in their name.
    pub text: Option<String>,
    /// Only what is not over.
    pub live: bool,
    /// What follows this `next` of an earlier page.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Which costs, and by what they are added up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportWanted {
    /// Names of dimensions with commas between; the project where none is given.
    pub by: Option<String>,
    /// Charges that start then or later.
    pub since: Option<String>,
    /// Charges that start before.
    pub until: Option<String>,
    /// Of this experiment, by id or name.
    pub experiment: Option<String>,
    /// Of this sweep, by id or name.
    pub sweep: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// At this provider.
    pub provider: Option<String>,
    /// Of experiments whose spec has all of these labels: `KEY=VALUE` with commas between.
    pub label: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Nothing of that kind has this id or name.
    #[error("there is no {what} `{named}`")]
    Missing {
        /// Of which kind.
        what: &'static str,
        /// What was asked for.
        named: String,
    },
    /// One experiment was asked for.
    #[error("`{0}` is a sweep: name one of its trials, as `bursar ls --sweep {0}` shows them")]
    IsSweep(String),
    /// The question makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// A change was asked for, and which one is meant is anybody's guess.
    #[error("several that are not over are called `{named}`: say by its id which is meant: {}", .ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        named: String,
        /// What may be meant.
        ids: Vec<String>,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ViewError {
    pub(crate) fn missing(what: &'static str, named: &str) -> Self {
        Self::Missing { what, named: named.to_owned() }
    }
}

impl ListWanted {
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, ViewError> {
        let number = self.after.as_deref().map(str::parse).transpose();
        let number =
            number.map_err(|_| ViewError::Malformed("after: not a cursor of this list".to_owned()))?;
        Ok(number.map(Cursor))
    }

    pub(super) fn page(&self) -> u32 {
        self.limit.unwrap_or(PAGE_DEFAULT)
    }
}

impl Views {
    /// An experiment by its id, or the newest of that name.
    ///
    /// # Errors
    /// When there is none or the store cannot be read.
    pub fn find_experiment(&self, named: &str) -> Result<ExperimentDetail, ViewError> {
        let missing = || ViewError::missing("experiment", named);
        let found = self.experiment_id(named).and_then(|id| self.experiment(id)?.ok_or_else(missing));
        match found {
            Err(ViewError::Missing { .. }) if self.find_sweep(named).is_ok() => {
                Err(ViewError::IsSweep(named.to_owned()))
            }
            found => found,
        }
    }

    /// A sweep by its id, or the newest of that name.
    ///
    /// # Errors
    /// When there is none or the store cannot be read.
    pub fn find_sweep(&self, named: &str) -> Result<SweepView, ViewError> {
        let found = match named.parse::<SweepId>() {
            Ok(id) => self.reader.sweep(id)?,
            Err(_) => self.sweeps_named(named, false)?.into_iter().next(),
        };
        found.map(sweep_view).ok_or_else(|| ViewError::missing("sweep", named))
    }

    /// What a cancellation means: an experiment or a sweep by its id, or the only one of that name that is not over.
    /// Nothing where all of that name are over.
    ///
    /// Reading shows the newest of a name and says which that is; ending somebody's work on a guess cannot be undone.
    ///
    /// # Errors
    /// When there is none, when there are several, or when the store cannot be read.
    pub fn to_cancel(&self, named: &str) -> Result<Option<CancelTarget>, ViewError> {
        if let Ok(id) = named.parse::<SweepId>() {
            return self.find_sweep(named).map(|_| Some(CancelTarget::Sweep(id)));
        }
        if let Ok(id) = named.parse::<ExperimentId>() {
            return self.experiment_id(named).map(|_| Some(CancelTarget::Experiment(id)));
        }
        let experiments = self.live_experiments(named)?;
        let sweeps = self.sweeps_named(named, true)?.into_iter().map(|row| row.sweep.id);
        let (mut targets, mut ids) = (Vec::new(), Vec::new());
        for id in sweeps {
            targets.push(CancelTarget::Sweep(id));
            ids.push(id.to_string());
        }
        for id in experiments {
            targets.push(CancelTarget::Experiment(id));
            ids.push(id.to_string());
        }
        match targets.as_slice() {
            [only] => Ok(Some(*only)),
            [] if self.is_known(named)? => Ok(None),
            [] => Err(ViewError::missing("experiment or sweep", named)),
            _ => Err(ViewError::Ambiguous { named: named.to_owned(), ids }),
        }
    }

    pub(super) fn wanted_sweep(&self, named: Option<&str>) -> Result<Option<SweepId>, ViewError> {
        named.map(|named| Ok(self.find_sweep(named)?.id)).transpose()
    }

    /// The budget of this kind that somebody wants to change: that of a sweep or experiment by its id, or by a name that
    /// only one live one has. Of those that are over the newest is meant, of which the daemon says so.
    ///
    /// # Errors
    /// When there is none, when several live ones have that name, or when the store cannot be read.
    pub fn to_limit(&self, kind: &str, named: &str) -> Result<BudgetKey, ViewError> {
        match kind {
            "project" => Ok(BudgetKey::Project(named.into())),
            "user" => Ok(BudgetKey::User(named.into())),
            "sweep" => {
                let live = if named.parse::<SweepId>().is_ok() {
                    Vec::new()
                } else {
                    self.sweeps_named(named, true)?
                };
                let live = only(named, live.iter().map(|row| row.sweep.id))?;
                Ok(BudgetKey::Sweep(live.map_or_else(|| self.find_sweep(named).map(|sweep| sweep.id), Ok)?))
            }
            "experiment" => {
                let live = if named.parse::<ExperimentId>().is_ok() {
                    Vec::new()
                } else {
                    self.live_experiments(named)?
                };
                Ok(BudgetKey::Experiment(
                    only(named, live.into_iter())?.map_or_else(|| self.experiment_id(named), Ok)?,
                ))
            }
            _ => Err(ViewError::Malformed(format!(
                "`{kind}` has no budget: installation, project, user, sweep and experiment have"
            ))),
        }
    }

    fn live_experiments(&self, name: &str) -> Result<Vec<ExperimentId>, StoreError> {
        let filter =
            ExperimentFilter { name: Some(name.to_owned()), live_only: true, ..ExperimentFilter::default() };
        let found = self.reader.experiments(&filter, None, LIKELY_MAX)?.rows.into_iter();
        Ok(found.map(|row| row.experiment.id).collect())
    }

    pub(crate) fn report_query(&self, wanted: &ReportWanted) -> Result<ReportQuery, ViewError> {
        let ReportWanted { by, since, until, experiment, sweep, project, user, provider, label } = wanted;
        let experiment = experiment.as_deref().map(|named| self.experiment_id(named)).transpose()?;
        let (since, until) = time_range(since.as_deref(), until.as_deref(), self.now)?;
        Ok(ReportQuery {
            by: dimensions(by.as_deref().unwrap_or("project"))?,
            since,
            until,
            filter: ReportFilter {
                experiment,
                sweep: self.wanted_sweep(sweep.as_deref())?,
                project: project.as_deref().map(Into::into),
                user: user.as_deref().map(Into::into),
                provider: provider.as_deref().map(Into::into),
                labels: labels(label.as_deref().unwrap_or_default())?,
            },
        })
    }

    fn experiment_id(&self, named: &str) -> Result<ExperimentId, ViewError> {
        let found = self.reader.resolve(named)?;
        found.first().copied().ok_or_else(|| ViewError::missing("experiment", named))
    }

    pub(super) fn sweeps_named(
        &self,
        name: &str,
        live_only: bool,
    ) -> Result<Vec<bursar_store::SweepRow>, StoreError> {
        let filter = SweepFilter { name: Some(name.to_owned()), live_only, ..SweepFilter::default() };
        Ok(self.reader.sweeps(&filter, None, LIKELY_MAX)?.rows)
    }

    fn is_known(&self, name: &str) -> Result<bool, StoreError> {
        Ok(!self.reader.resolve(name)?.is_empty() || !self.sweeps_named(name, false)?.is_empty())
    }
}

/// Bearers of one name that are looked at; nobody reads a longer list to find the one that was meant.
const LIKELY_MAX: u32 = 20;

/// From when until when, as people write it at `now`.
///
/// # Errors
/// When either is no moment.
pub fn time_range(
    since: Option<&str>,
    until: Option<&str>,
    now: Timestamp,
) -> Result<(Option<Timestamp>, Option<Timestamp>), ViewError> {
    Ok((moment_of("since", since, now)?, moment_of("until", until, now)?))
}

fn moment_of(key: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, ViewError> {
    let read = |text| moment(text, now).map_err(|error| ViewError::Malformed(format!("{key}: {error}")));
    text.map(read).transpose()
}

/// The only one there is, if there is any.
fn only<T: Copy + ToString>(named: &str, found: impl Iterator<Item = T>) -> Result<Option<T>, ViewError> {
    let found: Vec<T> = found.collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => Err(ViewError::Ambiguous {
            named: named.to_owned(),
            ids: several.iter().map(ToString::to_string).collect(),
        }),
    }
}

fn dimensions(names: &str) -> Result<Vec<Dimension>, ViewError> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error| ViewError::Malformed(format!("by: {error}")))).collect()
}

fn labels(wanted: &str) -> Result<BTreeMap<String, String>, ViewError> {
    let wanted = wanted.split(',').map(str::trim).filter(|label| !label.is_empty());
    wanted
        .map(|label| {
            let (key, value) = label
                .split_once('=')
                .ok_or_else(|| ViewError::Malformed(format!("label: `{label}` is not KEY=VALUE")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}
