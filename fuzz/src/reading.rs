//! Reads a body like a generous server, independently of Weir. Such a server passes all text to the model, in
//! any field.

use serde_json::Value;

/// The number of characters that Weir may ignore: up to 4096 in names, tags and known keys, and up to 16 Ki
/// in metadata. Beyond that, Weir may ignore as many characters as the other text has. So it holds at least
/// half of all further characters.
pub const FREE: u64 = 4096 + (16 << 10);

/// Returns the number of characters in all strings, except those that may be images or files (`is_media`).
/// The latter cost constants.
pub fn characters(value: &Value) -> u64 {
    match value {
        Value::String(text) if is_media(text) => 0,
        Value::String(text) => u64::try_from(text.chars().count()).unwrap_or(u64::MAX),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(members) => members.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Returns whether the text may be a URL, or base64 with few other characters.
pub fn is_media(text: &str) -> bool {
    let is_other = |c: &char| !(c.is_ascii_alphanumeric() || "+/-_=\r\n".contains(*c));
    text.chars().take(16).collect::<String>().contains("://") || text.chars().filter(is_other).count() <= 32
}

/// Returns the minimum number of tokens to hold for a body of this many characters.
pub fn least(characters: u64) -> u64 {
    (characters / 2).saturating_sub(FREE) / 4
}
