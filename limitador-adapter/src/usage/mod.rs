//! Usage records: one row per settled exchange, in SQLite or PostgreSQL.
//!
//! Filters send records until they are acknowledged. The [`recorder`] acknowledges a record once it is durable
//! in the [`store`]. The reservation's id is the key of a row, so a repeated record changes nothing. Charging
//! does not depend on the store: if it is unavailable, filters keep their records and repeat them later.

pub mod cli;
pub mod completion;
pub mod location;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod query;
pub mod recorder;
pub mod report;
pub mod row;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod store;
pub mod table;
