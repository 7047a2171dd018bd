//! The contract of `Provider` as tests: one function for each of its sentences, over any provider.
//!
//! A provider's tests give a `Harness`, and `provider_conformance!` makes a test of each function. What fails, fails by
//! panicking. That each fails where its sentence is broken is tested too, by providers that break them on purpose
//! (`tests/providers/liars.rs`).

use std::time::Duration;

use async_trait::async_trait;
use bursar_model::{CloudInstance, CloudState, InstanceId, Span, Timestamp};
use futures::future::{LocalBoxFuture, join_all};
use tokio::time::{sleep, timeout};

use crate::{EffectMay, ErrorKind, LIST_KEEPS_ENDED, LISTING_LAG, LaunchRequest, Provider};

/// How long a cloud may take to do what it was told, and to say so. Only a failure waits that long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// The first lease of an instance that is to end by it.
const SHORT_LEASE: Span = Span::from_secs(2);

/// How long after its lease an instance is over: well within what is paid for beyond a lease by default.
const OVERRUN_MAX: Span = Span::from_secs(60);

/// What only a provider's own tests can do.
#[async_trait]
pub trait Harness: Sync {
    /// The provider.
    fn provider(&self) -> &dyn Provider;
    /// The same cloud and installation as a daemon sees it that was just started.
    fn restarted(&self) -> Box<dyn Provider>;
    /// The same cloud as another installation sees it.
    fn other_installation(&self) -> Box<dyn Provider>;
    /// A request for an instance that was never asked for, which can be met.
    fn request(&self) -> LaunchRequest;
    /// A request for an instance that was never asked for, for which the cloud lacks capacity.
    fn unmeetable_request(&self) -> LaunchRequest;
    /// The same cloud with capacity for what could not be met.
    fn restocked(&self) -> Box<dyn Provider>;
    /// The cloud's time.
    fn now(&self) -> Timestamp;
    /// Lets so much of it go by.
    async fn pass(&self, span: Span);
    /// Whether its instances run anything that could end them. Those that do not are exempt from sentence 8.
    fn has_machines(&self) -> bool;
    /// Lets the reply to the next launch get lost. Says whether it can.
    fn lose_launch_reply(&self) -> bool;
    /// Whether anything of an instance runs, by another way than the provider.
    fn runs(&self, instance: InstanceId) -> bool;
}

/// Makes a test of each sentence of the contract: a name for them, what makes a `Harness`, and the arguments of
/// `tokio::test` in parentheses, where it needs some.
#[macro_export]
macro_rules! provider_conformance {
    ($name:ident, $harness:expr) => {
        $crate::provider_conformance!($name, $harness, ());
    };
    ($name:ident, $harness:expr, $runtime:tt) => {
        mod $name {
            use super::*;
            $crate::provider_conformance!(@each @tests { $harness } $runtime);
        }
    };
    (@each $($to:tt)*) => {
        $crate::provider_conformance! { $($to)*
            everything_on_offer_has_a_price_and_carries_the_providers_name,
            launching_again_answers_with_the_same_instance,
            launching_at_the_same_time_makes_one_instance,
            launching_again_after_a_restart_makes_no_second_instance,
            launching_again_after_the_end_makes_no_second_instance,
            launching_together_makes_one_instance_of_each,
            launching_together_again_after_a_restart_makes_none_twice,
            a_launched_instance_is_listed,
            a_refused_launch_leaves_nothing_behind,
            a_launch_without_capacity_says_where,
            a_refused_launch_can_be_met_later,
            a_launch_whose_reply_was_lost_may_have_happened_and_is_found_again,
            whatever_may_cost_money_is_listed,
            an_ended_instance_is_listed_with_its_end,
            an_ended_instance_stays_listed_for_as_long_as_promised,
            terminating_what_never_was_is_no_error,
            terminating_again_is_no_error,
            an_instance_can_be_terminated_by_our_id_alone,
            an_instance_can_be_terminated_after_a_restart,
            when_an_instance_is_gone_nothing_of_it_runs,
            terminating_one_instance_touches_no_other,
            another_installation_sees_and_touches_nothing,
            an_instance_that_hears_nothing_ends_by_its_lease,
        }
    };
    (@tests $harness:tt $runtime:tt $($test:ident,)*) => {$(
        #[tokio::test $runtime]
        async fn $test() {
            let harness = $harness;
            $crate::conformance::$test(&harness).await;
        }
    )*};
    (@table $($test:ident,)*) => {
        &[$((stringify!($test), |harness| Box::pin($test(harness))),)*]
    };
}

