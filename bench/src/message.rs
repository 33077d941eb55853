//! A minimal HTTP/1.1 implementation for a client and a server that talk only to Envoy, and their messages.

use serde_json::json;
use std::io::{self, Read};
use std::net::TcpStream;

/// Encodes a message with its content-length.
pub fn encode(start: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut message = format!("{start}\r\n");
    for (name, value) in headers {
        message.push_str(&format!("{name}: {value}\r\n"));
    }
    message.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut message = message.into_bytes();
    message.extend_from_slice(body);
    message
}

/// Reads messages in sequence.
pub struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    /// Creates a reader at the beginning of a connection.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(8192) }
    }

    /// Reads the next message and returns its head, or `None` at the end of the connection.
    pub fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).into_owned();
                let whole = end + 4 + content_length(&head)?;
                if self.buffer.len() >= whole {
                    self.buffer.drain(..whole);
                    return Ok(Some(head));
                }
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
    }
}

fn content_length(head: &str) -> io::Result<usize> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse().ok());
    length.ok_or_else(|| io::Error::other(format!("no content-length in {head}")))
}

/// Returns a chat completion with this text and a usage of 100 tokens.
pub fn completion(text: &str) -> String {
    let body = json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "finish_reason": "stop"
        }],
        "usage": {
            "prompt_tokens": 40,
            "completion_tokens": 60,
            "total_tokens": 100,
            "prompt_tokens_details": { "cached_tokens": 0 }
        }
    });
    body.to_string()
}
