//! Measures requests with bodies. Compares Weir with `requestBody.access: Buffer`, Envoy's own buffer filter, which
//! only buffers the body, and Envoy alone, which streams the body.

use crate::case::{self, Ends};
use crate::{cost, load, report};
use anyhow::{Context, Result};
use e2e::envoy::Envoy;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The name in `BENCH_CASES`, and the heading of the section.
const NAME: &str = "request bodies";
const HEADING: &str = "## What reading request bodies costs";
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_secs(1);
/// The buffer limit. It is Envoy's default, and larger than any body here.
const MOST: u32 = 1 << 20;
/// The names and the sizes in bytes of the request bodies. Coding agents send large requests.
const SIZES: [(&str, usize); 3] = [("560 B", 560), ("30 kB", 30_000), ("300 kB", 300_000)];

/// The filter that Envoy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Alone,
    Buffer,
    Weir,
}

const SIDES: [(Side, &str); 3] = [
    (Side::Alone, "Envoy alone"),
    (Side::Buffer, "Envoy's buffer filter"),
    (Side::Weir, "Weir, one limit, bodies read"),
];

/// The results of one round of one body through one filter.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Envoy's CPU time per request, in microseconds.
    cpu: f64,
    /// Requests per second.
    throughput: f64,
}

/// Runs the benchmark if it is selected. Stores the table if `keeps` is set.
pub fn run(count: usize, is_wanted: impl Fn(&str) -> bool, keeps: bool, ends: Ends) -> Result<()> {
    if !is_wanted(NAME) {
        return Ok(());
    }
    let envoys = SIDES.iter().map(|(side, _)| start(*side, ends)).collect::<Result<Vec<_>>>()?;
    let requests = SIZES.map(|(_, size)| request(size));
    let mut rounds = vec![Vec::new(); SIDES.len() * SIZES.len()];
    for round in 0..count {
        eprintln!("{NAME}: round {} of {count}", round + 1);
        let pairs = requests.iter().flat_map(|request| envoys.iter().map(move |envoy| (request, envoy)));
        for ((request, envoy), measured) in pairs.zip(&mut rounds) {
            measured.push(measure(envoy, request).with_context(|| envoy.log())?);
        }
    }
    let text = table(count, &rounds);
    println!("{text}");
    if keeps {
        report::keep(HEADING, &text)?;
    }
    Ok(())
}

fn start(side: Side, ends: Ends) -> Result<Envoy> {
    let filter = if side == Side::Weir { case::weir("one") } else { case::Filter::None };
    let mut config = case::case(NAME, filter).config(ends)?;
    match side {
        Side::Alone => {}
        Side::Buffer => config.filters().insert(
            0,
            json!({
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": MOST,
                },
            }),
        ),
        Side::Weir => {
            config.plugin(|plugin| plugin["requestBody"] = json!({ "access": "Buffer", "maxBytes": MOST }));
            let plugin = config.wasm().get_mut("config").and_then(Value::as_object_mut);
            plugin.context("no plugin")?.insert("allow_on_headers_stop_iteration".into(), true.into());
        }
    }
    let envoy = config.start(1);
    let is_ready = |head: &String| side != Side::Weir || head.contains("x-ratelimit-remaining-tokens");
    e2e::wait::until(NAME, || load::once(envoy.address()).ok().filter(is_ready));
    Ok(envoy)
}

fn measure(envoy: &Envoy, request: &[u8]) -> Result<Round> {
    load::closed_with(envoy.address(), request, |answers| {
        std::thread::sleep(WARM_UP);
        let (first, before) = (answers.load(Ordering::Relaxed), cost::cpu(envoy.pid())?);
        std::thread::sleep(MEASURED);
        let used = (cost::cpu(envoy.pid())? - before).as_secs_f64() * 1e6;
        let count = (answers.load(Ordering::Relaxed) - first) as f64;
        Ok(Round { cpu: used / count, throughput: count / MEASURED.as_secs_f64() })
    })
}

fn table(count: usize, rounds: &[Vec<Round>]) -> String {
    let mut text = format!(
        "{HEADING}\n\n`BENCH_CASES='{NAME}' make bench` on {}, {}: medians of {count} interleaved rounds. Envoy has \
         one worker. {} connections send a chat with tools and several turns in a closed loop, and get 1.2 kB responses. \
         Times are in microseconds per request. *Above* is the additional CPU time compared with Envoy's buffer filter.\n\n\
         | body | through | requests/s | Envoy CPU | above |\n|---|---|---|---|---|\n",
        std::env::var("BENCH_DATE").unwrap_or_else(|_| "an unknown day".into()),
        report::machine(),
        load::CONNECTIONS,
    );
    for ((size, _), sides) in SIZES.iter().zip(rounds.chunks(SIDES.len())) {
        let cpu = |rounds: &Vec<Round>| report::median(rounds.iter().map(|round| round.cpu).collect());
        let buffer = sides.get(1).map_or(f64::NAN, cpu);
        for ((_, name), rounds) in SIDES.iter().zip(sides) {
            let throughput = report::median(rounds.iter().map(|round| round.throughput).collect());
            let own = cpu(rounds);
            let _ = writeln!(text, "| {size} | {name} | {throughput:.0} | {own:.0} | {:.0} |", own - buffer);
        }
    }
    text
}

/// Builds a chat request from alice of about this many bytes, with tools and enough messages to reach the size.
fn request(size: usize) -> Vec<u8> {
    let text = "What does a weir do to a river? It holds back, \"measures\", and lets pass.\n".repeat(5);
    let parameters = json!({
        "type": "object",
        "properties": { "path": { "type": "string", "description": "The file to read, by its path." } },
        "required": ["path"]
    });
    let function = json!({ "name": "read_file", "description": "Reads a file.", "parameters": parameters });
    let tools = if size < 1000 { json!([]) } else { json!([{ "type": "function", "function": function }]) };
    let body = |messages: &[Value]| {
        json!({ "model": "gpt-4o", "max_tokens": 60, "tools": tools, "messages": messages }).to_string()
    };
    let mut missing = size.saturating_sub(body(&[]).len());
    let mut messages = Vec::new();
    while missing > 0 {
        let content: String = text.chars().take(missing.saturating_sub(40).max(1)).collect();
        let message = json!({ "role": "user", "content": content });
        missing = missing.saturating_sub(message.to_string().len() + 1);
        messages.push(message);
    }
    load::with_headers(body(&messages).as_bytes())
}
