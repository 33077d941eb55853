//! Request bodies with incorrect headers, or that the filter does not buffer, through a real Envoy.

use e2e::client::{Request, Response};
use e2e::upstream::{Answer, Seen};
use e2e::wait;
use e2e::wire;
use e2e::world::{World, policy};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MOST: usize = 100_000;

fn policy_text(outputs: &str) -> String {
    let limits = json!({
        "small": { "when": [{ "predicate": "llm.model == 'small'" }], "rates": [{ "limit": 1000, "window": "1h" }] },
        "all": { "rates": [{ "limit": 1_000_000, "window": "1h" }], "outputCap": outputs }
    });
    policy("llm", json!({ "limits": limits }))
}

fn world(outputs: &str) -> World {
    World::build().policy(&policy_text(outputs)).reading_bodies(MOST).start()
}

fn large() -> Vec<u8> {
    let text = "x".repeat(8000);
    json!({ "model": "small", "stream": true, "messages": [{ "role": "user", "content": text }] })
        .to_string()
        .into_bytes()
}

fn post(body: &[u8]) -> Request {
    Request::new("POST", "/v1/chat/completions").header("content-type", "application/json").body(body)
}

fn send(world: &World, request: &Request) -> (Response, Seen) {
    let response = world.send(request);
    (response, world.upstream.seen().pop().expect("the request got to the provider"))
}

