//! The tables.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// The version of the schema, which the file keeps in `user_version`.
pub const VERSION: i64 = 1;

/// Marks files of counters (`application_id`): "Weir" in ASCII.
pub const APPLICATION: i64 = 0x5765_6972;

/// The statements that lead from one version to the next. Never edit one that has been released.
const MIGRATIONS: [&str; VERSION as usize] = ["
    CREATE TABLE ledger (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        hash_key_1 INTEGER NOT NULL,
        hash_key_2 INTEGER NOT NULL,
        since INTEGER NOT NULL,
        saved INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        generation_since INTEGER NOT NULL
    );
    CREATE TABLE buckets (place INTEGER PRIMARY KEY, key TEXT NOT NULL, window TEXT);
    CREATE TABLE reservations (number INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE settled (number INTEGER PRIMARY KEY, generation INTEGER NOT NULL, ids BLOB NOT NULL);
    CREATE INDEX settled_generation ON settled (generation);
    CREATE TABLE settled_briefly (number INTEGER PRIMARY KEY, ends INTEGER NOT NULL, ids BLOB NOT NULL);
    CREATE TABLE lapsed (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, charged TEXT NOT NULL);
    CREATE TABLE results (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE early_sightings (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE grants (id INTEGER PRIMARY KEY, ends INTEGER NOT NULL);
    CREATE TABLE workers (id INTEGER PRIMARY KEY, lives INTEGER NOT NULL);
"];

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum FileKind {
    /// It has the tables of this version now.
    Counters,
    /// It has another application's tables.
    Foreign,
    /// It has this version, which is newer than [`VERSION`].
    Newer(i64),
}

/// Creates or upgrades the tables.
pub fn migrate(connection: &mut Connection) -> rusqlite::Result<FileKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let application: i64 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = transaction.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && tables > 0 {
        return Ok(FileKind::Foreign);
    }
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Ok(FileKind::Newer(version));
    }
    if version < VERSION {
        upgrade(&transaction, version)?;
    }
    transaction.commit()?;
    Ok(FileKind::Counters)
}

fn upgrade(transaction: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(version).unwrap_or_default();
    MIGRATIONS.iter().skip(done).try_for_each(|statements| transaction.execute_batch(statements))?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)
}
