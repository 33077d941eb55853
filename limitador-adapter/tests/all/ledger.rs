//! The contract of a ledger, case by case, on every storage.

use crate::storages::{Storage, on_every_storage};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::{
    Charge, ChargeAt, CounterReading, Hit, Hold, Idempotency, Key, LeaseUse, Ledger, REMEMBERED_BRIEFLY,
    Raised, RaisedHold, Settled, Status, When,
};
use policy::model::{Period, Unit, Window, ZoneName};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

pub const MINUTE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

pub fn key(who: &str, unit: Unit) -> Arc<Key> {
    let window = if unit == Unit::Concurrency { Window::Now } else { Window::Fixed(MINUTE) };
    key_of(who, unit, window)
}

pub fn key_of(who: &str, unit: Unit, window: Window) -> Arc<Key> {
    let counters = Arc::from([("auth.identity.userid".to_owned(), who.to_owned())]);
    Arc::new(Key { limit: "default/llm/free".into(), unit, window, counters })
}

fn hold(key: Arc<Key>, amount: u64, max: u64) -> Hold {
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

fn tokens(who: &str, amount: u64, max: u64) -> Hold {
    hold(key(who, Unit::Tokens), amount, max)
}

fn request(who: &str, max: u64) -> Hold {
    Hold { charge_at: ChargeAt::Admission, ..hold(key(who, Unit::Requests), 1, max) }
}

fn charge(hold: &Hold, amount: u64) -> Charge {
    Charge { key: Arc::clone(&hold.key), amount, warn_at: None, draw: None }
}

/// Returns the status of a bucket with a window of one minute, for a call that is not refused.
fn good(max: u64, remaining: u64, used: u64) -> Status {
    Status {
        limited: false,
        excused: false,
        max,
        remaining,
        reset: MINUTE,
        used,
        overflowed: false,
        leased: 0,
    }
}

/// Returns (used, held) of each bucket that has any, in the order of the keys.
async fn books(ledger: &Arc<dyn Ledger>, now: Moment) -> Vec<(u64, u64)> {
    let mut readings = ledger.readings(now).await.unwrap();
    readings.sort_by(|a, b| a.key.cmp(&b.key));
    readings.iter().map(|reading| (reading.used, reading.held)).collect()
}

on_every_storage![
    reading_buckets_changes_none_of_them,
    a_hold_counts_like_usage_until_the_commit_replaces_it_by_the_charge,
    exactly_the_limit_fits_and_a_hold_is_at_least_one,
    all_or_nothing_and_every_status_is_told,
    two_holds_on_one_bucket_see_each_other,
    a_repeated_reserve_holds_nothing_twice,
    a_commit_is_charged_once_however_often_it_comes,
    a_commit_before_its_reserve_charges_and_the_late_reserve_holds_nothing,
    a_debt_stands_until_the_window_ends,
    a_window_starts_at_its_first_charge_and_not_with_a_hold,
    a_hold_outlives_a_window_but_not_its_ttl,
    a_lapsed_reservation_cannot_be_taken_again,
    a_request_is_charged_at_admission_and_the_commit_confirms_or_takes_it_back,
    a_request_is_not_taken_back_from_a_window_that_never_had_it,
    a_changed_maximum_keeps_the_counter,
    hits_to_come_are_all_or_nothing_and_measured_ones_always_count,
    sums_saturate,
    the_holds_of_a_worker_that_is_gone_end,
    what_cost_nothing_is_remembered_for_seconds_alone,
    what_is_over_leaves_memory,
    sixty_four_that_hold_100_of_1000_at_once_are_ten,
    a_gauge_is_held_and_never_charged_and_no_window_empties_it,
    a_refused_request_takes_no_slot,
    what_is_not_enforced_is_held_and_charged_and_refuses_nothing,
    a_raise_holds_more_until_the_commit_and_tells_whether_there_is_room,
    a_raise_after_the_commit_or_of_nothing_holds_nothing,
    periods_end_with_the_calendar_s,
    a_month_ends_at_midnight_of_its_time_zone,
    a_lifetime_does_not_end,
    no_interval_of_a_sliding_window_s_length_has_more_than_its_maximum,
    a_sliding_window_says_when_enough_of_it_is_over,
    a_sliding_window_takes_back_what_a_failed_request_was_charged,
    a_sliding_window_is_empty_when_its_last_charge_that_was_not_refunded_is_over,
    a_commit_credits_no_other_window,
    ;
    unsharded:
    a_limit_beyond_its_share_counts_its_further_users_together_and_takes_no_one_else_s,
    what_was_held_in_an_overflow_bucket_is_charged_there,
    a_request_charged_to_an_overflow_bucket_is_taken_back_from_there,
    every_charge_counts_however_many_users_there_are,
    a_raise_in_an_overflow_bucket_counts_there,
];

async fn a_hold_counts_like_usage_until_the_commit_replaces_it_by_the_charge(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 600, 1000);
    let first = ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    assert!(first.admitted);
    assert_eq!(first.statuses, [good(1000, 400, 0)]);
    let second = ledger.reserve("2", vec![hold.clone()], now).await.unwrap();
    assert!(!second.admitted);
    assert_eq!(second.statuses, [Status { limited: true, ..good(1000, 400, 0) }]);
    assert_eq!(books(&ledger, now).await, [(0, 600)]);
    assert_eq!(ledger.commit("1", vec![charge(&hold, 100)], now).await.unwrap(), Settled::Released);
    assert_eq!(books(&ledger, now).await, [(100, 0)]);
    assert!(ledger.reserve("2", vec![hold], now).await.unwrap().admitted);
}

