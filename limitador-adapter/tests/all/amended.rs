//! Changes by operators: resets and grants.

use crate::ledger::{MINUTE, key, key_of};
use crate::storages::{Storage, on_every_storage};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::{
    Charge, ChargeAt, GRANT_REMEMBERED, Grant, Granted, Hit, Hold, Key, LeaseUse, Ledger, Settled, When,
};
use policy::model::{Period, Unit, Window, ZoneName};
use std::sync::Arc;

on_every_storage![
    a_reset_bucket_starts_anew_and_keeps_its_holds,
    a_request_is_not_taken_back_from_a_window_after_a_reset,
    a_grant_raises_the_maximum_until_the_window_ends,
    a_repeated_grant_changes_nothing_for_a_day_after_the_window,
    a_grant_counts_for_raises_and_hits,
    a_reset_ends_a_grant,
    resets_and_grants_of_many_at_once_lose_nothing,
    ;
    unsharded:
    a_grant_needs_a_counter_of_its_own,
];

fn hold(key: &Arc<Key>, amount: u64, max: u64) -> Hold {
    let key = Arc::clone(key);
    Hold {
        key,
        amount,
        max,
        ttl: MINUTE * 15,
        charge_at: ChargeAt::Commit,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

fn charge(key: &Arc<Key>, amount: u64) -> Charge {
    Charge { key: Arc::clone(key), amount, warn_at: None, draw: None }
}

fn grant(key: &Arc<Key>, amount: u64, id: &str) -> Grant {
    Grant { key: Arc::clone(key), amount, id: id.to_owned() }
}

/// Returns (used, held, granted) of the only bucket.
async fn book(ledger: &Arc<dyn Ledger>, now: Moment) -> (u64, u64, u64) {
    let readings = ledger.readings(now).await.unwrap();
    assert!(readings.len() < 2);
    readings.first().map_or((0, 0, 0), |reading| (reading.used, reading.held, reading.granted))
}

async fn admits(ledger: &Arc<dyn Ledger>, id: &str, hold: Hold, now: Moment) -> bool {
    ledger.reserve(id, vec![hold], now).await.unwrap().admitted
}

async fn a_reset_bucket_starts_anew_and_keeps_its_holds(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    ledger.commit("1", vec![charge(&alice, 900)], now).await.unwrap();
    assert!(admits(&ledger, "2", hold(&alice, 100, 1000), now).await);
    let later = now + MINUTE / 2;
    let bob = key("bob", Unit::Tokens);
    assert_eq!(ledger.reset(vec![Arc::clone(&alice), bob], later).await.unwrap(), [Arc::clone(&alice)]);
    assert_eq!(book(&ledger, later).await, (0, 100, 0));
    assert!(ledger.reset(vec![Arc::clone(&alice)], later).await.unwrap().is_empty());
    assert_eq!(ledger.commit("2", vec![charge(&alice, 70)], later).await.unwrap(), Settled::Released);
    assert_eq!(book(&ledger, later).await, (70, 0, 0));
    // The new window began with this charge.
    assert_eq!(book(&ledger, now + MINUTE).await, (70, 0, 0));
    assert_eq!(book(&ledger, later + MINUTE).await, (0, 0, 0));
    ledger.sweep(later + MINUTE).await.unwrap();
    assert_eq!(ledger.size().await.unwrap().counters, 0);
}

async fn a_request_is_not_taken_back_from_a_window_after_a_reset(storage: Storage) {
    for window in [Window::Fixed(MINUTE), Window::Period(Period::Month, ZoneName::UTC)] {
        let (ledger, now) = storage.ledger(100).await;
        let alice = key_of("alice", Unit::Requests, window.clone());
        let request = Hold { charge_at: ChargeAt::Admission, ..hold(&alice, 1, 5) };
        assert!(admits(&ledger, "1", request.clone(), now).await);
        ledger.reset(vec![Arc::clone(&alice)], now).await.unwrap();
        assert!(admits(&ledger, "2", request, now).await);
        ledger.commit("1", vec![charge(&alice, 0)], now).await.unwrap();
        assert_eq!(book(&ledger, now).await, (1, 0, 0), "{window:?}");
        ledger.commit("2", vec![charge(&alice, 0)], now).await.unwrap();
        assert_eq!(book(&ledger, now).await, (0, 0, 0), "{window:?}");
    }
}

async fn a_grant_raises_the_maximum_until_the_window_ends(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    ledger.commit("1", vec![charge(&alice, 1000)], now).await.unwrap();
    assert!(!admits(&ledger, "2", hold(&alice, 500, 1000), now).await);
    let Granted { reading, is_repeated } = ledger.grant(grant(&alice, 500, "x"), now).await.unwrap();
    assert_eq!((reading.used, reading.held, reading.granted, is_repeated), (1000, 0, 500, false));
    assert_eq!(reading.reset, Some(MINUTE));
    let outcome = ledger.reserve("2", vec![hold(&alice, 500, 1000)], now).await.unwrap();
    assert!(outcome.admitted);
    assert_eq!((outcome.statuses[0].max, outcome.statuses[0].remaining), (1500, 0));
    assert!(!admits(&ledger, "3", hold(&alice, 1, 1000), now).await);
    let after = now + MINUTE;
    assert!(!admits(&ledger, "3", hold(&alice, 501, 1000), after).await);
    assert_eq!(book(&ledger, after).await, (0, 500, 0));
}

async fn a_repeated_grant_changes_nothing_for_a_day_after_the_window(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (alice, bob) = (key("alice", Unit::Tokens), key("bob", Unit::Tokens));
    let first = ledger.grant(grant(&alice, 500, "x"), now).await.unwrap();
    assert_eq!((first.reading.granted, first.reading.reset, first.is_repeated), (500, Some(MINUTE), false));
    let again = ledger.grant(grant(&alice, 700, "x"), now).await.unwrap();
    assert_eq!((again.reading.granted, again.is_repeated), (500, true));
    assert_eq!(ledger.grant(grant(&alice, 1, "y"), now).await.unwrap().reading.granted, 501);
    assert_eq!(ledger.grant(grant(&bob, 500, "x"), now).await.unwrap().reading.granted, 500);
    let late = now + MINUTE + GRANT_REMEMBERED;
    let before = Moment { unix: late.unix - MINUTE, instant: late.instant - MINUTE };
    let again = ledger.grant(grant(&alice, 500, "x"), before).await.unwrap();
    assert_eq!((again.reading.granted, again.reading.reset, again.is_repeated), (0, None, true));
    assert!(!ledger.grant(grant(&alice, 500, "x"), late).await.unwrap().is_repeated);
}

async fn a_grant_counts_for_raises_and_hits(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    ledger.grant(grant(&alice, 5, "x"), now).await.unwrap();
    let hit = |charge| Hit {
        key: Arc::clone(&alice),
        max: 10,
        need: charge,
        charge,
        when: When::Admitted,
        enforced: true,
        warn_at: None,
    };
    assert!(ledger.hit(vec![hit(15)], now).await.unwrap().admitted);
    assert!(!ledger.hit(vec![hit(1)], now).await.unwrap().admitted);
}

async fn a_reset_ends_a_grant(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key_of("alice", Unit::Tokens, Window::Period(Period::Month, ZoneName::UTC));
    ledger.grant(grant(&alice, 500, "x"), now).await.unwrap();
    assert_eq!(ledger.reset(vec![Arc::clone(&alice)], now).await.unwrap().len(), 1);
    ledger.commit("1", vec![charge(&alice, 7)], now).await.unwrap();
    assert_eq!(book(&ledger, now).await, (7, 0, 0));
    assert_eq!(ledger.grant(grant(&alice, 9, "y"), now).await.unwrap().reading.granted, 9);
}

async fn a_grant_needs_a_counter_of_its_own(storage: Storage) {
    let (ledger, now) = storage.ledger(1).await;
    ledger.commit("1", vec![charge(&key("alice", Unit::Tokens), 7)], now).await.unwrap();
    ledger.grant(grant(&key("bob", Unit::Tokens), 500, "x"), now).await.unwrap_err();
    assert_eq!(
        ledger.grant(grant(&key("alice", Unit::Tokens), 5, "x"), now).await.unwrap().reading.granted,
        5
    );
}

async fn resets_and_grants_of_many_at_once_lose_nothing(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (ledger, alice) = (Arc::clone(&ledger), Arc::clone(&alice));
        tasks.spawn(async move {
            // Each id arrives twice.
            ledger.grant(grant(&alice, 10, &(number / 2).to_string()), now).await.unwrap();
            u64::from(admits(&ledger, &number.to_string(), hold(&alice, 10, 0), now).await)
        });
    }
    let mut admitted = 0;
    while let Some(done) = tasks.join_next().await {
        admitted += done.unwrap();
    }
    let (_, held, granted) = book(&ledger, now).await;
    assert_eq!((held, granted), (admitted * 10, 320));
    assert!(held <= granted);
}