/// A sentence of the contract, as something to be tried.
pub type Sentence = for<'a> fn(&'a dyn Harness) -> LocalBoxFuture<'a, ()>;

/// All of them by name.
pub const SENTENCES: &[(&str, Sentence)] = provider_conformance!(@each @table);

/// What can be chosen can be paid for and asked for.
pub async fn everything_on_offer_has_a_price_and_carries_the_providers_name(harness: &dyn Harness) {
    let offerings = harness.provider().offerings().await.expect("the provider answers");
    assert!(!offerings.is_empty());
    for offering in offerings {
        assert_eq!(offering.provider, *harness.provider().name());
        assert!(offering.price.is_some(), "{}", offering.key());
    }
}

/// Sentence 1.
pub async fn launching_again_answers_with_the_same_instance(harness: &dyn Harness) {
    let request = harness.request();
    let first = launch(harness.provider(), &request).await;
    let second = launch(harness.provider(), &request).await;
    assert!(is_same(&first, &second));
    assert_eq!(count(harness, harness.provider(), request.instance).await, 1);
}

/// Sentence 1, when two calls overlap.
pub async fn launching_at_the_same_time_makes_one_instance(harness: &dyn Harness) {
    let request = harness.request();
    let restarted = harness.restarted();
    let calls = [harness.provider(), &*restarted, harness.provider(), &*restarted];
    let launched = join_all(calls.map(|provider| launch(provider, &request))).await;
    for instance in &launched {
        assert!(is_same(instance, &launched[0]), "{launched:?}");
    }
    assert_eq!(count(harness, harness.provider(), request.instance).await, 1);
}

/// Sentence 1, across restarts.
pub async fn launching_again_after_a_restart_makes_no_second_instance(harness: &dyn Harness) {
    let request = harness.request();
    let before = launch(harness.provider(), &request).await;
    let restarted = harness.restarted();
    let after = launch(&*restarted, &request).await;
    assert!(is_same(&before, &after));
    assert_eq!(count(harness, &*restarted, request.instance).await, 1);
}

/// Sentence 1, even after that instance ended.
pub async fn launching_again_after_the_end_makes_no_second_instance(harness: &dyn Harness) {
    let request = harness.request();
    let before = launch(harness.provider(), &request).await;
    terminate(harness.provider(), &before).await;
    gone(harness.provider(), request.instance).await;
    let after = launch(harness.provider(), &request).await;
    assert!(is_same(&before, &after));
    assert!(is_gone(&after));
    assert_eq!(count(harness, harness.provider(), request.instance).await, 1);
    assert!(!harness.runs(request.instance));
}

/// Sentence 1, for several at once.
pub async fn launching_together_makes_one_instance_of_each(harness: &dyn Harness) {
    let requests = alike(harness);
    let launched = launch_together(harness.provider(), &requests).await;
    for (request, instance) in requests.iter().zip(&launched) {
        assert_eq!(instance.instance, request.instance);
        assert_eq!(count(harness, harness.provider(), request.instance).await, 1);
    }
    terminate(harness.provider(), &launched[1]).await;
    gone(harness.provider(), launched[1].instance).await;
    let listed = find(harness.provider(), launched[0].instance).await.expect("it is listed");
    assert!(is_same(&listed, &launched[0]) && !is_gone(&listed));
}

/// Sentence 1, for several at once and across restarts, some of which have ended.
pub async fn launching_together_again_after_a_restart_makes_none_twice(harness: &dyn Harness) {
    let requests = alike(harness);
    let before = launch_together(harness.provider(), &requests).await;
    terminate(harness.provider(), &before[2]).await;
    gone(harness.provider(), before[2].instance).await;
    let restarted = harness.restarted();
    let after = launch_together(&*restarted, &requests).await;
    for (before, after) in before.iter().zip(&after) {
        assert!(is_same(before, after), "{before:?} {after:?}");
        assert_eq!(count(harness, &*restarted, before.instance).await, 1);
    }
    assert!(is_gone(&after[2]) && !is_gone(&after[0]));
}

/// Sentence 2.
pub async fn a_launched_instance_is_listed(harness: &dyn Harness) {
    let request = harness.request();
    let launched = launch(harness.provider(), &request).await;
    assert_eq!(launched.instance, request.instance);
    harness.pass(LISTING_LAG).await;
    let listed = find(harness.provider(), request.instance).await.expect("it is listed");
    assert!(is_same(&launched, &listed));
    assert!(!is_gone(&listed));
}