async fn exactly_the_limit_fits_and_a_hold_is_at_least_one(storage: Storage) {
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
        let (ledger, now) = storage.ledger(100).await;
        let hold = tokens("alice", amount, max);
        ledger.commit("before", vec![charge(&hold, used)], now).await.unwrap();
        let outcome = ledger.reserve("1", vec![hold], now).await.unwrap();
        assert_eq!(outcome.admitted, fits, "{used} used, {amount} wanted, {max} at most");
    }
}

async fn all_or_nothing_and_every_status_is_told(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let wants =
        vec![tokens("alice", 10, 100), tokens("bob", 200, 100), request("carol", 5), tokens("dave", 7, 6)];
    let outcome = ledger.reserve("1", wants, now).await.unwrap();
    assert!(!outcome.admitted);
    let told: Vec<_> = outcome.statuses.iter().map(|status| (status.limited, status.remaining)).collect();
    assert_eq!(told, [(false, 100), (true, 100), (false, 5), (true, 6)]);
    assert_eq!(books(&ledger, now).await, []);
    assert_eq!(ledger.size().await.unwrap().counters, 0);
}

async fn two_holds_on_one_bucket_see_each_other(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let outcome =
        ledger.reserve("1", vec![tokens("alice", 60, 100), tokens("alice", 60, 100)], now).await.unwrap();
    assert_eq!(outcome.statuses.iter().map(|status| status.limited).collect::<Vec<_>>(), [false, true]);
    assert!(
        ledger
            .reserve("1", vec![tokens("alice", 50, 100), tokens("alice", 50, 100)], now)
            .await
            .unwrap()
            .admitted
    );
    assert_eq!(books(&ledger, now).await, [(0, 100)]);
}

async fn a_repeated_reserve_holds_nothing_twice(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let holds = vec![tokens("alice", 60, 100), request("alice", 1)];
    assert_eq!(ledger.reserve("1", holds.clone(), now).await.unwrap().idempotency, Idempotency::First);
    let repeated = ledger.reserve("1", holds, now).await.unwrap();
    assert_eq!((repeated.admitted, repeated.idempotency), (true, Idempotency::Repeated));
    assert_eq!(repeated.statuses.iter().map(|status| status.remaining).collect::<Vec<_>>(), [40, 0]);
    assert_eq!(books(&ledger, now).await, [(1, 0), (0, 60)]);
}

async fn a_commit_is_charged_once_however_often_it_comes(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60, 100);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    for told in [Settled::Released, Settled::AlreadySettled, Settled::AlreadySettled] {
        let settled = ledger.commit("1", vec![charge(&hold, 50)], now + MINUTE / 4).await.unwrap();
        assert_eq!(settled, told);
    }
    assert_eq!(books(&ledger, now + MINUTE / 2).await, [(50, 0)]);
}

async fn a_commit_before_its_reserve_charges_and_the_late_reserve_holds_nothing(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60, 100);
    assert_eq!(ledger.commit("1", vec![charge(&hold, 100)], now).await.unwrap(), Settled::Charged);
    let late = ledger.reserve("1", vec![hold], now).await.unwrap();
    assert_eq!((late.admitted, late.idempotency), (true, Idempotency::Late));
    assert_eq!(books(&ledger, now).await, [(100, 0)]);
}

async fn a_debt_stands_until_the_window_ends(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 1, 100);
    ledger.commit("1", vec![charge(&hold, 250)], now).await.unwrap();
    let in_debt = ledger.reserve("2", vec![hold.clone()], now + (MINUTE - MILLISECOND)).await.unwrap();
    let reset = MILLISECOND;
    assert_eq!(in_debt.statuses, [Status { limited: true, reset, ..good(100, 0, 250) }]);
    let after = ledger.reserve("2", vec![hold], now + MINUTE).await.unwrap();
    assert_eq!(after.statuses, [good(100, 99, 0)]);
}

async fn a_window_starts_at_its_first_charge_and_not_with_a_hold(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 10, 100);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let later = now + MINUTE * 5;
    ledger.commit("1", vec![charge(&hold, 10)], later).await.unwrap();
    assert_eq!(books(&ledger, later + (MINUTE - MILLISECOND)).await, [(10, 0)]);
    assert_eq!(books(&ledger, later + MINUTE).await, []);
}

async fn a_hold_outlives_a_window_but_not_its_ttl(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let mut hold = tokens("alice", 60, 100);
    hold.ttl = MINUTE * 2;
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let before = now + (MINUTE * 2 - MILLISECOND);
    assert!(!ledger.reserve("2", vec![hold.clone()], before).await.unwrap().admitted);
    assert!(ledger.reserve("3", vec![hold.clone()], now + MINUTE * 2).await.unwrap().admitted);
    assert_eq!(
        ledger.commit("1", vec![charge(&hold, 30)], now + MINUTE * 2).await.unwrap(),
        Settled::Charged
    );
    assert_eq!(books(&ledger, now + MINUTE * 2).await, [(30, 60)]);
}

async fn a_lapsed_reservation_cannot_be_taken_again(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60, 100);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    let later = now + hold.ttl;
    assert_eq!(ledger.reserve("1", vec![hold.clone()], later).await.unwrap().idempotency, Idempotency::Late);
    assert_eq!(books(&ledger, later).await, []);
    assert_eq!(ledger.commit("1", vec![charge(&hold, 5)], later).await.unwrap(), Settled::Charged);
    assert_eq!(ledger.commit("1", vec![charge(&hold, 5)], later).await.unwrap(), Settled::AlreadySettled);
    assert_eq!(books(&ledger, later).await, [(5, 0)]);
}

