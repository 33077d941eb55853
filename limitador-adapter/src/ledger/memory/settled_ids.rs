//! Remembers ended reservations, so that a repeated commit charges nothing and a late reserve holds nothing.
//! The memory is bounded by two generations: when the younger one is full or old enough, the older one is
//! dropped as a whole. Reservations that were settled without a charge are remembered for only a few seconds.

#[cfg(feature = "sqlite")]
pub mod record;

use super::buckets::{BucketIndex, WindowId};
use crate::ledger::{Key, REMEMBERED_BRIEFLY};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The minimum time for which an id is remembered, unless there are too many ids.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// The maximum number of ids in a generation: the capacity of a hash table with 2^22 slots (36 MB).
pub const MAX_IDS: usize = 3_600_000;

/// The maximum number of remembered ids that were settled without a charge. Beyond it, the oldest are
/// dropped; a late reserve with such an id would hold an amount until it expires.
const MAX_BRIEF_IDS: usize = 1 << 18;

/// A keyed hash of a reservation's id. Callers choose ids of any length.
pub type Id = u64;

/// The charges made before the commit.
pub type Charged = Vec<Advance>;

/// A charge made before the commit, which the commit confirms or refunds.
#[derive(Debug, PartialEq, Eq)]
pub struct Advance {
    /// The key of the bucket.
    pub key: Arc<Key>,
    /// The index of the bucket at that time. Another bucket may have this index now, but never with the same
    /// window.
    pub place: BucketIndex,
    pub amount: u64,
    /// The window that was charged.
    pub window: WindowId,
    /// Whether the charge was made when a hold lapsed. A commit that does not name its bucket has used nothing
    /// there, so the charge is refunded. Without this flag, it was made at admission and stays.
    pub at_lapse: bool,
}

/// What is remembered about an id that has no holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Past {
    /// Its commit has arrived.
    Settled,
    /// Its holds have lapsed. The commit may still arrive.
    Lapsed(Charged),
}

/// Passes ids through, because an id is already a keyed hash.
#[derive(Clone, Copy, Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

pub type Ids<T> = HashMap<Id, T, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
struct Generation {
    settled: HashSet<Id, BuildHasherDefault<AsItIs>>,
    lapsed: Ids<Charged>,
}

impl Generation {
    fn len(&self) -> usize {
        self.settled.len() + self.lapsed.len()
    }
}

/// The ids that have ended since they were last recorded.
#[derive(Default)]
struct EndedIds {
    settled: Vec<Id>,
    /// The ids that were settled without a charge, and when each may be forgotten.
    brief: Vec<(Id, Instant)>,
    /// The ids that have lapsed, and those of them that were taken.
    lapsed: HashSet<Id>,
}

/// The ids of ended reservations.
pub struct SettledIds {
    young: Generation,
    old: Generation,
    since: Instant,
    at_most: usize,
    forgotten: u64,
    /// When ids that were settled without a charge may be forgotten, by id and by time.
    brief: Ids<Instant>,
    ends: VecDeque<(Instant, Id)>,
    /// The number of the young generation.
    generation: u64,
    /// What has changed, or `None` if nobody records it.
    changed: Option<EndedIds>,
}

impl SettledIds {
    /// Creates an empty set that keeps `at_most` ids per generation.
    pub fn new(at_most: usize, now: Instant) -> Self {
        let (young, old) = (Generation::default(), Generation::default());
        let (brief, ends) = (Ids::default(), VecDeque::new());
        Self { young, old, since: now, at_most, forgotten: 0, brief, ends, generation: 1, changed: None }
    }

    /// Records that the id's commit has arrived.
    pub fn settle(&mut self, id: Id, now: Instant) {
        self.make_room(now);
        self.young.settled.insert(id);
        let Some(changed) = &mut self.changed else { return };
        // If nothing can be recorded for long, no more ids wait than are remembered.
        if changed.settled.len() < self.at_most {
            changed.settled.push(id);
        } else {
            self.forgotten = self.forgotten.saturating_add(1);
        }
    }

    /// Records that the id's commit has arrived and charged nothing.
    pub fn settle_briefly(&mut self, id: Id, now: Instant) {
        let end = now.checked_add(REMEMBERED_BRIEFLY).unwrap_or(now);
        self.brief.insert(id, end);
        self.ends.push_back((end, id));
        if let Some(changed) = self.changed.as_mut().filter(|changed| changed.brief.len() < MAX_BRIEF_IDS) {
            changed.brief.push((id, end));
        }
        while let Some((first, id)) = self.ends.front().copied()
            && (first <= now || self.ends.len() > MAX_BRIEF_IDS)
        {
            self.ends.pop_front();
            if self.brief.get(&id) == Some(&first) {
                self.brief.remove(&id);
            }
        }
    }

