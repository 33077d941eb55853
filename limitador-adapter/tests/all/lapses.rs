//! Holds that end without a commit, on every storage: what they charge, and how a late commit settles it.

use crate::ledger::{MINUTE, key, key_of};
use crate::storages::{Storage, on_every_storage};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::stored::{CreationCharge, DeferredCharge, Sighting, StoredId, StoredResult};
use limitador_adapter::ledger::{
    Charge, ChargeAt, Hold, Idempotency, Key, LapsedTotals, LeaseUse, Ledger, Raised, RaisedHold, Settled,
};
use llm::response::Usage;
use policy::model::{Period, Unit, UsageCost, Window, ZoneName};
use std::sync::Arc;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);

/// The lifetime of the holds here.
const TTL: Duration = Duration::from_secs(15 * 60);

on_every_storage![
    a_lapsed_hold_is_charged_and_a_late_commit_settles_the_difference,
    a_lapsed_hold_is_only_released_if_its_limit_says_so,
    what_a_raise_holds_is_charged_at_the_lapse,
    the_tokens_of_a_worker_that_is_gone_are_charged_and_its_slots_come_back,
    a_hold_that_nobody_ends_in_time_is_charged_until_its_window_would_be_over,
    a_hold_that_lapses_in_the_next_period_is_charged_there,
    a_late_commit_charges_nothing_twice_after_the_window_of_the_lapse,
    a_late_commit_refunds_nothing_that_an_operator_has_reset,
    a_hold_in_an_overflow_bucket_is_charged_there_when_it_lapses,
    a_sliding_window_is_charged_and_refunded,
    a_result_that_nobody_reads_is_charged_and_a_late_read_settles_the_difference,
    a_creation_that_ends_after_its_holds_is_charged_once,
    thousands_of_holds_lapse_at_once,
];

