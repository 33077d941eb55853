//! The state of the in-memory ledger and its transitions: holds are taken, kept or settled, or they lapse
//! (`lapse.rs`). This module takes no locks.

#[cfg(feature = "sqlite")]
pub mod record;

use super::buckets::{Admission, BucketIndex, MemoryBuckets, Seat, after};
use super::changes::{ReservationChanges, ReservationNumber};
use super::grants::GrantIds;
use super::settled_ids::{Advance, Charged, Id, Ids, MAX_IDS, Past, SettledIds};
use super::stored::StoredResults;
use crate::ledger::crossing::{Crossings, WarnAt};
use crate::ledger::moment::Moment;
use crate::ledger::shares::Capacity;
use crate::ledger::{
    Charge, ChargeAt, Hold, Key, LapsedTotals, LeaseUse, Raised, RaisedHold, Settled, Unavailable,
};
use policy::model::Window;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// The state behind the ledger's lock.
pub struct MemoryState {
    /// Held and used amounts.
    pub buckets: MemoryBuckets,
    /// Reservations with holds. Some also have charges at admission, which the commit confirms or refunds.
    pub live: Ids<LiveReservation>,
    /// When the next hold of each reservation lapses.
    pub lapses: BTreeSet<(Instant, Id)>,
    /// Ended reservations.
    pub archive: SettledIds,
    /// The ids of grants.
    pub grants: GrantIds,
    /// Background results and the holds for them.
    pub stored: StoredResults,
    /// The number of live holds.
    pub holds: usize,
    /// The holds that have lapsed.
    pub lapsed: LapsedTotals,
    /// The changes of `live`.
    pub changed: ReservationChanges,
}

/// An amount that a call requests from a bucket.
pub struct Want<'a> {
    pub key: &'a Arc<Key>,
    pub amount: u64,
    /// The maximum of held and used amounts in the bucket.
    pub max: u64,
    /// Whether lack of room refuses the call.
    pub enforced: bool,
}

/// The outcome of a request for room in one bucket.
pub struct Taken {
    /// Whether there was room.
    pub room: Admission,
    /// The bucket that counts the amount.
    pub seat: Seat,
}

/// Returns whether everything was granted.
pub fn all_admitted(taken: &[Taken]) -> bool {
    taken.iter().all(|taken| taken.room != Admission::Refused)
}

pub struct LiveReservation {
    pub holds: Vec<Held>,
    /// The charges made at admission, and at the lapse of other holds.
    pub charged: Charged,
    /// When the next hold lapses.
    pub lapses: Instant,
    /// The positions of the wants that had no room but were not enforced.
    pub excused: Box<[usize]>,
    /// The hash that identifies the worker, or 0 if the reservation belongs to no worker.
    pub worker: u64,
    /// The number under which it is recorded, if it is.
    pub number: Option<ReservationNumber>,
}

pub struct Held {
    pub place: BucketIndex,
    pub amount: u64,
    /// When the hold expires.
    pub until: Instant,
    /// The requested key, if the amount is held in the overflow bucket instead. The charge goes to the
    /// overflow bucket, too.
    pub asked: Option<Arc<Key>>,
    /// Whether the amount is charged when the hold lapses.
    pub charged_at_lapse: bool,
    /// Whether it is a lease.
    pub is_lease: bool,
}

impl MemoryState {
    /// Creates an empty state with this capacity.
    pub fn new(capacity: Capacity, crossings: Arc<Crossings>, now: Moment) -> Self {
        Self {
            buckets: MemoryBuckets::new(capacity, crossings),
            live: Ids::default(),
            lapses: BTreeSet::new(),
            archive: SettledIds::new(MAX_IDS, now.instant),
            grants: GrantIds::default(),
            stored: StoredResults::default(),
            holds: 0,
            lapsed: LapsedTotals::default(),
            changed: ReservationChanges::default(),
        }
    }

