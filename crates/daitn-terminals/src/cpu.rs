//! The node's own pool for arithmetic: as many pieces of work at once as it has threads, a bounded queue before them.

use crate::limits::CPU_QUEUE_MAX;
use daitn_messages::rejection::{Code, Rejection};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;

/// The pool.
#[derive(Debug)]
pub(crate) struct Cpu {
    threads: Arc<Semaphore>,
    n_waiting: AtomicUsize,
}

/// Counts one down when dropped, also when the waiter gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cpu {
    /// A pool of so many threads, at least one.
    #[must_use]
    pub(crate) fn new(n_threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(n_threads.max(1))),
            n_waiting: AtomicUsize::new(0),
        }
    }

    /// Runs work when a thread is free.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where too much waits already, [`Code::Internal`] where the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Rejection> {
        if self.n_waiting.fetch_add(1, Ordering::Relaxed) >= CPU_QUEUE_MAX {
            self.n_waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejection::new(
                Code::Overloaded,
                "too much work waits on this node",
            ));
        }
        let waiting = Waiting(&self.n_waiting);
        let permit = self
            .threads
            .clone()
            .acquire_owned()
            .await
            .expect("the pool is never closed");
        drop(waiting);
        let work = move || {
            // Who asked may have given up: the thread is taken until the work has ended.
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            tracing::error!("work on the CPU pool panicked: {error}");
            Rejection::new(Code::Internal, "the work panicked; the node's log says more")
        })
    }
}
