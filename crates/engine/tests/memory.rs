//! Compares the actual heap size with the budget while thousands of hostile exchanges are in progress.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unsafe_code)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::metric::{MemoryUse, Metric};
use expression::facts::Facts;
use expression::identity::{self, IdentityEncoding, IdentityError};
use llm::memory::MemoryBudget;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::BodyAccess;
use policy::plan::Plan;
use proptest::prelude::*;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::sync::Arc;

thread_local! {
    static PLAN: ActivePlan = plan();
    static HEAP: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

fn changed(more: usize, less: usize) {
    let now = HEAP.get() + more as i64 - less as i64;
    HEAP.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call is passed to the system's allocator and counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        changed(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BUDGET: usize = 8 << 20;
const MAX_BODY: usize = 1 << 20;

fn plan() -> ActivePlan {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": {"chat": {
                "counters": [{"expression": "auth.identity.userid"}],
                "rates": [{
                    "limit": 100_000_000, "window": "1h",
                    "cost": "usage.total + (has(llm.metadata.a) ? 1 : 0) + size(request.headers)
                        + (has(auth.identity.a) ? 1 : 0)
                        + (responseBodyJSON('/x/y') == requestBodyJSON('/tools') ? 1 : 0)",
                }],
            }},
            "usage": {"pointers": {"total": "/x/y"}},
            "onExceeded": {"body": "string(size(llm.metadata)) + auth.identity.userid"},
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).expect("a good policy")]);
    ActivePlan::Plan(Arc::new(plan.with_body(BodyAccess::Buffer(MAX_BODY))))
}

/// Returns `{"a":[{"":0},...]}` with about this many bytes.
fn nodes(bytes: usize, more: &str) -> String {
    format!("{{\"a\":[{}0]{more}}}", "{\"\":0},".repeat(bytes / 7))
}

fn facts(identity: &str, headers: usize, encoding: &str) -> Facts {
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header(":method", b"POST");
    facts.header("content-type", b"application/json");
    if !encoding.is_empty() {
        facts.header("content-encoding", encoding.as_bytes());
    }
    for number in 0..headers {
        facts.header(&format!("x-{number}"), b"");
    }
    match identity::from_header(identity.as_bytes(), IdentityEncoding::Json) {
        Ok(auth) => facts.auth(auth),
        Err(error) => {
            assert_eq!(error, IdentityError::TooLarge);
            facts.auth_too_large();
        }
    }
    facts
}

/// The responses of hostile upstreams: an encoding, and the beginning of a body.
fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&vec![b' '; 100 << 10]).unwrap();
    let mut brotli = Vec::new();
    {
        let mut encoder = brotli_encoder::CompressorWriter::new(&mut brotli, 4096, 1, 24);
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
        encoder.flush().unwrap();
    }
    // A frame with a window of 8 MiB, and 1 MiB of blanks in 8 blocks of four bytes each.
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3];
    (0..8).for_each(|_| zstd.extend([0x02, 0x00, 0x10, b' ']));
    let events = [b"data: {\"x\":{\"y\":\"", "z".repeat(20_000).as_bytes()].concat();
    let frames = [&[0, 0, 64, 0, 0, 0, 0, 200][..], &[7; 300]].concat();
    vec![("gzip", gzip.finish().unwrap()), ("br", brotli), ("zstd", zstd), ("", events), ("", frames)]
}

#[derive(Default)]
struct Seen {
    refused: Vec<MemoryUse>,
    denied: usize,
}

impl Seen {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Count(Metric::MemoryRefused(what)) if !self.refused.contains(&what) => {
                    self.refused.push(what);
                }
                Effect::Deny(_) => self.denied += 1,
                _ => {}
            }
        }
    }
}

