//! The contract of a ledger for thresholds (`warnAt`), on every storage.

use crate::ledger::{MINUTE, key, key_of};
use crate::storages::{Storage, in_redis, in_shards, on_every_storage};
use limitador_adapter::ledger::crossing::{Crossing, WarnAt};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::stored::{CreationCharge, DeferredCharge, Sighting, StoredId, StoredResult};
use limitador_adapter::ledger::{Charge, ChargeAt, Grant, Hit, Hold, Key, LeaseUse, Ledger, Settled, When};
use llm::response::Usage;
use policy::model::{Period, Threshold, Unit, UsageCost, Window, ZoneName};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

on_every_storage![
    a_threshold_warns_once_in_a_window,
    a_charge_that_reaches_several_thresholds_warns_of_each,
    a_calendar_window_warns_once_and_the_next_one_again,
    a_sliding_window_warns_once_in_its_length,
    a_reset_bucket_warns_again,
    a_grant_raises_what_a_threshold_is_and_repeats_no_warning,
    a_changed_limit_repeats_no_warning,
    a_repeated_commit_warns_no_second_time,
    a_request_warns_at_its_admission_and_no_second_time_when_it_is_taken_back,
    a_hit_warns,
    a_background_result_warns_when_it_is_seen,
    a_part_of_a_background_result_warns_with_its_creation,
    holds_and_limits_without_thresholds_never_warn,
    of_sixty_four_charges_at_once_each_threshold_warns_once,
    ;
    unsharded:
    users_without_a_counter_of_their_own_warn_together,
];

fn thresholds(percents: &[u64]) -> Arc<[Threshold]> {
    percents.iter().map(|percent| Threshold::of_percent(*percent).unwrap()).collect()
}

fn of_1000(percents: &[u64]) -> Option<WarnAt> {
    Some(WarnAt { max: 1000, thresholds: thresholds(percents) })
}

fn charge(key: &Arc<Key>, amount: u64, percents: &[u64]) -> Charge {
    Charge { key: Arc::clone(key), amount, warn_at: of_1000(percents), draw: None }
}

async fn commit(ledger: &Arc<dyn Ledger>, charge: Charge, now: Moment) {
    ledger.commit("", vec![charge], now).await.unwrap();
}

/// Returns (percentage, used, max) of each crossing that was not taken yet.
fn crossed(ledger: &Arc<dyn Ledger>) -> Vec<(u8, u64, u64)> {
    let all = ledger.take_crossings();
    all.iter().map(|crossing| (crossing.threshold.percent(), crossing.used, crossing.max)).collect()
}

async fn a_threshold_warns_once_in_a_window(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (alice, bob) = (key("alice", Unit::Tokens), key("bob", Unit::Tokens));
    commit(&ledger, charge(&alice, 799, &[80]), now).await;
    assert_eq!(crossed(&ledger), []);
    let later = now + MINUTE / 2;
    commit(&ledger, charge(&alice, 1, &[80]), later).await;
    let threshold = Threshold::of_percent(80).unwrap();
    let crossing = Crossing { key: Arc::clone(&alice), threshold, max: 1000, used: 800, reset: MINUTE / 2 };
    assert_eq!(ledger.take_crossings(), [crossing]);
    commit(&ledger, charge(&alice, 500, &[80]), later).await;
    assert_eq!(crossed(&ledger), []);
    commit(&ledger, charge(&bob, 900, &[80]), later).await;
    assert_eq!(crossed(&ledger), [(80, 900, 1000)]);
    // Alice's window has ended, and Bob's has not.
    let next = now + MINUTE;
    commit(&ledger, charge(&bob, 1, &[80]), next).await;
    commit(&ledger, charge(&alice, 850, &[80]), next).await;
    assert_eq!(crossed(&ledger), [(80, 850, 1000)]);
}

async fn a_charge_that_reaches_several_thresholds_warns_of_each(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Usd);
    commit(&ledger, charge(&alice, 960, &[1, 50, 80, 95, 100]), now).await;
    assert_eq!(crossed(&ledger), [1, 50, 80, 95].map(|percent| (percent, 960, 1000)));
    commit(&ledger, charge(&alice, 1000, &[1, 50, 80, 95, 100]), now).await;
    assert_eq!(crossed(&ledger), [(100, 1960, 1000)]);
}

