//! Known bugs of other gateways in counting usage, each described by its effect. The numbers come from the
//! list in which they were collected. `responses.rs` has the whole corpus, and `endings.rs` covers every way
//! that an exchange can end.

use e2e::client::{Request, Response};
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::world::{World, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write as _;

/// Starts a world with a limit of this many tokens for all users. With `optimistic`, each request holds one
/// token.
fn world(limit: u64, optimistic: bool) -> World {
    let mut all = json!({ "rates": [{ "limit": limit, "window": "1h" }] });
    if optimistic {
        all["reservation"] = json!({ "amount": "1" });
    }
    World::build().policy(&policy("llm", json!({ "limits": { "all": all } }))).reading_bodies(100_000).start()
}

const MANY: u64 = 1_000_000;

fn ask(path: &str, body: &Value) -> Request {
    Request::post(path, body)
}

fn chat(extra: &Value) -> Request {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    ask("/v1/chat/completions", &body)
}

fn sse() -> Answer {
    Answer::new(200).header("content-type", "text/event-stream")
}

fn used(world: &World, tokens: u64) {
    world.adapter.wait_for_bucket("all", "tokens", "", tokens, 0);
}

fn passes(world: &World, request: &Request, name: &str, answer: Answer) -> Response {
    world.upstream.on(name, answer);
    let answer = world.send(&request.clone().answered_by(name));
    assert_eq!((answer.status, &answer.cut), (200, &None), "{}", answer.text());
    answer
}

#[test]
fn the_last_byte_does_not_wait_for_the_report() {
    let world = world(MANY, true);
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(10).wait_first(&gate));
    let answer = world.open(&chat(&json!({})).answered_by("slow"));
    world.upstream.wait_for_calls(1);
    world.adapter.freeze();
    gate.open();
    assert_eq!((answer.finish().status, world.upstream.calls()), (200, 1));
    world.adapter.thaw();
    used(&world, 10);
}

#[test]
fn whoever_ends_an_exchange_it_is_settled() {
    let world = world(MANY, true);
    let text = |characters: usize| {
        format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": "x".repeat(characters) } }] }))
    };
    let stream = chat(&json!({ "stream": true }));
    let gate = Gate::default();
    world.upstream.on("client", sse().bytes(text(400)).wait(&gate));
    let mut left = world.open(&stream.clone().answered_by("client"));
    left.body_of(text(400).len());
    left.hang_up();
    // The input "hi" is one token.
    used(&world, 101);
    gate.open();
    let gate = Gate::default();
    world.upstream.on("reset", sse().bytes(text(800)).wait(&gate).reset());
    let mut cut = world.open(&stream.clone().answered_by("reset"));
    cut.body_of(text(800).len());
    gate.open();
    assert!(cut.finish().cut.is_some());
    used(&world, 101 + 201);
    passes(&world, &stream, "trailers", sse().bytes(text(40)).trailers(&[("x-end", "1")]));
    used(&world, 101 + 201 + 11);
}

#[test]
fn usage_counts_wherever_it_stands() {
    let world = world(MANY, true);
    let usage =
        |total: u64| format!("data: {{\"choices\":[{{}}],\"usage\":{{\"total_tokens\":{total}}}}}\n\n");
    let other = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let streams = [
        format!("{}{other}{other}{other}data: [DONE]\n\n", usage(5)),
        format!("{other}{}{other}", usage(5)),
        format!("{other}{}", usage(5)),
        usage(5),
        usage(5).trim_end().to_owned(),
    ];
    for (at, stream) in streams.iter().enumerate() {
        passes(&world, &chat(&json!({ "stream": true })), "usage", sse().bytes(stream.as_str()));
        used(&world, 5 * (at as u64 + 1));
    }
}

#[test]
fn a_character_split_over_two_pieces_loses_neither() {
    let world = world(MANY, true);
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"水😀\"}}],\"usage\":{\"total_tokens\":5}}\n\n"
        .as_bytes();
    let at = event.iter().position(|byte| *byte > 0x7f).unwrap();
    for (count, split) in (at + 1..at + 7).enumerate() {
        let gate = Gate::default();
        world.upstream.on("split", sse().bytes(&event[..split]).wait(&gate).bytes(&event[split..]));
        let mut answer = world.open(&chat(&json!({ "stream": true })).answered_by("split"));
        assert_eq!(answer.body_of(split), &event[..split]);
        gate.open();
        assert_eq!(answer.finish().body, event);
        used(&world, 5 * (count as u64 + 1));
    }
}

