//! Hostile bodies in an exchange. They take bounded memory and time, block nothing, and are counted in
//! metrics. Each one has 20 MB or more, and is never completely in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::metric::{Metric, UsageSource};
use expression::facts::Facts;
use flate2::Compression;
use flate2::write::GzEncoder;
use llm::memory::MemoryBudget;
use llm::response::{Cause, Meter, ResponseHead};
use policy::model::Policy;
use policy::plan::Plan;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Counts allocations by thread.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().wrapping_add(layout.size());
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        // SAFETY: the caller guarantees the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: the caller guarantees the contract.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MIB: usize = 1 << 20;
/// The maximum memory of the meter. The largest window is zstd's, with 8 MiB, which doubles while it grows.
const MOST: usize = 20 * MIB;
/// The maximum memory for an uncompressed body.
const MAX_PLAIN: usize = 256 << 10;

/// A body with a beginning, a repeated middle, and an end.
struct Body {
    name: &'static str,
    content_type: &'static str,
    encoding: &'static str,
    begin: Vec<u8>,
    middle: Vec<u8>,
    times: usize,
    end: &'static str,
    /// The counted cause.
    cause: Option<Cause>,
    /// The reported usage.
    total: Option<u64>,
}

fn body(name: &'static str, begin: &str, middle: &str, end: &'static str, cause: Option<Cause>) -> Body {
    let times = (20 * MIB).checked_div(middle.len()).unwrap_or(0);
    let (begin, middle) = (begin.into(), middle.into());
    Body {
        name,
        content_type: "application/json",
        encoding: "",
        begin,
        middle,
        times,
        end,
        cause,
        total: None,
    }
}

fn exchange() -> Exchange {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": {"all": {"rates": [{"limit": 1_000_000_000, "window": "1h"}]}},
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).unwrap()]);
    let id = ReservationId { prefix: "w".into(), number: 1 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id);
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("content-length", b"400");
    exchange.handle(Event::Request { facts, bodiless: false });
    let code = Code::Ok.into();
    exchange.handle(Event::Reply(Ok(ReserveResponse { code, ..ReserveResponse::default() })));
    exchange
}

/// Plays the body through an exchange. Returns all effects, and the peak memory without the body's pieces.
fn play(body: &Body) -> (Vec<Effect>, usize) {
    let mut exchange = exchange();
    let (content_type, content_encoding) = (body.content_type.to_owned(), body.encoding.to_owned());
    let head = ResponseHead { status: 200, content_type, content_encoding, ..ResponseHead::default() };
    let piece = body.middle.repeat((16 << 10) / body.middle.len().max(1) + 1);
    let mut left = body.middle.len() * body.times;
    let before = NOW.get();
    PEAK.set(before);
    exchange.handle(Event::Response(head));
    let mut effects = exchange.handle(Event::Body { chunk: &body.begin, end: false });
    while left > 0 {
        let length = left.min(piece.len());
        effects.extend(exchange.handle(Event::Body { chunk: &piece[..length], end: false }));
        left -= length;
    }
    effects.extend(exchange.handle(Event::Body { chunk: body.end.as_bytes(), end: true }));
    (effects, PEAK.get() - before)
}

fn check(body: &Body) {
    let begun = Instant::now();
    let (effects, peak) = play(body);
    let took = begun.elapsed();
    let name = body.name;
    let most = if body.encoding.is_empty() { MAX_PLAIN } else { MOST };
    assert!(peak < most, "{name}: {peak} bytes");
    // A debug build takes a second on a busy machine, whereas a quadratic algorithm takes minutes.
    assert!(took < Duration::from_secs(60), "{name}: {took:?}");
    let unreadable: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Count(Metric::Unreadable(cause)) => Some(*cause),
            _ => None,
        })
        .collect();
    assert_eq!(unreadable, body.cause.into_iter().collect::<Vec<_>>(), "{name}");
    let commits = effects.iter().filter(|effect| matches!(effect, Effect::Commit(_))).count();
    assert_eq!(commits, 1, "{name}: settled once");
    let source = if body.total.is_some() { UsageSource::Reported } else { UsageSource::Estimated };
    assert!(effects.contains(&Effect::Count(Metric::Usage(source))), "{name}: {effects:?}");
    if let Some(total) = body.total {
        assert!(effects.contains(&Effect::Count(Metric::TokensCharged(total))), "{name}: {effects:?}");
    }
}