async fn a_calendar_window_warns_once_and_the_next_one_again(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key_of("alice", Unit::Tokens, Window::Period(Period::Month, ZoneName::UTC));
    for (at, wanted) in [(now, 1), (now, 0), (now + MINUTE * 60 * 24 * 32, 1)] {
        commit(&ledger, charge(&alice, 800, &[80]), at).await;
        assert_eq!(crossed(&ledger).len(), wanted);
    }
    let lifetime = key_of("alice", Unit::Tokens, Window::Period(Period::Lifetime, ZoneName::UTC));
    for wanted in [1, 0] {
        commit(&ledger, charge(&lifetime, 800, &[80]), now).await;
        assert_eq!(crossed(&ledger).len(), wanted);
    }
}

async fn a_sliding_window_warns_once_in_its_length(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key_of("alice", Unit::Tokens, Window::Sliding(MINUTE));
    let second = Duration::from_secs(1);
    let charges = [
        (0, 500, vec![]),
        (50, 350, vec![(80, 850, 1000)]),
        // The first charge no longer counts, so this one reaches the threshold again.
        (70, 500, vec![]),
        (80, 100, vec![(95, 950, 1000)]),
        // The length of the window has passed since the first warning.
        (112, 250, vec![(80, 850, 1000)]),
        (113, 100, vec![]),
        // It has passed since the second one, too.
        (141, 600, vec![(95, 950, 1000)]),
        (300, 949, vec![(80, 949, 1000)]),
    ];
    for (seconds, amount, wanted) in charges {
        commit(&ledger, charge(&alice, amount, &[80, 95]), now + second * seconds).await;
        assert_eq!(crossed(&ledger), wanted, "after {seconds} s");
    }
}

async fn a_reset_bucket_warns_again(storage: Storage) {
    for window in [
        Window::Fixed(MINUTE),
        Window::Sliding(MINUTE),
        Window::Period(Period::Month, ZoneName::UTC),
        Window::Period(Period::Lifetime, ZoneName::UTC),
    ] {
        let (ledger, now) = storage.ledger(100).await;
        let alice = key_of("alice", Unit::Tokens, window.clone());
        for _ in 0..2 {
            commit(&ledger, charge(&alice, 850, &[80]), now).await;
            assert_eq!(crossed(&ledger), [(80, 850, 1000)], "{window:?}");
            commit(&ledger, charge(&alice, 1, &[80]), now).await;
            assert_eq!(crossed(&ledger), [], "{window:?}");
            ledger.reset(vec![Arc::clone(&alice)], now).await.unwrap();
            assert_eq!(crossed(&ledger), [], "{window:?}");
            commit(&ledger, charge(&alice, 799, &[80]), now).await;
            assert_eq!(crossed(&ledger), [], "{window:?}");
            ledger.reset(vec![Arc::clone(&alice)], now).await.unwrap();
        }
    }
}

async fn a_grant_raises_what_a_threshold_is_and_repeats_no_warning(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    commit(&ledger, charge(&alice, 850, &[80, 90]), now).await;
    assert_eq!(crossed(&ledger), [(80, 850, 1000)]);
    let grant = Grant { key: Arc::clone(&alice), amount: 1000, id: "x".to_owned() };
    ledger.grant(grant, now).await.unwrap();
    // 95 % of the policy's limit, and 47.5 % with the grant.
    commit(&ledger, charge(&alice, 100, &[80, 90]), now).await;
    assert_eq!(crossed(&ledger), []);
    commit(&ledger, charge(&alice, 850, &[80, 90]), now).await;
    assert_eq!(crossed(&ledger), [(90, 1800, 2000)]);
}

async fn a_changed_limit_repeats_no_warning(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    let of = |max, amount, percents: &[u64]| {
        let warn_at = Some(WarnAt { max, thresholds: thresholds(percents) });
        Charge { key: Arc::clone(&alice), amount, warn_at, draw: None }
    };
    commit(&ledger, of(1000, 800, &[80]), now).await;
    assert_eq!(crossed(&ledger), [(80, 800, 1000)]);
    commit(&ledger, of(2000, 900, &[80]), now).await;
    assert_eq!(crossed(&ledger), []);
    // A new threshold that is already reached warns with the next charge.
    commit(&ledger, of(2000, 1, &[50, 80]), now).await;
    assert_eq!(crossed(&ledger), [(50, 1701, 2000)]);
}

