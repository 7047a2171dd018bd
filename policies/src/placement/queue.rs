//! The queue in plan order, and the groups of experiments that want the same.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    hash::{Hash, Hasher},
};

use bursar_model::{Account, BudgetKey, Experiment, ExperimentSpec, ExperimentState, SpecId, Usd, WaitingOn};
use rustc_hash::FxHashMap;

use crate::{
    PlanInput,
    choice::{Choice, Wish, is_in_a_hurry},
};

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    pub(super) groups: Vec<Group<'a>>,
}

/// A queued experiment.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) group: usize,
    pub(super) fate: Fate,
}

/// What becomes of an experiment in this plan.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// Not decided yet.
    Open,
    /// It runs, or has ended.
    Placed,
    /// It waits for this.
    Waits(WaitingOn),
}

/// Experiments of one priority with the same wishes. What the market says to one, it says to all, so that thousands of
/// trials cost hardly more than one.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) wish: Wish<'a>,
    /// All, in plan order; those at the front leave as they are placed.
    pub(super) members: VecDeque<u32>,
    /// How many are not decided on yet.
    pub(super) open: u32,
    /// Places that there were before this plan, the best first; made when first asked for.
    pub(super) places: Option<VecDeque<usize>>,
    /// The choice for as many as fit. It stays the best while enough wait to fill it.
    pub(super) choice: Option<Choice>,
    /// A reason that holds for all of them until the next plan.
    pub(super) blocked: Option<WaitingOn>,
    /// Budgets that had no room for one of them, with what to say of it and what was needed.
    pub(super) short: BTreeMap<BudgetKey, (WaitingOn, Usd)>,
}

impl Group<'_> {
    /// What to say to an experiment of this account, where one before it met the end of the same budget: within a plan
    /// no budget gets more room.
    pub(super) fn short_before(&self, account: &Account) -> Option<&(WaitingOn, Usd)> {
        if self.short.is_empty() {
            return None;
        }
        let Account { project, user: _, sweep } = account;
        let sweep = sweep.and_then(|id| self.short.get(&BudgetKey::Sweep(id)));
        sweep
            .or_else(|| self.short.get(&BudgetKey::Project(project.clone())))
            .or_else(|| self.short.get(&BudgetKey::Installation))
    }
}

/// Everything that waits for a place, in plan order: by priority, then by age.
pub(super) fn queue<'a>(input: &PlanInput<'a>) -> Queue<'a> {
    let mut specs: FxHashMap<SpecId, &'a ExperimentSpec> = FxHashMap::default();
    let mut waiting: Vec<(&'a Experiment, &'a ExperimentSpec)> = Vec::new();
    for experiment in input.fleet.experiments.values() {
        if experiment.state == ExperimentState::Queued && !experiment.cancelled {
            let spec = *specs.entry(experiment.spec).or_insert_with(|| input.fleet.spec(experiment));
            waiting.push((experiment, spec));
        }
    }
    waiting.sort_by_key(|(experiment, spec)| (Reverse(spec.priority), experiment.queued_at, experiment.id));

    let mut queue = Queue { entries: Vec::with_capacity(waiting.len()), groups: Vec::new() };
    let mut by_spec: FxHashMap<SpecId, usize> = FxHashMap::default();
    let mut by_shape: FxHashMap<Shape<'a>, usize> = FxHashMap::default();
    for (index, (experiment, spec)) in (0_u32..).zip(waiting) {
        // Only with a deadline do experiments of the same spec want different things.
        let known = by_spec.get(&experiment.spec).filter(|_| spec.deadline.is_none());
        let group = known.copied().unwrap_or_else(|| {
            let wish = Wish::new(spec, input.settings, is_in_a_hurry(spec, experiment.queued_at, input.now));
            let next = queue.groups.len();
            let group = *by_shape.entry(Shape { wish, priority: spec.priority }).or_insert(next);
            if group == next {
                queue.groups.push(Group::new(wish));
            }
            by_spec.insert(experiment.spec, group);
            group
        });
        let fate = match experiment.not_before.filter(|until| *until > input.now) {
            Some(until) => Fate::Waits(WaitingOn::Backoff { until }),
            None => {
                queue.groups[group].members.push_back(index);
                queue.groups[group].open += 1;
                Fate::Open
            }
        };
        queue.entries.push(Entry { experiment, group, fate });
    }
    queue
}

impl<'a> Group<'a> {
    fn new(wish: Wish<'a>) -> Self {
        Self {
            wish,
            members: VecDeque::new(),
            open: 0,
            places: None,
            choice: None,
            blocked: None,
            short: BTreeMap::new(),
        }
    }
}

/// What makes two experiments the same to placement.
#[derive(Debug)]
struct Shape<'a> {
    wish: Wish<'a>,
    priority: i32,
}

impl PartialEq for Shape<'_> {
    fn eq(&self, other: &Self) -> bool {
        let Wish { resources, spot_policy, in_a_hurry, ceiling, speeds } = self.wish;
        self.priority == other.priority
            && *resources == *other.wish.resources
            && spot_policy == other.wish.spot_policy
            && in_a_hurry == other.wish.in_a_hurry
            && ceiling == other.wish.ceiling
            && match (speeds, other.wish.speeds) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    a.len() == b.len()
                        && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.to_bits() == b.1.to_bits())
                }
                (Some(_), None) | (None, Some(_)) => false,
            }
    }
}

impl Eq for Shape<'_> {}

impl Hash for Shape<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Wish { resources, spot_policy, in_a_hurry, ceiling, speeds } = self.wish;
        (self.priority, resources, spot_policy, in_a_hurry, ceiling).hash(state);
        for (name, speed) in speeds.into_iter().flatten() {
            (name, speed.to_bits()).hash(state);
        }
    }
}
