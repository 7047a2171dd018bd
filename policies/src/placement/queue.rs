//! The queue in plan order, and the groups of experiments that want the same.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
};

use bursar_model::{
    Account, Attempt, BudgetKey, Experiment, ExperimentSpec, ExperimentState, NoRoom, Resources, SpecId,
    WaitingOn,
};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::places::is_suspect;
use crate::{
    PlanInput,
    asha::Halving,
    choice::{Choice, Wish, is_in_a_hurry},
    lifecycle::Lifecycle,
};

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    pub(super) groups: Vec<Group<'a>>,
}

/// A queued experiment, or one that will be as soon as it has saved its work.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) experiment: &'a Experiment,
    /// As the experiment says; those that share one point at the same.
    pub(super) account: &'a Arc<Account>,
    pub(super) suspect: bool,
    /// The attempt that the cloud is interrupting: it gets a place now and the next attempt once this one has ended.
    pub(super) moving: Option<&'a Attempt>,
    pub(super) group: usize,
    /// The next of its group, in plan order.
    pub(super) next: Option<usize>,
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
    /// The first that is not decided on, as far as is known; the others hang on it.
    pub(super) first: Option<usize>,
    last: Option<usize>,
    /// How many are not decided on yet.
    pub(super) open: u32,
    /// Places that there were before this plan, the best first; made when first asked for.
    pub(super) places: Option<VecDeque<usize>>,
    /// The choice for as many as fit. It stays the best while enough wait to fill it.
    pub(super) choice: Option<Choice>,
    /// A reason that holds for all of them until the next plan.
    pub(super) blocked: Option<WaitingOn>,
    /// Budgets that had no room for one of them.
    pub(super) short: BTreeMap<BudgetKey, Arc<NoRoom>>,
}

impl Group<'_> {
    /// What to say to an experiment of this account, where one before it met the end of the same budget: within a plan
    /// no budget gets more room.
    pub(super) fn short_before(&self, account: &Account) -> Option<&Arc<NoRoom>> {
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

/// Everything that wants a place, in plan order: by priority, then by age; of the trials of a
/// sweep with asha those first that climb the highest.
pub(super) fn queue<'a>(input: &PlanInput<'a>, halving: &Halving, lifecycle: &Lifecycle<'a>) -> Queue<'a> {
    let PlanInput { fleet, settings, now, .. } = *input;
    // There are no more groups than specs, but for those with a deadline. Growing these again and again costs more than
    // all the hashing, and room that is never touched costs nothing.
    let mut groups: Vec<Group<'a>> = Vec::with_capacity(fleet.specs.len());
    let mut by_shape: FxHashMap<Shape<'a>, usize> = with_capacity(fleet.specs.len());
    // One walk over all specs, in their order, costs less than looking for each in the tree.
    let mut by_spec: FxHashMap<SpecId, (&'a ExperimentSpec, Option<usize>)> =
        with_capacity(fleet.specs.len());
    by_spec.extend(fleet.specs.iter().map(|(id, live)| (*id, (&*live.spec, None))));
    let moving = lifecycle.moving(fleet);
    let mut waiting = Vec::with_capacity(fleet.experiments.len());
    for experiment in fleet.experiments.values() {
        let is_over = experiment.cancelled || halving.ended.contains(&experiment.id);
        let wants_a_place = match experiment.state {
            ExperimentState::Queued => true,
            ExperimentState::Running { .. } => {
                moving.contains_key(&experiment.id) && !halving.held_back.contains_key(&experiment.id)
            }
            ExperimentState::Ended { .. } => false,
        };
        if !wants_a_place || is_over {
            continue;
        }
        let (spec, known) =
            by_spec.get_mut(&experiment.spec).expect("the fleet keeps the spec of every live experiment");
        let took = experiment.checkpoint_took;
        let group = known.filter(|_| took.is_none()).unwrap_or_else(|| {
            let wish = Wish::new(spec, settings, is_in_a_hurry(spec, experiment.queued_at, now), took);
            let shape = Shape { wish, priority: spec.priority };
            *by_shape.entry(shape).or_insert_with(|| {
                groups.push(Group::new(wish));
                groups.len() - 1
            })
        });
        // Only with a deadline, or once it was measured how long they save, do experiments of one spec want different things.
        if took.is_none() {
            *known = Some(group).filter(|_| spec.deadline.is_none());
        }
        let rung = Reverse(halving.rung_of(experiment.id));
        waiting.push((Reverse(spec.priority), experiment.queued_at, rung, experiment.id, experiment, group));
    }
    waiting.sort_by_key(|(priority, queued_at, rung, id, ..)| (*priority, *queued_at, *rung, *id));

    let mut entries: Vec<Entry<'a>> = Vec::with_capacity(waiting.len());
    for (.., experiment, group) in waiting {
        let index = entries.len();
        // What is asked again and again stays in the cache where thousands of trials share it.
        let account = match entries.last() {
            Some(Entry { account, .. }) if Arc::ptr_eq(account, &experiment.account) => account,
            _ => &experiment.account,
        };
        let backoff = experiment.not_before.filter(|until| *until > now);
        let held_back = halving
            .held_back
            .get(&experiment.id)
            .cloned()
            .or_else(|| backoff.map(|until| WaitingOn::Backoff { until, losses: experiment.losses }));
        let fate = match held_back {
            Some(reason) => Fate::Waits(reason),
            None => {
                let found = &mut groups[group];
                match found.last.replace(index) {
                    Some(last) => entries[last].next = Some(index),
                    None => found.first = Some(index),
                }
                found.open += 1;
                Fate::Open
            }
        };
        let suspect = is_suspect(experiment);
        let moving = moving.get(&experiment.id).copied();
        entries.push(Entry { experiment, account, suspect, moving, group, next: None, fate });
    }
    Queue { entries, groups }
}

fn with_capacity<K, V>(capacity: usize) -> FxHashMap<K, V> {
    FxHashMap::with_capacity_and_hasher(capacity, FxBuildHasher)
}

impl<'a> Group<'a> {
    fn new(wish: Wish<'a>) -> Self {
        Self {
            wish,
            first: None,
            last: None,
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
        let Wish { resources, spot_policy, in_a_hurry, ceiling, speeds, notice, nodes } = self.wish;
        self.priority == other.priority
            && nodes == other.wish.nodes
            && *resources == *other.wish.resources
            && spot_policy == other.wish.spot_policy
            && in_a_hurry == other.wish.in_a_hurry
            && ceiling == other.wish.ceiling
            && notice == other.wish.notice
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
    /// By the numbers alone: they tell most shapes apart, and hashing names would cost more than comparing the rest.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Resources { accelerators, cpus_milli, memory_mib, disk_gib } = self.wish.resources;
        (self.priority, cpus_milli, memory_mib, disk_gib, accelerators.len()).hash(state);
        accelerators.first().map(|first| first.count).hash(state);
    }
}
