//! Reads what a database of counters holds.

use crate::ledger::key_text;
use crate::ledger::memory::record::{BucketRecord, EndedRecords, LapsedRecord, RecordedState, UnixNanos};
use crate::ledger::memory::recording::RecordedIdentity;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a row of the table {0} cannot be read: {1}")]
    Json(&'static str, serde_json::Error),
    #[error("the key of a counter cannot be read: {0}")]
    Key(String),
}

/// Returns the identity of the ledger, unless the file is new.
pub fn identity(connection: &Connection) -> Result<Option<RecordedIdentity>, LoadError> {
    let read = |row: &Row<'_>| {
        let hash_keys = [unsigned(row, 0)?, unsigned(row, 1)?];
        Ok(RecordedIdentity { hash_keys, since: Duration::from_nanos(unsigned(row, 2)?) })
    };
    let sql = "SELECT hash_key_1, hash_key_2, since FROM ledger";
    Ok(connection.query_row(sql, [], read).optional()?)
}

/// Returns everything that was recorded.
pub fn state(connection: &Connection) -> Result<RecordedState, LoadError> {
    let saved = connection.query_row("SELECT saved FROM ledger", [], |row| unsigned(row, 0))?;
    let pairs = |sql: &str| rows(connection, sql, |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)));
    let workers = pairs("SELECT id, lives FROM workers")?;
    Ok(RecordedState {
        saved,
        buckets: buckets(connection)?,
        reservations: bodies(connection, "reservations", "SELECT number, body FROM reservations")?,
        archive: archive(connection)?,
        results: bodies(connection, "results", "SELECT id, body FROM results")?,
        early: bodies(connection, "early_sightings", "SELECT id, body FROM early_sightings")?,
        grants: pairs("SELECT id, ends FROM grants")?,
        workers: workers.into_iter().map(|(id, lives)| (id, Duration::from_nanos(lives))).collect(),
    })
}

fn buckets(connection: &Connection) -> Result<Vec<(usize, BucketRecord)>, LoadError> {
    rows(connection, "SELECT place, key, window FROM buckets", |row| {
        let (place, key): (i64, _) = (row.get(0)?, text(row, 1)?);
        let key = key_text::parse(key).map(Arc::new).ok_or_else(|| LoadError::Key(key.to_owned()))?;
        let window = match row.get_ref(2)? {
            ValueRef::Null => None,
            _ => Some(parsed("buckets", text(row, 2)?)?),
        };
        Ok((usize::try_from(place).unwrap_or_default(), BucketRecord { key, window }))
    })
}

fn archive(connection: &Connection) -> Result<EndedRecords, LoadError> {
    let (generation, since) =
        connection.query_row("SELECT generation, generation_since FROM ledger", [], |row| {
            Ok((unsigned(row, 0)?, unsigned(row, 1)?))
        })?;
    let mut archive = EndedRecords { generation, since, ..EndedRecords::default() };
    let sql = "SELECT generation, ids FROM settled";
    for (of, ids) in rows(connection, sql, |row| Ok((unsigned(row, 0)?, row.get::<_, Vec<u8>>(1)?)))? {
        if of >= generation {
            archive.settled.extend(numbers_of(&ids));
        } else if of.saturating_add(1) == generation {
            archive.old.extend(numbers_of(&ids));
        }
    }
    let sql = "SELECT ids FROM settled_briefly ORDER BY number";
    for ids in rows(connection, sql, |row| Ok(row.get::<_, Vec<u8>>(0)?))? {
        let numbers: Vec<u64> = numbers_of(&ids).collect();
        let (pairs, _) = numbers.as_chunks();
        archive.brief.extend(pairs.iter().map(|[id, end]| (*id, *end)));
    }
    let lapsed = rows(connection, "SELECT id, generation, charged FROM lapsed", |row| {
        let of = unsigned(row, 1)?;
        if of.saturating_add(1) < generation {
            return Ok(None);
        }
        let charged = parsed("lapsed", text(row, 2)?)?;
        Ok(Some((unsigned(row, 0)?, Some(LapsedRecord { generation: of, charged }))))
    })?;
    archive.lapsed.extend(lapsed.into_iter().flatten());
    Ok(archive)
}

/// Returns rows of a number and a JSON document.
fn bodies<T: DeserializeOwned>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
) -> Result<Vec<(u64, T)>, LoadError> {
    rows(connection, sql, |row| Ok((unsigned(row, 0)?, parsed(table, text(row, 1)?)?)))
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> Result<T, LoadError>,
) -> Result<Vec<T>, LoadError> {
    connection.prepare(sql)?.query_and_then([], read)?.collect()
}

fn parsed<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, LoadError> {
    serde_json::from_str(text).map_err(|error| LoadError::Json(table, error))
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixNanos> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn numbers_of(blob: &[u8]) -> impl Iterator<Item = u64> {
    blob.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}