/// Plays one exchange until `stage`, and leaves it there.
fn play(
    plan: &ActivePlan,
    memory: &MemoryBudget,
    number: usize,
    answers: &[(&str, Vec<u8>)],
    seen: &mut Seen,
) -> Exchange {
    let id = ReservationId { prefix: "w".into(), number: number as u64 };
    let mut exchange = Exchange::new(plan.clone(), id).within(memory);
    let identities = [
        nodes(60_000, ",\"userid\":\"mallory\""),
        nodes(600, ",\"userid\":\"eve\""),
        "{\"userid\":\"bob\"}".to_owned(),
    ];
    let headers = [0, 2000][number % 2];
    let encoding = if number.is_multiple_of(7) { "gzip" } else { "" };
    let facts = facts(&identities[number % 3], headers, encoding);
    seen.take(exchange.handle(Event::Request { facts, bodiless: false }));
    if number.is_multiple_of(4) {
        return exchange;
    }
    let body = nodes(60_000, "");
    let body = [
        format!("{{\"model\":\"m\",\"messages\":[],\"metadata\":{body}}}"),
        format!("{{\"model\":\"m\",\"messages\":[],\"metadata\":{}}}", nodes(6000, "")),
        format!("{{\"model\":\"m\",\"tools\":{}}}", nodes(6000, "")),
        "{".repeat(10_000),
    ][number % 4]
        .clone();
    let body = match encoding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }
        _ => body.into_bytes(),
    };
    match exchange.room_for_body(body.len()) {
        Some(_room) => seen.take(exchange.handle(Event::RequestBody { body: &body, end: true })),
        None => seen.take(exchange.handle(Event::UnreadBody { size: body.len() })),
    }
    if number % 8 == 1 {
        return exchange;
    }
    let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() };
    seen.take(exchange.handle(Event::Reply(Ok(reply))));
    let (content_encoding, answer) = &answers[number % answers.len()];
    let usage_headers = vec![("x-amzn-bedrock-input-token-count".to_owned(), "9".repeat(number % 3 * 5000))];
    seen.take(exchange.handle(Event::Response(ResponseHead {
        status: 200,
        content_type: "text/event-stream; x=".to_owned() + &"y".repeat(number % 5 * 10_000),
        content_encoding: (*content_encoding).to_owned(),
        usage_headers,
    })));
    seen.take(exchange.handle(Event::Passing { chunk: answer, end: false }));
    seen.take(exchange.handle(Event::Body { chunk: answer, end: false }));
    exchange
}

#[test]
fn thousands_of_hostile_exchanges_stay_within_the_budget() {
    let (plan, answers, memory) = (plan(), answers(), MemoryBudget::new(BUDGET));
    let before = HEAP.get();
    PEAK.set(before);
    let mut seen = Seen::default();
    let mut open = Vec::new();
    for round in 0..3 {
        for number in 0..400 {
            open.push(play(&plan, &memory, number, &answers, &mut seen));
            assert!(memory.used() <= BUDGET);
        }
        let heap = HEAP.get() - before;
        // An exchange that has ended, or was refused, keeps nothing.
        let own = (open.capacity() * size_of::<Exchange>()) as i64;
        println!(
            "round {round}: {} open, {} leased, {heap} on the heap, {own} of them empty; {} denied; {:?}",
            open.len(),
            memory.used(),
            seen.denied,
            seen.refused
        );
        assert!(heap <= memory.used() as i64 + own, "{heap} bytes for {} leased", memory.used());
        // Half of the exchanges end.
        let mut number = 0;
        open.retain_mut(|exchange| {
            number += 1;
            let ends = number % 2 == 0;
            if ends {
                seen.take(exchange.handle(Event::Closed));
            }
            !ends
        });
    }
    for exchange in &mut open {
        seen.take(exchange.handle(Event::Closed));
    }
    assert_eq!(memory.used(), 0, "all of it comes back when exchanges are over");
    drop(open);
    assert!((HEAP.get() - before) < 64 << 10, "{} bytes are left", (HEAP.get() - before));
    println!("at most {} leased, {} on the heap", memory.peak(), PEAK.get() - before);
    assert!(PEAK.get() - before < 2 * BUDGET as i64, "{} bytes at most", PEAK.get() - before);
    assert!(seen.refused.contains(&MemoryUse::Facts) || seen.refused.contains(&MemoryUse::RequestBody));
}

