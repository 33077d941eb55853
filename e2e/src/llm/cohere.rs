//! Cohere's chat API, version 2.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use serde_json::{Value, json};

pub(super) fn chat(request: &Seen) -> Answer {
    let asked = Prompt::of(request, "/messages", "/max_tokens");
    let counts = json!({ "input_tokens": asked.input, "output_tokens": asked.output });
    let usage = json!({ "billed_units": counts, "tokens": counts });
    if asked.stream {
        return asked.events(events(usage), true, 3);
    }
    let call =
        json!({ "id": "call_1", "type": "function", "function": { "name": TOOL, "arguments": TOOL_INPUT } });
    let (message, reason) = if asked.calls_tool {
        (json!({ "role": "assistant", "tool_plan": "I look.", "tool_calls": [call] }), "TOOL_CALL")
    } else {
        (json!({ "role": "assistant", "content": [{ "type": "text", "text": TEXT }] }), "COMPLETE")
    };
    asked.json(&json!({ "id": "c1", "finish_reason": reason, "message": message, "usage": usage }))
}

fn events(usage: Value) -> Vec<Value> {
    let message = |content: Value| json!({ "message": { "content": content } });
    let begun = json!({ "message": { "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": [] } });
    let mut events = vec![
        json!({ "type": "message-start", "id": "c1", "delta": begun }),
        json!({ "type": "content-start", "index": 0, "delta": message(json!({ "type": "text", "text": "" })) }),
    ];
    events.extend(WORDS.iter().map(
        |word| json!({ "type": "content-delta", "index": 0, "delta": message(json!({ "text": word })) }),
    ));
    events.extend([
        json!({ "type": "content-end", "index": 0 }),
        json!({ "type": "message-end", "delta": { "finish_reason": "COMPLETE", "usage": usage } }),
    ]);
    events
}
