//! Anthropic's Messages API. Half of the input comes from the cache.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use serde_json::{Value, json};

pub(super) fn message(request: &Seen) -> Answer {
    let asked = Prompt::of(request, "/messages", "/max_tokens");
    // Agents allow tens of thousands of output tokens.
    let asked = Prompt { output: asked.output.min(16), ..asked };
    if asked.stream {
        return asked.events(events(&asked), true, 3);
    }
    let (content, reason) = if asked.calls_tool {
        let input: Value = serde_json::from_str(TOOL_INPUT).unwrap_or_default();
        (json!({ "type": "tool_use", "id": "toolu_1", "name": TOOL, "input": input }), "tool_use")
    } else {
        (json!({ "type": "text", "text": TEXT }), "end_turn")
    };
    let mut whole = begun(&asked, asked.output);
    whole["content"] = json!([content]);
    whole["stop_reason"] = reason.into();
    asked.json(&whole)
}

fn begun(asked: &Prompt, output: u64) -> Value {
    let cached = asked.input / 2;
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": asked.model, "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": asked.input - cached, "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0, "output_tokens": output
        }
    })
}

fn events(asked: &Prompt) -> Vec<Value> {
    let delta = |word: &&str| {
        let delta = json!({ "type": "text_delta", "text": word });
        json!({ "type": "content_block_delta", "index": 0, "delta": delta })
    };
    let mut events = vec![
        json!({ "type": "message_start", "message": begun(asked, 1) }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
    ];
    events.extend(WORDS.iter().map(delta));
    events.extend([
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({
            "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            "usage": { "output_tokens": asked.output }
        }),
        json!({ "type": "message_stop" }),
    ]);
    events
}
