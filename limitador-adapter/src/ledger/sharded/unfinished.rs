//! Cancellations that a shard has not acknowledged. They are repeated, so that the holds of a refused request
//! end before they lapse.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum number of cancellations to repeat. Beyond it, holds lapse.
const MAX: usize = 1 << 16;

/// One cancellation.
pub struct Cancellation {
    /// The number of the shard.
    pub shard: usize,
    pub id: String,
    pub attempt: u64,
}

#[derive(Default)]
pub struct UnfinishedCancellations(Mutex<Vec<Cancellation>>);

impl UnfinishedCancellations {
    pub fn push(&self, shard: usize, id: &str, attempt: u64) {
        let mut all = self.all();
        if all.len() < MAX {
            all.push(Cancellation { shard, id: id.to_owned(), attempt });
        }
    }

    /// Removes and returns the cancellations of one shard.
    pub fn take(&self, shard: usize) -> Vec<Cancellation> {
        self.all().extract_if(.., |one| one.shard == shard).collect()
    }

    /// A panic cannot leave the list half changed.
    fn all(&self) -> MutexGuard<'_, Vec<Cancellation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
