//! The conformance suite finds whoever breaks the contract: providers that keep all of it but one thing, each of which
//! must fail the sentences that say so, and no provider is failed for what it does not do.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each lie is told in one place, and all others tell the truth there"
)]

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use bursar_model::{
    CapacityType, Clock, CloudId, CloudInstance, CloudState, InstanceId, Offering, ProviderName, Scope, Span,
    Timestamp,
};
use bursar_providers::{
    EffectMay, ErrorKind, LaunchRequest, Provider, ProviderError,
    conformance::{Harness, SENTENCES},
    memory::MemoryProvider,
};
use futures::FutureExt;

use crate::{
    conformance::MemoryHarness,
    support::{COMMON, TestClock, offering},
};

/// What a provider does that the contract forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    OffersWithoutPrice,
    OffersAsSomebodyElse,
    MakesASecondInstance,
    MakesASecondInstanceAfterTheEnd,
    MakesASecondInstanceAfterARestart,
    ForgetsEverythingAtARestart,
    HidesWhatIsNew,
    HidesWhatEnds,
    LeavesSomethingBehindARefusal,
    DoubtsItsRefusals,
    NamesAnotherScope,
    RefusesForGood,
    DeniesWhatItMayHaveDone,
    ForgetsEnds,
    ForgetsEndsEarly,
    MovesEnds,
    SaysThatTheCloudTookIt,
    FailsToEndWhatNeverWas,
    MakesWhatItShouldEnd,
    FailsToEndAgain,
    EndsNothing,
    EndsOnlyByTheCloudsId,
    EndsEverything,
    SaysGoneTooEarly,
    ShowsOthersInstances,
    EndsOthersInstances,
    IgnoresLeases,
    SwapsThoseLaunchedTogether,
}

