//! The buckets of the in-memory ledger: held amounts, the usage of the current window, and the end of the
//! window. This module does not know reservations and takes no locks; [`super`] handles both. Each call looks
//! up a bucket by its key once and then uses its index. An index stays valid while the bucket has holds or a
//! running window.

#[cfg(feature = "sqlite")]
pub mod record;
mod warned;

use super::changes::ChangeSet;
use super::counters::{Counters, WindowUsage};
use super::sliding::{SLOTS_BYTES, SlidingUsage};
use crate::ledger::crossing::{Crossings, WarnAt};
use crate::ledger::moment::Moment;
use crate::ledger::shares::{Capacity, Shares};
use crate::ledger::{CounterReading, Key, Status, Unavailable};
use policy::model::Window;
use slab::Slab;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use warned::WarnedThresholds;

/// The fallback for an end that is too far in the future to be represented.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Adds a duration to `now` without overflowing.
pub fn after(now: Moment, duration: Duration) -> Instant {
    now.instant.checked_add(duration).unwrap_or(now.instant + FAR)
}

/// Whether a bucket has room for a requested amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room.
    Granted,
    /// There is no room, so the call is refused.
    Refused,
    /// There is no room, but the rate is not enforced.
    Excused,
}

/// The index of a bucket.
pub type BucketIndex = usize;

/// The memory of a bucket with a running window, in bytes, excluding its counters. A bucket takes about 900
/// bytes; the rest allows for growing hash tables. `tests/counter_memory.rs` measures it.
const BUCKET_BYTES: u64 = 1_200;
/// The additional memory of each counter, in bytes.
const COUNTER_BYTES: u64 = 80;

/// The bucket that counts a key: its own bucket, or its limit's overflow bucket if the limit has no room for
/// another one.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The index of the bucket. `None` if the bucket does not exist yet.
    pub place: Option<BucketIndex>,
    /// The key of the overflow bucket, if the key is counted there.
    pub overflow: Option<Arc<Key>>,
}

struct MemoryBucket {
    key: Arc<Key>,
    /// The part of the limit's share that the bucket takes.
    cost: u64,
    held: u64,
    holds: u32,
    /// The part of `held` that is in leases.
    leased: u64,
    window: Option<RunningWindow>,
}

struct RunningWindow {
    usage: BucketUsage,
    /// The amount added to the maximum until the window ends. Sliding windows never end, so they have no
    /// grants.
    granted: u64,
    /// The thresholds that were reported.
    warned: WarnedThresholds,
    /// The end of the window. The end of a sliding window may have moved since.
    end: Instant,
    /// The end of a calendar period, as time since 1970. `None` for other windows.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only recorded"))]
    period_end: Option<Duration>,
    serial: WindowId,
}

enum BucketUsage {
    Fixed {
        counted: WindowUsage,
        /// The refunded part of `counted`, because limitador cannot decrease a counter.
        refunded: u64,
    },
    Sliding(SlidingUsage),
}

impl RunningWindow {
    fn used(&self, now: Moment) -> u64 {
        match &self.usage {
            BucketUsage::Fixed { counted, refunded } => counted.used().saturating_sub(*refunded),
            BucketUsage::Sliding(sliding) => sliding.used(now),
        }
    }

    fn end(&self, now: Moment) -> Instant {
        match &self.usage {
            BucketUsage::Fixed { .. } => self.end,
            BucketUsage::Sliding(sliding) => sliding.end(now),
        }
    }
}

/// Identifies a window among all windows of all buckets.
pub type WindowId = u64;

/// All buckets with holds or usage.
pub struct MemoryBuckets {
    counters: Counters,
    places: HashMap<Arc<Key>, BucketIndex>,
    buckets: Slab<MemoryBucket>,
    ends: BTreeMap<(Instant, WindowId), BucketIndex>,
    windows: WindowId,
    shares: Shares,
    /// Receives the thresholds that charges reach.
    crossings: Arc<Crossings>,
    /// The buckets whose window has changed, and those that are new or gone. Holds are recorded with their
    /// reservations.
    changed: ChangeSet<BucketIndex>,
}

impl MemoryBucket {
    /// Returns the usage of the current window.
    fn used(&self, now: Moment) -> u64 {
        let running = self.window.as_ref().filter(|window| window.end(now) > now.instant);
        running.map_or(0, |window| window.used(now))
    }

