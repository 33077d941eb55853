//! The parts of the state that have changed since they were last recorded. Without a storage that records them,
//! nothing is noted.

use super::settled_ids::Id;
use std::collections::HashSet;
use std::hash::Hash;

/// The changed parts of one kind, or `None` if nobody records them.
pub struct ChangeSet<T>(Option<HashSet<T>>);

impl<T> Default for ChangeSet<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Eq + Hash> ChangeSet<T> {
    /// Notes that a part has changed, is new, or is gone.
    pub fn note(&mut self, part: T) {
        if let Some(parts) = &mut self.0 {
            parts.insert(part);
        }
    }

    /// Notes changes from now on.
    #[cfg(feature = "sqlite")]
    pub fn start(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Removes and returns the changed parts.
    #[cfg(feature = "sqlite")]
    pub fn take(&mut self) -> HashSet<T> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// The number of a recorded reservation. Numbers ascend, so that a storage can append.
pub type ReservationNumber = u64;

/// The changes of live reservations. Most reservations end within milliseconds of benchmarks and seconds of
/// requests, so one that ends before it was recorded leaves no trace.
#[derive(Default)]
pub struct ReservationChanges {
    pub changed: ChangeSet<Id>,
    /// The recorded reservations that have ended.
    pub ended: Vec<ReservationNumber>,
    /// The last number.
    #[cfg(feature = "sqlite")]
    pub last: ReservationNumber,
}

impl ReservationChanges {
    /// Notes that a reservation is no longer live.
    pub fn end(&mut self, number: Option<ReservationNumber>) {
        self.ended.extend(number);
    }
}