impl Lie {
    /// Each with the sentences that it breaks.
    const TABLE: &[(Self, &[&str])] = &[
        (Self::None, &[]),
        (Self::OffersWithoutPrice, &["everything_on_offer_has_a_price_and_carries_the_providers_name"]),
        (Self::OffersAsSomebodyElse, &["everything_on_offer_has_a_price_and_carries_the_providers_name"]),
        (
            Self::MakesASecondInstance,
            &[
                "launching_again_answers_with_the_same_instance",
                "launching_at_the_same_time_makes_one_instance",
                "launching_again_after_a_restart_makes_no_second_instance",
                "launching_again_after_the_end_makes_no_second_instance",
                "launching_together_again_after_a_restart_makes_none_twice",
                "a_refused_launch_can_be_met_later",
                "a_launch_whose_reply_was_lost_may_have_happened_and_is_found_again",
            ],
        ),
        (
            Self::MakesASecondInstanceAfterTheEnd,
            &[
                "launching_again_after_the_end_makes_no_second_instance",
                "launching_together_again_after_a_restart_makes_none_twice",
            ],
        ),
        (
            Self::MakesASecondInstanceAfterARestart,
            &[
                "launching_at_the_same_time_makes_one_instance",
                "launching_again_after_a_restart_makes_no_second_instance",
                "launching_together_again_after_a_restart_makes_none_twice",
            ],
        ),
        (
            Self::ForgetsEverythingAtARestart,
            &[
                "launching_together_again_after_a_restart_makes_none_twice",
                "an_ended_instance_is_listed_with_its_end",
                "an_instance_can_be_terminated_after_a_restart",
            ],
        ),
        (
            Self::HidesWhatIsNew,
            &[
                "launching_again_answers_with_the_same_instance",
                "launching_at_the_same_time_makes_one_instance",
                "launching_again_after_a_restart_makes_no_second_instance",
                "launching_together_makes_one_instance_of_each",
                "launching_together_again_after_a_restart_makes_none_twice",
                "a_launched_instance_is_listed",
                "a_refused_launch_can_be_met_later",
                "a_launch_whose_reply_was_lost_may_have_happened_and_is_found_again",
                "whatever_may_cost_money_is_listed",
                "terminating_one_instance_touches_no_other",
                "another_installation_sees_and_touches_nothing",
            ],
        ),
        (Self::HidesWhatEnds, &["whatever_may_cost_money_is_listed", "terminating_again_is_no_error"]),
        (
            Self::LeavesSomethingBehindARefusal,
            &["a_refused_launch_leaves_nothing_behind", "a_refused_launch_can_be_met_later"],
        ),
        (Self::DoubtsItsRefusals, &["a_refused_launch_leaves_nothing_behind"]),
        (Self::NamesAnotherScope, &["a_launch_without_capacity_says_where"]),
        (Self::RefusesForGood, &["a_refused_launch_can_be_met_later"]),
        (
            Self::DeniesWhatItMayHaveDone,
            &["a_launch_whose_reply_was_lost_may_have_happened_and_is_found_again"],
        ),
        (
            Self::ForgetsEnds,
            &[
                "launching_again_after_the_end_makes_no_second_instance",
                "launching_together_makes_one_instance_of_each",
                "launching_together_again_after_a_restart_makes_none_twice",
                "whatever_may_cost_money_is_listed",
                "an_ended_instance_is_listed_with_its_end",
                "an_ended_instance_stays_listed_for_as_long_as_promised",
                "terminating_again_is_no_error",
                "an_instance_can_be_terminated_by_our_id_alone",
                "an_instance_can_be_terminated_after_a_restart",
                "when_an_instance_is_gone_nothing_of_it_runs",
                "terminating_one_instance_touches_no_other",
            ],
        ),
        (Self::ForgetsEndsEarly, &["an_ended_instance_stays_listed_for_as_long_as_promised"]),
        (
            Self::MovesEnds,
            &["an_ended_instance_stays_listed_for_as_long_as_promised", "terminating_again_is_no_error"],
        ),
        (Self::SaysThatTheCloudTookIt, &["an_ended_instance_is_listed_with_its_end"]),
        (
            Self::FailsToEndWhatNeverWas,
            &["terminating_what_never_was_is_no_error", "another_installation_sees_and_touches_nothing"],
        ),
        (Self::MakesWhatItShouldEnd, &["terminating_what_never_was_is_no_error"]),
        (Self::FailsToEndAgain, &["terminating_again_is_no_error"]),
        (
            Self::EndsNothing,
            &[
                "launching_again_after_the_end_makes_no_second_instance",
                "launching_together_makes_one_instance_of_each",
                "launching_together_again_after_a_restart_makes_none_twice",
                "whatever_may_cost_money_is_listed",
                "an_ended_instance_is_listed_with_its_end",
                "an_ended_instance_stays_listed_for_as_long_as_promised",
                "terminating_again_is_no_error",
                "an_instance_can_be_terminated_by_our_id_alone",
                "an_instance_can_be_terminated_after_a_restart",
                "when_an_instance_is_gone_nothing_of_it_runs",
                "terminating_one_instance_touches_no_other",
            ],
        ),
        (Self::EndsOnlyByTheCloudsId, &["an_instance_can_be_terminated_by_our_id_alone"]),
        (
            Self::EndsEverything,
            &[
                "launching_together_makes_one_instance_of_each",
                "launching_together_again_after_a_restart_makes_none_twice",
                "terminating_one_instance_touches_no_other",
            ],
        ),
        (
            Self::SaysGoneTooEarly,
            &[
                "launching_again_after_the_end_makes_no_second_instance",
                "a_refused_launch_leaves_nothing_behind",
                "when_an_instance_is_gone_nothing_of_it_runs",
            ],
        ),
        (Self::ShowsOthersInstances, &["another_installation_sees_and_touches_nothing"]),
        (Self::EndsOthersInstances, &["another_installation_sees_and_touches_nothing"]),
        (Self::IgnoresLeases, &["an_instance_that_hears_nothing_ends_by_its_lease"]),
        (Self::SwapsThoseLaunchedTogether, &["launching_together_makes_one_instance_of_each"]),
    ];
}

/// A provider that tells the truth but in one thing.
#[derive(Debug, Clone)]
struct Liar {
    lie: Lie,
    was_restarted: bool,
    truth: MemoryProvider,
    /// The same cloud as the victim of `ShowsOthersInstances` and `EndsOthersInstances` sees it.
    others: Option<MemoryProvider>,
    clock: Arc<TestClock>,
    told: Arc<Told>,
}

