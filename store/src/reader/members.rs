//! What the columns of the sums are of: days, accounts, experiments, places and categories, each in a list, so that a
//! row of a report's sums is a handful of small numbers; and what each of them is called along a dimension.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{Account, Category, SpecId, Timestamp};
use rusqlite::{Connection, OptionalExtension, types::Type};
use rustc_hash::FxHashMap;

use super::{
    report::{Dimension, ReportKey},
    sums::Sum,
};
use crate::sqlite::rows;

const DAY_MILLIS: i64 = 86_400_000;

/// Dimensions whose axes are kept for the next report; there is one for every label that anybody asks for.
const AXES_MAX: usize = 32;

/// A column of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Day,
    Account,
    Experiment,
    Place,
    Category,
}

impl Column {
    pub(super) const ALL: [Self; 5] =
        [Self::Day, Self::Account, Self::Experiment, Self::Place, Self::Category];
    pub(super) const COUNT: usize = Self::ALL.len();

    /// The column whose members have values along this dimension.
    pub(super) fn of(dimension: &Dimension) -> Self {
        match dimension {
            Dimension::Experiment | Dimension::Label(_) => Self::Experiment,
            Dimension::Sweep | Dimension::Project | Dimension::User => Self::Account,
            Dimension::Provider | Dimension::Region | Dimension::InstanceType | Dimension::CapacityType => {
                Self::Place
            }
            Dimension::Category => Self::Category,
            Dimension::Day | Dimension::Week | Dimension::Month => Self::Day,
        }
    }
}

/// The lists. A member's number never changes; lists only grow.
#[derive(Debug, Default)]
pub(super) struct Members {
    days: Numbered,
    experiments: Numbered,
    accounts: Vec<Account>,
    places: Vec<Place>,
    /// Of each experiment, as far as anybody asked.
    labels: Vec<Arc<BTreeMap<String, String>>>,
    labels_of_specs: FxHashMap<SpecId, Arc<BTreeMap<String, String>>>,
    axes: BTreeMap<Dimension, Arc<Axis>>,
}

/// Numbers in the order in which they were first met.
#[derive(Debug, Default)]
struct Numbered {
    members: Vec<i64>,
    found: FxHashMap<i64, u32>,
}

#[derive(Debug)]
struct Place {
    provider: Arc<str>,
    region: Arc<str>,
    instance_type: Arc<str>,
    capacity_type: Arc<str>,
}

/// A dimension over the members of a column: the values that they have along it.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) column: Column,
    /// Of each member, which of the keys is its value.
    pub(super) value_of: Vec<u32>,
    /// The values, rising.
    pub(super) keys: Vec<ReportKey>,
}

impl Axis {
    /// Which of the keys a row has.
    pub(super) fn value(&self, sum: &Sum) -> u32 {
        self.value_of[sum.members[self.column as usize] as usize]
    }
}

impl Members {
    /// Learns of accounts and places that are new. There are as many as there are sweeps, and kinds of machines in use.
    pub(super) fn read(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut accounts = connection
            .prepare_cached("SELECT id, project, user, sweep FROM accounts WHERE id > ?1 ORDER BY id")?;
        let mut found = accounts.query([self.accounts.len() as i64])?;
        while let Some(row) = found.next()? {
            expect_next(row.get(0)?, self.accounts.len())?;
            self.accounts.push(Account {
                project: row.get_ref(1)?.as_str()?.into(),
                user: row.get_ref(2)?.as_str()?.into(),
                sweep: row.get::<_, Option<i64>>(3)?.map(rows::id),
            });
        }
        let mut places = connection.prepare_cached(
            "SELECT id, provider, region, instance_type, capacity_type FROM places WHERE id > ?1 ORDER BY id",
        )?;
        let mut found = places.query([self.places.len() as i64])?;
        while let Some(row) = found.next()? {
            expect_next(row.get(0)?, self.places.len())?;
            let text = |column: usize| Ok::<_, rusqlite::Error>(Arc::from(row.get_ref(column)?.as_str()?));
            self.places.push(Place {
                provider: text(1)?,
                region: text(2)?,
                instance_type: text(3)?,
                capacity_type: text(4)?,
            });
        }
        Ok(())
    }

    /// Which member of a column this number stands for; `None` where there is no such.
    pub(super) fn member(&mut self, column: Column, number: i64) -> Option<u32> {
        let among =
            |len: usize, index: i64| u32::try_from(index).ok().filter(|index| (*index as usize) < len);
        match column {
            Column::Day => Some(self.days.member(number)),
            Column::Experiment => Some(self.experiments.member(number)),
            Column::Account => among(self.accounts.len(), number - 1),
            Column::Place => among(self.places.len(), number - 1),
            Column::Category => among(Category::ALL.len(), number),
        }
    }