    /// Takes every amount, or none if an enforced bucket has no room.
    ///
    /// Each amount is taken before the next one is checked, so that two amounts for the same bucket are
    /// counted together.
    pub fn take<'a>(
        &mut self,
        wants: impl ExactSizeIterator<Item = Want<'a>> + Clone,
        now: Moment,
    ) -> Vec<Taken> {
        let mut taken = Vec::with_capacity(wants.len());
        taken.extend(wants.clone().map(|want| self.take_one(&want, now)));
        if !all_admitted(&taken) {
            for (want, Taken { room, seat }) in wants.zip(&taken) {
                if let Some(place) = seat.place.filter(|_| *room != Admission::Refused) {
                    self.buckets.release(place, want.amount);
                }
            }
        }
        taken
    }

    fn take_one(&mut self, want: &Want<'_>, now: Moment) -> Taken {
        let mut seat = self.buckets.seat(want.key);
        let room = match self.buckets.has_room(seat.place, want.amount, want.max, now) {
            true => Admission::Granted,
            false if want.enforced => return Taken { room: Admission::Refused, seat },
            false => Admission::Excused,
        };
        let place = self.buckets.sit(want.key, &seat);
        self.buckets.hold(place, want.amount);
        seat.place = Some(place);
        Taken { room, seat }
    }

    /// Stores the holds under the reservation's id, and makes the charges that are due at admission.
    pub fn keep(
        &mut self,
        id: Id,
        worker: u64,
        holds: &[Hold],
        taken: &[Taken],
        now: Moment,
    ) -> Result<(), Unavailable> {
        let excused = taken.iter().enumerate().filter(|(_, taken)| taken.room == Admission::Excused);
        let excused = excused.map(|(place, _)| place).collect();
        let mut reservation = LiveReservation {
            holds: Vec::new(),
            charged: Vec::new(),
            lapses: now.instant,
            excused,
            worker,
            number: None,
        };
        let Some(first) = holds.iter().map(|hold| hold.ttl).min() else { return Ok(()) };
        for (hold, Taken { seat, .. }) in holds.iter().zip(taken) {
            let (Some(place), amount) = (seat.place, hold.amount.max(1)) else { continue };
            match hold.charge_at {
                ChargeAt::Commit | ChargeAt::CommitOrLapse => {
                    let asked = seat.overflow.is_some().then(|| Arc::clone(&hold.key));
                    let charged_at_lapse = hold.charge_at == ChargeAt::CommitOrLapse;
                    let (until, is_lease) = (after(now, hold.ttl), hold.lease == LeaseUse::Lease);
                    if is_lease {
                        self.buckets.lease(place, amount);
                    }
                    reservation.holds.push(Held { place, amount, until, asked, charged_at_lapse, is_lease });
                    self.holds += 1;
                }
                ChargeAt::Admission => {
                    let window = self.buckets.charge(place, amount, hold.warn_at.as_ref(), now)?;
                    self.buckets.release(place, amount);
                    let (key, at_lapse) = (Arc::clone(&hold.key), false);
                    reservation.charged.push(Advance { key, place, amount, window, at_lapse });
                }
            }
        }
        reservation.lapses = after(now, first);
        self.lapses.insert((reservation.lapses, id));
        self.insert_live(id, reservation);
        Ok(())
    }

    pub fn insert_live(&mut self, id: Id, reservation: LiveReservation) {
        self.changed.changed.note(id);
        self.live.insert(id, reservation);
    }

    /// Raises the holds of a live reservation.
    pub fn raise(&mut self, id: Id, holds: &[RaisedHold], now: Moment) -> Raised {
        let Some(mut reservation) = self.live.remove(&id) else { return Raised::Unknown };
        let mut places = Vec::with_capacity(holds.len());
        for raised in holds {
            let held = reservation.holds.iter_mut().find(|held| self.is_held_for(held, &raised.key));
            if let Some(held) = held {
                let more = raised.total.saturating_sub(held.amount);
                held.amount = held.amount.saturating_add(more);
                self.buckets.grow(held.place, more);
                places.push((held.place, raised));
            }
        }
        self.insert_live(id, reservation);
        let has_room = |(place, raised): &(BucketIndex, &RaisedHold)| {
            !raised.enforced || self.buckets.has_room(Some(*place), 0, raised.max, now)
        };
        if places.iter().all(has_room) { Raised::Held } else { Raised::OutOfRoom }
    }

    /// Releases holds.
    pub fn release(&mut self, holds: Vec<Held>) {
        self.holds = self.holds.saturating_sub(holds.len());
        for hold in holds {
            if hold.is_lease {
                self.buckets.end_lease(hold.place, hold.amount);
            }
            self.buckets.release(hold.place, hold.amount);
        }
    }

    /// Takes an amount for this bucket out of a lease, or what is left in it.
    pub fn draw(&mut self, lease: Id, key: &Arc<Key>, amount: u64) {
        let Some(reservation) = self.live.get(&lease) else { return };
        let is_of = |held: &Held| held.is_lease && self.is_held_for(held, key);
        let Some(at) = reservation.holds.iter().position(is_of) else { return };
        let Some(held) = self.live.get_mut(&lease).and_then(|lease| lease.holds.get_mut(at)) else { return };
        let amount = amount.min(held.amount);
        held.amount = held.amount.saturating_sub(amount);
        self.buckets.end_lease(held.place, amount);
        self.buckets.lessen(held.place, amount);
        self.changed.changed.note(lease);
    }

    /// Removes a reservation and returns its holds and its advances. Returns `None` if it has
    /// already ended.
    pub fn end(&mut self, id: Id, now: Moment) -> Option<(Settled, Vec<Held>, Charged)> {
        if let Some(reservation) = self.live.remove(&id) {
            self.lapses.remove(&(reservation.lapses, id));
            self.changed.end(reservation.number);
            return Some((Settled::Released, reservation.holds, reservation.charged));
        }
        match self.archive.take(id, now.instant) {
            Some(Past::Settled) => None,
            Some(Past::Lapsed(charged)) => Some((Settled::Charged, Vec::new(), charged)),
            None => Some((Settled::Charged, Vec::new(), Vec::new())),
        }
    }

    /// Releases the holds and charges what exceeds the advances. Refunds any excess of an advance. If the
    /// commit does not name a bucket, a charge from admission stays there, and one from a lapse is refunded.
    pub fn settle(
        &mut self,
        holds: Vec<Held>,
        charges: &[Charge],
        mut advances: Charged,
        now: Moment,
    ) -> Result<(), Unavailable> {
        // Charges usually have the same order as the holds, so most buckets are found without a lookup.
        let (mut known, mut others) = (holds.iter().cycle(), Vec::new());
        let charged = charges.iter().try_for_each(|charge| {
            let amount = self.beyond_advances(charge, &mut advances);
            if amount == 0 || charge.key.window == Window::Now {
                return Ok(());
            }
            let is_there = |held: &&Held| self.is_held_for(held, &charge.key);
            match known.by_ref().take(holds.len()).find(is_there) {
                Some(held) => self.buckets.charge(held.place, amount, charge.warn_at.as_ref(), now).map(drop),
                None => {
                    others.push((charge, amount));
                    Ok(())
                }
            }
        });
        for advance in advances.iter().filter(|advance| advance.at_lapse && advance.amount > 0) {
            self.buckets.refund(advance.place, advance.amount, advance.window);
        }
        // The holds are released first, because this may make room for buckets that had no hold.
        self.release(holds);
        charged?;
        others.into_iter().try_for_each(|(charge, amount)| {
            self.charge_one(&charge.key, amount, charge.warn_at.as_ref(), now)
        })
    }

    /// Returns whether this hold belongs to the bucket.
    pub fn is_held_for(&self, held: &Held, key: &Arc<Key>) -> bool {
        match &held.asked {
            Some(asked) => asked == key,
            None => self.buckets.is_at(held.place, key),
        }
    }

    /// Returns the part of a charge that was not charged in advance, and refunds any excess.
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

    /// Charges one bucket. Usage cannot be refused; at least the overflow bucket has room for it.
    pub fn charge_one(
        &mut self,
        key: &Arc<Key>,
        amount: u64,
        warn_at: Option<&WarnAt>,
        now: Moment,
    ) -> Result<(), Unavailable> {
        if amount == 0 || key.window == Window::Now {
            return Ok(());
        }
        let seat = self.buckets.seat(key);
        let place = self.buckets.sit(key, &seat);
        self.buckets.charge(place, amount, warn_at, now).map(drop)
    }
}
