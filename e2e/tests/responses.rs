//! Responses of providers through a real Envoy. The client receives the provider's bytes unchanged, and is
//! charged the usage in them. The bodies come from the core's corpus, with some hostile ones added.

use e2e::client::{Request, Response};
use e2e::upstream::Answer;
use e2e::wait;
use e2e::world::{World, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[path = "../../crates/llm/tests/response/frames.rs"]
#[allow(dead_code)] // Shared with the core's tests, which also create frames.
mod frames;

/// Starts a world with a limit that has a bucket for each case.
fn world() -> World {
    let limit = json!({
        "counters": [{ "expression": "request.headers['x-case']" }],
        "reservation": { "amount": "1" },
        "rates": [{ "limit": 1_000_000_000, "window": "1h" }]
    });
    World::with(&policy("llm", json!({ "limits": { "all": limit } })))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const ENCODINGS: [&str; 5] = ["", "gzip", "deflate", "br", "zstd"];

/// Encodes a body as a server would send it, flushed at arbitrary positions.
fn encode(encoding: &str, body: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => gzip(body),
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoder = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(body).unwrap();
            encoder.into_inner()
        }
        "zstd" => libzstd::encode_all(body, 3).unwrap(),
        _ => body.to_owned(),
    }
}

fn ask(world: &World, case: &str, answer: Answer) -> Response {
    world.upstream.on(case, answer);
    world.send(&Request::chat(5).header("x-case", case).answered_by(case))
}

struct Case {
    name: String,
    body: Vec<u8>,
    expected: Value,
}

/// Returns the bodies of the core's corpus.
fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/llm/tests/responses");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let case = |path: PathBuf| {
        let expected = std::fs::read(format!("{}.expected", path.display())).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let body = std::fs::read(path).unwrap();
        let body = if name.ends_with(".frames") { frames::encode(&body).0 } else { body };
        Case { name, body, expected: serde_json::from_slice(&expected).unwrap() }
    };
    let is_body = |path: &PathBuf| path.extension().is_some_and(|extension| extension != "expected");
    files.into_iter().filter(is_body).map(case).collect()
}

#[test]
fn the_client_gets_the_provider_s_bytes_and_is_charged_what_they_say() {
    let world = world();
    let cases = corpus();
    assert!(cases.len() > 80, "the corpus is not where it should be");
    for case in &cases {
        for encoding in ENCODINGS {
            let name = format!("{}-{encoding}", case.name);
            let sent = encode(encoding, &case.body);
            let answer = case.answer(encoding);
            let got = ask(&world, &name, sent.chunks(97).fold(answer, |answer, piece| answer.bytes(piece)));
            assert_eq!(got.cut, None, "{name}");
            assert!(got.body == sent, "{name}: the bytes are not the provider's");
        }
    }
    for case in &cases {
        for encoding in ENCODINGS {
            let name = format!("{}-{encoding}", case.name);
            world.adapter.wait_for_bucket("all", "tokens", &name, case.charge(), 0);
        }
    }
    assert_eq!(world.envoy.stats("weir_response_errors"), "");
}

impl Case {
    fn answer(&self, encoding: &str) -> Answer {
        let mut answer = Answer::new(self.expected["status"].as_u64().unwrap() as u16);
        for (key, value) in self.expected["headers"].as_object().unwrap() {
            answer = answer.header(key, value.as_str().unwrap());
        }
        if encoding.is_empty() { answer } else { answer.header("content-encoding", encoding) }
    }

    /// Returns the expected charge. If a stream ends in an error, the text after the last usage report is
    /// estimated.
    fn charge(&self) -> u64 {
        let number = |key: &str| self.expected[key].as_u64().unwrap();
        let in_error = self.expected["endedInError"].as_bool().unwrap();
        match (&self.expected["usage"]["total"], number("status")) {
            (Value::Number(total), _) if in_error => {
                total.as_u64().unwrap() + number("uncovered").div_ceil(4)
            }
            (Value::Number(total), _) => total.as_u64().unwrap(),
            (_, 200..300) => input() + number("delivered").div_ceil(4),
            _ => 0,
        }
    }
}

