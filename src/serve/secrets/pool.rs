//! Where bcrypt runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::Denied;
use crate::serve::metrics::Metrics;

/// How much bcrypt may go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashLimits {
    /// Checks that run at once.
    pub running: usize,
    /// Checks that wait beside them; what comes on top is turned away.
    pub waiting: usize,
}

impl Default for HashLimits {
    /// All cores but one, and a queue of about 200 ms.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let running = cores.saturating_sub(1).max(1);
        Self {
            running,
            waiting: running * 32,
        }
    }
}

impl HashLimits {
    /// For secrets that people supply, of which one check takes as long as a hundred of the others: half
    /// the threads, so that they leave the others room, and a short queue.
    pub(super) fn of_supplied(self) -> Self {
        Self {
            running: self.running.div_ceil(2),
            waiting: self.waiting.div_ceil(16),
        }
    }
}

/// Few threads at once, few waiting before them.
#[derive(Debug)]
pub(super) struct Pool {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: HashLimits,
    metrics: Arc<Metrics>,
}

impl Pool {
    pub(super) fn new(limits: HashLimits, metrics: &Arc<Metrics>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.running)),
            waiting: AtomicUsize::new(0),
            limits,
            metrics: Arc::clone(metrics),
        }
    }

    /// Does work of which bcrypt is the most.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Denied> {
        let permit = if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            permit
        } else {
            let _place = self.queue().ok_or(Denied::Busy)?;
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            permit.map_err(|_| Denied::Busy)?
        };
        let metrics = Arc::clone(&self.metrics);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            metrics.hashing.inc();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            metrics.hashing.dec();
            result
        });
        done.await.ok().and_then(Result::ok).ok_or(Denied::Busy)
    }

    fn queue(&self) -> Option<Place<'_>> {
        let place = Place(self);
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        self.metrics.hash_queue.inc();
        // Dropping the place gives it back.
        (before < self.limits.waiting).then_some(place)
    }
}

/// A place in the queue, given back when it is dropped.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.hash_queue.dec();
    }
}