/// Sentence 3.
pub async fn a_refused_launch_leaves_nothing_behind(harness: &dyn Harness) {
    let request = harness.unmeetable_request();
    let error = harness.provider().launch(&request).await.expect_err("it is refused");
    assert_eq!(error.effect, EffectMay::No);
    assert_eq!(count(harness, harness.provider(), request.instance).await, 0);
    assert!(!harness.runs(request.instance));
}

/// Sentence 3, and where not to ask again.
pub async fn a_launch_without_capacity_says_where(harness: &dyn Harness) {
    let request = harness.unmeetable_request();
    let error = harness.provider().launch(&request).await.expect_err("it is refused");
    let ErrorKind::InsufficientCapacity(scope) = &error.kind else { panic!("{error:?}") };
    assert!(scope.covers(&request.offering), "{scope}");
}

/// Sentences 1 and 3: that a request was refused once does not use up its token.
pub async fn a_refused_launch_can_be_met_later(harness: &dyn Harness) {
    let request = harness.unmeetable_request();
    harness.provider().launch(&request).await.expect_err("it is refused");
    let restocked = harness.restocked();
    let first = launch(&*restocked, &request).await;
    let second = launch(&*restocked, &request).await;
    assert!(is_same(&first, &second));
    assert_eq!(count(harness, &*restocked, request.instance).await, 1);
}

/// Sentence 3, where it is not known whether the call took effect.
pub async fn a_launch_whose_reply_was_lost_may_have_happened_and_is_found_again(harness: &dyn Harness) {
    if !harness.lose_launch_reply() {
        return;
    }
    let request = harness.request();
    let error = harness.provider().launch(&request).await.expect_err("the reply is lost");
    assert_eq!(error.effect, EffectMay::Maybe);
    launch(harness.provider(), &request).await;
    assert_eq!(count(harness, harness.provider(), request.instance).await, 1);
}

/// Sentence 4: all the while, and while it ends too.
pub async fn whatever_may_cost_money_is_listed(harness: &dyn Harness) {
    let requests = [harness.request(), harness.request(), harness.request()];
    let launched = join_all(requests.iter().map(|request| launch(harness.provider(), request))).await;
    harness.pass(LISTING_LAG).await;
    let all_are_listed = |listed: &[CloudInstance]| {
        requests.iter().all(|request| listed.iter().any(|one| one.instance == request.instance))
    };
    terminate(harness.provider(), &launched[0]).await;
    wait_until(|| async {
        let listed = harness.provider().list().await.expect("the provider lists");
        assert!(all_are_listed(&listed), "{listed:?} lacks one of {launched:?}");
        listed.iter().any(|one| one.instance == launched[0].instance && is_gone(one))
    })
    .await;
}

/// Sentence 4.
pub async fn an_ended_instance_is_listed_with_its_end(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    terminate(harness.provider(), &launched).await;
    let listed = gone(harness.provider(), launched.instance).await;
    let CloudState::Gone { at, interrupted } = listed.state else { panic!("{listed:?}") };
    assert!(at >= listed.launched_at);
    assert!(!interrupted);
    assert!(find(&*harness.restarted(), launched.instance).await.is_some());
}

/// Sentence 4, for how long.
pub async fn an_ended_instance_stays_listed_for_as_long_as_promised(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    terminate(harness.provider(), &launched).await;
    let before = gone(harness.provider(), launched.instance).await;
    let CloudState::Gone { at, .. } = before.state else { panic!("{before:?}") };
    // All but some seconds, which the calls may take.
    let left = (at + LIST_KEEPS_ENDED).since(harness.now()).saturating_sub(Span::from_secs(30));
    harness.pass(left).await;
    assert_eq!(find(harness.provider(), launched.instance).await, Some(before));
}

/// Sentence 5, for what never was.
pub async fn terminating_what_never_was_is_no_error(harness: &dyn Harness) {
    let request = harness.request();
    harness.provider().terminate(request.instance, None).await.expect("it is no error");
    assert_eq!(count(harness, harness.provider(), request.instance).await, 0);
}

/// Sentence 5, for what is ending and for what is gone.
pub async fn terminating_again_is_no_error(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    terminate(harness.provider(), &launched).await;
    terminate(harness.provider(), &launched).await;
    let before = gone(harness.provider(), launched.instance).await;
    terminate(harness.provider(), &launched).await;
    let after = find(harness.provider(), launched.instance).await.expect("it is still listed");
    assert_eq!(before, after);
}

/// Sentence 5, for an instance whose launch answer was lost.
pub async fn an_instance_can_be_terminated_by_our_id_alone(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    harness.provider().terminate(launched.instance, None).await.expect("it is terminated");
    gone(harness.provider(), launched.instance).await;
}

