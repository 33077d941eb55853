//! Hostile bodies: endless parts, and wrong lengths.

use crate::frames::encode_frame;
use crate::in_pieces;
use llm::response::{Cause, MeterReading, ResponseHead};

const LONG: usize = 1 << 20;
const USAGE: &str = r#""usage":{"prompt_tokens":5}"#;

fn read(content_type: &str, body: &[u8]) -> MeterReading {
    let head = ResponseHead { content_type: content_type.to_owned(), ..ResponseHead::default() };
    in_pieces(&head, body, 1500)
}

/// A scanner that makes no progress blocks its worker forever.
#[test]
fn whatever_stands_where_comes_to_an_end() {
    const BYTES: &[u8] = b"{}[]\"'/#,:1a \n\\";
    for content_type in ["", "application/json", "text/event-stream", "application/x-ndjson"] {
        for begun in ["", "{}", "[{\"choices\":", "data: {}"] {
            for number in 0..BYTES.len().pow(3) {
                let behind = (0..3u32).map(|place| BYTES[number / BYTES.len().pow(place) % BYTES.len()]);
                let body: Vec<u8> = begun.bytes().chain(behind).collect();
                assert_eq!(read(content_type, &body).usage, None, "{:?}", String::from_utf8_lossy(&body));
            }
        }
    }
}

#[test]
fn parts_without_an_end_do_not_hide_the_usage_after_them() {
    let parts = [
        format!(r#""a":"{}""#, "x".repeat(LONG)),
        format!(r#""a":"{}""#, "\\\\".repeat(LONG / 2)),
        format!(r#""a":"{}""#, "\\\"".repeat(LONG / 2)),
        format!(r#""content":"{}""#, "\\\\".repeat(LONG / 2)),
        format!(r#""content":"{}""#, "\\u6c34\\n".repeat(LONG / 8)),
        format!(r#""{}":1"#, "k".repeat(LONG)),
        format!(r#""{}":1"#, "\\u006b".repeat(LONG / 6)),
        format!(r#""a":{}"#, "1".repeat(LONG)),
        format!(r#""a":[{}0]"#, "0,".repeat(LONG / 2)),
        format!(r#""a":[{}{{}}]"#, "{},".repeat(LONG / 3)),
        format!(r#""choices":[{}0]"#, "{},".repeat(LONG / 3)),
        format!(r#"{}"b":1"#, r#""usage":null,"#.repeat(LONG / 13)),
        format!(r#"{}"b":1"#, r#""usage":{"prompt_tokens":7},"#.repeat(LONG / 28)),
        format!("{}\"a\":1", " \t".repeat(LONG / 2)),
        format!(r#""type":"{}""#, "t".repeat(LONG)),
    ];
    for part in parts {
        let json = format!("{{{part},{USAGE}}}");
        for body in [json.clone(), format!("data: {json}\n\n"), format!("{}\ndata:{json}", ":".repeat(LONG))]
        {
            let reading = read("", body.as_bytes());
            let usage = reading.usage.map(|usage| usage.input);
            assert_eq!((usage, reading.broken), (Some(5), None), "{:.60}", body);
        }
    }
}

#[test]
fn events_and_lines_without_number_or_end_are_walked_past() {
    let event = format!("data: {{{USAGE}}}\n\n");
    for noise in
        ["\n", "\r", "\r\n", "data\n", "data:\n", "id", ":\n\n", "event: x\n", "data: [\n\n", "retry"]
    {
        let body = format!("{}\n\n{event}", noise.repeat(LONG / 8 / noise.len()));
        let usage = read("text/event-stream", body.as_bytes()).usage;
        assert_eq!(usage.map(|usage| usage.input), Some(5), "{noise:?}");
    }
}

#[test]
fn counts_that_are_none_are_told() {
    for number in
        ["1e308", "-1", "1e-400", &"9".repeat(LONG), "0.5", "\"5.5\"", "\"five\"", "{}", "[5]", "true"]
    {
        let body = format!(r#"{{"usage":{{"prompt_tokens":{number},"completion_tokens":3}}}}"#);
        let reading = read("", body.as_bytes());
        assert_eq!(reading.usage.map(|usage| (usage.input, usage.output)), Some((0, 3)), "{number:.20}");
        assert_eq!(reading.broken, Some(Cause::Count), "{number:.20}");
    }
}

#[test]
fn frames_that_lie_about_their_length_are_told() {
    let frames = "application/vnd.amazon.eventstream";
    let frame = |total: u32, headers: u32| {
        let mut frame = [total.to_be_bytes(), headers.to_be_bytes(), [0; 4]].concat();
        frame.resize(4096, b'x');
        frame
    };
    for (total, headers) in [(0, 0), (15, 0), (16, 1), (u32::MAX, 0), (1 << 26, 0), (1 << 20, 1 << 19)] {
        assert_eq!(read(frames, &frame(total, headers)).broken, Some(Cause::Malformed), "{total} {headers}");
    }
    for (total, headers) in [(16 << 20, 0), (200_000, 100_000), (8192, 4096)] {
        assert_eq!(read(frames, &frame(total, headers)).broken, Some(Cause::Truncated), "{total} {headers}");
    }
    // Unreadable headers are skipped, and the rest is read.
    let mut body = encode_frame([("\u{1}", "x"); 200].into_iter(), b"{}");
    body.extend(encode_frame([].into_iter(), format!("{{{USAGE}}}").as_bytes()));
    assert_eq!(read(frames, &body).usage.map(|usage| usage.input), Some(5));
}

/// The reading of text around a base64 document does not depend on the split.
#[test]
fn damage_around_an_unpacked_document_reads_the_same_in_any_pieces() {
    const DOCUMENT: &str = "eyJ0eXBlIjoibWVzc2FnZV9kZWx0YSIsInVzYWdlIjp7ImlucHV0X3Rva2VucyI6NSwib3V0cHV0X3Rva2VucyI6NX0sImRlbHRhIjp7InRleHQiOiJhYmNkZWZnaCJ9fQ==";
    let junk = "no document, but text that nobody can read as one";
    let payloads = [
        format!(r#"{{"bytes":"{DOCUMENT}"}} {junk}"#),
        format!(r#"{junk}{{"bytes":"{DOCUMENT}"}}"#),
        format!("{junk}\n{{\"bytes\":\"{DOCUMENT}\"}}\n{junk}{{\"bytes\":\"{DOCUMENT}\"}}"),
        format!(r#"{{"bytes":"{DOCUMENT}","p":'{junk}'}}"#),
        format!(r#"{{"p":"{}","bytes":"{DOCUMENT}","p":"{}"}}"#, "p".repeat(400), "p".repeat(400)),
        format!(r#"{{"bytes":"{}"}}"#, DOCUMENT.replace('=', "").repeat(2)),
    ];
    let content_type = "application/vnd.amazon.eventstream".to_owned();
    let head = ResponseHead { content_type, ..ResponseHead::default() };
    for payload in payloads {
        let headers = [(":event-type", "chunk"), (":message-type", "event")];
        let body = encode_frame(headers.into_iter(), payload.as_bytes()).repeat(2);
        let whole = in_pieces(&head, &body, usize::MAX);
        assert_eq!(whole.usage.map(|usage| usage.total), Some(10), "{payload}");
        for size in 1..body.len() {
            assert_eq!(in_pieces(&head, &body, size), whole, "pieces of {size}: {payload}");
        }
    }
}