async fn a_request_is_charged_at_admission_and_the_commit_confirms_or_takes_it_back(storage: Storage) {
    for (committed, wanted) in [(Some(1), 1), (Some(0), 0), (Some(3), 3), (None, 1)] {
        let (ledger, now) = storage.ledger(100).await;
        let hold = request("alice", 5);
        ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
        assert_eq!(books(&ledger, now).await, [(1, 0)]);
        let charges: Vec<_> = committed.map(|amount| charge(&hold, amount)).into_iter().collect();
        ledger.commit("1", charges, now).await.unwrap();
        let left = ledger.readings(now).await.unwrap().first().map_or(0, |reading| reading.used);
        assert_eq!(left, wanted, "the commit names {committed:?}");
    }
}

async fn a_request_is_not_taken_back_from_a_window_that_never_had_it(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = request("alice", 5);
    ledger.reserve("1", vec![hold.clone()], now).await.unwrap();
    ledger.reserve("2", vec![hold.clone()], now + MINUTE).await.unwrap();
    ledger.commit("1", vec![charge(&hold, 0)], now + MINUTE).await.unwrap();
    assert_eq!(books(&ledger, now + MINUTE).await, [(1, 0)]);
}

async fn a_changed_maximum_keeps_the_counter(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 60, 100);
    ledger.commit("1", vec![charge(&hold, 60)], now).await.unwrap();
    assert!(!ledger.reserve("2", vec![hold.clone()], now).await.unwrap().admitted);
    assert!(ledger.reserve("2", vec![Hold { max: 120, ..hold.clone() }], now).await.unwrap().admitted);
    assert!(!ledger.reserve("3", vec![Hold { max: 50, amount: 1, ..hold }], now).await.unwrap().admitted);
}

async fn hits_to_come_are_all_or_nothing_and_measured_ones_always_count(storage: Storage) {
    let hit = |who, need, charge, when| Hit {
        key: key(who, Unit::Tokens),
        max: 10,
        need,
        charge,
        when,
        enforced: true,
        warn_at: None,
    };
    let (ledger, now) = storage.ledger(100).await;
    assert!(ledger.hit(vec![hit("alice", 10, 10, When::Admitted)], now).await.unwrap().admitted);
    let calls = vec![hit("alice", 1, 1, When::Admitted), hit("bob", 1, 1, When::Admitted)];
    assert!(!ledger.hit(calls, now).await.unwrap().admitted);
    assert_eq!(books(&ledger, now).await, [(10, 0)]);
    assert!(!ledger.hit(vec![hit("alice", 1, 7, When::Always)], now).await.unwrap().admitted);
    assert_eq!(books(&ledger, now).await, [(17, 0)]);
    assert!(ledger.hit(vec![hit("carol", 0, 0, When::Admitted)], now).await.unwrap().admitted);
    assert_eq!(ledger.size().await.unwrap().counters, 1);
}

async fn sums_saturate(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 1, u64::MAX);
    for id in ["1", "2", "3"] {
        ledger.commit(id, vec![charge(&hold, u64::MAX - 1)], now).await.unwrap();
    }
    assert_eq!(books(&ledger, now).await, [(storage.most(), 0)]);
    let absurd = Hold { ttl: Duration::MAX, ..tokens("bob", 1, 1) };
    assert!(ledger.reserve("4", vec![absurd], now).await.unwrap().admitted);
}

/// A bucket of another limit.
fn other(who: &str, amount: u64, max: u64) -> Hold {
    let key = Key { limit: "default/llm/gold".into(), ..(*key(who, Unit::Tokens)).clone() };
    hold(Arc::new(key), amount, max)
}

/// Returns the contents of a limit's overflow buckets.
async fn overflow(ledger: &Arc<dyn Ledger>, limit: &str, now: Moment) -> Vec<(u64, u64)> {
    let readings = ledger.readings(now).await.unwrap();
    let overflow =
        readings.iter().filter(|reading| reading.key.is_overflow() && *reading.key.limit == *limit);
    overflow.map(|reading| (reading.used, reading.held)).collect()
}

async fn a_limit_beyond_its_share_counts_its_further_users_together_and_takes_no_one_else_s(
    storage: Storage,
) {
    let (ledger, now) = storage.ledger(20).await;
    ledger.share_among(2);
    // A client may pretend to be many users. There is room for 15: the guaranteed quarter and the shared
    // half.
    for user in 0..40 {
        let hold = tokens(&format!("new-{user}"), 10, 100);
        let outcome = ledger.reserve(&format!("r{user}"), vec![hold.clone()], now).await.unwrap();
        let overflowed = outcome.statuses[0].overflowed;
        assert_eq!((outcome.admitted, overflowed), (user < 25, user >= 15), "{user}");
        if outcome.admitted {
            ledger.commit(&format!("r{user}"), vec![charge(&hold, 10)], now).await.unwrap();
        }
    }
    assert_eq!(overflow(&ledger, "default/llm/free", now).await, [(100, 0)]);
    // Earlier users are still counted exactly.
    let known = ledger.reserve("known", vec![tokens("new-0", 90, 100)], now).await.unwrap();
    assert!(known.admitted && !known.statuses[0].overflowed);
    assert!(!ledger.reserve("more", vec![tokens("new-0", 1, 100)], now).await.unwrap().admitted);
    // The other limit has its share.
    for user in 0..5 {
        let outcome =
            ledger.reserve(&format!("o{user}"), vec![other(&user.to_string(), 100, 100)], now).await;
        let outcome = outcome.unwrap();
        assert!(outcome.admitted && !outcome.statuses[0].overflowed, "{user}");
    }
    assert_eq!(overflow(&ledger, "default/llm/gold", now).await, []);
    // An expired bucket frees its room.
    ledger.sweep(now + MINUTE).await.unwrap();
    let again = ledger.reserve("again", vec![tokens("new-39", 100, 100)], now + MINUTE).await.unwrap();
    assert!(again.admitted && !again.statuses[0].overflowed);
}