const USAGE: &str = r#""usage":{"prompt_tokens":3,"completion_tokens":4}}"#;

#[test]
fn what_has_no_end_is_walked_past_and_counted() {
    let cut = Some(Cause::Truncated);
    let mut bodies = vec![
        body("a text", r#"{"choices":[{"message":{"content":""#, "x", "", cut),
        body("a text that nobody asked for", r#"{"a":""#, "\\\\", "", cut),
        body("a number", r#"{"a":"#, "9", "", cut),
        body("a count", r#"{"usage":{"prompt_tokens":"#, "9", "", cut),
        body("a key", r#"{""#, "k", "", cut),
        body("arrays", "", "[", "", cut),
        body("objects", "", r#"{"a":"#, "", cut),
        body("objects with usage", "", r#"{"usage":"#, "", cut),
        body("white space", "{", " ", "", cut),
    ];
    let mut event = body("an event", "data: {\"a\":\"", "x", "", cut);
    let mut lines = body("an event of lines", "data: {\n", "data:\n", "", cut);
    let mut name = body("a field's name", "", "data", "", None);
    for stream in [&mut event, &mut lines, &mut name] {
        stream.content_type = "text/event-stream";
    }
    bodies.extend([event, lines, name]);
    bodies.iter().for_each(check);
}

#[test]
fn usage_behind_what_hurts_is_read_all_the_same() {
    let whole = |name, begin: &str, middle: &str, end: &'static str, cause| {
        let mut body = body(name, begin, middle, end, cause);
        body.total = Some(7);
        body
    };
    let end = r#"0],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let bodies = [
        whole("an array", r#"{"a":["#, "0,", end, None),
        whole("empty objects", r#"{"a":["#, "{},", end, None),
        whole("repeated usage", "{", r#""usage":{"prompt_tokens":9},"#, USAGE, None),
        whole(
            "repeated counts",
            r#"{"usage":{"#,
            r#""prompt_tokens":9,"#,
            r#""prompt_tokens":3,"completion_tokens":4}}"#,
            None,
        ),
        whole("absurd usage before", "{", r#""usage":{"prompt_tokens":1e308},"#, USAGE, Some(Cause::Count)),
        whole("negative usage before", "{", r#""usage":{"prompt_tokens":-1},"#, USAGE, Some(Cause::Count)),
    ];
    bodies.iter().for_each(check);
}

#[test]
fn numbers_that_are_no_counts_are_counted_and_charge_nothing_absurd() {
    for number in ["1e308", "-5", "1e-5", "99999999999999999999", "\"7.5\"", "[7]", "{}", "true"] {
        let mut one = body(
            "a count that is none",
            &format!(r#"{{"usage":{{"total_tokens":{number}}},"a":""#),
            "x",
            "\"}",
            Some(Cause::Count),
        );
        one.times = 1;
        check(&one);
    }
}

#[test]
fn bombs_are_given_up_and_counted() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    (0..100).for_each(|_| encoder.write_all(&[b' '; MIB]).unwrap());
    let gzip = encoder.finish().unwrap();
    let mut brotli = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    (0..100).for_each(|_| brotli.write_all(&[b' '; MIB]).unwrap());
    let brotli = brotli.into_inner();
    let zstd = libzstd::encode_all(&vec![b' '; 100 * MIB][..], 3).unwrap();
    for (encoding, bytes) in [("gzip", gzip), ("br", brotli), ("zstd", zstd)] {
        let mut bomb = body("a bomb", "", "", "", Some(Cause::Bomb));
        (bomb.encoding, bomb.begin) = (encoding, bytes);
        check(&bomb);
    }
}

/// Bodies of a few bytes that announce or need as much memory as their encoding allows.
fn greedy() -> Vec<(&'static str, Vec<u8>)> {
    let zstd = |header: &[u8], blocks: &[u8], times: usize| {
        [b"\x28\xb5\x2f\xfd", header, &blocks.repeat(times)].concat()
    };
    // The length of a block and its type: 1 for a repeated byte, 2 for a compressed block.
    let block = |length: u32, kind: u32| (length << 3 | kind << 1).to_le_bytes()[..3].to_vec();
    let run = [block(128 << 10, 1), vec![b' ']].concat();
    let small_frame = zstd(b"\0\x00", &[block(1 << 10, 1), vec![b' ']].concat(), 3);
    let frames = |count: usize| {
        let last = zstd(b"\0\x68", &[&block(128 << 10, 1)[..], b" \x03\0\0 "].concat(), 1);
        [small_frame.clone(), last].concat().repeat(count)
    };
    let mut many_tables = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 11, 24);
    let noise = (0..400_000u32).map(|at| (at.wrapping_mul(at) >> 7) as u8 & (at >> 12) as u8);
    many_tables.write_all(&noise.collect::<Vec<_>>()).unwrap();
    let mut long = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 5, 24);
    (0..24).for_each(|_| long.write_all(&[b' '; MIB]).unwrap());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&[b' '; MIB]).unwrap();
    vec![
        // Windows of 8 MiB: filled, announced by a size, and left empty.
        ("zstd", zstd(b"\0\x68", &run, 100)),
        ("zstd", zstd(b"\xa0\0\0\x80\0", &run, 64)),
        ("zstd", zstd(b"\0\x68", &[], 0)),
        // A block that is kept until its end arrives.
        ("zstd", [zstd(b"\0\x68", &block(128 << 10, 2), 1), vec![b'x'; 100 << 10]].concat()),
        // Literals and sequences that are announced but missing.
        (
            "zstd",
            [zstd(b"\0\x68", &block(10, 2), 1), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()]
                .concat(),
        ),
        ("zstd", [zstd(b"\0\x68", &block(9, 2), 1), b"\x0d\0\x20a\xff\xff\xff\xa8x".to_vec()].concat()),
        // A window of 1 GiB, and many frames.
        ("zstd", zstd(b"\0\xa0", &run, 1)),
        ("zstd", frames(20)),
        ("br", many_tables.into_inner()),
        ("br", long.into_inner()),
        ("br", b"\x11\x1e\0\0\0".to_vec()),
        ("gzip", gzip.finish().unwrap()),
        ("deflate", vec![0x78, 0x9c]),
    ]
}

#[test]
fn many_greedy_bodies_never_take_more_than_the_budget() {
    const MAX: usize = 24 * MIB;
    const STREAMS: usize = 130;
    let bodies = greedy();
    let heads: Vec<_> = bodies
        .iter()
        .map(|(encoding, _)| ResponseHead { content_encoding: (*encoding).into(), ..ResponseHead::default() })
        .collect();
    for only in [None].into_iter().chain((0..bodies.len()).map(Some)) {
        let memory = MemoryBudget::new(MAX);
        let mut meters = Vec::with_capacity(STREAMS);
        let before = NOW.get();
        PEAK.set(before);
        // All bodies are open at the same time, and receive pieces in turn.
        for at in 0..STREAMS {
            meters.push(Meter::within(&heads[only.unwrap_or(at) % heads.len()], &memory));
        }
        for piece in 0..6 {
            for (at, meter) in meters.iter_mut().enumerate() {
                let (_, body) = &bodies[only.unwrap_or(at) % bodies.len()];
                let size = body.len().div_ceil(6);
                meter.feed(body.chunks(size).nth(piece).unwrap_or_default());
            }
            let (taken, leased) = (NOW.get() - before, memory.used());
            assert!(taken <= leased + STREAMS * 2048, "{only:?}: {taken} bytes beside {leased} leased");
        }
        assert!(
            memory.peak() <= MAX && (only.is_some() || memory.peak() > MAX / 4),
            "{} leased",
            memory.peak()
        );
        assert!(PEAK.get() - before <= MAX + STREAMS * 2048, "{only:?}: {} bytes", PEAK.get() - before);
        drop(meters);
        assert_eq!((memory.used(), NOW.get() <= before), (0, true), "{only:?}");
    }
}
