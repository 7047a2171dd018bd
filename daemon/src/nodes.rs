//! What the nodes of an attempt say, and what that comes to for the attempt.
//!
//! An attempt runs once all its nodes run, has done its work once all have, and ends for all with the first that ends
//! otherwise. Kept in memory alone: agents repeat all of it until the attempt is over, so a daemon that starts knows it
//! again within a heartbeat. An attempt of one node is the simple case of the same.
//!
//! Where a node goes away without a word, what runs on the others fails within moments because it cannot reach it, and the
//! cloud tells of the loss much later. So a failure counts as one of the experiment only after every other node was heard
//! again; where one is not, its instance is found to be lost in the end, and that is what the attempt ended of.

use std::collections::BTreeMap;

use bursar_model::{
    Attempt, AttemptEnd, AttemptId, AttemptState, StopReason, Timestamp, agent_api::ReportedState,
};

/// What all nodes have said so far.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    attempts: BTreeMap<AttemptId, BTreeMap<u32, Said>>,
    reports: u64,
}

/// What one node has said.
#[derive(Debug, Default)]
struct Said {
    /// Its work runs, or ran, from then on.
    since: Option<Timestamp>,
    ended: Option<Ended>,
    /// The number of its newest report among all.
    newest: u64,
    /// Since when one of its GPUs is idle, once it has said whether one is.
    idle: Option<Option<Timestamp>>,
}

#[derive(Debug)]
struct Ended {
    at: Timestamp,
    end: AttemptEnd,
    /// The number of the report that told it first.
    told: u64,
}

/// What the nodes' words come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on, as far as anybody knows.
    GoesOn,
    /// One has failed, and those of these ranks are yet to be heard.
    Unclear(Vec<u32>),
    /// One has ended in a way that ends it for all: the others are to stop.
    StopOthers,
    /// It is over.
    Ended {
        at: Timestamp,
        end: AttemptEnd,
        /// The rank of the one that ended it for all.
        node: Option<u32>,
    },
}

impl Nodes {
    /// Takes in what a node says. `ago` is what an age in milliseconds means by our clock.
    pub(crate) fn say(
        &mut self,
        attempt: AttemptId,
        rank: u32,
        state: &ReportedState,
        ago: impl Fn(u64) -> Timestamp,
    ) {
        self.reports += 1;
        let said = self.attempts.entry(attempt).or_default().entry(rank).or_default();
        said.newest = self.reports;
        // Ages are measured and travel: what was said first stands.
        match state {
            ReportedState::Preparing => {}
            ReportedState::Running { age_ms } => {
                said.since.get_or_insert_with(|| ago(*age_ms));
            }
            ReportedState::Ended { age_ms, ran_ms, end } => {
                let since = ran_ms.map(|ran_ms| ago(age_ms.saturating_add(ran_ms)));
                said.since = said.since.or(since);
                let told = self.reports;
                let (at, end) = (ago(*age_ms), end.clone());
                said.ended.get_or_insert(Ended { at, end, told });
            }
        }
    }

    /// Since when all nodes of an attempt have run.
    pub(crate) fn running_since(&self, attempt: &Attempt) -> Option<Timestamp> {
        let said = self.attempts.get(&attempt.id)?;
        let since = |rank: u32| said.get(&rank).and_then(|said| said.since);
        let all: Option<Vec<Timestamp>> = ranks(attempt).map(since).collect();
        all?.into_iter().max()
    }

    /// Whether a node has said anything.
    pub(crate) fn has_said(&self, attempt: AttemptId, rank: u32) -> bool {
        self.attempts.get(&attempt).is_some_and(|said| said.contains_key(&rank))
    }