    /// Of each day, whether it is one of these.
    pub(super) fn days_within(&self, days: Option<(i64, i64)>) -> Vec<bool> {
        let within = |day: &i64| days.is_some_and(|(first, end)| (first..end).contains(day));
        self.days.members.iter().map(within).collect()
    }

    /// The values of the members along a dimension.
    pub(super) fn axis(
        &mut self,
        connection: &Connection,
        dimension: &Dimension,
    ) -> rusqlite::Result<Arc<Axis>> {
        let column = Column::of(dimension);
        let len = match column {
            Column::Day => self.days.members.len(),
            Column::Experiment => self.experiments.members.len(),
            Column::Account => self.accounts.len(),
            Column::Place => self.places.len(),
            Column::Category => Category::ALL.len(),
        };
        if let Some(axis) = self.axes.get(dimension)
            && axis.value_of.len() == len
        {
            return Ok(axis.clone());
        }
        if matches!(dimension, Dimension::Label(_)) {
            self.read_labels(connection)?;
        }
        let mut keyed: Vec<_> = (0..len).map(|member| (self.key(dimension, member), member)).collect();
        keyed.sort_unstable();
        let (mut keys, mut value_of) = (Vec::<ReportKey>::new(), vec![0; len]);
        for (key, member) in keyed {
            if keys.last() != Some(&key) {
                keys.push(key);
            }
            value_of[member] = keys.len() as u32 - 1;
        }
        let axis = Arc::new(Axis { column, value_of, keys });
        if self.axes.len() >= AXES_MAX {
            self.axes.clear();
        }
        self.axes.insert(dimension.clone(), axis.clone());
        Ok(axis)
    }

    fn key(&self, dimension: &Dimension, member: usize) -> ReportKey {
        let day = || Timestamp::from_millis(self.days.members[member] * DAY_MILLIS);
        let named = |name: &str| ReportKey::Name(name.into());
        match dimension {
            Dimension::Experiment => ReportKey::Experiment(rows::id(self.experiments.members[member])),
            Dimension::Sweep => self.accounts[member].sweep.map_or(ReportKey::Missing, ReportKey::Sweep),
            Dimension::Project => named(self.accounts[member].project.as_str()),
            Dimension::User => named(self.accounts[member].user.as_str()),
            Dimension::Provider => ReportKey::Name(self.places[member].provider.clone()),
            Dimension::Region => ReportKey::Name(self.places[member].region.clone()),
            Dimension::InstanceType => ReportKey::Name(self.places[member].instance_type.clone()),
            Dimension::CapacityType => ReportKey::Name(self.places[member].capacity_type.clone()),
            Dimension::Category => ReportKey::Category(Category::ALL[member]),
            Dimension::Day => ReportKey::Day(day()),
            Dimension::Week => ReportKey::week_of(day()),
            Dimension::Month => ReportKey::month_of(day()),
            Dimension::Label(label) => {
                self.labels[member].get(label).map_or(ReportKey::Missing, |value| named(value))
            }
        }
    }

    /// Learns the labels of experiments that are new. Asked for only where somebody asks for labels.
    fn read_labels(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut spec_of = connection.prepare_cached("SELECT spec FROM experiments WHERE id = ?1")?;
        for experiment in &self.experiments.members[self.labels.len()..] {
            let spec =
                spec_of.query_row([experiment], |row| row.get(0).map(SpecId::from_digest)).optional()?;
            let labels = match spec {
                None => Arc::default(),
                Some(spec) => match self.labels_of_specs.get(&spec) {
                    Some(known) => known.clone(),
                    None => {
                        let labels = rows::labels(connection, spec)?;
                        self.labels_of_specs.insert(spec, labels.clone());
                        labels
                    }
                },
            };
            self.labels.push(labels);
        }
        Ok(())
    }
}

impl Numbered {
    fn member(&mut self, number: i64) -> u32 {
        // Rows come sorted by most of their columns, so the newest is asked for again and again.
        if self.members.last() == Some(&number) {
            return self.members.len() as u32 - 1;
        }
        *self.found.entry(number).or_insert_with(|| {
            self.members.push(number);
            self.members.len() as u32 - 1
        })
    }
}

/// Numbers of accounts and places are given in order and never taken back.
fn expect_next(id: i64, before: usize) -> rusqlite::Result<()> {
    if id == before as i64 + 1 {
        return Ok(());
    }
    Err(rows::unreadable(0, Type::Integer, rusqlite::types::FromSqlError::OutOfRange(id)))
}
