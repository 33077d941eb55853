//! A shard that fails on demand, before or after it has executed a call.

use limitador_adapter::ledger::crossing::Crossing;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::recalls::Recalls;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::ledger::sharded::shard::{Attempt, BucketState, SettledPart, Shard};
use limitador_adapter::ledger::stored::{CreationCharge, Parking, Seen, Sighting, StoredResult};
use limitador_adapter::ledger::{
    Charge, CounterReading, Durability, Grant, Granted, Hit, Hold, Key, Ledger, LedgerOutcome, LedgerSize,
    Raised, RaisedHold, Settled, Unavailable,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How many of a hundred calls fail, of the shards that share it.
pub type Faults = Arc<AtomicU32>;

pub struct FaultyShard {
    pub shard: RedisLedger,
    pub faults: Faults,
}

impl FaultyShard {
    /// Executes a call. It may fail before or after that.
    async fn call<T>(&self, call: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let failure = || Err(Unavailable::failed("it fails as demanded"));
        let fails = fastrand::u32(..100) < self.faults.load(Ordering::Relaxed);
        if fails && fastrand::bool() {
            return failure();
        }
        let result = call.await;
        if fails { failure() } else { result }
    }
}

#[tonic::async_trait]
impl Ledger for FaultyShard {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.call(self.shard.reserve(id, holds, now)).await
    }
    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        self.call(self.shard.raise(id, holds, now)).await
    }
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        self.call(self.shard.commit(id, charges, now)).await
    }
    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        self.call(self.shard.park(id, result, charges, now)).await
    }
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        self.call(self.shard.see(sighting, now)).await
    }
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.call(self.shard.hit(hits, now)).await
    }
    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        self.call(self.shard.reset(keys, now)).await
    }
    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        self.call(self.shard.grant(grant, now)).await
    }
    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.call(self.shard.read(keys, now)).await
    }
    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.call(self.shard.readings(now)).await
    }
    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        self.call(self.shard.size()).await
    }
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        self.call(self.shard.sweep(now)).await
    }
    async fn ready(&self) -> Result<(), Unavailable> {
        self.call(self.shard.ready()).await
    }
    async fn durable(&self) -> Result<(), Unavailable> {
        self.call(self.shard.durable()).await
    }
    fn durability(&self) -> Durability {
        self.shard.durability()
    }
    fn counting_since(&self) -> Option<Duration> {
        self.shard.counting_since()
    }
    fn take_crossings(&self) -> Vec<Crossing> {
        self.shard.take_crossings()
    }
    async fn recall(&self, buckets: &[u64]) {
        self.shard.recall(buckets).await;
    }
    fn recalls(&self) -> Arc<Recalls> {
        self.shard.recalls()
    }
    fn share_among(&self, limits: usize) {
        self.shard.share_among(limits);
    }
    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        self.call(self.shard.attend(workers, lives, now)).await
    }
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        self.call(self.shard.release_gone(now)).await
    }
}

#[tonic::async_trait]
impl Shard for FaultyShard {
    async fn reserve_part(
        &self,
        id: &str,
        holds: Vec<Hold>,
        attempt: Attempt,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        self.call(self.shard.reserve_part(id, holds, attempt, now)).await
    }
    async fn cancel(
        &self,
        id: &str,
        attempt: u64,
        keys: &[Arc<Key>],
        now: Moment,
    ) -> Result<Vec<BucketState>, Unavailable> {
        self.call(self.shard.cancel(id, attempt, keys, now)).await
    }
    async fn commit_part(
        &self,
        id: &str,
        charges: Vec<Charge>,
        now: Moment,
    ) -> Result<SettledPart, Unavailable> {
        self.call(self.shard.commit_part(id, charges, now)).await
    }
}
