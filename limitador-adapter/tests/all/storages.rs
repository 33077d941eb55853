//! The storages that every ledger test runs on.

use e2e::redis::Redis;
use e2e::wait;
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::shards::SHARD_TAGS;
use limitador_adapter::ledger::redis::{MAX_AMOUNT, RedisLedger};
use limitador_adapter::ledger::sharded::ShardedLedger;
use limitador_adapter::ledger::sqlite::SqliteLedger;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

pub enum Storage {
    Memory,
    /// A folder, and the name of its next file.
    Sqlite(TempDir, AtomicU16),
    /// A Redis, and its next empty database.
    Redis(Redis, AtomicU16),
    /// A Redis with all shards of a cluster, and its next empty database.
    Shards(Redis, AtomicU16),
}

impl Storage {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap(), AtomicU16::new(0))
    }

    pub fn redis() -> Self {
        Self::Redis(Redis::start(), AtomicU16::new(0))
    }

    pub fn shards() -> Self {
        Self::Shards(Redis::start(), AtomicU16::new(0))
    }

    /// Returns an empty ledger for this many counters (in each shard), and the current time.
    pub async fn ledger(&self, at_most: usize) -> (Arc<dyn Ledger>, Moment) {
        let now = Moment::now();
        match self {
            Self::Memory => (Arc::new(MemoryLedger::new(at_most, now)), now),
            Self::Sqlite(folder, file) => {
                let path = folder.path().join(file.fetch_add(1, Ordering::Relaxed).to_string());
                (Arc::new(in_sqlite(&path, at_most, now)), now)
            }
            Self::Redis(redis, database) => {
                (in_redis(redis, database.fetch_add(1, Ordering::Relaxed), at_most), now)
            }
            Self::Shards(redis, database) => {
                (in_shards(redis, database.fetch_add(1, Ordering::Relaxed), at_most, 0), now)
            }
        }
    }

    /// Returns the largest amount that the storage can count.
    pub fn most(&self) -> u64 {
        match self {
            Self::Memory | Self::Sqlite(..) => u64::MAX,
            Self::Redis(..) | Self::Shards(..) => MAX_AMOUNT,
        }
    }
}

/// Opens a ledger in a file. Its own clock stands still, so that times survive a reopening exactly.
pub fn in_sqlite(path: &Path, at_most: usize, now: Moment) -> SqliteLedger {
    SqliteLedger::open_with(path, at_most, Arc::new(move || now)).unwrap()
}

/// Returns the ledger of one adapter in Redis. It uses the callers' time.
pub fn in_redis(redis: &Redis, database: u16, at_most: usize) -> Arc<dyn Ledger> {
    in_redis_of_a_clock_ahead(redis, database, at_most, 0)
}

/// Like [`in_redis`], but the adapter's clock is ahead by this many milliseconds.
pub fn in_redis_of_a_clock_ahead(
    redis: &Redis,
    database: u16,
    at_most: usize,
    ahead: i64,
) -> Arc<dyn Ledger> {
    Arc::new(patient(redis, database, at_most, ahead))
}

/// Returns the sharded ledger of one adapter in a Redis. Each shard has room for this many counters.
pub fn in_shards(redis: &Redis, database: u16, at_most: usize, ahead: i64) -> Arc<dyn Ledger> {
    Arc::new(ShardedLedger::new(shards(redis, database, at_most, ahead)))
}

/// Returns the shards of one adapter in a Redis, each with room for this many counters. They use the callers'
/// time.
pub fn shards(redis: &Redis, database: u16, at_most: usize, ahead: i64) -> Vec<RedisLedger> {
    patient(redis, database, at_most * SHARD_TAGS.len(), ahead).into_shards()
}

fn patient(redis: &Redis, database: u16, at_most: usize, ahead: i64) -> RedisLedger {
    let place = redis.url(database).parse().unwrap();
    let ledger = RedisLedger::new(place, Some(at_most.into())).unwrap();
    let ledger = ledger.with_a_clock_that_is_ahead(ahead);
    ledger.with_the_callers_time().with_timeout(10 * wait::DEADLINE)
}

/// Turns each of these functions into one test per storage. Shards divide their capacity, so tests of the
/// exact capacity are `unsharded`.
macro_rules! on_every_storage {
    ($($name:ident,)* $(; unsharded: $($unsharded:ident,)*)?) => {
        crate::storages::on_storage![memory, crate::storages::Storage::Memory; $($name,)* $($($unsharded,)*)?];
        crate::storages::on_storage![sqlite, crate::storages::Storage::sqlite(); $($name,)* $($($unsharded,)*)?];
        crate::storages::on_storage![redis, crate::storages::Storage::redis(); $($name,)* $($($unsharded,)*)?];
        crate::storages::on_storage![shards, crate::storages::Storage::shards(); $($name,)*];
    };
}
pub(crate) use on_every_storage;

macro_rules! on_storage {
    ($module:ident, $storage:expr; $($name:ident,)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($storage).await;
            })*
        }
    };
}
pub(crate) use on_storage;
