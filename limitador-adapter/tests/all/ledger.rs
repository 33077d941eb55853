//! What a ledger promises, case by case.

use limitador_adapter::ledger::{Charge, Hit, Hold, Key, Settled, Status, Take, Turn, Unavailable, When};
use limitador_adapter::memory::MemoryLedger;
use policy::model::{Unit, Window};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub const MINUTE: Duration = Duration::from_secs(60);

pub fn key(who: &str, unit: Unit) -> Arc<Key> {
    let counters = Arc::from([("auth.identity.userid".to_owned(), who.to_owned())]);
    Arc::new(Key { limit: "default/llm/free".into(), unit, window: Window::Fixed(MINUTE), counters })
}

fn tokens(who: &str, amount: u64, max: u64) -> Hold {
    Hold { key: key(who, Unit::Tokens), amount, max, ttl: MINUTE * 15, take: Take::Hold }
}

fn request(who: &str, max: u64) -> Hold {
    Hold { key: key(who, Unit::Requests), amount: 1, max, ttl: MINUTE * 15, take: Take::Charge }
}

fn charge(hold: &Hold, amount: u64) -> Charge {
    Charge { key: Arc::clone(&hold.key), amount }
}

fn ledger() -> (MemoryLedger, Instant) {
    let now = Instant::now();
    (MemoryLedger::new(100, now), now)
}

/// (used, held) of each bucket that has any, in the order of the keys.
fn books(ledger: &MemoryLedger, now: Instant) -> Vec<(u64, u64)> {
    let mut readings = ledger.readings(now).unwrap();
    readings.sort_by(|a, b| a.key.cmp(&b.key));
    readings.iter().map(|reading| (reading.used, reading.held)).collect()
}

#[test]
fn a_hold_counts_like_usage_until_the_commit_replaces_it_by_the_charge() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 600, 1000);
    let first = ledger.reserve("1", vec![hold.clone()], now).unwrap();
    assert!(first.admitted);
    assert_eq!(first.statuses, [Status { limited: false, max: 1000, remaining: 400, reset: MINUTE }]);
    let second = ledger.reserve("2", vec![hold.clone()], now).unwrap();
    assert!(!second.admitted);
    assert_eq!(second.statuses, [Status { limited: true, max: 1000, remaining: 400, reset: MINUTE }]);
    assert_eq!(books(&ledger, now), [(0, 600)]);
    assert_eq!(ledger.commit("1", &[charge(&hold, 100)], now).unwrap(), Settled::Released);
    assert_eq!(books(&ledger, now), [(100, 0)]);
    assert!(ledger.reserve("2", vec![hold], now).unwrap().admitted);
}

#[test]
fn exactly_the_limit_fits_and_a_hold_is_at_least_one() {
    for (used, amount, max, fits) in [
        (0, 1000, 1000, true),
        (0, 1001, 1000, false),
        (999, 1, 1000, true),
        (999, 2, 1000, false),
        (1000, 0, 1000, false),
        (1500, 0, 1000, false),
        (0, 0, 0, false),
        (0, u64::MAX, 1000, false),
        (1, u64::MAX, u64::MAX, false),
        (0, u64::MAX, u64::MAX, true),
        (u64::MAX, 1, u64::MAX, false),
    ] {
        let (ledger, now) = ledger();
        let hold = tokens("alice", amount, max);
        ledger.commit("before", &[charge(&hold, used)], now).unwrap();
        let outcome = ledger.reserve("1", vec![hold], now).unwrap();
        assert_eq!(outcome.admitted, fits, "{used} used, {amount} wanted, {max} at most");
    }
}

#[test]
fn all_or_nothing_and_every_status_is_told() {
    let (ledger, now) = ledger();
    let wants =
        vec![tokens("alice", 10, 100), tokens("bob", 200, 100), request("carol", 5), tokens("dave", 7, 6)];
    let outcome = ledger.reserve("1", wants, now).unwrap();
    assert!(!outcome.admitted);
    let told: Vec<_> = outcome.statuses.iter().map(|status| (status.limited, status.remaining)).collect();
    assert_eq!(told, [(false, 100), (true, 100), (false, 5), (true, 6)]);
    assert_eq!(books(&ledger, now), []);
    assert_eq!(ledger.size().counters, 0);
}

#[test]
fn two_holds_on_one_bucket_see_each_other() {
    let (ledger, now) = ledger();
    let outcome = ledger.reserve("1", vec![tokens("alice", 60, 100), tokens("alice", 60, 100)], now).unwrap();
    assert_eq!(outcome.statuses.iter().map(|status| status.limited).collect::<Vec<_>>(), [false, true]);
    assert!(
        ledger.reserve("1", vec![tokens("alice", 50, 100), tokens("alice", 50, 100)], now).unwrap().admitted
    );
    assert_eq!(books(&ledger, now), [(0, 100)]);
}

