//! Bedrock's Converse API: JSON, or a stream of AWS's binary frames.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use flate2::Crc;
use serde_json::{Value, json};

pub(super) fn converse(request: &Seen) -> Answer {
    let asked = Prompt::of(request, "/messages", "/inferenceConfig/maxTokens");
    let usage = json!({
        "inputTokens": asked.input, "outputTokens": asked.output, "totalTokens": asked.total()
    });
    let metrics = json!({ "latencyMs": 1 });
    if request.path.ends_with("/converse-stream") {
        let mut frames = vec![frame("messageStart", &json!({ "role": "assistant" }))];
        frames.extend(WORDS.iter().map(|word| {
            frame("contentBlockDelta", &json!({ "contentBlockIndex": 0, "delta": { "text": word } }))
        }));
        frames.extend([
            frame("contentBlockStop", &json!({ "contentBlockIndex": 0 })),
            frame("messageStop", &json!({ "stopReason": "end_turn" })),
            frame("metadata", &json!({ "usage": usage, "metrics": metrics })),
        ]);
        return asked.stream("application/vnd.amazon.eventstream", frames, 2);
    }
    let input: Value = serde_json::from_str(TOOL_INPUT).unwrap_or_default();
    let (content, reason) = if asked.calls_tool {
        (json!({ "toolUse": { "toolUseId": "t1", "name": TOOL, "input": input } }), "tool_use")
    } else {
        (json!({ "text": TEXT }), "end_turn")
    };
    let message = json!({ "role": "assistant", "content": [content] });
    asked.json(&json!({
        "output": { "message": message }, "stopReason": reason, "usage": usage, "metrics": metrics
    }))
}

/// Encodes a frame: the lengths and their checksum, the headers, the payload, and a checksum.
fn frame(kind: &str, payload: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(name.len() as u8);
        headers.extend(name.as_bytes());
        // This is the type code of a string.
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let mut frame = ((headers.len() + payload.len() + 16) as u32).to_be_bytes().to_vec();
    frame.extend((headers.len() as u32).to_be_bytes());
    frame.extend(checksum(&frame));
    frame.extend(headers);
    frame.extend(payload.as_bytes());
    frame.extend(checksum(&frame));
    frame
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
