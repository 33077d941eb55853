//! Events that equal earlier ones in all but their text are read without their documents. A stream in pieces of one
//! byte never is, so both must give the same result.

use crate::in_pieces;
use llm::response::{Meter, MeterReading, ResponseHead};
use proptest::prelude::*;
use proptest::sample::select;

fn read(body: &str, size: usize) -> MeterReading {
    let head =
        ResponseHead { status: 200, content_type: "text/event-stream".into(), ..ResponseHead::default() };
    in_pieces(&head, body.as_bytes(), size)
}

/// Events with a text at `TEXT`, a number at `NUMBER`, and a further string at `WORD`.
const EVENTS: &[&str] = &[
    r#"data: {"id":"c","object":"chat.completion.chunk","created":NUMBER,"choices":[{"index":0,"delta":{"content":"TEXT"},"finish_reason":null}],"usage":null,"obfuscation":"WORD"}"#,
    r#"data: {"id":"WORD","choices":[{"index":0,"delta":{"content":"TEXT","reasoning":"TEXT","reasoning_content":"TEXT"}}]}"#,
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":NUMBER,"completion_tokens":3}}"#,
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":NUMBER,\"delta\":{\"type\":\"text_delta\",\"text\":\"TEXT\"}}",
    "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"partial_json\":\"TEXT\"}}\r",
    r#"data: {"type":"response.output_text.delta","sequence_number":NUMBER,"item_id":"WORD","delta":"TEXT","logprobs":[],"obfuscation":"WORD"}"#,
    r#"data: {"type":"response.audio.delta","sequence_number":NUMBER,"delta":"TEXT"}"#,
    r#"data: {"type":"response.output_text.done","sequence_number":NUMBER,"text":"TEXT"}"#,
    r#"data: {"type":"error","message":"TEXT"}"#,
    "event: error\ndata: {\"message\":\"TEXT\"}",
    "event: usage",
    "event: usage\ndata: {\"input\":NUMBER,\"output\":2}",
    r#"data: {"input":NUMBER,"text":"TEXT"}"#,
    r#"data: [{"type":"AIMessageChunk","id":"WORD","content":"TEXT","usage_metadata":{"input_tokens":NUMBER,"output_tokens":2}},{}]"#,
    r#"data: {"type":"AIMessageChunk","id":"WORD","content":"TEXT","usage_metadata":{"input_tokens":NUMBER,"output_tokens":2}}"#,
    r#"data: {"token":{"id":NUMBER,"text":"TEXT","special":false},"generated_text":"TEXT","details":null}"#,
    r#"data: {"text":"TEXT","status":"WORD","code":NUMBER}"#,
    "data: {\"text\":\ndata: \"TEXT\", \"n\": NUMBER }",
    ": TEXT\nid: NUMBER\ndata: {\"text\":\"TEXT\"}",
    "TEXT",
    "data: [DONE]",
    "",
];

const TEXTS: &[&str] = &[
    "",
    " weir",
    "a",
    "naïve 水",
    "\\n",
    "a \\\"quote\\\" of a text that is longer than 32 bytes \\u00e4\\ud83d\\ude00",
    "\\ud83d",
    "\\u00",
    "\\",
    "a\nb",
    "a\rb",
    "\n\n",
    "\",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":70},\"x\":\"",
];

fn event() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        (0..2000u32).prop_map(|number| number.to_string()),
        select(vec!["1.5".to_owned(), "null".to_owned()])
    ];
    let word = prop_oneof![
        3 => "[a-zA-Z0-9_]{0,40}",
        1 => select(vec!["failed".to_owned(), "w\nx".to_owned(), "w".repeat(300), "\\\"".to_owned()]),
    ];
    (select(EVENTS), select(TEXTS), number, word).prop_map(|(event, text, number, word)| {
        event.replace("TEXT", text).replace("NUMBER", &number).replace("WORD", &word)
    })
}

/// Pieces of a text, without incomplete escape sequences.
const PIECES: &[&str] = &[
    "The ",
    "\\\"weir\\\"",
    " holds/back",
    "\\/",
    "\\u6c34 the water",
    "\\ud83d\\ude00\\n until",
    " naïve 水",
];

/// Events that repeat the text so far. Some of them do not.
fn text_so_far() -> impl Strategy<Value = String> {
    let length = prop_oneof![8 => 0..3usize, 1 => select(vec![usize::MAX])];
    (select(EVENTS), prop::collection::vec(length, 1..9)).prop_map(|(event, lengths)| {
        let mut end = 1usize;
        let events = lengths.into_iter().map(|length| {
            end = end.checked_add(length).unwrap_or(1).min(PIECES.len());
            let event = event.replace("TEXT", &PIECES[..end].concat()).replace("NUMBER", "7");
            format!("{}\n\n", event.replace("WORD", "w"))
        });
        events.collect::<String>()
    })
}

/// Mostly events of one kind, with others between them.
fn stream() -> impl Strategy<Value = String> {
    let alike = (select(EVENTS), prop::collection::vec((select(TEXTS), 0..2000u32, "[a-z]{0,9}"), 1..12))
        .prop_map(|(event, values)| {
            let events = values.iter().map(|(text, number, word)| {
                let event = event.replace("TEXT", text).replace("NUMBER", &number.to_string());
                format!("{}\n\n", event.replace("WORD", word))
            });
            events.collect::<String>()
        });
    let other = event().prop_map(|event| format!("{event}\n\n"));
    prop::collection::vec(prop_oneof![2 => alike, 1 => text_so_far(), 2 => other], 1..8)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn repeated_events_are_read_like_others(body in stream(), size in 1..600usize) {
        let expected = read(&body, 1);
        prop_assert_eq!(read(&body, usize::MAX), expected);
        prop_assert_eq!(read(&body, size), expected);
    }

    #[test]
    fn text_so_far_is_read_alike_in_any_pieces(body in text_so_far(), size in 1..600usize) {
        let expected = read(&body, 1);
        prop_assert_eq!(read(&body, usize::MAX), expected);
        prop_assert_eq!(read(&body, size), expected);
    }

    #[test]
    fn damaged_events_are_read_like_others(
        body in stream(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), select(&b"\"\\{}[]:, \n\rx0u"[..])), 1..6),
    ) {
        let mut body = body.into_bytes();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let head = ResponseHead { content_type: "text/event-stream".into(), ..ResponseHead::default() };
        prop_assert_eq!(in_pieces(&head, &body, usize::MAX), in_pieces(&head, &body, 1));
    }
}

#[test]
fn text_of_repeated_events_counts() {
    let event = |text: &str, number: usize| {
        format!(
            "data: {{\"id\":\"{number}\",\"n\":{number},\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        )
    };
    let texts = ["a weir", " across", "", " a \\\"river\\\" that is longer than thirty-two bytes", "水"];
    let body: String = (0..100).map(|number| event(texts[number % 5], number)).collect();
    let mut meter =
        Meter::new(&ResponseHead { content_type: "text/event-stream".into(), ..ResponseHead::default() });
    meter.feed(body.as_bytes());
    assert_eq!(meter.finish().delivered, 20 * (6 + 7 + 47 + 4));
}
