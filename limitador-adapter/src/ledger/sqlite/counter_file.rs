//! The database: opens it, and writes changes to it.

use super::lock::FileLock;
use super::schema::{FileKind, VERSION, migrate};
use super::{OpenError, load};
use crate::ledger::key_text;
use crate::ledger::memory::record::{RecordedState, StateChanges, UnixNanos, nanos};
use crate::ledger::memory::recording::RecordedIdentity;
use crate::ledger::moment::Moment;
use rusqlite::{Connection, Transaction, params, params_from_iter};
use serde::Serialize;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for a program that locks the database, such as one that repairs it.
const BUSY: Duration = Duration::from_secs(3);

/// How many pages of 4 KiB the write-ahead log may have before it is copied to the database: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4_096;

/// How many forgotten rows one transaction deletes.
const FORGET_ROWS: i64 = 1_000;

/// The mode of the folder, if it is created: counters have the names of users.
const FOLDER_MODE: u32 = 0o700;

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a counter cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the file was deleted or replaced; restart the adapter to use the one that is there now")]
    Replaced,
}

/// The database of counters, which no other adapter uses.
pub struct CounterFile {
    connection: Connection,
    path: PathBuf,
    /// The device and the inode, to notice if somebody replaces the file.
    id: Option<(u64, u64)>,
    _lock: FileLock,
}

impl CounterFile {
    /// Opens the file, or creates it and its folder, and reads what it holds.
    pub fn open(path: &Path, now: Moment) -> Result<(Self, RecordedIdentity, RecordedState), OpenError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let created = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
            created.map_err(|error| OpenError::Folder(path.to_owned(), error))?;
        }
        let lock = FileLock::take(path)?;
        let failed = |error| OpenError::Sqlite(path.to_owned(), error);
        let mut connection = connect(path).map_err(failed)?;
        match migrate(&mut connection).map_err(failed)? {
            FileKind::Counters => {}
            FileKind::Foreign => return Err(OpenError::Foreign(path.to_owned())),
            FileKind::Newer(found) => {
                return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
            }
        }
        let unreadable = |error: load::LoadError| OpenError::Unreadable(path.to_owned(), error.to_string());
        let identity = match load::identity(&connection).map_err(unreadable)? {
            Some(identity) => identity,
            None => begin(&connection, now).map_err(failed)?,
        };
        let recorded = load::state(&connection).map_err(unreadable)?;
        let file = Self { connection, path: path.to_owned(), id: id(path), _lock: lock };
        Ok((file, identity, recorded))
    }

    /// Writes these changes in one transaction. If it succeeds, they are durable.
    pub fn write(&mut self, changes: &StateChanges, now: Moment) -> Result<(), WriteError> {
        if self.id.is_none() || self.id != id(&self.path) {
            return Err(WriteError::Replaced);
        }
        let transaction = self.connection.transaction()?;
        write_buckets(&transaction, changes)?;
        write_reservations(&transaction, changes)?;
        write_archive(&transaction, changes)?;
        write_results(&transaction, changes)?;
        write_operators(&transaction, changes)?;
        let (now, archive) = (signed(nanos(now.unix)), &changes.archive);
        let saved = "UPDATE ledger SET saved = ?1, generation = ?2, generation_since = ?3";
        let generation = [signed(archive.generation), signed(archive.since)];
        transaction.prepare_cached(saved)?.execute(params![now, generation[0], generation[1]])?;
        transaction.commit()?;
        Ok(())
    }

    /// Deletes a few rows of what is no longer remembered. Returns whether there may be more.
    pub fn forget(&mut self, now: Moment) -> rusqlite::Result<bool> {
        let transaction = self.connection.transaction()?;
        let now = signed(nanos(now.unix));
        let oldest = "SELECT generation - 1 FROM ledger";
        let forget = |table: &str, row: &str, which: &str, parameter: Option<i64>| {
            let sql = format!(
                "DELETE FROM {table} WHERE {row} IN (SELECT {row} FROM {table} WHERE {which} LIMIT {FORGET_ROWS})"
            );
            transaction.prepare_cached(&sql)?.execute(params_from_iter(parameter))
        };
        let of_old = format!("generation < ({oldest})");
        let deleted = [
            forget("settled", "number", &of_old, None)?,
            forget("lapsed", "id", &of_old, None)?,
            forget("settled_briefly", "number", "ends <= ?1", Some(now))?,
            forget("grants", "id", "ends <= ?1", Some(now))?,
        ];
        transaction.commit()?;
        Ok(deleted.iter().any(|deleted| i64::try_from(*deleted).is_ok_and(|rows| rows >= FORGET_ROWS)))
    }
}

/// Opens a connection whose transactions survive a crash of this process and, with FULL, a loss of power.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    Ok(connection)
}