async fn what_was_held_in_an_overflow_bucket_is_charged_there(storage: Storage) {
    let (ledger, now) = storage.ledger(2).await;
    let (alice, bob) = (tokens("alice", 10, 100), tokens("bob", 10, 100));
    ledger.commit("a", vec![charge(&alice, 1), charge(&bob, 1)], now).await.unwrap();
    let (carol, asked) = (tokens("carol", 60, 100), request("carol", 5));
    let outcome = ledger.reserve("1", vec![carol.clone(), asked.clone()], now).await.unwrap();
    assert!(outcome.admitted && outcome.statuses.iter().all(|status| status.overflowed));
    let dave = ledger.reserve("2", vec![tokens("dave", 60, 100)], now).await.unwrap();
    assert_eq!(dave.statuses, [Status { limited: true, overflowed: true, ..good(100, 40, 0) }]);
    // Now there is room for carol's own bucket, but her holds are in the overflow bucket.
    let at = now + MINUTE;
    ledger.sweep(at).await.unwrap();
    assert_eq!(
        ledger.commit("1", vec![charge(&carol, 30), charge(&asked, 0)], at).await.unwrap(),
        Settled::Released
    );
    assert_eq!(overflow(&ledger, "default/llm/free", at).await, [(30, 0)]);
    assert_eq!(books(&ledger, at).await, [(30, 0)]);
    // After its holds have expired, a reservation is charged once, in whichever bucket has room.
    for told in [Settled::Charged, Settled::AlreadySettled] {
        assert_eq!(ledger.commit("3", vec![charge(&carol, 5)], at).await.unwrap(), told);
    }
    assert_eq!(books(&ledger, at).await, [(30, 0), (5, 0)]);
}

async fn a_request_charged_to_an_overflow_bucket_is_taken_back_from_there(storage: Storage) {
    let (ledger, now) = storage.ledger(1).await;
    ledger.commit("a", vec![charge(&tokens("alice", 1, 10), 1)], now).await.unwrap();
    let (bob, carol) = (request("bob", 2), request("carol", 2));
    ledger.reserve("1", vec![bob.clone()], now).await.unwrap();
    ledger.reserve("2", vec![carol.clone()], now).await.unwrap();
    assert!(!ledger.reserve("3", vec![carol.clone()], now).await.unwrap().admitted);
    ledger.commit("1", vec![charge(&bob, 0)], now).await.unwrap();
    ledger.commit("2", vec![charge(&carol, 1)], now).await.unwrap();
    assert_eq!(overflow(&ledger, "default/llm/free", now).await, [(1, 0)]);
}

async fn every_charge_counts_however_many_users_there_are(storage: Storage) {
    let (ledger, now) = storage.ledger(10).await;
    for user in 0..100_u64 {
        let hit = Hit {
            key: key(&user.to_string(), Unit::Tokens),
            max: 1,
            need: 1,
            charge: 3,
            when: When::Always,
            enforced: true,
            warn_at: None,
        };
        ledger.hit(vec![hit], now).await.unwrap();
        let hold = tokens(&format!("other-{user}"), 1, 10);
        ledger.commit(&format!("{user}"), vec![charge(&hold, 2)], now).await.unwrap();
    }
    let books = books(&ledger, now).await;
    assert_eq!(books.iter().map(|(used, _)| used).sum::<u64>(), 500);
    assert_eq!(books.len(), 11);
}

/// The id of a reservation by this worker.
fn of(worker: u8, number: u32) -> String {
    format!("{worker:032x}-{number:x}")
}

async fn the_holds_of_a_worker_that_is_gone_end(storage: Storage) {
    let (ledger, now) = storage.ledger(10_000).await;
    let slot = |who: &str| hold(key(who, Unit::Concurrency), 1, 5_000);
    let ids: Vec<_> = (0..1500).flat_map(|number| [of(1, number), of(2, number)]).collect();
    for id in ids.iter().map(String::as_str).chain(["a-1", ""]) {
        let holds = vec![tokens("alice", 10, 100_000), slot("alice"), request("alice", 10_000)];
        assert!(ledger.reserve(id, holds, now).await.unwrap().admitted);
    }
    let workers = [1_u8, 2].map(|worker| format!("{worker:032x}"));
    ledger.attend(&workers, MINUTE / 2, now).await.unwrap();
    assert_eq!(ledger.release_gone(now + (MINUTE / 2 - MILLISECOND)).await.unwrap(), 0);
    // Only the second worker reports again.
    ledger.attend(&workers[1..], MINUTE, now + MINUTE / 4).await.unwrap();
    assert_eq!(ledger.release_gone(now + MINUTE / 2).await.unwrap(), 1500);
    assert_eq!(ledger.release_gone(now + MINUTE / 2).await.unwrap(), 0);
    let at = now + MINUTE / 2;
    assert_eq!(books(&ledger, at).await, [(3002, 0), (0, 15_020), (0, 1502)]);
    let size = ledger.size().await.unwrap();
    assert_eq!((size.reservations, size.holds), (1502, 3004));
    // The worker was alive after all. Its usage is charged once.
    let used = vec![charge(&tokens("alice", 10, 0), 7), charge(&request("alice", 0), 1)];
    for told in [Settled::Charged, Settled::AlreadySettled] {
        assert_eq!(ledger.commit(&of(1, 7), used.clone(), at).await.unwrap(), told);
    }
    assert_eq!(books(&ledger, at).await[..2], [(3002, 0), (7, 15_020)]);
    // A reserve that is repeated after its worker has gone holds nothing.
    let late = ledger.reserve(&of(1, 8), vec![slot("alice")], at).await.unwrap();
    assert_eq!((late.idempotency, books(&ledger, at).await[2]), (Idempotency::Late, (0, 1502)));
}