/// Sentence 5, by a daemon that did not launch it.
pub async fn an_instance_can_be_terminated_after_a_restart(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    let restarted = harness.restarted();
    terminate(&*restarted, &launched).await;
    gone(&*restarted, launched.instance).await;
}

/// Sentence 6.
pub async fn when_an_instance_is_gone_nothing_of_it_runs(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    wait_until(|| async { harness.runs(launched.instance) }).await;
    terminate(harness.provider(), &launched).await;
    gone(harness.provider(), launched.instance).await;
    assert!(!harness.runs(launched.instance));
}

/// Sentence 7, for our own.
pub async fn terminating_one_instance_touches_no_other(harness: &dyn Harness) {
    let kept = launch(harness.provider(), &harness.request()).await;
    let ended = launch(harness.provider(), &harness.request()).await;
    terminate(harness.provider(), &ended).await;
    gone(harness.provider(), ended.instance).await;
    harness.pass(LISTING_LAG).await;
    let listed = find(harness.provider(), kept.instance).await.expect("it is listed");
    assert!(matches!(listed.state, CloudState::Pending | CloudState::Running), "{listed:?}");
}

/// Sentence 7.
pub async fn another_installation_sees_and_touches_nothing(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    let other = harness.other_installation();
    assert_eq!(count(harness, &*other, launched.instance).await, 0);
    other.terminate(launched.instance, Some(&launched.cloud_id)).await.expect("it is no error");
    let listed = find(harness.provider(), launched.instance).await.expect("it is listed");
    assert!(matches!(listed.state, CloudState::Pending | CloudState::Running), "{listed:?}");
}

/// Sentence 8.
pub async fn an_instance_that_hears_nothing_ends_by_its_lease(harness: &dyn Harness) {
    if !harness.has_machines() {
        return;
    }
    let lease_until = harness.now() + SHORT_LEASE;
    let launched = launch(harness.provider(), &LaunchRequest { lease_until, ..harness.request() }).await;
    let listed = gone(harness.provider(), launched.instance).await;
    let CloudState::Gone { at, interrupted } = listed.state else { panic!("{listed:?}") };
    assert!(at <= lease_until + OVERRUN_MAX, "{at} with a lease until {lease_until}");
    assert!(!interrupted);
    assert!(!harness.runs(launched.instance));
}

async fn launch(provider: &dyn Provider, request: &LaunchRequest) -> CloudInstance {
    provider.launch(request).await.expect("the launch can be met")
}

/// Requests that are alike but for their ids and secrets.
fn alike(harness: &dyn Harness) -> Vec<LaunchRequest> {
    let first = harness.request();
    let others = [harness.request(), harness.request()].map(|other| LaunchRequest {
        instance: other.instance,
        secret: other.secret,
        ..first.clone()
    });
    std::iter::once(first.clone()).chain(others).collect()
}

async fn launch_together(provider: &dyn Provider, requests: &[LaunchRequest]) -> Vec<CloudInstance> {
    let answers = provider.launch_together(requests, false).await;
    assert_eq!(answers.len(), requests.len());
    answers.into_iter().map(|answer| answer.expect("the launch can be met")).collect()
}

async fn terminate(provider: &dyn Provider, instance: &CloudInstance) {
    provider.terminate(instance.instance, Some(&instance.cloud_id)).await.expect("it is terminated");
}

async fn find(provider: &dyn Provider, instance: InstanceId) -> Option<CloudInstance> {
    let listed = provider.list().await.expect("the provider lists");
    listed.into_iter().find(|listed| listed.instance == instance)
}

/// How many there are, counted when the listing must have come to know of them.
async fn count(harness: &dyn Harness, provider: &dyn Provider, instance: InstanceId) -> usize {
    harness.pass(LISTING_LAG).await;
    let listed = provider.list().await.expect("the provider lists");
    listed.iter().filter(|listed| listed.instance == instance).count()
}

/// Waits until the list shows the end.
async fn gone(provider: &dyn Provider, instance: InstanceId) -> CloudInstance {
    wait_until(|| async { find(provider, instance).await.as_ref().is_some_and(is_gone) }).await;
    find(provider, instance).await.expect("what has just ended is listed")
}

async fn wait_until<F: Future<Output = bool>>(mut look: impl FnMut() -> F) {
    let waiting = async {
        while !look().await {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the cloud does in time what it was told");
}

fn is_gone(instance: &CloudInstance) -> bool {
    matches!(instance.state, CloudState::Gone { .. })
}

fn is_same(one: &CloudInstance, other: &CloudInstance) -> bool {
    one.cloud_id == other.cloud_id && one.instance == other.instance && one.launched_at == other.launched_at
}
