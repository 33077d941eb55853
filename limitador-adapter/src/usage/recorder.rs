//! Collects the records of all calls and writes them in common transactions. A call is answered once its records
//! are durable.

use super::completion::{self, Completion};
use super::row::RecordRow;
use super::store::{StoreError, UsageStore};
use crate::metrics::AdapterMetrics;
use jiff::{Span, Timestamp};
use prost::Message;
use protocol::wire::weir::v1::{RecordUsageResponse, SettledUsage};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// How long records are collected before a transaction. No request waits for it.
const GATHERING: Duration = Duration::from_millis(2);
/// How long a call waits for its records. It is shorter than the filter's timeout: Envoy would count timeouts as
/// failures of the adapter, and eject it.
const PATIENCE: Duration = Duration::from_secs(3);
/// The maximum size of the records that wait, in KiB. Filters keep what does not fit, and send it again.
const ROOM: u32 = 64 << 10;
/// The maximum size of one transaction, in rows and in KiB.
const MAX_ROWS: usize = 4096;
const MAX_SIZE: u32 = 8 << 10;
/// The maximum number of records in one call.
const MAX_RECORDS: usize = 4096;
/// The interval of checks while the store is unavailable.
const CHECK: Duration = Duration::from_secs(2);
/// The interval between deletions of old records, and between their steps.
const EXPIRE: Duration = Duration::from_secs(60 * 60);
const EXPIRE_STEP: Duration = Duration::from_millis(200);
/// The number of records that one step deletes.
const EXPIRED_AT_ONCE: u32 = 1000;

/// Accepts records.
pub struct UsageRecorder {
    store: Arc<dyn UsageStore>,
    queue: mpsc::UnboundedSender<PendingRecords>,
    room: Arc<Semaphore>,
    is_away: Arc<AtomicBool>,
    metrics: Arc<AdapterMetrics>,
    users: Vec<String>,
}

/// The records of one call.
struct PendingRecords {
    rows: Vec<RecordRow>,
    size: u32,
    done: oneshot::Sender<Result<(), StoreError>>,
    _room: OwnedSemaphorePermit,
}

