//! The buckets of a ledger in memory: what is held, what is used in the current window, and when that is over. No
//! reservations here, no locks; [`super`] has both.
//!
//! A bucket is looked up once per call, by its key; from then on it is known by its place. A place stays as it is for
//! as long as something is held in it or its window runs.

use super::counters::{Counters, WindowUsage};
use super::sliding::{SLOTS_BYTES, SlidingUsage};
use crate::ledger::moment::Moment;
use crate::ledger::shares::{Capacity, Shares};
use crate::ledger::{CounterReading, Key, Status, Unavailable};
use policy::model::Window;
use slab::Slab;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An end that no clock reaches, for windows whose own end cannot be told.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `now` and then some.
pub fn after(now: Moment, duration: Duration) -> Instant {
    now.instant.checked_add(duration).unwrap_or(now.instant + FAR)
}

/// Whether a bucket has room for what a call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Granted,
    /// No, so the call is refused.
    Refused,
    /// No, which stops nobody.
    Excused,
}

/// Where a bucket is.
pub type BucketIndex = usize;

/// What a bucket takes beside the texts of its counters, in bytes, with its window running: about 900, and what tables need when
/// they grow. `tests/counter_memory.rs` measures it.
const BUCKET_BYTES: u64 = 1_200;
/// And for each of its counters.
const COUNTER_BYTES: u64 = 80;

/// Where a key is counted: in a bucket of its own, or in the overflow bucket of its limit where there is no room for one.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Where that bucket is; `None`: it is not there yet.
    pub place: Option<BucketIndex>,
    /// The key of the overflow bucket, if it is that.
    pub overflow: Option<Arc<Key>>,
}

struct MemoryBucket {
    key: Arc<Key>,
    /// What it takes of its limit's share.
    cost: u64,
    held: u64,
    holds: u32,
    window: Option<RunningWindow>,
}

struct RunningWindow {
    usage: BucketUsage,
    /// Added to the maximum until the window ends. Sliding windows do not end, and have no grants.
    granted: u64,
    /// When it is over. A sliding window may have moved it since.
    end: Instant,
    serial: WindowId,
}

