//! All charges with every fact that an export needs, one after the other.
//!
//! Charges are read a page at a time and handed over between two pages, when nothing is held in the store: an export
//! may be read by somebody slow, and must keep neither the log from being copied back nor other questions waiting. A
//! page costs a few milliseconds. Charges are never changed, so the pages belong together without one long
//! transaction. Memory is a page, and the facts of what was charged lately.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use bursar_model::{
    Account, Category, Costs, ExperimentId, Instance, Period, Rates, Span, SpecId, Timestamp, Usd, UsdPerHour,
};
use rusqlite::Connection;
use rustc_hash::FxHashMap;

use super::Reader;
use crate::{
    StoreError,
    sqlite::rows::{self, Accounts},
};

/// Numbers of the journal in a page, so that it has no more charges than that whatever the wanted time is.
const PAGE_EVENTS: i64 = 2048;

/// Instances, and experiments, whose facts are kept for the next charges: more than are charged at a time, so that each
/// is read about once. Forgotten all at once where there are more.
const FACTS_MAX: usize = 20_000;

/// A charge with all that belongs to it.
#[derive(Debug, Clone)]
pub struct WalkedCharge<'w> {
    /// The number of its event in the journal.
    pub seq: u64,
    /// When it was written down, where it is a correction. `None` for what was metered.
    pub corrected_at: Option<Timestamp>,
    /// What was charged, as it is now.
    pub instance: &'w Instance,
    /// When.
    pub period: Period,
    /// What an hour cost.
    pub rates: Rates,
    /// Who pays which part for what.
    pub lines: &'w [WalkedLine],
}

/// One payer's part of a charge.
#[derive(Debug, Clone)]
pub struct WalkedLine {
    /// Who pays.
    pub payer: Arc<Payer>,
    /// What for.
    pub category: Category,
    /// How much.
    pub costs: Costs,
    /// The part of the instance's time; nothing for a correction.
    pub time: Span,
}