async fn a_repeated_commit_warns_no_second_time(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    for (settled, wanted) in [(Settled::Charged, 1), (Settled::AlreadySettled, 0)] {
        let charges = vec![charge(&alice, 850, &[80])];
        assert_eq!(ledger.commit("1", charges, now).await.unwrap(), settled);
        assert_eq!(crossed(&ledger).len(), wanted);
    }
}

fn hold(key: &Arc<Key>, amount: u64, charge_at: ChargeAt, warn_at: Option<WarnAt>) -> Hold {
    Hold {
        key: Arc::clone(key),
        amount,
        max: 1000,
        ttl: MINUTE * 15,
        charge_at,
        enforced: true,
        warn_at,
        lease: LeaseUse::None,
    }
}

async fn a_request_warns_at_its_admission_and_no_second_time_when_it_is_taken_back(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Requests);
    let warn_at = || Some(WarnAt { max: 4, thresholds: thresholds(&[50]) });
    let request = || Hold { max: 4, ..hold(&alice, 1, ChargeAt::Admission, warn_at()) };
    for (id, wanted) in [("1", vec![]), ("2", vec![(50, 2, 4)]), ("2", vec![]), ("3", vec![])] {
        assert!(ledger.reserve(id, vec![request()], now).await.unwrap().admitted);
        assert_eq!(crossed(&ledger), wanted, "{id}");
    }
    for id in ["2", "3"] {
        let charges = vec![Charge { key: Arc::clone(&alice), amount: 0, warn_at: warn_at(), draw: None }];
        ledger.commit(id, charges, now).await.unwrap();
    }
    assert!(ledger.reserve("4", vec![request()], now).await.unwrap().admitted);
    assert_eq!(crossed(&ledger), []);
    // A refused call charges nothing.
    let bob = key("bob", Unit::Requests);
    let refused = vec![
        Hold { key: Arc::clone(&bob), max: 4, ..hold(&bob, 4, ChargeAt::Admission, warn_at()) },
        Hold { max: 4, ..hold(&alice, 4, ChargeAt::Admission, warn_at()) },
    ];
    assert!(!ledger.reserve("5", refused, now).await.unwrap().admitted);
    assert_eq!(crossed(&ledger), []);
}

async fn a_hit_warns(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (alice, bob) = (key("alice", Unit::Tokens), key("bob", Unit::Tokens));
    let hit = |key: &Arc<Key>, charge, when| Hit {
        key: Arc::clone(key),
        max: 1000,
        need: 1,
        charge,
        when,
        enforced: true,
        warn_at: of_1000(&[80]),
    };
    let hits = vec![hit(&alice, 1, When::Always), hit(&bob, 1200, When::Always)];
    ledger.hit(hits, now).await.unwrap();
    let crossings = ledger.take_crossings();
    assert_eq!(crossings.iter().map(|crossing| &crossing.key).collect::<Vec<_>>(), [&bob]);
    // Bob has no room, so the call is refused and charges nothing.
    let hits = vec![hit(&alice, 900, When::Admitted), hit(&bob, 1, When::Admitted)];
    assert!(!ledger.hit(hits, now).await.unwrap().admitted);
    assert_eq!(crossed(&ledger), []);
}

fn deferred(key: &Arc<Key>, now: u64) -> CreationCharge {
    let deferred = DeferredCharge { now, cost: UsageCost::tokens(true, true) };
    CreationCharge { charge: charge(key, 900, &[10, 80]), deferred: Some(deferred) }
}

fn seen(output: u64) -> Sighting {
    let usage = Usage { input: 0, output, total: output, ..Usage::default() };
    Sighting { id: StoredId::of("resp_1"), usage, is_partial: false, ends: true }
}

async fn a_background_result_warns_when_it_is_seen(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    let result = || StoredResult { id: StoredId::of("resp_1"), input: 0 };
    let holds = vec![hold(&alice, 900, ChargeAt::Commit, None)];
    ledger.reserve("1", holds, now).await.unwrap();
    ledger.park("1", result(), vec![deferred(&alice, 0)], now).await.unwrap();
    assert_eq!(crossed(&ledger), []);
    for wanted in [vec![(10, 850, 1000), (80, 850, 1000)], vec![]] {
        ledger.see(seen(850), now).await.unwrap();
        assert_eq!(crossed(&ledger), wanted);
    }
}