#[test]
fn what_is_compressed_or_split_is_read() {
    let world = world(MANY, true);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let body = e2e::llm::completion("m", "Hello.", 3, 4).to_string();
    encoder.write_all(body.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let head = Answer::new(200).header("content-type", "application/json").header("content-encoding", "gzip");
    let answer = packed.chunks(1).fold(head, |answer, byte| answer.bytes(byte));
    assert_eq!(passes(&world, &chat(&json!({})), "gzip", answer).body, packed);
    used(&world, 7);
}

#[test]
fn streams_of_completions_are_counted() {
    let world = world(MANY, true);
    let request = ask("/v1/completions", &json!({ "model": "m", "prompt": "hi", "stream": true }));
    let chunk = "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":null}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"total_tokens\":9}}\n\n";
    let stream = format!("{chunk}{usage}data: [DONE]\n\n");
    let answer = passes(&world, &request, "completion", sse().bytes(stream));
    assert_eq!(answer.text(), format!("{chunk}data: [DONE]\n\n"));
    let seen: Value = serde_json::from_slice(&world.upstream.seen().pop().unwrap().body).unwrap();
    assert_eq!(seen["stream_options"], json!({ "include_usage": true }));
    used(&world, 9);
}

#[test]
fn peers_10_and_11_no_stream_options_are_a_way_round_and_none_are_lost() {
    let world = world(MANY, true);
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":9}}\n\n";
    let stream = format!("{chunk}{usage}data: [DONE]\n\n");
    let options = [
        (json!({}), json!({ "include_usage": true })),
        (Value::Null, json!({ "include_usage": true })),
        (json!({ "include_usage": false }), json!({ "include_usage": true })),
        (
            json!({ "include_obfuscation": false }),
            json!({ "include_obfuscation": false, "include_usage": true }),
        ),
    ];
    for (at, (sent, expected)) in options.into_iter().enumerate() {
        let request = chat(&json!({ "stream": true, "stream_options": sent }));
        let answer = passes(&world, &request, "stream", sse().bytes(stream.as_str()));
        assert_eq!(answer.text(), format!("{chunk}data: [DONE]\n\n"), "the client did not ask");
        let seen: Value = serde_json::from_slice(&world.upstream.seen().pop().unwrap().body).unwrap();
        assert_eq!(seen["stream_options"], expected);
        used(&world, 9 * (at as u64 + 1));
    }
    let asks = chat(&json!({ "stream": true, "stream_options": { "include_usage": true } }));
    assert_eq!(passes(&world, &asks, "stream", sse().bytes(stream.as_str())).text(), stream);
}

#[test]
fn cumulative_reports_are_not_added_up() {
    let world = world(MANY, true);
    let chunk = |total: u64| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}],\"usage\":{{\"prompt_tokens\":1,\"total_tokens\":{total}}}}}\n\n"
        )
    };
    let stream: String = (2..20).map(chunk).collect();
    passes(&world, &chat(&json!({ "stream": true })), "cumulative", sse().bytes(stream));
    used(&world, 19);
}

#[test]
fn refusals_use_nothing_and_a_client_does_not_choose_its_hold() {
    let rates = json!([{ "limit": 100, "window": "1m" }, { "limit": 5, "window": "1h", "unit": "requests" }]);
    let limits = json!({ "all": { "rates": rates } });
    let world =
        World::build().policy(&policy("llm", json!({ "limits": limits }))).reading_bodies(100_000).start();
    for _ in 0..10 {
        assert_eq!(world.send(&chat(&json!({ "max_tokens": 500 }))).status, 413);
    }
    assert_eq!(world.adapter.bucket("all", "requests", ""), (0, 0));
    // An invalid maximum counts as none. The output is then estimated at 25, the lower of a quarter of the
    // limit and 1024.
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(90).wait_first(&gate));
    for maximum in [json!(-1_000_000), json!("5"), json!(1e300)] {
        let calls = world.upstream.calls();
        let waiting = world.open(&chat(&json!({ "max_tokens": maximum })).answered_by("slow"));
        world.upstream.wait_for_calls(calls + 1);
        let (_, held) = world.adapter.bucket("all", "tokens", "");
        assert!((26..=27).contains(&held), "{maximum}: {held}");
        waiting.hang_up();
        wait::until("the end", || (world.adapter.bucket("all", "tokens", "").1 == 0).then_some(()));
    }
    gate.open();
    passes(&world, &chat(&json!({ "max_tokens": 10 })), "90", Answer::used(90));
    used(&world, 93);
    // The header contains the time until this window ends, not the window's length.
    wait::until("a shorter time", || {
        let refused = world.send(&chat(&json!({ "max_tokens": 50 })));
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(refused.status == 429 && after <= 60);
        (after < 59).then_some(())
    });
}
