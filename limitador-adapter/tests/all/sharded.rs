//! A ledger in several shards: what other calls, failures and crashes between two steps may see.

use crate::faulty_shard::{Faults, FaultyShard};
use crate::ledger::{MINUTE, key, key_of};
use crate::storages::{in_shards, shards};
use e2e::redis::Redis;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::sharded::ShardedLedger;
use limitador_adapter::ledger::stored::{
    CreationCharge, DeferredCharge, Parking, Sighting, StoredId, StoredResult,
};
use limitador_adapter::ledger::{
    Charge, ChargeAt, Hit, Hold, Idempotency, Key, LeaseUse, Ledger, Raised, RaisedHold, Settled,
    Unavailable, When,
};
use llm::response::Usage;
use policy::model::{Tariff, Unit, UsageCost, Window};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

const MAX: u64 = 1000;

fn hold(key: &Arc<Key>, amount: u64) -> Hold {
    let (key, ttl) = (Arc::clone(key), MINUTE * 15);
    Hold {
        key,
        amount,
        max: MAX,
        ttl,
        charge_at: ChargeAt::Commit,
        enforced: true,
        warn_at: None,
        lease: LeaseUse::None,
    }
}

fn request(who: &str) -> Hold {
    Hold { charge_at: ChargeAt::Admission, ..hold(&key(who, Unit::Requests), 1) }
}

fn charge(key: &Arc<Key>, amount: u64) -> Charge {
    Charge { key: Arc::clone(key), amount, warn_at: None, draw: None }
}

/// Users whose buckets are in different shards.
fn users() -> [Arc<Key>; 3] {
    ["alice", "bob", "carol"].map(|who| key(who, Unit::Tokens))
}

/// Returns the used and the held amount of each bucket that has any.
async fn books(ledger: &dyn Ledger, now: Moment) -> BTreeMap<Arc<Key>, (u64, u64)> {
    let readings = once_it_works(async || ledger.readings(now).await).await;
    readings.into_iter().map(|it| (it.key, (it.used, it.held))).collect()
}

/// Repeats a call as often as it fails.
async fn once_it_works<T>(mut call: impl AsyncFnMut() -> Result<T, Unavailable>) -> T {
    loop {
        if let Ok(result) = call().await {
            return result;
        }
        tokio::task::yield_now().await;
    }
}

/// Returns two adapters that share all shards, and the faults of their shards.
fn adapters(redis: &Redis) -> ([ShardedLedger<FaultyShard>; 2], Vec<Faults>) {
    let faults: Vec<Faults> = shards(redis, 0, 1000, 0).iter().map(|_| Faults::default()).collect();
    let adapter = |_| {
        let shards = shards(redis, 0, 1000, 0).into_iter().zip(&faults);
        let faulty = |(shard, faults): (_, &Faults)| FaultyShard { shard, faults: Arc::clone(faults) };
        ShardedLedger::new(shards.map(faulty).collect())
    };
    ([(); 2].map(adapter), faults)
}

fn set_all(faults: &[Faults], percent: u32) {
    faults.iter().for_each(|of_shard| of_shard.store(percent, Ordering::Relaxed));
}

/// Makes the shard of a bucket fail every call.
async fn break_the_shard_of(ledger: &ShardedLedger<FaultyShard>, faults: &[Faults], of: &Arc<Key>) {
    for one in faults {
        one.store(100, Ordering::Relaxed);
        if ledger.read(&[Arc::clone(of)], Moment::now()).await.is_err() {
            return;
        }
        one.store(0, Ordering::Relaxed);
    }
    panic!("the bucket is in no shard");
}