    /// Returns the amount granted in the current window.
    fn granted(&self, now: Moment) -> u64 {
        let running = self.window.as_ref().filter(|window| window.end(now) > now.instant);
        running.map_or(0, |window| window.granted)
    }

    fn reset(&self, now: Moment) -> Option<Duration> {
        let left = self.window.as_ref()?.end(now).saturating_duration_since(now.instant);
        (!left.is_zero()).then_some(left)
    }

    /// Returns the time until there may be room for this amount, ignoring holds.
    fn has_room_in(&self, amount: u64, max: u64, now: Moment) -> Option<Duration> {
        let end = match &self.window.as_ref()?.usage {
            BucketUsage::Fixed { .. } => return self.reset(now),
            BucketUsage::Sliding(sliding) => sliding.leaves(max.saturating_sub(amount), now),
        };
        let left = end.saturating_duration_since(now.instant);
        (!left.is_zero()).then_some(left)
    }
}

impl MemoryBuckets {
    /// Creates an empty set of buckets that never exceeds this capacity.
    pub fn new(capacity: Capacity, crossings: Arc<Crossings>) -> Self {
        Self {
            counters: Counters::default(),
            places: HashMap::new(),
            buckets: Slab::new(),
            ends: BTreeMap::new(),
            windows: 0,
            shares: Shares::new(capacity),
            crossings,
            changed: ChangeSet::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns the index of a bucket, if the bucket exists.
    pub fn find(&self, key: &Key) -> Option<BucketIndex> {
        self.places.get(key).copied()
    }

    /// Returns whether the bucket with this index has this key. This is faster than [`Self::find`].
    pub fn is_at(&self, place: BucketIndex, key: &Key) -> bool {
        self.buckets.get(place).is_some_and(|bucket| *bucket.key == *key)
    }

    /// Returns the key of the bucket with this index.
    pub fn key(&self, place: BucketIndex) -> Option<&Arc<Key>> {
        self.buckets.get(place).map(|bucket| &bucket.key)
    }

    /// Returns each limit's share of the memory.
    pub fn shares(&mut self) -> &mut Shares {
        &mut self.shares
    }

    /// Returns which bucket counts a key now.
    pub fn seat(&self, key: &Key) -> Seat {
        let place = self.find(key);
        if place.is_some() || self.shares.has_room(&key.limit, self.cost(key)) {
            return Seat { place, overflow: None };
        }
        let overflow = Arc::new(key.overflow());
        Seat { place: self.find(&overflow), overflow: Some(overflow) }
    }

    /// Returns the bucket of a seat, creating it if necessary.
    pub fn sit(&mut self, key: &Arc<Key>, seat: &Seat) -> BucketIndex {
        let key = seat.overflow.as_ref().unwrap_or(key);
        // An earlier descriptor of the same call may have created it.
        if let Some(place) = seat.place.or_else(|| self.find(key)) {
            return place;
        }
        // Overflow buckets cost nothing: there are few, and they must always be available.
        let cost = if key.is_overflow() { 0 } else { self.cost(key) };
        self.shares.take(&key.limit, cost);
        let bucket = MemoryBucket { key: Arc::clone(key), cost, held: 0, holds: 0, leased: 0, window: None };
        let place = self.buckets.insert(bucket);
        self.places.insert(Arc::clone(key), place);
        self.changed.note(place);
        place
    }

    fn cost(&self, key: &Key) -> u64 {
        let counters = COUNTER_BYTES.saturating_mul(key.counters.len() as u64);
        let texts = counters.saturating_add(key.text_len() as u64);
        let slots = if matches!(key.window, Window::Sliding(_)) { SLOTS_BYTES } else { 0 };
        self.shares.capacity().cost(BUCKET_BYTES.saturating_add(texts).saturating_add(slots))
    }

    /// Returns whether `amount` fits below `max`. A missing bucket counts as empty.
    pub fn has_room(&self, place: Option<BucketIndex>, amount: u64, max: u64, now: Moment) -> bool {
        let bucket = place.and_then(|place| self.buckets.get(place));
        let max = max.saturating_add(bucket.map_or(0, |bucket| bucket.granted(now)));
        let taken = bucket.map_or(Some(0), |bucket| bucket.used(now).checked_add(bucket.held));
        taken.and_then(|taken| taken.checked_add(amount)).is_some_and(|wanted| wanted <= max)
    }

    /// Adds a hold. The caller has checked that there is room.
    pub fn hold(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_add(amount);
            bucket.holds = bucket.holds.saturating_add(1);
        }
    }

    /// Increases one of a bucket's holds, even if there is no room.
    pub fn grow(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_add(amount);
        }
    }

