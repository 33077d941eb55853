//! What an OpenAI-like provider answers by itself: the text it was asked for, and how many tokens that took.

use crate::upstream::{Answer, Seen};
use serde_json::{Value, json};

/// The answer to a request that names none of the test's own.
///
/// A chat completion uses one token per four characters asked and, answering, as many as `max_tokens` allows.
pub fn answer(request: &Seen) -> Answer {
    if request.method == "GET" {
        let models = json!({ "object": "list", "data": [{ "id": "gpt-4o", "object": "model" }] });
        return Answer::json(200, &models);
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let model = asked["model"].as_str().unwrap_or("gpt-4o");
    let input = asked["messages"].to_string().len() as u64 / 4;
    let output = asked["max_tokens"].as_u64().unwrap_or(16);
    if asked["stream"] == true {
        let wanted = asked["stream_options"]["include_usage"] == true;
        return stream(model, wanted.then_some((input, output)));
    }
    Answer::json(200, &completion(model, "Water finds its own level.", input, output))
}

/// A chat completion.
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

fn stream(model: &str, used: Option<(u64, u64)>) -> Answer {
    let chunk = |choices: Value, usage: Value| {
        let event = json!({
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": model,
            "choices": choices,
            "usage": usage
        });
        format!("data: {event}\n\n")
    };
    let mut answer = Answer::new(200).header("content-type", "text/event-stream");
    for word in ["Water ", "finds ", "its ", "own ", "level."] {
        answer = answer.bytes(chunk(json!([{ "index": 0, "delta": { "content": word } }]), Value::Null));
    }
    answer = answer.bytes(chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null));
    if let Some((input, output)) = used {
        answer = answer.bytes(chunk(json!([]), usage(input, output)));
    }
    answer.bytes("data: [DONE]\n\n")
}
