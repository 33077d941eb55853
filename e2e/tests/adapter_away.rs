//! What happens when the adapter is slow, stopped, or gone.

use e2e::client::Request;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, per_user, policy};
use e2e::{jwt, wait};
use serde_json::json;
use std::time::Duration;

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })))
}

fn world(failure_mode: &str) -> World {
    let spec = json!({ "failureMode": failure_mode, "limits": { "per-user": per_user(1_000) } });
    let short = |plugin: &mut serde_json::Value| plugin["adapter"]["timeout"] = "200ms".into();
    let world = World::build().policy(&policy("llm", spec)).plugin(short).start();
    world.upstream.on("100", Answer::used(100));
    world
}

#[test]
fn a_stopped_adapter_delays_no_response_and_is_told_once_later() {
    let world = world("Allow");
    let gate = Gate::default();
    world.upstream.on("gated", Answer::used(100).wait_first(&gate));
    let request = world.open(&alice().answered_by("gated"));
    world.upstream.wait_for_calls(1);
    world.adapter.freeze();
    gate.open();
    let answer = request.finish();
    assert_eq!((answer.status, &answer.cut), (200, &None));
    let delay = answer.finished.saturating_duration_since(world.upstream.last_answered());
    println!("the last byte took {delay:?} from the upstream to the client");
    assert!(delay < Duration::from_millis(250), "{delay:?}");
    // The filter resends commits, so they arrive twice and must be charged once.
    wait::until("another try to settle", || {
        (world.envoy.stat("wasmcustom.weir_commits_retried") > 0).then_some(())
    });
    world.adapter.thaw();
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 200, 0);
}

#[test]
fn without_the_adapter_allow_passes_and_counts() {
    let mut world = world("Allow");
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    world.adapter.kill();
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    assert_eq!(world.upstream.calls(), 2);
    let failed_open = world.envoy.stats("weir_failed_open");
    assert!(failed_open.lines().any(|line| line.ends_with(": 1")), "{failed_open}");
}

#[test]
fn without_the_adapter_deny_answers_503_and_says_why() {
    let mut world = world("Deny");
    world.adapter.kill();
    let refused = world.send(&alice());
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("content-type"), Some("application/json"));
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "rate_limiter_unavailable", "{error}");
    assert!(error["message"].as_str().unwrap().contains("could not be checked"), "{error}");
    assert_eq!(world.upstream.calls(), 0);
    let failed_closed = world.envoy.stats("weir_failed_closed");
    assert!(failed_closed.lines().any(|line| line.ends_with(": 1")), "{failed_closed}");
}

#[test]
fn an_adapter_that_answers_nobody_costs_a_request_its_timeout_and_no_more() {
    let world = world("Deny");
    world.adapter.freeze();
    let asked = std::time::Instant::now();
    let refused = world.send(&alice());
    let waited = refused.finished - asked;
    println!("refused after {waited:?}");
    assert_eq!(refused.status, 503);
    // The request waited, but not forever. Envoy's timers start when its event loop last woke up, so a
    // timeout slightly below 200 ms is also correct.
    assert!(waited >= Duration::from_millis(150) && waited < Duration::from_secs(2), "{waited:?}");
    world.adapter.thaw();
    // The adapter did take the hold, which is then released.
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 0);
}

#[test]
fn a_restarted_adapter_is_found_again_and_hears_what_it_missed() {
    let mut world = world("Allow");
    world.adapter.kill();
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    world.adapter.restart();
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    let before = world.envoy.stat("wasmcustom.weir_admitted");
    wait::until("an admission by the new adapter", || {
        assert_eq!(world.send(&alice().answered_by("100")).status, 200);
        (world.envoy.stat("wasmcustom.weir_admitted") > before).then_some(())
    });
    let used = world.upstream.calls() as u64 * 100;
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", used, 0);
}

#[test]
fn before_the_first_plan_the_plugin_configuration_decides() {
    for (failure_mode, status) in [("Allow", 200), ("Deny", 503)] {
        let upstream = e2e::upstream::Upstream::start();
        let mut config = e2e::envoy::Config::read(e2e::world::CONFIG);
        config.cluster("llm", upstream.address());
        config.cluster("limitador-adapter", ([127, 0, 0, 1], e2e::process::free_port()).into());
        config.plugin(|plugin| plugin["failureMode"] = failure_mode.into());
        let envoy = config.start(1);
        assert_eq!(alice().send(envoy.address()).status, status, "{failure_mode}");
    }
}

#[test]
fn an_adapter_told_to_end_answers_who_waits_and_ends_well() {
    let mut world = world("Allow");
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    let told = std::time::Instant::now();
    // Meanwhile, Envoy's threads wait for a plan for up to 30 s.
    let status = world.adapter.terminate();
    println!("ended after {:?}", told.elapsed());
    assert!(status.success(), "{status}: {}", world.adapter.log());
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
}
