//! The default answers of LLM providers: a text in the format of the API that the path names, and its token
//! usage.
//!
//! A call uses one token per four characters of input, and as many output tokens as its maximum allows. If a
//! prompt contains `slowly`, the response is the beginning of a stream that never continues. If a request
//! offers the tool `get_weather`, the response calls it.

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod ollama;
mod openai;
mod responses;

use crate::upstream::{Answer, Gate, Seen};
use crate::wire::header;
pub use openai::completion;
use serde_json::{Value, json};

/// The text of every answer.
pub const TEXT: &str = "Water finds its own level.";
const WORDS: [&str; 5] = ["Water ", "finds ", "its ", "own ", "level."];
const TOOL: &str = "get_weather";
const TOOL_INPUT: &str = r#"{"city":"Paris"}"#;

/// A call that generates text, as its simulated provider reads it.
struct Prompt {
    model: String,
    input: u64,
    output: u64,
    stream: bool,
    calls_tool: bool,
    slowly: bool,
    body: Value,
}

impl Prompt {
    /// Reads a call. `asks` is the pointer to the text that counts as input.
    fn of(request: &Seen, asks: &str, maximum: &str) -> Self {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = body.to_string();
        let asked = body.pointer(asks).unwrap_or(&Value::Null).to_string();
        Self {
            model: body["model"].as_str().unwrap_or("gpt-4o").to_owned(),
            input: asked.len() as u64 / 4,
            output: body.pointer(maximum).and_then(Value::as_u64).unwrap_or(16),
            stream: body["stream"] == true,
            calls_tool: text.contains(&format!("\"name\":\"{TOOL}\"")),
            slowly: text.contains("slowly"),
            body,
        }
    }

    fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    fn json(&self, json: &Value) -> Answer {
        Answer::json(200, json).reporting(self.total())
    }

    /// Returns these chunks. A slow call receives only the first `begun` of them.
    fn stream(&self, kind: &str, pieces: Vec<Vec<u8>>, begun: usize) -> Answer {
        let mut answer = Answer::new(200).header("content-type", kind).reporting(self.total());
        for (place, piece) in pieces.into_iter().enumerate() {
            if self.slowly && place == begun {
                answer = answer.wait(&Gate::default());
            }
            answer = answer.bytes(piece);
        }
        answer
    }

    /// Formats server-sent events. With `named`, the type of each event is also its name.
    fn events(&self, events: Vec<Value>, named: bool, begun: usize) -> Answer {
        let event = |event: Value| match event["type"].as_str().filter(|_| named) {
            Some(name) => format!("event: {name}\ndata: {event}\n\n").into_bytes(),
            None => format!("data: {event}\n\n").into_bytes(),
        };
        self.stream("text/event-stream", events.into_iter().map(event).collect(), begun)
    }
}

/// Answers a request that does not select an answer of the test.
pub fn answer(request: &Seen) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let ends = |end: &str| path.ends_with(end);
    match request.method.as_str() {
        "GET" | "HEAD" => models(path),
        _ if path.starts_with("/upload/") => gemini::upload(request),
        _ if ends("/files") => file(request),
        _ if ends("/datasets") => Answer::json(200, &json!({ "id": "dataset-1" })),
        _ if ends("/count_tokens") => Answer::json(200, &json!({ "input_tokens": 5 })),
        _ if ends(":countTokens") => Answer::json(200, &json!({ "totalTokens": 5 })),
        _ if ends("/messages") => anthropic::message(request),
        _ if ends("/responses") => responses::response(request),
        _ if ends("/v2/chat") => cohere::chat(request),
        _ if ends("/api/chat") => ollama::chat(request),
        _ if path.starts_with("/model/") => bedrock::converse(request),
        _ if path.contains(":generateContent") || path.contains(":streamGenerateContent") => {
            gemini::content(request)
        }
        _ => openai::chat(request),
    }
}

/// Returns the messages that answer a message of a WebSocket, and the tokens that they report.
pub fn messages(request: &Seen) -> (Vec<Value>, u64) {
    match request.path.contains("BidiGenerateContent") {
        true => gemini::messages(request),
        false => responses::messages(request),
    }
}

fn models(path: &str) -> Answer {
    if path.contains("/v1beta/") {
        return Answer::json(200, &json!({ "models": [{ "name": "models/gemini-3-pro" }] }));
    }
    let data = json!([{ "id": "gpt-4o", "object": "model" }]);
    Answer::json(200, &json!({ "object": "list", "data": data, "models": [] }))
}

/// Describes an uploaded file as OpenAI, Mistral and Anthropic do.
fn file(request: &Seen) -> Answer {
    let ours = header(&request.headers, "anthropic-version").is_some();
    let file = if ours {
        json!({
            "type": "file", "id": "file_1", "filename": "notes.txt", "mime_type": "text/plain", "size_bytes": 5,
            "created_at": "2026-11-28T00:00:00Z", "downloadable": false
        })
    } else {
        json!({
            "id": "4d8dd4a5-5b9e-4bcb-8b0a-8a1b9d1e2f30", "object": "file", "bytes": 5, "size_bytes": 5,
            "created_at": 1_790_000_000, "filename": "notes.txt", "purpose": "batch", "sample_type": "batch_request",
            "source": "upload", "status": "processed"
        })
    };
    Answer::json(200, &file)
}
