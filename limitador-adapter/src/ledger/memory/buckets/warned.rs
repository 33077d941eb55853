//! The thresholds that a bucket has reached in its window.

use super::{BucketIndex, MemoryBuckets, after};
use crate::ledger::crossing::{Crossing, WarnAt};
#[cfg(feature = "sqlite")]
use crate::ledger::memory::record::{RecordClock, UnixNanos};
use crate::ledger::moment::Moment;
use policy::model::{Threshold, Window};
use std::sync::Arc;
use std::time::Instant;

/// The thresholds that were reported, and when each may be reported again. There are at most 100.
#[derive(Default)]
pub struct WarnedThresholds(Vec<(Threshold, Instant)>);

impl WarnedThresholds {
    /// Returns whether this threshold must be reported now, and remembers it.
    fn is_new(&mut self, threshold: Threshold, until: Instant, now: Moment) -> bool {
        self.0.retain(|(_, until)| *until > now.instant);
        let is_new = self.0.iter().all(|(known, _)| *known != threshold);
        if is_new {
            self.0.push((threshold, until));
        }
        is_new
    }
}

#[cfg(feature = "sqlite")]
impl WarnedThresholds {
    /// Returns the reported thresholds in percent, and when each may be reported again.
    pub fn record(&self, clock: RecordClock) -> Vec<(u8, UnixNanos)> {
        self.0.iter().map(|(threshold, until)| (threshold.percent(), clock.nanos(*until))).collect()
    }

    pub fn restored(records: &[(u8, UnixNanos)], clock: RecordClock) -> Self {
        let restored = |(percent, until): &(u8, UnixNanos)| {
            Some((Threshold::of_percent((*percent).into())?, clock.instant(*until)))
        };
        Self(records.iter().filter_map(restored).collect())
    }
}

impl MemoryBuckets {
    /// Reports each threshold that the bucket has reached for the first time in its window.
    pub(super) fn warn(&mut self, place: BucketIndex, warn_at: &WarnAt, now: Moment) {
        let Some(bucket) = self.buckets.get_mut(place) else { return };
        let Some(window) = &mut bucket.window else { return };
        let (used, max) = (window.used(now), warn_at.max.saturating_add(window.granted));
        let end = window.end(now);
        let until = match &bucket.key.window {
            Window::Sliding(length) => after(now, *length),
            Window::Fixed(_) | Window::Period(..) | Window::Now => end,
        };
        let reset = end.saturating_duration_since(now.instant);
        for threshold in warn_at.thresholds.iter().copied() {
            if threshold.is_reached(used, max) && window.warned.is_new(threshold, until, now) {
                let key = Arc::clone(&bucket.key);
                self.crossings.push(Crossing { key, threshold, max, used, reset });
            }
        }
    }
}