#[tokio::test]
async fn a_refusal_in_one_shard_takes_everything_back_in_the_others() {
    let redis = Redis::start();
    let (ledger, now) = (in_shards(&redis, 0, 100, 0), Moment::now());
    let [alice, bob, _] = users();
    ledger.commit("before", vec![charge(&bob, 995)], now).await.unwrap();
    let wants = || vec![request("alice"), hold(&alice, 10), hold(&bob, 10), request("carol")];
    let outcome = ledger.reserve("1", wants(), now).await.unwrap();
    assert!(!outcome.admitted);
    let told: Vec<_> = outcome.statuses.iter().map(|it| (it.limited, it.remaining, it.used)).collect();
    assert_eq!(told, [(false, 1000, 0), (false, 1000, 0), (true, 5, 995), (false, 1000, 0)]);
    assert_eq!(books(&*ledger, now).await, [(Arc::clone(&bob), (995, 0))].into());
    let size = ledger.size().await.unwrap();
    assert_eq!((size.counters, size.reservations, size.holds), (1, 0, 0));
    // The id is not remembered.
    ledger.reset(vec![Arc::clone(&bob)], now).await.unwrap();
    let again = ledger.reserve("1", wants(), now).await.unwrap();
    assert_eq!((again.admitted, again.idempotency), (true, Idempotency::First));
    assert_eq!(ledger.reserve("1", wants(), now).await.unwrap().idempotency, Idempotency::Repeated);
}

#[tokio::test]
async fn a_refusal_in_one_shard_does_not_end_a_refunded_window_in_another() {
    let redis = Redis::start();
    let (ledger, now) = (in_shards(&redis, 0, 100, 0), Moment::now());
    let [_, bob, _] = users();
    ledger.commit("before", vec![charge(&bob, MAX)], now).await.unwrap();
    let reserve = async |id, holds, now| ledger.reserve(id, holds, now).await.unwrap();
    reserve("1", vec![request("alice")], now).await;
    ledger.commit("1", vec![charge(&key("alice", Unit::Requests), 0)], now).await.unwrap();
    let later = now + Duration::from_secs(10);
    assert!(!reserve("2", vec![request("alice"), hold(&bob, 1)], later).await.admitted);
    let status = reserve("3", vec![request("alice")], later).await.statuses[0];
    assert_eq!((status.used, status.reset), (1, Duration::from_secs(50)));
}

#[tokio::test]
async fn while_a_shard_fails_the_buckets_of_the_others_work() {
    let redis = Redis::start();
    let ([ledger, _], faults) = adapters(&redis);
    let (now, [alice, bob, carol]) = (Moment::now(), users());
    break_the_shard_of(&ledger, &faults, &bob).await;
    let broken = faults.iter().position(|it| it.load(Ordering::Relaxed) > 0).unwrap();
    assert!(ledger.reserve("1", vec![hold(&alice, 10)], now).await.unwrap().admitted);
    assert_eq!(ledger.commit("1", vec![charge(&alice, 7)], now).await.unwrap(), Settled::Released);
    ledger.reserve("2", vec![hold(&bob, 10)], now).await.unwrap_err();
    ledger.reserve("3", vec![hold(&alice, 10), hold(&bob, 10)], now).await.unwrap_err();
    let told = ledger.ready().await.unwrap_err().to_string();
    let wanted = format!("the counter storage failed: shards {broken} of 24: it fails as demanded");
    assert_eq!(told, wanted);
    // A limit without room refuses, whether or not the others are known.
    ledger.commit("4", vec![charge(&carol, MAX)], now).await.unwrap();
    let outcome = ledger.reserve("5", vec![hold(&bob, 10), hold(&carol, 1)], now).await.unwrap();
    assert!(!outcome.admitted && outcome.statuses[1].limited);
    // The shard comes back. What was taken there for refused requests is taken back.
    set_all(&faults, 0);
    ledger.ready().await.unwrap();
    ledger.sweep(now).await.unwrap();
    // The call to this shard alone may have been executed. The filter releases what it may hold.
    ledger.commit("2", vec![charge(&bob, 0)], now).await.unwrap();
    assert_eq!(books(&ledger, now).await, [(alice, (7, 0)), (carol, (MAX, 0))].into());
}