/// Returns the estimated input of a request whose body is not read.
fn input() -> u64 {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let body = json!({ "model": "gpt-4o", "messages": messages, "max_tokens": 5 }).to_string();
    body.len() as u64 / 4
}

/// Returns the peak memory of a process in kilobytes.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn bodies_made_to_hurt_pass_unchanged_in_bounded_memory_and_are_counted() {
    let world = world();
    let json_type = "application/json";
    let stream = "text/event-stream";
    let frames = "application/vnd.amazon.eventstream";
    let usage =
        |tokens: &str| format!(r#"{{"choices":[],"usage":{{"total_tokens":{tokens}}}}}"#).into_bytes();
    let mib = 1 << 20;
    type Case<'a> = (&'a str, &'a str, Option<&'a str>, Vec<u8>, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("bomb", json_type, Some("gzip"), gzip(&gzip_bomb_text(400 * mib)), Some("bomb")),
        ("no-gzip", json_type, Some("gzip"), b"{\"usage\":{}}".to_vec(), Some("mislabeled")),
        (
            "half-gzip",
            json_type,
            Some("gzip"),
            b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff".to_vec(),
            Some("corrupt"),
        ),
        ("unknown-encoding", json_type, Some("snappy"), b"\x02\x04{}".to_vec(), Some("encoding")),
        ("large-window", json_type, Some("zstd"), b"\x28\xb5\x2f\xfd\0\x70\x01\0\0".to_vec(), Some("window")),
        ("deep", json_type, None, vec![b'['; 4 * mib], Some("truncated")),
        (
            "endless-event",
            stream,
            None,
            [b"data: {\"a\":\"".to_vec(), vec![b'x'; 20 * mib]].concat(),
            Some("truncated"),
        ),
        (
            "endless-number",
            json_type,
            None,
            [b"{\"usage\":".to_vec(), vec![b'9'; 4 * mib]].concat(),
            Some("truncated"),
        ),
        (
            "deep-frames",
            frames,
            None,
            frames::encode_frame([].into_iter(), &vec![b'['; mib]),
            Some("malformed"),
        ),
        ("lying-frame", frames, None, vec![0xff; 100], Some("malformed")),
        ("1e308", json_type, None, usage("1e308"), Some("count")),
        ("negative", json_type, None, usage("-5"), Some("count")),
        ("text", json_type, None, usage("\"many\""), Some("count")),
    ];
    for (case, content_type, encoding, body, cause) in cases {
        let name = |cause: &str| format!("wasmcustom.weir_response_errors.cause.{cause}");
        let before = cause.map(|cause| world.envoy.stat(&name(cause)));
        let mut answer = Answer::new(200).header("content-type", content_type);
        if let Some(encoding) = encoding {
            answer = answer.header("content-encoding", encoding);
        }
        let got = ask(&world, case, answer.bytes(body.clone()));
        assert!(
            got.status == 200 && got.cut.is_none() && got.body == body,
            "{case}: not the provider's bytes"
        );
        if let (Some(cause), Some(before)) = (cause, before) {
            wait::until(case, || (world.envoy.stat(&name(cause)) > before).then_some(()));
        }
        wait::until(case, || {
            let (used, held) = world.adapter.bucket("all", "tokens", case);
            // The charge never exceeds the amount of text that could have been delivered, regardless of the
            // usage in the body.
            (held == 0 && used >= input() && used <= input() + 25 * mib as u64).then_some(())
        });
    }
    // If keys are repeated, the last one counts, as in most parsers.
    let reported = "wasmcustom.weir_usage.source.reported";
    let before = world.envoy.stat(reported);
    let twice = br#"{"usage":{"total_tokens":5},"usage":{"total_tokens":7}}"#;
    ask(&world, "twice", Answer::new(200).header("content-type", json_type).bytes(twice.as_slice()));
    world.adapter.wait_for_bucket("all", "tokens", "twice", 7, 0);
    assert_eq!(world.envoy.stat(reported), before + 1);
    let peak = peak(world.envoy.pid());
    println!("Envoy had {peak} kB in memory at most");
    assert!(peak < 600_000, "{peak} kB");
}

