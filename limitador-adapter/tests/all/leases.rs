//! Leases in a ledger: what they hold, what leaves them, and what remains when they end.

use crate::ledger::{MINUTE, key};
use crate::storages::{Storage, on_every_storage};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::{Charge, ChargeAt, Hold, Key, LeasePart, LeaseUse, Ledger, Settled};
use policy::model::Unit;
use std::sync::Arc;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(10);
/// Reservation ids of a worker.
const LEASE: &str = "0123456789abcdef0123456789abcdef-1";
const WORKER: &str = "0123456789abcdef0123456789abcdef";

on_every_storage![
    what_a_request_uses_leaves_the_lease,
    a_commit_takes_its_part_once_however_often_it_comes,
    a_running_request_takes_its_hold_out_of_the_lease,
    a_commit_that_comes_before_its_hold_takes_the_part_once,
    a_lease_has_no_more_than_is_left_of_it,
    a_lease_that_is_returned_or_expires_frees_its_room_and_charges_nothing,
    a_request_may_outlive_its_lease,
    the_leases_of_a_worker_that_is_gone_end,
    a_refusal_tells_what_is_leased,
    a_slot_comes_back_to_its_lease,
];

fn hold(key: &Arc<Key>, amount: u64, lease: LeaseUse) -> Hold {
    let is_lease = lease == LeaseUse::Lease;
    Hold {
        key: Arc::clone(key),
        amount,
        max: 1000,
        ttl: if is_lease { TTL } else { MINUTE * 15 },
        charge_at: match (is_lease, key.unit) {
            (false, Unit::Tokens) => ChargeAt::CommitOrLapse,
            (false, Unit::Requests) => ChargeAt::Admission,
            _ => ChargeAt::Commit,
        },
        enforced: is_lease || lease == LeaseUse::None,
        warn_at: None,
        lease,
    }
}

fn part(amount: u64) -> LeasePart {
    LeasePart { lease: LEASE.to_owned(), amount }
}

fn charge(key: &Arc<Key>, amount: u64, draw: Option<LeasePart>) -> Vec<Charge> {
    vec![Charge { key: Arc::clone(key), amount, warn_at: None, draw }]
}

/// Returns a ledger, and takes a lease of this amount.
async fn leased(storage: &Storage, key: &Arc<Key>, amount: u64) -> (Arc<dyn Ledger>, Moment) {
    let (ledger, now) = storage.ledger(100).await;
    let lease = vec![hold(key, amount, LeaseUse::Lease)];
    assert!(ledger.reserve(LEASE, lease, now).await.unwrap().admitted);
    (ledger, now)
}

/// Returns what is (used, held, leased) in a bucket.
async fn books(ledger: &Arc<dyn Ledger>, key: &Arc<Key>, now: Moment) -> (u64, u64, u64) {
    let reading = ledger.read(std::slice::from_ref(key), now).await.unwrap().remove(0);
    (reading.used, reading.held, reading.leased)
}

async fn what_a_request_uses_leaves_the_lease(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    assert_eq!(books(&ledger, &key, now).await, (0, 500, 500));
    let settled = ledger.commit("r1", charge(&key, 120, Some(part(120))), now).await.unwrap();
    assert_eq!(settled, Settled::Charged);
    assert_eq!(books(&ledger, &key, now).await, (120, 380, 380));
    // It has used more than it has taken.
    ledger.commit("r2", charge(&key, 200, Some(part(80))), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (320, 300, 300));
}

async fn a_commit_takes_its_part_once_however_often_it_comes(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    for expected in [Settled::Charged, Settled::AlreadySettled, Settled::AlreadySettled] {
        let settled = ledger.commit("r1", charge(&key, 120, Some(part(120))), now).await.unwrap();
        assert_eq!(settled, expected);
    }
    assert_eq!(books(&ledger, &key, now).await, (120, 380, 380));
}

async fn a_running_request_takes_its_hold_out_of_the_lease(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    for _ in 0..2 {
        let hold = vec![hold(&key, 100, LeaseUse::Draw(part(100)))];
        assert!(ledger.reserve("r1", hold, now).await.unwrap().admitted);
        assert_eq!(books(&ledger, &key, now).await, (0, 500, 400));
    }
    // Its commit does not know whether the hold has arrived.
    ledger.commit("r1", charge(&key, 30, Some(part(30))), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (30, 400, 400));
}

