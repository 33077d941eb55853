//! A load test on several workers, with honest requests, and with hostile requests and responses that are
//! designed to consume memory. No VM may fail, memory must stay within the budget, honest requests must be
//! charged exactly, and nothing may remain held afterwards.
//!
//! It runs for `WEIR_STORM_SECONDS` (60), with at most `ABREAST` concurrent hostile requests.

use e2e::client::{InFlight, Request};
use e2e::envoy::Envoy;
use e2e::jwt;
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::world::{World, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The memory budget of each VM. It is small, so that the test reaches it.
const MEMORY: u64 = 24 << 20;
const WORKERS: u32 = 2;
/// What a worker may keep: how long the responses of a few limits and models are.
const LEARNED: u64 = 8 << 10;
/// The number of concurrent hostile requests.
const ABREAST: usize = 400;
/// The charge of each honest request.
const HONEST: u64 = 17;

fn world() -> World {
    let limits = json!({
        "people": {
            "counters": [{ "expression": "auth.identity.userid" }],
            "rates": [
                { "limit": 1_000_000_000_u64, "window": "1h" },
                { "limit": 100_000, "unit": "concurrency" }
            ]
        },
        "costly": {
            "when": [{ "predicate": "auth.identity.userid.startsWith('mallory')" }],
            "counters": [{ "expression": "auth.identity.userid" }],
            "rates": [{
                "limit": 1_000_000_000_000_u64, "window": "1h",
                "cost": "usage.total + size(request.headers) + (has(llm.metadata.a) ? 1 : 0) + (has(auth.identity.a) ? 1 : 0)"
            }]
        }
    });
    let on_exceeded = json!({ "body": "string(size(llm.metadata))" });
    World::build()
        .policy(&policy("storm", json!({ "limits": limits, "onExceeded": on_exceeded })))
        .plugin(|plugin| plugin["memory"] = json!({ "maxBytes": MEMORY }))
        .reading_bodies(1 << 20)
        .workers(WORKERS)
        .start()
}

/// Returns JSON of about this many bytes that needs a hundred times as many when it is parsed into a tree.
fn nodes(bytes: usize) -> Value {
    Value::Array((0..bytes / 7).map(|_| json!({ "": 0 })).collect())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns the responses of hostile upstreams, by name. Each one stops in the middle until the gate opens.
fn answers(gate: &Gate) -> Vec<(String, Answer)> {
    let stream = |encoding: &str, bytes: Vec<u8>| {
        let head = Answer::new(200).header("content-type", "text/event-stream");
        let head = if encoding.is_empty() { head } else { head.header("content-encoding", encoding) };
        head.bytes(bytes.clone()).wait(gate).bytes(bytes)
    };
    let blanks = vec![b' '; 8 << 20];
    let mut brotli = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 1, 24);
    brotli.write_all(&blanks).unwrap();
    // A window of 8 MiB, and 8 MiB of spaces in 64 blocks of four bytes each.
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3];
    (0..64).for_each(|_| zstd.extend([0x02, 0x00, 0x10, b' ']));
    let event =
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(50_000));
    let endless = format!("data: {{\"choices\":[],\"x\":\"{}", "x".repeat(100_000));
    let headers = (0..40)
        .fold(Answer::new(200), |answer, number| answer.header(format!("x-{number}"), "y".repeat(1200)));
    let named = [
        ("zstd", stream("zstd", zstd)),
        ("br", stream("br", brotli.into_inner())),
        ("gzip", stream("gzip", gzip(&blanks))),
        ("events", stream("", event.repeat(4).into_bytes())),
        ("endless", stream("", endless.into_bytes())),
        ("headers", headers.header("content-type", "application/json").bytes("{").wait(gate).bytes("}")),
        ("cut", Answer::new(200).header("content-type", "application/json").bytes("{\"usage\":").reset()),
        ("plain", Answer::used(50)),
    ];
    named.into_iter().map(|(name, answer)| (name.to_owned(), answer)).collect()
}

