//! The ids of reservations that the adapter makes itself.

use engine::exchange::ReservationId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers reservations. The ids have the form of a filter's, because Redis remembers settled ids in a few bytes if they
/// differ only in their number.
pub struct OwnIds {
    /// Random, and not the name of a worker: no worker attends these reservations.
    prefix: Arc<str>,
    next: AtomicU64,
}

impl Default for OwnIds {
    fn default() -> Self {
        Self { prefix: uuid::Uuid::new_v4().to_string().into(), next: AtomicU64::default() }
    }
}

impl OwnIds {
    /// Returns an id that no other call returns, in this process or another.
    pub fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ReservationId { prefix: Arc::clone(&self.prefix), number }.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::worker_of;

    #[test]
    fn ids_of_one_process_differ_in_their_number_only() {
        let ids = OwnIds::default();
        let (first, second) = (ids.next(), ids.next());
        assert_eq!(first.strip_suffix("-0"), second.strip_suffix("-1"));
        assert_ne!(first.strip_suffix("-0"), None);
        assert_ne!(first, OwnIds::default().next());
    }

    #[test]
    fn an_id_names_no_worker() {
        assert_eq!(worker_of(&OwnIds::default().next()), None);
    }
}
