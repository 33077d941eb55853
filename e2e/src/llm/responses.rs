//! OpenAI's Responses API, over POST and over a WebSocket.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use serde_json::{Value, json};

pub(super) fn response(request: &Seen) -> Answer {
    let asked = Prompt::of(request, "/input", "/max_output_tokens");
    if asked.stream {
        return asked.events(events(&asked), true, 4);
    }
    asked.json(&whole(&asked, "completed"))
}

/// Returns the events that answer a WebSocket's `response.create`, and the tokens that they report.
pub(super) fn messages(request: &Seen) -> (Vec<Value>, u64) {
    let asked = Prompt::of(request, "/input", "/max_output_tokens");
    match asked.body["type"].as_str() {
        Some("response.create") if asked.body["generate"] == false => {
            let mut asked = asked;
            (asked.input, asked.output) = (0, 0);
            let created = json!({ "type": "response.created", "response": whole(&asked, "in_progress") });
            let mut done = whole(&asked, "completed");
            done["output"] = json!([]);
            (vec![created, json!({ "type": "response.completed", "response": done })], 0)
        }
        Some("response.create") => (events(&asked), asked.total()),
        _ => (Vec::new(), 0),
    }
}

fn whole(asked: &Prompt, status: &str) -> Value {
    let done = status == "completed";
    let usage = json!({
        "input_tokens": asked.input, "input_tokens_details": { "cached_tokens": asked.input / 2 },
        "output_tokens": asked.output, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": asked.total()
    });
    json!({
        "id": "resp_1", "object": "response", "created_at": 1_790_000_000, "status": status, "model": asked.model,
        "output": if done { json!([item(asked)]) } else { json!([]) },
        "usage": if done { usage } else { Value::Null },
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "tools": [],
        "tool_choice": "auto", "parallel_tool_calls": true, "temperature": 1.0, "top_p": 1.0
    })
}

fn item(asked: &Prompt) -> Value {
    if asked.calls_tool {
        return json!({
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TOOL, "arguments": TOOL_INPUT,
            "status": "completed"
        });
    }
    let part = json!({ "type": "output_text", "text": TEXT, "annotations": [] });
    json!({ "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part] })
}

fn events(asked: &Prompt) -> Vec<Value> {
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
    let begun = json!({ "type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": [] });
    let here =
        |kind: &str| json!({ "type": kind, "item_id": "msg_1", "output_index": 0, "content_index": 0 });
    let with = |kind: &str, name: &str, value: Value| {
        let mut event = here(kind);
        event[name] = value;
        event
    };
    let mut events = vec![
        json!({ "type": "response.created", "response": whole(asked, "in_progress") }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": begun }),
        with("response.content_part.added", "part", part("")),
    ];
    events.extend(WORDS.iter().map(|word| with("response.output_text.delta", "delta", (*word).into())));
    events.extend([
        with("response.output_text.done", "text", TEXT.into()),
        with("response.content_part.done", "part", part(TEXT)),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item(asked) }),
        json!({ "type": "response.completed", "response": whole(asked, "completed") }),
    ]);
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = number.into();
    }
    events
}