    /// Releases a hold, and removes the bucket if nothing is left in it.
    pub fn release(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_sub(amount);
            bucket.holds = bucket.holds.saturating_sub(1);
            self.forget_if_empty(place);
        }
    }

    /// Marks an amount that a bucket holds as leased.
    pub fn lease(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.leased = bucket.leased.saturating_add(amount);
        }
    }

    /// Ends the mark of [`Self::lease`] for an amount.
    pub fn end_lease(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.leased = bucket.leased.saturating_sub(amount);
        }
    }

    /// Decreases one of a bucket's holds.
    pub fn lessen(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_sub(amount);
        }
    }

    /// Charges the current window, starting one if none is running. Returns the id of the charged window or
    /// slot.
    pub fn charge(
        &mut self,
        place: BucketIndex,
        amount: u64,
        warn_at: Option<&WarnAt>,
        now: Moment,
    ) -> Result<WindowId, Unavailable> {
        if amount == 0 {
            return Ok(0);
        }
        self.start_window(place, now)?;
        self.changed.note(place);
        let Some(window) = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut()) else {
            return Ok(0);
        };
        let charged_in = match &mut window.usage {
            BucketUsage::Fixed { counted, .. } => {
                self.counters.charge(counted, amount)?;
                window.serial
            }
            BucketUsage::Sliding(sliding) => {
                self.windows = self.windows.wrapping_add(1);
                sliding.charge(amount, now, self.windows)
            }
        };
        if let Some(warn_at) = warn_at {
            self.warn(place, warn_at, now);
        }
        Ok(charged_in)
    }

    /// Starts a window if none is running. A sliding window without charges counts as ended.
    fn start_window(&mut self, place: BucketIndex, now: Moment) -> Result<(), Unavailable> {
        self.end_window(place, now)?;
        let Some(bucket) = self.buckets.get_mut(place) else { return Ok(()) };
        if bucket.key.window == Window::Now || bucket.window.is_some() {
            return Ok(());
        }
        let usage = match bucket.key.window {
            Window::Sliding(length) => BucketUsage::Sliding(SlidingUsage::new(length)),
            Window::Fixed(_) | Window::Period(..) | Window::Now => {
                BucketUsage::Fixed { counted: self.counters.start()?, refunded: 0 }
            }
        };
        self.windows = self.windows.wrapping_add(1);
        let length = now.until_end_of(&bucket.key.window);
        let (end, serial) = (after(now, length), self.windows);
        let period_end =
            matches!(bucket.key.window, Window::Period(..)).then(|| now.unix.saturating_add(length));
        self.ends.insert((end, serial), place);
        let warned = WarnedThresholds::default();
        bucket.window = Some(RunningWindow { usage, granted: 0, warned, end, period_end, serial });
        Ok(())
    }

    /// Raises a bucket's maximum in the current window. Starts a window if none is running.
    pub fn grant(&mut self, place: BucketIndex, amount: u64, now: Moment) -> Result<(), Unavailable> {
        self.start_window(place, now)?;
        self.changed.note(place);
        if let Some(window) = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut()) {
            window.granted = window.granted.saturating_add(amount);
        }
        Ok(())
    }

    /// Drops a bucket's window with its charges and grants. Returns false if there were none.
    pub fn reset(&mut self, place: BucketIndex, now: Moment) -> Result<bool, Unavailable> {
        let Some(bucket) = self.buckets.get_mut(place) else { return Ok(false) };
        let is_marked = bucket.used(now) > 0 || bucket.granted(now) > 0;
        let Some(window) = bucket.window.take() else { return Ok(false) };
        self.drop_window(place, window)?;
        self.forget_if_empty(place);
        Ok(is_marked)
    }

    /// Refunds a charge if its window is still running. A later window does not include the charge.
    pub fn refund(&mut self, place: BucketIndex, amount: u64, charged_in: WindowId) {
        self.changed.note(place);
        let window = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut());
        match window.map(|window| (window.serial, &mut window.usage)) {
            Some((serial, BucketUsage::Fixed { refunded, .. })) if serial == charged_in => {
                *refunded = refunded.saturating_add(amount);
            }
            Some((_, BucketUsage::Sliding(sliding))) => sliding.refund(charged_in, amount),
            Some(_) | None => {}
        }
    }

    /// Returns the status of a bucket.
    pub fn status(
        &self,
        seat: &Seat,
        window: &Window,
        (amount, max): (u64, u64),
        room: Admission,
        now: Moment,
    ) -> Status {
        let bucket = seat.place.and_then(|place| self.buckets.get(place));
        let (used, held) = bucket.map_or((0, 0), |bucket| (bucket.used(now), bucket.held));
        let max = max.saturating_add(bucket.map_or(0, |bucket| bucket.granted(now)));
        let reset = bucket.and_then(|bucket| match room {
            Admission::Granted => bucket.reset(now),
            Admission::Refused | Admission::Excused => bucket.has_room_in(amount, max, now),
        });
        let reset = reset.unwrap_or_else(|| now.until_end_of(window));
        let (limited, excused) = (room == Admission::Refused, room == Admission::Excused);
        let remaining = max.saturating_sub(used.saturating_add(held));
        let leased = bucket.filter(|_| limited).map_or(0, |bucket| bucket.leased);
        Status { limited, excused, max, remaining, reset, used, overflowed: seat.overflow.is_some(), leased }
    }

    /// Returns the reading of the bucket that counts a key now.
    pub fn read(&self, key: &Arc<Key>, now: Moment) -> CounterReading {
        let Seat { place, overflow } = self.seat(key);
        let reading = place.and_then(|place| self.readings([place], now).pop());
        let key = overflow.unwrap_or_else(|| Arc::clone(key));
        let new = now.until_end_of(&key.window);
        let none = CounterReading { key, used: 0, held: 0, leased: 0, granted: 0, reset: None };
        let reading = reading.unwrap_or(none);
        CounterReading { reset: reading.reset.or(Some(new)), ..reading }
    }

    /// Returns the readings of the buckets with these indices.
    pub fn readings(
        &self,
        places: impl IntoIterator<Item = BucketIndex>,
        now: Moment,
    ) -> Vec<CounterReading> {
        let buckets = places.into_iter().filter_map(|place| self.buckets.get(place));
        let reading = |bucket: &MemoryBucket| CounterReading {
            key: Arc::clone(&bucket.key),
            used: bucket.used(now),
            held: bucket.held,
            leased: bucket.leased,
            granted: bucket.granted(now),
            reset: bucket.reset(now),
        };
        buckets.map(reading).collect()
    }

    /// Returns an index beyond those of all buckets.
    pub fn end(&self) -> BucketIndex {
        self.buckets.capacity()
    }

    /// Ends at most `at_most` expired windows. Returns whether more may have expired.
    pub fn sweep(&mut self, at_most: usize, now: Moment) -> Result<bool, Unavailable> {
        for _ in 0..at_most {
            let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= now.instant) else {
                return Ok(false);
            };
            let place = *entry.get();
            let (_, serial) = entry.remove_entry().0;
            let window = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut());
            if let Some(window) = window.filter(|window| window.end(now) > now.instant) {
                window.end = window.end(now);
                self.ends.insert((window.end, serial), place);
                continue;
            }
            self.end_window(place, now)?;
            self.forget_if_empty(place);
        }
        Ok(true)
    }

    /// Drops the bucket's window if it has ended.
    fn end_window(&mut self, place: BucketIndex, now: Moment) -> Result<(), Unavailable> {
        let window = self
            .buckets
            .get_mut(place)
            .and_then(|bucket| bucket.window.take_if(|window| window.end(now) <= now.instant));
        window.map_or(Ok(()), |window| self.drop_window(place, window))
    }

    fn drop_window(&mut self, place: BucketIndex, window: RunningWindow) -> Result<(), Unavailable> {
        self.changed.note(place);
        self.ends.remove(&(window.end, window.serial));
        match window.usage {
            BucketUsage::Fixed { counted, .. } => self.counters.end(counted),
            BucketUsage::Sliding(_) => Ok(()),
        }
    }

    /// Removes a bucket without holds and without a window.
    fn forget_if_empty(&mut self, place: BucketIndex) {
        if self.buckets.get(place).is_some_and(|bucket| bucket.holds == 0 && bucket.window.is_none()) {
            let bucket = self.buckets.remove(place);
            self.changed.note(place);
            self.places.remove(&bucket.key);
            self.shares.give_back(&bucket.key.limit, bucket.cost);
        }
    }
}
