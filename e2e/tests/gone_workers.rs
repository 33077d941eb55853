//! When an Envoy dies, the holds of its workers end long before they would expire. What its requests held is
//! charged, since their usage is not known.

use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::redis::Redis;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, policy};
use e2e::{jwt, wait};
use serde_json::json;

/// Kills an Envoy with running requests. The adapter keeps its counters in this storage.
fn its_holds_end(storage: &str) {
    let counters = json!([{ "expression": "auth.identity.userid" }]);
    let slots = json!({ "counters": counters, "rates": [{ "limit": 2, "unit": "concurrency" }] });
    let tokens = json!({
        "counters": counters,
        "reservation": { "amount": "400" },
        "rates": [{ "limit": 1_000, "window": "1h" }]
    });
    let mut released = tokens.clone();
    released["reservation"]["onLapse"] = json!("Release");
    let limits = json!({ "slots": slots, "tokens": tokens, "released": released });
    let policy = policy("llm", json!({ "limits": limits }));
    let adapter = Adapter::start_as(&[policy], &["--storage", storage, "--worker-grace", "2s"]);
    let mut world = World::build().workers(2).start_with(adapter);
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(3).wait_first(&gate));
    world.upstream.on("quick", Answer::used(3));
    let alice = Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })));
    assert_eq!(world.send(&alice.clone().answered_by("quick")).status, 200);
    // The next requests may reach the other worker, which does not wait for this worker's commits.
    world.adapter.wait_for_bucket("tokens", "tokens", "alice", 3, 0);
    let slow = alice.answered_by("slow");
    let open = [world.open(&slow), world.open(&slow)];
    world.upstream.wait_for_calls(3);
    world.adapter.wait_for_bucket("slots", "concurrency", "alice", 0, 2);
    world.adapter.wait_for_bucket("tokens", "tokens", "alice", 3, 800);
    // The holds remain as long as the Envoy is running.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(world.adapter.bucket("tokens", "tokens", "alice"), (3, 800));
    world.envoy.kill();
    drop(open);
    wait::until("the holds to end", || {
        let held = world.adapter.counters().iter().map(|counter| counter.held).sum::<u64>();
        (held == 0).then_some(())
    });
    assert_eq!(world.adapter.bucket("tokens", "tokens", "alice"), (803, 0));
    assert_eq!(world.adapter.bucket("released", "tokens", "alice"), (3, 0));
    assert_eq!(world.adapter.metric("weir_lapsed_holds_total", &["charged"]), 2.0);
    assert_eq!(world.adapter.metric("weir_lapsed_holds_total", &["released"]), 4.0);
    assert_eq!(world.adapter.metric("weir_lapsed_charged_total", &["tokens"]), 800.0);
    assert_eq!(world.adapter.metric("weir_gone_reservations_total", &[]), 2.0);
    gate.open();
}

#[test]
fn the_holds_of_an_envoy_that_was_killed_end() {
    its_holds_end("memory");
}

#[test]
fn and_so_they_do_in_a_redis() {
    let redis = Redis::start();
    its_holds_end(&redis.url(0));
}
