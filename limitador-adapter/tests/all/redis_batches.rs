//! Calls to Redis that wait at the same time are sent together.

use crate::redis::{books, charge, served, tokens};
use e2e::redis::Redis;
use futures::future::{FutureExt, join_all};
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::{ChargeAt, Hold, Ledger, LedgerOutcome, Settled, StorageFault, Unavailable};
use std::sync::Arc;
use std::time::Duration;

/// The number of calls that wait at the same time.
const CALLS: usize = 100;

fn bucket(who: &str) -> String {
    format!(r#"{{weir}}:b:["default/llm/free","tokens","60000",[["auth.identity.userid","{who}"]]]"#)
}

/// Returns the number of functions that Redis has run.
fn calls(redis: &Redis) -> usize {
    let stats = redis.command(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls=")?.split(',').next());
    calls.and_then(|calls| calls.parse().ok()).unwrap_or_default()
}

/// Reserves for each of these users at the same time.
async fn reserve_all(
    ledger: &dyn Ledger,
    users: impl Iterator<Item = String>,
) -> Vec<Result<LedgerOutcome, Unavailable>> {
    let reserve = |user: String| async move {
        ledger.reserve(&format!("of-{user}"), vec![tokens(&user, 100)], Moment::now()).await
    };
    join_all(users.map(reserve)).await
}

fn users() -> impl Iterator<Item = String> {
    (0..CALLS).map(|user| user.to_string())
}

#[tokio::test]
async fn calls_that_wait_are_sent_together() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    assert!(ledger.reserve("first", vec![tokens("first", 1)], Moment::now()).await.unwrap().admitted);
    ledger.commit("first", charge("first", 1), Moment::now()).await.unwrap();

    let before = calls(&redis);
    let outcomes = reserve_all(&*ledger, users()).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().admitted));
    // One is sent at once, and the others in batches of 32.
    assert_eq!(calls(&redis) - before, 1 + 4);

    let before = calls(&redis);
    let commit = |user: String| {
        let ledger = Arc::clone(&ledger);
        async move { ledger.commit(&format!("of-{user}"), charge(&user, 30), Moment::now()).await }
    };
    let settled = join_all(users().map(commit)).await;
    assert!(settled.into_iter().all(|settled| settled == Ok(Settled::Released)));
    assert_eq!(calls(&redis) - before, 1 + 4);
    let books = books(&*ledger).await;
    assert_eq!(books.iter().filter(|one| **one == (30, 0)).count(), CALLS);
    assert_eq!(ledger.size().await.unwrap().holds, 0);
}

#[tokio::test]
async fn the_calls_of_a_batch_are_decided_one_after_another() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    let reserve = |id: usize| {
        let ledger = Arc::clone(&ledger);
        // Every other call repeats the one before it.
        async move {
            ledger.reserve(&(id / 2).to_string(), vec![tokens("alice", 100)], Moment::now()).await.unwrap()
        }
    };
    let outcomes = join_all((0..CALLS).map(reserve)).await;
    let admitted = outcomes.iter().map(|outcome| outcome.admitted);
    assert_eq!(admitted.collect::<Vec<_>>(), (0..CALLS).map(|id| id / 2 < 10).collect::<Vec<_>>());
    assert_eq!(books(&*ledger).await, [(0, 1000)]);
    assert_eq!(ledger.size().await.unwrap().holds, 10);
}

#[tokio::test]
async fn each_call_of_a_batch_has_its_own_terms() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    assert!(ledger.reserve("first", vec![tokens("first", 1)], Moment::now()).await.unwrap().admitted);
    let hold = |user: usize| Hold {
        max: if user.is_multiple_of(2) { 50 } else { 150 },
        enforced: !user.is_multiple_of(3),
        charge_at: if user.is_multiple_of(5) { ChargeAt::Admission } else { ChargeAt::CommitOrLapse },
        ..tokens(&user.to_string(), 100)
    };
    let reserve = |user: usize| {
        let (ledger, hold) = (Arc::clone(&ledger), hold(user));
        async move {
            let key = Arc::clone(&hold.key);
            let outcome = ledger.reserve(&user.to_string(), vec![hold], Moment::now()).await.unwrap();
            (outcome, ledger.read(&[key], Moment::now()).await.unwrap().remove(0))
        }
    };
    for (user, (outcome, reading)) in join_all((0..CALLS).map(reserve)).await.into_iter().enumerate() {
        let Hold { max, enforced, charge_at, .. } = hold(user);
        let status = &outcome.statuses[0];
        assert_eq!((status.max, status.limited), (max, max < 100 && enforced), "{user}");
        assert_eq!(outcome.admitted, !status.limited, "{user}");
        let books = match (outcome.admitted, charge_at) {
            (false, _) => (0, 0),
            (true, ChargeAt::Admission) => (100, 0),
            (true, _) => (0, 100),
        };
        assert_eq!((reading.used, reading.held), books, "{user}");
    }
}

#[tokio::test]
async fn an_error_of_one_call_leaves_the_others_their_answers() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    // Something else has written to the bucket of user 50.
    redis.command(&["LPUSH", &bucket("50"), "1"]);
    for (user, outcome) in reserve_all(&*ledger, users()).await.into_iter().enumerate() {
        match outcome {
            Ok(outcome) => assert!(outcome.admitted && user != 50, "{user}"),
            Err(error) => {
                assert_eq!((user, error.fault), (50, StorageFault::Failed));
                assert!(error.message.starts_with("WRONGTYPE "), "{error}");
            }
        }
    }
    assert_eq!(books(&*ledger).await, [(0, 100); CALLS - 1]);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_no_answer_of_others_along() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    assert!(ledger.reserve("first", vec![tokens("first", 1)], Moment::now()).await.unwrap().admitted);
    let reserve = |user: usize| {
        let ledger = Arc::clone(&ledger);
        async move {
            let id = user.to_string();
            let reserve = ledger.reserve(&id, vec![tokens(&id, 100)], Moment::now());
            // Some of those that go have sent a batch, and some wait.
            if user.is_multiple_of(3) { reserve.now_or_never() } else { Some(reserve.await) }
        }
    };
    let outcomes = join_all((0..CALLS).map(reserve)).await;
    for (user, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Some(outcome) => assert!(outcome.unwrap().admitted),
            None => assert_eq!(user % 3, 0),
        }
    }
}

#[tokio::test]
async fn a_bucket_is_stored_until_its_last_hold_lapses() {
    let redis = Redis::start();
    let ledger = served(&redis.url(0));
    let hour = Duration::from_secs(3600);
    let mut stored_until = Vec::new();
    for (id, ttl) in [hour, hour / 2, 3 * hour].into_iter().enumerate() {
        let hold = Hold { ttl, ..tokens("alice", 1) };
        assert!(ledger.reserve(&id.to_string(), vec![hold], Moment::now()).await.unwrap().admitted);
        let left = redis.command(&["PTTL", &bucket("alice")]);
        let left = Duration::from_millis(left.trim_start_matches(':').parse().unwrap());
        assert!(left > ttl + hour / 2, "{left:?}");
        stored_until.push(left);
    }
    assert!(stored_until[1] > hour, "a shorter hold shortens nothing");
}
