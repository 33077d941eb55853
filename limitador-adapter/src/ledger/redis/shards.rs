//! A Redis ledger as one of several shards.

use super::connection::Link;
use super::key_name::KeyNames;
pub use super::key_name::SHARD_TAGS;
use super::library::Function;
use super::{CallBatches, RedisLedger};
use crate::ledger::crossing::Crossings;
use crate::ledger::moment::Moment;
use crate::ledger::sharded::ShardedLedger;
use crate::ledger::sharded::shard::{Attempt, BucketState, SettledPart, Shard};
use crate::ledger::shares::Capacity;
use crate::ledger::{Charge, Hold, Key, Ledger, LedgerOutcome, Unavailable};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

impl RedisLedger {
    /// Returns the ledger to use. In a cluster, it is sharded.
    pub fn into_ledger(self) -> Arc<dyn Ledger> {
        if self.link.is_cluster() { Arc::new(ShardedLedger::new(self.into_shards())) } else { Arc::new(self) }
    }

    /// Splits an unused ledger into the shards of a cluster. They share its connection. Each has an equal
    /// part of the capacity. The number of shards is fixed, because counters would be lost if it changed.
    pub fn into_shards(self) -> Vec<Self> {
        let part = |total: u64| total.div_ceil(SHARD_TAGS.len() as u64);
        let capacity = self.capacity.map(|capacity| match capacity {
            Capacity::Counters(total) => Capacity::Counters(part(total)),
            Capacity::Bytes(total) => Capacity::Bytes(part(total)),
        });
        let shard = |(shard, tag): (usize, &&str)| Self {
            link: Arc::<Link>::clone(&self.link),
            prefix: self.prefix.clone(),
            names: KeyNames::new(&self.prefix, tag),
            shard,
            nodes: Arc::clone(&self.nodes),
            capacity,
            room: AtomicU64::new(self.room.load(Ordering::Relaxed)),
            limits: AtomicUsize::new(self.limits.load(Ordering::Relaxed)),
            clock: self.clock,
            server: self.server.of_another_server(),
            crossings: Crossings::default(),
            batches: CallBatches::default(),
        };
        SHARD_TAGS.iter().enumerate().map(shard).collect()
    }
}

#[tonic::async_trait]
impl Shard for RedisLedger {
    async fn reserve_part(
        &self,
        id: &str,
        holds: Vec<Hold>,
        attempt: Attempt,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        self.hold(id, holds, Some(attempt), now).await
    }

    async fn cancel(
        &self,
        id: &str,
        attempt: u64,
        keys: &[Arc<Key>],
        now: Moment,
    ) -> Result<Vec<BucketState>, Unavailable> {
        let names = self.keys([self.names.reservation(id)], keys);
        let arguments = [self.time(now), id.to_owned(), self.room(), attempt.to_string()];
        let mut answer = self.run(Function::Cancel, &names, &arguments).await?;
        let states = keys.iter().map(|key| {
            let (used, held, left) = (answer.next()?, answer.next()?, Duration::from_millis(answer.next()?));
            let reset = if left.is_zero() { now.until_end_of(&key.window) } else { left };
            Ok(BucketState { used, held, reset })
        });
        states.collect()
    }

    async fn commit_part(
        &self,
        id: &str,
        charges: Vec<Charge>,
        now: Moment,
    ) -> Result<SettledPart, Unavailable> {
        self.settle(id, charges, now).await
    }
}
