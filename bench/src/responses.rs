//! Measures responses that Weir reads, compared with Envoy alone in the same rounds: the time that they take through
//! Envoy, Envoy's CPU time, and the memory of open streams. The CPU time includes the cost of the request itself (a
//! Reserve and a Commit), which the table of requests shows.

mod bodies;
mod client;
mod table;

use crate::case::{self, Ends};
use crate::cost;
use anyhow::{Context, Result};
use bodies::{Body, Stage};
use client::{Sample, Streams};
use e2e::adapter::Adapter;
use e2e::envoy::Envoy;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long each body is requested. `BUSY` uses many connections, to measure the CPU time. `CALM` uses one, to measure
/// the latencies.
const BUSY: Duration = Duration::from_millis(400);
const CALM: Duration = Duration::from_millis(500);
/// Streams take long, so the CPU time and the latencies are measured together.
const STREAMING: Duration = Duration::from_millis(900);
/// The number of concurrent streams. It is small, so that no stream waits for a CPU.
const STREAMS: usize = 4;
/// The pause between a response and the next request when latencies are measured. In this time, Envoy finishes its work
/// after the response.
const REST: Duration = Duration::from_millis(3);
/// The number of streams that are open while the memory is measured.
pub const OPEN_STREAMS: usize = 500;

/// The filter that Envoy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Alone,
    /// A Wasm filter that does nothing.
    Empty,
    /// A Wasm filter that only sets the same headers as Weir.
    Told,
    /// Weir with one limit. Weir reads the response.
    Weir,
    /// Weir also reads the request, requests the stream's usage, and removes the usage chunk.
    Asking,
}

const SIDES: [Side; 5] = [Side::Alone, Side::Empty, Side::Told, Side::Weir, Side::Asking];

struct Running {
    side: Side,
    envoy: Envoy,
    /// The rounds of each body, in the order of the bodies.
    rounds: Vec<Vec<Round>>,
    /// Resident memory in bytes: idle, with open uncompressed streams, and with open compressed streams.
    memory: [u64; 3],
}

/// The results of one round of one body. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Envoy's CPU time per response.
    cpu: f64,
    /// The time from the upstream's first byte to the client's first byte.
    first: f64,
    /// The time from the upstream's last piece to the client's last byte.
    last: f64,
    /// The time from the request to the first byte of the body.
    asked: f64,
}

/// Measures the selected bodies, JSON first, and prints a table for each kind. A complete table is stored.
pub fn run(adapter: &Adapter, count: usize, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let stage = Stage::start(bodies::all()?)?;
    for is_stream in [false, true] {
        let kind = stage.bodies.iter().filter(|body| body.is_stream == is_stream);
        let chosen: Vec<&Body> = kind.clone().filter(|body| is_wanted(&body.name)).collect();
        if chosen.is_empty() {
            continue;
        }
        let sides = SIDES.iter().filter(|side| **side != Side::Asking || is_stream);
        let mut running = sides.map(|side| start(*side, adapter, &stage)).collect::<Result<Vec<_>>>()?;
        for round in 0..count {
            eprintln!("responses, round {} of {count}", round + 1);
            for one in &mut running {
                measure_all(one, &stage, &chosen)?;
            }
        }
        if is_stream {
            for one in &mut running {
                one.memory = memory(one, &stage)?;
            }
        }
        let text = table::render(&chosen, &running, count, is_stream);
        println!("{text}");
        if chosen.len() == kind.count() {
            crate::report::keep(table::heading(is_stream), &text)?;
        }
    }
    Ok(())
}

fn measure_all(one: &mut Running, stage: &Arc<Stage>, bodies: &[&Body]) -> Result<()> {
    one.rounds.resize_with(bodies.len(), Vec::new);
    for (at, body) in bodies.iter().enumerate() {
        let measured = measure(one, stage, body)
            .with_context(|| format!("{} through {:?}\n{}", body.name, one.side, one.envoy.log()))?;
        if let Some(rounds) = one.rounds.get_mut(at) {
            rounds.push(measured);
        }
    }
    Ok(())
}

fn start(side: Side, adapter: &Adapter, stage: &Arc<Stage>) -> Result<Running> {
    let filter = match side {
        Side::Alone => case::Filter::None,
        Side::Empty => case::Filter::Empty,
        Side::Told => case::Filter::Told,
        Side::Weir | Side::Asking => case::weir("one"),
    };
    let case = case::case("responses", filter);
    let mut config = case.config(Ends { upstream: stage.address, adapter: adapter.grpc() })?;
    if side == Side::Asking {
        config.plugin(|plugin| plugin["requestBody"] = json!({ "access": "Buffer" }));
        let plugin = config.wasm().get_mut("config").and_then(Value::as_object_mut);
        plugin.context("no plugin")?.insert("allow_on_headers_stop_iteration".into(), true.into());
    }
    let envoy = config.start(1);
    let body = stage.bodies.first().context("no bodies")?;
    e2e::wait::until(case.name, || {
        let head = client::once(envoy.address(), body).ok()?;
        case.is_ready(&head).then_some(())
    });
    Ok(Running { side, envoy, rounds: Vec::new(), memory: [0; 3] })
}

fn measure(one: &Running, stage: &Arc<Stage>, body: &Body) -> Result<Round> {
    let pid = one.envoy.pid();
    let address = one.envoy.address();
    let (load, time) = if body.is_stream {
        ((STREAMS, REST), STREAMING)
    } else {
        ((crate::load::CONNECTIONS as usize, Duration::ZERO), BUSY)
    };
    let before = cost::cpu(pid)?;
    let mut samples = client::ask(address, stage, body, load, time)?;
    let cpu = (cost::cpu(pid)? - before).as_secs_f64() * 1e6 / samples.len() as f64;
    if !body.is_stream {
        samples = client::ask(address, stage, body, (1, REST), CALM)?;
    }
    let of = |field: fn(&Sample) -> Duration| {
        crate::report::median(samples.iter().map(|sample| field(sample).as_secs_f64() * 1e6).collect())
    };
    Ok(Round {
        cpu,
        first: of(|sample| sample.first),
        last: of(|sample| sample.last),
        asked: of(|sample| sample.asked),
    })
}

fn memory(one: &Running, stage: &Arc<Stage>) -> Result<[u64; 3]> {
    let idle = cost::memory(one.envoy.pid())?;
    let open = |encoding: &str| -> Result<u64> {
        let body = stage.bodies.iter().find(|body| body.is_stream && body.encoding == encoding);
        let streams = Streams::open(one.envoy.address(), stage, body.context("no stream")?, OPEN_STREAMS)?;
        let memory = cost::memory(one.envoy.pid())?;
        streams.finish(stage)?;
        Ok(memory)
    };
    Ok([idle, open("")?, open("gzip")?])
}
