//! How long a request is read and edited, beside `serde_json` parsing it to a value; and how fast honest and hostile
//! bodies are read. The best of several rounds; run with `cargo bench -p llm --bench request`.

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
    for (name, body) in bodies() {
        let body = body.as_bytes();
        let read = micros(|| {
            drop(black_box(request::read(PATH, "application/json", black_box(body), Extent::Whole)))
        });
        let speed = f64::from(u32::try_from(body.len()).unwrap_or(u32::MAX)) / read / 1000.0;
        println!("{name:28} {:9} {read:10.2} {speed:10.2} GB/s", body.len());
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

/// How fast bodies are read. Wanted: 1 GB/s of the honest ones, and a tenth of that of the hostile ones.
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

/// Honest bodies of agents, and what a client would send to keep the filter busy.
fn bodies() -> Vec<(&'static str, String)> {
    let with = |members: &str| {
        format!(r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"hi"}}],{members}}}"#)
    };
    let tool = r#"{"type":"function","function":{"name":"read_file","description":"Reads a file from the workspace. The path has to be absolute. By default it reads up to 2000 lines from the beginning of the file; longer lines are truncated. Results come with line numbers, starting at 1.","strict":true,"parameters":{"type":"object","additionalProperties":false,"properties":{"path":{"type":"string","description":"The absolute path of the file to read"},"offset":{"type":"integer","minimum":0},"limit":{"type":"integer","maximum":2000}},"required":["path"]}}}"#;
    let turn = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_abcdefghijklmnopqrstuvwx","type":"function","function":{"name":"read_file","arguments":"{\"path\":\"/src/main.rs\"}"}}]},{"role":"tool","tool_call_id":"call_abcdefghijklmnopqrstuvwx","content":"1\tfn main() {\n2\t    println!(\"A weir is a low wall across a river.\");\n3\t}\n"}"#;
    let many = |piece: &str, bytes: usize| vec![piece; bytes / piece.len()].join(",");
    let keys = |in_what: &str| {
        let keys: Vec<String> = (0..60_000).map(|n| format!(r#""k{n}":0"#)).collect();
        in_what.replace('@', &keys.join(","))
    };
    vec![
        ("76 kB of tools", with(&format!(r#""tools":[{}]"#, many(tool, 76_000)))),
        ("300 kB of an agent's turns", format!(r#"{{"model":"m","messages":[{}]}}"#, many(turn, 300_000))),
        (
            "1 MB image",
            with(&format!(
                r#""x":0,"messages":[{{"content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]}}]"#,
                "iVBORw0KGgoAAAANSUhEUg".repeat(45_000)
            )),
        ),
        ("600 kB deep", with(&format!(r#""x":{}{}"#, "[".repeat(300_000), "]".repeat(300_000)))),
        ("tiny keys of the body", keys("{@}")),
        ("tiny keys of a message", keys(r#"{"messages":[{@}]}"#)),
        ("tiny keys in tools", with(&keys(r#""tools":[{@}]"#))),
        ("a key again and again", with(&many(r#""model":"a""#, 600_000))),
        ("numbers of a prompt", format!(r#"{{"prompt":[{}]}}"#, many("1234", 600_000))),
        (
            "empty objects",
            with(&format!(r#""x":[{}],"messages":[{}]"#, many("{}", 300_000), many("{}", 300_000))),
        ),
        (
            "escapes",
            with(&format!(
                r#""tools":["{}"],"prompt":"{}""#,
                "\\u00e4".repeat(50_000),
                "\\u00e4".repeat(50_000)
            )),
        ),
        (
            "quotes and backslashes",
            with(&format!(r#""tools":["{}"],"prompt":"{}""#, "\\\"".repeat(150_000), "\\\\".repeat(150_000))),
        ),
    ]
}

fn event(text: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-9B1\",\"object\":\"chat.completion.chunk\",\"created\":1740000000,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// Of the best of many rounds.
fn micros(work: impl Fn()) -> f64 {
    timer::best(1, work) / 1000.0
}