    /// Records that the id's holds have lapsed.
    pub fn lapse(&mut self, id: Id, charged: Charged, now: Instant) {
        self.make_room(now);
        self.young.lapsed.insert(id, charged);
        self.note_lapsed(id);
    }

    fn note_lapsed(&mut self, id: Id) {
        if let Some(changed) = &mut self.changed {
            changed.lapsed.insert(id);
        }
    }

    /// Returns whether the reservation has ended.
    pub fn knows(&self, id: Id, now: Instant) -> bool {
        let knows = |g: &&Generation| g.settled.contains(&id) || g.lapsed.contains_key(&id);
        [&self.young, &self.old].iter().any(knows) || self.knows_briefly(id, now)
    }

    fn knows_briefly(&self, id: Id, now: Instant) -> bool {
        self.brief.get(&id).is_some_and(|end| *end > now)
    }

    /// Returns what is remembered about the id, and removes it if its holds had lapsed.
    pub fn take(&mut self, id: Id, now: Instant) -> Option<Past> {
        let settled = self.young.settled.contains(&id) || self.old.settled.contains(&id);
        if settled || self.knows_briefly(id, now) {
            return Some(Past::Settled);
        }
        let charged = self.young.lapsed.remove(&id).or_else(|| self.old.lapsed.remove(&id))?;
        self.note_lapsed(id);
        Some(Past::Lapsed(charged))
    }

    /// Returns the number of remembered ids.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len() + self.brief.len()
    }

    /// Returns how many ids were dropped early.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn make_room(&mut self, now: Instant) {
        let over = now.saturating_duration_since(self.since) >= REMEMBERED;
        if over || self.young.len() >= self.at_most {
            if !over {
                self.forgotten = self.forgotten.saturating_add(self.old.len() as u64);
            }
            self.old = std::mem::take(&mut self.young);
            self.since = now;
            self.generation = self.generation.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_half_an_hour_and_forgotten_within_two_generations() {
        let start = Instant::now();
        let mut archive = SettledIds::new(10, start);
        archive.settle(1, start + REMEMBERED - Duration::from_secs(1));
        archive.settle(2, start + REMEMBERED);
        archive.settle(3, start + 2 * REMEMBERED - Duration::from_secs(1));
        let now = start + REMEMBERED;
        assert!(archive.knows(1, now) && archive.knows(2, now));
        archive.settle(4, start + 2 * REMEMBERED);
        assert!(!archive.knows(1, now) && archive.knows(3, now) && archive.knows(4, now));
        assert_eq!(archive.forgotten(), 0);
    }

    #[test]
    fn too_many_ids_push_out_the_oldest_and_that_is_counted() {
        let now = Instant::now();
        let mut archive = SettledIds::new(2, now);
        (0..5).for_each(|id| archive.settle(id, now));
        assert_eq!((archive.len(), archive.forgotten()), (3, 2));
        assert!(!archive.knows(0, now) && archive.knows(4, now));
    }

    #[test]
    fn a_lapsed_id_gives_its_charges_once() {
        let now = Instant::now();
        let mut archive = SettledIds::new(2, now);
        archive.lapse(1, Vec::new(), now);
        assert!(archive.knows(1, now));
        assert_eq!(archive.take(1, now), Some(Past::Lapsed(Vec::new())));
        assert_eq!(archive.take(1, now), None);
    }

    #[test]
    fn what_cost_nothing_is_remembered_for_seconds() {
        let start = Instant::now();
        let mut archive = SettledIds::new(2, start);
        archive.settle_briefly(1, start);
        archive.settle_briefly(1, start);
        let end = start + REMEMBERED_BRIEFLY;
        let before = end - Duration::from_millis(1);
        assert!(archive.knows(1, before) && !archive.knows(1, end));
        assert_eq!((archive.take(1, before), archive.take(1, end)), (Some(Past::Settled), None));
        (2..MAX_BRIEF_IDS as u64 + 10).for_each(|id| archive.settle_briefly(id, end));
        assert_eq!((archive.len(), archive.forgotten()), (MAX_BRIEF_IDS, 0));
    }
}