fn tokens_in(key: Arc<Key>, amount: u64) -> Hold {
    let charge_at = ChargeAt::CommitOrLapse;
    Hold {
        key,
        amount,
        max: 1_000_000,
        ttl: TTL,
        charge_at,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

fn tokens(who: &str, amount: u64) -> Hold {
    tokens_in(key(who, Unit::Tokens), amount)
}

fn request(who: &str) -> Hold {
    Hold { charge_at: ChargeAt::Admission, ..tokens_in(key(who, Unit::Requests), 1) }
}

pub fn slot(who: &str) -> Hold {
    Hold { charge_at: ChargeAt::Commit, ..tokens_in(key(who, Unit::Concurrency), 1) }
}

fn charge(hold: &Hold, amount: u64) -> Charge {
    Charge { key: Arc::clone(&hold.key), amount, warn_at: None, draw: None }
}

/// Returns (used, held) of the bucket of a hold.
async fn books(ledger: &Arc<dyn Ledger>, hold: &Hold, now: Moment) -> (u64, u64) {
    let reading = ledger.read(&[Arc::clone(&hold.key)], now).await.unwrap().remove(0);
    (reading.used, reading.held)
}

async fn lapsed(ledger: &Arc<dyn Ledger>) -> LapsedTotals {
    ledger.size().await.unwrap().lapsed
}

async fn a_lapsed_hold_is_charged_and_a_late_commit_settles_the_difference(storage: Storage) {
    for (committed, wanted) in [(Some(30), 30), (Some(60), 60), (Some(90), 90), (Some(0), 0), (None, 0)] {
        let (ledger, now) = storage.ledger(100).await;
        let (hold, request, slot) = (tokens("alice", 60), request("alice"), slot("alice"));
        ledger.reserve("1", vec![hold.clone(), request.clone(), slot.clone()], now).await.unwrap();
        let before = now + (TTL - MILLISECOND);
        assert_eq!(books(&ledger, &hold, before).await, (0, 60));
        let at = now + TTL;
        assert_eq!(books(&ledger, &hold, at).await, (60, 0));
        assert_eq!(books(&ledger, &slot, at).await, (0, 0));
        assert_eq!(ledger.reserve("1", vec![hold.clone()], at).await.unwrap().idempotency, Idempotency::Late);
        // The charge of the request is of an earlier window, and the commit confirms it.
        let own = committed.map(|amount| charge(&hold, amount));
        let charges: Vec<_> = own.into_iter().chain([charge(&request, 1), charge(&slot, 1)]).collect();
        for told in [Settled::Charged, Settled::AlreadySettled] {
            assert_eq!(ledger.commit("1", charges.clone(), at).await.unwrap(), told);
            assert_eq!(books(&ledger, &hold, at).await, (wanted, 0), "the commit names {committed:?}");
        }
        assert_eq!(books(&ledger, &request, at).await, (0, 0));
        let totals = LapsedTotals { released: 1, charged: 1, tokens: 60, micro_usd: 0 };
        assert_eq!(lapsed(&ledger).await, totals);
    }
}

async fn a_lapsed_hold_is_only_released_if_its_limit_says_so(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = Hold { charge_at: ChargeAt::Commit, ..tokens("alice", 60) };
    let usd = tokens_in(key("alice", Unit::Usd), 7);
    ledger.reserve("1", vec![hold.clone(), usd.clone()], now).await.unwrap();
    assert_eq!(books(&ledger, &hold, now + TTL).await, (0, 0));
    assert_eq!(books(&ledger, &usd, now + TTL).await, (7, 0));
    let totals = LapsedTotals { released: 1, charged: 1, tokens: 0, micro_usd: 7 };
    assert_eq!(lapsed(&ledger).await, totals);
}

async fn what_a_raise_holds_is_charged_at_the_lapse(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let key = Arc::clone(&hold.key);
    let raised = RaisedHold { key, total: 500, max: hold.max, enforced: true };
    assert_eq!(ledger.raise("1", vec![raised.clone()], now).await.unwrap(), Raised::Held);
    assert_eq!(books(&ledger, &hold, now + TTL).await, (500, 0));
    let more = RaisedHold { total: 900, ..raised };
    assert_eq!(ledger.raise("1", vec![more], now + TTL).await.unwrap(), Raised::Unknown);
    ledger.commit("1", vec![charge(&hold, 700)], now + TTL).await.unwrap();
    assert_eq!(books(&ledger, &hold, now + TTL).await, (700, 0));
}

async fn the_tokens_of_a_worker_that_is_gone_are_charged_and_its_slots_come_back(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let worker = "0123456789abcdef0123456789abcdef";
    ledger.attend(&[worker.to_owned()], MINUTE / 2, now).await.unwrap();
    let (hold, slot) = (tokens("alice", 60), slot("alice"));
    let ids: Vec<String> = (0..10).map(|number| format!("{worker}-{number}")).collect();
    for id in ids.iter().map(String::as_str).chain(["another"]) {
        ledger.reserve(id, vec![hold.clone(), slot.clone()], now).await.unwrap();
    }
    let at = now + MINUTE / 2;
    assert_eq!(ledger.release_gone(at).await.unwrap(), 10);
    assert_eq!(books(&ledger, &hold, at).await, (600, 60));
    assert_eq!(books(&ledger, &slot, at).await, (0, 1));
    // One of its exchanges was settled after all.
    ledger.commit(&ids[3], vec![charge(&hold, 25)], at).await.unwrap();
    assert_eq!(books(&ledger, &hold, at).await, (565, 60));
}

async fn a_hold_that_nobody_ends_in_time_is_charged_until_its_window_would_be_over(storage: Storage) {
    let day = Window::Period(Period::Day, ZoneName::UTC);
    let sliding = Window::Sliding(MINUTE);
    for (late, charged) in [(Duration::ZERO, 60), (MINUTE - MILLISECOND, 60), (MINUTE, 0)] {
        let (ledger, now) = storage.ledger(100).await;
        let holds = [tokens("alice", 60), tokens_in(key_of("alice", Unit::Tokens, sliding.clone()), 60)];
        ledger.reserve("1", holds.to_vec(), now).await.unwrap();
        for hold in &holds {
            assert_eq!(books(&ledger, hold, now + TTL + late).await, (charged, 0), "{late:?} late");
        }
    }
    let hour = MINUTE * 60;
    for (late, charged) in [(MINUTE - MILLISECOND, 60), (MINUTE, 0)] {
        let (ledger, now) = storage.ledger(100).await;
        // The hold lapses one minute before midnight.
        let midnight = Duration::from_secs(now.unix.as_secs() / 86_400 * 86_400 + 86_400);
        let now = Moment { unix: midnight - TTL - MINUTE, ..now };
        let hold = tokens_in(key_of("alice", Unit::Tokens, day.clone()), 60);
        ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
        assert_eq!(books(&ledger, &hold, now + TTL + late).await, (charged, 0), "{late:?} late");
        assert_eq!(books(&ledger, &hold, now + TTL + late + hour).await, (0, 0));
    }
}

async fn a_hold_that_lapses_in_the_next_period_is_charged_there(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let midnight = Duration::from_secs(now.unix.as_secs() / 86_400 * 86_400 + 86_400);
    let now = Moment { unix: midnight - MINUTE, ..now };
    let day = Window::Period(Period::Day, ZoneName::UTC);
    let hold = tokens_in(key_of("alice", Unit::Tokens, day), 60);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let at = now + TTL;
    assert_eq!(books(&ledger, &hold, at).await, (60, 0));
    let tomorrow = now + MINUTE + Duration::from_secs(86_400);
    assert_eq!(books(&ledger, &hold, tomorrow).await, (0, 0));
}

async fn a_late_commit_charges_nothing_twice_after_the_window_of_the_lapse(storage: Storage) {
    for (committed, wanted) in [(60, 0), (20, 0), (100, 40)] {
        let (ledger, now) = storage.ledger(100).await;
        let hold = tokens("alice", 60);
        ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
        ledger.sweep(now + TTL).await.unwrap();
        let at = now + TTL + MINUTE;
        assert_eq!(books(&ledger, &hold, at).await, (0, 0));
        ledger.commit("1", vec![charge(&hold, committed)], at).await.unwrap();
        assert_eq!(books(&ledger, &hold, at).await, (wanted, 0), "{committed} committed");
    }
}

async fn a_late_commit_refunds_nothing_that_an_operator_has_reset(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let at = now + TTL;
    ledger.sweep(at).await.unwrap();
    assert_eq!(ledger.reset(vec![Arc::clone(&hold.key)], at).await.unwrap().len(), 1);
    ledger.commit("other", vec![charge(&hold, 10)], at).await.unwrap();
    ledger.commit("1", vec![charge(&hold, 20)], at).await.unwrap();
    assert_eq!(books(&ledger, &hold, at).await, (10, 0));
}

async fn a_hold_in_an_overflow_bucket_is_charged_there_when_it_lapses(storage: Storage) {
    let (ledger, now) = storage.ledger(1).await;
    // Counters of the same user are in the same shard.
    let (first, bob) = (tokens_in(key("bob", Unit::Usd), 10), tokens("bob", 60));
    ledger.reserve("1", vec![first.clone()], now).await.unwrap();
    ledger.reserve("2", vec![bob.clone()], now).await.unwrap();
    let at = now + TTL;
    ledger.sweep(at).await.unwrap();
    assert_eq!(books(&ledger, &first, at).await, (10, 0));
    // The bucket that counts bob is the overflow bucket.
    assert_eq!(books(&ledger, &bob, at).await, (60, 0));
    assert!(
        ledger
            .readings(at)
            .await
            .unwrap()
            .iter()
            .any(|reading| reading.key.is_overflow() && reading.used == 60)
    );
    ledger.commit("2", vec![charge(&bob, 25)], at).await.unwrap();
    assert_eq!(books(&ledger, &bob, at).await, (25, 0));
    assert_eq!(ledger.size().await.unwrap().holds, 0);
}

async fn a_sliding_window_is_charged_and_refunded(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens_in(key_of("alice", Unit::Tokens, Window::Sliding(MINUTE)), 60);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let at = now + TTL;
    ledger.sweep(at).await.unwrap();
    ledger.commit("2", vec![charge(&hold, 5)], at + MINUTE / 2).await.unwrap();
    ledger.commit("1", vec![charge(&hold, 20)], at + MINUTE / 2).await.unwrap();
    assert_eq!(books(&ledger, &hold, at + (MINUTE - MILLISECOND)).await, (25, 0));
    assert_eq!(books(&ledger, &hold, at + MINUTE).await, (5, 0));
}

fn creation(hold: &Hold) -> CreationCharge {
    let deferred = DeferredCharge { now: 5, cost: UsageCost::tokens(true, true) };
    CreationCharge { charge: charge(hold, 60), deferred: Some(deferred) }
}

fn read(output: u64, ends: bool) -> Sighting {
    let usage = Usage { input: 10, output, total: 10 + output, ..Usage::default() };
    Sighting { id: StoredId::of("resp_1"), usage, is_partial: !ends, ends }
}

async fn a_result_that_nobody_reads_is_charged_and_a_late_read_settles_the_difference(storage: Storage) {
    for (output, wanted) in [(20, 30), (90, 100)] {
        let (ledger, now) = storage.ledger(100).await;
        let hold = tokens("alice", 60);
        ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
        let result = StoredResult { id: StoredId::of("resp_1"), input: 10 };
        ledger.park("1", result, vec![creation(&hold)], now).await.unwrap();
        assert_eq!(books(&ledger, &hold, now).await, (5, 55));
        let at = now + TTL;
        ledger.sweep(at).await.unwrap();
        // The charge of the creation is of an earlier window.
        assert_eq!(books(&ledger, &hold, at).await, (55, 0));
        let part = ledger.see(read(15, false), at).await.unwrap();
        assert!(part.charged.is_empty());
        let seen = ledger.see(read(output, true), at).await.unwrap().result.unwrap();
        assert_eq!(seen.charges, [(Arc::clone(&hold.key), wanted)]);
        assert_eq!(books(&ledger, &hold, at).await, (wanted - 5, 0));
        ledger.see(read(output, true), at).await.unwrap();
        assert_eq!(books(&ledger, &hold, at).await, (wanted - 5, 0));
    }
}

async fn a_creation_that_ends_after_its_holds_is_charged_once(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let at = now + TTL;
    ledger.sweep(at).await.unwrap();
    let result = StoredResult { id: StoredId::of("resp_1"), input: 10 };
    ledger.park("1", result, vec![creation(&hold)], at).await.unwrap();
    assert_eq!(books(&ledger, &hold, at).await, (5, 0));
    ledger.see(read(20, true), at).await.unwrap();
    assert_eq!(books(&ledger, &hold, at).await, (30, 0));
}

async fn thousands_of_holds_lapse_at_once(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (hold, slot) = (tokens("alice", 3), slot("alice"));
    for id in 0..3000 {
        ledger.reserve(&id.to_string(), vec![hold.clone(), slot.clone()], now).await.unwrap();
    }
    let at = now + TTL;
    // A call of one of them may come first.
    ledger.commit("2999", vec![charge(&hold, 1)], at).await.unwrap();
    ledger.sweep(at).await.unwrap();
    assert_eq!(books(&ledger, &hold, at).await, (2999 * 3 + 1, 0));
    assert_eq!(books(&ledger, &slot, at).await, (0, 0));
    let size = ledger.size().await.unwrap();
    assert_eq!((size.holds, size.reservations), (0, 0));
    ledger.commit("0", Vec::new(), at).await.unwrap();
    assert_eq!(books(&ledger, &hold, at).await, (2998 * 3 + 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_redis_ends_few_holds_so_that_it_does_not_block_others() {
    let storage = Storage::redis();
    let (ledger, now) = storage.ledger(100).await;
    for id in 0..350 {
        ledger.reserve(&id.to_string(), vec![tokens("alice", 3)], now).await.unwrap();
    }
    let at = now + TTL;
    for (ended, used) in [(100, 300), (200, 600), (300, 900), (350, 1050)] {
        assert_eq!(books(&ledger, &tokens("alice", 3), at).await, (used, 1050 - used));
        // The size is as of now, when nothing lapses.
        assert_eq!(ledger.size().await.unwrap().reservations, 350 - ended);
    }
}
