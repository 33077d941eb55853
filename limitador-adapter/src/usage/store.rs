//! What the backends have in common.

use super::completion::Completion;
use super::location::{UsageAccess, UsageLocation};
use super::query::{TotalsQuery, UsageTotal};
use std::sync::Arc;
use std::time::Duration;

/// How long a query may take.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of rows in the answer to a query.
pub const MAX_TOTALS: usize = 100_000;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or used now. Trying again may help.
    #[error("the usage store is unavailable: {0}")]
    Unavailable(String),
    /// The store rejects the data. Trying again does not help.
    #[error("the usage store rejects the data: {0}")]
    Rejected(String),
    /// The query takes too long or has too many rows.
    #[error("{0}")]
    TooLarge(String),
}

/// Stores usage records.
#[tonic::async_trait]
pub trait UsageStore: Send + Sync {
    /// Connects and creates or upgrades the table, if that is still to be done.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Stores rows, given as a JSON array, in one transaction. Returns how many were new. If it succeeds, they
    /// are durable.
    async fn insert(&self, rows: String) -> Result<u64, StoreError>;

    /// Completes the record of the exchange that created a result. Returns false if there is no such record. Repeating
    /// the call has no effect.
    async fn complete(&self, completion: Completion) -> Result<bool, StoreError>;

    /// Returns the totals, in any order.
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<UsageTotal>, StoreError>;

    /// Deletes at most this many records from before this day. Returns how many.
    async fn expire(&self, before: &str, most: u32) -> Result<u64, StoreError>;
}

/// Opens the store. A database server does not have to be reachable yet.
pub fn open(access: &UsageAccess) -> Result<Arc<dyn UsageStore>, StoreError> {
    match &access.location {
        #[cfg(feature = "sqlite")]
        UsageLocation::Sqlite(path) => Ok(Arc::new(super::sqlite::SqliteStore::open(path)?)),
        #[cfg(not(feature = "sqlite"))]
        UsageLocation::Sqlite(_) => Err(left_out("SQLite")),
        #[cfg(feature = "postgres")]
        UsageLocation::Postgres(url) => {
            let password_file = access.password_file.clone();
            Ok(Arc::new(super::postgres::PostgresStore::new(url, password_file)?))
        }
        #[cfg(not(feature = "postgres"))]
        UsageLocation::Postgres(_) => Err(left_out("PostgreSQL")),
    }
}

#[cfg(not(all(feature = "sqlite", feature = "postgres")))]
fn left_out(name: &str) -> StoreError {
    StoreError::Rejected(format!("this adapter was built without {name}"))
}

/// Reports a query with more rows than [`MAX_TOTALS`].
pub fn bounded(totals: Vec<UsageTotal>) -> Result<Vec<UsageTotal>, StoreError> {
    if totals.len() > MAX_TOTALS {
        let message = format!(
            "the answer has more than {MAX_TOTALS} rows; ask for fewer days or with fewer names in `by`"
        );
        return Err(StoreError::TooLarge(message));
    }
    Ok(totals)
}

/// Reports a query that takes longer than [`QUERY_TIMEOUT`].
pub fn too_slow() -> StoreError {
    let message = format!(
        "the query takes longer than {} s; ask for fewer days, or query the database itself",
        QUERY_TIMEOUT.as_secs()
    );
    StoreError::TooLarge(message)
}
