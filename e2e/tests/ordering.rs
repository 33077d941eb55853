//! A worker settles every exchange that has ended before its next Reserve is evaluated. As a result, a
//! request is never refused because of an earlier request of the same client that has already been answered.

use e2e::client::Request;
use e2e::envoy::Config;
use e2e::redis::Redis;
use e2e::upstream::Answer;
use e2e::world::{Builder, World, policy};
use e2e::{jwt, llm};
use serde_json::{Value, json};

const REQUESTS: usize = 40;

/// Builds a world with two limits that have room for one request at a time: one of concurrency, and one of
/// tokens.
fn one_at_a_time() -> Builder {
    let counters = json!([{ "expression": "auth.identity.userid" }]);
    let of_concurrency = json!({ "counters": counters, "rates": [{ "limit": 1, "unit": "concurrency" }] });
    let of_tokens = json!({
        "counters": counters,
        "reservation": { "amount": "1000" },
        "rates": [{ "limit": 1000 + REQUESTS * 3, "window": "1h" }]
    });
    let spec = json!({ "failureMode": "Deny", "limits": { "one": of_concurrency, "tokens": of_tokens } });
    World::build().policy(&policy("llm", spec))
}

/// Sends each request as soon as the previous one is answered.
fn none_is_refused(world: &World, answers: &[Answer]) {
    for (kind, answer) in answers.iter().enumerate() {
        world.upstream.on("answer", answer.clone());
        let alice = Request::chat(5).token(&jwt::token(&json!({ "userid": format!("alice-{kind}") })));
        let alice = alice.answered_by("answer");
        let refused = (0..REQUESTS).filter(|_| world.send(&alice).status != 200).count();
        assert_eq!(refused, 0, "of {REQUESTS} in answer {kind}");
        let used = 3 * REQUESTS as u64;
        world.adapter.wait_for_bucket("tokens", "tokens", &format!("alice-{kind}"), used, 0);
    }
}

/// Returns a short response, a long one, and a stream.
fn answers() -> [Answer; 3] {
    let long = llm::completion("gpt-4o", &"long ".repeat(60_000), 1, 2);
    let event = |event: Value| format!("data: {event}\n\n");
    let delta = event(json!({ "choices": [{ "index": 0, "delta": { "content": "Hi" } }] }));
    let usage = event(json!({
        "choices": [], "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 }
    }));
    let stream = Answer::new(200).header("content-type", "text/event-stream");
    [Answer::used(3), Answer::json(200, &long), stream.bytes(format!("{delta}{usage}data: [DONE]\n\n"))]
}

/// Configures a proxy in front of the adapter, with changes to the route of the stream.
fn proxy(change: impl FnOnce(&mut Value)) -> Config {
    let mut config = Config::read("e2e/adapter-proxy.yaml");
    let manager = config.typed(".HttpConnectionManager");
    change(&mut manager["route_config"]["virtual_hosts"][0]["routes"][0]);
    config
}

#[test]
fn a_client_that_asks_again_at_once_is_not_refused_because_of_its_last_request() {
    none_is_refused(&one_at_a_time().start(), &answers());
}

#[test]
fn nor_if_the_counters_are_in_a_redis() {
    let redis = Redis::start();
    none_is_refused(&one_at_a_time().storage(&redis.url(0)).start(), &answers());
}

#[test]
fn nor_by_an_adapter_that_is_asked_call_by_call() {
    let unknown = |route: &mut Value| {
        route.as_object_mut().unwrap().remove("route");
        route["direct_response"] = json!({ "status": 404 });
    };
    none_is_refused(&one_at_a_time().between(proxy(unknown)).start(), &answers());
}

#[test]
fn nor_while_the_stream_to_the_adapter_ends_again_and_again() {
    let short = |route: &mut Value| {
        route["route"]["max_stream_duration"] = json!({ "max_stream_duration": "0.05s" });
    };
    none_is_refused(&one_at_a_time().between(proxy(short)).start(), &answers());
}
