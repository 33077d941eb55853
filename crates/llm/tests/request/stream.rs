//! The usage chunk is the only part that is removed from a stream.

use crate::difference;
use llm::request::UsageChunkFilter;
use proptest::prelude::*;

/// An event, and whether it is the chunk to remove.
fn event() -> impl Strategy<Value = (String, bool)> {
    let usage = r#"{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}"#;
    let events = [
        (format!(r#"data: {{"id":"c","choices":[],"usage":{usage}}}"#), true),
        (format!(r#"data:{{"usage":{usage} , "choices" : [ ] ,"x":"\"choices\":[{{"}}"#), true),
        (format!("data: {{\"id\":\"c\",\"choices\":\ndata: [],\"usage\":{usage}}}"), true),
        (format!("id: 7\ndata: {{\"choices\":[],\"usage\":{usage}}}"), true),
        (format!(r#"data: {{"id":"c","choices":[{{"index":0,"delta":{{}}}}],"usage":{usage}}}"#), true),
        (
            format!(
                r#"data: {{"id":"c","choices":[{{"finish_reason":null,"index":0,"delta":{{"content":null,"role":""}}}}],"usage":{usage}}}"#
            ),
            true,
        ),
        (
            format!(
                r#"data: {{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"usage":{usage}}}"#
            ),
            false,
        ),
        (
            format!(
                r#"data: {{"id":"c","choices":[{{"index":0,"delta":{{}}}},{{"index":1,"delta":{{}}}}],"usage":{usage}}}"#
            ),
            false,
        ),
        (r#"data: {"choices":[{"index":0,"delta":{}}]}"#.to_owned(), false),
        (r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#.to_owned(), false),
        (r#"data: {"choices":[{"index":0,"text":"abc"}],"usage":{"a":1}}"#.to_owned(), false),
        (r#"data: {"choices":[],"usage":{"prompt_tokens":19,"cost":0.0001}}"#.to_owned(), false),
        (format!(r#"data: {{"id":"c","choices":[{{"delta":{{"content":"näh"}}}}],"usage":{usage}}}"#), false),
        (
            r#"data: {"id":"c","choices":[{"delta":{"content":"\"choices\":[],\"usage\":{}"}}]}"#.to_owned(),
            false,
        ),
        (r#"data: {"choices":[],"prompt_filter_results":[{"a":1}]}"#.to_owned(), false),
        (r#"data: {"choices":[],"usage":null}"#.to_owned(), false),
        (r#"data: {"choices":[],"usage":{}}"#.to_owned(), false),
        (format!(r#"data: {{"choices":[],"choices":[{{}}],"usage":{usage}}}"#), false),
        (format!(r#"data: {{"usage":{usage}}}"#), false),
        (format!(r#"data: {{"choices":[],"usage":{usage}"#), false),
        (format!(r#"event: {{"choices":[],"usage":{usage}}}"#), false),
        ("data: [DONE]".to_owned(), false),
        (": keep-alive".to_owned(), false),
        ("event: error\ndata: {\"error\":{\"message\":\"usage\"}}".to_owned(), false),
        ("data".to_owned(), false),
        (String::new(), false),
        (format!(r#"data: {{"a":"{}","choices":[],"usage":{usage}}}"#, "x".repeat(20_000)), false),
    ];
    prop::sample::select(events.to_vec())
}

/// Returns a stream, the stream without the chunk, and the ends of all events.
#[derive(Clone, Default)]
struct Stream {
    sent: Vec<u8>,
    expected: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", String::from_utf8_lossy(&self.sent), self.ends)
    }
}

fn stream() -> impl Strategy<Value = Stream> {
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    (prop::collection::vec(event(), 0..8), line_end, any::<bool>()).prop_map(|(events, line_end, ended)| {
        let mut stream = Stream::default();
        let last = events.len();
        for (at, (event, taken_out)) in events.into_iter().enumerate() {
            let mut event = event.replace('\n', line_end);
            event.push_str(line_end);
            if at + 1 < last || ended {
                event.push_str(line_end);
            }
            stream.sent.extend_from_slice(event.as_bytes());
            if !taken_out {
                stream.expected.extend_from_slice(event.as_bytes());
            }
            stream.ends.push((stream.sent.len(), stream.expected.len()));
        }
        stream
    })
}

/// Returns what the client receives if the stream arrives in these pieces.
fn filtered(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut filter = UsageChunkFilter::default();
    let mut from = 0;
    let ends = cuts.iter().copied().chain([stream.len()]);
    let pieces = ends.map(|end| {
        let piece = &stream[from..end];
        from = end;
        filter.feed(piece, end == stream.len()).unwrap_or_else(|| piece.to_vec())
    });
    pieces.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn only_the_usage_chunk_is_taken_out(
        stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.sent.len() + 1)).collect();
        cuts.sort_unstable();
        let got = filtered(&stream.sent, &cuts).concat();
        prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&stream.expected));
    }

    #[test]
    fn an_event_is_out_when_it_has_ended(stream in stream()) {
        let mut filter = UsageChunkFilter::default();
        let (mut from, mut out) = (0, 0);
        for (end, expected) in stream.ends {
            let piece = &stream.sent[from..end];
            out += filter.feed(piece, false).map_or(piece.len(), |piece| piece.len());
            from = end;
            // An event that does not end with a blank line may continue.
            prop_assert!(out == expected || end == stream.sent.len(), "{} of {}", out, expected);
        }
    }

    #[test]
    fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        prop_assert_eq!(filtered(&bytes, &[cut]).concat(), bytes);
    }
}

#[test]
fn every_split_of_a_stream_gives_the_same() {
    let stream = "data: {\"choices\":[{\"delta\":{}}]}\r\n\r\n: ping\r\n\r\ndata: {\"choices\":[],\"usage\":{\"a\":1}}\r\n\r\ndata: [DONE]\r\n\r\n";
    let expected = "data: {\"choices\":[{\"delta\":{}}]}\r\n\r\n: ping\r\n\r\ndata: [DONE]\r\n\r\n";
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let got = filtered(stream.as_bytes(), &[first, second]).concat();
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{first} {second}");
        }
    }
}

#[test]
fn what_is_decided_early_is_sent_early() {
    let out = |pieces: &[&str]| {
        let mut filter = UsageChunkFilter::default();
        let out =
            |piece: &&str| filter.feed(piece.as_bytes(), false).unwrap_or_else(|| piece.as_bytes().to_vec());
        pieces.iter().map(out).map(|piece| String::from_utf8(piece).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(
        out(&["data: {\"choi", "ces\":[", "{\"delta\":", "{\"content\":\"a", "b\"}}]}\n"]),
        ["", "", "", "data: {\"choices\":[{\"delta\":{\"content\":\"a", "b\"}}]}\n"],
        "a delta that says something"
    );
    assert_eq!(
        out(&["data: {\"choices\":[{\"text\":", "\"a\"}]}\n"]),
        ["data: {\"choices\":[{\"text\":", "\"a\"}]}\n"],
        "a completion"
    );
    assert_eq!(
        out(&["data: {\"choices\":[{\"delta\":{},\"finish_reason\":", "\"stop\"", "}]}\n"]),
        ["", "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"", "}]}\n"],
        "a reason to finish"
    );
    assert_eq!(out(&["dat", "a: [", "DONE]"]), ["", "data: [", "DONE]"], "no object");
    assert_eq!(
        out(&["data: {\"err", "or\": {\"mess", "age"]),
        ["", "data: {\"error\": {\"mess", "age"],
        "an error"
    );
    assert_eq!(out(&[": wai", "ting\n", "\n"]), [": wai", "ting\n", "\n"], "a comment");
    assert_eq!(out(&["data: {}\n", "\n"]), ["", "data: {}\n\n"], "an end");
    let long = "x".repeat(20_000);
    assert_eq!(
        out(&["data: {\"a\":\"", &long]),
        [String::new(), format!("data: {{\"a\":\"{long}")],
        "a long one"
    );
}

#[test]
fn what_is_taken_out_of_each_providers_stream() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/responses");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut told = Vec::new();
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "sse")) {
        let sent = std::fs::read(&file).unwrap();
        let got = filtered(&sent, &[]).concat();
        for cut in (0..sent.len()).step_by(7) {
            assert_eq!(filtered(&sent, &[cut]).concat(), got, "{}", file.display());
        }
        let (_, taken_out, put_in) = difference(&sent, &got);
        assert_eq!(put_in, b"");
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        told.push(format!("{name}: {:?}", String::from_utf8_lossy(taken_out)));
    }
    told.sort();
    insta::assert_snapshot!(told.join("\n"));
}
