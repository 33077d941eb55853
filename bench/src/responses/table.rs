//! Renders the section of the results.

use super::bodies::{Body, EVENTS, PAUSE, THINKING};
use super::{OPEN_STREAMS, REST, Round, Running, STREAMS, Side};
use crate::report::{machine, median};
use std::fmt::Write;

/// Returns the heading.
pub fn heading(is_stream: bool) -> &'static str {
    if is_stream { "## What reading streams costs" } else { "## What reading JSON answers costs" }
}

/// Returns the whole section.
pub fn render(bodies: &[&Body], running: &[Running], count: usize, is_stream: bool) -> String {
    let day = std::env::var("BENCH_DATE").unwrap_or_else(|_| "an unknown day".into());
    let mut text = format!(
        "{}\n\n`BENCH_CASES={} make bench` on {day}, {}: medians of {count} interleaved rounds. Envoy has one worker, \
         and one limit applies. Times are in microseconds. *CPU above* is Envoy's additional CPU time per response compared \
         with Envoy alone, including the request's part (a Reserve, a Commit). *First byte* is the time from the upstream's \
         first chunk to the client's first byte. *Last byte* is the time from the upstream's last chunk to the client's \
         last byte. *Asked* is the time from the request to the first byte, including the limit check. *Shown* is \"yes\" \
         if the time is longer than in every round of Envoy alone.",
        heading(is_stream),
        if is_stream { "chunks" } else { "JSON" },
        machine(),
    );
    let _ = if is_stream {
        writeln!(
            text,
            " A stream has {EVENTS} events, one every {} ms. {STREAMS} streams run at a time, with staggered starts.\n",
            PAUSE.as_millis()
        )
    } else {
        writeln!(
            text,
            " *Per MB* is the part of the CPU time for each MB beyond the 1.2 kB. CPU times were measured with {} \
             connections in a closed loop. The other times were measured with one connection that pauses {} ms between \
             requests. The upstream answers after {} ms and sends the whole body at once.\n",
            crate::load::CONNECTIONS,
            REST.as_millis(),
            THINKING.as_millis(),
        )
    };
    text.push_str(
        "| response | through | CPU above | per MB | first byte | shown | last byte | shown | asked |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (at, body) in bodies.iter().enumerate() {
        let Some(alone) = rounds(running, Side::Alone, at) else { continue };
        for one in running {
            if let Some(mine) = rounds(running, one.side, at) {
                let name = body.name.trim_start_matches("responses: ");
                let small = small(bodies, running, one.side, body);
                line(&mut text, &format!("{name} | {}", name_of(one.side)), body, mine, alone, small);
            }
        }
    }
    if is_stream {
        memory(running, &mut text);
    }
    text
}

fn name_of(side: Side) -> &'static str {
    match side {
        Side::Alone => "Envoy alone",
        Side::Empty => "an empty Wasm filter",
        Side::Told => "a Wasm filter that sets Weir's headers",
        Side::Weir => "Weir",
        Side::Asking => "Weir, which asks for usage",
    }
}

fn rounds(running: &[Running], side: Side, body: usize) -> Option<&[Round]> {
    let rounds = running.iter().find(|one| one.side == side)?.rounds.get(body)?;
    (!rounds.is_empty()).then_some(rounds)
}

fn of(rounds: &[Round], field: fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(field).collect())
}

fn above(mine: &[Round], alone: &[Round]) -> f64 {
    of(mine, |round| round.cpu) - of(alone, |round| round.cpu)
}

/// Returns the cost and the size of the smallest body in the encoding of `like`.
fn small(bodies: &[&Body], running: &[Running], side: Side, like: &Body) -> Option<(f64, usize)> {
    let at = bodies.iter().position(|body| body.encoding == like.encoding)?;
    let small = bodies.get(at).filter(|small| small.plain < like.plain && !like.is_stream)?;
    Some((above(rounds(running, side, at)?, rounds(running, Side::Alone, at)?), small.plain))
}

/// Returns whether a median exceeds every round of Envoy alone.
fn shown(mine: f64, alone: &[Round], field: fn(&Round) -> f64) -> &'static str {
    if alone.iter().any(|round| field(round) >= mine) { "no" } else { "yes" }
}

fn line(
    text: &mut String,
    name: &str,
    body: &Body,
    mine: &[Round],
    alone: &[Round],
    small: Option<(f64, usize)>,
) {
    let above = above(mine, alone);
    let per_mb = small.map_or_else(
        || "-".to_owned(),
        |(small, size)| format!("{:.0}", (above - small) * 1e6 / (body.plain - size) as f64),
    );
    let (first, last) = (of(mine, |round| round.first), of(mine, |round| round.last));
    let _ = writeln!(
        text,
        "| {name} | {above:.0} | {per_mb} | {first:.0} | {} | {last:.0} | {} | {:.0} |",
        shown(first, alone, |round| round.first),
        shown(last, alone, |round| round.last),
        of(mine, |round| round.asked),
    );
}

fn memory(running: &[Running], text: &mut String) {
    let _ = writeln!(
        text,
        "\nThis table shows Envoy's memory in MB: idle after the rounds, and with {OPEN_STREAMS} open streams that have \
         delivered half of their events.\n\n\
         | | idle | plain | gzip |\n|---|---|---|---|"
    );
    for one in running {
        let [idle, plain, gzip] = one.memory.map(|bytes| bytes as f64 / 1e6);
        let _ = writeln!(text, "| {} | {idle:.0} | {plain:.0} | {gzip:.0} |", name_of(one.side));
    }
}