/// What was told so far, and must be lied about consistently.
#[derive(Debug, Default)]
struct Told {
    asked_for: Mutex<BTreeSet<InstanceId>>,
    refused: Mutex<BTreeSet<InstanceId>>,
    ending: Mutex<Vec<InstanceId>>,
    made_up: Mutex<Vec<CloudInstance>>,
    looks: AtomicI64,
    loses_reply: Mutex<bool>,
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Liar {
    fn error(&self, kind: ErrorKind, effect: EffectMay) -> ProviderError {
        let provider = self.name().clone();
        ProviderError { provider, kind, effect, message: "a lie".to_owned(), source: None }
    }

    /// An instance like this one that there should not be.
    fn make_up(&self, like: &CloudInstance) -> CloudInstance {
        let second =
            CloudInstance { cloud_id: CloudId::new("second"), state: CloudState::Running, ..like.clone() };
        locked(&self.told.made_up).push(second.clone());
        second
    }

    fn made_up_of(&self, instance: InstanceId) -> CloudInstance {
        CloudInstance {
            cloud_id: CloudId::new("made-up"),
            instance,
            state: CloudState::Running,
            launched_at: Timestamp::from_millis(0),
            running_at: None,
            stopping_at: None,
            notice: None,
        }
    }
}

#[async_trait]
impl Provider for Liar {
    fn name(&self) -> &ProviderName {
        self.truth.name()
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        let mut offerings = self.truth.offerings().await?;
        for offering in &mut offerings {
            match self.lie {
                Lie::OffersWithoutPrice => offering.price = None,
                Lie::OffersAsSomebodyElse => offering.provider = ProviderName::new("somebody-else"),
                _ => {}
            }
        }
        Ok(offerings)
    }

    async fn launch_together(
        &self,
        requests: &[LaunchRequest],
        _: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(self.launch(request).await);
        }
        if self.lie == Lie::SwapsThoseLaunchedTogether {
            answers.reverse();
        }
        answers
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let is_again = !locked(&self.told.asked_for).insert(request.instance);
        if self.lie == Lie::RefusesForGood && locked(&self.told.refused).contains(&request.instance) {
            return Err(self.error(ErrorKind::Invalid, EffectMay::No));
        }
        let result = self.truth.launch(request).await;
        if std::mem::take(&mut *locked(&self.told.loses_reply)) {
            let says =
                if self.lie == Lie::DeniesWhatItMayHaveDone { EffectMay::No } else { EffectMay::Maybe };
            return Err(self.error(ErrorKind::Unavailable, says));
        }
        match result {
            Ok(launched) => {
                let is_over = matches!(launched.state, CloudState::Gone { .. });
                let makes_second = match self.lie {
                    Lie::MakesASecondInstance => is_again,
                    Lie::MakesASecondInstanceAfterTheEnd => is_again && is_over,
                    Lie::MakesASecondInstanceAfterARestart => is_again && self.was_restarted,
                    _ => false,
                };
                Ok(if makes_second { self.make_up(&launched) } else { launched })
            }
            Err(error) => {
                locked(&self.told.refused).insert(request.instance);
                match self.lie {
                    Lie::LeavesSomethingBehindARefusal => {
                        let left = self.made_up_of(request.instance);
                        locked(&self.told.made_up).push(left);
                        Err(error)
                    }
                    Lie::DoubtsItsRefusals => Err(ProviderError { effect: EffectMay::Maybe, ..error }),
                    Lie::NamesAnotherScope => {
                        let scope = Scope::of(&offering(COMMON, CapacityType::OnDemand).key());
                        Err(ProviderError { kind: ErrorKind::InsufficientCapacity(scope), ..error })
                    }
                    _ => Err(error),
                }
            }
        }
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        let mut listed = self.truth.list().await?;
        listed.extend(locked(&self.told.made_up).iter().cloned());
        let look = self.told.looks.fetch_add(1, Ordering::Relaxed);
        match self.lie {
            Lie::HidesWhatIsNew => listed.retain(|one| matches!(one.state, CloudState::Gone { .. })),
            Lie::HidesWhatEnds => {
                // Once for each, as if the listing lost it between two states.
                let mut ending = locked(&self.told.ending);
                listed.retain(|one| !ending.contains(&one.instance));
                ending.clear();
            }
            Lie::ForgetsEnds => listed.retain(|one| !matches!(one.state, CloudState::Gone { .. })),
            Lie::ForgetsEndsEarly => {
                let now = self.clock.now();
                let is_old = |at: Timestamp| now.since(at) > Span::from_secs(1800);
                listed.retain(|one| !matches!(one.state, CloudState::Gone { at, .. } if is_old(at)));
            }
            Lie::MovesEnds | Lie::SaysThatTheCloudTookIt => {
                for one in &mut listed {
                    if let CloudState::Gone { at, interrupted } = &mut one.state {
                        *interrupted |= self.lie == Lie::SaysThatTheCloudTookIt;
                        if self.lie == Lie::MovesEnds {
                            *at = *at + Span::from_millis(look);
                        }
                    }
                }
            }
            Lie::ShowsOthersInstances => {
                if let Some(others) = &self.others {
                    listed.extend(others.list().await?);
                }
            }
            _ => {}
        }
        Ok(listed)
    }

