//! The contract of a ledger for background results, on every storage.

use crate::ledger::{MINUTE, key};
use crate::storages::{Storage, on_every_storage};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::stored::{
    CreationCharge, DeferredCharge, EARLY, Parking, ResultCharges, SEEN, Seen, Sighting, StoredId,
    StoredResult, UNSEEN,
};
use limitador_adapter::ledger::{Charge, ChargeAt, Hold, Idempotency, Key, LeaseUse, Ledger, Settled};
use llm::response::Usage;
use policy::model::{Tariff, Unit, UsageCost};
use std::sync::Arc;
use std::time::Duration;

on_every_storage![
    a_result_holds_until_it_is_seen_and_is_charged_once,
    a_part_of_a_result_is_charged_and_the_whole_charges_the_rest,
    the_holds_of_a_result_outlive_its_worker_and_not_their_own_time,
    a_result_in_the_making_takes_no_second_creation,
    a_result_that_was_seen_may_be_created_again,
    a_result_may_be_seen_before_its_creation_is_known,
    what_is_not_deferred_is_charged_with_the_creation,
    a_result_costs_what_was_agreed_when_it_was_created,
    a_result_whose_reserve_was_lost_is_charged_when_it_is_seen,
    results_are_forgotten,
    ;
    unsharded:
    a_result_held_in_the_overflow_bucket_is_charged_there,
];

