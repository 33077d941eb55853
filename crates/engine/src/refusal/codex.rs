//! Codex retries a 429 until it gives up. It stops at once and prints the reason only if the error has a type
//! that it knows and a header contains the message.

use super::{Denial, LONGEST_SLEEP_MS, set};
use serde_json::Value;

/// The header by which Codex identifies itself.
pub const CLIENT_HEADER: &str = "originator";
/// Codex prints this header's value after its own message.
const MESSAGE: &str = "x-codex-promo-message";

/// Whether the value of [`CLIENT_HEADER`] is Codex's.
pub fn is_codex(originator: &str) -> bool {
    originator.starts_with("codex")
}

impl Denial {
    /// Whether the wait is longer than a client should sleep.
    pub fn is_long(&self) -> bool {
        let wait = self.headers.iter().find(|(name, _)| name == "retry-after-ms");
        let wait = wait.and_then(|(_, ms)| ms.parse::<u64>().ok());
        self.status == 429 && wait.is_none_or(|ms| ms > LONGEST_SLEEP_MS)
    }

    /// Rewrites the refusal for Codex, if the wait is long. A body that the policy defines stays as it is.
    pub fn for_codex(mut self) -> Self {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) else { return self };
        if !self.is_long() {
            return self;
        }
        let message = error.get("message").and_then(Value::as_str).unwrap_or("Rate limit exceeded");
        // Codex adds the full stop itself.
        set(&mut self.headers, MESSAGE, message.trim_end_matches('.'));
        let resets = error.get("rate_limit").and_then(|limit| limit.get("resets_in_seconds")).cloned();
        error.insert("type".to_owned(), "usage_limit_reached".into());
        error.insert("plan_type".to_owned(), Value::Null);
        error.insert("resets_in_seconds".to_owned(), resets.unwrap_or_default());
        self.body = body.to_string().into_bytes();
        self
    }
}