/// Why a call is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a call may have at most {MAX_RECORDS} usage records")]
    TooMany,
    #[error("too many usage records are waiting for the store")]
    Full,
    /// The records may still be written.
    #[error("the usage store takes long")]
    Late,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UsageRecorder {
    /// Creates a recorder, and the task that writes its records.
    pub fn new(
        store: Arc<dyn UsageStore>,
        users: Vec<String>,
        metrics: Arc<AdapterMetrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX)));
        let is_away = Arc::default();
        let writer = RecordWriter {
            store: Arc::clone(&store),
            waiting,
            is_away: Arc::clone(&is_away),
            metrics: Arc::clone(&metrics),
        };
        (Self { store, queue, room, is_away, metrics, users }, writer.run())
    }

    /// The store, for queries.
    pub fn store(&self) -> &Arc<dyn UsageStore> {
        &self.store
    }

    /// Whether the store is unavailable.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Stores the records of a call. Records that cannot be stored are counted and dropped, because sending them
    /// again would not help.
    pub async fn record(&self, mut request: SettledUsage) -> Result<RecordUsageResponse, RecordError> {
        let size = u32::try_from(request.encoded_len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let further = std::mem::take(&mut request.further);
        if further.len() >= MAX_RECORDS {
            return Err(RecordError::TooMany);
        }
        // The channel is unbounded, but everything in it has a permit.
        let room = Arc::clone(&self.room).try_acquire_many_owned(size.min(ROOM));
        let room = room.map_err(|_| RecordError::Full)?;
        let settled = further.len().saturating_add(1);
        let now = Timestamp::now();
        let records: Vec<SettledUsage> =
            std::iter::once(request).chain(further).filter(|record| record.seen.is_none()).collect();
        let all = records.len();
        let rows: Vec<RecordRow> =
            records.into_iter().filter_map(|record| RecordRow::new(record, &self.users, now)).collect();
        let rejected = all.saturating_sub(rows.len());
        self.metrics.records_rejected.increment(u64::try_from(rejected).unwrap_or(u64::MAX));
        let (done, is_done) = oneshot::channel();
        let _waiting = WaitingRecords::new(&self.metrics, rows.len());
        let closed = || StoreError::Unavailable("the adapter is shutting down".to_owned());
        self.queue.send(PendingRecords { rows, size, done, _room: room }).map_err(|_| closed())?;
        let is_done = tokio::time::timeout(PATIENCE, is_done).await.map_err(|_| RecordError::Late)?;
        is_done.unwrap_or_else(|_| Err(closed()))?;
        Ok(RecordUsageResponse { settled: u64::try_from(settled).unwrap_or(u64::MAX) })
    }

    /// Completes the records of exchanges that created results. If one has not arrived, the others do not wait for it
    /// for long: any client could otherwise hold back the records of others by reading a result without a record.
    pub async fn complete(&self, completions: Vec<Completion>) -> Result<(), RecordError> {
        let early = self.complete_known(completions).await?;
        if early.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(completion::PATIENCE).await;
        let missing = self.complete_known(early).await?;
        self.metrics.records_rejected.increment(u64::try_from(missing.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Returns the completions whose record is not in the store.
    async fn complete_known(&self, completions: Vec<Completion>) -> Result<Vec<Completion>, StoreError> {
        let mut missing = Vec::new();
        for completion in completions {
            if !self.store.complete(completion.clone()).await? {
                missing.push(completion);
            }
        }
        Ok(missing)
    }
}

/// Counts records while they wait, even if their caller disconnects.
struct WaitingRecords<'m>(&'m AdapterMetrics, f64);

impl<'m> WaitingRecords<'m> {
    fn new(metrics: &'m AdapterMetrics, count: usize) -> Self {
        metrics.records_waiting.increment(count as f64);
        Self(metrics, count as f64)
    }
}

impl Drop for WaitingRecords<'_> {
    fn drop(&mut self) {
        self.0.records_waiting.decrement(self.1);
    }
}

struct RecordWriter {
    store: Arc<dyn UsageStore>,
    waiting: mpsc::UnboundedReceiver<PendingRecords>,
    is_away: Arc<AtomicBool>,
    metrics: Arc<AdapterMetrics>,
}

impl RecordWriter {
    async fn run(mut self) {
        let mut next: Option<PendingRecords> = None;
        let mut is_away = self.note(self.store.prepare().await).is_err();
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => tokio::select! {
                    first = self.waiting.recv() => match first {
                        Some(first) => first,
                        None => return,
                    },
                    () = tokio::time::sleep(CHECK), if is_away => {
                        is_away = self.note(self.store.prepare().await).is_err();
                        continue;
                    }
                },
            };
            tokio::time::sleep(GATHERING).await;
            let (mut rows, mut size) = (first.rows.len(), first.size);
            let mut batch = vec![first];
            while let Ok(more) = self.waiting.try_recv() {
                (rows, size) = (rows.saturating_add(more.rows.len()), size.saturating_add(more.size));
                if rows > MAX_ROWS || size > MAX_SIZE {
                    next = Some(more);
                    break;
                }
                batch.push(more);
            }
            let rows: Vec<&RecordRow> = batch.iter().flat_map(|pending| &pending.rows).collect();
            let written = self.write(&rows).await;
            is_away = self.note(written.clone()).is_err();
            for pending in batch {
                // A caller that has disconnected sends its records again.
                drop(pending.done.send(written.clone()));
            }
        }
    }

    /// Writes rows in one transaction. If the store rejects it, the rows are written one by one, so that one
    /// row does not block the others.
    async fn write(&self, rows: &[&RecordRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        match self.insert(rows).await {
            Err(StoreError::Rejected(_)) => {
                for row in rows {
                    self.insert_or_drop(row).await?;
                }
                Ok(())
            }
            result => result,
        }
    }

    async fn insert_or_drop(&self, row: &RecordRow) -> Result<(), StoreError> {
        match self.insert(&[row]).await {
            Err(error @ StoreError::Rejected(_)) => {
                tracing::warn!(%error, id = row.id(), "a usage record is dropped");
                self.metrics.records_rejected.increment(1);
                Ok(())
            }
            result => result,
        }
    }

    async fn insert(&self, rows: &[&RecordRow]) -> Result<(), StoreError> {
        let json = serde_json::to_string(rows).map_err(|error| StoreError::Rejected(error.to_string()))?;
        let new = self.store.insert(json).await?;
        let all = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        self.metrics.records_written.increment(new);
        self.metrics.records_repeated.increment(all.saturating_sub(new));
        Ok(())
    }

    /// Shows whether the store works, and logs changes.
    fn note(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.metrics.usage_store_up().set(f64::from(u8::from(result.is_ok())));
        match (&result, self.is_away.swap(result.is_err(), Ordering::Relaxed)) {
            (Ok(()), true) => tracing::info!("the usage store is available again"),
            (Err(error), false) => {
                tracing::warn!(%error, "filters keep their usage records until the store is available");
            }
            (Ok(()), false) | (Err(_), true) => {}
        }
        result
    }
}

/// Deletes records that are older than this many days, in small steps. Never returns.
pub async fn expire(store: Arc<dyn UsageStore>, days: u32, metrics: Arc<AdapterMetrics>) {
    loop {
        let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let first = today.checked_sub(Span::new().days(i64::from(days)));
        while let Ok(first) = first {
            match store.expire(&first.to_string(), EXPIRED_AT_ONCE).await {
                Ok(count) => {
                    metrics.records_expired.increment(count);
                    if count < u64::from(EXPIRED_AT_ONCE) {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "old usage records could not be deleted; trying again in an hour");
                    break;
                }
            }
            tokio::time::sleep(EXPIRE_STEP).await;
        }
        tokio::time::sleep(EXPIRE).await;
    }
}