#[test]
fn a_repeated_reserve_holds_nothing_twice() {
    let (ledger, now) = ledger();
    let holds = vec![tokens("alice", 60, 100), request("alice", 1)];
    assert_eq!(ledger.reserve("1", holds.clone(), now).unwrap().turn, Turn::First);
    let repeated = ledger.reserve("1", holds, now).unwrap();
    assert_eq!((repeated.admitted, repeated.turn), (true, Turn::Repeated));
    assert_eq!(repeated.statuses.iter().map(|status| status.remaining).collect::<Vec<_>>(), [40, 0]);
    assert_eq!(books(&ledger, now), [(1, 0), (0, 60)]);
}

#[test]
fn a_commit_is_charged_once_however_often_it_comes() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 60, 100);
    ledger.reserve("1", vec![hold.clone()], now).unwrap();
    let told: Vec<_> =
        (0..3).map(|_| ledger.commit("1", &[charge(&hold, 50)], now + MINUTE / 4).unwrap()).collect();
    assert_eq!(told, [Settled::Released, Settled::AlreadySettled, Settled::AlreadySettled]);
    assert_eq!(books(&ledger, now + MINUTE / 2), [(50, 0)]);
}

#[test]
fn a_commit_before_its_reserve_charges_and_the_late_reserve_holds_nothing() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 60, 100);
    assert_eq!(ledger.commit("1", &[charge(&hold, 100)], now).unwrap(), Settled::Charged);
    let late = ledger.reserve("1", vec![hold], now).unwrap();
    assert_eq!((late.admitted, late.turn), (true, Turn::Late));
    assert_eq!(books(&ledger, now), [(100, 0)]);
}

#[test]
fn a_debt_stands_until_the_window_ends() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 1, 100);
    ledger.commit("1", &[charge(&hold, 250)], now).unwrap();
    let in_debt = ledger.reserve("2", vec![hold.clone()], now + MINUTE - Duration::from_millis(1)).unwrap();
    let reset = Duration::from_millis(1);
    assert_eq!(in_debt.statuses, [Status { limited: true, max: 100, remaining: 0, reset }]);
    let after = ledger.reserve("2", vec![hold], now + MINUTE).unwrap();
    assert_eq!(after.statuses, [Status { limited: false, max: 100, remaining: 99, reset: MINUTE }]);
}

#[test]
fn a_window_starts_at_its_first_charge_and_not_with_a_hold() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 10, 100);
    ledger.reserve("1", vec![hold.clone()], now).unwrap();
    let later = now + MINUTE * 5;
    ledger.commit("1", &[charge(&hold, 10)], later).unwrap();
    assert_eq!(books(&ledger, later + MINUTE - Duration::from_nanos(1)), [(10, 0)]);
    assert_eq!(books(&ledger, later + MINUTE), []);
}

#[test]
fn a_hold_outlives_a_window_but_not_its_ttl() {
    let (ledger, now) = ledger();
    let mut hold = tokens("alice", 60, 100);
    hold.ttl = MINUTE * 2;
    ledger.reserve("1", vec![hold.clone()], now).unwrap();
    let before = now + MINUTE * 2 - Duration::from_nanos(1);
    assert!(!ledger.reserve("2", vec![hold.clone()], before).unwrap().admitted);
    assert!(ledger.reserve("3", vec![hold.clone()], now + MINUTE * 2).unwrap().admitted);
    assert_eq!(ledger.commit("1", &[charge(&hold, 30)], now + MINUTE * 2).unwrap(), Settled::Charged);
    assert_eq!(books(&ledger, now + MINUTE * 2), [(30, 60)]);
}

#[test]
fn a_lapsed_reservation_cannot_be_taken_again() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 60, 100);
    ledger.reserve("1", vec![hold.clone()], now).unwrap();
    let later = now + hold.ttl;
    assert_eq!(ledger.reserve("1", vec![hold.clone()], later).unwrap().turn, Turn::Late);
    assert_eq!(books(&ledger, later), []);
    assert_eq!(ledger.commit("1", &[charge(&hold, 5)], later).unwrap(), Settled::Charged);
    assert_eq!(ledger.commit("1", &[charge(&hold, 5)], later).unwrap(), Settled::AlreadySettled);
    assert_eq!(books(&ledger, later), [(5, 0)]);
}

#[test]
fn a_request_is_charged_at_admission_and_the_commit_confirms_or_takes_it_back() {
    for (committed, wanted) in [(Some(1), 1), (Some(0), 0), (Some(3), 3), (None, 1)] {
        let (ledger, now) = ledger();
        let hold = request("alice", 5);
        ledger.reserve("1", vec![hold.clone()], now).unwrap();
        assert_eq!(books(&ledger, now), [(1, 0)]);
        let charges: Vec<_> = committed.map(|amount| charge(&hold, amount)).into_iter().collect();
        ledger.commit("1", &charges, now).unwrap();
        let left = ledger.readings(now).unwrap().first().map_or(0, |reading| reading.used);
        assert_eq!(left, wanted, "the commit names {committed:?}");
    }
}

