//! Gemini's generateContent API, and its two-step uploads.

use super::{Prompt, TEXT, TOOL, TOOL_INPUT, WORDS};
use crate::upstream::{Answer, Seen};
use crate::wire::header;
use serde_json::{Value, json};

pub(super) fn content(request: &Seen) -> Answer {
    let asked = Prompt::of(request, "/contents", "/generationConfig/maxOutputTokens");
    let usage = json!({
        "promptTokenCount": asked.input, "candidatesTokenCount": asked.output, "totalTokenCount": asked.total()
    });
    if request.path.contains(":streamGenerateContent") {
        let mut events: Vec<Value> = WORDS.iter().map(|word| candidate(json!({ "text": word }))).collect();
        if let Some(last) = events.last_mut() {
            last["candidates"][0]["finishReason"] = "STOP".into();
            last["usageMetadata"] = usage;
        }
        return asked.events(events, false, 1);
    }
    let input: Value = serde_json::from_str(TOOL_INPUT).unwrap_or_default();
    let call = json!({ "functionCall": { "name": TOOL, "args": input } });
    let text = match asked.body["generationConfig"]["responseMimeType"].as_str() {
        // Gemini CLI asks which model to use, in this format.
        Some("application/json") => r#"{"reasoning": "It is simple.", "model_choice": "flash"}"#,
        _ => TEXT,
    };
    let mut whole = candidate(if asked.calls_tool { call } else { json!({ "text": text }) });
    whole["candidates"][0]["finishReason"] = "STOP".into();
    whole["usageMetadata"] = usage;
    asked.json(&whole)
}

fn candidate(part: Value) -> Value {
    let content = json!({ "role": "model", "parts": [part] });
    json!({ "candidates": [{ "index": 0, "content": content }], "modelVersion": "gemini-3-pro", "responseId": "r1" })
}

/// Returns the messages that answer a message of a Gemini Live WebSocket, and the tokens that they report.
pub(super) fn messages(request: &Seen) -> (Vec<Value>, u64) {
    // The client libraries use this spelling.
    let asked = Prompt::of(request, "/client_content/turns", "/none");
    if asked.body.get("setup").is_some() {
        return (vec![json!({ "setupComplete": {} })], 0);
    }
    if asked.body.get("client_content").is_none() {
        return (Vec::new(), 0);
    }
    let says = |word: &&str| json!({ "serverContent": { "modelTurn": { "role": "model", "parts": [{ "text": word }] } } });
    let mut messages: Vec<Value> = WORDS.iter().map(says).collect();
    messages.push(json!({
        "serverContent": { "turnComplete": true },
        "usageMetadata": {
            "promptTokenCount": asked.input, "responseTokenCount": asked.output, "totalTokenCount": asked.total()
        }
    }));
    (messages, asked.total())
}

/// The response to the first request contains the address for the second one.
pub(super) fn upload(request: &Seen) -> Answer {
    if header(&request.headers, "x-goog-upload-command") == Some("start") {
        let host = header(&request.headers, "host").unwrap_or_default();
        let place = format!("http://{host}/upload/v1beta/files?upload_id=1&upload_protocol=resumable");
        return Answer::json(200, &json!({}))
            .header("x-goog-upload-url", place)
            .header("x-goog-upload-status", "active");
    }
    let file = json!({
        "name": "files/1", "mimeType": "text/plain", "sizeBytes": "5", "uri": "https://example.com/files/1",
        "state": "ACTIVE"
    });
    Answer::json(200, &json!({ "file": file })).header("x-goog-upload-status", "final")
}