#[tokio::test]
async fn a_commit_that_reached_one_of_two_shards_is_repeated_and_charges_each_once() {
    let redis = Redis::start();
    let ([one, other], faults) = adapters(&redis);
    let (now, [alice, bob, _]) = (Moment::now(), users());
    assert!(one.reserve("1", vec![hold(&alice, 10), hold(&bob, 10)], now).await.unwrap().admitted);
    break_the_shard_of(&one, &faults, &bob).await;
    let charges = || vec![charge(&alice, 4), charge(&bob, 5)];
    one.commit("1", charges(), now).await.unwrap_err();
    set_all(&faults, 0);
    // A reserve that arrives late holds nothing, wherever it is.
    let late = other.reserve("1", vec![hold(&alice, 10), hold(&bob, 10)], now).await.unwrap();
    assert!(late.admitted && late.idempotency != Idempotency::First);
    other.commit("1", charges(), now).await.unwrap();
    assert_eq!(one.commit("1", charges(), now).await.unwrap(), Settled::AlreadySettled);
    assert_eq!(books(&one, now).await, [(alice, (4, 0)), (bob, (5, 0))].into());
}

#[tokio::test]
async fn a_late_reserve_holds_nothing_in_a_shard_that_the_commit_has_not_reached() {
    let redis = Redis::start();
    let ([ledger, _], faults) = adapters(&redis);
    let (now, [alice, bob, _]) = (Moment::now(), users());
    break_the_shard_of(&ledger, &faults, &bob).await;
    ledger.commit("1", vec![charge(&alice, 4), charge(&bob, 5)], now).await.unwrap_err();
    set_all(&faults, 0);
    // The call may have been executed in the second shard, which makes no difference.
    let late = ledger.reserve("1", vec![hold(&alice, 10), hold(&bob, 10)], now).await.unwrap();
    assert_eq!((late.admitted, late.idempotency), (true, Idempotency::Late));
    assert!(books(&ledger, now).await.values().all(|(_, held)| *held == 0));
}

#[tokio::test]
async fn a_commit_releases_holds_of_limits_that_were_removed() {
    let redis = Redis::start();
    let (ledger, now) = (in_shards(&redis, 0, 100, 0), Moment::now());
    let [alice, bob, carol] = users();
    let holds = || vec![hold(&alice, 10), hold(&bob, 10), hold(&carol, 10)];
    assert!(ledger.reserve("1", holds(), now).await.unwrap().admitted);
    assert_eq!(ledger.commit("1", vec![charge(&bob, 5)], now).await.unwrap(), Settled::Released);
    assert_eq!(books(&*ledger, now).await, [(Arc::clone(&bob), (5, 0))].into());
    // None of the limits is left.
    assert!(ledger.reserve("2", holds(), now).await.unwrap().admitted);
    assert_eq!(ledger.commit("2", Vec::new(), now).await.unwrap(), Settled::Released);
    assert_eq!(books(&*ledger, now).await, [(Arc::clone(&bob), (5, 0))].into());
    assert_eq!(ledger.reserve("2", holds(), now).await.unwrap().idempotency, Idempotency::Late);
}

