//! The in-memory ledger. It has a single lock, because a reserve reads several buckets before it writes them.
//! Without the lock, two concurrent reserves could both take the last room.
//!
//! A reservation is live (it has holds), lapsed (its holds have expired, but its commit may still arrive) or
//! settled. Live reservations are kept here; [`SettledIds`] remembers the others.

mod buckets;
pub mod budget;
mod changes;
mod counters;
mod grants;
mod id_hash;
mod lapse;
#[cfg(feature = "sqlite")]
pub mod record;
#[cfg(feature = "sqlite")]
pub mod recording;
mod settled_ids;
mod sliding;
mod state;
mod stored;
mod workers;

use crate::ledger::crossing::{Crossing, Crossings};
use crate::ledger::key_text;
use crate::ledger::moment::Moment;
use crate::ledger::recalls::Recalls;
use crate::ledger::shares::Capacity;
use crate::ledger::stored::{CreationCharge, Parking, Seen, Sighting, StoredId, StoredResult};
use crate::ledger::{
    Charge, CounterReading, Durability, Grant, Granted, Hit, Hold, Idempotency, Key, LeaseUse, Ledger,
    LedgerOutcome, LedgerSize, Raised, RaisedHold, Settled, StorageBytes, Unavailable, When, is_empty,
    is_worker, worker_of,
};
use buckets::{Admission, BucketIndex};
use id_hash::IdHash;
use state::{MemoryState, Taken, Want, all_admitted};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use workers::AttendedWorkers;

/// The number of expired windows that each call ends at most. This keeps up with any traffic without delaying
/// a caller for long.
const SWEEP_IN_PASSING: usize = 4;

/// The number of windows, readings or reservations to process per lock when traversing the whole ledger.
const BATCH: usize = 512;

/// Holds and charges in this process's memory.
pub struct MemoryLedger {
    ids: IdHash,
    state: Mutex<MemoryState>,
    workers: Mutex<AttendedWorkers>,
    crossings: Arc<Crossings>,
    recalls: Arc<Recalls>,
    /// When it began to count, as time since 1970.
    since: Duration,
}

impl MemoryLedger {
    /// Creates an empty ledger with this capacity.
    pub fn new(capacity: impl Into<Capacity>, now: Moment) -> Self {
        let crossings = Arc::<Crossings>::default();
        let state = MemoryState::new(capacity.into(), Arc::clone(&crossings), now);
        let (ids, workers) = (IdHash::random(), Mutex::default());
        let recalls = Arc::default();
        Self { ids, state: Mutex::new(state), workers, crossings, recalls, since: now.unix }
    }

