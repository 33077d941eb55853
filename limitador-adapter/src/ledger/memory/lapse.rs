//! Holds that end without a commit, because they expire or their worker is gone. They are released, and
//! charged if the usage is unknown and counts.

use super::settled_ids::{Advance, Charged, Id};
use super::state::{Held, MemoryState};
use crate::ledger::moment::Moment;
use crate::ledger::{Key, Unavailable};
use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

impl MemoryState {
    /// Ends every expired hold.
    pub fn lapse(&mut self, now: Moment) -> Result<(), Unavailable> {
        self.lapse_stored(now)?;
        while let Some((_, id)) = self.lapses.first().copied().filter(|(when, _)| *when <= now.instant) {
            self.lapses.pop_first();
            let Some(mut reservation) = self.live.remove(&id) else { continue };
            let (over, left) = reservation.holds.into_iter().partition(|hold| hold.until <= now.instant);
            reservation.holds = left;
            let ended = self.lapse_holds(over, &mut reservation.charged, now);
            match reservation.holds.iter().map(|hold| hold.until).min() {
                None => {
                    self.changed.end(reservation.number);
                    self.archive.lapse(id, reservation.charged, now.instant);
                }
                Some(next) => {
                    reservation.lapses = next;
                    self.lapses.insert((next, id));
                    self.insert_live(id, reservation);
                }
            }
            ended?;
        }
        Ok(())
    }

    /// Ends the reservations of these workers among the next `at_most` reservations after `last`. Returns the
    /// number of ended reservations and where to continue.
    pub fn release_of(
        &mut self,
        workers: &HashSet<u64>,
        last: Option<(Instant, Id)>,
        at_most: usize,
        now: Moment,
    ) -> Result<(usize, Option<(Instant, Id)>), Unavailable> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let batch: Vec<_> = self.lapses.range((from, Bound::Unbounded)).take(at_most).copied().collect();
        let mut released = 0;
        for (lapses, id) in &batch {
            if self.live.get(id).is_some_and(|reservation| workers.contains(&reservation.worker))
                && let Some(mut reservation) = self.live.remove(id)
            {
                self.lapses.remove(&(*lapses, *id));
                self.changed.end(reservation.number);
                let ended = self.lapse_holds(reservation.holds, &mut reservation.charged, now);
                self.archive.lapse(*id, reservation.charged, now.instant);
                ended?;
                released += 1;
            }
        }
        Ok((released, batch.last().copied().filter(|_| batch.len() == at_most)))
    }

    /// Ends holds. Adds what they charge to `charged`. A charge that fails does not keep its hold alive.
    fn lapse_holds(
        &mut self,
        holds: Vec<Held>,
        charged: &mut Charged,
        now: Moment,
    ) -> Result<(), Unavailable> {
        let mut ended = Ok(());
        for held in &holds {
            match self.charge_lapsed(held, now) {
                Ok(advance) => charged.extend(advance),
                Err(error) => ended = Err(error),
            }
        }
        self.release(holds);
        ended
    }

    /// Charges a hold that lapses, if it is to be charged and still counts. The caller releases it.
    pub fn charge_lapsed(&mut self, held: &Held, now: Moment) -> Result<Option<Advance>, Unavailable> {
        let key = if held.charged_at_lapse { self.key_of(held) } else { None };
        let Some(key) = key.filter(|key| !is_window_over(key, held.until, now)) else {
            self.lapsed.count(None);
            return Ok(None);
        };
        let Held { place, amount, .. } = *held;
        let window = self.buckets.charge(place, amount, None, now)?;
        self.lapsed.count(Some((key.unit, amount)));
        Ok(Some(Advance { key, place, amount, window, at_lapse: true }))
    }

    fn key_of(&self, held: &Held) -> Option<Arc<Key>> {
        held.asked.as_ref().or_else(|| self.buckets.key(held.place)).map(Arc::clone)
    }
}

/// Returns whether a window that contains the end of a hold is over. This happens if nobody ends the hold in
/// time, for example because the process was not running.
fn is_window_over(key: &Key, until: Instant, now: Moment) -> bool {
    let late = now.instant.saturating_duration_since(until);
    if late.is_zero() {
        return false;
    }
    let end = Moment { instant: until, unix: now.unix.saturating_sub(late) };
    end.until_end_of(&key.window) <= late
}