#[test]
fn a_label_that_lies_hides_nothing() {
    let world = world("None");
    let plain = Request::new("POST", "/v1/chat/completions").body(large());
    let requests = [
        plain.clone().header("content-encoding", "gzip"),
        plain.clone().header("content-encoding", "br").header("content-type", "application/json"),
        plain.clone().header("content-encoding", "identity").header("content-encoding", "zstd"),
        plain.clone().header("content-encoding", "snappy"),
        plain.clone().header("content-type", "multipart/form-data; boundary=b"),
        plain.header("content-type", "text/plain"),
    ];
    for request in requests {
        let response = world.send(&request);
        assert_eq!((response.status, world.upstream.calls()), (413, 0), "{request:?}: {}", response.text());
    }
    // The header is wrong, but the request is still edited to request the stream's usage.
    let body = br#"{"model":"m","stream":true,"x":NaN,"messages":"hi"}"#;
    let (response, seen) = send(&world, &post(body).header("content-encoding", "gzip"));
    let asked = [br#"{"stream_options":{"include_usage":true},"#, &body[1..]].concat();
    assert_eq!(
        (response.status, String::from_utf8_lossy(&seen.body)),
        (200, String::from_utf8_lossy(&asked))
    );
    assert!(world.envoy.stat("wasmcustom.weir_request_errors.cause.mislabeled") >= 6);
}

#[test]
fn a_body_that_cannot_be_changed_is_refused_in_the_callers_dialect() {
    let world = world("Inject");
    let utf16: Vec<u8> =
        r#"{"model":"m","messages":"hi"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let long = format!(r#"{{"model":"m",{}"messages":"hi"}}"#, " ".repeat(2 * MOST)).into_bytes();
    for (body, cause) in [(utf16, "not_utf8"), (long, "incomplete")] {
        let response = world.send(&post(&body));
        assert_eq!((response.status, world.upstream.calls()), (400, 0), "{}", response.text());
        assert_eq!(response.json()["error"]["type"], "invalid_request_error");
        let response = world.send(&post(&body).path("/v1/messages"));
        assert_eq!((response.status, world.upstream.calls()), (400, 0), "{}", response.text());
        assert_eq!(response.json()["type"], "error");
        let stat = format!("wasmcustom.weir_invalid_requests.cause.{cause}");
        wait::until(cause, || (world.envoy.stat(&stat) == 2).then_some(()));
    }
}

#[test]
fn a_get_with_a_body_is_read_and_one_without_does_not_wait() {
    let world = world("None");
    let response = world.send(&Request::new("GET", "/v1/chat/completions").body(large()));
    assert_eq!((response.status, world.upstream.calls()), (413, 0), "{}", response.text());
    let response = world.send(&Request::new("DELETE", "/v1/chat/completions").body(large()));
    assert_eq!((response.status, world.upstream.calls()), (413, 0), "{}", response.text());
    assert_eq!(world.send(&Request::get("/v1/chat/completions")).status, 200);
}

/// Sends a body in chunks, without a content-length.
fn stream(world: &World, path: &str, answer: &str, pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut socket = TcpStream::connect(world.envoy.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gw\r\nx-answer: {answer}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    for piece in pieces {
        socket.write_all(&wire::chunk(piece)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    socket.write_all(&wire::last_chunk(&[])).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

fn silent() -> Answer {
    Answer::json(200, &json!({ "choices": [{ "message": { "content": "twelve chars" } }] }))
}

#[test]
fn a_body_that_nobody_reads_is_charged_by_its_bytes() {
    let limits = json!({ "all": { "rates": [{ "limit": 1_000_000, "window": "1h" }] } });
    let world = World::build().policy(&policy("llm", json!({ "limits": limits }))).start();
    world.upstream.on("silent", silent());
    let pieces: Vec<Vec<u8>> = vec![vec![b'x'; 64_000]; 5];
    let answer = stream(&world, "/v1/chat/completions", "silent", &pieces);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    world.adapter.wait_for_bucket("all", "tokens", "", 80_003, 0);
}

#[test]
fn the_rest_of_a_body_that_is_too_long_is_charged_by_its_bytes() {
    let limits = json!({ "all": { "rates": [{ "limit": 1_000_000, "window": "1h" }] } });
    let world =
        World::build().policy(&policy("llm", json!({ "limits": limits }))).reading_bodies(MOST).start();
    world.upstream.on("silent", silent());
    let mut pieces = vec![br#"{"model":"m","messages":""#.to_vec()];
    pieces.extend(vec![vec![b'x'; 60_000]; 5]);
    pieces.push(br#""}"#.to_vec());
    let all: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let answer = stream(&world, "/v1/chat/completions", "silent", &pieces);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    world.adapter.wait_for_bucket("all", "tokens", "", all / 4 + 3, 0);
}

#[test]
fn a_filter_that_gets_no_bodies_says_so_and_goes_on_by_the_headers() {
    let limits = json!({ "all": { "rates": [{ "limit": 4000, "window": "1h" }] } });
    let world = World::build()
        .policy(&policy("llm", json!({ "limits": limits })))
        .reading_bodies(MOST)
        .change(|config| {
            config.wasm()["config"].as_object_mut().unwrap().remove("allow_on_headers_stop_iteration");
        })
        .start();
    let small = br#"{"model":"m","messages":"hi","max_tokens":5}"#;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(world.send(&post(small)).status, 200);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    assert_eq!(world.envoy.stat("wasmcustom.weir_request_bodies_missing"), 1);
    assert_eq!(world.envoy.stat("wasmcustom.weir_request_errors.cause.unread"), 3);
    assert!(world.envoy.log().contains("allow_on_headers_stop_iteration"), "{}", world.envoy.log());
    // The hold is based on the content-length: 2000 input tokens and as many output tokens, which is more
    // than the limit.
    let length = "x".repeat(8000);
    let response = world.send(&post(format!("{{\"model\":\"m\",\"messages\":\"{length}\"}}").as_bytes()));
    assert_eq!(response.status, 413, "{}", response.text());
}

#[test]
fn a_slow_body_is_waited_for() {
    let world = world("None");
    let body = large();
    let pieces: Vec<Vec<u8>> = body.chunks(400).map(<[u8]>::to_vec).collect();
    let answer = stream(&world, "/v1/chat/completions", "none", &pieces);
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(world.envoy.stat("wasmcustom.weir_request_bodies_missing"), 0);
}