async fn what_cost_nothing_is_remembered_for_seconds_alone(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (hold, slot) = (tokens("alice", 60, 100), hold(key("alice", Unit::Concurrency), 1, 5));
    ledger.reserve("1", vec![hold.clone(), slot.clone(), request("alice", 5)], now).await.unwrap();
    let nothing = vec![charge(&hold, 0), charge(&slot, 1), charge(&request("alice", 5), 0)];
    for told in [Settled::Released, Settled::AlreadySettled] {
        assert_eq!(ledger.commit("1", nothing.clone(), now).await.unwrap(), told);
    }
    let before = now + (REMEMBERED_BRIEFLY - MILLISECOND);
    assert_eq!(ledger.reserve("1", vec![hold.clone()], before).await.unwrap().idempotency, Idempotency::Late);
    // Repeating the commit has no effect, whether or not the id is still known.
    let after = now + REMEMBERED_BRIEFLY;
    assert_eq!(ledger.commit("1", nothing, after).await.unwrap(), Settled::Charged);
    assert_eq!(books(&ledger, after).await, []);
    for id in 2..100_u32 {
        ledger.commit(&id.to_string(), vec![charge(&hold, 0)], after).await.unwrap();
    }
    ledger.commit("one", Vec::new(), after + REMEMBERED_BRIEFLY).await.unwrap();
    assert!(ledger.size().await.unwrap().settled.unwrap_or(1) <= 1);
}

async fn what_is_over_leaves_memory(storage: Storage) {
    let (ledger, now) = storage.ledger(10_000).await;
    for user in 0..5_000 {
        let (id, who) = (user.to_string(), format!("user-{user}"));
        let hold = tokens(&who, 5, 10);
        ledger.reserve(&id, vec![hold.clone(), request(&who, 3)], now).await.unwrap();
        if user % 2 == 0 {
            ledger.commit(&id, vec![charge(&hold, 3)], now).await.unwrap();
        }
    }
    let size = ledger.size().await.unwrap();
    assert_eq!((size.counters, size.holds, size.reservations), (10_000, 2_500, 2_500));
    ledger.sweep(now + MINUTE).await.unwrap();
    let size = ledger.size().await.unwrap();
    assert_eq!((size.counters, size.holds), (2_500, 2_500));
    ledger.sweep(now + MINUTE * 15).await.unwrap();
    let size = ledger.size().await.unwrap();
    assert_eq!((size.counters, size.holds, size.reservations), (0, 0, 0));
    assert_eq!(size.settled.unwrap_or(5_000), 5_000);
}

async fn sixty_four_that_hold_100_of_1000_at_once_are_ten(storage: Storage) {
    for _ in 0..20 {
        let (ledger, now) = storage.ledger(100).await;
        let mut calls = JoinSet::new();
        for id in 0..64 {
            let ledger = Arc::clone(&ledger);
            calls.spawn(async move {
                ledger.reserve(&id.to_string(), vec![tokens("alice", 100, 1000)], now).await.unwrap()
            });
        }
        let outcomes = calls.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.admitted).count(), 10);
        assert_eq!(books(&ledger, now).await, [(0, 1000)]);
    }
}

async fn a_gauge_is_held_and_never_charged_and_no_window_empties_it(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let slot = || hold(key("alice", Unit::Concurrency), 1, 2);
    let first = ledger.reserve("1", vec![slot()], now).await.unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(first.statuses, [Status { reset: second, ..good(2, 1, 0) }]);
    assert!(ledger.reserve("2", vec![slot()], now).await.unwrap().admitted);
    let later = now + MINUTE * 14;
    let third = ledger.reserve("3", vec![slot()], later).await.unwrap();
    assert_eq!(third.statuses, [Status { limited: true, reset: second, ..good(2, 0, 0) }]);
    assert_eq!(books(&ledger, later).await, [(0, 2)]);
    // Every commit releases its slot, with or without a charge.
    for (id, charged) in [("1", Some(0)), ("2", None)] {
        let charges = charged.map(|amount| charge(&slot(), amount)).into_iter().collect();
        assert_eq!(ledger.commit(id, charges, later).await.unwrap(), Settled::Released);
    }
    ledger.commit("4", vec![charge(&slot(), 7)], later).await.unwrap();
    assert_eq!(books(&ledger, later).await, []);
    assert_eq!(ledger.size().await.unwrap().counters, 0);
    // A crashed worker's slot is released after its ttl.
    ledger.reserve("5", vec![slot()], later).await.unwrap();
    assert_eq!(books(&ledger, later + (MINUTE * 15 - MILLISECOND)).await, [(0, 1)]);
    assert_eq!(books(&ledger, later + MINUTE * 15).await, []);
}

async fn a_refused_request_takes_no_slot(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let slot = || hold(key("alice", Unit::Concurrency), 1, 2);
    for _ in 0..3 {
        let outcome = ledger.reserve("1", vec![slot(), tokens("alice", 5, 4)], now).await.unwrap();
        assert!(!outcome.admitted);
    }
    assert_eq!(books(&ledger, now).await, []);
}

