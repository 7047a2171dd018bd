//! One life of the daemon, and where it ends.
//!
//! Each step by which the daemon reaches beyond itself, a commit or a call to the cloud, is a boundary. They are numbered
//! in one sequence over all lives: a run without a crash tells how many there are, and others die at each of them in
//! turn. Between two boundaries the daemon only thinks; so that this makes no difference either, it can also die whenever
//! its task is woken. Whatever a daemon that has died left behind gets no further than its next boundary.

use std::{
    collections::BTreeSet,
    future::{pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use async_trait::async_trait;
use bursar_model::{CloudId, CloudInstance, InstanceId, Offering, ProviderName};
use bursar_providers::{LaunchRequest, Provider, ProviderError, faulty::Call};
use tokio::sync::watch;

/// A step by which the daemon reaches beyond itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// A commit. It is a single moment.
    Commit,
    /// A call to a provider.
    Call(Call),
}

/// On which side of a boundary the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Nothing of it has happened.
    Before,
    /// The request of a call is under way. No commit has such a moment.
    During,
    /// It is done, and nobody heard.
    After,
}

impl Boundary {
    /// The sides on which the daemon can die.
    #[must_use]
    pub const fn sides(self) -> &'static [Side] {
        match self {
            Self::Commit => &[Side::Before, Side::After],
            Self::Call(_) => &[Side::Before, Side::During, Side::After],
        }
    }
}

/// What becomes of the requests that are under way when the daemon dies. No daemon ever gets their replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderWay {
    /// Those that had not arrived never do.
    #[default]
    Lost,
    /// They arrive, if need be when the next daemon is at work.
    Arrives,
}

/// A moment at which a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The boundary of this number, counted from 1 over all lives.
    Boundary(u64, Side),
    /// The daemon's task is woken for this time, counted likewise.
    Poll(u64),
}

/// All lives of the daemon of a world. Copies are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lives(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    boundaries: Vec<Boundary>,
    polls: u64,
    ends: BTreeSet<End>,
    /// A life ends at the boundary of this kind that comes after so many others of its kind.
    awaited: Option<(Boundary, u32, Side)>,
    under_way: UnderWay,
}

/// One of them. Copies are the same.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    number: u64,
    lives: Lives,
    /// Once it is over: what becomes of the requests that are under way.
    over: Arc<watch::Sender<Option<UnderWay>>>,
}

/// A provider as a daemon reaches it while it lives.
#[derive(Debug)]
struct MortalProvider {
    life: Life,
    inner: Arc<dyn Provider>,
}

impl Lives {
    pub(crate) fn begin(&self) -> Life {
        let mut state = self.state();
        state.begun += 1;
        Life { number: state.begun, lives: self.clone(), over: Arc::new(watch::Sender::new(None)) }
    }

    pub(crate) fn boundaries(&self) -> Vec<Boundary> {
        self.state().boundaries.clone()
    }

    pub(crate) fn polls(&self) -> u64 {
        self.state().polls
    }

    /// Whichever life comes to this moment ends there.
    pub(crate) fn end_at(&self, end: End) {
        self.state().ends.insert(end);
    }

    /// The same for the next boundary of a kind, after so many others of that kind.
    pub(crate) fn end_at_next(&self, boundary: Boundary, after: u32, side: Side) {
        self.state().awaited = Some((boundary, after, side));
    }

    pub(crate) fn set_under_way(&self, under_way: UnderWay) {
        self.state().under_way = under_way;
    }

    /// Every change is a single step, so that a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// Which one it is, counted from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Ends it here and now.
    pub(crate) fn end(&self) {
        let under_way = self.lives.state().under_way;
        self.over.send_if_modified(|over| over.replace(under_way).is_none());
    }

    /// Waits until it is over.
    pub(crate) async fn over(&self) {
        self.over_with(|_| true).await;
    }

    async fn over_with(&self, wanted: impl Fn(UnderWay) -> bool) {
        let mut watcher = self.over.subscribe();
        let over = watcher.wait_for(|over| over.is_some_and(&wanted)).await;
        assert!(over.is_ok(), "the sender is ours and lives as long as we do");
    }

    fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// A task that gets no further once this life is over.
    pub(crate) async fn live(self, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        poll_fn(|context| {
            let poll = {
                let mut state = self.lives.state();
                state.polls += 1;
                state.polls
            };
            self.come_to(End::Poll(poll));
            if self.is_over() { Poll::Pending } else { task.as_mut().poll(context) }
        })
        .await;
    }

    /// The provider as the daemon of this life reaches it.
    pub(crate) fn reach(&self, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(MortalProvider { life: self.clone(), inner })
    }

    /// The number of the boundary that is next.
    pub(crate) fn next_boundary(&self, boundary: Boundary) -> u64 {
        let mut state = self.lives.state();
        state.boundaries.push(boundary);
        let number = state.boundaries.len() as u64;
        match state.awaited {
            Some((kind, 0, side)) if kind == boundary => {
                state.awaited = None;
                state.ends.insert(End::Boundary(number, side));
            }
            Some((kind, after, side)) if kind == boundary => state.awaited = Some((kind, after - 1, side)),
            Some(_) | None => {}
        }
        number
    }

    /// Gets by only alive.
    pub(crate) async fn pass(&self, boundary: u64, side: Side) {
        self.come_to(End::Boundary(boundary, side));
        if self.is_over() {
            pending().await
        }
    }

    fn come_to(&self, moment: End) {
        let ends = !self.is_over() && self.lives.state().ends.remove(&moment);
        if ends {
            self.end();
        }
    }
}

impl MortalProvider {
    async fn call<T>(&self, call: Call, request: impl Future<Output = T> + Send) -> T {
        let boundary = self.life.next_boundary(Boundary::Call(call));
        self.life.pass(boundary, Side::Before).await;
        self.life.come_to(End::Boundary(boundary, Side::During));
        let reply = tokio::select! {
            biased;
            () = self.life.over_with(|under_way| under_way == UnderWay::Lost) => pending().await,
            reply = request => reply,
        };
        self.life.pass(boundary, Side::After).await;
        reply
    }
}

#[async_trait]
impl Provider for MortalProvider {
    fn name(&self) -> &ProviderName {
        self.inner.name()
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        self.call(Call::Offerings, self.inner.offerings()).await
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        self.call(Call::Launch, self.inner.launch(request)).await
    }

    fn launches_at_once(&self) -> usize {
        self.inner.launches_at_once()
    }

    async fn launch_together(
        &self,
        requests: &[LaunchRequest],
        whole: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        self.call(Call::Launch, self.inner.launch_together(requests, whole)).await
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        self.call(Call::List, self.inner.list()).await
    }

    async fn terminate(&self, instance: InstanceId, cloud_id: Option<&CloudId>) -> Result<(), ProviderError> {
        self.call(Call::Terminate, self.inner.terminate(instance, cloud_id)).await
    }
}
