//! Request bodies that a real Envoy buffers. They are read in every encoding, and are forwarded unchanged
//! unless Weir must edit them.

use e2e::client::{Request, Response};
use e2e::upstream::{Answer, Seen};
use e2e::wait;
use e2e::world::{World, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write as _;

const MOST: usize = 100_000;

fn world() -> World {
    with_limits(json!({
        "small": { "when": [{ "predicate": "llm.model == 'small'" }], "rates": [{ "limit": 1000, "window": "1h" }] },
        "users": { "rates": [{ "limit": 1_000_000_000, "window": "1h" }] }
    }))
}

fn with_limits(limits: serde_json::Value) -> World {
    World::build().policy(&policy("llm", json!({ "limits": limits }))).reading_bodies(MOST).start()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn post(body: &[u8]) -> Request {
    Request::new("POST", "/v1/chat/completions").header("content-type", "application/json").body(body)
}

fn send(world: &World, request: &Request) -> (Response, Seen) {
    let response = world.send(request);
    (response, world.upstream.seen().pop().expect("the request got to the provider"))
}

fn header<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    seen.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_compressed_body_is_read_and_passed_on_as_it_came() {
    let world = world();
    let large =
        json!({ "model": "small", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 5000 });
    let refused = world.send(&post(&gzip(large.to_string().as_bytes())).header("content-encoding", "gzip"));
    assert_eq!((refused.status, world.upstream.calls()), (413, 0), "{}", refused.text());
    let fits =
        json!({ "model": "small", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 50 });
    let packed = gzip(fits.to_string().as_bytes());
    let (response, seen) = send(&world, &post(&packed).header("content-encoding", "gzip"));
    assert_eq!((response.status, &seen.body), (200, &packed));
    assert_eq!(header(&seen, "content-encoding"), Some("gzip"));
    assert_eq!(header(&seen, "content-length"), Some(packed.len().to_string().as_str()));
}

#[test]
fn a_compressed_body_that_has_to_ask_for_usage_goes_on_plain() {
    let world = world();
    let body = br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let (response, seen) = send(&world, &post(&gzip(body)).header("content-encoding", "gzip"));
    let asked = r#"{"stream_options":{"include_usage":true},"#;
    let expected = [asked.as_bytes(), &body[1..]].concat();
    assert_eq!((response.status, &seen.body), (200, &expected));
    assert_eq!(header(&seen, "content-encoding"), None);
    assert_eq!(header(&seen, "content-length"), Some(expected.len().to_string().as_str()));
    assert_eq!(world.envoy.stat("wasmcustom.weir_usage_asked"), 1);
}

#[test]
fn bodies_made_to_hurt_are_counted_and_passed_on_as_they_came() {
    // A limit on a model applies to these requests, because their model is unknown.
    let world = with_limits(json!({ "users": { "rates": [{ "limit": 1_000_000_000, "window": "1h" }] } }));
    let bomb = gzip(&[b"{\"messages\":\"".to_vec(), vec![b'x'; 300 << 20]].concat());
    let deep = [b"{\"messages\":".to_vec(), vec![b'['; 50_000]].concat();
    let long = format!(r#"{{"model":"m","stream":true,"messages":"{}"}}"#, "x".repeat(2 * MOST)).into_bytes();
    let half = br#"{"model":"m","stream":true,"messages":"hi"#.to_vec();
    let cases = [
        (bomb, Some("gzip"), "cut"),
        (b"no gzip".to_vec(), Some("gzip"), "corrupt"),
        (b"no snappy".to_vec(), Some("snappy"), "encoding"),
        (b"{}".to_vec(), Some("snappy"), "mislabeled"),
        (deep, None, "malformed"),
        (long, None, "cut"),
        (half, None, "malformed"),
        (b"no json".to_vec(), None, "foreign"),
    ];
    for (body, encoding, cause) in cases {
        let stat = format!("wasmcustom.weir_request_errors.cause.{cause}");
        let before = world.envoy.stat(&stat);
        let mut request = post(&body);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let (response, seen) = send(&world, &request);
        assert!(response.status == 200 && seen.body == body, "{cause}: not the client's bytes");
        wait::until(cause, || (world.envoy.stat(&stat) == before + 1).then_some(()));
    }
    let answer = Answer::used(10);
    world.upstream.on("10", answer);
    let after = post(br#"{"messages":"hi"}"#).answered_by("10");
    assert_eq!(world.send(&after).status, 200, "the module lives");
}
