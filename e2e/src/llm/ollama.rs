//! Ollama's own chat API, which uses JSON lines.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use serde_json::{Value, json};

pub(super) fn chat(request: &Seen) -> Answer {
    let mut asked = Prompt::of(request, "/messages", "/options/num_predict");
    // The response is a stream unless the request declines it.
    asked.stream = asked.body["stream"] != false;
    let line = |message: Value, done: bool| {
        let mut line = json!({
            "model": asked.model, "created_at": "2026-11-28T00:00:00Z", "message": message, "done": done
        });
        if done {
            line["done_reason"] = "stop".into();
            line["prompt_eval_count"] = asked.input.into();
            line["eval_count"] = asked.output.into();
        }
        line
    };
    let says = |text: &str| json!({ "role": "assistant", "content": text });
    if asked.stream {
        let mut lines: Vec<Value> = WORDS.iter().map(|word| line(says(word), false)).collect();
        lines.push(line(says(""), true));
        let pieces = lines.into_iter().map(|line| format!("{line}\n").into_bytes()).collect();
        return asked.stream("application/x-ndjson", pieces, 1);
    }
    let input: Value = serde_json::from_str(TOOL_INPUT).unwrap_or_default();
    let calls = json!([{ "function": { "name": TOOL, "arguments": input } }]);
    let message = if asked.calls_tool {
        json!({ "role": "assistant", "content": "", "tool_calls": calls })
    } else {
        says(TEXT)
    };
    asked.json(&line(message, true))
}
