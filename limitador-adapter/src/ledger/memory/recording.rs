//! What a storage needs to record the in-memory ledger, and to continue where a recorded one was.

use super::MemoryLedger;
use super::id_hash::IdHash;
use super::record::{RecordClock, RecordedState, StateChanges};
use super::state::MemoryState;
use crate::ledger::Unavailable;
use crate::ledger::crossing::Crossings;
use crate::ledger::moment::Moment;
use crate::ledger::shares::Capacity;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What stays the same for the whole life of a recorded ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedIdentity {
    /// The keys of the hash of its ids.
    pub hash_keys: [u64; 2],
    /// When it began to count, as time since 1970.
    pub since: Duration,
}

impl RecordedIdentity {
    /// Returns that of a ledger that begins to count now.
    pub fn new(now: Moment) -> Self {
        let IdHash(hash_keys) = IdHash::random();
        Self { hash_keys, since: now.unix }
    }
}

impl MemoryLedger {
    /// Restores a recorded ledger, and notes changes from now on. What has expired in the meantime is gone.
    pub fn restored(
        capacity: impl Into<Capacity>,
        identity: RecordedIdentity,
        recorded: RecordedState,
        now: Moment,
    ) -> Result<Self, Unavailable> {
        let crossings = Arc::<Crossings>::default();
        let mut state = MemoryState::new(capacity.into(), Arc::clone(&crossings), now);
        state.start_recording();
        let clock = RecordClock::after(recorded.saved, now);
        let workers = recorded.workers.clone();
        state.restore(recorded, clock)?;
        let (ids, since) = (IdHash(identity.hash_keys), identity.since);
        let ledger = Self {
            ids,
            state: Mutex::new(state),
            workers: Mutex::default(),
            crossings,
            recalls: Arc::default(),
            since,
        };
        let mut known = ledger.known_workers();
        workers.into_iter().for_each(|(worker, lives)| known.attend(worker, lives, now));
        known.changed.start();
        drop(known);
        ledger.sweep(now)?;
        Ok(ledger)
    }

    /// Returns everything that has changed since the last call, as it is now. No call is half included.
    pub fn changes(&self, now: Moment) -> StateChanges {
        let mut state = self.lock();
        let mut changes = state.changes(RecordClock::new(now));
        drop(state);
        let mut known = self.known_workers();
        let workers = known.changed.take();
        changes.workers = workers.into_iter().map(|worker| (worker, known.lives(worker))).collect();
        changes
    }

    /// Notes changes again that could not be recorded. `now` is the time of [`Self::changes`].
    pub fn note(&self, mut failed: StateChanges, now: Moment) {
        let workers = std::mem::take(&mut failed.workers);
        self.lock().note(failed, RecordClock::new(now));
        let mut known = self.known_workers();
        workers.iter().for_each(|(worker, _)| known.changed.note(*worker));
    }
}
