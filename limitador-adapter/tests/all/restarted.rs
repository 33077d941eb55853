//! A ledger in a file that is closed and opened again between two calls.

use e2e::wait;
use limitador_adapter::ledger::crossing::Crossing;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::recalls::Recalls;
use limitador_adapter::ledger::sqlite::{SqliteClock, SqliteLedger};
use limitador_adapter::ledger::stored::{CreationCharge, Parking, Seen, Sighting, StoredResult};
use limitador_adapter::ledger::{
    Charge, CounterReading, Durability, Grant, Granted, Hit, Hold, Key, Ledger, LedgerOutcome, LedgerSize,
    Raised, RaisedHold, Settled, Unavailable,
};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

pub struct RestartedLedger {
    folder: TempDir,
    /// The time of the latest call.
    now: Arc<Mutex<Moment>>,
    opened: Mutex<(usize, Option<Arc<SqliteLedger>>)>,
}

impl RestartedLedger {
    pub fn new(begun: Moment) -> Self {
        let now = Arc::new(Mutex::new(begun));
        Self { folder: tempfile::tempdir().unwrap(), now, opened: Mutex::default() }
    }

    fn at(&self, now: Moment) -> Arc<SqliteLedger> {
        *self.now.lock().unwrap() = now;
        self.opened()
    }

    /// Opens the file for every other call, so that some calls find what an earlier one left in memory.
    fn opened(&self) -> Arc<SqliteLedger> {
        let mut opened = self.opened.lock().unwrap();
        opened.0 += 1;
        if opened.0.is_multiple_of(2) {
            opened.1 = None;
        }
        let open = || {
            let now = Arc::clone(&self.now);
            let clock: SqliteClock = Arc::new(move || *now.lock().unwrap());
            let path = self.folder.path().join("counters.db");
            // A process that another test starts has the lock, too, until it executes its program.
            let opened = || SqliteLedger::open_with(&path, 1000_usize, Arc::clone(&clock)).ok();
            Arc::new(wait::until("the file is unlocked", opened))
        };
        Arc::clone(opened.1.get_or_insert_with(open))
    }
}

#[tonic::async_trait]
impl Ledger for RestartedLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.at(now).reserve(id, holds, now).await
    }
    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        self.at(now).raise(id, holds, now).await
    }
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        self.at(now).commit(id, charges, now).await
    }
    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        self.at(now).park(id, result, charges, now).await
    }
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        self.at(now).see(sighting, now).await
    }
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.at(now).hit(hits, now).await
    }
    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        self.at(now).reset(keys, now).await
    }
    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        self.at(now).grant(grant, now).await
    }
    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.at(now).read(keys, now).await
    }
    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        self.at(now).readings(now).await
    }
    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        self.opened().size().await
    }
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        self.at(now).sweep(now).await
    }
    async fn ready(&self) -> Result<(), Unavailable> {
        self.opened().ready().await
    }
    async fn durable(&self) -> Result<(), Unavailable> {
        self.opened().durable().await
    }
    fn durability(&self) -> Durability {
        Durability::Durable
    }
    fn counting_since(&self) -> Option<Duration> {
        self.opened().counting_since()
    }
    /// Crossings are of the process that made the charge.
    fn take_crossings(&self) -> Vec<Crossing> {
        self.opened.lock().unwrap().1.as_ref().map(|ledger| ledger.take_crossings()).unwrap_or_default()
    }
    async fn recall(&self, buckets: &[u64]) {
        self.opened().recall(buckets).await;
    }
    fn recalls(&self) -> Arc<Recalls> {
        self.opened().recalls()
    }
    fn share_among(&self, limits: usize) {
        self.opened().share_among(limits);
    }
    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        self.at(now).attend(workers, lives, now).await
    }
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        self.at(now).release_gone(now).await
    }
}
