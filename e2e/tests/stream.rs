//! Tests the stream that carries Reserves and Commits to the adapter, and the separate calls that replace it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::client::Request;
use e2e::envoy::Config;
use e2e::upstream::Answer;
use e2e::world::{Builder, World, per_user, policy};
use e2e::{jwt, wait};
use serde_json::{Value, json};

const CALLS: &str = "cluster.limitador-adapter.upstream_rq_total";

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" }))).answered_by("100")
}

fn build() -> Builder {
    let spec = json!({ "failureMode": "Deny", "limits": { "per-user": per_user(1_000_000) } });
    World::build().policy(&policy("llm", spec))
}

fn start(build: Builder) -> World {
    let world = build.start();
    world.upstream.on("100", Answer::used(100));
    world
}

/// Configures a proxy in front of the adapter, with changes to the route of the stream.
fn proxy(change: impl FnOnce(&mut Value)) -> Config {
    let mut config = Config::read("e2e/adapter-proxy.yaml");
    let manager = config.typed(".HttpConnectionManager");
    change(&mut manager["route_config"]["virtual_hosts"][0]["routes"][0]);
    config
}

/// Sends requests one after another. All of them must pass.
fn pass(world: &World, count: usize) {
    for _ in 0..count {
        let answer = world.send(&alice());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn many_requests_share_one_stream() {
    let world = start(build());
    wait::until("the stream", || {
        let before = world.envoy.stat(CALLS);
        pass(&world, 1);
        (world.envoy.stat(CALLS) == before).then_some(())
    });
    let (before, passed) = (world.envoy.stat(CALLS), world.upstream.calls());
    pass(&world, 50);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", (passed as u64 + 50) * 100, 0);
    let calls = world.envoy.stat(CALLS) - before;
    assert!(calls <= 2, "{calls} calls for 50 requests: they did not go through the stream");
}

#[test]
fn an_adapter_without_streams_is_asked_call_by_call() {
    let unknown = |route: &mut Value| {
        route.as_object_mut().unwrap().remove("route");
        route["direct_response"] = json!({ "status": 404 });
    };
    let world = start(build().between(proxy(unknown)));
    let before = world.envoy.stat(CALLS);
    pass(&world, 20);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 2_000, 0);
    assert!(world.envoy.stat(CALLS) - before >= 20);
    let told = world.envoy.stats("weir_call_errors.method.ReserveAndCommit");
    assert!(!told.is_empty(), "that there is no stream is counted");
}

#[test]
fn a_stream_that_ends_again_and_again_loses_nothing() {
    let short = |route: &mut Value| {
        route["route"]["max_stream_duration"] = json!({ "max_stream_duration": "0.05s" });
    };
    let world = start(build().between(proxy(short)));
    let ends = || world.between.as_ref().unwrap().stat("http.adapter.downstream_rq_max_duration_reached");
    // Sends many requests at once, so that some are waiting when the stream ends.
    let client = || {
        wait::until("twenty streams", || {
            pass(&world, 20);
            (ends() >= 20).then_some(())
        });
    };
    std::thread::scope(|threads| {
        (0..8).for_each(|_| drop(threads.spawn(client)));
    });
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", world.upstream.calls() as u64 * 100, 0);
    assert_eq!(
        world.envoy.stats("weir_failed_closed").lines().filter(|line| !line.ends_with(": 0")).count(),
        0
    );
}

#[test]
fn a_request_that_waits_when_the_stream_breaks_is_decided_and_counted() {
    let mut world = start(build());
    pass(&world, 1);
    world.adapter.freeze();
    let waiting = world.open(&alice());
    wait::until("the reserve under way", || {
        (world.envoy.stat("http.gateway.downstream_rq_active") == 1).then_some(())
    });
    world.adapter.kill();
    let refused = waiting.finish();
    assert_eq!(refused.status, 503);
    let counted = world.envoy.stats("weir_failed_closed");
    assert!(counted.lines().any(|line| line.ends_with(": 1")), "{counted}");
}

#[test]
fn garbage_from_the_adapter_is_counted_and_stops_nothing() {
    let long = vec![0xff; 300];
    for message in [&b""[..], b"\xff\xff\xff", b"\x08\x01\x12\x7f", &long] {
        let mut framed = vec![0, 0, 0];
        framed.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        let mut config = proxy(|route| {
            route.as_object_mut().unwrap().remove("route");
            let body = json!({ "inline_bytes": STANDARD.encode(&framed) });
            route["direct_response"] = json!({ "status": 200, "body": body });
            let header = json!({ "key": "content-type", "value": "application/grpc" });
            route["response_headers_to_add"] =
                json!([{ "header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }]);
        });
        // Separate Reserve calls fail in the same way, so there is no fallback.
        let routes =
            &mut config.typed(".HttpConnectionManager")["route_config"]["virtual_hosts"][0]["routes"];
        let mut reserve = routes[0].clone();
        reserve["match"]["prefix"] = "/kuadrant.service.ratelimit.v1.RateLimitService/Reserve".into();
        routes.as_array_mut().unwrap().insert(1, reserve);
        let world = start(build().between(config));
        for _ in 0..5 {
            let refused = world.send(&alice());
            assert_eq!(refused.status, 503, "{}", refused.text());
        }
        assert_eq!(world.envoy.stat("server.live"), 1);
        let failed = world.envoy.stats("weir_failed_closed");
        assert!(failed.lines().any(|line| line.ends_with(": 5")), "{message:?}: {failed}");
        assert_eq!(world.upstream.calls(), 0);
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 0);
    }
}
