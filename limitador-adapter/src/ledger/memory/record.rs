//! The state as plain data, for a storage that records it. Times are nanoseconds since 1970, because the
//! monotonic clock means nothing to another process.

use super::buckets::BucketIndex;
pub use super::buckets::record::BucketRecord;
use super::changes::ReservationNumber;
pub use super::settled_ids::record::{EndedRecords, LapsedRecord};
use super::settled_ids::{Advance, Id};
use super::state::Held;
use super::state::record::ReservationRecord;
use super::stored::record::{EarlyRecord, ResultRecord};
use crate::ledger::moment::Moment;
use crate::ledger::{Key, key_text};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A time in nanoseconds since 1970.
pub type UnixNanos = u64;

/// Everything that has changed since the last call, as it is now. `None` means that the part is gone.
#[derive(Debug, Default)]
pub struct StateChanges {
    pub buckets: Vec<(BucketIndex, Option<BucketRecord>)>,
    pub reservations: Vec<(ReservationNumber, ReservationRecord)>,
    /// Recorded reservations that have ended.
    pub ended: Vec<ReservationNumber>,
    pub archive: EndedRecords,
    pub results: Vec<(Id, Option<ResultRecord>)>,
    pub early: Vec<(Id, Option<EarlyRecord>)>,
    /// The ids of grants, and when each may be forgotten.
    pub grants: Vec<(u64, UnixNanos)>,
    /// The workers, and for how long each counts as alive after it was last attended.
    pub workers: Vec<(u64, Option<Duration>)>,
}

impl StateChanges {
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
            && self.reservations.is_empty()
            && self.ended.is_empty()
            && self.archive.is_empty()
            && self.results.is_empty()
            && self.early.is_empty()
            && self.grants.is_empty()
            && self.workers.is_empty()
    }
}

/// A state that was recorded.
#[derive(Debug, Default)]
pub struct RecordedState {
    /// When it was last recorded.
    pub saved: UnixNanos,
    pub buckets: Vec<(BucketIndex, BucketRecord)>,
    pub reservations: Vec<(ReservationNumber, ReservationRecord)>,
    pub archive: EndedRecords,
    pub results: Vec<(Id, ResultRecord)>,
    pub early: Vec<(Id, EarlyRecord)>,
    pub grants: Vec<(u64, UnixNanos)>,
    pub workers: Vec<(u64, Duration)>,
}

/// Converts between the monotonic clock and time since 1970.
#[derive(Clone, Copy, Debug)]
pub struct RecordClock {
    now: Moment,
    calendar: Duration,
}

impl RecordClock {
    /// Creates a clock that converts as of this moment.
    pub fn new(now: Moment) -> Self {
        Self { now, calendar: now.unix }
    }

    /// Creates a clock for a state that was recorded at this time. If the calendar clock has gone backwards
    /// since, no time has passed: otherwise everything would last longer.
    pub fn after(saved: UnixNanos, now: Moment) -> Self {
        let unix = now.unix.max(Duration::from_nanos(saved));
        Self { now: Moment { unix, ..now }, calendar: now.unix }
    }

    pub fn nanos(self, instant: Instant) -> UnixNanos {
        let unix = match instant.checked_duration_since(self.now.instant) {
            Some(ahead) => self.now.unix.saturating_add(ahead),
            None => self.now.unix.saturating_sub(self.now.instant.saturating_duration_since(instant)),
        };
        nanos(unix)
    }

    pub fn instant(self, unix: UnixNanos) -> Instant {
        let unix = Duration::from_nanos(unix);
        match unix.checked_sub(self.now.unix) {
            Some(ahead) => self.ahead(ahead),
            None => {
                let back = self.now.unix.saturating_sub(unix);
                self.now.instant.checked_sub(back).unwrap_or(self.now.instant)
            }
        }
    }

    /// Returns when the calendar reaches this time, or `None` if it is over.
    pub fn calendar(self, unix: UnixNanos) -> Option<Instant> {
        let ahead = Duration::from_nanos(unix).checked_sub(self.calendar).filter(|ahead| !ahead.is_zero());
        ahead.map(|ahead| self.ahead(ahead))
    }

    pub fn now(self) -> Instant {
        self.now.instant
    }

    fn ahead(self, ahead: Duration) -> Instant {
        super::buckets::after(self.now, ahead)
    }
}

/// Returns the nanoseconds of a duration, at most those that a signed number can count: some 290 years.
pub fn nanos(duration: Duration) -> UnixNanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX).cast_unsigned()
}

/// A bucket's key, as its text.
#[derive(Clone, Debug)]
pub struct KeyRecord(pub Arc<Key>);

impl Serialize for KeyRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key_text::of(&self.0))
    }
}

impl<'de> Deserialize<'de> for KeyRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = key_text::parse(&text).ok_or_else(|| D::Error::custom("not the key of a bucket"))?;
        Ok(Self(Arc::new(key)))
    }
}

/// A hold of a reservation or a result.
#[derive(Debug, Serialize, Deserialize)]
pub struct HoldRecord {
    place: BucketIndex,
    amount: u64,
    until: UnixNanos,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<KeyRecord>,
    #[serde(default, skip_serializing_if = "is_false")]
    charged_at_lapse: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    is_lease: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl HoldRecord {
    pub fn of(held: &Held, clock: RecordClock) -> Self {
        let asked = held.asked.clone().map(KeyRecord);
        let Held { place, amount, charged_at_lapse, is_lease, .. } = *held;
        Self { place, amount, until: clock.nanos(held.until), asked, charged_at_lapse, is_lease }
    }

    pub fn restored(self, clock: RecordClock) -> Held {
        let asked = self.asked.map(|KeyRecord(key)| key);
        let Self { place, amount, charged_at_lapse, is_lease, .. } = self;
        Held { place, amount, until: clock.instant(self.until), asked, charged_at_lapse, is_lease }
    }
}

/// A charge that was made before the commit.
#[derive(Debug, Serialize, Deserialize)]
pub struct AdvanceRecord {
    key: KeyRecord,
    place: BucketIndex,
    amount: u64,
    pub window: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    at_lapse: bool,
}

impl From<&Advance> for AdvanceRecord {
    fn from(advance: &Advance) -> Self {
        let Advance { place, amount, window, at_lapse, .. } = *advance;
        Self { key: KeyRecord(Arc::clone(&advance.key)), place, amount, window, at_lapse }
    }
}

impl From<AdvanceRecord> for Advance {
    fn from(record: AdvanceRecord) -> Self {
        let AdvanceRecord { key: KeyRecord(key), place, amount, window, at_lapse } = record;
        Self { key, place, amount, window, at_lapse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_and_a_clock_that_went_back_ends_nothing_late() {
        let now = Moment::now();
        let hour = Duration::from_secs(3600);
        let clock = RecordClock::new(now);
        for instant in [now.instant, now.instant + hour, now.instant.checked_sub(hour).unwrap()] {
            assert_eq!(clock.instant(clock.nanos(instant)), instant);
        }
        let (saved, end) = (nanos(now.unix), clock.nanos(now.instant + hour));
        let later = Moment { unix: now.unix + hour / 4, ..now };
        assert_eq!(RecordClock::after(saved, later).instant(end), now.instant + hour * 3 / 4);
        let back = Moment { unix: now.unix - 24 * hour, ..now };
        assert_eq!(RecordClock::after(saved, back).instant(end), now.instant + hour);
        // A calendar period ends when the calendar says so.
        assert_eq!(RecordClock::after(saved, back).calendar(end), Some(now.instant + 25 * hour));
        assert_eq!(RecordClock::after(saved, later).calendar(saved), None);
    }
}