/// A body in an unknown format is charged by its text, or by its bytes if it cannot be read.
#[test]
fn what_was_delivered_in_unknown_formats_is_charged() {
    let world = world();
    let text = "A weir holds the flow back. ".repeat(100);
    let document = json!({ "id": "x", "verses": [{ "line": text }] }).to_string();
    let event = format!("data: {document}\n\n");
    let usage = format!(r#"{{"a":"{text}","usage":{{"prompt_tokens":3,"completion_tokens":4}}}}"#);
    let estimate = input() + text.trim_end().len() as u64 / 4;
    let cases: [(&str, &str, &str, Vec<u8>, u64); 8] = [
        ("json", "application/json", "", document.clone().into(), estimate),
        ("stream", "text/event-stream", "", event.into(), estimate),
        ("lines", "application/x-ndjson", "", format!("{document}\n").into(), estimate),
        ("plain", "text/plain", "", text.clone().into(), estimate),
        ("plain-events", "text/event-stream", "", format!("data: {text}\n\n").into(), estimate),
        ("zstd", "application/json", "zstd", encode("zstd", document.as_bytes()), estimate),
        ("false-label", "application/json", "br", usage.clone().into(), 7),
        ("no-label", "application/json", "", gzip(usage.as_bytes()), 7),
    ];
    for (case, content_type, encoding, body, expected) in cases {
        let mut answer = Answer::new(200).header("content-type", content_type);
        if !encoding.is_empty() {
            answer = answer.header("content-encoding", encoding);
        }
        let got = ask(&world, case, body.chunks(97).fold(answer, |answer, piece| answer.bytes(piece)));
        assert!(got.status == 200 && got.body == body, "{case}: not the provider's bytes");
        wait::until(case, || {
            let (used, held) = world.adapter.bucket("all", "tokens", case);
            (held == 0 && used.abs_diff(expected) <= 1).then_some(())
        });
    }
}

/// Compresses JSON with one long text that repeats a single letter.
fn gzip_bomb_text(length: usize) -> Vec<u8> {
    let mut text = b"{\"a\":\"".to_vec();
    text.resize(length, b'x');
    text
}

/// The proxy-wasm SDK requires header names to be valid text, so Envoy must reject other names in both
/// directions.
#[test]
fn headers_that_are_no_text_trap_nothing() {
    let limit = json!({
        "when": [{ "predicate": "request.headers.exists(name, name == 'x-case')" }],
        "counters": [{ "expression": "request.headers['x-case']" }],
        "rates": [{ "limit": 1_000_000_000, "window": "1h" }]
    });
    let world = World::with(&policy("llm", json!({ "limits": { "all": limit } })));
    let many: Vec<(Vec<u8>, Vec<u8>)> = (0..80).map(|at| (format!("x-{at}").into(), b"1".to_vec())).collect();
    let one = |name: &[u8], value: &[u8]| vec![(name.to_vec(), value.to_vec())];
    let nasty = [
        one(b"x-\xff", b"1"),
        one("x-é".as_bytes(), b"1"),
        one(b"x-bytes", b"\xff\xfe"),
        one(b"content-type", b"\xff"),
        one(b"content-encoding", b"\xff"),
        one(b"x-amzn-bedrock-input-token-count", b"\xff"),
        one(b"x-long", &[b'a'; 50_000]),
        many,
    ];
    for (at, headers) in nasty.into_iter().enumerate() {
        let ask = || Request::chat(10).header("x-case", "nasty");
        let mut answer = Answer::used(5);
        let mut asked = ask();
        for (name, value) in headers {
            answer = answer.header(&name, &value);
            if let Ok(name) = std::str::from_utf8(&name) {
                asked = asked.header(name, value);
            }
        }
        let name = format!("nasty-{at}");
        world.upstream.on(&name, answer);
        let statuses = [world.send(&ask().answered_by(&name)).status, world.send(&asked).status];
        assert!(
            statuses.iter().all(|status| [200, 400, 431, 502, 503].contains(status)),
            "{at}: {statuses:?}"
        );
        let after = world.send(&ask());
        let told = after.header("x-ratelimit-limit-tokens");
        assert_eq!((after.status, told), (200, Some("1000000000")), "the module lives after {at}");
    }
}
