//! When an Envoy dies, the holds of its workers end long before they would expire. What its requests held is
//! charged, since their usage is not known. While an Envoy is running, they stay.

use e2e::adapter::Adapter;
use e2e::artefacts;
use e2e::client::Request;
use e2e::envoy::{Config, typed, write_listener};
use e2e::redis::Redis;
use e2e::upstream::{Answer, Gate, Upstream};
use e2e::world::{CONFIG, World, policy};
use e2e::{jwt, wait};
use serde_json::{Value, json};

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

/// A new configuration of the filter has workers of its own. The previous ones stay until their requests have ended.
#[test]
fn a_request_keeps_its_slot_when_its_listener_is_replaced() {
    let limits = json!({ "slots": { "rates": [{ "limit": 2, "unit": "concurrency" }] } });
    let policies = [policy("llm", json!({ "limits": limits }))];
    let adapter = Adapter::start_as(&policies, &["--storage", "memory", "--worker-grace", "1s"]);
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("slow", Answer::used(3).wait_first(&gate));
    let mut config = Config::read(CONFIG);
    config.cluster("llm", upstream.address());
    config.cluster("limitador-adapter", adapter.grpc());
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("listeners.json");
    let mut listener = config.listener_from(&file);
    let set = |listener: &mut Value, pointer: &str, value: &str| {
        let filter = typed(listener, ".wasm.v3.Wasm").expect("the listener has our filter");
        filter["config"].pointer_mut(pointer).expect("it is there").clone_from(&value.into());
    };
    set(&mut listener, "/vm_config/code/local/filename", &artefacts::wasm().display().to_string());
    write_listener(&file, &listener, 1);
    let envoy = config.start(2);
    wait::until("the plan in every worker", || (envoy.plans() >= 3).then_some(()));
    let slow = Request::chat(5).answered_by("slow").open(envoy.address());
    adapter.wait_for_bucket("slots", "concurrency", "", 0, 1);
    set(&mut listener, "/configuration/value/gateway", "default/gateway");
    write_listener(&file, &listener, 2);
    wait::until("the plan in every new worker", || (envoy.plans() >= 6).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(adapter.bucket("slots", "concurrency", ""), (0, 1));
    gate.open();
    assert_eq!(slow.finish().status, 200);
    adapter.wait_for_bucket("slots", "concurrency", "", 0, 0);
    assert_eq!(adapter.metric("weir_gone_reservations_total", &[]), 0.0);
}
