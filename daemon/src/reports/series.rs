//! The report's numbers as charts want them: few series, in the order of their size.

use std::{cmp::Reverse, collections::BTreeMap};

use bursar_model::Usd;

use super::{Breakdown, ProjectSpend, TimeBin};

/// More colours than these nobody tells apart.
pub(super) const SERIES_MAX: usize = 6;
/// More projects than these make a chart of bars a list; the table below it has all.
pub(super) const BARS_MAX: usize = 10;

/// Columns of stacked parts.
#[derive(Debug)]
pub(super) struct Stacks {
    /// The name of each series, the largest first; what is beyond [`SERIES_MAX`] is one more.
    pub(super) names: Vec<String>,
    /// For each column its label and its part of each series.
    pub(super) columns: Vec<(String, Vec<Usd>)>,
}

impl Stacks {
    /// Spend over time by project.
    pub(super) fn by_project(timeline: &[TimeBin]) -> Self {
        let mut sums: BTreeMap<&str, Usd> = BTreeMap::new();
        for (project, amount) in timeline.iter().flat_map(|bin| &bin.by_project) {
            *sums.entry(project).or_default() += *amount;
        }
        let mut ranked: Vec<(&str, Usd)> = sums.into_iter().collect();
        ranked.sort_by_key(|(name, sum)| (Reverse(*sum), *name));
        let rest = ranked.split_off(ranked.len().min(SERIES_MAX));
        let mut names: Vec<String> = ranked.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut columns = Vec::with_capacity(timeline.len());
        for bin in timeline {
            let of = |name: &str| bin.by_project.get(name).copied().unwrap_or_default();
            let mut parts: Vec<Usd> = ranked.iter().map(|(name, _)| of(name)).collect();
            if !rest.is_empty() {
                parts.push(rest.iter().map(|(name, _)| of(name)).sum());
            }
            columns.push((bin.label.clone(), parts));
        }
        if !rest.is_empty() {
            names.push(format!("other ({})", rest.len()));
        }
        Self { names, columns }
    }

    /// The sum of one series over all columns.
    pub(super) fn sum(&self, series: usize) -> Usd {
        self.columns.iter().map(|(_, parts)| parts[series]).sum()
    }
}

/// Projects that wasted anything, the most wasteful first; what is beyond [`BARS_MAX`] as one more.
pub(super) fn wasteful(projects: &[ProjectSpend]) -> Vec<ProjectSpend> {
    let mut ranked: Vec<&ProjectSpend> =
        projects.iter().filter(|project| project.spent.wasted() > Usd::ZERO).collect();
    ranked.sort_by_key(|project| (Reverse(project.spent.wasted()), &project.project));
    let rest = ranked.split_off(ranked.len().min(BARS_MAX));
    let mut shown: Vec<ProjectSpend> = ranked.into_iter().cloned().collect();
    if !rest.is_empty() {
        let mut spent = Breakdown::default();
        for project in &rest {
            spent.add(&project.spent);
        }
        shown.push(ProjectSpend { project: format!("other ({})", rest.len()), spent });
    }
    shown
}

#[cfg(test)]
mod tests {
    use bursar_model::Category;
    use proptest::prelude::*;

    use super::*;

    fn timeline(amounts: &[BTreeMap<u8, i32>]) -> Vec<TimeBin> {
        let bin = |amounts: &BTreeMap<u8, i32>| TimeBin {
            label: "2026-11-01".to_owned(),
            by_project: amounts
                .iter()
                .map(|(project, nanos)| (format!("p{project}"), Usd::from_nanos(i64::from(*nanos))))
                .collect(),
            on_demand: Usd::ZERO,
        };
        amounts.iter().map(bin).collect()
    }

    #[test]
    fn projects_beyond_six_are_one_series() {
        let amounts: BTreeMap<u8, i32> = (1..=9).map(|project| (project, i32::from(project))).collect();
        let stacks = Stacks::by_project(&timeline(&[amounts]));
        assert_eq!(stacks.names, ["p9", "p8", "p7", "p6", "p5", "p4", "other (3)"]);
        assert_eq!(stacks.sum(6), Usd::from_nanos(3 + 2 + 1));
    }

    #[test]
    fn projects_beyond_ten_waste_together() {
        let projects: Vec<ProjectSpend> = (0..13)
            .map(|n| ProjectSpend {
                project: format!("p{n}"),
                spent: Breakdown {
                    by_category: [(Category::Idle, Usd::from_dollars(n))].into(),
                    failed_attempts: Usd::ZERO,
                },
            })
            .collect();
        let shown = wasteful(&projects);
        let names: Vec<&str> = shown.iter().map(|project| project.project.as_str()).collect();
        assert_eq!(names, ["p12", "p11", "p10", "p9", "p8", "p7", "p6", "p5", "p4", "p3", "other (2)"]);
        assert_eq!(shown[10].spent.wasted(), Usd::from_dollars(3));
    }

    proptest! {
        #[test]
        fn stacked_parts_sum_to_what_was_spent(amounts in prop::collection::vec(prop::collection::btree_map(0_u8..12, any::<i32>(), 0..12), 0..9)) {
            let timeline = timeline(&amounts);
            let stacks = Stacks::by_project(&timeline);
            for (bin, (_, parts)) in timeline.iter().zip(&stacks.columns) {
                prop_assert_eq!(parts.len(), stacks.names.len());
                prop_assert_eq!(parts.iter().copied().sum::<Usd>(), bin.spent());
            }
        }
    }
}
