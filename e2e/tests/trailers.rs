//! Bodies with trailers pass through a filter that edits them, and no byte is lost.

use e2e::client::Request;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, policy};
use serde_json::json;

fn world() -> World {
    let limits = json!({ "all": { "rates": [{ "limit": 1_000_000_000, "window": "1h" }] } });
    World::build().policy(&policy("llm", json!({ "limits": limits }))).reading_bodies(100_000).start()
}

/// Builds a request for a stream for which the filter requests usage, so that it watches for the usage chunk.
fn stream(answer: &str) -> Request {
    Request::new("POST", "/v1/chat/completions")
        .header("content-type", "application/json")
        .body(&br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#[..])
        .answered_by(answer)
}

const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";

#[test]
fn an_unfinished_event_before_trailers_reaches_the_client() {
    let world = world();
    let endings = [
        "d",
        "data: {\"id\":\"c\",\"obj",
        "data: {\"id\":\"c\"}",
        "data: {\"id\":\"c\",\"choices\":[],\"usage\":null}\n",
        "event: error\ndata: {\"error\":{\"message\":\"overloaded\"}}\n",
    ];
    for (at, ending) in endings.into_iter().enumerate() {
        let gate = Gate::default();
        let name = format!("unfinished-{at}");
        let answer = Answer::new(200).header("content-type", "text/event-stream").bytes(DELTA).wait(&gate);
        world.upstream.on(&name, answer.bytes(ending).trailers(&[("x-end", "yes")]));
        let mut answer = world.open(&stream(&name));
        // The event before the usage chunk is not delayed.
        assert_eq!(answer.body_of(DELTA.len()), DELTA.as_bytes());
        gate.open();
        let answer = answer.finish();
        assert_eq!((answer.text(), &answer.cut), (format!("{DELTA}{ending}"), &None));
        assert_eq!(answer.trailers, [("x-end".to_owned(), "yes".to_owned())]);
    }
    world.adapter.wait_for_bucket("all", "tokens", "", 5 * (1 + 1), 0);
}

/// Envoy forwards either a whole chunk or nothing, and a filter cannot append to a body when its trailers
/// arrive.
#[test]
fn what_trailers_overtake_is_counted() {
    let world = world();
    let unfinished = "data: {\"id\":\"c\",\"obj";
    let answer = Answer::new(200).header("content-type", "text/event-stream");
    world.upstream.on("both", answer.bytes(format!("{DELTA}{unfinished}")).trailers(&[("x-end", "yes")]));
    let answer = world.send(&stream("both"));
    assert_eq!((answer.text().as_str(), &answer.cut), (DELTA, &None));
    assert_eq!(world.envoy.stat("wasmcustom.weir_response_bytes_lost"), unfinished.len() as u64);
    world.adapter.wait_for_bucket("all", "tokens", "", 2, 0);
    assert_eq!(world.send(&stream("both")).status, 200, "the module lives");
}

#[test]
fn the_usage_chunk_before_trailers_is_taken_out_and_charged() {
    let world = world();
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":7}}";
    for (at, (usage, end)) in [(usage, "\n\n"), (usage, "\n"), (usage, "")].into_iter().enumerate() {
        let gate = Gate::default();
        let name = format!("usage-{at}");
        let answer = Answer::new(200).header("content-type", "text/event-stream").bytes(DELTA).wait(&gate);
        world.upstream.on(&name, answer.bytes(format!("{usage}{end}")).trailers(&[("x-end", "yes")]));
        let mut answer = world.open(&stream(&name));
        answer.body_of(DELTA.len());
        gate.open();
        let answer = answer.finish();
        assert_eq!((answer.text().as_str(), &answer.cut), (DELTA, &None), "{end:?}");
        world.adapter.wait_for_bucket("all", "tokens", "", 7 * (at as u64 + 1), 0);
    }
}

#[test]
fn a_request_that_ends_in_trailers_is_read_and_changed_like_any() {
    let world = world();
    let padded = format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(5000)
    );
    let asked = padded.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1);
    let request = stream("7").body(padded).trailer("x-checksum", "abc");
    world.upstream.on("7", Answer::used(7));
    let answer = world.send(&request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = world.upstream.seen().pop().expect("the request got to the provider");
    assert_eq!(String::from_utf8_lossy(&seen.body), asked);
    assert_eq!(seen.trailers, [("x-checksum".to_owned(), "abc".to_owned())]);
    world.adapter.wait_for_bucket("all", "tokens", "", 7, 0);
}
