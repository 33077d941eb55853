//! The usage of a bucket in a sliding window, divided into slots.
//!
//! A slot starts with a charge and collects further charges for a sixtieth of the window. The whole slot
//! counts until its last charge is as old as the window is long. So a charge counts for at least the length
//! of the window, and for at most a sixtieth longer.

use super::buckets::{WindowId, after};
#[cfg(feature = "sqlite")]
use super::record::{RecordClock, UnixNanos};
use crate::ledger::moment::Moment;
#[cfg(feature = "sqlite")]
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of slots in a window. `common.lua` uses the same number.
pub const SLOTS: u32 = 60;

/// The memory of all slots of a bucket, in bytes. A window that is not aligned with its slots overlaps one
/// more slot.
pub const SLOTS_BYTES: u64 = 64 * size_of::<Slot>() as u64;

/// The usage of a running sliding window.
pub struct SlidingUsage {
    length: Duration,
    /// The slots from oldest to newest. There is at least one.
    slots: VecDeque<Slot>,
    /// The sum of the slots.
    used: u64,
}

struct Slot {
    id: WindowId,
    start: Instant,
    /// The time of the last charge.
    last: Instant,
    used: u64,
}

/// A slot as plain data.
#[cfg(feature = "sqlite")]
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotRecord {
    pub id: WindowId,
    start: UnixNanos,
    last: UnixNanos,
    used: u64,
}

impl SlidingUsage {
    /// Creates a window without usage.
    pub fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new(), used: 0 }
    }

    /// Charges the current slot and returns its id. If there is no current slot, starts one with the id
    /// `next`.
    pub fn charge(&mut self, amount: u64, now: Moment, next: WindowId) -> WindowId {
        self.forget(now);
        let slot_length = slot_length(self.length);
        let current = self
            .slots
            .back_mut()
            .filter(|slot| now.instant.saturating_duration_since(slot.start) < slot_length);
        self.used = self.used.saturating_add(amount);
        if let Some(slot) = current {
            // Calls may arrive slightly out of order.
            slot.last = slot.last.max(now.instant);
            slot.used = slot.used.saturating_add(amount);
            return slot.id;
        }
        self.slots.push_back(Slot { id: next, start: now.instant, last: now.instant, used: amount });
        next
    }

    /// Refunds a charge if its slot still counts.
    pub fn refund(&mut self, id: WindowId, amount: u64) {
        if let Some(slot) = self.slots.iter_mut().rev().find(|slot| slot.id == id) {
            slot.used = slot.used.saturating_sub(amount);
            self.used = self.sum();
        }
    }

    /// Returns the usage that counts now.
    pub fn used(&self, now: Moment) -> u64 {
        let over = |slot: &&Slot| self.end_of(slot, now) <= now.instant;
        if self.slots.front().is_none_or(|oldest| !over(&oldest)) {
            return self.used;
        }
        self.slots.iter().skip_while(over).fold(0, |sum, slot| sum.saturating_add(slot.used))
    }

    /// Returns when the last charge stops counting.
    pub fn end(&self, now: Moment) -> Instant {
        self.slots.back().map_or(now.instant, |newest| self.end_of(newest, now))
    }

    /// Returns when the usage will have fallen to this amount or less.
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

    /// Returns the slots as plain data.
    #[cfg(feature = "sqlite")]
    pub fn record(&self, clock: RecordClock) -> Vec<SlotRecord> {
        let record = |slot: &Slot| SlotRecord {
            id: slot.id,
            start: clock.nanos(slot.start),
            last: clock.nanos(slot.last),
            used: slot.used,
        };
        self.slots.iter().map(record).collect()
    }

    /// Restores a window. No charge counts for longer than the window is long, whatever the calendar clock has
    /// done.
    #[cfg(feature = "sqlite")]
    pub fn restored(length: Duration, slots: &[SlotRecord], clock: RecordClock) -> Self {
        let instant = |unix| clock.instant(unix).min(clock.now());
        let slot = |slot: &SlotRecord| {
            let (start, last) = (instant(slot.start), instant(slot.last));
            Slot { id: slot.id, start, last, used: slot.used }
        };
        let mut restored = Self { length, slots: slots.iter().map(slot).collect(), used: 0 };
        restored.used = restored.sum();
        restored
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

/// Rounds to whole milliseconds, as Redis does.
fn slot_length(window: Duration) -> Duration {
    let ms = window.as_millis().div_ceil(u128::from(SLOTS));
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}
