//! Small bodies. Each one checks whether the meter finds usage, and how much.

use crate::in_pieces;
use llm::response::{Cause, MeterReading, ResponseHead, Usage};
use proptest::prelude::*;
use std::fmt::Write;

fn read(body: &str) -> MeterReading {
    let head = ResponseHead::default();
    let whole = in_pieces(&head, body.as_bytes(), usize::MAX);
    for size in [1, 2, 3, 7] {
        assert_eq!(whole, in_pieces(&head, body.as_bytes(), size), "in pieces of {size}: {body}");
    }
    whole
}

fn usage(input: u64, output: u64, total: u64) -> Option<Usage> {
    Some(Usage { input, output, total, ..Usage::default() })
}

#[test]
fn the_last_usage_at_the_top_level_counts() {
    let table = [
        (r#"{"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}"#, usage(19, 10, 29)),
        (
            "  \r\n {\n \"usage\" : { \"prompt_tokens\" : 19 , \"completion_tokens\" : 10 } } \n",
            usage(19, 10, 29),
        ),
        (
            r#"{"usage":{"prompt_tokens":1,"total_tokens":1},"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            usage(8, 0, 8),
        ),
        (r#"{"usage":{"prompt_tokens":1,"prompt_tokens":8,"completion_tokens":2}}"#, usage(8, 2, 10)),
        (
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":9},"usage":{"completion_tokens":2}}"#,
            usage(0, 2, 2),
        ),
        (r#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":null}"#, usage(1, 1, 2)),
        (r#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{}}"#, usage(1, 1, 2)),
        (r#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":"none"}"#, usage(1, 1, 2)),
        ("{\"a\":\n\"b\",\"c\":\t1\n,\n\"usage\"\n:\n{\r\"prompt_tokens\":\n5\n}\n}", usage(5, 0, 5)),
        (r#"{"a":"\u12","b":"\u","usage":{"prompt_tokens":5}}"#, usage(5, 0, 5)),
        (r#"{"us\u0061ge":{"prompt\u005ftokens":3}}"#, usage(3, 0, 3)),
        (r#"{"usage":null}"#, None),
        (r#"{"usage":{}}"#, None),
        (r#"{"usage":[]}"#, None),
        (r#"{"a":"{\"usage\":{\"prompt_tokens\":5}}"}"#, None),
        (r#"{"a":"\\","usage":{"prompt_tokens":5}}"#, usage(5, 0, 5)),
        (r#"{"a":"\\\"","usage":{"prompt_tokens":5}}"#, usage(5, 0, 5)),
        (r#"{"a":"x\\\",\"usage\":{\"prompt_tokens\":5},\"b\":\""}"#, None),
        (r#"{"message":{"usage":{"prompt_tokens":5}}}"#, usage(5, 0, 5)),
        (r#"{"response":{"usage":{"prompt_tokens":5}}}"#, usage(5, 0, 5)),
        (r#"{"choices":[{"message":{"content":"hi","usage":{"prompt_tokens":5}}}]}"#, usage(5, 0, 5)),
        (r#"{"choices":[{"message":{"content":{"usage":{"prompt_tokens":5}}}}]}"#, None),
        (r#"{"metadata":{"usage":{"prompt_tokens":5}}}"#, usage(5, 0, 5)),
        (r#"{"metadata":{"prompt_tokens":"5"}}"#, None),
        (r#"{"a":[{"usage":{"prompt_tokens":5}}]}"#, usage(5, 0, 5)),
        (r#"{"a":{"b":[[{}],"}]",{"c":{}}]},"usage":{"prompt_tokens":5}}"#, usage(5, 0, 5)),
        (r#"{"usage":{"x":{"prompt_tokens":7},"prompt_tokens":5}}"#, usage(5, 0, 5)),
        (
            r#"{"x_groq":{"id":"r","usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}}"#,
            usage(4, 3, 7),
        ),
        ("", None),
        ("[]", None),
        ("null", None),
        ("\"usage\"", None),
        ("<html>{\"usage\":{\"prompt_tokens\":5}}</html>", None),
    ];
    for (body, expected) in table {
        assert_eq!(read(body).usage, expected, "{body}");
    }
}

#[test]
fn a_number_that_is_no_count_is_not_reported() {
    let table = [
        (r#"{"usage":{"prompt_tokens":19.0,"completion_tokens":1e1}}"#, usage(19, 10, 29), None),
        (r#"{"usage":{"prompt_tokens":9007199254740992}}"#, usage(1 << 53, 0, 1 << 53), None),
        (r#"{"usage":{"prompt_tokens":19,"completion_tokens":null}}"#, usage(19, 0, 19), None),
        (r#"{"usage":{"prompt_tokens":-1,"completion_tokens":4}}"#, usage(0, 4, 4), Some(Cause::Count)),
        (
            r#"{"usage":{"prompt_tokens":9007199254740993,"completion_tokens":4}}"#,
            usage(0, 4, 4),
            Some(Cause::Count),
        ),
        (r#"{"usage":{"prompt_tokens":1e308}}"#, None, Some(Cause::Count)),
        (r#"{"usage":{"prompt_tokens":1.5}}"#, None, Some(Cause::Count)),
        (r#"{"usage":{"prompt_tokens":NaN}}"#, None, Some(Cause::Count)),
        (r#"{"usage":{"prompt_tokens":"19","completion_tokens":"2.0"}}"#, usage(19, 2, 21), None),
        (r#"{"usage":{"prompt_tokens":"nineteen"}}"#, None, Some(Cause::Count)),
        (r#"{"usage":{"prompt_tokens":{"a":1}}}"#, None, Some(Cause::Count)),
        (r#"{"usage":{"prompt_tokens":[1]}}"#, None, Some(Cause::Count)),
        (r#"{"usage":{"prompt_tokens":3,"prompt_tokens":-3}}"#, None, Some(Cause::Count)),
        (
            r#"{"usage":{"prompt_tokens":-3,"total_tokens":9,"completion_tokens":4}}"#,
            usage(5, 4, 9),
            Some(Cause::Count),
        ),
    ];
    for (body, expected, cause) in table {
        let reading = read(body);
        assert_eq!((reading.usage, reading.broken), (expected, cause), "{body}");
    }
}

#[test]
fn the_total_is_the_providers_where_it_is_no_less_than_the_sum() {
    let table = [
        (r#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#, usage(8, 0, 8)),
        (r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":40}}"#, usage(10, 30, 40)),
        (r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":1}}"#, usage(10, 5, 15)),
        (r#"{"usage":{"total_tokens":12}}"#, usage(12, 0, 12)),
        (r#"{"usage":{"completion_tokens":5,"total_tokens":12}}"#, usage(7, 5, 12)),
        (r#"{"usage":{"type":"duration","seconds":9}}"#, usage(0, 0, 0)),
    ];
    for (body, expected) in table {
        assert_eq!(read(body).usage, expected, "{body}");
    }
}

#[test]
fn delivered_text_is_counted_in_characters() {
    let table = [
        (r#"{"choices":[{"message":{"role":"assistant","content":"héllo"}}]}"#, 6),
        (r#"{"choices":[{"message":{"content":"a"}},{"message":{"content":"bc"}}]}"#, 3),
        (r#"{"choices":[{"message":{"content":[{"type":"text","text":"abc"},"de"]}}]}"#, 5),
        (r#"{"choices":[{"message":{"content":"\n\t\u00e9\ud83d\ude00\"\\"}}]}"#, 14),
        (r#"{"choices":[{"message":{"content":"😀é"}}]}"#, 10),
        (r#"{"choices":[{"message":{"content":"a","reasoning":"bcd","reasoning_content":"bcd"}}]}"#, 4),
        (
            r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}}]}}]}"#,
            3,
        ),
        (r#"{"choices":[{"text":"abc"}]}"#, 3),
        (r#"{"content":[{"type":"text","text":"abc"},{"type":"thinking","thinking":"de"}]}"#, 5),
        (r#"{"candidates":[{"content":{"parts":[{"text":"abc"},{"text":"d"}]}}]}"#, 4),
        (r#"{"output":[{"content":[{"type":"output_text","text":"abc"}]},{"summary":[{"text":"d"}]}]}"#, 4),
        (r#"{"output":{"message":{"content":[{"text":"abc"}]}}}"#, 3),
        (r#"{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a":"bc"}}}]}}"#, 9),
        (r#"{"message":{"tool_calls":[{"function":{"arguments":{"a":{"b":["\"}é"]}}}}]}}"#, 19),
        (r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":1}}}]}}]}"#, 6),
        (r#"{"content":[{"type":"tool_use","name":"f","input":{"a":{}}}]}"#, 6),
        (r#"{"type":"content_block_start","content_block":{"type":"tool_use","input":{}}}"#, 0),
        (r#"{"output":{"message":{"content":[{"toolUse":{"name":"f","input":{"a":1}}}]}}}"#, 5),
        (r#"{"object":"list","data":[{"id":"gpt"}]}"#, 0),
        // The message may be the generated text, since the status is a success.
        (r#"{"message":"Forbidden"}"#, 9),
    ];
    for (body, expected) in table {
        assert_eq!(read(body).delivered, expected, "{body}");
    }
}

/// Escapes a text like servers that send only ASCII.
fn in_ascii(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            ' '..='~' => json.push(character),
            _ => character
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| write!(json, "\\u{unit:04x}").unwrap()),
        }
    }
    json + "\""
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn characters_are_those_of_the_decoded_text(
        text in r#"([a-z é水😀]{0,70}|[\\"\n\t]{0,5}|.{0,9}|\\u[0-9a-f]{4}){0,8}"#,
        size in 1..100usize,
    ) {
        let head = ResponseHead::default();
        for json in [serde_json::to_string(&text).unwrap(), in_ascii(&text)] {
            let body = format!(r#"{{"choices":[{{"message":{{"content":{json}}}}}],"usage":{{"prompt_tokens":1}}}}"#);
            for size in [size, usize::MAX] {
                let reading = in_pieces(&head, body.as_bytes(), size);
                prop_assert_eq!(reading.delivered, crate::weight(&text));
                prop_assert_eq!(reading.usage, usage(1, 0, 1));
            }
        }
    }
}

#[test]
fn what_is_cut_in_a_report_is_not_reported() {
    let body = r#"{"choices":[{"message":{"content":"abc"}}],"usage":{"prompt_tokens":19,"completion_tokens":10},"a":1}"#;
    let complete = body.find(r#","a""#).unwrap();
    for end in 0..body.len() {
        let reading = read(&body[..end]);
        let expected = if end >= complete { usage(19, 10, 29) } else { None };
        assert_eq!(reading.usage, expected, "{}", &body[..end]);
        assert_eq!(reading.broken, (end > 0).then_some(Cause::Truncated), "{}", &body[..end]);
    }
}

#[test]
fn what_is_no_json_is_told() {
    for body in [r#"{"a" 1}"#, r#"{"a":1]"#, r#"{1:2}"#, r#"{"a":}"#, "{\"a\":1}}"] {
        assert_eq!(read(body).broken, Some(Cause::Malformed), "{body}");
    }
}

#[test]
fn depth_costs_no_memory() {
    let head = ResponseHead::default();
    let deep = 1_000_000;
    for open in ["[", "{\"a\":", "{\"choices\":[", "{\"usage\":", "{\"content\":["] {
        assert_eq!(in_pieces(&head, open.repeat(deep).as_bytes(), 4096).usage, None);
    }
    let (open, close) = ("[".repeat(deep), "]".repeat(deep));
    let body = format!(r#"{{"a":{open}{close},"choices":{open}{close},"usage":{{"prompt_tokens":5}}}}"#);
    assert_eq!(in_pieces(&head, body.as_bytes(), 4096).usage, usage(5, 0, 5));
}