async fn what_is_not_enforced_is_held_and_charged_and_refuses_nothing(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let dry = |amount| Hold { enforced: false, ..tokens("alice", amount, 100) };
    assert_eq!(ledger.reserve("1", vec![dry(60)], now).await.unwrap().statuses, [good(100, 40, 0)]);
    let over = ledger.reserve("2", vec![dry(60), request("bob", 5)], now).await.unwrap();
    assert!(over.admitted);
    assert_eq!(over.statuses[0], Status { excused: true, ..good(100, 0, 0) });
    assert_eq!(books(&ledger, now).await, [(1, 0), (0, 120)]);
    // An enforced hold in the same bucket is refused. A refused hold also refuses the unenforced hold next to
    // it.
    assert!(!ledger.reserve("3", vec![tokens("alice", 1, 100)], now).await.unwrap().admitted);
    assert!(!ledger.reserve("4", vec![dry(60), request("bob", 1)], now).await.unwrap().admitted);
    assert_eq!(books(&ledger, now).await, [(1, 0), (0, 120)]);
    for id in ["1", "2"] {
        ledger.commit(id, vec![charge(&dry(0), 70)], now).await.unwrap();
    }
    assert_eq!(books(&ledger, now).await, [(1, 0), (140, 0)]);
}

/// The start of a day that is also the last of a week and of a month: 2100-01-31 is a Sunday. It is far in
/// the future, because Redis deletes data that should have expired long ago.
const LAST_OF_JANUARY: Duration = Duration::from_secs(4_105_036_800);

fn raised(hold: &Hold, total: u64, enforced: bool) -> Vec<RaisedHold> {
    vec![RaisedHold { key: Arc::clone(&hold.key), total, max: hold.max, enforced }]
}

async fn a_raise_holds_more_until_the_commit_and_tells_whether_there_is_room(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 100, 1000);
    ledger.reserve("1", vec![hold.clone(), request("alice", 5)], now).await.unwrap();
    for (total, enforced, told, held) in [
        (400, true, Raised::Held, 400),
        (400, true, Raised::Held, 400),
        (300, true, Raised::Held, 400),
        (1000, true, Raised::Held, 1000),
        (1001, true, Raised::OutOfRoom, 1001),
        (1001, true, Raised::OutOfRoom, 1001),
        (2000, false, Raised::Held, 2000),
    ] {
        assert_eq!(ledger.raise("1", raised(&hold, total, enforced), now).await.unwrap(), told, "{total}");
        assert!(books(&ledger, now).await.contains(&(0, held)), "{total}");
    }
    // Other holds reduce the room.
    let bob = tokens("bob", 600, 1000);
    ledger.reserve("2", vec![bob.clone()], now).await.unwrap();
    ledger.reserve("3", vec![Hold { amount: 100, ..bob.clone() }], now).await.unwrap();
    assert_eq!(ledger.raise("3", raised(&bob, 400, true), now).await.unwrap(), Raised::Held);
    assert_eq!(ledger.raise("3", raised(&bob, 401, true), now).await.unwrap(), Raised::OutOfRoom);
    assert_eq!(ledger.commit("1", vec![charge(&hold, 1500)], now).await.unwrap(), Settled::Released);
    assert!(books(&ledger, now).await.contains(&(1500, 0)));
    // The raise does not extend the hold's lifetime.
    assert!(!books(&ledger, now + MINUTE * 60 * 24).await.iter().any(|(_, held)| *held > 0));
}

async fn a_raise_after_the_commit_or_of_nothing_holds_nothing(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let hold = tokens("alice", 100, 1000);
    let unknown = ledger.raise("1", raised(&hold, 400, true), now).await.unwrap();
    assert_eq!(unknown, Raised::Unknown);
    // The id is not remembered either.
    assert!(ledger.reserve("1", vec![hold.clone()], now).await.unwrap().admitted);
    assert_eq!(books(&ledger, now).await, [(0, 100)]);
    ledger.commit("1", vec![charge(&hold, 30)], now).await.unwrap();
    assert_eq!(ledger.raise("1", raised(&hold, 400, true), now).await.unwrap(), Raised::Unknown);
    assert_eq!(books(&ledger, now).await, [(30, 0)]);
    ledger.reserve("2", vec![hold.clone()], now).await.unwrap();
    let other = tokens("bob", 1, 1000);
    // The shard of another bucket does not know the reservation.
    let wanted = if matches!(storage, Storage::Shards(..)) { Raised::Unknown } else { Raised::Held };
    assert_eq!(ledger.raise("2", raised(&other, 400, true), now).await.unwrap(), wanted);
    assert_eq!(books(&ledger, now).await, [(30, 100)]);
    let later = now + MINUTE * 60 * 24;
    assert_eq!(ledger.raise("2", raised(&hold, 400, true), later).await.unwrap(), Raised::Unknown);
    assert_eq!(books(&ledger, later).await, []);
}

async fn a_raise_in_an_overflow_bucket_counts_there(storage: Storage) {
    let (ledger, now) = storage.ledger(1).await;
    ledger.commit("a", vec![charge(&tokens("alice", 1, 10), 1)], now).await.unwrap();
    let bob = tokens("bob", 10, 100);
    ledger.reserve("1", vec![bob.clone()], now).await.unwrap();
    assert_eq!(ledger.raise("1", raised(&bob, 70, true), now).await.unwrap(), Raised::Held);
    assert_eq!(overflow(&ledger, "default/llm/free", now).await, [(0, 70)]);
    ledger.commit("1", vec![charge(&bob, 50)], now).await.unwrap();
    assert_eq!(overflow(&ledger, "default/llm/free", now).await, [(50, 0)]);
}

