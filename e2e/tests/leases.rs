//! Busy counters: requests are admitted from leases, every token is counted, and the limit stays exact.

use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::redis::Redis;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, policy};
use e2e::{jwt, wait};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })))
}

/// A limit of which each request holds 100 tokens, and another one of the requests that run at once.
fn limited(max: u64, failure_mode: &str) -> String {
    let counters = json!([{ "expression": "auth.identity.userid" }]);
    let tokens = json!({
        "counters": counters,
        "reservation": { "amount": "100" },
        "rates": [{ "limit": max, "window": "1h" }],
    });
    let at_once = json!({ "rates": [{ "limit": 5_000, "unit": "concurrency" }] });
    policy(
        "llm",
        json!({ "failureMode": failure_mode, "limits": { "per-user": tokens, "at-once": at_once } }),
    )
}

/// Two workers. The adapter grants leases.
fn leasing(storage: &str, max: u64) -> World {
    World::build().policy(&limited(max, "Deny")).storage(storage).workers(2).start()
}

/// Sends requests from several clients until each has sent `count` or `is_over`. Returns the number of each status.
fn load(world: &World, clients: usize, count: usize, is_over: &AtomicBool) -> (u64, Vec<u16>) {
    let passed = AtomicU64::new(0);
    let others = std::thread::scope(|scope| {
        let client = || {
            let mut others = Vec::new();
            for _ in 0..count {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                match world.send(&alice().answered_by("quick")).status {
                    200 => drop(passed.fetch_add(1, Ordering::Relaxed)),
                    other => others.push(other),
                }
            }
            others
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client works")).collect()
    });
    (passed.into_inner(), others)
}

static NEVER: AtomicBool = AtomicBool::new(false);

fn leased(adapter: &Adapter) -> u64 {
    adapter.counters().iter().map(|counter| counter.leased).sum()
}

#[test]
fn a_busy_user_is_admitted_from_leases_and_every_token_is_counted() {
    let world = leasing("memory", 10_000_000);
    world.upstream.on("quick", Answer::used(30));
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(70).wait_first(&gate));
    let (passed, others) = load(&world, 4, 100, &NEVER);
    assert_eq!((passed, others), (400, Vec::new()));
    let slow = world.open(&alice().answered_by("slow"));
    wait::until("leases", || (leased(&world.adapter) > 0).then_some(()));
    let asked = || world.adapter.metric("weir_reserves_total", &["admitted"]);
    let before = asked();
    let (passed, others) = load(&world, 4, 100, &NEVER);
    assert_eq!((passed, others), (400, Vec::new()));
    let share = (asked() - before) / 400.0;
    assert!(share < 0.25, "{share} of the requests asked the adapter");
    // The slow request has a hold of its own when the leases have been returned.
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 800 * 30, 100);
    world.adapter.wait_for_bucket("at-once", "concurrency", "", 0, 1);
    assert_eq!(leased(&world.adapter), 0);
    gate.open();
    assert_eq!(slow.finish().status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 800 * 30 + 70, 0);
    let told = world.send(&alice().answered_by("quick"));
    assert_eq!(told.header("x-ratelimit-limit-tokens"), Some("10000000"));
    let remaining: u64 =
        told.header("x-ratelimit-remaining-tokens").expect("it is told").parse().expect("a number");
    assert_eq!(remaining, 10_000_000 - (800 * 30 + 70) - 100);
    assert!(world.envoy.stats("weir_admitted_from_leases").lines().any(|line| !line.ends_with(": 0")));
}

/// Two gateways with leases of the same counter, and so many requests that the limit is reached.
fn the_whole_limit_is_used_and_no_more(storage: &str) {
    let worlds = [leasing(storage, 100_000), leasing(storage, 100_000)];
    let gate = Gate::default();
    for world in &worlds {
        world.upstream.on("quick", Answer::used(100));
        world.upstream.on("slow", Answer::used(100).wait_first(&gate));
    }
    std::thread::scope(|scope| {
        for world in &worlds {
            scope.spawn(|| assert_eq!(load(world, 4, 123, &NEVER), (492, Vec::new())));
        }
    });
    let calls = |world: &World| world.upstream.calls();
    let before: usize = worlds.iter().map(calls).sum();
    let leases: f64 =
        worlds.iter().map(|world| world.adapter.metric("weir_leases_total", &["granted"])).sum();
    assert!(leases > 0.0, "there were leases");
    // There is room for sixteen. Some of it is still leased.
    let on_their_way: Vec<_> = (0..64).map(|n| worlds[n % 2].open(&alice().answered_by("slow"))).collect();
    wait::until("48 refusals", || {
        let answered = on_their_way.iter().filter(|request| request.answered()).count();
        (answered >= 48).then_some(())
    });
    wait::until("16 calls", || (worlds.iter().map(calls).sum::<usize>() >= before + 16).then_some(()));
    gate.open();
    let statuses: Vec<_> = on_their_way.into_iter().map(|request| request.finish().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 16, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 48, "{statuses:?}");
    worlds[0].adapter.wait_for_bucket("per-user", "tokens", "alice", 100_000, 0);
}

#[test]
fn of_sixty_four_at_once_over_two_gateways_with_leases_as_many_pass_as_there_is_room_for() {
    let redis = Redis::start();
    the_whole_limit_is_used_and_no_more(&redis.url(0));
}

#[test]
fn an_adapter_that_stops_for_two_seconds_refuses_nobody_who_has_a_lease() {
    let world = leasing("memory", 10_000_000);
    world.upstream.on("quick", Answer::used(30).pause(Duration::from_millis(20)));
    let is_over = AtomicBool::new(false);
    let (passed, others) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&world, 6, usize::MAX, &is_over));
        wait::until("leases", || (leased(&world.adapter) > 10_000).then_some(()));
        // Another lease is requested before the first is used up.
        std::thread::sleep(Duration::from_secs(2));
        world.adapter.freeze();
        let before = world.upstream.calls();
        std::thread::sleep(Duration::from_secs(2));
        assert!(world.upstream.calls() > before + 50, "requests pass without the adapter");
        world.adapter.thaw();
        std::thread::sleep(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        loading.join().expect("the load works")
    });
    assert_eq!(others, Vec::<u16>::new());
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", passed * 30, 0);
    world.adapter.wait_for_bucket("at-once", "concurrency", "", 0, 0);
}
