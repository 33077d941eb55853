//! Counters in a SQLite file of this adapter. The in-memory ledger decides every call; a thread writes what has
//! changed to the file.
//!
//! The file always holds a state that the memory had between two calls: a bucket, the id that its commit has
//! settled and the hold that it has ended are written in one transaction. A charge is acknowledged when a
//! transaction with it has ended ([`Ledger::durable`]), so a caller whose call was lost repeats it and finds it
//! either whole or not at all. One transaction is for all calls that wait. Holds are written with them, or a
//! little later, and nobody waits for them.

mod counter_file;
mod load;
mod lock;
mod schema;
mod writer;

use crate::ledger::crossing::Crossing;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::moment::Moment;
use crate::ledger::recalls::Recalls;
use crate::ledger::shares::Capacity;
use crate::ledger::stored::{CreationCharge, Parking, Seen, Sighting, StoredResult};
use crate::ledger::{
    Charge, CounterReading, Durability, Grant, Granted, Hit, Hold, Key, Ledger, LedgerOutcome, LedgerSize,
    Raised, RaisedHold, Settled, Unavailable,
};
use counter_file::CounterFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::Writer;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}: cannot create the folder: {1}")]
    Folder(PathBuf, std::io::Error),
    #[error("{0}: cannot lock it: {1}")]
    Lock(PathBuf, std::io::Error),
    #[error("{0}: another adapter uses this file; give each adapter its own, or use Redis to share counters")]
    InUse(PathBuf),
    #[error("{0}: {1}")]
    Sqlite(PathBuf, rusqlite::Error),
    #[error("{0}: is a database of something else")]
    Foreign(PathBuf),
    #[error(
        "{path}: has schema version {found}, but this adapter knows only versions up to {known}; upgrade the adapter"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{0}: {1}")]
    Unreadable(PathBuf, String),
    #[error("the thread that writes cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Returns the current time. Tests pass another clock.
pub type SqliteClock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Holds and charges in memory and in a SQLite file.
pub struct SqliteLedger {
    memory: Arc<MemoryLedger>,
    writer: Writer,
}

impl SqliteLedger {
    /// Opens the file, or creates it and its folder, and continues where it was left.
    pub fn open(path: &Path, capacity: impl Into<Capacity>) -> Result<Self, OpenError> {
        Self::open_with(path, capacity, Arc::new(Moment::now))
    }

    /// Like [`Self::open`], but with another clock for what is written and read.
    pub fn open_with(
        path: &Path,
        capacity: impl Into<Capacity>,
        clock: SqliteClock,
    ) -> Result<Self, OpenError> {
        let now = clock();
        let (file, identity, recorded) = CounterFile::open(path, now)?;
        let memory = MemoryLedger::restored(capacity, identity, recorded, now)
            .map_err(|error| OpenError::Unreadable(path.to_owned(), error.to_string()))?;
        let memory = Arc::new(memory);
        let writer = Writer::start(file, Arc::clone(&memory), clock).map_err(OpenError::Thread)?;
        Ok(Self { memory, writer })
    }
}

#[tonic::async_trait]
impl Ledger for SqliteLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.memory.reserve(id, holds, now)
    }
    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        self.memory.raise(id, &holds, now)
    }
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        self.memory.commit(id, &charges, now)
    }
    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        self.memory.park(id, &result, &charges, now)
    }
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        self.memory.see(sighting, now)
    }
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.memory.hit(&hits, now)
    }
    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        self.memory.reset(keys, now)
    }
    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        self.memory.grant(&grant, now)
    }
    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.memory.read(keys, now)
    }
    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        Ledger::readings(&*self.memory, now).await
    }
    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        Ok(self.memory.size())
    }
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        self.memory.sweep(now)
    }
    /// The memory still enforces every limit if the file cannot be written, so Reserves go on. Charges are not
    /// acknowledged, and filters keep them.
    async fn ready(&self) -> Result<(), Unavailable> {
        self.writer.ready()
    }
    async fn durable(&self) -> Result<(), Unavailable> {
        self.writer.durable().await
    }
    fn durability(&self) -> Durability {
        Durability::Durable
    }
    fn counting_since(&self) -> Option<Duration> {
        self.memory.counting_since()
    }
    fn take_crossings(&self) -> Vec<Crossing> {
        self.memory.take_crossings()
    }
    async fn recall(&self, buckets: &[u64]) {
        self.memory.recall(buckets).await;
    }
    fn recalls(&self) -> Arc<Recalls> {
        self.memory.recalls()
    }
    fn share_among(&self, limits: usize) {
        self.memory.share_among(limits);
    }
    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        self.memory.attend(workers, lives, now);
        Ok(())
    }
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        self.memory.release_gone(now)
    }
}
