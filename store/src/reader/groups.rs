//! Rows put into groups by any number of dimensions, and added up.

use std::sync::Arc;

use bursar_model::{Costs, Span};
use rustc_hash::FxHashMap;

use super::{
    members::{Axis, Column},
    report::{ByCategory, ReportRow},
    sums::Sum,
};

/// Groups that are found by their place in a table rather than by hashing: 4 MB of it at most.
const TABLE_MAX: usize = 1 << 20;

/// Adds rows up by the values that they have along some dimensions. One row for each combination that occurs, in the
/// order of the values; one for all where there are no dimensions.
pub(super) fn add_up<'s>(sums: impl Iterator<Item = &'s Sum>, axes: &[Arc<Axis>]) -> Vec<ReportRow> {
    let mut levels = Vec::with_capacity(axes.len());
    let mut combinations = 1_usize;
    for axis in axes {
        combinations = combinations.saturating_mul(axis.keys.len());
        levels.push(Level::new(axis.keys.len(), combinations.min(TABLE_MAX)));
    }
    let mut totals: Vec<Total> = Vec::new();
    for sum in sums {
        let mut group = 0;
        for (level, axis) in levels.iter_mut().zip(axes) {
            group = level.group(group, axis.value(sum));
        }
        if group as usize == totals.len() {
            totals.push(Total::default());
        }
        totals[group as usize].add(sum);
    }
    rows(&levels, axes, &totals)
}

/// What belongs together so far, parted by one more dimension.
struct Level {
    values: u64,
    /// The number of a group plus one by its code, as far as there is room.
    table: Vec<u32>,
    beyond: FxHashMap<u64, u32>,
    /// Of each group, its code: which group it is a part of, and by which value.
    codes: Vec<u64>,
}

impl Level {
    fn new(values: usize, table: usize) -> Self {
        Self { values: values as u64, table: vec![0; table], beyond: FxHashMap::default(), codes: Vec::new() }
    }

    fn group(&mut self, of: u32, value: u32) -> u32 {
        let code = u64::from(of) * self.values + u64::from(value);
        let slot = match self.table.get_mut(code as usize) {
            Some(slot) => slot,
            None => self.beyond.entry(code).or_default(),
        };
        if *slot == 0 {
            self.codes.push(code);
            *slot = self.codes.len() as u32;
        }
        *slot - 1
    }

    /// The group that a group is a part of, and by which value.
    fn parent(&self, group: u32) -> (u32, u32) {
        let code = self.codes[group as usize];
        ((code / self.values) as u32, (code % self.values) as u32)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    costs: Costs,
    by_category: ByCategory,
    millis: i64,
}

impl Total {
    fn add(&mut self, sum: &Sum) {
        self.costs += sum.costs;
        self.by_category.add(sum.members[Column::Category as usize] as usize, sum.costs.effective);
        self.millis += sum.millis;
    }
}

/// The groups of the last level in the order of their values, with these.
fn rows(levels: &[Level], axes: &[Arc<Axis>], totals: &[Total]) -> Vec<ReportRow> {
    // The order of each level follows from that of the level before.
    let mut order: Vec<u32> = vec![0];
    for level in levels {
        let mut rank_of_parent = vec![0; order.len()];
        for (rank, group) in order.iter().enumerate() {
            rank_of_parent[*group as usize] = rank as u64;
        }
        let mut ranked: Vec<(u64, u32)> = (0..level.codes.len() as u32)
            .map(|group| {
                let (parent, value) = level.parent(group);
                (rank_of_parent[parent as usize] * level.values + u64::from(value), group)
            })
            .collect();
        ranked.sort_unstable();
        order.clear();
        order.extend(ranked.into_iter().map(|(_, group)| group));
    }
    let row = |group: u32| {
        let Total { costs, by_category, millis } = *totals.get(group as usize)?;
        let (mut keys, mut group) = (Vec::with_capacity(axes.len()), group);
        for (level, axis) in levels.iter().zip(axes).rev() {
            let (parent, value) = level.parent(group);
            keys.push(axis.keys[value as usize].clone());
            group = parent;
        }
        keys.reverse();
        Some(ReportRow { keys, costs, by_category, time: Span::from_millis(millis) })
    };
    order.into_iter().filter_map(row).collect()
}
