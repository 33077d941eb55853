//! Usage records in a SQLite file.

use super::completion::{CompletedLimits, Completion};
use super::query::{TotalsQuery, UsageTotal};
use super::store::{MAX_TOTALS, QUERY_TIMEOUT, StoreError, UsageStore, bounded, too_slow};
use super::table::{SqlDialect, VERSION};
use rusqlite::types::Value;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params, params_from_iter,
};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for another process that writes to the file.
const BUSY: Duration = Duration::from_secs(3);

/// How often a running query checks its time, in instructions of SQLite's virtual machine.
const CHECK_EVERY: i32 = 10_000;

const DIALECT: SqlDialect = SqlDialect::Sqlite;

/// A SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    writer: Arc<Mutex<Option<OpenFile>>>,
}

/// The file and the connection that writes to it.
struct OpenFile {
    connection: Connection,
    /// Identifies the file. If somebody replaces it, records must not go to the file that is gone.
    id: Option<(u64, u64)>,
}

impl SqliteStore {
    /// Opens the file, or creates it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = OpenFile::open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), writer: Arc::new(Mutex::new(Some(file))) })
    }

    /// Runs this with the connection that writes, on a thread that may block. Opens the file again if it was
    /// replaced.
    async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, writer) = (self.path.clone(), Arc::clone(&self.writer));
        let act = move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut file = match writer.take().filter(|file| file.id.is_some() && file.id == id(&path)) {
                Some(file) => file,
                None => OpenFile::open(&path)?,
            };
            let done = act(&mut file.connection)?;
            *writer = Some(file);
            Ok(done)
        };
        blocking(act).await?.map_err(failed)
    }
}

impl OpenFile {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        // Queries read while records are written. With FULL, acknowledged records survive a loss of power, too.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        migrate(&mut connection)?;
        Ok(Self { connection, id: id(path) })
    }
}

/// The device and the inode of a file.
fn id(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(act).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// Creates or upgrades the table. Another process may do the same at this moment.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch("CREATE TABLE IF NOT EXISTS weir_schema (version INTEGER NOT NULL)")?;
    let version = "SELECT COALESCE(MAX(version), 0) FROM weir_schema";
    let version: i64 = transaction.query_row(version, [], |row| row.get(0))?;
    for step in version.saturating_add(1)..=VERSION {
        if let Some(statements) = DIALECT.migration(step) {
            transaction.execute_batch(&statements)?;
            transaction.execute("INSERT INTO weir_schema (version) VALUES (?1)", [step])?;
        }
    }
    transaction.commit()
}

#[tonic::async_trait]
impl UsageStore for SqliteStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.write(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await
    }

    async fn insert(&self, rows: String) -> Result<u64, StoreError> {
        let count = self.write(move |connection| connection.execute(&DIALECT.insert(), [rows]));
        Ok(u64::try_from(count.await?).unwrap_or(u64::MAX))
    }

    async fn complete(&self, completion: Completion) -> Result<bool, StoreError> {
        self.write(move |connection| complete(connection, &completion)).await
    }

    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<UsageTotal>, StoreError> {
        let (path, query) = (self.path.clone(), query.clone());
        let (totals, was_stopped) = blocking(move || totals(&path, &query)).await?;
        match totals {
            Err(_) if was_stopped => Err(too_slow()),
            totals => bounded(totals.map_err(failed)?),
        }
    }

    async fn expire(&self, before: &str, most: u32) -> Result<u64, StoreError> {
        let before = before.to_owned();
        let deleted =
            self.write(move |connection| connection.execute(&DIALECT.expire(), params![before, most]));
        Ok(u64::try_from(deleted.await?).unwrap_or(u64::MAX))
    }
}

fn complete(connection: &mut Connection, completion: &Completion) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let record = transaction.query_row(&DIALECT.find_result(), [&completion.result], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    });
    let Some((id, limits)) = record.optional()? else { return Ok(false) };
    if let Some(CompletedLimits { limits, micro_usd }) = completion.complete(&limits) {
        transaction.execute(&DIALECT.complete_limits(), params![id, limits, micro_usd])?;
    }
    let [input, cached, cache_write, output, reasoning, total] = completion.counts;
    transaction.execute(
        &DIALECT.complete_counts(),
        params![id, completion.source, input, cached, cache_write, output, reasoning, total],
    )?;
    transaction.commit()?;
    Ok(true)
}

/// Reads with a connection of its own, so that records are written meanwhile. Also returns whether the time was up.
fn totals(path: &Path, query: &TotalsQuery) -> (rusqlite::Result<Vec<UsageTotal>>, bool) {
    let started = Instant::now();
    let is_over = move || started.elapsed() > QUERY_TIMEOUT;
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.progress_handler(CHECK_EVERY, Some(is_over))?;
        let (sql, expressions) = DIALECT.totals(&query.by);
        let most = i64::try_from(MAX_TOTALS).unwrap_or(i64::MAX).saturating_add(1);
        let parameters =
            [Value::Text(query.from.to_string()), Value::Text(query.to.to_string()), Value::Integer(most)];
        let parameters = parameters.into_iter().chain(expressions.into_iter().map(Value::Text));
        let mut statement = connection.prepare(&sql)?;
        let keys = query.by.len();
        let rows = statement.query_map(params_from_iter(parameters), |row| {
            let values = (0..keys).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<_>>>()?;
            let mut sums = [0; 8];
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = row.get(keys.saturating_add(at))?;
            }
            Ok(UsageTotal { keys: values, sums })
        })?;
        rows.collect()
    };
    let result = read();
    (result, is_over())
}

/// The file's name is not a secret, but SQLite's messages do not need it either.
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            StoreError::Rejected(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
