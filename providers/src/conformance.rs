//! The contract of `Provider` as tests: one function for each of its sentences, over any provider.
//!
//! A provider's tests give a `Harness`, and `provider_conformance!` makes a test of each function. What fails, fails by
//! panicking.

use std::time::Duration;

use bursar_model::{CloudInstance, CloudState, InstanceId};
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{EffectMay, ErrorKind, LaunchRequest, Provider};

/// How long a cloud may take to do what it was told. Only a failure waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// What only a provider's own tests can do.
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
    /// Lets the reply to the next launch get lost. Says whether it can.
    fn lose_launch_reply(&self) -> bool;
    /// Whether anything of an instance runs, by another way than the provider.
    fn runs(&self, instance: InstanceId) -> bool;
}

/// Makes a test of each sentence of the contract: a name for them and what makes a `Harness`.
#[macro_export]
macro_rules! provider_conformance {
    ($name:ident, $harness:expr) => {
        mod $name {
            use super::*;
            $crate::provider_conformance!(@tests $harness,
                everything_on_offer_has_a_price_and_carries_the_providers_name,
                launching_again_answers_with_the_same_instance,
                launching_at_the_same_time_makes_one_instance,
                launching_again_after_a_restart_makes_no_second_instance,
                launching_again_after_the_end_makes_no_second_instance,
                a_launched_instance_is_listed_from_the_start,
                a_refused_launch_leaves_nothing_behind,
                a_launch_without_capacity_says_where,
                a_launch_whose_reply_was_lost_may_have_happened_and_is_found_again,
                an_ended_instance_is_listed_with_its_end,
                terminating_what_never_was_is_no_error,
                terminating_again_is_no_error,
                an_instance_can_be_terminated_by_our_id_alone,
                an_instance_can_be_terminated_after_a_restart,
                when_an_instance_is_gone_nothing_of_it_runs,
                another_installation_sees_and_touches_nothing,
            );
        }
    };
    (@tests $harness:expr, $($test:ident,)*) => {$(
        #[tokio::test]
        async fn $test() {
            let harness = $harness;
            $crate::conformance::$test(&harness).await;
        }
    )*};
}

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
    assert_eq!(count(harness.provider(), request.instance).await, 1);
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
    assert_eq!(count(harness.provider(), request.instance).await, 1);
}

/// Sentence 1, across restarts.
pub async fn launching_again_after_a_restart_makes_no_second_instance(harness: &dyn Harness) {
    let request = harness.request();
    let before = launch(harness.provider(), &request).await;
    let restarted = harness.restarted();
    let after = launch(&*restarted, &request).await;
    assert!(is_same(&before, &after));
    assert_eq!(count(&*restarted, request.instance).await, 1);
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
    assert_eq!(count(harness.provider(), request.instance).await, 1);
    assert!(!harness.runs(request.instance));
}

/// Sentence 2.
pub async fn a_launched_instance_is_listed_from_the_start(harness: &dyn Harness) {
    let request = harness.request();
    let launched = launch(harness.provider(), &request).await;
    assert_eq!(launched.instance, request.instance);
    let listed = find(harness.provider(), request.instance).await.expect("it is listed");
    assert!(is_same(&launched, &listed));
    assert!(!is_gone(&listed));
}

/// Sentence 3.
pub async fn a_refused_launch_leaves_nothing_behind(harness: &dyn Harness) {
    let request = harness.unmeetable_request();
    let error = harness.provider().launch(&request).await.expect_err("it is refused");
    assert_eq!(error.effect, EffectMay::No);
    assert_eq!(count(harness.provider(), request.instance).await, 0);
    assert!(!harness.runs(request.instance));
}

/// Sentence 3, and where not to ask again.
pub async fn a_launch_without_capacity_says_where(harness: &dyn Harness) {
    let request = harness.unmeetable_request();
    let error = harness.provider().launch(&request).await.expect_err("it is refused");
    let ErrorKind::InsufficientCapacity(scope) = &error.kind else { panic!("{error:?}") };
    assert!(scope.covers(&request.offering), "{scope}");
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
    assert_eq!(count(harness.provider(), request.instance).await, 1);
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

/// Sentence 5, for what never was.
pub async fn terminating_what_never_was_is_no_error(harness: &dyn Harness) {
    let request = harness.request();
    harness.provider().terminate(request.instance, None).await.expect("it is no error");
    assert_eq!(count(harness.provider(), request.instance).await, 0);
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

/// Sentence 7.
pub async fn another_installation_sees_and_touches_nothing(harness: &dyn Harness) {
    let launched = launch(harness.provider(), &harness.request()).await;
    let other = harness.other_installation();
    assert_eq!(count(&*other, launched.instance).await, 0);
    other.terminate(launched.instance, Some(&launched.cloud_id)).await.expect("it is no error");
    let listed = find(harness.provider(), launched.instance).await.expect("it is listed");
    assert!(matches!(listed.state, CloudState::Pending | CloudState::Running), "{listed:?}");
}

async fn launch(provider: &dyn Provider, request: &LaunchRequest) -> CloudInstance {
    provider.launch(request).await.expect("the launch can be met")
}

async fn terminate(provider: &dyn Provider, instance: &CloudInstance) {
    provider.terminate(instance.instance, Some(&instance.cloud_id)).await.expect("it is terminated");
}

async fn find(provider: &dyn Provider, instance: InstanceId) -> Option<CloudInstance> {
    let listed = provider.list().await.expect("the provider lists");
    listed.into_iter().find(|listed| listed.instance == instance)
}

async fn count(provider: &dyn Provider, instance: InstanceId) -> usize {
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