async fn periods_end_with_the_calendar_s(storage: Storage) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for (period, before) in [(Period::Day, 0), (Period::Week, 6), (Period::Month, 30)] {
        let (ledger, now) = storage.ledger(100).await;
        let end = LAST_OF_JANUARY + DAY;
        let length = DAY * (before + 1);
        let at = |unix: Duration| Moment { unix, instant: now.instant + (unix + length).saturating_sub(end) };
        let hold = hold(key_of("alice", Unit::Tokens, Window::Period(period, ZoneName::UTC)), 60, 100);
        let first = at(end - length);
        ledger.commit("1", vec![charge(&hold, 50)], first).await.unwrap();
        let last = at(end - MILLISECOND);
        assert_eq!(books(&ledger, last).await, [(50, 0)], "{period:?}");
        let refused = ledger.reserve("2", vec![hold.clone()], last).await.unwrap();
        assert_eq!(refused.statuses, [Status { limited: true, reset: MILLISECOND, ..good(100, 50, 50) }]);
        let next = ledger.reserve("3", vec![hold.clone()], at(end)).await.unwrap();
        let following = [DAY, DAY * 7, DAY * 28][usize::from(before > 0) + usize::from(before > 6)];
        assert_eq!(next.statuses, [Status { reset: following, ..good(100, 40, 0) }], "{period:?}");
        assert_eq!(books(&ledger, at(end)).await, [(0, 60)]);
    }
}

async fn a_month_ends_at_midnight_of_its_time_zone(storage: Storage) {
    // In New York, April 2100 begins at 04:00 UTC, and December at 05:00 UTC.
    for end in ["2100-04-01T04:00:00Z", "2100-12-01T05:00:00Z"] {
        let (ledger, now) = storage.ledger(100).await;
        let end = Duration::from_secs(end.parse::<jiff::Timestamp>().unwrap().as_second() as u64);
        let day = Duration::from_secs(24 * 60 * 60);
        let at = |unix: Duration| Moment { unix, instant: now.instant + (unix + day).saturating_sub(end) };
        let zone = ZoneName::parse("America/New_York").unwrap();
        let hold = hold(key_of("alice", Unit::Tokens, Window::Period(Period::Month, zone)), 60, 100);
        ledger.commit("1", vec![charge(&hold, 50)], at(end - day)).await.unwrap();
        let last = at(end - MILLISECOND);
        let refused = ledger.reserve("2", vec![hold.clone()], last).await.unwrap();
        assert_eq!(refused.statuses, [Status { limited: true, reset: MILLISECOND, ..good(100, 50, 50) }]);
        assert!(ledger.reserve("3", vec![hold.clone()], at(end)).await.unwrap().admitted);
        assert_eq!(books(&ledger, at(end)).await, [(0, 60)]);
    }
}

async fn a_lifetime_does_not_end(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let window = Window::Period(Period::Lifetime, ZoneName::UTC);
    let hold = hold(key_of("alice", Unit::Tokens, window), 60, 100);
    ledger.commit("1", vec![charge(&hold, 50)], now).await.unwrap();
    let years = now + Duration::from_secs(50 * 366 * 24 * 60 * 60);
    ledger.sweep(years).await.unwrap();
    assert!(!ledger.reserve("2", vec![hold], years).await.unwrap().admitted);
    assert_eq!(books(&ledger, years).await, [(50, 0)]);
}

async fn no_interval_of_a_sliding_window_s_length_has_more_than_its_maximum(storage: Storage) {
    const MAX: u64 = 100;
    let mut random = 88_172_645_463_325_252_u64;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for length in [1_000, 1_500, 60_000, 3_600_000_u64] {
        let (ledger, begun) = storage.ledger(100).await;
        let window = Window::Sliding(Duration::from_millis(length));
        let hold = |amount| hold(key_of("alice", Unit::Tokens, window.clone()), amount, MAX);
        let (mut ms, mut refused) = (0_u64, 0);
        let mut charged: Vec<(u64, u64)> = Vec::new();
        for id in 0..400 {
            // Bursts, steady traffic, and pauses.
            ms += match below(10) {
                0..4 => below(2),
                4..9 => below(length / 12),
                _ => below(length * 2),
            };
            let amount = 1 + below(20);
            let at = |ms| begun + Duration::from_millis(ms);
            let outcome = ledger.reserve(&id.to_string(), vec![hold(amount)], at(ms)).await.unwrap();
            let since = |age: u64| {
                let counts = charged.iter().filter(|(when, _)| when + age > ms);
                counts.map(|(_, amount)| amount).sum::<u64>()
            };
            if outcome.admitted {
                ms += below(length / 20);
                ledger.commit(&id.to_string(), vec![charge(&hold(amount), amount)], at(ms)).await.unwrap();
                charged.push((ms, amount));
            } else {
                refused += 1;
                // Usage counts for at most a sixtieth of the window too long.
                let counted = since(length + length.div_ceil(60));
                assert!(counted + amount > MAX, "refused with {counted} used, {amount} wanted");
            }
        }
        for (end, _) in &charged {
            let within = charged.iter().filter(|(when, _)| when <= end && when + length > *end);
            let sum: u64 = within.map(|(_, amount)| amount).sum();
            assert!(sum <= MAX, "{sum} in {length} ms up to {end} ms");
        }
        assert!(refused > 50 && charged.len() > 50, "{refused} refused, {} charged", charged.len());
    }
}

