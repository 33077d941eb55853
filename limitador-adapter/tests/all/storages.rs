//! The storages that every test of a ledger goes through.

use e2e::redis::Redis;
use e2e::wait;
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::{MAX_AMOUNT, RedisLedger};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// One of them.
pub enum Storage {
    Memory,
    /// A Redis, and the next of its databases that is empty.
    Redis(Redis, AtomicU16),
}

impl Storage {
    pub fn redis() -> Self {
        Self::Redis(Redis::start(), AtomicU16::new(0))
    }

    /// An empty ledger for so many counters, at a time that it takes for now.
    pub async fn ledger(&self, at_most: usize) -> (Arc<dyn Ledger>, Moment) {
        let now = Moment::now();
        match self {
            Self::Memory => (Arc::new(MemoryLedger::new(at_most, now)), now),
            Self::Redis(redis, database) => {
                (in_redis(redis, database.fetch_add(1, Ordering::Relaxed), at_most), now)
            }
        }
    }

    /// The most that it can count to.
    pub fn most(&self) -> u64 {
        match self {
            Self::Memory => u64::MAX,
            Self::Redis(..) => MAX_AMOUNT,
        }
    }
}

/// One adapter's ledger in a Redis, at its callers' time.
pub fn in_redis(redis: &Redis, database: u16, at_most: usize) -> Arc<dyn Ledger> {
    in_redis_of_a_clock_ahead(redis, database, at_most, 0)
}

/// The same, of an adapter whose own clock is ahead by so many milliseconds.
pub fn in_redis_of_a_clock_ahead(
    redis: &Redis,
    database: u16,
    at_most: usize,
    ahead: i64,
) -> Arc<dyn Ledger> {
    let place = redis.url(database).parse().unwrap();
    let ledger = RedisLedger::new(place, Some(at_most.into())).unwrap();
    let ledger = ledger.with_a_clock_that_is_ahead(ahead);
    Arc::new(ledger.with_the_callers_time().with_timeout(10 * wait::DEADLINE))
}

/// Makes each of these functions a test for each storage.
macro_rules! on_every_storage {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::storages::Storage::Memory).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::storages::Storage::redis()).await;
            })*
        }
    };
}
pub(crate) use on_every_storage;
