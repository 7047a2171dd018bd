//! Answers questions about everything, live and over, beside the writing and without ever delaying it.
//!
//! A reader has its own read-only connections and takes no lock: it works beside a running daemon as well as on the
//! store of one that is down.

mod experiments;
mod failed;
mod groups;
mod instance_costs;
mod integrity;
mod members;
mod money;
mod notifications;
mod report;
mod series;
mod sums;
mod walk;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, TryLockError},
    time::Duration,
};

use bursar_model::{Attempt, AttemptId, ExperimentId, Instance, InstanceId, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params_from_iter, types::Value};
use serde_json::value::RawValue;

use self::sums::Sums;
pub use self::{
    experiments::{ExperimentFilter, ExperimentRow, SweepFilter, SweepRow},
    instance_costs::{InstanceCosts, MonthCosts},
    integrity::Integrity,
    money::{ChargeFilter, ChargeRow},
    notifications::Peers,
    report::{ByCategory, Dimension, ReportFilter, ReportKey, ReportQuery, ReportRow, UnknownDimension},
    series::SeriesUnit,
    walk::{Payer, WalkedCharge, WalkedLine},
};
use crate::{
    StoreError,
    sqlite::{READER_CACHE_KIB, STATEMENTS_CACHED, check_is_ours, rows, unopenable},
};

/// Questions answered at once. More would not be quicker on the few cores beside the daemon, and each costs memory.
const CONNECTIONS_MAX: usize = 2;

/// A reader waits only for the recovery of the log of a killed daemon.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest page, so that no question holds a lot of memory or keeps the log from being copied back for long.
pub(crate) const PAGE_MAX: u32 = 1000;

/// Reads a store. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Opened when first needed.
    connections: [Mutex<Option<Connection>>; CONNECTIONS_MAX],
    /// Locked while a connection is, and never the other way round.
    sums: Mutex<Sums>,
}

/// Where the next page goes on. Comes out of a `Page`; its number means nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub i64);

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// At most as many as were asked for, and never more than 1000.
    pub rows: Vec<T>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Which instances.
#[derive(Debug, Clone, Default)]
pub struct InstanceFilter {
    /// Only those that may exist.
    pub live_only: bool,
}

/// One event of the journal.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    /// Its number: each is greater than the one before.
    pub seq: u64,
    /// When it was committed.
    pub at: Timestamp,
    /// The event as JSON, as it was written. Not parsed: an event of an older version is still to be shown.
    pub event: Box<RawValue>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Experiments that wait.
    pub queued: u64,
    /// Experiments that have an attempt.
    pub running: u64,
    /// All experiments ever.
    pub experiments: u64,
    /// Sweeps with open trials.
    pub live_sweeps: u64,
    /// Instances that may exist.
    pub live_instances: u64,
    /// The number of the newest event.
    pub newest_event: u64,
}