async fn a_sliding_window_says_when_enough_of_it_is_over(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let second = Duration::from_secs(1);
    let hold = |amount| hold(key_of("alice", Unit::Tokens, Window::Sliding(MINUTE)), amount, 100);
    for (id, (at, amount)) in [(0, 30), (10, 30), (20, 30)].into_iter().enumerate() {
        let id = format!("used-{id}");
        ledger.commit(&id, vec![charge(&hold(1), amount)], now + second * at).await.unwrap();
    }
    let later = now + second * 30;
    for (amount, wait) in [(11, 30), (40, 30), (41, 40), (70, 40), (71, 50), (100, 50), (101, 50)] {
        let asked = vec![hold(amount)];
        let refused = ledger.reserve("asks", asked.clone(), later).await.unwrap();
        let wanted = Status { limited: true, reset: second * wait, ..good(100, 10, 90) };
        assert_eq!(refused.statuses, [wanted], "{amount}");
        if amount <= 100 {
            let id = format!("comes-back-for-{amount}");
            let early = later + (second * wait - MILLISECOND);
            assert!(!ledger.reserve(&id, asked.clone(), early).await.unwrap().admitted, "{amount}");
        }
    }
    // The hold takes the room. It may be released at any time, so it does not count for the reset.
    ledger.reserve("holds", vec![hold(10)], later).await.unwrap();
    let refused = ledger.reserve("asks", vec![hold(5)], later).await.unwrap();
    assert_eq!(refused.statuses[0].reset, second * 30);
    ledger.commit("holds", vec![], later).await.unwrap();
    let admitted = ledger.reserve("comes-back", vec![hold(41)], later + second * 40).await.unwrap();
    // The remaining usage expires at the same time as the last charge.
    assert_eq!(admitted.statuses, [Status { reset: second * 10, ..good(100, 29, 30) }]);
    assert_eq!(books(&ledger, later + second * 50).await, [(0, 41)]);
}

async fn a_sliding_window_takes_back_what_a_failed_request_was_charged(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let window = Window::Sliding(MINUTE);
    let slot = Hold { charge_at: ChargeAt::Admission, ..hold(key_of("alice", Unit::Requests, window), 1, 5) };
    for second in 0..4 {
        let at = now + Duration::from_secs(second * 10);
        ledger.reserve(&second.to_string(), vec![slot.clone()], at).await.unwrap();
    }
    let later = now + Duration::from_secs(35);
    assert_eq!(books(&ledger, later).await, [(4, 0)]);
    for id in ["1", "3"] {
        ledger.commit(id, vec![charge(&slot, 0)], later).await.unwrap();
    }
    assert_eq!(books(&ledger, later).await, [(2, 0)]);
    assert_eq!(books(&ledger, now + MINUTE).await, [(1, 0)]);
    // An expired charge cannot be refunded.
    ledger.commit("0", vec![charge(&slot, 0)], now + MINUTE + Duration::from_secs(5)).await.unwrap();
    assert_eq!(books(&ledger, now + MINUTE + Duration::from_secs(5)).await, [(1, 0)]);
    assert_eq!(books(&ledger, now + MINUTE + Duration::from_secs(20)).await, []);
}

async fn a_sliding_window_is_empty_when_its_last_charge_that_was_not_refunded_is_over(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let half = MINUTE / 2;
    let slot = |amount| Hold {
        charge_at: ChargeAt::Admission,
        ..hold(key_of("alice", Unit::Requests, Window::Sliding(MINUTE)), amount, 5)
    };
    ledger.reserve("1", vec![slot(1)], now).await.unwrap();
    ledger.reserve("2", vec![slot(1)], now + half).await.unwrap();
    ledger.commit("2", vec![charge(&slot(1), 0)], now + half).await.unwrap();
    // Not even an empty window has room for this.
    let refused = ledger.reserve("3", vec![slot(6)], now + half).await.unwrap();
    assert_eq!(refused.statuses, [Status { limited: true, reset: half, ..good(5, 4, 1) }]);
}

async fn a_commit_credits_no_other_window(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (hold, slot) = (tokens("alice", 60, 100), request("alice", 5));
    ledger.reserve("1", vec![hold.clone(), slot.clone()], now).await.unwrap();
    ledger.commit("2", vec![charge(&hold, 30)], now + MINUTE).await.unwrap();
    ledger.commit("1", vec![charge(&hold, 10), charge(&slot, 0)], now + MINUTE).await.unwrap();
    assert_eq!(books(&ledger, now + MINUTE).await, [(40, 0)]);
}

async fn reading_buckets_changes_none_of_them(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let calendar = Window::Period(Period::Hour, ZoneName::UTC);
    let windows = [Window::Fixed(MINUTE), Window::Sliding(MINUTE), calendar, Window::Now];
    let keys: Vec<_> = windows.map(|window| key_of("alice", Unit::Tokens, window)).into_iter().collect();
    let fresh = ledger.read(&keys, now).await.unwrap();
    let numbers = |readings: &[CounterReading]| -> Vec<_> {
        readings.iter().map(|reading| (reading.used, reading.held, reading.granted)).collect()
    };
    assert_eq!(numbers(&fresh), [(0, 0, 0); 4]);
    assert_eq!((fresh[0].reset, fresh[1].reset), (Some(MINUTE), Some(MINUTE)));
    assert!(fresh[2].reset.is_some_and(|reset| reset <= MINUTE * 60), "{:?}", fresh[2]);
    assert_eq!(ledger.size().await.unwrap().counters, 0, "reading makes no bucket");
    let holds: Vec<_> = keys.iter().map(|key| hold(Arc::clone(key), 30, 100)).collect();
    ledger.reserve("a", holds.clone(), now).await.unwrap();
    let charges = holds.iter().map(|hold| charge(hold, 120)).collect();
    ledger.commit("a", charges, now).await.unwrap();
    let later = now + Duration::from_secs(20);
    ledger.reserve("b", vec![hold(Arc::clone(&keys[3]), 7, 100)], later).await.unwrap();
    for _ in 0..3 {
        let readings = ledger.read(&keys, later).await.unwrap();
        assert_eq!(numbers(&readings), [(120, 0, 0), (120, 0, 0), (120, 0, 0), (0, 7, 0)]);
        assert_eq!(readings[0].reset, Some(Duration::from_secs(40)));
        assert_eq!(readings[1].reset, Some(Duration::from_secs(40)));
    }
    assert_eq!(numbers(&ledger.read(&keys[..1], now + MINUTE).await.unwrap()), [(0, 0, 0)]);
    assert_eq!(ledger.read(&[], later).await.unwrap(), []);
}
