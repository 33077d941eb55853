//! Detects a stream's API from its events, and collects the fields that its ending must repeat.

use llm::memory::{MemoryBudget, Purpose};
use llm::tree;
use serde_json::Value;

/// The maximum length of a text that an ending repeats, in bytes.
const MAX_TEXT: usize = 256;
/// The maximum number of open parts of a response.
const MAX_OPEN: usize = 64;
/// A parsed event takes at most this multiple of its bytes, plus a constant. An event that takes more does
/// not belong to a known API.
const TREE_SHARE: usize = 8;
const SMALLEST_TREE: usize = 8 << 10;

/// An API with streams that Weir can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamApi {
    Chat,
    Completions,
    Responses,
    Anthropic,
    Gemini,
    Cohere,
    OllamaChat,
    OllamaGenerate,
    Bedrock,
}

/// Collects the fields of one stream.
#[derive(Debug, Default)]
pub(super) struct SeenStream {
    pub api: Option<StreamApi>,
    /// The response's id, or null.
    pub id: Value,
    pub model: Value,
    pub created: Value,
    /// The number of the last event.
    pub number: u64,
    /// The choices or blocks that have begun and not ended.
    pub open: Vec<u64>,
    /// Whether the stream reports usage, because the client asked for it or the provider always does.
    pub tells_usage: bool,
    /// Whether the stream has ended, or nearly ended, by itself.
    pub is_over: bool,
}

impl SeenStream {
    /// The maximum memory of an instance in bytes.
    pub const SIZE: usize = 3 * (MAX_TEXT + 64) + 2 * MAX_OPEN * size_of::<u64>();

    /// Reads a server-sent event with line feeds between its lines.
    pub fn event(&mut self, event: &[u8], memory: &MemoryBudget) {
        let lines = event.split(|byte| *byte == b'\n');
        let mut data = lines.filter_map(|line| line.strip_prefix(b"data:"));
        let Some(first) = data.next() else { return };
        // No known API sends data on several lines.
        if data.next().is_some() {
            return;
        }
        match first.trim_ascii() {
            b"[DONE]" => self.is_over = true,
            data => self.document(data, memory),
        }
    }

    /// Reads a document from an event or from a separate line.
    pub fn document(&mut self, data: &[u8], memory: &MemoryBudget) {
        with_tree(data, memory, |document| self.learn_from(&document));
    }

    fn learn_from(&mut self, document: &Value) {
        let kind = text(document, "type");
        // Some compatible servers use another object name, or none.
        let choice = document.get("choices").and_then(|choices| choices.get(0));
        let has = |name: &str| choice.is_some_and(|choice| choice.get(name).is_some());
        let object = text(document, "object");
        if object == "chat.completion.chunk" || has("delta") {
            return self.choices(StreamApi::Chat, document);
        }
        if object == "text_completion" || has("text") {
            return self.choices(StreamApi::Completions, document);
        }
        if kind.starts_with("response.") {
            self.responses(kind, document);
        } else if document.get("candidates").is_some() {
            self.gemini(document);
        } else if document.get("done").is_some_and(Value::is_boolean) {
            let chat = document.get("message").is_some();
            self.is_over |= document.get("done") == Some(&Value::Bool(true));
            self.learn(if chat { StreamApi::OllamaChat } else { StreamApi::OllamaGenerate }, document);
        } else {
            self.blocks(kind, document);
        }
    }

    /// Reads a whole frame of an AWS event stream.
    pub fn frame(&mut self, frame: &[u8], memory: &MemoryBudget) {
        let length = |at: usize| frame.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
        let Some(headers) = length(4).and_then(|length| usize::try_from(length).ok()) else { return };
        let headers_end = headers.saturating_add(12);
        let Some(kind) = frame.get(12..headers_end).and_then(event_type) else { return };
        let payload = frame.get(headers_end..frame.len().saturating_sub(4)).unwrap_or_default();
        let block = |document: Value| index(&document, "contentBlockIndex");
        match kind {
            b"messageStart" => self.api = Some(StreamApi::Bedrock),
            b"contentBlockStart" | b"contentBlockDelta" => {
                with_tree(payload, memory, |document| self.begin(block(document)));
            }
            b"contentBlockStop" => with_tree(payload, memory, |document| self.end(block(document))),
            b"messageStop" | b"metadata" => self.is_over = true,
            _ => {}
        }
    }