impl Reader {
    /// Opens a store for reading. Changes nothing, whether or not a daemon runs.
    ///
    /// # Errors
    /// When there is no store, or it is not ours or from a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let reader = Self::beside(path);
        reader.with(|_| Ok(()))?;
        Ok(reader)
    }

    /// A reader of a store that is known to be good. Connects when first asked.
    pub(crate) fn beside(path: &Path) -> Self {
        Self::keeping(path, sums::ROWS_MAX)
    }

    /// A reader that keeps at most so many sums in memory.
    fn keeping(path: &Path, sums_max: usize) -> Self {
        let sums = Mutex::new(Sums::new(sums_max));
        let shared = Shared { path: path.to_owned(), connections: Default::default(), sums };
        Self { shared: Arc::new(shared) }
    }

    /// All attempts of an experiment, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn attempts_of(&self, experiment: ExperimentId) -> Result<Vec<Attempt>, StoreError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT body FROM attempts WHERE experiment = ?1 ORDER BY id")?;
            let attempts = statement.query_map([rows::number(experiment)], |row| rows::json(row, 0))?;
            Ok(attempts.collect::<Result<_, _>>()?)
        })
    }

    /// The attempts that are not over.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn live_attempts(&self) -> Result<BTreeSet<AttemptId>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT id FROM attempts WHERE live")?;
            let ids = statement.query_map([], |row| Ok(rows::id(row.get(0)?)))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
    }

    /// An instance.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn instance(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT body FROM instances WHERE id = ?1")?;
            Ok(statement.query_row([rows::number(id)], |row| rows::json(row, 0)).optional()?)
        })
    }

    /// Instances, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn instances(
        &self,
        filter: &InstanceFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Instance>, StoreError> {
        let mut select = Select::new("SELECT body, id FROM instances");
        select.when(filter.live_only, "live");
        select.before("id", after);
        let page = self.page(select, limit, |row| Ok((rows::json(row, 0)?, row.get(1)?)))?;
        Ok(page)
    }

    /// The live instances that an experiment pays for a part of, whether it runs there, is to, or ran there last.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn instances_paid_by(&self, experiment: ExperimentId) -> Result<Vec<Instance>, StoreError> {
        self.with(|connection| {
            // The shares are keyed by the ids of their payers. Looking for the words keeps all other bodies unread.
            let mut statement = connection.prepare_cached(
                "SELECT body FROM instances WHERE live AND instr(body, ?1) > 0 ORDER BY id",
            )?;
            let named = statement.query_map([experiment.to_string()], |row| rows::json(row, 0))?;
            let mut instances: Vec<Instance> = named.collect::<Result<_, _>>()?;
            instances.retain(|instance| instance.shares.contains_key(&experiment));
            Ok(instances)
        })
    }

    /// Events after this number, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn events(&self, after: u64, limit: u32) -> Result<Vec<JournalEntry>, StoreError> {
        self.with(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT seq, at, event FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let entries = statement.query_map((after as i64, limit.min(PAGE_MAX)), |row| {
                Ok(JournalEntry {
                    seq: rows::count(row, 0)?,
                    at: Timestamp::from_millis(row.get(1)?),
                    event: rows::json(row, 2)?,
                })
            })?;
            Ok(entries.collect::<Result<_, _>>()?)
        })
    }

    /// How much there is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT (SELECT count(*) FROM experiments WHERE live AND state = 'queued'), \
                        (SELECT count(*) FROM experiments WHERE live AND state = 'running'), \
                        (SELECT count(*) FROM experiments), \
                        (SELECT count(*) FROM sweeps WHERE live), \
                        (SELECT count(*) FROM instances WHERE live), \
                        (SELECT ifnull(max(seq), 0) FROM journal)",
            )?;
            Ok(statement.query_row([], |row| {
                Ok(Counts {
                    queued: rows::count(row, 0)?,
                    running: rows::count(row, 1)?,
                    experiments: rows::count(row, 2)?,
                    live_sweeps: rows::count(row, 3)?,
                    live_instances: rows::count(row, 4)?,
                    newest_event: rows::count(row, 5)?,
                })
            })?)
        })
    }

    /// Asks on a free connection, or waits for one: each question is short.
    fn with<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Shared { path, connections, sums: _ } = &*self.shared;
        let free = connections.iter().find_map(|slot| match slot.try_lock() {
            Ok(guard) => Some(guard),
            // A question that panicked left a connection that only reads: nothing is half done on it.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let mut slot = free.unwrap_or_else(|| connections[0].lock().unwrap_or_else(PoisonError::into_inner));
        let connection = match slot.take() {
            Some(connection) => connection,
            None => connect(path)?,
        };
        ask(slot.insert(connection))
    }

    /// Asks for one row more than wanted, which tells whether there is a next page. `read` gives the row and where a
    /// page that ends with it goes on.
    fn page<T>(
        &self,
        select: Select,
        limit: u32,
        mut read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<(T, i64)>,
    ) -> Result<Page<T>, StoreError> {
        self.with(|connection| select.page(connection, limit, &mut read))
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    if !path.is_file() {
        return Err(StoreError::Missing { path: path.to_owned() });
    }
    // Without a log nobody writes: the file is read as it is. Otherwise SQLite would create the log's files, as a user
    // whose files the daemon could perhaps not open later, or fail in a folder that it may not write to.
    let has_log = wal_path(path).exists();
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri.push_str(if has_log { "?mode=ro" } else { "?mode=ro&immutable=1" });
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags).map_err(|error| unopenable(path, error))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    check_is_ours(&connection, path)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

fn wal_path(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// A query whose conditions depend on what was asked.
struct Select {
    sql: String,
    has_condition: bool,
    values: Vec<Value>,
}

impl Select {
    fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), has_condition: false, values: Vec::new() }
    }

    fn and(&mut self, condition: &str) {
        self.sql.push_str(if self.has_condition { " AND " } else { " WHERE " });
        self.sql.push_str(condition);
        self.has_condition = true;
    }

    fn when(&mut self, wanted: bool, condition: &str) {
        if wanted {
            self.and(condition);
        }
    }

    /// A condition with one `?`, where there is a value for it.
    fn matching(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.and(condition);
            self.values.push(value.into());
        }
    }

    /// Of `costs`: what begins in `[since, until)`.
    fn within(&mut self, since: Option<Timestamp>, until: Option<Timestamp>) {
        self.matching("at >= ?", since.map(Timestamp::as_millis));
        self.matching("at < ?", until.map(Timestamp::as_millis));
    }

    /// Of `costs`: whose they are.
    fn of(&mut self, filter: &ReportFilter) {
        let ReportFilter { experiment, sweep, project, user, provider, labels } = filter;
        self.matching("experiment = ?", experiment.map(rows::number));
        let of_accounts = |column| format!("account IN (SELECT id FROM accounts WHERE {column} = ?)");
        self.matching(&of_accounts("sweep"), sweep.map(rows::number));
        self.matching(&of_accounts("project"), project.as_ref().map(|name| name.as_str().to_owned()));
        self.matching(&of_accounts("user"), user.as_ref().map(|name| name.as_str().to_owned()));
        self.matching(
            "place IN (SELECT id FROM places WHERE provider = ?)",
            provider.as_ref().map(|name| name.as_str().to_owned()),
        );
        // The list of experiments is made once for each label, from the specs that have it.
        for (key, value) in labels {
            self.matching(
                "experiment IN (SELECT experiments.id FROM experiments JOIN specs ON specs.id = spec \
                 WHERE EXISTS (SELECT 1 FROM json_each(specs.body, '$.labels') AS label \
                               WHERE label.value = ? AND label.key = ?))",
                Some(value.clone()),
            );
            self.values.push(key.clone().into());
        }
    }

    /// The newest first, going on after a page that was read.
    fn before(&mut self, column: &'static str, cursor: Option<Cursor>) {
        self.matching(&format!("{column} < ?"), cursor.map(|cursor| cursor.0));
        self.sql.push_str(&format!(" ORDER BY {column} DESC"));
    }

    /// The oldest first, going on after a page that was read.
    fn after(&mut self, column: &'static str, cursor: Option<Cursor>) {
        self.matching(&format!("{column} > ?"), cursor.map(|cursor| cursor.0));
        self.sql.push_str(&format!(" ORDER BY {column}"));
    }

    fn page<T>(
        self,
        connection: &Connection,
        limit: u32,
        read: &mut dyn FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<(T, i64)>,
    ) -> Result<Page<T>, StoreError> {
        let Self { mut sql, mut values, has_condition: _ } = self;
        let limit = limit.clamp(1, PAGE_MAX) as usize;
        sql.push_str(" LIMIT ?");
        values.push(Value::Integer(limit as i64 + 1));
        let mut statement = connection.prepare_cached(&sql)?;
        let mut found = statement.query(params_from_iter(values))?;
        let (mut rows, mut next, mut last) = (Vec::new(), None, 0);
        while let Some(row) = found.next()? {
            if rows.len() == limit {
                next = Some(Cursor(last));
                break;
            }
            let (row, at) = read(row)?;
            rows.push(row);
            last = at;
        }
        Ok(Page { rows, next })
    }
}
