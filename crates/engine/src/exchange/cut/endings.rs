//! How each API ends a response that has reached its maximum output.

use super::seen::{SeenStream, StreamApi};
use llm::response::Usage;
use serde_json::{Value, json};

/// How to end a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEnding {
    /// The stream has ended, or nearly ended, by itself.
    Own,
    /// Send these bytes.
    Bytes(Vec<u8>),
    /// Weir does not know how to end this stream.
    Unknown,
}

pub(super) fn of(seen: &SeenStream, usage: &Usage) -> StreamEnding {
    if seen.is_over {
        return StreamEnding::Own;
    }
    let Some(api) = seen.api else { return StreamEnding::Unknown };
    StreamEnding::Bytes(match api {
        StreamApi::Chat => choices(
            seen,
            usage,
            "chat.completion.chunk",
            |at| json!({"index": at, "delta": {}, "logprobs": null, "finish_reason": "length"}),
        ),
        StreamApi::Completions => choices(
            seen,
            usage,
            "text_completion",
            |at| json!({"index": at, "text": "", "logprobs": null, "finish_reason": "length"}),
        ),
        StreamApi::Responses => responses(seen, usage),
        StreamApi::Anthropic => anthropic(seen, usage),
        StreamApi::Gemini => gemini(seen, usage),
        StreamApi::Cohere => cohere(seen, usage),
        StreamApi::OllamaChat => ollama(seen, usage, "message", json!({"role": "assistant", "content": ""})),
        StreamApi::OllamaGenerate => ollama(seen, usage, "response", json!("")),
        StreamApi::Bedrock => bedrock(seen, usage),
    })
}

/// Returns the JSON document of an ending that is a single SSE event.
pub(super) fn payload(ending: &[u8]) -> &[u8] {
    ending.strip_prefix(b"data: ").unwrap_or(ending).trim_ascii_end()
}

fn choices(seen: &SeenStream, usage: &Usage, object: &str, choice: fn(u64) -> Value) -> Vec<u8> {
    let open = if seen.open.is_empty() { &[0] } else { seen.open.as_slice() };
    let chunk = |choices: Vec<Value>, usage: Value| {
        let mut chunk =
            json!({"id": seen.id, "object": object, "created": seen.created, "model": seen.model});
        set(&mut chunk, "choices", choices.into());
        if seen.tells_usage {
            set(&mut chunk, "usage", usage);
        }
        chunk
    };
    let mut events = Events::default();
    events.push(None, &chunk(open.iter().map(|at| choice(*at)).collect(), Value::Null));
    if seen.tells_usage {
        let usage = json!({
            "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total,
        });
        events.push(None, &chunk(Vec::new(), usage));
    }
    events.0.extend_from_slice(b"data: [DONE]\n\n");
    events.0
}

fn responses(seen: &SeenStream, usage: &Usage) -> Vec<u8> {
    let id = if seen.id.is_null() { json!("resp_incomplete") } else { seen.id.clone() };
    let response = json!({
        "id": id, "object": "response", "created_at": seen.created, "model": seen.model,
        "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "error": null,
        "output": [], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "usage": {
            "input_tokens": usage.input, "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.output, "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.total,
        },
    });
    let kind = "response.incomplete";
    let mut events = Events::default();
    let number = seen.number.saturating_add(1);
    events.push(Some(kind), &json!({"type": kind, "sequence_number": number, "response": response}));
    events.0
}

fn anthropic(seen: &SeenStream, usage: &Usage) -> Vec<u8> {
    let mut events = Events::default();
    for at in &seen.open {
        events.typed(json!({"type": "content_block_stop", "index": at}));
    }
    events.typed(json!({
        "type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": null},
        "usage": {"output_tokens": usage.output},
    }));
    events.typed(json!({"type": "message_stop"}));
    events.0
}

fn gemini(seen: &SeenStream, usage: &Usage) -> Vec<u8> {
    let mut chunk = json!({
        "candidates": [{
            "content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0,
        }],
        "usageMetadata": {
            "promptTokenCount": usage.input, "candidatesTokenCount": usage.output,
            "totalTokenCount": usage.total,
        },
    });
    for (name, value) in [("modelVersion", &seen.model), ("responseId", &seen.id)] {
        if !value.is_null() {
            set(&mut chunk, name, value.clone());
        }
    }
    let mut events = Events::default();
    events.push(None, &chunk);
    events.0
}

fn cohere(seen: &SeenStream, usage: &Usage) -> Vec<u8> {
    let tokens = json!({"input_tokens": usage.input, "output_tokens": usage.output});
    let mut events = Events::default();
    for at in &seen.open {
        events.typed(json!({"type": "content-end", "index": at}));
    }
    events.typed(json!({
        "type": "message-end",
        "delta": {"finish_reason": "MAX_TOKENS", "usage": {"billed_units": tokens, "tokens": tokens}},
    }));
    events.0
}

fn ollama(seen: &SeenStream, usage: &Usage, name: &str, empty: Value) -> Vec<u8> {
    let mut last = json!({
        "model": seen.model, "created_at": seen.created, "done": true, "done_reason": "length",
        "prompt_eval_count": usage.input, "eval_count": usage.output,
    });
    set(&mut last, name, empty);
    let mut line = last.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn bedrock(seen: &SeenStream, usage: &Usage) -> Vec<u8> {
    let mut frames = Vec::new();
    for at in &seen.open {
        put_frame("contentBlockStop", &json!({"contentBlockIndex": at}), &mut frames);
    }
    put_frame("messageStop", &json!({"stopReason": "max_tokens"}), &mut frames);
    let usage = json!({
        "inputTokens": usage.input, "outputTokens": usage.output, "totalTokens": usage.total,
    });
    put_frame("metadata", &json!({"usage": usage, "metrics": {"latencyMs": 0}}), &mut frames);
    frames
}

/// Builds server-sent events.
#[derive(Default)]
struct Events(Vec<u8>);

impl Events {
    fn push(&mut self, name: Option<&str>, data: &Value) {
        if let Some(name) = name {
            self.0.extend_from_slice(b"event: ");
            self.0.extend_from_slice(name.as_bytes());
            self.0.push(b'\n');
        }
        self.0.extend_from_slice(b"data: ");
        self.0.extend_from_slice(data.to_string().as_bytes());
        self.0.extend_from_slice(b"\n\n");
    }

    /// Appends an event named after its `type`.
    fn typed(&mut self, data: Value) {
        self.push(data.get("type").and_then(Value::as_str), &data);
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value);
    }
}

/// Appends one frame of an AWS event stream.
fn put_frame(event: &str, payload: &Value, frames: &mut Vec<u8>) {
    let mut headers = Vec::new();
    let texts = [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")];
    for (name, value) in texts {
        headers.extend(u8::try_from(name.len()));
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or_default().to_be_bytes();
    let total = headers.len().saturating_add(payload.len()).saturating_add(16);
    let mut frame = [length(total), length(headers.len())].concat();
    frame.extend(crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend(crc32(&frame).to_be_bytes());
    frames.append(&mut frame);
}

/// The checksum of gzip (CRC-32), computed bit by bit because an ending is short.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(sum & 1));
        }
    }
    !sum
}