async fn a_part_of_a_background_result_warns_with_its_creation(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let (alice, usd) = (key("alice", Unit::Tokens), key("alice", Unit::Usd));
    let result = StoredResult { id: StoredId::of("resp_1"), input: 0 };
    // Somebody reads the result before its creation is known. One of the rates is charged at once.
    ledger.see(seen(850), now).await.unwrap();
    let at_once = CreationCharge { charge: charge(&usd, 100, &[10]), deferred: None };
    ledger.park("1", result, vec![at_once, deferred(&alice, 120)], now).await.unwrap();
    let mut crossings: Vec<_> = ledger.take_crossings();
    crossings.sort_by(|a, b| (&a.key, a.threshold).cmp(&(&b.key, b.threshold)));
    let crossings = crossings.iter().map(|one| (Arc::clone(&one.key), one.threshold.percent(), one.used));
    let wanted = [(Arc::clone(&alice), 10, 120), (alice, 80, 850), (usd, 10, 100)];
    assert_eq!(crossings.collect::<Vec<_>>(), wanted);
}

async fn users_without_a_counter_of_their_own_warn_together(storage: Storage) {
    let (ledger, now) = storage.ledger(1).await;
    for (who, wanted) in [("alice", 0), ("bob", 0), ("carol", 1), ("dave", 0)] {
        let key = key(who, Unit::Tokens);
        commit(&ledger, charge(&key, 450, &[80]), now).await;
        let crossings = ledger.take_crossings();
        assert_eq!(crossings.len(), wanted, "{who}");
        for crossing in crossings {
            assert_eq!((*crossing.key).clone(), key.overflow());
            assert_eq!(crossing.used, 900);
        }
    }
}

async fn holds_and_limits_without_thresholds_never_warn(storage: Storage) {
    let (ledger, now) = storage.ledger(100).await;
    let alice = key("alice", Unit::Tokens);
    let holds = vec![hold(&alice, 1000, ChargeAt::Commit, of_1000(&[1]))];
    assert!(ledger.reserve("1", holds, now).await.unwrap().admitted);
    assert_eq!(crossed(&ledger), []);
    let silent = Charge { key: Arc::clone(&alice), amount: 5000, warn_at: None, draw: None };
    ledger.commit("1", vec![silent], now).await.unwrap();
    commit(&ledger, charge(&alice, 0, &[1]), now).await;
    assert_eq!(crossed(&ledger), []);
}

/// Both adapters share the storage. In memory, there is only one.
async fn of_sixty_four_charges_at_once_each_threshold_warns_once(storage: Storage) {
    let (one, now) = storage.ledger(100).await;
    let other = match &storage {
        Storage::Memory | Storage::Sqlite(..) => Arc::clone(&one),
        Storage::Redis(redis, _) => in_redis(redis, 0, 100),
        Storage::Shards(redis, _) => in_shards(redis, 0, 100, 0),
    };
    let percents: Vec<u64> = vec![10, 25, 50, 80, 90, 95, 99, 100];
    for window in
        [Window::Fixed(MINUTE), Window::Sliding(MINUTE), Window::Period(Period::Year, ZoneName::UTC)]
    {
        let alice = key_of("alice", Unit::Tokens, window.clone());
        let mut tasks = JoinSet::new();
        for number in 0..64 {
            let ledger = Arc::clone(if number % 2 == 0 { &one } else { &other });
            let charge = charge(&alice, 20, &percents);
            // Each settlement arrives twice, at different adapters.
            let id = (number / 2).to_string() + &window.to_string();
            tasks.spawn(async move { ledger.commit(&id, vec![charge], now).await.unwrap() });
        }
        tasks.join_all().await;
        let mut warned: Vec<u64> = [&one, &other]
            .iter()
            .flat_map(|ledger| ledger.take_crossings())
            .map(|crossing| u64::from(crossing.threshold.percent()))
            .collect();
        warned.sort_unstable();
        // 32 charges of 20 are 640.
        assert_eq!(warned, [10, 25, 50], "{window:?}");
    }
}