#[tokio::test]
async fn an_attempt_that_fails_late_does_not_take_the_holds_of_the_next_one() {
    use limitador_adapter::ledger::sharded::shard::{Attempt, Shard};
    let redis = Redis::start();
    let (ledger, now) = (&shards(&redis, 0, 100, 0)[0], Moment::now());
    let [alice, ..] = users();
    let attempt = |number, shards: [usize; 2]| Attempt { number, shards: shards.into_iter().collect() };
    let holds = || vec![request("alice"), hold(&alice, 10)];
    ledger.reserve_part("1", holds(), attempt(1, [0, 1]), now).await.unwrap();
    let repeated = ledger.reserve_part("1", holds(), attempt(2, [0, 2]), now).await.unwrap();
    assert_eq!(repeated.idempotency, Idempotency::Repeated);
    let keys = [Arc::clone(&alice)];
    assert_eq!(ledger.cancel("1", 1, &keys, now).await.unwrap()[0].held, 10);
    assert_eq!(ledger.cancel("1", 2, &keys, now).await.unwrap()[0].held, 0);
    assert_eq!(books(ledger, now).await, [].into());
    // A settled reservation is not cancelled, and names the shards of all attempts.
    ledger.reserve_part("2", holds(), attempt(3, [0, 1]), now).await.unwrap();
    ledger.reserve_part("2", holds(), attempt(4, [0, 2]), now).await.unwrap();
    let part = ledger.commit_part("2", vec![charge(&alice, 3)], now).await.unwrap();
    assert_eq!(part.shards, [0, 1, 2].into_iter().collect());
    assert_eq!(ledger.cancel("2", 4, &keys, now).await.unwrap()[0].used, 3);
}

#[tokio::test]
async fn hits_in_several_shards_are_all_or_nothing() {
    let redis = Redis::start();
    let (ledger, now) = (in_shards(&redis, 0, 100, 0), Moment::now());
    let [alice, bob, _] = users();
    let hit = |key: &Arc<Key>, need, charge, when| Hit {
        key: Arc::clone(key),
        max: MAX,
        need,
        charge,
        when,
        enforced: true,
        warn_at: None,
    };
    let hits = vec![hit(&alice, 1, 10, When::Admitted), hit(&bob, 1, 990, When::Admitted)];
    let outcome = ledger.hit(hits, now).await.unwrap();
    let told: Vec<_> = outcome.statuses.iter().map(|it| (it.limited, it.remaining, it.used)).collect();
    assert_eq!((outcome.admitted, told), (true, vec![(false, 990, 10), (false, 10, 990)]));
    let refused = vec![
        hit(&alice, 1, 10, When::Admitted),
        hit(&bob, 11, 11, When::Admitted),
        hit(&alice, 1, 3, When::Always),
    ];
    let outcome = ledger.hit(refused, now).await.unwrap();
    let told: Vec<_> = outcome.statuses.iter().map(|it| (it.limited, it.used)).collect();
    assert_eq!((outcome.admitted, told), (false, vec![(false, 10), (true, 990), (false, 13)]));
    assert_eq!(books(&*ledger, now).await, [(alice, (13, 0)), (bob, (990, 0))].into());
    assert_eq!(ledger.size().await.unwrap().holds, 0);
}

#[tokio::test]
async fn a_background_result_with_charges_in_several_shards_is_charged_once() {
    let redis = Redis::start();
    let ([one, other], faults) = adapters(&redis);
    let (now, [alice, bob, _]) = (Moment::now(), users());
    let price = 1_000_000;
    let tariff =
        Tariff { input: price, cached: price, cache_write: price, cache_write_1h: price, output: price };
    let deferred = DeferredCharge { now: 0, cost: UsageCost { base: 0, tariff, reasoning: price } };
    let tokens = |key| CreationCharge { charge: charge(key, 600), deferred: Some(deferred) };
    let asked = request("carol");
    let charges = || {
        vec![tokens(&alice), tokens(&bob), CreationCharge { charge: charge(&asked.key, 1), deferred: None }]
    };
    let holds = vec![hold(&alice, 100), hold(&bob, 100), asked.clone()];
    assert!(one.reserve("1", holds, now).await.unwrap().admitted);
    let result = StoredResult { id: StoredId::of("resp_1"), input: 30 };
    let parked = one.park("1", result.clone(), charges(), now).await.unwrap();
    assert_eq!(parked, Parking::Parked(Vec::new()));
    assert_eq!(one.park("1", result, charges(), now).await.unwrap(), Parking::AlreadySettled);
    let held = books(&one, now).await;
    assert_eq!(
        held,
        [(Arc::clone(&alice), (0, 100)), (Arc::clone(&bob), (0, 100)), (asked.key.clone(), (1, 0))].into()
    );
    // Several readers see the result, while one shard fails.
    break_the_shard_of(&one, &faults, &bob).await;
    let usage = Usage { input: 30, output: 50, total: 80, ..Usage::default() };
    let seen = || Sighting { id: StoredId::of("resp_1"), usage, is_partial: false, ends: true };
    one.see(seen(), now).await.unwrap_err();
    set_all(&faults, 0);
    let result = other.see(seen(), now).await.unwrap().result.unwrap();
    assert_eq!(result.charges.iter().map(|(_, total)| total).sum::<u64>(), 160);
    assert!(one.see(seen(), now).await.unwrap().charged.is_empty());
    assert_eq!(books(&one, now).await, [(alice, (80, 0)), (bob, (80, 0)), (asked.key, (1, 0))].into());
}

