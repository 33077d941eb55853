//! `make bench`: runs every case on a separate Envoy with one worker, in interleaved rounds, with the same adapter and
//! upstream. Prints tables and writes them into `bench/RESULTS.md`.

mod case;
mod clusters;
mod cost;
mod load;
mod message;
mod report;
mod requests;
mod responses;
mod upstream;

use anyhow::{Context, Result};
use case::{CASES, Case, Ends};
use e2e::adapter::Adapter;
use e2e::artefacts;
use e2e::envoy::Envoy;
use report::{Round, Row};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(300);
const CLOSED: Duration = Duration::from_secs(2);
const FIXED: Duration = Duration::from_secs(2);
/// The rate at which latency is measured, in requests per second.
pub const RATE: u32 = 500;

/// An Envoy that serves one case.
struct Running {
    case: Case,
    envoy: Envoy,
    ready: Duration,
    rounds: Vec<Round>,
}

fn main() -> Result<()> {
    let count =
        std::env::var("BENCH_ROUNDS").map_or(Ok(8), |rounds| rounds.parse()).context("BENCH_ROUNDS")?;
    let wanted = std::env::var("BENCH_CASES").unwrap_or_default();
    let policies = std::fs::read_to_string(artefacts::root().join("bench/policies.yaml"))?;
    let adapter = Adapter::start(&[policies]);
    let ends = Ends { upstream: upstream::start()?, adapter: adapter.grpc() };

    let is_wanted = |name: &str| wanted.split(';').any(|part| name.contains(part));
    if CASES.iter().any(|case| case.filter != case::Filter::None && is_wanted(case.name)) {
        let text = requests(&adapter, ends, count, is_wanted)?;
        println!("{text}");
        if wanted.is_empty() {
            report::keep("# What Weir costs", &text)?;
        }
    }
    requests::run(count, is_wanted, wanted.is_empty(), ends)?;
    clusters::run(count, is_wanted, wanted.is_empty(), ends)?;
    responses::run(&adapter, count, is_wanted)
}

/// Returns the order of `count` cases in a round. A case's figures depend on when it runs and on which case ran before it,
/// so each round starts with another case, and every second time around the cases run backwards.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.rotate_left(round.checked_rem(count).unwrap_or(0));
    if round.checked_div(count).unwrap_or(0) % 2 == 1 {
        order.reverse();
    }
    order
}

/// Measures the cost of a request in each case.
fn requests(adapter: &Adapter, ends: Ends, count: usize, is_wanted: impl Fn(&str) -> bool) -> Result<String> {
    let cases = CASES.iter().filter(|case| case.filter == case::Filter::None || is_wanted(case.name));
    let cases = cases.flat_map(|case| case.with_before());
    let mut running = cases.map(|case| start(case, ends)).collect::<Result<Vec<_>>>()?;
    for round in 0..count {
        eprintln!("round {} of {count}", round + 1);
        for place in order(round, running.len()) {
            let Some(one) = running.get_mut(place) else { continue };
            let measured = measure(one, adapter)
                .with_context(|| format!("{}\n{}", one.case.title(), one.envoy.log()))?;
            one.rounds.push(measured);
        }
    }

    let rows = running.iter().map(row).collect::<Result<Vec<_>>>()?;
    let adapter_memory = cost::memory(adapter.pid())?;
    Ok(report::render(&rows, count, adapter_memory))
}

/// Starts an Envoy for the case, and waits until a response shows that it works.
fn start(case: Case, ends: Ends) -> Result<Running> {
    let config = case.config(ends)?;
    let begin = Instant::now();
    let envoy = config.start(1);
    e2e::wait::until(&case.title(), || load::once(envoy.address()).ok().filter(|head| case.is_ready(head)));
    let ready = begin.elapsed();
    eprintln!("{}: ready after {} ms", case.title(), ready.as_millis());
    Ok(Running { case, envoy, ready, rounds: Vec::new() })
}

fn measure(one: &Running, adapter: &Adapter) -> Result<Round> {
    let used = || -> Result<_> { Ok((cost::cpu(one.envoy.pid())?, cost::cpu(adapter.pid())?)) };
    let mut round = load::closed(one.envoy.address(), |answers| {
        std::thread::sleep(WARM_UP);
        let (begin, first) = (Instant::now(), answers.load(Ordering::Relaxed));
        let (before, calls_before) = (used()?, calls(adapter));
        std::thread::sleep(CLOSED);
        let (after, calls_after) = (used()?, calls(adapter));
        let count = answers.load(Ordering::Relaxed) - first;
        Ok(Round {
            throughput: count as f64 / begin.elapsed().as_secs_f64(),
            envoy_cpu: (after.0 - before.0).as_secs_f64() * 1e6 / count as f64,
            adapter_cpu: (after.1 - before.1).as_secs_f64() * 1e6 / count as f64,
            reserves: 100.0 * (calls_after.0 - calls_before.0) / count as f64,
            commits: 100.0 * (calls_after.1 - calls_before.1) / count as f64,
            ..Round::default()
        })
    })?;
    let before = used()?;
    let mut taken = load::fixed(one.envoy.address(), RATE, FIXED)?;
    round.envoy_cpu_fixed = (used()?.0 - before.0).as_secs_f64() * 1e6 / taken.len() as f64;
    taken.sort();
    let at =
        |share: f64| taken.get((taken.len() as f64 * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    (round.p50, round.p99) = (at(0.5), at(0.99));
    Ok(round)
}

/// Returns the numbers of Reserve and Commit messages so far.
fn calls(adapter: &Adapter) -> (f64, f64) {
    let of = |call: &str| adapter.metric("weir_grpc_seconds_count", &[&format!("call=\"{call}\"")]);
    (of("Reserve"), of("Commit"))
}

fn row(one: &Running) -> Result<Row> {
    let module = one.case.module().map(std::fs::metadata).transpose()?.map(|file| file.len());
    Ok(Row {
        case: one.case,
        median: Round::median(&one.rounds),
        memory: cost::memory(one.envoy.pid())?,
        module,
        ready: one.ready,
    })
}
