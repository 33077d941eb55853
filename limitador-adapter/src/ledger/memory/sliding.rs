//! What a bucket has used during the last so much time, in slots.
//!
//! A slot begins with a charge and takes in those that follow within a sixtieth of the window. All of it counts until the last
//! of them is as old as the window is long. So a charge counts for at least as long as the window, and at most a sixtieth
//! longer.

use super::buckets::{WindowId, after};
use crate::ledger::moment::Moment;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Into how many slots a window is divided. As in `common.lua`.
pub const SLOTS: u32 = 60;

/// What all slots of a bucket take, in bytes: a window that is not aligned with its slots touches one more.
pub const SLOTS_BYTES: u64 = 64 * size_of::<Slot>() as u64;

/// What is used of a sliding window that is not over.
pub struct SlidingUsage {
    length: Duration,
    /// From the oldest to the newest: at least one.
    slots: VecDeque<Slot>,
    /// Their sum.
    used: u64,
}

struct Slot {
    id: WindowId,
    start: Instant,
    /// When it was charged last.
    last: Instant,
    used: u64,
}

impl SlidingUsage {
    /// Nothing is used.
    pub fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new(), used: 0 }
    }

    /// Charges the slot of `now`, which is `next` if none is. Which one it is.
    pub fn charge(&mut self, amount: u64, now: Moment, next: WindowId) -> WindowId {
        self.forget(now);
        let slot_length = slot_length(self.length);
        let current = self
            .slots
            .back_mut()
            .filter(|slot| now.instant.saturating_duration_since(slot.start) < slot_length);
        self.used = self.used.saturating_add(amount);
        if let Some(slot) = current {
            // Calls may come a little out of order.
            slot.last = slot.last.max(now.instant);
            slot.used = slot.used.saturating_add(amount);
            return slot.id;
        }
        self.slots.push_back(Slot { id: next, start: now.instant, last: now.instant, used: amount });
        next
    }

    /// Gives back what was charged in a slot, if that still counts.
    pub fn refund(&mut self, id: WindowId, amount: u64) {
        if let Some(slot) = self.slots.iter_mut().rev().find(|slot| slot.id == id) {
            slot.used = slot.used.saturating_sub(amount);
            self.used = self.sum();
        }
    }

    /// What counts now.
    pub fn used(&self, now: Moment) -> u64 {
        let over = |slot: &&Slot| self.end_of(slot, now) <= now.instant;
        if self.slots.front().is_none_or(|oldest| !over(&oldest)) {
            return self.used;
        }
        self.slots.iter().skip_while(over).fold(0, |sum, slot| sum.saturating_add(slot.used))
    }

    /// When nothing counts any more that has been charged so far.
    pub fn end(&self, now: Moment) -> Instant {
        self.slots.back().map_or(now.instant, |newest| self.end_of(newest, now))
    }

    /// When at most so much counts: not before some of it has come to its end.
    pub fn leaves(&self, at_most: u64, now: Moment) -> Instant {
        let mut used = self.used(now);
        let counting = self.slots.iter().filter(|slot| self.end_of(slot, now) > now.instant);
        for slot in counting {
            used = used.saturating_sub(slot.used);
            if used <= at_most {
                return self.end_of(slot, now);
            }
        }
        self.end(now)
    }

    fn forget(&mut self, now: Moment) {
        let mut forgotten = false;
        while self.slots.front().is_some_and(|oldest| self.end_of(oldest, now) <= now.instant) {
            self.slots.pop_front();
            forgotten = true;
        }
        if forgotten {
            self.used = self.sum();
        }
    }

    fn end_of(&self, slot: &Slot, now: Moment) -> Instant {
        slot.last.checked_add(self.length).unwrap_or_else(|| after(now, self.length))
    }

    fn sum(&self) -> u64 {
        self.slots.iter().fold(0, |sum, slot| sum.saturating_add(slot.used))
    }
}

/// In whole milliseconds, as Redis counts.
fn slot_length(window: Duration) -> Duration {
    let ms = window.as_millis().div_ceil(u128::from(SLOTS));
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}
