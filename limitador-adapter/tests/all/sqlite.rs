//! Counters in a file: what a restart, another adapter, a broken disk and a wrong clock do to them.

use crate::ledger::{MINUTE, key, key_of};
use crate::server::{Server, commit, reserve, whole};
use crate::storages::in_sqlite;
use e2e::wait;
use limitador_adapter::cli::Storage;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::sqlite::SqliteLedger;
use limitador_adapter::ledger::stored::{CreationCharge, DeferredCharge, Sighting, StoredId, StoredResult};
use limitador_adapter::ledger::{
    Charge, ChargeAt, CounterReading, Durability, Grant, Hit, Hold, Idempotency, Key, LeaseUse, Ledger,
    RaisedHold, Settled, StorageFault, When,
};
use llm::response::Usage;
use policy::model::{Period, Unit, UsageCost, Window, ZoneName};
use rusqlite::Connection;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const WORKER: &str = "0123456789abcdef0123456789abcdef";

/// A file of counters in a folder of its own.
struct CounterFile {
    _folder: TempDir,
    path: PathBuf,
    now: Moment,
}

impl CounterFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("data/counters.db"), _folder: folder, now: Moment::now() }
    }

    fn open(&self) -> SqliteLedger {
        in_sqlite(&self.path, 1000, self.now)
    }

    /// Opens the file on a machine whose calendar clock shows this time.
    fn open_at(&self, unix: Duration) -> SqliteLedger {
        in_sqlite(&self.path, 1000, Moment { unix, ..self.now })
    }

    fn database(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

fn hold(key: Arc<Key>, amount: u64) -> Hold {
    let charge_at = if key.unit == Unit::Requests { ChargeAt::Admission } else { ChargeAt::Commit };
    Hold {
        key,
        amount,
        max: 1000,
        ttl: MINUTE * 15,
        charge_at,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

fn tokens(who: &str, amount: u64) -> Hold {
    hold(key(who, Unit::Tokens), amount)
}

fn charge(who: &str, amount: u64) -> Vec<Charge> {
    vec![Charge { key: key(who, Unit::Tokens), amount, warn_at: None, draw: None }]
}

async fn readings(ledger: &SqliteLedger, now: Moment) -> Vec<CounterReading> {
    let mut readings = ledger.readings(now).await.unwrap();
    readings.sort_by(|a, b| a.key.cmp(&b.key));
    readings
}

/// Returns (used, held) of each bucket.
async fn books(ledger: &SqliteLedger, now: Moment) -> Vec<(u64, u64)> {
    readings(ledger, now).await.iter().map(|reading| (reading.used, reading.held)).collect()
}

#[tokio::test]
async fn every_kind_of_call_survives_a_restart() {
    let file = CounterFile::new();
    let now = file.now;
    let month = Window::Period(Period::Month, ZoneName::parse("America/New_York").unwrap());
    let others = [
        key_of("bob", Unit::Tokens, month),
        key_of("bob", Unit::Tokens, Window::Sliding(MINUTE)),
        key("bob", Unit::Requests),
        key("bob", Unit::Concurrency),
    ];
    let holds: Vec<_> = others.iter().map(|key| hold(Arc::clone(key), 10)).collect();
    let charges =
        others.iter().map(|key| Charge { key: Arc::clone(key), amount: 7, warn_at: None, draw: None });
    let raised = RaisedHold { key: key("alice", Unit::Tokens), total: 90, max: 1000, enforced: true };
    let hit = Hit {
        key: key("carol", Unit::Tokens),
        max: 100,
        need: 1,
        charge: 5,
        when: When::Always,
        enforced: true,
        warn_at: None,
    };
    let grant = Grant { key: key("alice", Unit::Tokens), amount: 500, id: "ticket".to_owned() };
    let mut step = 0;
    loop {
        let ledger = file.open();
        let before = readings(&ledger, now).await;
        match step {
            0 => drop(ledger.reserve("1", vec![tokens("alice", 60)], now).await.unwrap()),
            1 => drop(ledger.raise("1", vec![raised.clone()], now).await.unwrap()),
            2 => drop(ledger.reserve("2", holds.clone(), now).await.unwrap()),
            3 => assert_eq!(ledger.commit("2", charges.clone().collect(), now).await, Ok(Settled::Released)),
            4 => drop(ledger.hit(vec![hit.clone()], now).await.unwrap()),
            5 => assert!(!ledger.grant(grant.clone(), now).await.unwrap().is_repeated),
            6 => assert_eq!(ledger.commit("1", charge("alice", 50), now).await, Ok(Settled::Released)),
            7 => assert_eq!(ledger.reset(vec![key("carol", Unit::Tokens)], now).await.unwrap().len(), 1),
            _ => break,
        }
        let after = readings(&ledger, now).await;
        assert_ne!(after, before, "step {step} changes something");
        drop(ledger);
        assert_eq!(readings(&file.open(), now).await, after, "step {step}");
        step += 1;
    }
    let ledger = file.open();
    for id in ["1", "2"] {
        assert_eq!(ledger.commit(id, charge("alice", 9), now).await, Ok(Settled::AlreadySettled));
        let late = ledger.reserve(id, vec![tokens("alice", 1)], now).await.unwrap();
        assert_eq!(late.idempotency, Idempotency::Late);
    }
    assert!(ledger.grant(grant, now).await.unwrap().is_repeated);
    assert_eq!(ledger.durability(), Durability::Durable);
    assert_eq!(ledger.counting_since(), Some(now.unix));
}

#[tokio::test]
async fn what_lapses_after_a_restart_is_charged_and_settled_after_the_next() {
    let mut file = CounterFile::new();
    let (now, lapsed) = (file.now, file.now + MINUTE * 15);
    let hold = || vec![Hold { charge_at: ChargeAt::CommitOrLapse, ..tokens("alice", 60) }];
    let id = || StoredId::of("resp_1");
    let ledger = file.open();
    ledger.reserve("1", hold(), now).await.unwrap();
    ledger.reserve("2", hold(), now).await.unwrap();
    let deferred = Some(DeferredCharge { now: 0, cost: UsageCost::tokens(true, true) });
    let creation = CreationCharge { charge: charge("alice", 60).remove(0), deferred };
    ledger.park("2", StoredResult { id: id(), input: 10 }, vec![creation], now).await.unwrap();
    drop(ledger);
    file.now = lapsed;
    assert_eq!(books(&file.open(), lapsed).await, [(120, 0)]);

    let ledger = file.open();
    assert_eq!(ledger.commit("1", charge("alice", 25), lapsed).await, Ok(Settled::Charged));
    let usage = Usage { input: 10, output: 20, total: 30, ..Usage::default() };
    ledger.see(Sighting { id: id(), usage, is_partial: false, ends: true }, lapsed).await.unwrap();
    assert_eq!(books(&ledger, lapsed).await, [(55, 0)]);
    drop(ledger);
    let ledger = file.open();
    assert_eq!(ledger.commit("1", charge("alice", 25), lapsed).await, Ok(Settled::AlreadySettled));
    assert_eq!(books(&ledger, lapsed).await, [(55, 0)]);
}

#[tokio::test]
async fn a_charge_at_admission_is_confirmed_or_taken_back_after_a_restart() {
    let file = CounterFile::new();
    let requests = || hold(key("alice", Unit::Requests), 1);
    let of = |amount| vec![Charge { key: key("alice", Unit::Requests), amount, warn_at: None, draw: None }];
    for id in ["confirmed", "failed"] {
        assert!(file.open().reserve(id, vec![requests()], file.now).await.unwrap().admitted);
    }
    assert_eq!(books(&file.open(), file.now).await, [(2, 0)]);
    assert_eq!(file.open().commit("confirmed", of(1), file.now).await, Ok(Settled::Released));
    assert_eq!(file.open().commit("failed", of(0), file.now).await, Ok(Settled::Released));
    assert_eq!(books(&file.open(), file.now).await, [(1, 0)]);
    // It is taken back from its own window only, even if that one ended while the adapter was away.
    assert!(file.open().reserve("late", vec![requests()], file.now).await.unwrap().admitted);
    let later = file.now + MINUTE * 2;
    let open = || in_sqlite(&file.path, 1000, later);
    assert!(open().reserve("next", vec![requests()], later).await.unwrap().admitted);
    open().commit("late", of(0), later).await.unwrap();
    assert_eq!(books(&open(), later).await, [(1, 0)]);
}

#[tokio::test]
async fn the_holds_of_a_worker_that_died_with_the_adapter_end() {
    let file = CounterFile::new();
    let ledger = file.open();
    ledger.attend(&[WORKER.to_owned()], MINUTE, file.now).await.unwrap();
    assert!(
        ledger.reserve(&format!("{WORKER}-1"), vec![tokens("alice", 60)], file.now).await.unwrap().admitted
    );
    assert!(ledger.reserve("of-no-worker", vec![tokens("bob", 60)], file.now).await.unwrap().admitted);
    drop(ledger);
    let ledger = file.open();
    assert_eq!(ledger.release_gone(file.now + (MINUTE - Duration::from_secs(1))).await, Ok(0));
    assert_eq!(ledger.release_gone(file.now + MINUTE).await, Ok(1));
    assert_eq!(books(&ledger, file.now + MINUTE).await, [(0, 60)]);
    drop(ledger);
    assert_eq!(file.open().release_gone(file.now + MINUTE * 5).await, Ok(0), "it is no longer known");
}

#[tokio::test]
async fn what_has_expired_meanwhile_is_gone() {
    let file = CounterFile::new();
    let ledger = file.open();
    ledger.reserve("1", vec![tokens("alice", 60)], file.now).await.unwrap();
    ledger.commit("2", charge("bob", 5), file.now).await.unwrap();
    drop(ledger);
    let ledger = file.open_at(file.now.unix + MINUTE * 16);
    assert_eq!(books(&ledger, file.now).await, []);
    assert_eq!(ledger.size().await.unwrap().counters, 0);
    assert_eq!(ledger.commit("2", charge("bob", 5), file.now).await, Ok(Settled::AlreadySettled));
    drop(ledger);
    let left: i64 = file.database().query_row("SELECT COUNT(*) FROM buckets", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_clock_that_goes_back_loses_no_charge_and_keeps_none_for_longer() {
    let file = CounterFile::new();
    let day = Window::Period(Period::Day, ZoneName::UTC);
    let keys = [
        key("alice", Unit::Tokens),
        key_of("alice", Unit::Tokens, Window::Sliding(MINUTE)),
        key_of("alice", Unit::Tokens, day),
    ];
    let charges =
        keys.iter().map(|key| Charge { key: Arc::clone(key), amount: 5, warn_at: None, draw: None });
    file.open().commit("1", charges.collect(), file.now).await.unwrap();
    let ledger = file.open_at(file.now.unix - MINUTE * 60 * 48);
    assert_eq!(books(&ledger, file.now).await, [(5, 0); 3]);
    // The day ends when the clock says so. The others have lasted long enough.
    assert_eq!(books(&ledger, file.now + MINUTE).await, [(5, 0)]);
}

#[tokio::test]
async fn a_calendar_period_keeps_its_boundary() {
    let file = CounterFile::new();
    let key = key_of("alice", Unit::Tokens, Window::Period(Period::Day, ZoneName::UTC));
    let charges = vec![Charge { key: Arc::clone(&key), amount: 5, warn_at: None, draw: None }];
    let day = Duration::from_secs(24 * 60 * 60);
    let noon = Duration::from_secs(file.now.unix.as_secs() / day.as_secs() * day.as_secs()) + day / 2;
    let at = |unix| Moment { unix, ..file.now };
    file.open_at(noon).commit("1", charges, at(noon)).await.unwrap();
    let later = noon + day / 4;
    let reading = &readings(&file.open_at(later), at(later)).await[0];
    assert_eq!((reading.used, reading.reset), (5, Some(day / 4)));
    assert_eq!(books(&file.open_at(noon + day / 2), at(noon + day / 2)).await, []);
}

#[tokio::test]
async fn more_counters_than_there_is_room_for_are_kept_and_new_users_share_one() {
    let file = CounterFile::new();
    let ledger = file.open();
    for user in 0..20 {
        ledger.commit(&user.to_string(), charge(&user.to_string(), 5), file.now).await.unwrap();
    }
    drop(ledger);
    let ledger = in_sqlite(&file.path, 10, file.now);
    assert_eq!(books(&ledger, file.now).await, [(5, 0); 20]);
    ledger.commit("another", charge("another", 7), file.now).await.unwrap();
    let all = readings(&ledger, file.now).await;
    let shared: Vec<_> = all.iter().filter(|reading| reading.key.is_overflow()).collect();
    assert_eq!((all.len(), shared[0].used), (21, 7));
}

#[tokio::test]
async fn a_charge_that_cannot_be_written_is_not_acknowledged_and_is_made_once() {
    let file = CounterFile::new();
    let ledger = file.open();
    ledger.commit("0", charge("alice", 1), file.now).await.unwrap();
    ledger.durable().await.unwrap();
    let other = file.database();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(ledger.commit("1", charge("alice", 50), file.now).await, Ok(Settled::Charged));
    let failed = ledger.durable().await;
    assert!(matches!(&failed, Err(error) if error.fault == StorageFault::Failed), "{failed:?}");
    assert_eq!(ledger.ready().await, failed);
    // The caller tries again. Limits are enforced meanwhile.
    assert_eq!(ledger.commit("1", charge("alice", 50), file.now).await, Ok(Settled::AlreadySettled));
    assert_eq!(ledger.durable().await, failed);
    assert!(!ledger.reserve("2", vec![tokens("alice", 950)], file.now).await.unwrap().admitted);
    let used = "SELECT json_extract(window, '$.used') FROM buckets";
    assert_eq!(other.query_row(used, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ledger.durable().await, Ok(()));
    assert_eq!(ledger.ready().await, Ok(()));
    drop(ledger);
    let ledger = file.open();
    assert_eq!(books(&ledger, file.now).await, [(51, 0)]);
    assert_eq!(ledger.commit("1", charge("alice", 50), file.now).await, Ok(Settled::AlreadySettled));
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_file_and_holds_follow() {
    let file = CounterFile::new();
    let ledger = file.open();
    let count = |table: &str| {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        file.database().query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    ledger.reserve("1", vec![tokens("alice", 60)], file.now).await.unwrap();
    wait::until("the hold in the file", || (count("reservations") == 1).then_some(()));
    ledger.commit("1", charge("alice", 50), file.now).await.unwrap();
    ledger.durable().await.unwrap();
    assert_eq!((count("reservations"), count("settled"), count("buckets")), (0, 1, 1));
    // Other programs may read the database while the adapter uses it.
    let copy = file.path.with_extension("copy");
    file.database().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(ledger);
    let copied = in_sqlite(&copy, 1000, file.now);
    assert_eq!(books(&copied, file.now).await, [(50, 0)]);
}

fn refused(path: &Path) -> String {
    SqliteLedger::open(path, 1000_usize).err().unwrap().to_string()
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_the_reason() {
    let file = CounterFile::new();
    let first = file.open();
    assert!(refused(&file.path).ends_with(
        "another adapter uses this file; give each adapter its own, or use Redis to share counters"
    ));
    drop(first);
    file.database().pragma_update(None, "user_version", 1000).unwrap();
    assert!(refused(&file.path).ends_with(
        "has schema version 1000, but this adapter knows only versions up to 1; upgrade the adapter"
    ));
    let other = file.path.with_file_name("usage.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE usage (id)").unwrap();
    assert!(refused(&other).ends_with("usage.db: is a database of something else"));
    std::fs::write(&other, "x".repeat(5000)).unwrap();
    assert!(refused(&other).contains("file is not a database"), "{}", refused(&other));
    let below = other.join("counters.db");
    assert!(refused(&below).contains("cannot create the folder"), "{}", refused(&below));
}

#[tokio::test]
async fn a_file_that_is_deleted_is_noticed() {
    let file = CounterFile::new();
    let ledger = file.open();
    std::fs::remove_file(&file.path).unwrap();
    ledger.commit("1", charge("alice", 50), file.now).await.unwrap();
    let failed = ledger.durable().await.unwrap_err();
    assert!(failed.to_string().contains("was deleted or replaced"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_goes_on_where_the_one_before_was() {
    let folder = tempfile::tempdir().unwrap();
    let storage = || Storage::Sqlite(folder.path().join("counters.db"));
    let mut since = None;
    for round in 1..=3 {
        // Connections of the server before may still be closing, and use the file meanwhile.
        let lock = folder.path().join("counters.db-lock");
        wait::until("the end of the adapter before", || {
            File::options().create(true).append(true).open(&lock).unwrap().try_lock().ok()
        });
        let server = Server::patient(storage(), MINUTE).await;
        let id = round.to_string();
        server.kuadrant().reserve(reserve(&id, whole(100, 1))).await.unwrap();
        server.kuadrant().commit(commit(&id, whole(10, 1))).await.unwrap();
        assert_eq!(server.books("free", "tokens").await, [(10 * round, 0)]);
        assert_eq!(server.get("/readyz").await, (200, "ok\n".to_owned()));
        let counting = server.json("/api/counters").await[0]["countingSince"].clone();
        assert_eq!(&counting, since.get_or_insert_with(|| counting.clone()));
        assert!(server.metric("weir_counting_since_timestamp_seconds").await > 1e9);
        server.serving.drain().await;
    }
}
