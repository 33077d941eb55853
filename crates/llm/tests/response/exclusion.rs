//! Delivered text in unlisted places and formats.

use crate::in_pieces;
use llm::memory::MemoryBudget;
use llm::response::{Cause, Meter, MeterReading, ResponseHead};
use proptest::prelude::*;
use serde_json::{Value, json};

fn head(content_type: &str, content_encoding: &str) -> ResponseHead {
    let (content_type, content_encoding) = (content_type.to_owned(), content_encoding.to_owned());
    ResponseHead { status: 200, content_type, content_encoding, ..ResponseHead::default() }
}

/// Reads a body, with the same result at every split.
fn read(head: &ResponseHead, body: &[u8]) -> MeterReading {
    let whole = in_pieces(head, body, usize::MAX);
    let splits = if body.len() > 2000 { 1..2 } else { 0..body.len() };
    for at in splits {
        let (one, other) = body.split_at(at);
        let mut meter = Meter::new(head);
        meter.feed(one);
        meter.feed(other);
        assert_eq!(meter.finish(), whole, "split at {at}: {}", String::from_utf8_lossy(body));
    }
    for size in [1, 3, 7] {
        assert_eq!(in_pieces(head, body, size), whole, "pieces of {size}: {}", String::from_utf8_lossy(body));
    }
    whole
}

fn delivered(body: impl AsRef<[u8]>) -> u64 {
    read(&head("", ""), body.as_ref()).delivered
}

