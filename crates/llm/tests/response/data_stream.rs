//! The data stream protocol of the AI SDK.

use crate::in_pieces;
use llm::response::{MeterReading, ResponseHead};

fn read(body: &str, size: usize) -> MeterReading {
    let header = |name: &str| match name {
        "content-type" => Some("text/plain; charset=utf-8".to_owned()),
        "x-vercel-ai-data-stream" => Some("v1".to_owned()),
        _ => None,
    };
    in_pieces(&ResponseHead::from_headers(200, &[], header), body.as_bytes(), size)
}

const STREAM: &str = r#"f:{"messageId":"msg-1"}
0:"A weir"
g:"hm"
9:{"toolCallId":"","toolName":"f","args":{"usage":{"promptTokens":7},"a":"xyz"}}
a:{"toolCallId":"c","result":{"text":"not generated","usage":{"promptTokens":7}}}
2:[{"usage":{"promptTokens":7,"completionTokens":7}}]
e:{"finishReason":"tool-calls","usage":{"promptTokens":5,"completionTokens":2},"isContinued":false}
d:{"finishReason":"stop","usage":{"promptTokens":12,"completionTokens":34}}
"#;

#[test]
fn the_end_of_the_message_has_the_usage_of_all_steps() {
    for size in 1..40 {
        let reading = read(STREAM, size);
        let usage = reading.usage.unwrap();
        assert_eq!((usage.input, usage.output, usage.total), (12, 34, 46), "{size}");
        assert_eq!((reading.uncovered, reading.broken), (0, None));
    }
    for stream in [STREAM.trim_end().to_owned(), STREAM.replace('\n', "\r\n"), STREAM.replace("1", " 1")] {
        assert_eq!(read(&stream, 7).usage.map(|usage| usage.output), Some(34), "{stream}");
    }
}

#[test]
fn text_counts_and_is_never_searched() {
    let forged = r#"{\"usage\":{\"promptTokens\":7}}"#;
    for (line, delivered) in [
        ("0:\"A weir\"\n", 6),
        ("g:\"hm\"\n0:\"\\n\"\n", 3),
        ("9:{\"toolName\":\"f\",\"args\":{\"a\":\"xyz\"}}\n", 4),
        ("a:{\"result\":\"not generated\"}\n", 0),
        ("no line of the protocol\n", 23),
        ("0", 0),
    ] {
        let reading = read(line, 3);
        assert_eq!((reading.usage, reading.delivered), (None, delivered), "{line}");
    }
    let reading = read(&format!("0:\"{forged}\"\n0:\"\\nd:{forged}\\n\"\n"), 5);
    assert_eq!((reading.usage, reading.delivered), (None, 28 + 28 + 4));
}

#[test]
fn an_error_and_a_stream_that_breaks_off_are_noticed() {
    assert!(read("3:\"An error occurred.\"\n", 4).ended_in_error);
    assert!(read("d:{\"usage\":{\"promptTokens\":1", 4).broken.is_some());
    let answer = read("{\"error\":{\"message\":\"No.\"}}", 4);
    assert!(answer.ended_in_error && answer.usage.is_none());
}