#[tokio::test]
async fn a_raise_in_several_shards() {
    let redis = Redis::start();
    let (ledger, now) = (in_shards(&redis, 0, 100, 0), Moment::now());
    let [alice, bob, _] = users();
    assert!(ledger.reserve("1", vec![hold(&alice, 10), hold(&bob, 10)], now).await.unwrap().admitted);
    let raised = |total| {
        let raise = |key| RaisedHold { key: Arc::clone(key), total, max: MAX, enforced: true };
        [&alice, &bob].map(raise).to_vec()
    };
    assert_eq!(ledger.raise("1", raised(MAX), now).await.unwrap(), Raised::Held);
    assert_eq!(ledger.raise("1", raised(MAX + 1), now).await.unwrap(), Raised::OutOfRoom);
    assert_eq!(ledger.raise("2", raised(5), now).await.unwrap(), Raised::Unknown);
}

#[tokio::test]
async fn each_shard_has_its_own_overflow_bucket_and_the_list_shows_their_sum() {
    let redis = Redis::start();
    let (ledger, now) = (in_shards(&redis, 0, 1, 0), Moment::now());
    let users: Vec<_> = (0..200).map(|user| key(&user.to_string(), Unit::Tokens)).collect();
    for (id, user) in users.iter().enumerate() {
        ledger.commit(&id.to_string(), vec![charge(user, 5)], now).await.unwrap();
    }
    let books = books(&*ledger, now).await;
    let overflow = users[0].overflow();
    assert_eq!(books.values().map(|(used, _)| used).sum::<u64>(), 1000);
    assert_eq!(books.len(), 25, "one bucket per shard, and the sum of the overflow buckets");
    assert_eq!(books[&overflow], ((200 - 24) * 5, 0));
    let reset = ledger.reset(vec![Arc::new(overflow.clone())], now).await.unwrap();
    assert_eq!(reset, [Arc::new(overflow)]);
    assert_eq!(self::books(&*ledger, now).await.len(), 24);
}

/// A request that two adapters may see. It holds in several shards, and is charged what it was promised.
struct Exchange {
    id: String,
    holds: Vec<Hold>,
}

impl Exchange {
    fn random(number: usize, users: &[Arc<Key>]) -> Self {
        let among = 1 + fastrand::usize(..users.len());
        let mut chosen = users.to_vec();
        fastrand::shuffle(&mut chosen);
        let mut holds: Vec<_> = chosen[..among].iter().map(|key| hold(key, fastrand::u64(1..80))).collect();
        if fastrand::bool() {
            holds.push(request(["alice", "bob", "carol"][fastrand::usize(..3)]));
        }
        Self { id: number.to_string(), holds }
    }

