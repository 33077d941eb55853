//! The ledger in this process. One lock: reserving reads and then writes several buckets, and two that do so at once
//! would both see the last room.
//!
//! A reservation is live (it holds), lapsed (its time ran out; its commit may still come) or settled. Live ones are in
//! here; [`Archive`] remembers the others.

use crate::archive::{AT_MOST, Advance, Archive, Charged, Id, Ids, Past};
use crate::buckets::{Buckets, Place, Room, after};
use crate::ledger::{
    Charge, Hit, Hold, Key, Ledger, Outcome, Reading, Settled, Size, Take, Turn, Unavailable, When,
};
use crate::moment::Moment;
use policy::model::Window;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Windows that a single call may end on its way. Keeps up with any traffic, and no caller waits for long.
const SWEEP_IN_PASSING: usize = 4;

/// Windows or readings per hold of the lock, when a whole ledger is gone through.
const BATCH: usize = 512;

/// Holds and charges in this process's memory.
pub struct MemoryLedger {
    ids: RandomState,
    state: Mutex<State>,
}

struct State {
    buckets: Buckets,
    live: Ids<Reservation>,
    /// When the next hold of a reservation lapses.
    lapses: BTreeSet<(Instant, Id)>,
    archive: Archive,
    holds: usize,
    dropped: u64,
}

/// Room that a call asks for.
struct Want<'a> {
    key: &'a Arc<Key>,
    amount: u64,
    max: u64,
    enforced: bool,
}

/// What became of a want, and where its bucket is, if there is one.
type Taken = (Room, Option<Place>);

fn all_admitted(taken: &[Taken]) -> bool {
    taken.iter().all(|(room, _)| *room != Room::None)
}

struct Reservation {
    holds: Vec<Held>,
    charged: Charged,
    lapses: Instant,
}

struct Held {
    place: Place,
    amount: u64,
    until: Instant,
}

impl MemoryLedger {
    /// Empty; never more than `counters` buckets.
    pub fn new(counters: usize, now: Moment) -> Self {
        let state = State {
            buckets: Buckets::new(counters),
            live: Ids::default(),
            lapses: BTreeSet::new(),
            archive: Archive::new(AT_MOST, now.instant),
            holds: 0,
            dropped: 0,
        };
        Self { ids: RandomState::new(), state: Mutex::new(state) }
    }

    /// See [`Ledger::reserve`].
    pub fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<Outcome, Unavailable> {
        let id = self.ids.hash_one(id);
        let mut state = self.at(now)?;
        let turn = match (state.live.contains_key(&id), state.archive.knows(id)) {
            (true, _) => Turn::Repeated,
            (false, true) => Turn::Late,
            (false, false) => Turn::First,
        };
        let taken = if turn == Turn::First {
            let wants = holds.iter().map(|hold| Want {
                key: &hold.key,
                amount: hold.amount.max(1),
                max: hold.max,
                enforced: hold.enforced,
            });
            state.take(wants, now)?
        } else {
            holds.iter().map(|hold| (Room::Enough, state.buckets.find(&hold.key))).collect()
        };
        let admitted = all_admitted(&taken);
        if admitted && turn == Turn::First {
            state.keep(id, &holds, &taken, now)?;
        }
        let statuses = holds
            .iter()
            .zip(taken)
            .map(|(hold, (room, place))| state.buckets.status(place, hold.key.window, hold.max, room, now));
        Ok(Outcome { admitted, turn, statuses: statuses.collect() })
    }

    /// See [`Ledger::commit`].
    pub fn commit(&self, id: &str, charges: &[Charge], now: Moment) -> Result<Settled, Unavailable> {
        let name = self.ids.hash_one(id);
        let mut state = self.at(now)?;
        let (settled, holds, charged) = match state.live.remove(&name) {
            Some(reservation) => {
                state.lapses.remove(&(reservation.lapses, name));
                (Settled::Released, reservation.holds, reservation.charged)
            }
            None => match state.archive.take(name) {
                Some(Past::Settled) => return Ok(Settled::AlreadySettled),
                Some(Past::Lapsed(charged)) => (Settled::Charged, Vec::new(), charged),
                None => (Settled::Charged, Vec::new(), Vec::new()),
            },
        };
        if !id.is_empty() {
            state.archive.settle(name, now.instant);
        }
        state.settle(holds, charges, charged, now)?;
        Ok(settled)
    }