    async fn terminate(&self, instance: InstanceId, cloud_id: Option<&CloudId>) -> Result<(), ProviderError> {
        let was = self.truth.list().await?.into_iter().find(|one| one.instance == instance);
        match (self.lie, &was) {
            (Lie::FailsToEndWhatNeverWas, None) => {
                return Err(self.error(ErrorKind::Invalid, EffectMay::No));
            }
            (Lie::MakesWhatItShouldEnd, None) => {
                let made = self.made_up_of(instance);
                locked(&self.told.made_up).push(made);
            }
            (Lie::FailsToEndAgain, Some(one)) if matches!(one.state, CloudState::Gone { .. }) => {
                return Err(self.error(ErrorKind::Invalid, EffectMay::No));
            }
            (Lie::EndsNothing, _) => return Ok(()),
            (Lie::EndsOnlyByTheCloudsId, _) if cloud_id.is_none() => return Ok(()),
            (Lie::EndsEverything, _) => {
                for one in self.truth.list().await? {
                    self.truth.terminate(one.instance, None).await?;
                }
            }
            (Lie::EndsOthersInstances, _) => {
                if let Some(others) = &self.others {
                    others.terminate(instance, cloud_id).await?;
                }
            }
            _ => {}
        }
        locked(&self.told.ending).push(instance);
        self.truth.terminate(instance, cloud_id).await
    }
}

/// The tests of a liar.
struct LiarHarness {
    memory: MemoryHarness,
    provider: Liar,
}

impl LiarHarness {
    fn new(lie: Lie) -> Self {
        let memory = MemoryHarness::new();
        let (truth, clock) = (memory.provider.clone(), memory.clock.clone());
        let provider = Liar { lie, was_restarted: false, truth, others: None, clock, told: Arc::default() };
        Self { memory, provider }
    }
}

#[async_trait]
impl Harness for LiarHarness {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn restarted(&self) -> Box<dyn Provider> {
        if self.provider.lie == Lie::ForgetsEverythingAtARestart {
            return Box::new(MemoryHarness::new().provider);
        }
        Box::new(Liar { was_restarted: true, ..self.provider.clone() })
    }

    fn other_installation(&self) -> Box<dyn Provider> {
        let truth = self.memory.cloud.provider("theirs");
        let others = Some(self.memory.provider.clone());
        Box::new(Liar { truth, others, told: Arc::default(), ..self.provider.clone() })
    }

    fn request(&self) -> LaunchRequest {
        self.memory.request()
    }

    fn unmeetable_request(&self) -> LaunchRequest {
        self.memory.unmeetable_request()
    }

    fn restocked(&self) -> Box<dyn Provider> {
        let _ = self.memory.restocked();
        Box::new(self.provider.clone())
    }

    fn now(&self) -> Timestamp {
        self.memory.now()
    }

    async fn pass(&self, span: Span) {
        self.memory.pass(span).await;
    }

    fn has_machines(&self) -> bool {
        self.provider.lie == Lie::IgnoresLeases
    }

    fn lose_launch_reply(&self) -> bool {
        *locked(&self.provider.told.loses_reply) = true;
        true
    }

    fn runs(&self, instance: InstanceId) -> bool {
        self.provider.lie == Lie::SaysGoneTooEarly || self.memory.runs(instance)
    }
}

/// The sentences that a liar breaks, by the suite.
fn broken_by(lie: Lie) -> Vec<&'static str> {
    let breaks = |sentence: &bursar_providers::conformance::Sentence| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        let harness = LiarHarness::new(lie);
        runtime.block_on(AssertUnwindSafe(sentence(&harness)).catch_unwind()).is_err()
    };
    SENTENCES.iter().filter(|(_, sentence)| breaks(sentence)).map(|(name, _)| *name).collect()
}

#[test]
fn each_liar_fails_the_sentences_that_it_breaks_and_no_others() {
    for (lie, sentences) in Lie::TABLE {
        assert_eq!(broken_by(*lie), *sentences, "{lie:?}");
    }
}

#[test]
fn each_sentence_is_broken_by_some_liar() {
    let broken: BTreeSet<&str> = Lie::TABLE.iter().flat_map(|(_, sentences)| *sentences).copied().collect();
    let all: BTreeSet<&str> = SENTENCES.iter().map(|(name, _)| *name).collect();
    assert_eq!(broken, all);
}
