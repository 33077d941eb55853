//! The ledger in Redis (version 7 or newer) or Valkey. Several adapters share every bucket and every hold
//! exactly.
//!
//! Each call is decided by a function that Redis runs ([`library`]), so it is atomic and takes one round trip for any
//! number of limits. Calls that wait at the same time are sent together ([`batches`]). The server's clock decides
//! ([`clock`]). `common.lua` describes the records. Reserve and commit can be repeated, even at another adapter. A hit
//! has no id, so if its reply is lost, it may have been charged.

mod admission;
mod arguments;
mod batches;
mod call;
mod channel;
mod clock;
mod connect;
mod connection;
pub mod credentials;
mod errors;
mod key_name;
mod library;
mod nodes;
mod operator;
mod readings;
mod reply;
mod sentinels;
mod settlement;
pub mod shards;
mod sighting;
mod upkeep;
pub mod url;

use crate::ledger::crossing::{Crossing, Crossings};
use crate::ledger::moment::Moment;
use crate::ledger::recalls::Recalls;
use crate::ledger::shares::Capacity;
use crate::ledger::stored::{CreationCharge, Parking, Seen, Sighting, StoredResult};
use crate::ledger::{
    Charge, CounterReading, Durability, Grant, Granted, Hit, Hold, Key, Ledger, LedgerOutcome, LedgerSize,
    Raised, RaisedHold, Settled, Unavailable, is_worker,
};
use batches::Batches;
use clock::ServerClock;
use connection::Link;
use credentials::CredentialFiles;
use key_name::{KeyNames, ONLY_TAG};
use library::Function;
use nodes::ShardNodes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use url::RedisUrl;

/// The largest number that the functions represent exactly. Larger numbers are capped to it.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// The number of buckets that one call inspects during a traversal. It blocks other calls for a
/// millisecond or two.
const BATCH: usize = 500;

/// The room for counters in bytes if the server does not report its memory.
const UNKNOWN_ROOM: u64 = 4 << 30;

/// Holds and charges in Redis.
pub struct RedisLedger {
    link: Arc<Link>,
    prefix: String,
    names: KeyNames,
    /// The number of this shard; 0 if the ledger is not sharded.
    shard: usize,
    /// Where all shards are.
    nodes: Arc<ShardNodes>,
    /// The configured capacity. `None` means a part of the server's memory.
    capacity: Option<Capacity>,
    /// The capacity in bytes, derived from what the server last reported.
    room: AtomicU64,
    limits: AtomicUsize,
    clock: WhoseTime,
    server: ServerClock,
    crossings: Crossings,
    batches: CallBatches,
}

/// The most frequent calls, which are sent in batches.
struct CallBatches {
    reserve: Arc<Batches>,
    commit: Arc<Batches>,
    hit: Arc<Batches>,
}

impl Default for CallBatches {
    fn default() -> Self {
        Self {
            reserve: Batches::new(Function::Reserve),
            commit: Batches::new(Function::Commit),
            hit: Batches::new(Function::Hit),
        }
    }
}

/// Which clock decides when windows begin and end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhoseTime {
    Server,
    Caller,
}

impl RedisLedger {
    /// Creates a ledger with this capacity. The server need not be reachable yet.
    pub fn new(place: RedisUrl, capacity: Option<Capacity>) -> Result<Self, String> {
        Ok(Self {
            link: Arc::new(Link::new(place)?),
            prefix: String::new(),
            names: KeyNames::new("", ONLY_TAG),
            shard: 0,
            nodes: Arc::default(),
            capacity,
            room: AtomicU64::new(UNKNOWN_ROOM),
            limits: AtomicUsize::new(1),
            clock: WhoseTime::Server,
            server: ServerClock::default(),
            crossings: Crossings::default(),
            batches: CallBatches::default(),
        })
    }

    /// Sets the prefix of all keys, which separates installations that share a server.
    pub fn with_prefix(self, prefix: &str) -> Self {
        let (prefix, names) = (prefix.to_owned(), KeyNames::new(prefix, ONLY_TAG));
        let link = self.link.another().with_prefix(&prefix);
        Self { link: Arc::new(link), prefix, names, ..self }
    }

    /// Sets the files with credentials.
    pub fn with_credentials(self, files: CredentialFiles) -> Self {
        let link = self.link.another().with_credentials(files);
        Self { link: Arc::new(link), ..self }
    }

    /// Uses the time of the calls instead of the server's time, for tests that cannot wait for the end of a
    /// month.
    pub fn with_the_callers_time(self) -> Self {
        Self { clock: WhoseTime::Caller, ..self }
    }

    /// Pretends that this machine's clock is ahead by this many milliseconds, for tests of wrong clocks.
    pub fn with_a_clock_that_is_ahead(self, milliseconds: i64) -> Self {
        Self { server: ServerClock::of_a_machine_ahead(milliseconds), ..self }
    }

    /// Sets the timeout for replies and connections, for tests on busy machines.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let link = self.link.another().with_timeout(timeout);
        Self { link: Arc::new(link), ..self }
    }
}

#[tonic::async_trait]
impl Ledger for RedisLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.hold(id, holds, None, now).await
    }

    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        self.raise_holds(id, holds, now).await
    }

    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        Ok(self.settle(id, charges, now).await?.settled)
    }

    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        self.settle_deferring(id, result, charges, now).await
    }

    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        self.charge_seen(sighting, now).await
    }

    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.check(hits, now).await
    }

    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        self.reset_buckets(keys, now).await
    }

    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        self.grant_more(grant, now).await
    }

    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.read_buckets(keys, now).await
    }

    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.read_all(now).await
    }

    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        let size = self.sweep_some(0, Moment::now()).await?.size;
        Ok(LedgerSize { bytes: self.memory().await?, ..size })
    }

    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        while self.sweep_some(BATCH, now).await?.more {}
        if self.capacity.is_none() {
            self.memory().await?;
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        self.run(Function::Ready, &self.keys([], []), &[]).await.map(drop)
    }

    /// Every call waits for the server.
    async fn durable(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    fn durability(&self) -> Durability {
        Durability::Elsewhere
    }

    fn counting_since(&self) -> Option<Duration> {
        None
    }

    fn take_crossings(&self) -> Vec<Crossing> {
        self.crossings.take()
    }

    async fn recall(&self, buckets: &[u64]) {
        self.link.recall(buckets).await;
    }

    fn recalls(&self) -> Arc<Recalls> {
        self.link.recalls()
    }

    fn share_among(&self, limits: usize) {
        self.limits.store(limits, Ordering::Relaxed);
    }

    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        let mut arguments = vec![self.time(now), lives.as_millis().to_string()];
        arguments.extend(workers.iter().filter(|worker| is_worker(worker)).cloned());
        self.run(Function::Attend, &self.keys([self.names.workers()], []), &arguments).await.map(drop)
    }

    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        self.end_holds_of_gone(now).await
    }
}
