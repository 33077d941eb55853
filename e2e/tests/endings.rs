//! However an exchange ends, its hold is released and its usage is charged.

use e2e::client::Request;
use e2e::envoy::Config;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, per_user, policy};
use e2e::{jwt, wait};
use serde_json::json;

fn world() -> (World, Gate) {
    let world = World::with(&policy("llm", json!({ "limits": { "per-user": per_user(1_000_000) } })));
    (world, Gate::default())
}

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })))
}

/// Returns the estimated input of [`alice`]'s request, which is charged if its usage is unknown.
fn input() -> u64 {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let body = json!({ "model": "gpt-4o", "messages": messages, "max_tokens": 5 }).to_string();
    body.len() as u64 / 4
}

/// Creates a stream that has delivered this event.
fn streamed(event: &str) -> Answer {
    Answer::new(200).header("content-type", "text/event-stream").bytes(event)
}

/// Builds an event that delivers this many characters.
fn event(characters: usize) -> String {
    let event = json!({ "choices": [{ "index": 0, "delta": { "content": "x".repeat(characters) } }] });
    format!("data: {event}\n\n")
}

#[test]
fn a_client_that_leaves_before_the_response_leaves_no_hold() {
    let (world, gate) = world();
    world.upstream.on("never", Answer::used(50).wait_first(&gate));
    let request = world.open(&alice().answered_by("never"));
    world.upstream.wait_for_calls(1);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 100);
    request.hang_up();
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", input(), 0);
    gate.open();
}

#[test]
fn a_client_that_leaves_amid_the_response_pays_what_it_got() {
    let (world, gate) = world();
    world.upstream.on("half", streamed(&event(400)).wait(&gate).bytes("data: [DONE]\n\n"));
    let mut request = world.open(&alice().answered_by("half"));
    request.body_of(event(400).len());
    request.hang_up();
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", input() + 100, 0);
    gate.open();
}

#[test]
fn an_upstream_that_never_answers_costs_no_tokens() {
    let (world, _) = world();
    world.upstream.on("reset", Answer::new(200).reset());
    assert_eq!(world.send(&alice().answered_by("reset")).status, 503);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 0);
    assert_eq!(world.envoy.stat("wasmcustom.weir_admitted"), 1);
}

/// A client that Envoy regards as internal chooses Envoy's timeout.
#[test]
fn a_timeout_costs_the_result_that_the_client_can_find_elsewhere() {
    let policy = policy("llm", json!({ "limits": { "per-user": per_user(1_000_000) } }));
    let ranges = json!([{ "address_prefix": "10.0.0.0", "prefix_len": 8 }]);
    let internal = |config: &mut Config| {
        config.typed(".HttpConnectionManager")["internal_address_config"] = json!({ "cidr_ranges": ranges });
    };
    let (world, gate) = (World::build().policy(&policy).change(internal).start(), Gate::default());
    world.upstream.on("never", Answer::used(50).wait_first(&gate));
    let impatient = |request: Request| {
        let token = jwt::token(&json!({ "userid": "alice" }));
        let internal = request.token(&token).header("x-forwarded-for", "10.0.0.1");
        internal.header("x-envoy-upstream-rq-timeout-ms", "100").answered_by("never")
    };
    assert_eq!(world.send(&impatient(Request::chat(5))).status, 504);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 0);
    let body = json!({ "assistant_id": "a", "instructions": "Hi" });
    let run = Request::post("/v1/threads/t/runs", &body);
    assert_eq!(world.send(&impatient(run)).status, 504);
    let input = body.to_string().len() as u64 / 4;
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", input + 1024, 0);
    gate.open();
}

#[test]
fn an_upstream_that_resets_amid_the_response_costs_what_was_delivered() {
    let (world, gate) = world();
    world.upstream.on("reset", streamed(&event(400)).wait(&gate).reset());
    let mut request = world.open(&alice().answered_by("reset"));
    request.body_of(event(400).len());
    gate.open();
    assert!(request.finish().cut.is_some());
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", input() + 100, 0);
}

#[test]
fn an_end_by_trailers_is_an_end() {
    let (world, _) = world();
    world.upstream.on("trailers", Answer::used(42).trailers(&[("x-end", "yes")]));
    assert_eq!(world.send(&alice().answered_by("trailers")).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 42, 0);
}

#[test]
fn an_error_without_usage_costs_no_tokens() {
    let (world, _) = world();
    world.upstream.on("error", Answer::json(500, &json!({ "error": { "message": "overloaded" } })));
    assert_eq!(world.send(&alice().answered_by("error")).status, 500);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 0);
}

#[test]
fn usage_is_read_wherever_the_body_is_split() {
    let (world, _) = world();
    let body = e2e::llm::completion("gpt-4o", "A \"usage\": {\"total_tokens\": 5} in the text.", 3, 4);
    let bytes = body.to_string().into_bytes();
    for at in 1..bytes.len() {
        let gate = Gate::default();
        let head = Answer::new(200).header("content-type", "application/json");
        world.upstream.on("split", head.bytes(&bytes[..at]).wait(&gate).bytes(&bytes[at..]));
        let mut request = world.open(&alice().answered_by("split"));
        // The first part of the response arrives before the upstream sends the rest.
        assert_eq!(request.body_of(at), &bytes[..at]);
        gate.open();
        assert_eq!(request.finish().body, bytes);
    }
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 7 * (bytes.len() as u64 - 1), 0);
}

/// Any response from the provider passes unchanged, the exchange ends, and the module does not trap.
#[test]
fn a_response_may_hold_anything() {
    let (world, _) = world();
    let deep = "[".repeat(50_000);
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("application/json", b"\xff\xfe\x00{\"usage\":".to_vec()),
        ("application/json", deep.clone().into_bytes()),
        ("application/json", format!("{{\"usage\":{deep}").into_bytes()),
        ("application/json", br#"{"usage":{"total_tokens":99999999999999999999999999}}"#.to_vec()),
        ("application/json", br#"{"usage":{"total_tokens":-5,"prompt_tokens":1e400}}"#.to_vec()),
        ("application/json", br#"{"usage":"none","usage":[1],"usage":null}"#.to_vec()),
        ("text/event-stream", b"data: \xff\n\ndata: {\n\n:\n\r\rdata:data:data:".to_vec()),
        ("text/event-stream", vec![b'd'; 300_000]),
        ("application/vnd.amazon.eventstream", vec![0xff; 10_000]),
        ("\u{fc}", (0..=255).collect()),
    ];
    for (at, (content_type, body)) in bodies.into_iter().enumerate() {
        world.upstream.on("odd", Answer::new(200).header("content-type", content_type).bytes(body.clone()));
        let answer = world.send(&alice().answered_by("odd"));
        assert_eq!((answer.status, answer.body == body), (200, true), "body {at}");
    }
    wait::until("every settlement", || {
        world.adapter.counters().iter().all(|counter| counter.held == 0).then_some(())
    });
    let log = world.envoy.log();
    assert!(!log.contains("Wasm VM failed") && !log.contains("panicked"), "{log}");
    assert_eq!(world.send(&alice()).status, 200);
}