    pub fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        let worker = self.worker(worker_of(id));
        let id = self.ids.of(&[id]);
        let mut state = self.at(now)?;
        let idempotency = match (state.live.contains_key(&id), state.archive.knows(id, now.instant)) {
            (true, _) => Idempotency::Repeated,
            (false, true) => Idempotency::Late,
            (false, false) => Idempotency::First,
        };
        let taken = if idempotency == Idempotency::First {
            let draws = holds.iter().filter_map(|hold| match &hold.lease {
                LeaseUse::Draw(part) => Some((part, &hold.key)),
                LeaseUse::None | LeaseUse::Lease => None,
            });
            draws.for_each(|(part, key)| state.draw(self.ids.of(&[&part.lease]), key, part.amount));
            let wants = holds.iter().map(|hold| Want {
                key: &hold.key,
                amount: hold.amount.max(1),
                max: hold.max,
                enforced: hold.enforced,
            });
            state.take(wants, now)
        } else {
            // A repeated call gets the same answer as the first one.
            let excused = state.live.get(&id).map_or(&[][..], |reservation| &reservation.excused);
            let room = |place: usize, hold: &Hold| match !hold.enforced && excused.contains(&place) {
                true => Admission::Excused,
                false => Admission::Granted,
            };
            let seat = |(place, hold): (usize, &Hold)| Taken {
                room: room(place, hold),
                seat: state.buckets.seat(&hold.key),
            };
            holds.iter().enumerate().map(seat).collect()
        };
        let admitted = all_admitted(&taken);
        if admitted && idempotency == Idempotency::First {
            state.keep(id, worker, &holds, &taken, now)?;
        }
        let statuses = holds.iter().zip(taken).map(|(hold, Taken { room, seat })| {
            state.buckets.status(&seat, &hold.key.window, (hold.amount.max(1), hold.max), room, now)
        });
        Ok(LedgerOutcome { admitted, idempotency, statuses: statuses.collect() })
    }

    pub fn raise(&self, id: &str, holds: &[RaisedHold], now: Moment) -> Result<Raised, Unavailable> {
        let name = self.ids.of(&[id]);
        Ok(self.at(now)?.raise(name, holds, now))
    }

    pub fn commit(&self, id: &str, charges: &[Charge], now: Moment) -> Result<Settled, Unavailable> {
        let name = self.ids.of(&[id]);
        let mut state = self.at(now)?;
        let is_known = state.live.contains_key(&name) || state.archive.knows(name, now.instant);
        let Some((settled, holds, charged)) = state.end(name, now) else {
            return Ok(Settled::AlreadySettled);
        };
        let draws = charges.iter().filter_map(|charge| Some((charge.draw.as_ref()?, &charge.key)));
        for (part, key) in draws.filter(|_| !is_known) {
            state.draw(self.ids.of(&[&part.lease]), key, part.amount);
        }
        match (id.is_empty(), is_empty(charges)) {
            (true, _) => {}
            (false, true) => state.archive.settle_briefly(name, now.instant),
            (false, false) => state.archive.settle(name, now.instant),
        }
        state.settle(holds, charges, charged, now)?;
        Ok(settled)
    }

    pub fn park(
        &self,
        id: &str,
        result: &StoredResult,
        charges: &[CreationCharge],
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        let name = self.ids.of(&[id]);
        let stored = self.stored(&result.id);
        let mut state = self.at(now)?;
        let ended = if state.stored.is_of(stored, name) { None } else { state.end(name, now) };
        let Some((_, holds, charged)) = ended else { return Ok(Parking::AlreadySettled) };
        state.archive.settle(name, now.instant);
        state.park((stored, result), name, holds, charges, charged, now)
    }

    pub fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        let stored = self.stored(&sighting.id);
        self.at(now)?.see(stored, sighting, now)
    }

    fn stored(&self, id: &StoredId) -> u64 {
        self.ids.of(&[id.as_str()])
    }

    pub fn hit(&self, hits: &[Hit], now: Moment) -> Result<LedgerOutcome, Unavailable> {
        let mut state = self.at(now)?;
        let wants = hits.iter().map(|hit| Want {
            key: &hit.key,
            amount: hit.need.max(1),
            max: hit.max,
            enforced: hit.enforced,
        });
        let taken = state.take(wants, now);
        let admitted = all_admitted(&taken);
        for (hit, Taken { seat, .. }) in hits.iter().zip(&taken) {
            if admitted || hit.when == When::Always {
                state.charge_one(&hit.key, hit.charge, hit.warn_at.as_ref(), now)?;
            }
            if let Some(place) = seat.place.filter(|_| admitted) {
                state.buckets.release(place, hit.need.max(1));
            }
        }
        let statuses = hits.iter().zip(taken).map(|(hit, Taken { room, .. })| {
            let seat = state.buckets.seat(&hit.key);
            state.buckets.status(&seat, &hit.key.window, (hit.need.max(1), hit.max), room, now)
        });
        Ok(LedgerOutcome { admitted, idempotency: Idempotency::First, statuses: statuses.collect() })
    }

    pub fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        let mut reset = Vec::new();
        for key in keys {
            let mut state = self.at(now)?;
            if let Some(place) = state.buckets.find(&key)
                && state.buckets.reset(place, now)?
            {
                reset.push(key);
            }
        }
        Ok(reset)
    }

    pub fn grant(&self, grant: &Grant, now: Moment) -> Result<Granted, Unavailable> {
        let id = self.ids.of(&[&key_text::of(&grant.key), &grant.id]);
        self.at(now)?.grant(grant, id, now)
    }

    /// Reads buckets. See [`Ledger::read`].
    pub fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        let state = self.at(now)?;
        Ok(keys.iter().map(|key| state.buckets.read(key, now)).collect())
    }

    /// Reads the buckets with these indices, except empty ones.
    fn read_batch(&self, batch: Range<BucketIndex>, now: Moment, readings: &mut Vec<CounterReading>) {
        let is_empty =
            |reading: &CounterReading| reading.used == 0 && reading.held == 0 && reading.granted == 0;
        let batch = self.lock().buckets.readings(batch, now);
        readings.extend(batch.into_iter().filter(|reading| !is_empty(reading)));
    }

    pub fn size(&self) -> LedgerSize {
        let mut state = self.lock();
        let shares = state.buckets.shares();
        let bytes = match shares.capacity() {
            Capacity::Bytes(most) => Some(StorageBytes { used: shares.sum(), most }),
            Capacity::Counters(_) => None,
        };
        LedgerSize {
            bytes,
            counters: state.buckets.len(),
            reservations: state.live.len().saturating_add(state.stored.holding()),
            holds: state.holds,
            settled: Some(state.archive.len()),
            forgotten: state.archive.forgotten(),
            lapsed: state.lapsed,
        }
    }

    pub fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        while self.at(now)?.buckets.sweep(BATCH, now)? {}
        Ok(())
    }

    pub fn attend(&self, workers: &[String], lives: Duration, now: Moment) {
        let mut known = self.known_workers();
        for worker in workers.iter().filter(|worker| is_worker(worker)) {
            known.attend(self.worker(Some(worker)), lives, now);
        }
    }

    pub fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        let gone = self.known_workers().take_gone(now);
        let (mut released, mut last) = (0, None);
        while !gone.is_empty() {
            let (of_batch, next) = self.lock().release_of(&gone, last, BATCH, now)?;
            released += of_batch;
            if next.is_none() {
                break;
            }
            last = next;
        }
        Ok(released)
    }

    /// Returns the hash that identifies a worker, or 0 if there is no name.
    fn worker(&self, name: Option<&str>) -> u64 {
        name.map_or(0, |name| self.ids.of(&[name]).max(1))
    }

    fn known_workers(&self) -> MutexGuard<'_, AttendedWorkers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// If a thread panicked while it held the lock, later calls still work. No code under the lock is
    /// expected to panic.
    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state and brings it up to `now`.
    fn at(&self, now: Moment) -> Result<MutexGuard<'_, MemoryState>, Unavailable> {
        let mut state = self.lock();
        state.lapse(now)?;
        state.buckets.sweep(SWEEP_IN_PASSING, now)?;
        Ok(state)
    }
}