async fn a_commit_that_comes_before_its_hold_takes_the_part_once(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    ledger.commit("r1", charge(&key, 30, Some(part(30))), now).await.unwrap();
    let hold = vec![hold(&key, 100, LeaseUse::Draw(part(100)))];
    assert!(ledger.reserve("r1", hold, now).await.unwrap().admitted);
    assert_eq!(books(&ledger, &key, now).await, (30, 470, 470));
}

async fn a_lease_has_no_more_than_is_left_of_it(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 50).await;
    let other = crate::ledger::key("bob", Unit::Tokens);
    ledger.commit("r0", charge(&other, 20, Some(part(20))), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (0, 50, 50), "a lease is of one bucket");
    let drawn = hold(&key, 80, LeaseUse::Draw(part(80)));
    assert!(ledger.reserve("r1", vec![drawn], now).await.unwrap().admitted);
    assert_eq!(books(&ledger, &key, now).await, (0, 80, 0));
    ledger.commit("r2", charge(&key, 10, Some(part(10))), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (10, 80, 0));
    let unknown = LeasePart { lease: "nobody-7".to_owned(), amount: 5 };
    ledger.commit("r3", charge(&key, 5, Some(unknown)), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (15, 80, 0));
}

async fn a_lease_that_is_returned_or_expires_frees_its_room_and_charges_nothing(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    ledger.commit("r1", charge(&key, 100, Some(part(100))), now).await.unwrap();
    assert_eq!(ledger.commit(LEASE, Vec::new(), now).await.unwrap(), Settled::Released);
    assert_eq!(books(&ledger, &key, now).await, (100, 0, 0));
    // A grant that comes late holds nothing.
    let again = vec![hold(&key, 500, LeaseUse::Lease)];
    ledger.reserve(LEASE, again, now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (100, 0, 0));
    let another = vec![hold(&key, 300, LeaseUse::Lease)];
    assert!(ledger.reserve("w-2", another, now).await.unwrap().admitted);
    assert_eq!(books(&ledger, &key, now).await, (100, 300, 300));
    let later = now + (TTL + Duration::from_secs(1));
    ledger.sweep(later).await.unwrap();
    assert_eq!(books(&ledger, &key, later).await, (100, 0, 0));
}

async fn a_request_may_outlive_its_lease(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    ledger.reserve("r1", vec![hold(&key, 100, LeaseUse::Draw(part(100)))], now).await.unwrap();
    ledger.commit(LEASE, Vec::new(), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (0, 100, 0));
    ledger.commit("r1", charge(&key, 70, None), now).await.unwrap();
    // It was not told of while its lease lasted.
    ledger.commit("r2", charge(&key, 10, Some(part(10))), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (80, 0, 0));
}

async fn the_leases_of_a_worker_that_is_gone_end(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    let workers = [WORKER.to_owned()];
    ledger.attend(&workers, Duration::from_secs(2), now).await.unwrap();
    let later = now + Duration::from_secs(3);
    assert_eq!(ledger.release_gone(later).await.unwrap(), 1);
    assert_eq!(books(&ledger, &key, later).await, (0, 0, 0));
}

async fn a_refusal_tells_what_is_leased(storage: Storage) {
    let key = key("alice", Unit::Tokens);
    let (ledger, now) = leased(&storage, &key, 500).await;
    ledger.commit("r1", charge(&key, 100, Some(part(100))), now).await.unwrap();
    let outcome = ledger.reserve("r2", vec![hold(&key, 501, LeaseUse::None)], now).await.unwrap();
    assert_eq!((outcome.admitted, outcome.statuses[0].leased), (false, 400));
    ledger.commit(LEASE, Vec::new(), now).await.unwrap();
    let outcome = ledger.reserve("r2", vec![hold(&key, 901, LeaseUse::None)], now).await.unwrap();
    assert_eq!((outcome.admitted, outcome.statuses[0].leased), (false, 0));
    assert!(ledger.reserve("r2", vec![hold(&key, 900, LeaseUse::None)], now).await.unwrap().admitted);
}

async fn a_slot_comes_back_to_its_lease(storage: Storage) {
    let key = key("alice", Unit::Concurrency);
    let (ledger, now) = leased(&storage, &key, 10).await;
    ledger.commit("r1", charge(&key, 0, Some(part(0))), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (0, 10, 10));
    ledger.reserve("r2", vec![hold(&key, 1, LeaseUse::Draw(part(1)))], now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (0, 10, 9));
    ledger.commit("r2", charge(&key, 0, None), now).await.unwrap();
    assert_eq!(books(&ledger, &key, now).await, (0, 9, 9));
}