enum BucketUsage {
    Fixed {
        counted: WindowUsage,
        /// Of what is counted: given back. Limitador counts up only.
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

/// Tells all windows of all buckets apart.
pub type WindowId = u64;

/// All buckets that hold or have used something.
pub struct MemoryBuckets {
    counters: Counters,
    places: HashMap<Arc<Key>, BucketIndex>,
    buckets: Slab<MemoryBucket>,
    ends: BTreeMap<(Instant, WindowId), BucketIndex>,
    windows: WindowId,
    shares: Shares,
}

impl MemoryBucket {
    /// What the window of `now` has used.
    fn used(&self, now: Moment) -> u64 {
        let running = self.window.as_ref().filter(|window| window.end(now) > now.instant);
        running.map_or(0, |window| window.used(now))
    }

    /// What is granted in the window of `now`.
    fn granted(&self, now: Moment) -> u64 {
        let running = self.window.as_ref().filter(|window| window.end(now) > now.instant);
        running.map_or(0, |window| window.granted)
    }

    fn reset(&self, now: Moment) -> Option<Duration> {
        let left = self.window.as_ref()?.end(now).saturating_duration_since(now.instant);
        (!left.is_zero()).then_some(left)
    }

    /// When there may be room for so much more, whatever becomes of what is held.
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
    /// None yet, and never more than there is room for.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            counters: Counters::default(),
            places: HashMap::new(),
            buckets: Slab::new(),
            ends: BTreeMap::new(),
            windows: 0,
            shares: Shares::new(capacity),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Where a bucket is, if there is one.
    pub fn find(&self, key: &Key) -> Option<BucketIndex> {
        self.places.get(key).copied()
    }

    /// Whether this bucket is there: quicker than to find it.
    pub fn is_at(&self, place: BucketIndex, key: &Key) -> bool {
        self.buckets.get(place).is_some_and(|bucket| *bucket.key == *key)
    }

    /// Who has how much room.
    pub fn shares(&mut self) -> &mut Shares {
        &mut self.shares
    }

    /// Where a key is counted now.
    pub fn seat(&self, key: &Key) -> Seat {
        let place = self.find(key);
        if place.is_some() || self.shares.has_room(&key.limit, self.cost(key)) {
            return Seat { place, overflow: None };
        }
        let overflow = Arc::new(key.overflow());
        Seat { place: self.find(&overflow), overflow: Some(overflow) }
    }

    /// The bucket of a seat, made if it is not there.
    pub fn sit(&mut self, key: &Arc<Key>, seat: &Seat) -> BucketIndex {
        let key = seat.overflow.as_ref().unwrap_or(key);
        // It may have been made for the same call.
        if let Some(place) = seat.place.or_else(|| self.find(key)) {
            return place;
        }
        // Those are few, and what has no other room counts there.
        let cost = if key.is_overflow() { 0 } else { self.cost(key) };
        self.shares.take(&key.limit, cost);
        let bucket = MemoryBucket { key: Arc::clone(key), cost, held: 0, holds: 0, window: None };
        let place = self.buckets.insert(bucket);
        self.places.insert(Arc::clone(key), place);
        place
    }

    fn cost(&self, key: &Key) -> u64 {
        let counters = COUNTER_BYTES.saturating_mul(key.counters.len() as u64);
        let texts = counters.saturating_add(key.text_len() as u64);
        let slots = if matches!(key.window, Window::Sliding(_)) { SLOTS_BYTES } else { 0 };
        self.shares.capacity().cost(BUCKET_BYTES.saturating_add(texts).saturating_add(slots))
    }

    /// Whether `amount` more fits under `max`. A bucket that there is not is empty.
    pub fn has_room(&self, place: Option<BucketIndex>, amount: u64, max: u64, now: Moment) -> bool {
        let bucket = place.and_then(|place| self.buckets.get(place));
        let max = max.saturating_add(bucket.map_or(0, |bucket| bucket.granted(now)));
        let taken = bucket.map_or(Some(0), |bucket| bucket.used(now).checked_add(bucket.held));
        taken.and_then(|taken| taken.checked_add(amount)).is_some_and(|wanted| wanted <= max)
    }

    /// Takes an amount out of a bucket's room. The caller has asked whether there is any.
    pub fn hold(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_add(amount);
            bucket.holds = bucket.holds.saturating_add(1);
        }
    }

    /// One of a bucket's holds holds so much more, room or not.
    pub fn grow(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_add(amount);
        }
    }

