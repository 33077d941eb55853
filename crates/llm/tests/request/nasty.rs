//! Bodies that are deeply nested, truncated, or oddly formatted.

use crate::corpus::corpus;
use crate::{CHAT, read};
use llm::request::{self, Condition, Extent, edit};

#[test]
fn depth_costs_nothing() {
    let depth = 100_000;
    let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for deep in [&nested, &objects] {
        for field in ["messages", "metadata", "x", "stream_options", "max_tokens", "model"] {
            let text = format!(r#"{{"{field}":{deep},"model":"m","stream":true,"prompt":"12345678"}}"#);
            let body = read(CHAT, text.as_bytes());
            // Keys in unknown places are text at any depth.
            let keys = if deep == &objects { depth as u64 / 4 } else { 0 };
            assert_eq!(body.model.as_deref(), Some("m"), "{field}");
            assert!((2..=3 + keys).contains(&body.input), "{field}: {}", body.input);
            let usage = edit::ask_for_usage(&body, text.as_bytes()).unwrap();
            assert!(usage.body.is_some() && usage.unasked, "{field}");
            edit::cap_output(&body, text.as_bytes(), 9).unwrap().unwrap();
        }
    }
    for open in ["[", "{\"messages\":[", "{\"a\":", "[{\"content\":"] {
        assert_eq!(read(CHAT, open.repeat(depth).as_bytes()).condition, Condition::Malformed, "{open}");
    }
}

/// A scanner that makes no progress blocks its worker forever.
#[test]
fn whatever_stands_where_comes_to_an_end() {
    const BYTES: &[u8] = b"{}[]\"'/#,:1a \n\\";
    for begun in ["", "{}", "[", "{\"messages\":", "{\"x\":[1"] {
        for number in 0..BYTES.len().pow(4) {
            let behind = (0..4u32).map(|place| BYTES[number / BYTES.len().pow(place) % BYTES.len()]);
            let body: Vec<u8> = begun.bytes().chain(behind).collect();
            let read = read(CHAT, &body);
            assert!(!read.condition.hides_facts() || read.input > 0, "{:?}", String::from_utf8_lossy(&body));
        }
    }
    for body in ["{\"model\":\"m\"}/", "{\"model\":\"m\"}'", "[]#", "[1]/* { */{\"model\":\"m\"}"] {
        assert!(read(CHAT, body).condition.hides_facts(), "{body}");
    }
}

/// Returns the number of bytes in long runs of base64.
fn base64(body: &[u8]) -> usize {
    let runs = body.split(|byte| !byte.is_ascii_alphanumeric() && !b"+/=".contains(byte));
    runs.map(<[u8]>::len).filter(|length| *length > 50).sum()
}

#[test]
fn a_body_that_is_cut_is_judged_by_what_is_known() {
    for sample in corpus() {
        let whole = sample.read();
        for length in 0..sample.body.len() {
            let cut = Extent::Cut(Some(sample.body.len() as u64));
            let body = request::read(&sample.path, &sample.content_type, &sample.body[..length], cut);
            assert_eq!(body.condition, Condition::Cut);
            if whole.operation == body.operation && whole.operation.uses_tokens() {
                // The part that has been read and is base64 counts as a file.
                let text = (sample.body.len() - base64(&sample.body[..length])) as u64;
                assert!(body.input + 16 >= text / 4, "{} at {length}", sample.name);
            }
        }
    }
    let body = request::read(
        CHAT,
        "",
        br#"{"model":"m","max_tokens":7,"messages":[{"content":"hi"#,
        Extent::Cut(None),
    );
    assert_eq!((body.model.as_deref(), body.max_output, body.input), (Some("m"), Some(7), 13));
    let body = request::read(CHAT, "", br#"{"model":"m","messages":"#, Extent::Cut(Some(4_000_000)));
    assert_eq!((body.input, body.output(1)), (1_000_000, 1_000_000));
}

#[test]
fn utf_16_is_no_way_around() {
    let text = r#"{"model":"dear","messages":[{"content":"12345678"}],"max_tokens":90}"#;
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let body = request::read(CHAT, "application/json", &utf16, Extent::Whole);
    assert_eq!((body.model.as_deref(), body.input, body.max_output), (Some("dear"), 2, Some(90)));
    assert_eq!(body.condition, Condition::Read);
}