fn hold(key: &Arc<Key>, amount: u64) -> Hold {
    let charge_at = if key.unit == Unit::Requests { ChargeAt::Admission } else { ChargeAt::Commit };
    Hold {
        key: Arc::clone(key),
        amount,
        max: 1000,
        ttl: MINUTE * 15,
        charge_at,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

fn charge(key: &Arc<Key>, amount: u64) -> CreationCharge {
    CreationCharge {
        charge: Charge { key: Arc::clone(key), amount, warn_at: None, draw: None },
        deferred: None,
    }
}

/// Returns a charge in tokens: the part that is charged at once, and the amount if nothing can be deferred.
fn tokens(key: &Arc<Key>, now: u64, otherwise: u64) -> CreationCharge {
    let deferred = DeferredCharge { now, cost: UsageCost::tokens(true, true) };
    CreationCharge { deferred: Some(deferred), ..charge(key, otherwise) }
}

fn result(id: &str) -> StoredResult {
    StoredResult { id: StoredId::of(id), input: 10 }
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input, output, total: input + output, ..Usage::default() }
}

fn whole(id: &str, usage: Usage) -> Sighting {
    Sighting { id: StoredId::of(id), usage, is_partial: false, ends: true }
}

fn part(id: &str, output: u64) -> Sighting {
    Sighting { is_partial: true, ends: false, ..whole(id, usage(0, output)) }
}

/// Returns (used, held) of a bucket.
async fn books(ledger: &Arc<dyn Ledger>, key: &Arc<Key>, now: Moment) -> (u64, u64) {
    let readings = ledger.readings(now).await.unwrap();
    readings.iter().find(|reading| reading.key == *key).map_or((0, 0), |reading| (reading.used, reading.held))
}

async fn a_result_holds_until_it_is_seen_and_is_charged_once(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    ledger.reserve("1", vec![hold(&alice, 600)], now).await.unwrap();
    let charges = vec![tokens(&alice, 0, 600)];
    let parked = ledger.park("1", result("resp_1"), charges.clone(), now).await.unwrap();
    assert_eq!(parked, Parking::Parked(Vec::new()));
    assert_eq!(books(&ledger, &alice, now).await, (0, 600));
    let refused = ledger.reserve("2", vec![hold(&alice, 500)], now).await.unwrap();
    assert!(!refused.admitted);
    // The reply was lost, and the creation is sent again.
    let again = ledger.park("1", result("resp_1"), charges.clone(), now).await.unwrap();
    assert_eq!(again, Parking::AlreadySettled);
    assert_eq!(ledger.commit("1", Vec::new(), now).await.unwrap(), Settled::AlreadySettled);
    assert_eq!(
        ledger.reserve("1", vec![hold(&alice, 600)], now).await.unwrap().idempotency,
        Idempotency::Late
    );
    assert_eq!(books(&ledger, &alice, now).await, (0, 600));

    assert!(ledger.see(whole("resp_2", usage(1, 1)), now).await.unwrap().charged.is_empty());
    let seen = ledger.see(whole("resp_1", usage(30, 70)), now).await.unwrap().charged;
    assert_eq!(seen, [(Arc::clone(&alice), 100)]);
    assert_eq!(books(&ledger, &alice, now).await, (100, 0));
    for _ in 0..2 {
        assert!(ledger.see(whole("resp_1", usage(30, 70)), now).await.unwrap().charged.is_empty());
        assert!(ledger.see(part("resp_1", 50), now).await.unwrap().charged.is_empty());
    }
    // A read that shows more usage than before is charged only the difference.
    let more = ledger.see(whole("resp_1", usage(30, 90)), now).await.unwrap().charged;
    assert_eq!(more, [(Arc::clone(&alice), 20)]);
    // The same read arrives again, much later.
    let later = now + MINUTE * 20;
    assert_eq!(ledger.park("1", result("resp_1"), charges, later).await.unwrap(), Parking::AlreadySettled);
    assert_eq!(ledger.size().await.unwrap().holds, 0);
}

async fn a_part_of_a_result_is_charged_and_the_whole_charges_the_rest(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    ledger.reserve("1", vec![hold(&alice, 600)], now).await.unwrap();
    ledger.park("1", result("resp_1"), vec![tokens(&alice, 25, 600)], now).await.unwrap();
    assert_eq!(books(&ledger, &alice, now).await, (25, 575));
    // This read shows less than an earlier one.
    assert!(ledger.see(part("resp_1", 5), now).await.unwrap().charged.is_empty());
    assert_eq!(ledger.see(part("resp_1", 40), now).await.unwrap().charged, [(Arc::clone(&alice), 25)]);
    assert_eq!(books(&ledger, &alice, now).await, (50, 550));
    let seen = ledger.see(whole("resp_1", usage(100, 100)), now).await.unwrap();
    assert_eq!(seen.charged, [(Arc::clone(&alice), 150)]);
    // Every read tells the sum of the charges, also if it charges nothing itself.
    let sum = Some(ResultCharges { usage: usage(100, 100), charges: vec![(Arc::clone(&alice), 200)] });
    assert_eq!(seen.result, sum);
    assert_eq!(ledger.see(whole("resp_1", usage(100, 100)), now).await.unwrap().result, sum);
    assert_eq!(ledger.see(whole("resp_2", usage(1, 1)), now).await.unwrap(), Seen::default());
    assert_eq!(books(&ledger, &alice, now).await, (200, 0));
    assert_eq!(ledger.size().await.unwrap().holds, 0);
}

async fn the_holds_of_a_result_outlive_its_worker_and_not_their_own_time(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    let worker = "0123456789abcdef0123456789abcdef";
    ledger.attend(&[worker.to_owned()], Duration::from_secs(30), now).await.unwrap();
    let id = format!("{worker}-1");
    ledger.reserve(&id, vec![hold(&alice, 600)], now).await.unwrap();
    ledger.park(&id, result("resp_1"), vec![tokens(&alice, 0, 600)], now).await.unwrap();
    let gone = now + MINUTE;
    assert_eq!(ledger.release_gone(gone).await.unwrap(), 0);
    assert_eq!(books(&ledger, &alice, gone).await, (0, 600));
    let lapsed = now + MINUTE * 15;
    let almost = now + (MINUTE * 15 - Duration::from_millis(1));
    assert_eq!(books(&ledger, &alice, almost).await, (0, 600));
    ledger.sweep(lapsed).await.unwrap();
    assert!(ledger.reserve("2", vec![hold(&alice, 1000)], lapsed).await.unwrap().admitted);
    ledger.commit("2", Vec::new(), lapsed).await.unwrap();
    assert_eq!(books(&ledger, &alice, lapsed).await, (0, 0));
    // Later reads are charged in the same way.
    let late = now + MINUTE * 60 * 20;
    assert_eq!(
        ledger.see(whole("resp_1", usage(30, 70)), late).await.unwrap().charged,
        [(Arc::clone(&alice), 100)]
    );
    assert_eq!(books(&ledger, &alice, late).await, (100, 0));
}

async fn a_result_in_the_making_takes_no_second_creation(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let [alice, bob] = ["alice", "bob"].map(|who| key(who, Unit::Tokens));
    for (id, who) in [("1", &alice), ("2", &bob)] {
        ledger.reserve(id, vec![hold(who, 600)], now).await.unwrap();
        let parked = ledger.park(id, result("resp_1"), vec![tokens(who, 0, 300)], now).await.unwrap();
        let expected = if id == "1" { Parking::Parked(Vec::new()) } else { Parking::Charged };
        assert_eq!(parked, expected);
    }
    assert_eq!(books(&ledger, &alice, now).await, (0, 600));
    assert_eq!(books(&ledger, &bob, now).await, (300, 0));
    assert_eq!(
        ledger.park("2", result("resp_1"), vec![tokens(&bob, 0, 300)], now).await.unwrap(),
        Parking::AlreadySettled
    );
    ledger.see(whole("resp_1", usage(30, 70)), now).await.unwrap();
    assert_eq!(books(&ledger, &alice, now).await, (100, 0));
    assert_eq!(books(&ledger, &bob, now).await, (300, 0));
}

async fn a_result_that_was_seen_may_be_created_again(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    for (id, used) in [("1", 100), ("2", 200)] {
        ledger.reserve(id, vec![hold(&alice, 600)], now).await.unwrap();
        let parked = ledger.park(id, result("resp_1"), vec![tokens(&alice, 0, 300)], now).await.unwrap();
        assert_eq!(parked, Parking::Parked(Vec::new()));
        assert_eq!(books(&ledger, &alice, now).await, (used - 100, 600));
        ledger.see(whole("resp_1", usage(30, 70)), now).await.unwrap();
        assert_eq!(books(&ledger, &alice, now).await, (used, 0));
    }
}

async fn a_result_may_be_seen_before_its_creation_is_known(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    ledger.reserve("1", vec![hold(&alice, 600)], now).await.unwrap();
    for sighting in
        [part("resp_1", 5), whole("resp_1", usage(30, 70)), part("resp_1", 500), whole("resp_1", usage(1, 1))]
    {
        assert!(ledger.see(sighting, now).await.unwrap().charged.is_empty());
    }
    let almost = now + (EARLY - Duration::from_millis(1));
    let parked = ledger.park("1", result("resp_1"), vec![tokens(&alice, 20, 600)], almost).await.unwrap();
    assert_eq!(parked, Parking::Parked(vec![(Arc::clone(&alice), 80)]));
    assert_eq!(books(&ledger, &alice, almost).await, (100, 0));

    ledger.reserve("2", vec![hold(&alice, 600)], now).await.unwrap();
    ledger.see(whole("resp_2", usage(30, 70)), now).await.unwrap();
    if matches!(storage, Storage::Memory) {
        // Redis forgets reads by its own clock, so only the in-memory ledger is tested.
        ledger.park("2", result("resp_2"), vec![tokens(&alice, 0, 600)], now + EARLY).await.unwrap();
        assert_eq!(ledger.size().await.unwrap().holds, 1);
    }
}

async fn what_is_not_deferred_is_charged_with_the_creation(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let [tokens_of, requests, slots] =
        [Unit::Tokens, Unit::Requests, Unit::Concurrency].map(|unit| key("alice", unit));
    let holds = vec![hold(&requests, 1), hold(&tokens_of, 600), hold(&slots, 1)];
    ledger.reserve("1", holds, now).await.unwrap();
    let charges = vec![charge(&requests, 1), tokens(&tokens_of, 0, 600), charge(&slots, 0)];
    ledger.park("1", result("resp_1"), charges, now).await.unwrap();
    assert_eq!(books(&ledger, &requests, now).await, (1, 0));
    assert_eq!(books(&ledger, &tokens_of, now).await, (0, 600));
    assert_eq!(books(&ledger, &slots, now).await, (0, 0));
    assert_eq!(ledger.size().await.unwrap().holds, 1);
    assert_eq!(ledger.size().await.unwrap().reservations, 1);
}

async fn a_result_costs_what_was_agreed_when_it_was_created(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let usd = key("alice", Unit::Usd);
    let tariff = Tariff {
        input: 3_000_000,
        cached: 300_000,
        cache_write: 3_750_000,
        cache_write_1h: 6_000_000,
        output: 15_000_000,
    };
    let costs = [
        UsageCost::from(tariff),
        UsageCost { base: 7, reasoning: 1_000_000, ..UsageCost::from(tariff) },
        UsageCost::fixed(99),
        UsageCost::tokens(false, true),
    ];
    let shown = [
        usage(1000, 77),
        Usage { cached: 401, cache_write: 199, cache_write_1h: 50, reasoning: 33, ..usage(1000, 77) },
        Usage { total: 5000, ..usage(1000, 77) },
        Usage { cached: 2000, cache_write: 3000, ..usage(1000, 77) },
        usage(0, 0),
    ];
    let mut sum = 0;
    for (at, (cost, usage)) in costs.iter().flat_map(|cost| shown.map(|usage| (cost, usage))).enumerate() {
        let id = at.to_string();
        let deferred = Some(DeferredCharge { now: 0, cost: *cost });
        let charges = vec![CreationCharge { deferred, ..charge(&usd, 1) }];
        ledger.park(&id, result(&id), charges, now).await.unwrap();
        ledger.see(whole(&id, usage), now).await.unwrap();
        sum += cost.of(&usage);
        assert_eq!(books(&ledger, &usd, now).await, (sum, 0), "{cost:?} {usage:?}");
    }
}

async fn a_result_whose_reserve_was_lost_is_charged_when_it_is_seen(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    let parked = ledger.park("1", result("resp_1"), vec![tokens(&alice, 0, 600)], now).await.unwrap();
    assert_eq!(parked, Parking::Parked(Vec::new()));
    assert_eq!(books(&ledger, &alice, now).await, (0, 0));
    ledger.see(whole("resp_1", usage(30, 70)), now).await.unwrap();
    assert_eq!(books(&ledger, &alice, now).await, (100, 0));
}

async fn a_result_held_in_the_overflow_bucket_is_charged_there(storage: Storage) {
    let (ledger, now) = storage.ledger(2).await;
    let keys: Vec<_> = (0..4).map(|who| key(&who.to_string(), Unit::Tokens)).collect();
    for (at, key) in keys.iter().enumerate() {
        let id = at.to_string();
        assert!(ledger.reserve(&id, vec![hold(key, 10)], now).await.unwrap().admitted);
        ledger.park(&id, result(&id), vec![tokens(key, 0, 10)], now).await.unwrap();
    }
    let before: Vec<_> = ledger.readings(now).await.unwrap();
    for at in 0..keys.len() {
        ledger.see(whole(&at.to_string(), usage(3, 4)), now).await.unwrap();
    }
    let after = ledger.readings(now).await.unwrap();
    let overflow = after.iter().find(|reading| reading.key.is_overflow()).unwrap();
    let held = before.iter().find(|reading| reading.key.is_overflow()).unwrap().held;
    assert_eq!((overflow.used, overflow.held), (held / 10 * 7, 0));
    assert_eq!(after.iter().map(|reading| reading.used).sum::<u64>(), 28);
    assert_eq!(ledger.size().await.unwrap().holds, 0);
}

async fn results_are_forgotten(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    for id in ["1", "2"] {
        ledger.park(id, result(id), vec![tokens(&alice, 0, 600)], now).await.unwrap();
    }
    ledger.see(whole("1", usage(30, 70)), now).await.unwrap();
    if matches!(storage, Storage::Redis(..) | Storage::Shards(..)) {
        // Redis forgets results by its own clock, so only the in-memory ledger is tested.
        return;
    }
    let later = now + SEEN;
    assert!(ledger.see(whole("1", usage(30, 90)), later).await.unwrap().charged.is_empty());
    assert_eq!(books(&ledger, &alice, later).await, (0, 0));
    let next_day = now + UNSEEN;
    assert!(ledger.see(whole("2", usage(30, 70)), next_day).await.unwrap().charged.is_empty());
    assert_eq!(books(&ledger, &alice, next_day).await, (0, 0));
}