fn begin(connection: &Connection, now: Moment) -> rusqlite::Result<RecordedIdentity> {
    let identity = RecordedIdentity::new(now);
    let ([first, second], since) = (identity.hash_keys, signed(nanos(identity.since)));
    connection.execute(
        "INSERT INTO ledger VALUES (1, ?1, ?2, ?3, ?3, 1, ?3)",
        [signed(first), signed(second), since],
    )?;
    Ok(identity)
}

fn id(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// SQLite has signed numbers of 64 bits only.
fn signed(number: UnixNanos) -> i64 {
    number.cast_signed()
}

fn place(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

fn json(value: &impl Serialize) -> Result<String, WriteError> {
    Ok(serde_json::to_string(value)?)
}

/// Numbers as a blob of eight bytes each.
fn blob(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    numbers.flat_map(u64::to_le_bytes).collect()
}

fn write_buckets(transaction: &Transaction<'_>, changes: &StateChanges) -> Result<(), WriteError> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO buckets VALUES (?1, ?2, ?3)")?;
    let mut delete = transaction.prepare_cached("DELETE FROM buckets WHERE place = ?1")?;
    for (at, bucket) in &changes.buckets {
        match bucket {
            Some(bucket) => {
                let window = bucket.window.as_ref().map(json).transpose()?;
                insert.execute(params![place(*at), key_text::of(&bucket.key), window])?
            }
            None => delete.execute([place(*at)])?,
        };
    }
    Ok(())
}

fn write_reservations(transaction: &Transaction<'_>, changes: &StateChanges) -> Result<(), WriteError> {
    let mut delete = transaction.prepare_cached("DELETE FROM reservations WHERE number = ?1")?;
    for number in &changes.ended {
        delete.execute([signed(*number)])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO reservations VALUES (?1, ?2)")?;
    for (number, reservation) in &changes.reservations {
        insert.execute(params![signed(*number), json(reservation)?])?;
    }
    Ok(())
}

fn write_archive(transaction: &Transaction<'_>, changes: &StateChanges) -> Result<(), WriteError> {
    let archive = &changes.archive;
    if !archive.settled.is_empty() {
        let ids = blob(archive.settled.iter().copied());
        let insert = "INSERT INTO settled (generation, ids) VALUES (?1, ?2)";
        transaction.prepare_cached(insert)?.execute(params![signed(archive.generation), ids])?;
    }
    if let Some(last) = archive.brief.iter().map(|(_, end)| *end).max() {
        let ids = blob(archive.brief.iter().flat_map(|(id, end)| [*id, *end]));
        let insert = "INSERT INTO settled_briefly (ends, ids) VALUES (?1, ?2)";
        transaction.prepare_cached(insert)?.execute(params![signed(last), ids])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO lapsed VALUES (?1, ?2, ?3)")?;
    let mut delete = transaction.prepare_cached("DELETE FROM lapsed WHERE id = ?1")?;
    for (id, lapsed) in &archive.lapsed {
        match lapsed {
            Some(lapsed) => {
                let charged = json(&lapsed.charged)?;
                insert.execute(params![signed(*id), signed(lapsed.generation), charged])?
            }
            None => delete.execute([signed(*id)])?,
        };
    }
    Ok(())
}

fn write_results(transaction: &Transaction<'_>, changes: &StateChanges) -> Result<(), WriteError> {
    fn write<T: Serialize>(
        transaction: &Transaction<'_>,
        table: &str,
        rows: &[(u64, Option<T>)],
    ) -> Result<(), WriteError> {
        let insert = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)");
        let mut insert = transaction.prepare_cached(&insert)?;
        let mut delete = transaction.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?;
        for (id, row) in rows {
            match row {
                Some(row) => insert.execute(params![signed(*id), json(row)?])?,
                None => delete.execute([signed(*id)])?,
            };
        }
        Ok(())
    }
    write(transaction, "results", &changes.results)?;
    write(transaction, "early_sightings", &changes.early)
}

fn write_operators(transaction: &Transaction<'_>, changes: &StateChanges) -> Result<(), WriteError> {
    let mut grant = transaction.prepare_cached("INSERT OR REPLACE INTO grants VALUES (?1, ?2)")?;
    for (id, ends) in &changes.grants {
        grant.execute([signed(*id), signed(*ends)])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO workers VALUES (?1, ?2)")?;
    let mut delete = transaction.prepare_cached("DELETE FROM workers WHERE id = ?1")?;
    for (id, lives) in &changes.workers {
        match lives {
            Some(lives) => insert.execute([signed(*id), signed(nanos(*lives))])?,
            None => delete.execute([signed(*id)])?,
        };
    }
    Ok(())
}
