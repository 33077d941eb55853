//! Chat completions of OpenAI and compatible servers.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use serde_json::{Value, json};

pub(super) fn chat(request: &Seen) -> Answer {
    let asked = Prompt::of(request, "/messages", "/max_tokens");
    let maximum = asked.body["max_completion_tokens"].as_u64().unwrap_or(asked.output);
    let asked = Prompt { output: maximum, ..asked };
    if asked.stream {
        return stream(&asked);
    }
    let mut whole = completion(&asked.model, TEXT, asked.input, asked.output);
    if asked.calls_tool {
        let call = json!({ "id": "call_1abcdefg", "type": "function", "function": { "name": TOOL, "arguments": TOOL_INPUT } });
        let message = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
        whole["choices"] = json!([{ "index": 0, "message": message, "finish_reason": "tool_calls" }]);
    }
    asked.json(&whole)
}

pub fn completion(model: &str, text: &str, input: u64, output: u64) -> Value {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "finish_reason": "stop"
        }],
        "usage": usage(input, output)
    })
}

fn usage(input: u64, output: u64) -> Value {
    let total = input.saturating_add(output);
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": total })
}

/// Mistral reports usage in the chunk of the last choice, whether or not it is requested. Other servers
/// report it in a separate chunk, if it is requested.
fn stream(asked: &Prompt) -> Answer {
    let mistral = asked.model.starts_with("mistral");
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": asked.model,
            "choices": choices
        });
        if !mistral || !usage.is_null() {
            chunk["usage"] = usage;
        }
        chunk
    };
    let word = |word: &str| {
        let delta = json!({ "role": "assistant", "content": word });
        json!([{ "index": 0, "delta": delta, "finish_reason": null }])
    };
    let mut events: Vec<Value> = WORDS.iter().map(|text| chunk(word(text), Value::Null)).collect();
    let used = usage(asked.input, asked.output);
    let last = json!([{ "index": 0, "delta": { "content": "" }, "finish_reason": "stop" }]);
    events.push(chunk(last, if mistral { used.clone() } else { Value::Null }));
    if !mistral && asked.body["stream_options"]["include_usage"] == true {
        events.push(chunk(json!([]), used));
    }
    asked.events(events, false, 1).bytes("data: [DONE]\n\n")
}
