//! Tracks which workers are alive: those with an open stream here. A worker without a stream at any adapter
//! counts as gone after a grace period. Its holds then end, long before they would expire.
//!
//! If the worker's side has closed the stream, the period is short ([`DEPARTURE`]): this adapter is reachable, so
//! the worker would be back by then. The full period is for workers that lost their adapter.

use crate::ledger::moment::Moment;
use crate::ledger::{Ledger, Unavailable, is_worker};
use crate::metrics::AdapterMetrics;
use engine::backoff::MAX_BACKOFF;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many times a worker is confirmed within its grace period, and within [`DEPARTURE`].
const OFTEN: u32 = 4;

/// How long a worker counts as alive after its side has closed its last stream. Filters wait for at most
/// [`MAX_BACKOFF`] until they open another one.
pub const DEPARTURE: Duration = Duration::from_millis(MAX_BACKOFF + 1_000);

/// The workers with streams.
pub struct Workers {
    ledger: Arc<dyn Ledger>,
    /// How long a worker counts as alive without a stream.
    grace: Duration,
    streams: Mutex<WorkerStreams>,
}

#[derive(Default)]
struct WorkerStreams {
    /// The number of streams of each worker.
    open: HashMap<String, usize>,
    /// The workers that have closed their last stream since the last confirmation.
    departed: HashSet<String>,
}

/// Keeps a worker alive until it is dropped.
pub struct Presence {
    workers: Arc<Workers>,
    worker: String,
    end: StreamEnd,
}

/// Knows whether this adapter has ended a stream. Otherwise, the caller ends it.
#[derive(Clone, Debug, Default)]
pub struct StreamEnd(Arc<AtomicBool>);

impl StreamEnd {
    /// Records that this adapter ends the stream.
    pub fn set_ours(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_ours(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Workers {
    /// Creates a set of workers. A worker without a stream for `grace` counts as gone.
    pub fn new(ledger: Arc<dyn Ledger>, grace: Duration) -> Arc<Self> {
        Arc::new(Self { ledger, grace, streams: Mutex::default() })
    }

    /// Records that a worker has opened a stream. `end` knows who ends the stream. Returns `None` if the name does
    /// not identify a worker.
    pub fn enter(self: &Arc<Self>, worker: &str, end: StreamEnd) -> Option<Presence> {
        if !is_worker(worker) {
            return None;
        }
        let mut streams = self.streams();
        streams.departed.remove(worker);
        let open = streams.open.entry(worker.to_owned()).or_default();
        *open = open.saturating_add(1);
        drop(streams);
        Some(Presence { workers: Arc::clone(self), worker: worker.to_owned(), end })
    }

    /// Confirms a worker to the ledger at once instead of in the next round.
    pub async fn attend(&self, worker: &str) {
        if let Err(error) = self.ledger.attend(&[worker.to_owned()], self.grace, Moment::now()).await {
            tracing::debug!(%error, "a worker could not be attended");
        }
    }

    /// Confirms all workers and ends the holds of those that are gone, in a loop. An adapter that has just
    /// started, or could not confirm its own workers for a while, does not end any holds, because other
    /// adapters may have had the same problem.
    pub async fn look_after(self: Arc<Self>, metrics: Arc<AdapterMetrics>) {
        let every = self.grace.min(DEPARTURE) / OFTEN;
        let mut look = tokio::time::interval(every.max(Duration::from_millis(10)));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut attending_since = None;
        loop {
            look.tick().await;
            match self.look(&mut attending_since).await {
                Ok(0) => {}
                Ok(released) => {
                    metrics.released_of_gone.increment(released as u64);
                    tracing::warn!(released, "workers are gone, and their reservations have ended");
                }
                Err(error) => {
                    attending_since = None;
                    tracing::debug!(%error, "workers could not be attended");
                }
            }
        }
    }

    async fn look(&self, attending_since: &mut Option<Instant>) -> Result<usize, Unavailable> {
        self.confirm().await?;
        if attending_since.get_or_insert_with(Instant::now).elapsed() < self.grace {
            return Ok(0);
        }
        self.ledger.release_gone(Moment::now()).await
    }

    /// Confirms the workers with streams to the ledger, and shortens the time of those that have departed. If a
    /// departed worker is at another adapter, that one confirms it again before this time is over. If the ledger
    /// fails, departed workers keep their full grace period.
    pub async fn confirm(&self) -> Result<(), Unavailable> {
        let (present, departed) = {
            let mut streams = self.streams();
            let departed: Vec<_> = streams.departed.drain().collect();
            (streams.open.keys().cloned().collect::<Vec<_>>(), departed)
        };
        self.ledger.attend(&present, self.grace, Moment::now()).await?;
        if !departed.is_empty() {
            self.ledger.attend(&departed, self.grace.min(DEPARTURE), Moment::now()).await?;
        }
        Ok(())
    }

    /// A panic cannot leave the maps inconsistent.
    fn streams(&self) -> MutexGuard<'_, WorkerStreams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    pub fn worker(&self) -> &str {
        &self.worker
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut streams = self.workers.streams();
        if let Some(open) = streams.open.get_mut(&self.worker) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                streams.open.remove(&self.worker);
                if !self.end.is_ours() {
                    streams.departed.insert(self.worker.clone());
                }
            }
        }
    }
}
