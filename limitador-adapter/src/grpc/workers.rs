//! Tracks which workers are alive: those with an open stream here. A worker without a stream at any adapter
//! counts as gone after a grace period. Its holds then end, long before they would expire.

use crate::ledger::moment::Moment;
use crate::ledger::{Ledger, Unavailable, is_worker};
use crate::metrics::AdapterMetrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many times a worker is confirmed within its grace period.
const OFTEN: u32 = 4;

/// The workers with streams.
pub struct Workers {
    ledger: Arc<dyn Ledger>,
    /// How long a worker counts as alive without a stream.
    grace: Duration,
    /// The number of streams of each worker.
    streams: Mutex<HashMap<String, usize>>,
}

/// Keeps a worker alive until it is dropped.
pub struct Presence {
    workers: Arc<Workers>,
    worker: String,
}

impl Workers {
    /// Creates a set of workers. A worker without a stream for `grace` counts as gone.
    pub fn new(ledger: Arc<dyn Ledger>, grace: Duration) -> Arc<Self> {
        Arc::new(Self { ledger, grace, streams: Mutex::default() })
    }

    /// Records that a worker has opened a stream. Returns `None` if the name does not identify a worker.
    pub fn enter(self: &Arc<Self>, worker: &str) -> Option<Presence> {
        if !is_worker(worker) {
            return None;
        }
        let mut streams = self.streams();
        let open = streams.entry(worker.to_owned()).or_default();
        *open = open.saturating_add(1);
        drop(streams);
        Some(Presence { workers: Arc::clone(self), worker: worker.to_owned() })
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
        let mut look = tokio::time::interval((self.grace / OFTEN).max(Duration::from_millis(10)));
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
        let workers: Vec<_> = self.streams().keys().cloned().collect();
        self.ledger.attend(&workers, self.grace, Moment::now()).await?;
        if attending_since.get_or_insert_with(Instant::now).elapsed() < self.grace {
            return Ok(0);
        }
        self.ledger.release_gone(Moment::now()).await
    }

    /// A panic cannot leave the map inconsistent.
    fn streams(&self) -> MutexGuard<'_, HashMap<String, usize>> {
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
        if let Some(open) = streams.get_mut(&self.worker) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                streams.remove(&self.worker);
            }
        }
    }
}
