//! Limits how often leases are recalled. Otherwise, a client that is refused often would multiply the messages to all
//! workers, and the calls to the storage, for as long as a worker keeps a lease.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A recall is on its way for this long. Other calls that find no room wait for it, too. A call that has waited for
/// less cannot know whether it is in vain.
pub const UNDERWAY: Duration = Duration::from_millis(20);

/// How long calls do not wait for room after a recall that brought none.
const IN_VAIN: Duration = Duration::from_millis(300);

/// The maximum number of remembered buckets.
const MAX_BUCKETS: usize = 4096;

/// Remembers recent recalls.
#[derive(Debug, Default)]
pub struct RecallPacer(Mutex<HashMap<u64, RecentRecall>>);

#[derive(Clone, Copy, Debug)]
struct RecentRecall {
    at: Instant,
    /// Whether it brought no room.
    in_vain: bool,
}

impl RecentRecall {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < if self.in_vain { IN_VAIN } else { UNDERWAY }
    }
}

/// What a call without room does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRecall {
    /// It recalls the leases, and waits for them.
    Now,
    /// It waits for the leases, which another call has recalled.
    Underway,
    /// It does not wait, because the leases were recalled a moment ago, and have not been returned.
    InVain,
}

impl RecallPacer {
    /// Decides what a call does that found no room in these buckets.
    pub fn next(&self, buckets: &[u64], now: Instant) -> NextRecall {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |bucket| all.get(bucket).filter(|recall| recall.is_recent(now)).copied();
        let recent: Vec<_> = buckets.iter().map(recent).collect();
        if recent.iter().flatten().any(|recall| recall.in_vain) {
            return NextRecall::InVain;
        }
        if recent.iter().all(Option::is_some) {
            return NextRecall::Underway;
        }
        if all.len() >= MAX_BUCKETS {
            all.retain(|_, recall| recall.is_recent(now));
        }
        if all.len() < MAX_BUCKETS {
            let recall = RecentRecall { at: now, in_vain: false };
            all.extend(buckets.iter().map(|bucket| (*bucket, recall)));
        }
        NextRecall::Now
    }

    /// Records that the leases of these buckets have not been returned to a call that began now.
    pub fn was_in_vain(&self, buckets: &[u64], now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_vain = RecentRecall { at: now, in_vain: true };
        for bucket in buckets {
            all.entry(*bucket).and_modify(|recall| *recall = in_vain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_at_the_same_time_share_a_recall_and_none_waits_again_after_one_in_vain() {
        let (pacer, now) = (RecallPacer::default(), Instant::now());
        let next = |buckets: &[u64]| pacer.next(buckets, now);
        assert_eq!(next(&[1]), NextRecall::Now);
        assert_eq!((next(&[1]), next(&[1, 2])), (NextRecall::Underway, NextRecall::Now));
        pacer.was_in_vain(&[1, 9], now);
        assert_eq!((next(&[1]), next(&[2, 1])), (NextRecall::InVain, NextRecall::InVain));
        assert_eq!(next(&[9]), NextRecall::Now);
        let later = now + IN_VAIN;
        assert_eq!((pacer.next(&[1], later), pacer.next(&[2], later)), (NextRecall::Now, NextRecall::Now));
    }

    #[test]
    fn it_remembers_a_bounded_number_of_buckets() {
        let (pacer, now) = (RecallPacer::default(), Instant::now());
        (0..5_000).for_each(|bucket| assert_eq!(pacer.next(&[bucket], now), NextRecall::Now));
        assert!(pacer.0.lock().unwrap().len() <= MAX_BUCKETS);
    }
}