    /// Takes in since when a GPU of a node is idle, and gives since when the first of any node is. Nothing where none is as
    /// far as is known, and not all have said so.
    pub(crate) fn idle(
        &mut self,
        attempt: &Attempt,
        rank: u32,
        since: Option<Timestamp>,
    ) -> Option<Option<Timestamp>> {
        let said = self.attempts.entry(attempt.id).or_default();
        said.entry(rank).or_default().idle = Some(since);
        let all: Vec<Option<Option<Timestamp>>> =
            ranks(attempt).map(|rank| said.get(&rank).and_then(|said| said.idle)).collect();
        let first = all.iter().flatten().flatten().min().copied();
        (first.is_some() || all.iter().all(Option::is_some)).then_some(first)
    }

    /// What became of an attempt. `is_noticed` says whether the cloud takes the instance of a rank back.
    pub(crate) fn verdict(&self, attempt: &Attempt, is_noticed: impl Fn(u32) -> bool) -> Verdict {
        let nothing = BTreeMap::new();
        let said = self.attempts.get(&attempt.id).unwrap_or(&nothing);
        let ended = |rank: u32| Some((rank, said.get(&rank)?.ended.as_ref()?));
        let over: Vec<(u32, &Ended)> = ranks(attempt).filter_map(ended).collect();
        let told_why = match attempt.state {
            AttemptState::Stopping { why, .. } => Some(why),
            AttemptState::Assigned | AttemptState::Running | AttemptState::Ended { .. } => None,
        };
        // Who was stopped for the sake of another is not the one that ended it.
        let is_first = |(_, ended): &&(u32, &Ended)| {
            ended.end != WELL && ended.end != AttemptEnd::Stopped { why: StopReason::NodeEnded }
        };
        let first = over.iter().filter(is_first).min_by_key(|(_, ended)| ended.told).copied();
        let others = |rank: u32| ranks(attempt).filter(move |other| *other != rank);
        let is_over = over.len() == ranks(attempt).count();
        if let Some(at) = over.iter().map(|(_, ended)| ended.at).max().filter(|_| is_over) {
            let is_well = over.iter().all(|(_, ended)| ended.end == WELL);
            let (end, node) = self.end(attempt, told_why, first, is_well, &is_noticed);
            return Verdict::Ended { at, end, node };
        }
        let Some((rank, first)) = first.filter(|_| told_why.is_none()) else { return Verdict::GoesOn };
        let is_well =
            |rank: &u32| said.get(rank).is_some_and(|said| said.ended.is_some() || said.newest > first.told);
        let unheard: Vec<u32> = others(rank).filter(|rank| !is_well(rank)).collect();
        if first.end.is_failure() && !unheard.is_empty() && !others(rank).any(is_noticed) {
            return Verdict::Unclear(unheard);
        }
        Verdict::StopOthers
    }

    /// How an attempt ended of which nothing runs any longer, and the rank of the node that ended it.
    fn end(
        &self,
        attempt: &Attempt,
        told_why: Option<StopReason>,
        first: Option<(u32, &Ended)>,
        is_well: bool,
        is_noticed: &dyn Fn(u32) -> bool,
    ) -> (AttemptEnd, Option<u32>) {
        let lost = (0..).zip(&attempt.nodes).find_map(|(rank, node)| Some((rank, node.lost.clone()?)));
        let for_another = told_why.filter(|why| *why != StopReason::NodeEnded && attempt.nodes.len() > 1);
        match (for_another, lost, first) {
            (why, Some((rank, end)), _) if why.is_none_or(StopReason::requeues) => (end, Some(rank)),
            // What fails while all stop misses those that have stopped before.
            (Some(why), _, Some(_)) => (AttemptEnd::Stopped { why }, None),
            (None, _, Some((rank, first))) => {
                let beside_noticed = ranks(attempt).any(|other| other != rank && is_noticed(other));
                if first.end.is_failure() && beside_noticed {
                    (AttemptEnd::Stopped { why: StopReason::Interrupted }, Some(rank))
                } else {
                    (first.end.clone(), Some(rank))
                }
            }
            (Some(why), Some(_), None) => (AttemptEnd::Stopped { why }, None),
            (_, _, None) if is_well => (WELL, None),
            // All stopped for the sake of one whose word went with the daemon that it was given to.
            (_, _, None) => (AttemptEnd::Stopped { why: told_why.unwrap_or(StopReason::NodeEnded) }, None),
        }
    }