/// Returns a hostile request. The number determines its kind.
fn hostile(number: usize, names: &[String]) -> Request {
    let kind = number % 6;
    let who = format!("mallory-{}", number % 20);
    let claims = match kind {
        0 => json!({ "userid": who, "a": nodes(20_000) }),
        _ => json!({ "userid": who }),
    };
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let body = match kind {
        1 => json!({ "model": "m", "messages": messages, "metadata": { "a": nodes(60_000) } }),
        2 => json!({ "model": "m", "stream": true, "messages": messages, "metadata": { "a": nodes(5_000) } }),
        3 => json!({ "model": "m", "messages": [{ "role": "user", "content": "x".repeat(900_000) }] }),
        _ => json!({ "model": "m", "stream": true, "messages": messages }),
    };
    let request = Request::post("/v1/chat/completions", &body).token(&jwt::token(&claims));
    let request = match kind {
        4 => request.header("content-encoding", "gzip").body(gzip(&vec![b' '; 8 << 20])),
        5 => (0..60).fold(request, |request, header| request.header(&format!("x-{header}"), "z".repeat(300))),
        _ => request,
    };
    request.answered_by(&names[number / 6 % names.len()])
}

fn resident(envoy: &Envoy, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", envoy.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn nothing_that_is_sent_brings_a_worker_down() {
    let seconds = std::env::var("WEIR_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut world = world();
    let gate = Gate::default();
    let answers = answers(&gate);
    let names: Vec<String> = answers.iter().map(|(name, _)| name.clone()).collect();
    for (name, answer) in answers {
        world.upstream.on(&name, answer);
    }
    world.upstream.on("honest", Answer::used(HONEST));
    let (over, address) = (AtomicBool::new(false), world.envoy.address());
    let honest = [AtomicU64::new(0), AtomicU64::new(0)];
    let before = resident(&world.envoy, "VmRSS:");
    let (mut sent, mut most) = (0_usize, 0);
    std::thread::scope(|scope| {
        for (number, count) in honest.iter().enumerate() {
            let token = jwt::token(&json!({ "userid": format!("alice-{number}") }));
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let response = Request::chat(5).token(&token).answered_by("honest").send(address);
                    assert_eq!(response.status, 200, "{}", response.text());
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut in_flight: std::collections::VecDeque<InFlight> = std::collections::VecDeque::new();
        while Instant::now() < end {
            in_flight.push_back(hostile(sent, &names).open(address));
            sent += 1;
            // The oldest requests disconnect, so requests of every kind end in many different states.
            if in_flight.len() > ABREAST {
                in_flight.drain(..ABREAST / 4).for_each(InFlight::hang_up);
            }
            if sent.is_multiple_of(50) {
                most = most.max(world.envoy.stat("wasmcustom.weir_memory_bytes"));
                let crashed = world.envoy.log();
                assert!(!crashed.contains("Uncaught"), "a VM failed: {crashed}");
            }
        }
        gate.open();
        // The remaining requests are completed.
        let rest: Vec<u16> =
            in_flight.into_iter().filter_map(|one| Some(one.try_finish().ok()?.status)).collect();
        println!(
            "{} of the last ones were answered, {} with 200",
            rest.len(),
            rest.iter().filter(|s| **s == 200).count()
        );
        over.store(true, Ordering::SeqCst);
    });
    assert!(world.envoy.runs(), "Envoy has ended: {}", world.envoy.log());
    let honest: Vec<u64> = honest.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    for (number, count) in honest.iter().enumerate() {
        world.adapter.wait_for_bucket("people", "tokens", &format!("alice-{number}"), count * HONEST, 0);
    }
    wait::until("the end of every hold", || {
        world.adapter.counters().iter().all(|counter| counter.held == 0).then_some(())
    });
    let rest = wait::until("the memory's return", || {
        let rest = world.envoy.stat("wasmcustom.weir_memory_bytes");
        (rest <= LEARNED * u64::from(WORKERS)).then_some(rest)
    });
    println!("{sent} hostile requests, {honest:?} honest ones, {rest} bytes kept of what was learned");
    println!("{most} bytes at most in the gauge, of {} for {WORKERS} workers", MEMORY * u64::from(WORKERS));
    println!("Envoy: {before} kB resident before, {} kB at most", resident(&world.envoy, "VmHWM:"));
    println!("{}", world.envoy.stats("weir_memory"));
    println!("{}", world.envoy.stats("weir_in_doubt"));
    println!("{}", world.envoy.stats("weir_re"));
    println!("{}", world.envoy.stats("weir_failed"));
    let log = world.envoy.log();
    assert!(!log.contains("Uncaught") && !log.contains("panicked"), "a VM failed: {log}");
    assert!(most <= MEMORY * u64::from(WORKERS), "{most} bytes");
    assert!(sent > ABREAST, "the storm was a breeze: {sent}");
}
