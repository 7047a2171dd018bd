//! Work that waits for object stores: on a thread and in a runtime of its own, so that nothing of it, whatever it hangs on,
//! keeps the agent's loop from its lease.

use std::future::Future;

use tokio::{
    runtime,
    sync::oneshot::{self, error::TryRecvError},
    task::spawn_blocking,
};

/// Work under way. Dropped, it is given up at its next wait.
#[derive(Debug)]
pub(crate) struct Job<T> {
    /// Closed by the drop.
    _give_up: oneshot::Sender<()>,
    result: oneshot::Receiver<T>,
}

/// The work ended without a result: it panicked, or the system gave it no runtime.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the work on the store broke off")]
pub(crate) struct BrokeOff;

impl<T: Send + 'static> Job<T> {
    /// Begins it.
    pub(crate) fn begin<F: Future<Output = T>>(work: impl FnOnce() -> F + Send + 'static) -> Self {
        let (_give_up, given_up) = oneshot::channel();
        let (done, result) = oneshot::channel();
        spawn_blocking(move || {
            let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = given_up => {}
                    outcome = work() => drop(done.send(outcome)),
                }
            });
            // What still waits for a disk or a name is not waited for.
            runtime.shutdown_background();
        });
        Self { _give_up, result }
    }

    /// The result, once there is one.
    pub(crate) fn poll(&mut self) -> Option<Result<T, BrokeOff>> {
        match self.result.try_recv() {
            Ok(outcome) => Some(Ok(outcome)),
            Err(TryRecvError::Closed) => Some(Err(BrokeOff)),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Waits for the result.
    pub(crate) async fn wait(mut self) -> Result<T, BrokeOff> {
        (&mut self.result).await.map_err(|_| BrokeOff)
    }
}