    fn learn(&mut self, api: StreamApi, of: &Value) {
        self.api = Some(api);
        for (known, names) in [
            (&mut self.id, ["id", "responseId"]),
            (&mut self.model, ["model", "modelVersion"]),
            (&mut self.created, ["created", "created_at"]),
        ] {
            let value = names.iter().find_map(|name| of.get(name));
            let is_small = |value: &&Value| match value {
                Value::String(text) => text.len() <= MAX_TEXT,
                Value::Number(_) => true,
                _ => false,
            };
            if let Some(value) = value.filter(is_small)
                && known.is_null()
            {
                *known = value.clone();
            }
        }
    }

    fn choices(&mut self, api: StreamApi, document: &Value) {
        self.learn(api, document);
        self.tells_usage |= document.get("usage").is_some();
        let choices = document.get("choices").and_then(Value::as_array);
        for choice in choices.into_iter().flatten() {
            let at = index(choice, "index");
            match choice.get("finish_reason") {
                None | Some(Value::Null) => self.begin(at),
                Some(_) => {
                    self.end(at);
                    self.is_over = self.open.is_empty();
                }
            }
        }
    }

    fn responses(&mut self, kind: &str, document: &Value) {
        self.api = Some(StreamApi::Responses);
        self.number = document.get("sequence_number").and_then(Value::as_u64).unwrap_or(self.number);
        if let Some(response) = document.get("response") {
            self.learn(StreamApi::Responses, response);
        }
        self.is_over |= matches!(kind, "response.completed" | "response.incomplete" | "response.failed");
    }

    fn gemini(&mut self, document: &Value) {
        self.learn(StreamApi::Gemini, document);
        let candidates = document.get("candidates").and_then(Value::as_array);
        let finished = |one: &Value| one.get("finishReason").is_some_and(|reason| !reason.is_null());
        self.is_over |= candidates.is_some_and(|all| all.iter().any(finished));
    }

    /// The streams of Anthropic and Cohere consist of blocks.
    fn blocks(&mut self, kind: &str, document: &Value) {
        match kind {
            "message_start" => {
                self.learn(StreamApi::Anthropic, document.get("message").unwrap_or(document));
            }
            "message-start" => self.learn(StreamApi::Cohere, document),
            "content_block_start" | "content-start" => self.begin(index(document, "index")),
            "content_block_stop" | "content-end" => self.end(index(document, "index")),
            "message_delta" | "message_stop" | "message-end" | "error" => self.is_over = true,
            _ => {}
        }
    }

    fn begin(&mut self, at: u64) {
        if !self.open.contains(&at) && self.open.len() < MAX_OPEN {
            self.open.push(at);
        }
    }

    fn end(&mut self, at: u64) {
        self.open.retain(|open| *open != at);
    }
}

/// Parses a document and passes it on, if it is JSON and there is memory for its tree.
fn with_tree(text: &[u8], memory: &MemoryBudget, act: impl FnOnce(Value)) {
    let size = text.len().saturating_mul(TREE_SHARE).saturating_add(SMALLEST_TREE).min(tree::MAX_SIZE);
    let Some(_lease) = memory.lease(Purpose::Work, size) else { return };
    if let Ok(document) = tree::parse(text, size) {
        act(document);
    }
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn index(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The value of the header `:event-type`.
fn event_type(mut headers: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = headers.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        // All of Bedrock's headers are strings.
        if *kind != 7 {
            return None;
        }
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if name == b":event-type" {
            return Some(value);
        }
        headers = rest;
    }
}