#[test]
fn a_request_is_not_taken_back_from_a_window_that_never_had_it() {
    let (ledger, now) = ledger();
    let hold = request("alice", 5);
    ledger.reserve("1", vec![hold.clone()], now).unwrap();
    ledger.reserve("2", vec![hold.clone()], now + MINUTE).unwrap();
    ledger.commit("1", &[charge(&hold, 0)], now + MINUTE).unwrap();
    assert_eq!(books(&ledger, now + MINUTE), [(1, 0)]);
}

#[test]
fn a_changed_maximum_keeps_the_counter() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 60, 100);
    ledger.commit("1", &[charge(&hold, 60)], now).unwrap();
    assert!(!ledger.reserve("2", vec![hold.clone()], now).unwrap().admitted);
    assert!(ledger.reserve("2", vec![Hold { max: 120, ..hold.clone() }], now).unwrap().admitted);
    assert!(!ledger.reserve("3", vec![Hold { max: 50, amount: 1, ..hold }], now).unwrap().admitted);
}

#[test]
fn hits_to_come_are_all_or_nothing_and_measured_ones_always_count() {
    let hit = |who, need, charge, when| Hit { key: key(who, Unit::Tokens), max: 10, need, charge, when };
    let (ledger, now) = ledger();
    assert!(ledger.hit(&[hit("alice", 10, 10, When::Admitted)], now).unwrap().admitted);
    let calls = [hit("alice", 1, 1, When::Admitted), hit("bob", 1, 1, When::Admitted)];
    assert!(!ledger.hit(&calls, now).unwrap().admitted);
    assert_eq!(books(&ledger, now), [(10, 0)]);
    assert!(!ledger.hit(&[hit("alice", 1, 7, When::Always)], now).unwrap().admitted);
    assert_eq!(books(&ledger, now), [(17, 0)]);
    assert!(ledger.hit(&[hit("carol", 0, 0, When::Admitted)], now).unwrap().admitted);
    assert_eq!(ledger.size().counters, 1);
}

#[test]
fn sums_saturate() {
    let (ledger, now) = ledger();
    let hold = tokens("alice", 1, u64::MAX);
    for id in ["1", "2", "3"] {
        ledger.commit(id, &[charge(&hold, u64::MAX - 1)], now).unwrap();
    }
    assert_eq!(books(&ledger, now), [(u64::MAX, 0)]);
    let absurd = Hold { ttl: Duration::MAX, ..tokens("bob", 1, 1) };
    assert!(ledger.reserve("4", vec![absurd], now).unwrap().admitted);
}

#[test]
fn with_no_place_for_a_counter_a_reserve_fails_and_a_charge_is_counted_as_lost() {
    let now = Instant::now();
    let ledger = MemoryLedger::new(2, now);
    let (alice, bob, carol) = (tokens("alice", 1, 5), tokens("bob", 1, 5), tokens("carol", 1, 5));
    ledger.reserve("1", vec![alice.clone()], now).unwrap();
    assert_eq!(ledger.reserve("2", vec![bob.clone(), carol.clone()], now), Err(Unavailable::Full(2)));
    assert_eq!(books(&ledger, now), [(0, 1)]);
    ledger.reserve("3", vec![bob], now).unwrap();
    assert_eq!(ledger.commit("4", &[charge(&carol, 3), charge(&alice, 2)], now).unwrap(), Settled::Charged);
    assert_eq!(books(&ledger, now), [(2, 1), (0, 1)]);
    assert_eq!(ledger.size().dropped, 1);
}

#[test]
fn what_is_over_leaves_memory() {
    let now = Instant::now();
    let ledger = MemoryLedger::new(10_000, now);
    for user in 0..5_000 {
        let (id, who) = (user.to_string(), format!("user-{user}"));
        let hold = tokens(&who, 5, 10);
        ledger.reserve(&id, vec![hold.clone(), request(&who, 3)], now).unwrap();
        if user % 2 == 0 {
            ledger.commit(&id, &[charge(&hold, 3)], now).unwrap();
        }
    }
    let size = ledger.size();
    assert_eq!((size.counters, size.holds, size.reservations), (10_000, 2_500, 2_500));
    ledger.sweep(now + MINUTE).unwrap();
    let size = ledger.size();
    assert_eq!((size.counters, size.holds), (2_500, 2_500));
    ledger.sweep(now + MINUTE * 15).unwrap();
    let size = ledger.size();
    assert_eq!((size.counters, size.holds, size.reservations, size.settled), (0, 0, 0, 5_000));
}

#[test]
fn sixty_four_threads_that_hold_100_of_1000_at_once_are_ten() {
    for _ in 0..20 {
        let (ledger, now) = ledger();
        let (admitted, start) = (AtomicUsize::new(0), Barrier::new(64));
        std::thread::scope(|scope| {
            for id in 0..64 {
                let (ledger, admitted, start) = (&ledger, &admitted, &start);
                scope.spawn(move || {
                    start.wait();
                    let outcome = ledger.reserve(&id.to_string(), vec![tokens("alice", 100, 1000)], now);
                    admitted.fetch_add(usize::from(outcome.unwrap().admitted), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(admitted.into_inner(), 10);
        assert_eq!(books(&ledger, now), [(0, 1000)]);
    }
}
