//! The thresholds of buckets (`warnAt`), and the charges that reach them.

use super::Key;
use policy::model::Threshold;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The maximum number of crossings that wait to be taken. The caller takes them after each call, so more
/// than a few wait only if calls are cancelled.
const MAX_WAITING: usize = 1 << 16;

/// The thresholds of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarnAt {
    /// The maximum that the thresholds are percentages of. The ledger adds what operators have granted.
    pub max: u64,
    /// In ascending order.
    pub thresholds: Arc<[Threshold]>,
}

/// A threshold that a bucket's usage has reached for the first time in its window. In a sliding window, it
/// is reported again no earlier than the length of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The bucket that counts the charge, which may be an overflow bucket.
    pub key: Arc<Key>,
    pub threshold: Threshold,
    /// The maximum, including grants.
    pub max: u64,
    /// The charged amount in the window.
    pub used: u64,
    /// The time until the window ends.
    pub reset: Duration,
}

/// The crossings that the caller of a ledger has not taken yet.
#[derive(Default)]
pub struct Crossings {
    /// Whether there may be any. Most calls cross nothing, so they need no lock.
    any: AtomicBool,
    waiting: Mutex<Vec<Crossing>>,
}

impl Crossings {
    pub fn push(&self, crossing: Crossing) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            tracing::error!(limit = %crossing.key.limit, "a warning was lost, because too many wait");
            return;
        }
        waiting.push(crossing);
        self.any.store(true, Ordering::Release);
    }

    /// Removes and returns all crossings.
    pub fn take(&self) -> Vec<Crossing> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *waiting)
    }
}
