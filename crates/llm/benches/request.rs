//! Measures how long it takes to read and edit a request, compared with `serde_json`, and how fast honest and
//! hostile bodies are read. Reports the best of several rounds. Run `cargo bench -p llm --bench request`.

mod bodies;
mod timer;

use llm::request::{self, Extent, UsageChunkFilter, edit};
use std::hint::black_box;

const PATH: &str = "/v1/chat/completions";

fn main() {
    println!("{:28} {:>9} {:>10} {:>10} {:>10} {:>10}", "µs", "bytes", "read", "ask", "cap", "serde_json");
    for (name, body) in [("560 B chat", chat(2)), ("200 kB chat", chat(1170))] {
        let body = body.as_bytes();
        let facts = request::read(PATH, "application/json", body, Extent::Whole);
        assert!(facts.stream && facts.model.is_some() && facts.input > 50);
        let read = micros(|| {
            drop(black_box(request::read(PATH, "application/json", black_box(body), Extent::Whole)))
        });
        let ask = micros(|| drop(black_box(edit::ask_for_usage(&facts, black_box(body)))));
        let cap = micros(|| drop(black_box(edit::cap_output(&facts, black_box(body), 250))));
        let json = micros(|| drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(body)))));
        println!("{name:28} {:9} {read:10.2} {ask:10.2} {cap:10.2} {json:10.2}", body.len());
    }
    let stream = format!(
        "{}data: {}\n\ndata: [DONE]\n\n",
        event(" weir").repeat(200),
        r#"{"choices":[],"usage":{"a":1}}"#
    );
    let filter = micros(|| {
        let mut filter = UsageChunkFilter::default();
        for chunk in stream.as_bytes().chunks(event(" weir").len()) {
            black_box(filter.feed(black_box(chunk), false));
        }
    });
    println!("{:28} {:9} {filter:10.2}", "usage chunk of 200 events", stream.len());
    speeds();
}

/// The speed of reading bodies. The targets are 1 GB/s for honest bodies, and a tenth of that for hostile
/// ones.
fn speeds() {
    println!("\n{:40} {:>9} {:>8}", "GB/s", "bytes", "read");
    for (kind, wanted, bodies) in [("honest", 1.0, bodies::honest()), ("hostile", 0.1, bodies::hostile())] {
        for (name, path, body) in bodies {
            let body = body.as_bytes();
            let read = || request::read(path, "application/json", black_box(body), Extent::Whole);
            let nanoseconds = timer::best(1, || drop(black_box(read())));
            let speed = body.len() as f64 / nanoseconds;
            let verdict = if speed < wanted { " slow" } else { "" };
            println!("{:40} {:9} {speed:8.2}{verdict}", format!("{kind}, {name}"), body.len());
        }
    }
}

fn chat(turns: usize) -> String {
    let turn = r#"{"role":"user","content":"A weir is a low wall across a river.\nIt holds the flow back, lets through \"what may pass\", and measures it — naïvely said."}"#;
    let turns = vec![turn; turns].join(",");
    format!(
        r#"{{"model":"gpt-4o-mini","stream":true,"temperature":0.7,"messages":[{{"role":"system","content":"You are a helpful assistant who answers briefly."}},{turns}],"user":"user-1234"}}"#
    )
}

fn event(text: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-9B1\",\"object\":\"chat.completion.chunk\",\"created\":1740000000,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// Returns the best of many rounds.
fn micros(work: impl Fn()) -> f64 {
    timer::best(1, work) / 1000.0
}