    /// Lets a hold go, and forgets the bucket if it was all there was.
    pub fn release(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_sub(amount);
            bucket.holds = bucket.holds.saturating_sub(1);
            self.forget_if_empty(place);
        }
    }

    /// Of what one hold has, so much is held no longer.
    pub fn lessen(&mut self, place: BucketIndex, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.held = bucket.held.saturating_sub(amount);
        }
    }

    /// Charges the window of `now`, which starts here if none is running. Which window that is.
    pub fn charge(&mut self, place: BucketIndex, amount: u64, now: Moment) -> Result<WindowId, Unavailable> {
        if amount == 0 {
            return Ok(0);
        }
        self.start_window(place, now)?;
        let Some(window) = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut()) else {
            return Ok(0);
        };
        match &mut window.usage {
            BucketUsage::Fixed { counted, .. } => {
                self.counters.charge(counted, amount)?;
                Ok(window.serial)
            }
            BucketUsage::Sliding(sliding) => {
                self.windows = self.windows.wrapping_add(1);
                Ok(sliding.charge(amount, now, self.windows))
            }
        }
    }

    /// Makes sure that the window of `now` is running. A sliding one is over as long as nothing is charged.
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
        let (end, serial) = (after(now, now.until_end_of(&bucket.key.window)), self.windows);
        self.ends.insert((end, serial), place);
        bucket.window = Some(RunningWindow { usage, granted: 0, end, serial });
        Ok(())
    }

    /// Raises a bucket's maximum in the window of `now`, which starts here if none is running.
    pub fn grant(&mut self, place: BucketIndex, amount: u64, now: Moment) -> Result<(), Unavailable> {
        self.start_window(place, now)?;
        if let Some(window) = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut()) {
            window.granted = window.granted.saturating_add(amount);
        }
        Ok(())
    }

    /// Drops a bucket's window with its charges and grants. False if it had none.
    pub fn reset(&mut self, place: BucketIndex, now: Moment) -> Result<bool, Unavailable> {
        let Some(bucket) = self.buckets.get_mut(place) else { return Ok(false) };
        let is_marked = bucket.used(now) > 0 || bucket.granted(now) > 0;
        let Some(window) = bucket.window.take() else { return Ok(false) };
        self.drop_window(window)?;
        self.forget_if_empty(place);
        Ok(is_marked)
    }

    /// Gives a charge back, if its window is still running: another window never had it.
    pub fn refund(&mut self, place: BucketIndex, amount: u64, charged_in: WindowId) {
        let window = self.buckets.get_mut(place).and_then(|bucket| bucket.window.as_mut());
        match window.map(|window| (window.serial, &mut window.usage)) {
            Some((serial, BucketUsage::Fixed { refunded, .. })) if serial == charged_in => {
                *refunded = refunded.saturating_add(amount);
            }
            Some((_, BucketUsage::Sliding(sliding))) => sliding.refund(charged_in, amount),
            Some(_) | None => {}
        }
    }

    /// How a bucket stands.
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
        Status { limited, excused, max, remaining, reset, used, overflowed: seat.overflow.is_some() }
    }

    /// How the bucket stands in which a key is counted now.
    pub fn read(&self, key: &Arc<Key>, now: Moment) -> CounterReading {
        let Seat { place, overflow } = self.seat(key);
        let reading = place.and_then(|place| self.readings(&[place], now).pop());
        let key = overflow.unwrap_or_else(|| Arc::clone(key));
        let new = now.until_end_of(&key.window);
        let none = CounterReading { key, used: 0, held: 0, granted: 0, reset: None };
        let reading = reading.unwrap_or(none);
        CounterReading { reset: reading.reset.or(Some(new)), ..reading }
    }

    /// How the buckets at some places stand, for a person.
    pub fn readings(&self, places: &[BucketIndex], now: Moment) -> Vec<CounterReading> {
        let buckets = places.iter().filter_map(|place| self.buckets.get(*place));
        let reading = |bucket: &MemoryBucket| CounterReading {
            key: Arc::clone(&bucket.key),
            used: bucket.used(now),
            held: bucket.held,
            granted: bucket.granted(now),
            reset: bucket.reset(now),
        };
        buckets.map(reading).collect()
    }

    /// Where there are any now.
    pub fn places(&self) -> Vec<BucketIndex> {
        self.buckets.iter().map(|(place, _)| place).collect()
    }

    /// Ends windows that are over, a bounded number. Whether there may be more.
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

    /// Drops the bucket's window if it is over.
    fn end_window(&mut self, place: BucketIndex, now: Moment) -> Result<(), Unavailable> {
        let window = self
            .buckets
            .get_mut(place)
            .and_then(|bucket| bucket.window.take_if(|window| window.end(now) <= now.instant));
        window.map_or(Ok(()), |window| self.drop_window(window))
    }

    fn drop_window(&mut self, window: RunningWindow) -> Result<(), Unavailable> {
        self.ends.remove(&(window.end, window.serial));
        match window.usage {
            BucketUsage::Fixed { counted, .. } => self.counters.end(counted),
            BucketUsage::Sliding(_) => Ok(()),
        }
    }

    /// A bucket without holds and without a window is none.
    fn forget_if_empty(&mut self, place: BucketIndex) {
        if self.buckets.get(place).is_some_and(|bucket| bucket.holds == 0 && bucket.window.is_none()) {
            let bucket = self.buckets.remove(place);
            self.places.remove(&bucket.key);
            self.shares.give_back(&bucket.key.limit, bucket.cost);
        }
    }
}