/// An experiment as its costs are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// Its id.
    pub id: ExperimentId,
    /// What people call it.
    pub name: Arc<str>,
    /// Whose money it is.
    pub account: Arc<Account>,
    /// The labels of its spec.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl Reader {
    /// Hands over the charges that begin in `[since, until)`, in the order in which they were made, until there are no
    /// more or `take` breaks. What is charged meanwhile is not among them. Holds nothing while `take` works.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn walk_charges<B>(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        mut take: impl FnMut(&WalkedCharge<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, StoreError> {
        let since = since.map_or(i64::MIN, Timestamp::as_millis);
        let until = until.map_or(i64::MAX, Timestamp::as_millis);
        let mut facts = Facts::default();
        let newest: i64 = self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT ifnull(max(seq), 0) FROM charges")?;
            Ok(statement.query_row([], |row| row.get(0))?)
        })?;
        let mut after = 0;
        while after < newest {
            let page = self.with(|connection| {
                let snapshot = connection.unchecked_transaction()?;
                let page = Page::read(&snapshot, since, until, after)?;
                facts.learn(&snapshot, &page)?;
                Ok(page)
            })?;
            after += PAGE_EVENTS;
            let mut rest = page.lines.into_iter().peekable();
            let mut lines = Vec::new();
            for charge in &page.charges {
                lines.clear();
                while let Some(line) = rest.next_if(|line| line.charge <= charge.seq) {
                    // Between two charges of a page there may be others, which begin at another time.
                    if line.charge == charge.seq {
                        lines.push(facts.line(&line));
                    }
                }
                let walked = WalkedCharge {
                    seq: charge.seq as u64,
                    corrected_at: charge.corrected_at,
                    instance: &facts.instances[&charge.instance],
                    period: charge.period,
                    rates: charge.rates,
                    lines: &lines,
                };
                if let ControlFlow::Break(broke) = take(&walked) {
                    return Ok(ControlFlow::Break(broke));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A page as numbers.
struct Page {
    charges: Vec<ChargeNumbers>,
    lines: Vec<LineNumbers>,
}

struct ChargeNumbers {
    seq: i64,
    instance: i64,
    period: Period,
    corrected_at: Option<Timestamp>,
    rates: Rates,
}

struct LineNumbers {
    charge: i64,
    payer: i64,
    category: Category,
    costs: Costs,
    time: Span,
}

impl Page {
    fn read(connection: &Connection, since: i64, until: i64, after: i64) -> rusqlite::Result<Self> {
        // The `+` keeps SQLite from finding the charges by their time, which would give them in another order.
        let mut statement = connection.prepare_cached(
            "SELECT seq, instance, since, until, \
                 CASE WHEN correction THEN (SELECT at FROM journal WHERE journal.seq = charges.seq) END, \
                 effective_price, contracted_price, list_price, on_demand_price \
             FROM charges WHERE seq > ?3 AND seq <= ?3 + ?4 AND +since >= ?1 AND +since < ?2 ORDER BY seq",
        )?;
        let charges: Vec<_> = statement
            .query_map((since, until, after, PAGE_EVENTS), |row| {
                Ok(ChargeNumbers {
                    seq: row.get(0)?,
                    instance: row.get(1)?,
                    period: Period {
                        from: Timestamp::from_millis(row.get(2)?),
                        to: Timestamp::from_millis(row.get(3)?),
                    },
                    corrected_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                    rates: rows::by_basis(row, 5)?.map(UsdPerHour::from_nanos),
                })
            })?
            .collect::<Result<_, _>>()?;
        let bounds =
            (charges.first().map_or(0, |first| first.seq), charges.last().map_or(0, |last| last.seq));
        let mut statement = connection.prepare_cached(
            "SELECT charge, experiment, category, effective, contracted, list, on_demand, millis \
             FROM charge_lines WHERE charge BETWEEN ?1 AND ?2 ORDER BY charge, line",
        )?;
        let lines = statement
            .query_map(bounds, |row| {
                Ok(LineNumbers {
                    charge: row.get(0)?,
                    payer: row.get(1)?,
                    category: rows::category(row, 2)?,
                    costs: rows::by_basis(row, 3)?.map(Usd::from_nanos),
                    time: Span::from_millis(row.get(7)?),
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Self { charges, lines })
    }
}

/// What numbers stand for.
#[derive(Default)]
struct Facts {
    instances: FxHashMap<i64, Instance>,
    payers: FxHashMap<i64, Arc<Payer>>,
    labels: FxHashMap<SpecId, Arc<BTreeMap<String, String>>>,
}

impl Facts {
    /// Learns what is on a page.
    fn learn(&mut self, connection: &Connection, page: &Page) -> Result<(), StoreError> {
        if self.instances.len() > FACTS_MAX {
            self.instances.clear();
        }
        if self.payers.len() > FACTS_MAX {
            self.payers.clear();
            self.labels.clear();
        }
        let mut body = connection.prepare_cached("SELECT body FROM instances WHERE id = ?1")?;
        for ChargeNumbers { instance, .. } in &page.charges {
            if !self.instances.contains_key(instance) {
                self.instances.insert(*instance, body.query_row([instance], |row| rows::json(row, 0))?);
            }
        }
        let mut accounts = Accounts::new(connection);
        let mut experiment =
            connection.prepare_cached("SELECT name, account, spec FROM experiments WHERE id = ?1")?;
        for LineNumbers { payer, .. } in &page.lines {
            if !self.payers.contains_key(payer) {
                let found = experiment.query_row([payer], |row| {
                    Ok(Payer {
                        id: rows::id(*payer),
                        name: row.get_ref(0)?.as_str()?.into(),
                        account: accounts.get(row.get(1)?)?,
                        labels: self.labels_of(connection, SpecId::from_digest(row.get(2)?))?,
                    })
                })?;
                self.payers.insert(*payer, Arc::new(found));
            }
        }
        Ok(())
    }

    fn labels_of(
        &mut self,
        connection: &Connection,
        spec: SpecId,
    ) -> rusqlite::Result<Arc<BTreeMap<String, String>>> {
        if let Some(known) = self.labels.get(&spec) {
            return Ok(known.clone());
        }
        let labels = rows::labels(connection, spec)?;
        self.labels.insert(spec, labels.clone());
        Ok(labels)
    }

    fn line(&self, numbers: &LineNumbers) -> WalkedLine {
        let LineNumbers { charge: _, payer, category, costs, time } = numbers;
        WalkedLine { payer: self.payers[payer].clone(), category: *category, costs: *costs, time: *time }
    }
}
