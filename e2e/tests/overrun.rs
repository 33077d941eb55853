//! Streams that outgrow their holds, through a real Envoy.

use e2e::client::Request;
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::wire::header;
use e2e::world::{World, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;

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

/// Returns text that is longer than the limit. The filter reads a stream a few KiB at a time, so a comment
/// fills that buffer.
fn first() -> String {
    format!(": {}\n\n{}", "x".repeat(5000), delta(&"four".repeat(200)))
}

/// Returns an answer with text beyond the limit, and with the rest after the gate opens.
fn answer(gate: &Gate) -> Answer {
    let answer = Answer::new(200).header("content-type", "text/event-stream");
    let rest = format!("{}{}{USAGE}data: [DONE]\n\n", delta("more"), delta("and more"));
    answer.bytes(first()).wait(gate).bytes(rest)
}

/// Returns the charge once nothing is held.
fn charged(world: &World) -> u64 {
    wait::until("the end of the hold", || {
        let (used, held) = world.adapter.bucket("all", "tokens", "");
        (held == 0).then_some(used)
    })
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
    // Other requests see the stream's usage.
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
    // The provider bills the whole response.
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

#[test]
fn a_client_that_asks_for_compression_is_cut_all_the_same() {
    let world = world("Cut");
    let gate = Gate::default();
    world.upstream.on("long", answer(&gate));
    let mut cut = world.open(&request().header("accept-encoding", "gzip, identity;q=0"));
    cut.body_of(first().len());
    wait::until("a raise that is refused", || {
        (world.envoy.stat("wasmcustom.weir_raises_refused") == 1).then_some(())
    });
    let seen = world.upstream.seen();
    let [seen] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(header(&seen.headers, "accept-encoding"), Some("identity"));
    gate.open();
    let cut = cut.finish();
    assert!(cut.cut.is_none() && cut.text().ends_with("data: [DONE]\n\n"), "{}", cut.text());
}

#[test]
fn a_stream_that_is_compressed_all_the_same_is_reset() {
    let world = world("Cut");
    let gate = Gate::default();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(delta(&"four".repeat(1500)).as_bytes()).expect("compressing");
    gzip.flush().expect("compressing");
    let begun = gzip.get_ref().clone();
    gzip.write_all(format!("{}{USAGE}data: [DONE]\n\n", delta("more")).as_bytes()).expect("compressing");
    let rest = gzip.finish().expect("compressing").split_off(begun.len());
    let answer =
        Answer::new(200).header("content-type", "text/event-stream").header("content-encoding", "gzip");
    world.upstream.on("long", answer.bytes(begun.clone()).wait(&gate).bytes(rest));
    let mut cut = world.open(&request());
    assert_eq!(cut.body_of(begun.len()), begun);
    // The upstream sends nothing more. The filter itself ends the stream.
    let cut = cut.finish();
    assert_eq!((cut.status, cut.body), (200, begun));
    assert!(cut.cut.is_some(), "it has no proper end");
    let stat = |name: &str| world.envoy.stat(&format!("wasmcustom.weir_{name}"));
    assert_eq!((stat("raises_refused"), stat("streams_cut"), stat("streams_reset")), (1, 0, 1));
    // The delivered text is charged, and nothing is held.
    let charged = charged(&world);
    assert!((1500..1530).contains(&charged), "{charged}");
    gate.open();
    assert_eq!(world.send(&request()).status, 429);
    assert_eq!(world.envoy.stat("server.live"), 1);
}

#[test]
fn a_stream_of_an_unknown_api_is_reset() {
    let world = world("Cut");
    let gate = Gate::default();
    let unknown = format!("data: {}\n\n", json!({ "answer": "four".repeat(1500) }));
    let answer = Answer::new(200).header("content-type", "text/event-stream");
    world.upstream.on("long", answer.bytes(unknown.clone()).wait(&gate).bytes(unknown.clone()));
    let mut cut = world.open(&request());
    cut.body_of(unknown.len());
    wait::until("a raise that is refused", || {
        (world.envoy.stat("wasmcustom.weir_raises_refused") == 1).then_some(())
    });
    gate.open();
    let cut = cut.finish();
    assert_eq!((cut.cut.is_some(), cut.body), (true, unknown.into_bytes()));
    assert_eq!(world.envoy.stat("wasmcustom.weir_streams_reset"), 1);
    let charged = charged(&world);
    assert!((1500..3100).contains(&charged), "{charged}");
}
