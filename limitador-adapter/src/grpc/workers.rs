//! Which workers live: those that have a stream open here. A worker that has none any more, here or at another adapter, is
//! gone after some time, and its holds end long before they would lapse.

use crate::ledger::moment::Moment;
use crate::ledger::{Ledger, Unavailable, is_worker};
use crate::metrics::AdapterMetrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many times a worker is attended before its time is over.
const OFTEN: u32 = 4;

/// Workers with streams.
pub struct Workers {
    ledger: Arc<dyn Ledger>,
    /// How long a worker is taken to live that has no stream any more.
    grace: Duration,
    /// How many streams each has.
    streams: Mutex<HashMap<String, usize>>,
}

/// A worker has a stream for as long as this lives.
pub struct Presence {
    workers: Arc<Workers>,
    worker: String,
}

impl Workers {
    /// None yet. Who has no stream for `grace` is gone.
    pub fn new(ledger: Arc<dyn Ledger>, grace: Duration) -> Arc<Self> {
        Arc::new(Self { ledger, grace, streams: Mutex::default() })
    }

    /// A worker has opened a stream. `None`: it cannot be told from others by such a name.
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

    /// Tells the ledger that a worker lives, before the next time that all are attended.
    pub async fn attend(&self, worker: &str) {
        if let Err(error) = self.ledger.attend(&[worker.to_owned()], self.grace, Moment::now()).await {
            tracing::debug!(%error, "a worker could not be attended");
        }
    }

    /// Attends all workers, and ends the holds of those that are gone, for ever. An adapter that could not attend its own
    /// for some time, or has just begun, judges nobody: others may have been as blind.
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
                    tracing::warn!(%error, "workers could not be attended");
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

    /// No panic can leave it half changed.
    fn streams(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// The worker's name.
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