#[test]
fn every_string_of_an_unknown_document_counts() {
    let table: &[(&str, u64)] = &[
        (r#"{"answer":"12345678","nested":{"deep":[{"x":"abcd"},"ef"]},"n":5,"b":true,"z":null}"#, 14),
        (r#"{"id":"a","model":"m","object":"o","created":1,"answer":"12345678"}"#, 8),
        (r#"{"result":{"id":"12","type":"345"}}"#, 5),
        (r#"" \n123 {\"usage\":{}}""#, 16),
        (r#"" \n{\"answer\":\"12 45\"}""#, 5),
        (r#"{"message":"abc"}"#, 3),
        (r#"{"output":[[{"text":{"value":"abc"}}]]}"#, 3),
        (r#"["abc",["de"],{"x":"f"}]"#, 6),
        (r#""abc""#, 3),
        ("{\"a\":\"x\"}\n{\"a\":\"y\\n\\u00e9\"}\n", 5),
        (r#"{"vector":[0.1,0.2,0.3],"data":[{"embedding":"AAAA","index":0}]}"#, 0),
        // Objects in place of text, text in place of objects, and unknown fields and types.
        (r#"{"choices":[{"message":{"content":{"x":["ab","c"]},"reasoning":{"summary":"de"}}}]}"#, 5),
        (r#"{"choices":["abc"]}"#, 3),
        (r#"{"candidates":[{"content":"abc"}]}"#, 3),
        (r#"{"choices":[{"index":0,"finish_reason":"stop","delta":{"role":"assistant","words":"abc"}}]}"#, 3),
        (r#"{"choices":[{"message":{"content":"a","parsed":{"b":"cd"}}}]}"#, 3),
        (r#"{"type":"message","content":[{"type":"poem","verses":["ab","cd"]}]}"#, 4),
        (
            r#"{"candidates":[{"content":{"parts":[{"executableCode":{"language":"PYTHON","code":"x=1"}}]}}]}"#,
            9,
        ),
        // The arguments of a tool call, including their keys.
        (r#"{"tool_calls":[{"name":"f","parameters":{"city":"Oslo"}}]}"#, 13),
        (
            r#"{"choices":[{"message":{"tool_calls":[{"id":"1","type":"custom","custom":{"name":"f","input":"abc"}}]}}]}"#,
            4,
        ),
        (r#"{"reasoning":{"effort":"high"},"output":[]}"#, 0),
        (r#"{"reasoning":"ab","answer":"c"}"#, 3),
        (r#"{"segments":[{"text":"abc"}]}"#, 3),
        (r#"{"text":"abc","segments":[{"id":0,"text":"ab"},{"id":1,"text":"c"}]}"#, 3),
        (r#"{"start":{"toolUse":{"toolUseId":"t1","name":"f"}},"contentBlockIndex":0,"p":"abcdef"}"#, 0),
        // A text, and a list of its tokens.
        (r#"{"generated_text":"abc","details":{"tokens":[{"text":"ab"},{"text":"c"}]}}"#, 3),
    ];
    for (body, expected) in table {
        assert_eq!(delivered(body), *expected, "{body}");
    }
}

#[test]
fn what_is_too_long_for_an_id_counts() {
    for name in ["id", "model", "type", "role", "event_type", "request_id"] {
        for length in [1, 47, 100, 256] {
            let body = json!({name: "x".repeat(length)}).to_string();
            assert_eq!(delivered(&body), 0, "{name}, {length}");
        }
        for length in [257, 300, 400_000] {
            let body = json!({name: "x".repeat(length)}).to_string();
            assert_eq!(delivered(&body), length as u64 - 256, "{name}, {length}");
        }
    }
    let event = format!("id: {}\ndata: {{}}\n\n", "x".repeat(300));
    assert_eq!(read(&head("text/event-stream", ""), event.as_bytes()).delivered, 45);
}

#[test]
fn a_comment_is_not_delivered_however_long_it_is() {
    let event = format!(": {}\n:{}\ndata: {{}}\n\n", "x".repeat(300), "y".repeat(100_000));
    assert_eq!(read(&head("text/event-stream", ""), event.as_bytes()).delivered, 0);
}

#[test]
fn depth_hides_nothing() {
    for depth in [10, 23, 24, 25, 100] {
        let body = format!(r#"{}"{}"{}"#, r#"{"a":"#.repeat(depth), "x".repeat(1000), "}".repeat(depth));
        assert!(delivered(&body) >= 1000, "{depth}");
        let body = format!("{}\"{}\"{}", "[".repeat(depth), "x".repeat(1000), "]".repeat(depth));
        assert!(delivered(&body) >= 1000, "{depth} arrays");
    }
}

#[test]
fn what_is_no_document_counts_by_its_bytes() {
    let noise: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    let wave = [b"RIFF\x24\0\0\0WAVEfmt ", &noise[..]].concat();
    let table: &[(&str, &[u8], u64)] = &[
        ("text/plain", b"Hello there, na\xc3\xafve", 19),
        ("", b"data scientists say so", 22),
        ("", b"every event counts: yes", 23),
        ("", b": a comment", 0),
        ("text/event-stream", b"data: Hello there\n\ndata: again\n\ndata: [DONE]\n\n", 16),
        ("text/event-stream", b"event: x\nanswer: Hello\n\n", 13),
        ("application/json", b"<html>x</html>", 14),
        ("text/vtt", b"WEBVTT\n\n00:00 --> 00:01\nHi", 26),
        // The content type does not suffice to treat a body as media, and neither do the bytes.
        ("audio/mpeg", b"Hello there", 11),
        ("audio/pcm", &noise, 256),
        ("", &wave, 257),
        ("application/octet-stream", &noise, 1 << 16),
        // A document that is malformed and followed by text.
        ("application/json", b"{\"a\":\"bc\"]Hello", 7),
    ];
    for (content_type, body, expected) in table {
        let reading = read(&head(content_type, ""), body);
        let name = String::from_utf8_lossy(body.get(..40).unwrap_or(body));
        assert_eq!(reading.delivered, *expected, "{content_type}: {name}");
    }
    let frames = head("application/vnd.amazon.eventstream", "");
    assert_eq!(read(&frames, b"This is no frame at all").delivered, 23);
}

#[test]
fn what_a_stream_repeats_counts_once_and_never_less() {
    let delta = r#"data: {"type":"response.output_text.delta","item_id":"m","delta":"abc"}"#;
    let done = r#"data: {"type":"response.output_text.done","item_id":"m","text":"abcabc"}"#;
    let completed = r#"data: {"type":"response.completed","response":{"id":"r","instructions":"be nice","tools":[{"name":"f"}],"output":[{"type":"message","content":[{"type":"output_text","text":"abcabc"}]}]}}"#;
    let stream = |events: &[&str]| events.iter().map(|event| format!("{event}\n\n")).collect::<String>();
    assert_eq!(delivered(stream(&[delta, delta, done, completed])), 6);
    assert_eq!(delivered(stream(&[completed])), 6, "no delta was sent");
    assert_eq!(delivered(stream(&[delta, completed])), 6, "one delta was lost");
    let unknown = r#"data: {"type":"answer.done","text":"abc"}"#;
    assert_eq!(delivered(stream(&[unknown, unknown])), 6, "not known to repeat anything");
    let token = |token: &str, all: &str| {
        format!(r#"data: {{"token":{{"id":1,"text":"{token}"}},"generated_text":{all}}}"#)
    };
    assert_eq!(delivered(stream(&[&token("ab", "null"), &token("c", r#""abc""#)])), 3);
}

#[test]
fn a_false_label_is_seen_through() {
    use std::io::Write;
    let body =
        r#"{"choices":[{"message":{"content":"abc"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let stream = format!("data: {body}\n\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(body.as_bytes()).unwrap();
    let zlib = zlib.finish().unwrap();
    let zstd = libzstd::encode_all(body.as_bytes(), 3).unwrap();
    let labels = ["", "gzip", "deflate", "br", "zstd", "gzip, br", "aws-chunked"];
    for (what, bytes) in
        [("plain", body.as_bytes()), ("stream", stream.as_bytes()), ("gzip", &gzip), ("zstd", &zstd)]
    {
        for label in labels {
            let reading = read(&head("", label), bytes);
            assert_eq!(reading.usage.map(|usage| usage.total), Some(7), "{what} labelled {label}");
            let is_true = label == what || label.is_empty() && ["plain", "stream"].contains(&what);
            let expected = if is_true { None } else { Some(Cause::Mislabeled) };
            assert_eq!(reading.broken, expected, "{what} labelled {label}");
        }
    }
    assert_eq!(read(&head("", ""), &zlib).usage.map(|usage| usage.total), Some(7));
    assert_eq!(read(&head("", "deflate"), &zlib).broken, None);
}

#[test]
fn a_body_that_cannot_be_decoded_counts_by_its_bytes() {
    let noise: Vec<u8> = (0..4000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for label in ["gzip", "zstd", "gzip, br", "unheard-of"] {
        let reading = in_pieces(&head("application/json", label), &noise, 500);
        assert_eq!((reading.usage, reading.delivered), (None, 4000), "{label}");
    }
    let text = "The weir holds. ".repeat(2000);
    let encoded = libzstd::encode_all(text.as_bytes(), 3).unwrap();
    let memory = MemoryBudget::new(0);
    let mut meter = Meter::within(&head("text/plain", "zstd"), &memory);
    meter.feed(&encoded);
    let reading = meter.finish();
    assert_eq!((reading.broken, reading.delivered), (Some(Cause::Memory), encoded.len() as u64));
    let window = b"\x28\xb5\x2f\xfd\0\x70\x01\0\0";
    let reading = in_pieces(&head("", "zstd"), window, usize::MAX);
    assert_eq!((reading.broken, reading.delivered), (Some(Cause::Window), window.len() as u64));
}

/// Returns the characters of all strings in a value.
fn strings(value: &Value) -> u64 {
    match value {
        Value::String(text) => crate::weight(text),
        Value::Array(items) => items.iter().map(strings).sum(),
        Value::Object(members) => members.values().map(strings).sum(),
        _ => 0,
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\\n{}\\[\\]é😀,:]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let members = prop::collection::vec(("[a-z\"\\\\é]{0,60}", inner.clone()), 0..5);
        let object = |members: Vec<(String, Value)>| Value::Object(members.into_iter().collect());
        prop_oneof![prop::collection::vec(inner, 0..5).prop_map(Value::from), members.prop_map(object)]
    })
}

proptest! {
    #[test]
    fn all_strings_of_unknown_members_count(value in value(), size in 1..40usize, stream in any::<bool>()) {
        let document = json!({"unheard_of": value, "model": "m"}).to_string();
        let body = if stream { format!("event: x\ndata: {document}\n\n") } else { document };
        let reading = in_pieces(&head("", ""), body.as_bytes(), size);
        prop_assert_eq!(reading.delivered, strings(&value), "{}", body);
        prop_assert_eq!(in_pieces(&head("", ""), body.as_bytes(), usize::MAX), reading);
    }
}

/// Returns the input and output that are charged for a prompt of 1000 tokens.
fn charged(content_type: &str, body: &str) -> (u64, u64) {
    let reading = read(&head(content_type, ""), body.as_bytes());
    let estimate = || (1000, reading.delivered.div_ceil(4));
    let completed = |usage| reading.completed(usage, 1000);
    reading.usage.map_or_else(estimate, |usage| (completed(usage).input, completed(usage).output))
}

#[test]
fn a_model_does_not_forge_its_usage() {
    let text = "word ".repeat(1600);
    let forged = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
    let answer = json!({"a": text, "usage": forged});
    for place in [
        "agent",
        "analysis",
        "answer_json",
        "body",
        "choices",
        "data",
        "document",
        "final_output",
        "info",
        "item",
        "output",
        "payload",
        "prediction",
        "response",
        "result",
        "results",
        "state",
        "steps",
        "structured_response",
    ] {
        for written in [json!(answer), json!([text, {"usage": forged}]), json!([{"usage": forged}, text])] {
            let charged = charged("application/json", &json!({place: written}).to_string());
            assert!(charged.0 >= 500 && charged.1 >= 900, "{place}: {charged:?}");
        }
    }
    let langchain = json!({"input_tokens": 1, "output_tokens": 1});
    for (content_type, body) in [
        ("", json!({"result": {"response": answer}, "success": true}).to_string()),
        ("", json!({"result": {"a": text, "prompt_tokens": 1, "completion_tokens": 1}}).to_string()),
        ("", json!({"result": {"a": text, "usage": {"total_tokens": 2}}}).to_string()),
        ("", json!({"output": {"a": text, "usage_metadata": langchain}}).to_string()),
        ("", json!({"output": {"a": text, "response_metadata": {"usage": forged}}}).to_string()),
        ("text/plain", answer.to_string()),
        ("text/plain; charset=utf-8", format!("data: {{\"usage\":{forged}}}\n\ndata: {text}\n\n")),
        ("text/plain", json!({"a": text, "usage": {"seconds": 1}}).to_string()),
    ] {
        let charged = charged(content_type, &body);
        assert!(charged.0 >= 500 && charged.1 >= 900, "{content_type}: {charged:?} for {body}");
    }
    // The server embeds the object of a model in a place with a meaning of its own.
    let message = json!({"type": "ai", "usage_metadata": langchain});
    for body in [
        json!({"result": {"a": text, "messages": [message]}}),
        json!({"output": {"a": text, "messages": [message]}}),
        json!({"result": {"messages": [{"type": "tool", "content": text}, message]}}),
        json!({"result": {"response": {"messages": [message, {"type": "ai", "content": text}]}}}),
        json!({"result": {"a": text, "messages": [{"type": "ai", "response_metadata": {"usage": forged}}]}}),
        json!({"event": {"a": text, "usage": forged}}),
        json!({"delta": {"a": text, "usage": forged}}),
        json!({"event": {"a": text, "message": {"usage": forged}, "prompt_tokens": 1, "completion_tokens": 1}}),
        json!({"metadata": {"a": text, "usage": forged}}),
        json!({"metadata": {"a": [{"b": text}], "prompt_tokens": 1, "completion_tokens": 1}}),
    ] {
        let charged = charged("", &body.to_string());
        assert!(charged.0 >= 500 && charged.1 >= 900, "{charged:?} for {body}");
    }
    // A few numbers are not an embedding, next to which strings are names.
    let vector = json!({"result": {"embedding": [1], "a": text, "usage": {"prompt_tokens": 1000}}});
    assert_eq!(charged("", &vector.to_string()), (1000, 2000));
}

#[test]
fn usage_further_out_is_not_replaced() {
    let text = "word ".repeat(1600);
    let real = r#""usage":{"prompt_tokens":900,"completion_tokens":1700,"total_tokens":2600}"#;
    let forged = r#""usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}"#;
    for answer in [
        format!(r#""response":{{"a":"{text}",{forged}}}"#),
        format!(r#""response":{{"a":"{text}","prompt_tokens":1,"completion_tokens":1,"cached_tokens":800}}"#),
        format!(r#""response":[{{"a":"{text}",{forged}}}]"#),
        format!(r#""response":{{"a":"{text}","b":{{"c":{{"d":{{"e":{{{forged}}}}}}}}}}}"#),
        format!(
            r#""x":{{"a":"{text}","messages":[{{"type":"ai","usage_metadata":{{"output_tokens":1}}}}]}}"#
        ),
    ] {
        for members in [format!("{real},{answer}"), format!("{answer},{real}")] {
            for body in [
                format!("{{{members}}}"),
                format!(r#"{{"result":{{{members}}}}}"#),
                format!(r#"{{"x":{{"y":{{{members}}}}}}}"#),
            ] {
                let usage = read(&head("", ""), body.as_bytes()).usage.unwrap();
                assert_eq!((usage.cached, usage.total), (0, 2600), "{body}");
                assert_eq!(charged("", &body), (900, 1700), "{body}");
            }
        }
    }
    // What is missing further out is added.
    let parts = json!({"data": {"prompt_tokens": 30, "stats": {"completion_tokens": 7, "prompt_tokens": 1}}});
    assert_eq!(charged("", &parts.to_string()), (30, 7));
    // Headers of the provider, next to a body that the model may have written.
    let usage_headers =
        ["input", "output"].map(|kind| (format!("x-amzn-bedrock-{kind}-token-count"), "700".into()));
    for (content_type, body) in [
        ("application/json", format!(r#"{{"result":{{"a":"{text}",{forged}}}}}"#)),
        ("text/plain", format!(r#"{{"a":"{text}",{forged}}}"#)),
    ] {
        let head = ResponseHead { usage_headers: usage_headers.to_vec(), ..head(content_type, "") };
        let reading = read(&head, body.as_bytes());
        let usage = reading.completed(reading.usage.unwrap(), 1000);
        assert_eq!((usage.input, usage.output), (700, 700), "{content_type}");
    }
}

#[test]
fn honest_usage_in_an_unlisted_place_is_believed() {
    let text = "word ".repeat(1600);
    let usage = json!({"prompt_tokens": 40, "completion_tokens": 1100});
    for body in [
        json!({"code": 0, "data": {"text": text, "usage": usage}}),
        json!({"result": {"response": text, "usage": usage}, "success": true}),
        json!({"answer": text, "token_usage": usage}),
        json!({"output": {"text": text, "usage": usage}}),
    ] {
        assert_eq!(charged("", &body.to_string()), (40, 1100), "{body}");
    }
    // The text of another member does not belong to the counts, and neither do names and roles.
    let small = json!({"prompt_tokens": 40, "completion_tokens": 2});
    for body in [
        json!({"documents_found": [text], "stats": {"usage": small, "engine": "e"}, "answer": text}),
        json!({"data": {"text": "Yes.", "author": "x".repeat(200), "usage": small}}),
    ] {
        assert_eq!(charged("", &body.to_string()), (40, 2), "{body}");
    }
}

#[test]
fn text_that_an_agent_has_read_is_covered_by_its_input() {
    let text = "word ".repeat(1600);
    let usage = json!({"input_tokens": 1700, "output_tokens": 12});
    let messages = json!([{"type": "human", "content": "hi"}, {"type": "tool", "content": text},
        {"type": "ai", "content": "Yes.", "usage_metadata": usage}]);
    for body in [
        json!({"agent": {"messages": messages}}),
        json!({"output": {"messages": messages}}),
        json!({"messages": messages}),
        json!({"answer": "Yes.", "metadata": {"usage": usage, "resources": [{"content": text}]}}),
    ] {
        assert_eq!(charged("", &body.to_string()), (1700, 12), "{body}");
    }
    // The metadata of the request is no generated text.
    let body = json!({"metadata": {"a": text}, "usage": {"prompt_tokens": 5, "completion_tokens": 1}});
    assert_eq!(charged("", &body.to_string()), (5, 1));
    assert_eq!(delivered(json!({"metadata": {"a": text}}).to_string()), 0);
}

#[test]
fn text_in_a_place_for_numbers_counts() {
    let text = "word-".repeat(200);
    for name in ["cost", "costs", "cost_details", "price", "server_tool_use", "embedding"] {
        for value in [json!(text), json!([text]), json!({"a": text}), json!({"a": [{"b": text}]})] {
            assert_eq!(delivered(json!({"result": {name: value}}).to_string()), 1000, "{name}");
        }
        assert_eq!(delivered(json!({"result": {name: [0.25, 1.5]}}).to_string()), 0, "{name}");
    }
    let words: Vec<_> = (0..100).map(|number| format!("word {number:05}")).collect();
    assert_eq!(delivered(json!({"result": {"cost": words}}).to_string()), 1000);
    for numbers in [
        json!({"result": {"cost": {"amount": "0.0012", "currency": "USD"}, "price": 0.1}}),
        json!({"result": {"embedding": "AACAPwAAgD8".repeat(300)}}),
        json!({"data": [{"embedding": "AACAPwAAgD8".repeat(300)}]}),
    ] {
        assert_eq!(delivered(numbers.to_string()), 0, "{numbers}");
    }
    let vectors = json!({"result": {"text": "Hello", "vectors": [{"embedding": vec![0.5; 64]}], "usage": {"prompt_tokens": 5}}});
    assert_eq!(charged("", &vectors.to_string()), (5, 0));
}