    /// Plays the exchange as a filter does. Returns what was charged.
    async fn play(self, adapters: Arc<[ShardedLedger<FaultyShard>; 2]>, now: Moment) -> Vec<(Arc<Key>, u64)> {
        let any = || &adapters[fastrand::usize(..2)];
        let (mut admitted, mut is_abandoned) = (None, false);
        for _ in 0..1 + fastrand::usize(..3) {
            let call = any().reserve(&self.id, self.holds.clone(), now);
            // Some calls are abandoned, as if the adapter had crashed between any two of its steps. A filter
            // repeats a call only if it did not get an answer.
            let patience = Duration::from_micros(fastrand::u64(..3000));
            let abandons = fastrand::u8(..4) == 0;
            is_abandoned |= abandons;
            let answered =
                if abandons { tokio::time::timeout(patience, call).await.ok() } else { Some(call.await) };
            if let Some(Ok(outcome)) = answered {
                admitted = Some(outcome.admitted);
                break;
            }
        }
        let is_charged = |hold: &Hold| admitted == Some(true) && (fastrand::bool() || hold.amount == 1);
        let charges = self.holds.iter().map(|hold| match is_charged(hold) {
            true => charge(&hold.key, fastrand::u64(1..=hold.amount)),
            false => charge(&hold.key, 0),
        });
        let charges: Vec<_> = charges.collect();
        // An abandoned call may still be on its way.
        if admitted != Some(false) || is_abandoned {
            loop {
                let call = any().commit(&self.id, charges.clone(), now);
                let patience = Duration::from_micros(fastrand::u64(..2000));
                let acknowledged = if fastrand::u8(..8) > 0 {
                    call.await.is_ok()
                } else {
                    matches!(tokio::time::timeout(patience, call).await, Ok(Ok(_)))
                };
                if acknowledged {
                    break;
                }
            }
        }
        charges.into_iter().map(|charge| (charge.key, charge.amount)).collect()
    }
}

/// Shards fail before or after they execute a call, adapters crash between any two steps, and calls are repeated
/// at another adapter. No limit is ever exceeded, and in the end each charge is there once, and no hold is left.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_no_limit_is_exceeded_and_every_charge_is_made_once() {
    let redis = Redis::start();
    let (adapters, faults) = adapters(&redis);
    let (adapters, now) = (Arc::new(adapters), Moment::now());
    let observer = in_shards(&redis, 0, 1000, 0);
    let month = Window::Fixed(MINUTE * 60 * 24 * 30);
    for round in 0..6 {
        redis.command(&["FLUSHALL"]);
        let users: Vec<_> = (0..4)
            .map(|user| key_of(&format!("{round}-{user}"), Unit::Tokens, month.clone()))
            .chain([Arc::new(Key { counters: Arc::from([]), ..(*key("", Unit::Tokens)).clone() })])
            .collect();
        set_all(&faults, [0, 10, 50][round % 3]);
        let mut exchanges = JoinSet::new();
        for number in 0..120 {
            exchanges.spawn(Exchange::random(number, &users).play(Arc::clone(&adapters), now));
        }
        let mut charged: BTreeMap<Arc<Key>, u64> = BTreeMap::new();
        while let Some(charges) = exchanges.join_next().await {
            for (key, amount) in charges.unwrap() {
                *charged.entry(key).or_default() += amount;
            }
            if exchanges.len() % 10 > 0 {
                continue;
            }
            for (key, (used, held)) in books(&*observer, now).await {
                assert!(used + held <= MAX, "{used} used and {held} held of {MAX}: {key:?}");
            }
        }
        set_all(&faults, 0);
        for adapter in adapters.iter() {
            adapter.sweep(now).await.unwrap();
        }
        charged.retain(|_, amount| *amount > 0);
        let found = books(&*observer, now).await;
        let used: BTreeMap<_, _> = found.iter().map(|(key, (used, _))| (Arc::clone(key), *used)).collect();
        assert_eq!(used, charged, "round {round}");
        assert!(found.values().all(|(_, held)| *held == 0), "round {round}: {found:?}");
    }
}
