//! The buckets of a ledger in memory: what is held, what is used in the current window, and when that is over. No
//! reservations here, no locks; [`crate::memory`] has both.

use crate::counters::{Counters, Usage};
use crate::ledger::{Key, Reading, Status, Unavailable};
use crate::moment::Moment;
use policy::model::Window;
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
pub enum Room {
    /// Yes.
    Enough,
    /// No, so the call is refused.
    None,
    /// No, which stops nobody.
    Excused,
}

struct Bucket {
    held: u64,
    holds: u32,
    window: Option<Running>,
}

struct Running {
    usage: Usage,
    /// Of the usage: given back. Limitador counts up only.
    refunded: u64,
    end: Instant,
    serial: WindowId,
}

/// Tells all windows of all buckets apart.
pub type WindowId = u64;

/// All buckets that hold or have used something.
pub struct Buckets {
    counters: Counters,
    buckets: HashMap<Arc<Key>, Bucket>,
    ends: BTreeMap<(Instant, WindowId), Arc<Key>>,
    windows: WindowId,
    at_most: usize,
}

impl Buckets {
    /// None yet, and never more than `at_most`.
    pub fn new(at_most: usize) -> Self {
        let (counters, buckets, ends) = (Counters::default(), HashMap::new(), BTreeMap::new());
        Self { counters, buckets, ends, windows: 0, at_most }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// What the window of `now` has used.
    fn used(&mut self, key: &Key, now: Moment) -> Result<u64, Unavailable> {
        match self.buckets.get_mut(key).and_then(|bucket| bucket.window.as_mut()) {
            Some(window) if window.end > now.instant => {
                Ok(self.counters.used(&mut window.usage)?.saturating_sub(window.refunded))
            }
            _ => Ok(0),
        }
    }

    fn held(&self, key: &Key) -> u64 {
        self.buckets.get(key).map_or(0, |bucket| bucket.held)
    }

    /// Whether `amount` more fits under `max`.
    pub fn has_room(&mut self, key: &Key, amount: u64, max: u64, now: Moment) -> Result<bool, Unavailable> {
        let taken = self.used(key, now)?.checked_add(self.held(key));
        Ok(taken.and_then(|taken| taken.checked_add(amount)).is_some_and(|wanted| wanted <= max))
    }

    /// Takes an amount out of a bucket's room. The caller has asked whether there is any.
    pub fn hold(&mut self, key: &Arc<Key>, amount: u64) -> Result<(), Unavailable> {
        let bucket = self.bucket(key)?;
        bucket.held = bucket.held.saturating_add(amount);
        bucket.holds = bucket.holds.saturating_add(1);
        Ok(())
    }

    /// Lets a hold go.
    pub fn release(&mut self, key: &Arc<Key>, amount: u64) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.held = bucket.held.saturating_sub(amount);
            bucket.holds = bucket.holds.saturating_sub(1);
            if bucket.holds == 0 && bucket.window.is_none() {
                self.buckets.remove(key);
            }
        }
    }

    /// Charges the window of `now`, which starts here if none is running. Which window that is.
    pub fn charge(&mut self, key: &Arc<Key>, amount: u64, now: Moment) -> Result<WindowId, Unavailable> {
        if amount == 0 || key.window == Window::Now {
            return Ok(0);
        }
        self.end_window(key, now)?;
        if self.buckets.get(key).is_none_or(|bucket| bucket.window.is_none()) {
            self.start_window(key, now)?;
        }
        let Some(window) = self.buckets.get_mut(key).and_then(|bucket| bucket.window.as_mut()) else {
            return Ok(0);
        };
        self.counters.charge(&mut window.usage, amount)?;
        Ok(window.serial)
    }

    /// Gives a charge back, if its window is still running: another window never had it.
    pub fn refund(&mut self, key: &Key, amount: u64, charged_in: WindowId) {
        if let Some(window) = self.buckets.get_mut(key).and_then(|bucket| bucket.window.as_mut())
            && window.serial == charged_in
        {
            window.refunded = window.refunded.saturating_add(amount);
        }
    }

    /// How a bucket stands.
    pub fn status(&mut self, key: &Key, max: u64, room: Room, now: Moment) -> Result<Status, Unavailable> {
        let taken = self.used(key, now)?.saturating_add(self.held(key));
        let reset = self.reset(key, now).unwrap_or_else(|| now.until_end_of(key.window));
        let (limited, excused) = (room == Room::None, room == Room::Excused);
        Ok(Status { limited, excused, max, remaining: max.saturating_sub(taken), reset })
    }

    /// How a bucket stands, for a person.
    pub fn reading(&mut self, key: &Arc<Key>, now: Moment) -> Result<Reading, Unavailable> {
        let (used, held) = (self.used(key, now)?, self.held(key));
        Ok(Reading { key: Arc::clone(key), used, held, reset: self.reset(key, now) })
    }

    /// Which there are.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        self.buckets.keys().cloned().collect()
    }

    /// Ends windows that are over, a bounded number. Whether there may be more.
    pub fn sweep(&mut self, at_most: usize, now: Moment) -> Result<bool, Unavailable> {
        for _ in 0..at_most {
            let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= now.instant) else {
                return Ok(false);
            };
            let key = Arc::clone(entry.get());
            self.end_window(&key, now)?;
            if self.buckets.get(&key).is_some_and(|bucket| bucket.holds == 0) {
                self.buckets.remove(&key);
            }
        }
        Ok(true)
    }

    fn bucket(&mut self, key: &Arc<Key>) -> Result<&mut Bucket, Unavailable> {
        if !self.buckets.contains_key(key) && self.buckets.len() >= self.at_most {
            return Err(Unavailable::Full(self.at_most));
        }
        let empty = Bucket { held: 0, holds: 0, window: None };
        Ok(self.buckets.entry(Arc::clone(key)).or_insert(empty))
    }

    fn reset(&self, key: &Key, now: Moment) -> Option<Duration> {
        let window = self.buckets.get(key)?.window.as_ref()?;
        Some(window.end.saturating_duration_since(now.instant)).filter(|left| !left.is_zero())
    }

    fn start_window(&mut self, key: &Arc<Key>, now: Moment) -> Result<(), Unavailable> {
        let usage = self.counters.start()?;
        self.windows = self.windows.wrapping_add(1);
        let (end, serial) = (after(now, now.until_end_of(key.window)), self.windows);
        self.bucket(key)?.window = Some(Running { usage, refunded: 0, end, serial });
        self.ends.insert((end, serial), Arc::clone(key));
        Ok(())
    }

    /// Drops the bucket's window if it is over.
    fn end_window(&mut self, key: &Arc<Key>, now: Moment) -> Result<(), Unavailable> {
        let window = self
            .buckets
            .get_mut(key)
            .and_then(|bucket| bucket.window.take_if(|window| window.end <= now.instant));
        let Some(window) = window else { return Ok(()) };
        self.ends.remove(&(window.end, window.serial));
        self.counters.end(window.usage)
    }
}