    /// See [`Ledger::hit`].
    pub fn hit(&self, hits: &[Hit], now: Moment) -> Result<Outcome, Unavailable> {
        let mut state = self.at(now)?;
        let wants = hits.iter().map(|hit| Want {
            key: &hit.key,
            amount: hit.need.max(1),
            max: hit.max,
            enforced: true,
        });
        let taken = state.take(wants, now)?;
        let admitted = all_admitted(&taken);
        for (hit, (_, place)) in hits.iter().zip(&taken) {
            if admitted || hit.when == When::Always {
                state.charge_one(&hit.key, hit.charge, now)?;
            }
            if let Some(place) = place.filter(|_| admitted) {
                state.buckets.release(place, hit.need.max(1));
            }
        }
        let statuses = hits.iter().zip(taken).map(|(hit, (room, _))| {
            let place = state.buckets.find(&hit.key);
            state.buckets.status(place, hit.key.window, hit.max, room, now)
        });
        Ok(Outcome { admitted, turn: Turn::First, statuses: statuses.collect() })
    }

    /// See [`Ledger::readings`].
    pub fn readings(&self, now: Moment) -> Result<Vec<Reading>, Unavailable> {
        let places = self.at(now)?.buckets.places();
        let mut readings = Vec::with_capacity(places.len());
        for batch in places.chunks(BATCH) {
            readings.extend(self.lock().buckets.readings(batch, now));
        }
        readings.retain(|reading| reading.used > 0 || reading.held > 0);
        Ok(readings)
    }

    /// See [`Ledger::size`].
    pub fn size(&self) -> Size {
        let state = self.lock();
        Size {
            counters: state.buckets.len(),
            reservations: state.live.len(),
            holds: state.holds,
            settled: Some(state.archive.len()),
            forgotten: state.archive.forgotten(),
            dropped: state.dropped,
        }
    }

    /// See [`Ledger::sweep`].
    pub fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        while self.at(now)?.buckets.sweep(BATCH, now)? {}
        Ok(())
    }

    /// A panic while the lock was held (there is none to be had) must not stop every later call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as it is at `now`.
    fn at(&self, now: Moment) -> Result<MutexGuard<'_, State>, Unavailable> {
        let mut state = self.lock();
        state.lapse(now);
        state.buckets.sweep(SWEEP_IN_PASSING, now)?;
        Ok(state)
    }
}