#[derive(Clone, Debug)]
enum Step {
    Request { identity: usize },
    Body { bytes: usize, gzip: bool },
    Reply(bool),
    Response { encoding: usize },
    Chunk { answer: usize, end: bool },
    Closed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize).prop_map(|identity| Step::Request { identity }),
        (0..2000_usize, any::<bool>()).prop_map(|(bytes, gzip)| Step::Body { bytes, gzip }),
        any::<bool>().prop_map(Step::Reply),
        (0..5_usize).prop_map(|encoding| Step::Response { encoding }),
        (0..5_usize, any::<bool>()).prop_map(|(answer, end)| Step::Chunk { answer, end }),
        Just(Step::Closed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Drives several exchanges with any events in any order.
    #[test]
    fn no_order_of_events_exceeds_the_budget_or_leaves_a_lease(
        max in 0..200_000_usize,
        story in proptest::collection::vec((0..4_usize, step()), 0..40),
    ) {
        let (plan, memory) = (PLAN.with(Clone::clone), MemoryBudget::new(max));
        let chunks: [&[u8]; 5] =
            [b"data: {\"x\":{\"y\":7", b"\0\0\x40\0\0\0\0\xc8xx", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x28\xb5\x2f\xfd\0\x68\x02\0\x10 ", b"{}"];
        let new = |number| {
            Exchange::new(plan.clone(), ReservationId { prefix: "w".into(), number }).within(&memory)
        };
        let mut exchanges: Vec<Exchange> = (0..4).map(new).collect();
        let (mut reserved, mut ended) = (0, 0);
        for (at, step) in story {
            let exchange = &mut exchanges[at];
            let identity = ["{}", "{\"userid\":\"bob\"}", "{\"a\":[{\"\":0},{\"\":0}],\"userid\":\"eve\"}"];
            let effects = match step {
                Step::Request { identity: kind } => {
                    exchange.handle(Event::Request { facts: facts(identity[kind], 10 * kind, ""), bodiless: false })
                }
                Step::Body { bytes, gzip } => {
                    let body = format!("{{\"messages\":[],\"metadata\":{}}}", nodes(bytes, ""));
                    match exchange.room_for_body(body.len()).filter(|_| !gzip) {
                        Some(_room) => exchange.handle(Event::RequestBody { body: body.as_bytes(), end: true }),
                        None => exchange.handle(Event::UnreadBody { size: body.len() }),
                    }
                }
                Step::Reply(true) => {
                    let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() };
                    exchange.handle(Event::Reply(Ok(reply)))
                }
                Step::Reply(false) => exchange.handle(Event::Reply(Err(protocol::call::CallFailure::Timeout))),
                Step::Response { encoding } => exchange.handle(Event::Response(ResponseHead {
                    status: 200,
                    content_encoding: ["", "gzip", "br", "zstd", "deflate"][encoding].to_owned(),
                    ..ResponseHead::default()
                })),
                Step::Chunk { answer, end } => exchange.handle(Event::Body { chunk: chunks[answer], end }),
                Step::Closed => exchange.handle(Event::Closed),
            };
            reserved += effects.iter().filter(|effect| matches!(effect, Effect::Reserve(_))).count();
            ended += effects.iter().filter(|effect| matches!(effect, Effect::Commit(_))).count();
            prop_assert!(memory.used() <= max, "{} of {max}", memory.used());
        }
        for exchange in &mut exchanges {
            let effects = exchange.handle(Event::Closed);
            ended += effects.iter().filter(|effect| matches!(effect, Effect::Commit(_))).count();
        }
        prop_assert_eq!((memory.used(), ended), (0, reserved), "each reservation ends once");
    }
}

#[test]
fn an_honest_exchange_leases_a_few_kilobytes() {
    let (plan, memory) = (plan(), MemoryBudget::new(BUDGET));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "w".into(), number: 1 }).within(&memory);
    let facts = facts("{\"userid\":\"alice\",\"groups\":[\"a\",\"b\"]}", 10, "");
    exchange.handle(Event::Request { facts, bodiless: false });
    let reading = memory.used();
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"metadata":{"a":"b"}}"#;
    exchange.handle(Event::RequestBody { body, end: true });
    let waiting = memory.used();
    assert!((1..16 << 10).contains(&reading) && (1..16 << 10).contains(&waiting), "{reading} {waiting}");
    exchange.handle(Event::Closed);
    assert_eq!(memory.used(), 0);
}
