//! One shard: a ledger that can hold a part of a reservation.

use crate::ledger::moment::Moment;
use crate::ledger::{Charge, Hold, Key, Ledger, LedgerOutcome, Settled, Unavailable};
use std::sync::Arc;
use std::time::Duration;

/// A set of shards, by number. There are at most [`ShardSet::MOST`] shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u32);

impl ShardSet {
    /// The scripts represent a set in 32 bits, one of which is a sign.
    pub const MOST: usize = 31;

    pub fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    pub fn contains(self, shard: usize) -> bool {
        self.0 & bit(shard) != 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<usize> for ShardSet {
    fn from_iter<I: IntoIterator<Item = usize>>(shards: I) -> Self {
        Self(shards.into_iter().fold(0, |bits, shard| bits | bit(shard)))
    }
}

fn bit(shard: usize) -> u32 {
    u32::try_from(shard).ok().and_then(|shard| 1_u32.checked_shl(shard)).unwrap_or(0)
}

/// One attempt to reserve in several shards.
///
/// Adapters may repeat a reserve while an earlier attempt with the same id is still undecided. The latest
/// attempt that reaches a shard owns the holds there. Only the owner can cancel them, so an attempt that
/// fails late does not take away what another one relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub number: u64,
    /// All shards of the reservation.
    pub shards: ShardSet,
}

/// The outcome of a commit in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledPart {
    pub settled: Settled,
    /// The shards of the reservation if it was in several, as far as this shard knew it.
    pub shards: ShardSet,
}

/// The state of a bucket after a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketState {
    pub used: u64,
    pub held: u64,
    /// The time until the window ends.
    pub reset: Duration,
}

/// A ledger that stores some of the buckets. Every call is atomic within the shard.
#[tonic::async_trait]
pub trait Shard: Ledger {
    /// Like [`Ledger::reserve`], for the part of a reservation in this shard. Remembers the attempt.
    async fn reserve_part(
        &self,
        id: &str,
        holds: Vec<Hold>,
        attempt: Attempt,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable>;
    /// Takes back everything that an attempt holds or has charged here, and forgets the reservation. Does
    /// nothing if the reservation is settled, unknown, or owned by another attempt. Returns the states of
    /// the buckets that count these keys, in order.
    async fn cancel(
        &self,
        id: &str,
        attempt: u64,
        keys: &[Arc<Key>],
        now: Moment,
    ) -> Result<Vec<BucketState>, Unavailable>;
    /// Like [`Ledger::commit`], for the charges in this shard.
    async fn commit_part(
        &self,
        id: &str,
        charges: Vec<Charge>,
        now: Moment,
    ) -> Result<SettledPart, Unavailable>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards() {
        let set: ShardSet = [0, 3, 23].into_iter().collect();
        assert_eq!((0..ShardSet::MOST).filter(|shard| set.contains(*shard)).collect::<Vec<_>>(), [0, 3, 23]);
        assert_eq!(ShardSet::of_bits(set.bits()), set);
        let more: ShardSet = [3, 5].into_iter().collect();
        assert_eq!(set.union(more), [0, 3, 5, 23].into_iter().collect());
        assert_eq!(set.union(more).without(set), [5].into_iter().collect());
    }
}
