//! Streams that outgrow their holds, through a real Envoy.

use e2e::client::Request;
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::world::{World, policy};
use serde_json::{Value, json};

fn world(overrun: &str) -> World {
    let limits = json!({ "all": {
        "rates": [{ "limit": 100, "window": "1h" }], "reservation": { "amount": "1" }, "overrun": overrun,
    } });
    World::build().policy(&policy("llm", json!({ "limits": limits }))).reading_bodies(100_000).start()
}

fn delta(text: &str) -> String {
    let chunk = json!({
        "id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }],
    });
    format!("data: {chunk}\n\n")
}

const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":391,\"total_tokens\":400}}\n\n";

fn request() -> Request {
    let body = json!({
        "model": "m", "stream": true, "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "hi" }],
    });
    Request::post("/v1/chat/completions", &body).answered_by("long")
}

/// More than the limit. The filter reads a stream some KiB at a time, which the comment fills up.
fn first() -> String {
    format!(": {}\n\n{}", "x".repeat(5000), delta(&"four".repeat(200)))
}

/// More than the limit, and what follows once the gate is open.
fn answer(gate: &Gate) -> Answer {
    let answer = Answer::new(200).header("content-type", "text/event-stream");
    let rest = format!("{}{}{USAGE}data: [DONE]\n\n", delta("more"), delta("and more"));
    answer.bytes(first()).wait(gate).bytes(rest)
}

#[test]
fn a_client_reads_a_stream_that_is_cut_to_a_proper_end() {
    let world = world("Cut");
    let gate = Gate::default();
    world.upstream.on("long", answer(&gate));
    let mut cut = world.open(&request());
    let first = first();
    assert_eq!(cut.body_of(first.len()), first.as_bytes());
    wait::until("a raise that is refused", || {
        (world.envoy.stat("wasmcustom.weir_raises_refused") == 1).then_some(())
    });
    // Others see what it uses.
    assert_eq!(world.send(&request()).status, 429);
    gate.open();
    let cut = cut.finish();
    assert_eq!((cut.status, &cut.cut), (200, &None));
    let text = cut.text();
    let events = text.strip_prefix(&first).expect("what came before the cut").lines();
    let events: Vec<&str> = events.filter_map(|line| line.strip_prefix("data: ")).collect();
    let [last, usage, "[DONE]"] = events.as_slice() else { panic!("{text}") };
    let last: Value = serde_json::from_str(last).expect("a chunk");
    let usage: Value = serde_json::from_str(usage).expect("a chunk");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!((&last["id"], &usage["choices"]), (&json!("c1"), &json!([])));
    assert_eq!(world.envoy.stat("wasmcustom.weir_streams_cut"), 1);
    // The provider bills all of it.
    world.adapter.wait_for_bucket("all", "tokens", "", 400, 0);
}

#[test]
fn a_stream_goes_on_by_default_and_holds_what_it_uses() {
    let world = world("Continue");
    let gate = Gate::default();
    world.upstream.on("long", answer(&gate));
    let mut long = world.open(&request());
    let first = first();
    long.body_of(first.len());
    wait::until("a hold of what was delivered", || {
        let (used, held) = world.adapter.bucket("all", "tokens", "");
        (used == 0 && held >= 200).then_some(())
    });
    gate.open();
    let long = long.finish();
    assert!(
        long.text().ends_with(&format!("{}{USAGE}data: [DONE]\n\n", delta("and more"))),
        "{}",
        long.text()
    );
    world.adapter.wait_for_bucket("all", "tokens", "", 400, 0);
}