#[tonic::async_trait]
impl Ledger for MemoryLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.reserve(id, holds, now)
    }
    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        self.raise(id, &holds, now)
    }
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        self.commit(id, &charges, now)
    }
    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        self.park(id, &result, &charges, now)
    }
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        self.see(sighting, now)
    }
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.hit(&hits, now)
    }
    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        self.reset(keys, now)
    }
    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        self.grant(&grant, now)
    }
    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.read(keys, now)
    }
    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        let end = self.at(now)?.buckets.end();
        let mut readings = Vec::new();
        for start in (0..end).step_by(BATCH) {
            self.read_batch(start..end.min(start.saturating_add(BATCH)), now, &mut readings);
            // Other calls of this thread run between two batches.
            tokio::task::yield_now().await;
        }
        Ok(readings)
    }
    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        Ok(self.size())
    }
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        self.sweep(now)
    }
    async fn ready(&self) -> Result<(), Unavailable> {
        Ok(())
    }
    async fn durable(&self) -> Result<(), Unavailable> {
        Ok(())
    }
    fn durability(&self) -> Durability {
        Durability::UntilRestart
    }
    fn counting_since(&self) -> Option<Duration> {
        Some(self.since)
    }
    fn take_crossings(&self) -> Vec<Crossing> {
        self.crossings.take()
    }
    async fn recall(&self, buckets: &[u64]) {
        self.recalls.pass_on(buckets);
    }
    fn recalls(&self) -> Arc<Recalls> {
        Arc::clone(&self.recalls)
    }
    fn share_among(&self, limits: usize) {
        self.lock().buckets.shares().know(limits);
    }
    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        self.attend(workers, lives, now);
        Ok(())
    }
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        self.release_gone(now)
    }
}