    /// An attempt is over.
    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        self.attempts.remove(&attempt);
    }
}

const WELL: AttemptEnd = AttemptEnd::Exited { code: 0 };

/// The nodes whose word is waited for.
fn ranks(attempt: &Attempt) -> impl Iterator<Item = u32> {
    attempt.live_nodes().map(|(rank, _)| rank)
}

#[cfg(test)]
mod tests {
    use bursar_model::{Amounts, IdGen, Node};

    use super::*;

    const RUNNING: ReportedState = ReportedState::Running { age_ms: 0 };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + 1000 * secs)
    }

    fn attempt(nodes: usize) -> Attempt {
        let mut ids = IdGen::new(1);
        Attempt {
            id: ids.attempt(at(0)),
            experiment: ids.experiment(at(0)),
            number: 1,
            nodes: (0..nodes).map(|_| Node::new(ids.instance(at(0)), Vec::new())).collect(),
            amounts: Amounts::default(),
            assigned_at: at(0),
            state: AttemptState::Running,
            started_at: None,
            checkpoint_at: None,
            ran_with: None,
            idle_gpu: None,
        }
    }

    fn stopping(nodes: usize, why: StopReason) -> Attempt {
        Attempt { state: AttemptState::Stopping { since: at(0), why, at_once: false }, ..attempt(nodes) }
    }

    fn ended(end: AttemptEnd) -> ReportedState {
        ReportedState::Ended { age_ms: 0, ran_ms: Some(1000), end }
    }

    const FAILED: AttemptEnd = AttemptEnd::Exited { code: 3 };

    /// What these words come to, one a second.
    fn after(attempt: &Attempt, words: &[(u32, ReportedState)]) -> (Nodes, Verdict) {
        let mut nodes = Nodes::default();
        for (second, (rank, state)) in (1..).zip(words) {
            let ago = |age: u64| Timestamp::from_millis(at(second).as_millis() - age as i64);
            nodes.say(attempt.id, *rank, state, ago);
        }
        let verdict = nodes.verdict(attempt, |_| false);
        (nodes, verdict)
    }

    #[test]
    fn it_runs_once_the_last_node_does() {
        let attempt = attempt(2);
        let (nodes, _) = after(&attempt, &[(0, RUNNING), (1, ReportedState::Preparing)]);
        assert_eq!(nodes.running_since(&attempt), None);
        let (nodes, _) =
            after(&attempt, &[(0, RUNNING), (1, ReportedState::Preparing), (1, RUNNING), (0, RUNNING)]);
        assert_eq!(nodes.running_since(&attempt), Some(at(3)));
    }

    #[test]
    fn it_has_done_its_work_once_all_nodes_have() {
        let attempt = attempt(2);
        assert_eq!(after(&attempt, &[(1, ended(WELL)), (0, RUNNING)]).1, Verdict::GoesOn);
        let both = after(&attempt, &[(1, ended(WELL)), (0, RUNNING), (0, ended(WELL))]).1;
        assert_eq!(both, Verdict::Ended { at: at(3), end: WELL, node: None });
    }

    #[test]
    fn it_fails_with_the_first_that_fails_once_the_others_were_heard_again_and_have_stopped() {
        let mut attempt = attempt(3);
        let failed = [(0, RUNNING), (1, RUNNING), (2, RUNNING), (1, ended(FAILED))];
        assert_eq!(after(&attempt, &failed).1, Verdict::Unclear(vec![0, 2]));
        let heard = [&failed[..], &[(0, RUNNING), (2, ended(AttemptEnd::Exited { code: 9 }))]].concat();
        assert_eq!(after(&attempt, &heard).1, Verdict::StopOthers);
        attempt.state = AttemptState::Stopping { since: at(0), why: StopReason::NodeEnded, at_once: false };
        assert_eq!(after(&attempt, &heard).1, Verdict::GoesOn);
        let stopped = ended(AttemptEnd::Stopped { why: StopReason::NodeEnded });
        let over = after(&attempt, &[&heard[..], &[(0, stopped)]].concat()).1;
        assert_eq!(over, Verdict::Ended { at: at(7), end: FAILED, node: Some(1) });
    }

    #[test]
    fn one_node_alone_is_judged_by_its_own_word() {
        let over = Verdict::Ended { at: at(1), end: FAILED, node: Some(0) };
        assert_eq!(after(&attempt(1), &[(0, ended(FAILED))]).1, over);
        assert_eq!(after(&stopping(1, StopReason::Moved), &[(0, ended(FAILED))]).1, over);
    }

    #[test]
    fn what_fails_beside_a_node_that_the_cloud_takes_back_was_interrupted() {
        let attempt = attempt(2);
        let (nodes, _) = after(&attempt, &[(0, RUNNING), (1, ended(FAILED))]);
        assert_eq!(nodes.verdict(&attempt, |rank| rank == 0), Verdict::StopOthers);
        let (nodes, _) = after(&attempt, &[(1, ended(FAILED)), (0, ended(FAILED))]);
        let end = AttemptEnd::Stopped { why: StopReason::Interrupted };
        let over = Verdict::Ended { at: at(2), end, node: Some(1) };
        assert_eq!(nodes.verdict(&attempt, |rank| rank == 0), over);
    }

    #[test]
    fn all_save_what_they_can_before_a_stop_is_over() {
        let attempt = stopping(2, StopReason::Cancelled);
        let end = AttemptEnd::Stopped { why: StopReason::Cancelled };
        let one = [(0, ended(end.clone())), (1, RUNNING)];
        assert_eq!(after(&attempt, &one).1, Verdict::GoesOn);
        let both = [&one[..], &[(1, ended(FAILED))]].concat();
        assert_eq!(after(&attempt, &both).1, Verdict::Ended { at: at(3), end, node: None });
    }

    #[test]
    fn a_lost_node_is_what_it_ended_of_once_the_others_have_stopped() {
        let end = AttemptEnd::InstanceLost { interrupted: true };
        let mut attempt = stopping(2, StopReason::Interrupted);
        attempt.nodes[1].lost = Some(end.clone());
        assert_eq!(after(&attempt, &[(0, RUNNING)]).1, Verdict::GoesOn);
        let over = after(&attempt, &[(0, ended(FAILED))]).1;
        assert_eq!(over, Verdict::Ended { at: at(1), end, node: Some(1) });
    }

    #[test]
    fn who_only_stopped_for_another_has_not_done_the_work() {
        // The daemon that knew what ended the other was started again meanwhile.
        let attempt = stopping(2, StopReason::NodeEnded);
        let stopped = ended(AttemptEnd::Stopped { why: StopReason::NodeEnded });
        let over = after(&attempt, &[(0, stopped.clone()), (1, stopped)]).1;
        let end = AttemptEnd::Stopped { why: StopReason::NodeEnded };
        assert_eq!(over, Verdict::Ended { at: at(2), end, node: None });
    }

    #[test]
    fn a_gpu_is_idle_while_one_of_any_node_is() {
        let (attempt, mut nodes) = (attempt(2), Nodes::default());
        assert_eq!(nodes.idle(&attempt, 0, None), None, "the other has not said");
        assert_eq!(nodes.idle(&attempt, 1, Some(at(5))), Some(Some(at(5))));
        assert_eq!(nodes.idle(&attempt, 0, Some(at(3))), Some(Some(at(3))));
        assert_eq!(nodes.idle(&attempt, 0, None), Some(Some(at(5))));
        assert_eq!(nodes.idle(&attempt, 1, None), Some(None));
    }
}
