//! Buckets as plain data.

use super::{
    BucketIndex, BucketUsage, MemoryBucket, MemoryBuckets, RunningWindow, SlidingUsage, WarnedThresholds,
    WindowId, after,
};
use crate::ledger::memory::record::{RecordClock, UnixNanos, nanos};
use crate::ledger::memory::sliding::SlotRecord;
use crate::ledger::moment::Moment;
use crate::ledger::{Key, Unavailable};
use policy::model::Window;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// A bucket. Its holds are those of the reservations and results.
#[derive(Debug)]
pub struct BucketRecord {
    pub key: Arc<Key>,
    pub window: Option<WindowRecord>,
}

/// A running window.
#[derive(Debug, Serialize, Deserialize)]
pub struct WindowRecord {
    serial: WindowId,
    /// The end of the window. For a calendar period, the end of the period.
    ends: UnixNanos,
    /// The usage of a window that is not sliding.
    #[serde(default)]
    used: u64,
    /// The slots of a sliding window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    slots: Vec<SlotRecord>,
    #[serde(default)]
    granted: u64,
    /// The reported thresholds in percent, and when each may be reported again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warned: Vec<(u8, UnixNanos)>,
}

impl WindowRecord {
    fn of(window: &RunningWindow, clock: RecordClock) -> Self {
        let (used, slots) = match &window.usage {
            BucketUsage::Fixed { counted, refunded } => {
                (counted.used().saturating_sub(*refunded), Vec::new())
            }
            BucketUsage::Sliding(sliding) => (0, sliding.record(clock)),
        };
        let ends = window.period_end.map_or_else(|| clock.nanos(window.end), nanos);
        let warned = window.warned.record(clock);
        Self { serial: window.serial, ends, used, slots, granted: window.granted, warned }
    }

    /// Returns the largest id of a window or a slot.
    fn last_id(&self) -> WindowId {
        self.slots.iter().map(|slot| slot.id).fold(self.serial, WindowId::max)
    }
}

impl MemoryBuckets {
    /// Records changes from now on.
    pub fn start_recording(&mut self) {
        self.changed.start();
    }

    /// Returns the buckets that have changed.
    pub fn changes(&mut self, clock: RecordClock) -> Vec<(BucketIndex, Option<BucketRecord>)> {
        let record = |place| {
            let bucket: Option<&MemoryBucket> = self.buckets.get(place);
            let record = bucket.map(|bucket| BucketRecord {
                key: Arc::clone(&bucket.key),
                window: bucket.window.as_ref().map(|window| WindowRecord::of(window, clock)),
            });
            (place, record)
        };
        self.changed.take().into_iter().map(record).collect()
    }

    /// Notes a change again that could not be recorded.
    pub fn note(&mut self, place: BucketIndex) {
        self.changed.note(place);
    }

    /// Never gives a window this id or a lower one.
    pub fn skip_ids(&mut self, last: WindowId) {
        self.windows = self.windows.max(last);
    }

    /// Restores buckets in an empty ledger, even if there are more than it has room for: none may be lost.
    pub fn restore(
        &mut self,
        records: Vec<(BucketIndex, BucketRecord)>,
        clock: RecordClock,
    ) -> Result<(), Unavailable> {
        let mut limits: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        let mut buckets = Vec::with_capacity(records.len());
        for (place, BucketRecord { key, window }) in records {
            // Keys share the names of their limits.
            let limit = limits.entry(Arc::clone(&key.limit)).or_insert_with(|| Arc::clone(&key.limit));
            let key = Arc::new(Key { limit: Arc::clone(limit), ..(*key).clone() });
            let cost = if key.is_overflow() { 0 } else { self.cost(&key) };
            self.shares.take(&key.limit, cost);
            let window = match window {
                Some(window) => self.restore_window(place, &key, window, clock)?,
                None => None,
            };
            self.places.insert(Arc::clone(&key), place);
            buckets.push((place, MemoryBucket { key, cost, held: 0, holds: 0, leased: 0, window }));
        }
        self.buckets = buckets.into_iter().collect();
        Ok(())
    }

    fn restore_window(
        &mut self,
        place: BucketIndex,
        key: &Key,
        record: WindowRecord,
        clock: RecordClock,
    ) -> Result<Option<RunningWindow>, Unavailable> {
        self.skip_ids(record.last_id());
        let now = Moment { instant: clock.now(), ..Moment::now() };
        let (end, period_end) = match &key.window {
            Window::Period(..) => match clock.calendar(record.ends) {
                Some(end) => (end, Some(std::time::Duration::from_nanos(record.ends))),
                None => return Ok(None),
            },
            // No window lasts longer than its length, whatever the calendar clock has done.
            Window::Fixed(length) => (clock.instant(record.ends).min(after(now, *length)), None),
            Window::Sliding(_) | Window::Now => (clock.instant(record.ends), None),
        };
        let usage = match key.window {
            Window::Sliding(length) => {
                BucketUsage::Sliding(SlidingUsage::restored(length, &record.slots, clock))
            }
            Window::Fixed(_) | Window::Period(..) | Window::Now => {
                let mut counted = self.counters.start()?;
                self.counters.charge(&mut counted, record.used)?;
                BucketUsage::Fixed { counted, refunded: 0 }
            }
        };
        self.ends.insert((end, record.serial), place);
        let warned = WarnedThresholds::restored(&record.warned, clock);
        let (serial, granted) = (record.serial, record.granted);
        Ok(Some(RunningWindow { usage, granted, warned, end, period_end, serial }))
    }

    /// Restores a hold. Returns false if its bucket is not there.
    pub fn restore_hold(&mut self, place: BucketIndex, amount: u64) -> bool {
        let is_there = self.buckets.contains(place);
        self.hold(place, amount);
        is_there
    }

    /// Removes buckets without holds and without a window.
    pub fn forget_empty(&mut self) {
        let is_empty = |bucket: &MemoryBucket| bucket.holds == 0 && bucket.window.is_none();
        let empty: Vec<_> =
            self.buckets.iter().filter(|(_, bucket)| is_empty(bucket)).map(|(place, _)| place).collect();
        empty.into_iter().for_each(|place| self.forget_if_empty(place));
    }
}