impl State {
    /// Takes every amount out of its bucket, or none, if one that is enforced has no room.
    ///
    /// One after the other, so that two wants of one bucket see each other.
    fn take<'a>(
        &mut self,
        wants: impl ExactSizeIterator<Item = Want<'a>> + Clone,
        now: Moment,
    ) -> Result<Vec<Taken>, Unavailable> {
        let mut taken = Vec::with_capacity(wants.len());
        let mut failed = None;
        for want in wants.clone() {
            match self.take_one(&want, now) {
                Ok(one) => taken.push(one),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if failed.is_some() || !all_admitted(&taken) {
            for (want, (room, place)) in wants.zip(&taken) {
                if let Some(place) = place.filter(|_| *room != Room::None) {
                    self.buckets.release(place, want.amount);
                }
            }
        }
        failed.map_or(Ok(taken), Err)
    }

    fn take_one(&mut self, want: &Want<'_>, now: Moment) -> Result<Taken, Unavailable> {
        let found = self.buckets.find(want.key);
        let room = match self.buckets.has_room(found, want.amount, want.max, now) {
            true => Room::Enough,
            false if want.enforced => return Ok((Room::None, found)),
            false => Room::Excused,
        };
        let place = found.map_or_else(|| self.buckets.make(want.key), Ok)?;
        self.buckets.hold(place, want.amount);
        Ok((room, Some(place)))
    }

    /// Remembers what was taken under its id, and charges what admission itself uses.
    fn keep(&mut self, id: Id, holds: &[Hold], taken: &[Taken], now: Moment) -> Result<(), Unavailable> {
        let mut reservation = Reservation { holds: Vec::new(), charged: Vec::new(), lapses: now.instant };
        let Some(first) = holds.iter().map(|hold| hold.ttl).min() else { return Ok(()) };
        for (hold, (_, place)) in holds.iter().zip(taken) {
            let (Some(place), amount) = (*place, hold.amount.max(1)) else { continue };
            match hold.take {
                Take::Hold => {
                    reservation.holds.push(Held { place, amount, until: after(now, hold.ttl) });
                    self.holds += 1;
                }
                Take::Charge => {
                    let window = self.buckets.charge(place, amount, now)?;
                    self.buckets.release(place, amount);
                    reservation.charged.push(Advance { key: Arc::clone(&hold.key), place, amount, window });
                }
            }
        }
        reservation.lapses = after(now, first);
        self.lapses.insert((reservation.lapses, id));
        self.live.insert(id, reservation);
        Ok(())
    }

    fn release(&mut self, holds: Vec<Held>) {
        self.holds = self.holds.saturating_sub(holds.len());
        for hold in holds {
            self.buckets.release(hold.place, hold.amount);
        }
    }

    /// Lets the holds go. Charges what goes beyond the admission's own charges, and gives back what those had too much.
    /// A bucket that the commit does not name keeps its advance.
    fn settle(
        &mut self,
        holds: Vec<Held>,
        charges: &[Charge],
        mut advances: Charged,
        now: Moment,
    ) -> Result<(), Unavailable> {
        // What is charged was held, mostly, and in the same order: its bucket is known.
        let (mut known, mut others) = (holds.iter().cycle(), Vec::new());
        let charged = charges.iter().try_for_each(|charge| {
            let amount = self.beyond_advances(charge, &mut advances);
            if amount == 0 || charge.key.window == Window::Now {
                return Ok(());
            }
            let is_there = |held: &&Held| self.buckets.is_at(held.place, &charge.key);
            match known.by_ref().take(holds.len()).find(is_there) {
                Some(held) => self.buckets.charge(held.place, amount, now).map(drop),
                None => {
                    others.push((charge, amount));
                    Ok(())
                }
            }
        });
        // It may make room for the buckets of what was not held.
        self.release(holds);
        charged?;
        others.into_iter().try_for_each(|(charge, amount)| self.charge_one(&charge.key, amount, now))
    }

    /// What a charge adds to what was charged at admission.
    fn beyond_advances(&mut self, charge: &Charge, advances: &mut Charged) -> u64 {
        let mut amount = charge.amount;
        for advance in advances.iter_mut().filter(|advance| advance.key == charge.key) {
            let confirmed = amount.min(advance.amount);
            self.buckets.refund(advance.place, advance.amount - confirmed, advance.window);
            advance.amount = 0;
            amount -= confirmed;
        }
        amount
    }

    /// What was used cannot be refused: with no place left for its bucket, all that is left is to count the loss.
    fn charge_one(&mut self, key: &Arc<Key>, amount: u64, now: Moment) -> Result<(), Unavailable> {
        if amount == 0 || key.window == Window::Now {
            return Ok(());
        }
        match self.buckets.find(key).map_or_else(|| self.buckets.make(key), Ok) {
            Ok(place) => self.buckets.charge(place, amount, now).map(drop),
            Err(_) => {
                self.dropped = self.dropped.saturating_add(1);
                Ok(())
            }
        }
    }

    /// Lets go of every hold whose time is over.
    fn lapse(&mut self, now: Moment) {
        while let Some((_, id)) = self.lapses.first().copied().filter(|(when, _)| *when <= now.instant) {
            self.lapses.pop_first();
            let Some(mut reservation) = self.live.remove(&id) else { continue };
            let (over, left) = reservation.holds.into_iter().partition(|hold| hold.until <= now.instant);
            reservation.holds = left;
            self.release(over);
            match reservation.holds.iter().map(|hold| hold.until).min() {
                None => self.archive.lapse(id, reservation.charged, now.instant),
                Some(next) => {
                    reservation.lapses = next;
                    self.lapses.insert((next, id));
                    self.live.insert(id, reservation);
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Ledger for MemoryLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<Outcome, Unavailable> {
        self.reserve(id, holds, now)
    }
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        self.commit(id, &charges, now)
    }
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<Outcome, Unavailable> {
        self.hit(&hits, now)
    }
    async fn readings(&self, now: Moment) -> Result<Vec<Reading>, Unavailable> {
        self.readings(now)
    }
    async fn size(&self) -> Result<Size, Unavailable> {
        Ok(self.size())
    }
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        self.sweep(now)
    }
}
