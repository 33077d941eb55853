//! Reads a body as a generous server does, independently of Weir: all of its text goes to the model, whatever the names
//! of its fields are.

use serde_json::Value;

/// The characters that Weir may leave out of the text: names, tags and known keys up to 4096 characters, metadata up to
/// 16 Ki, and beyond that as many as there is other text. So apart from these, at least half of all characters are
/// held.
pub const FREE: u64 = 4096 + (16 << 10);

/// Returns the characters of all strings, except those that may be images or files (`is_media`), which cost constants.
pub fn characters(value: &Value) -> u64 {
    match value {
        Value::String(text) if is_media(text) => 0,
        Value::String(text) => u64::try_from(text.chars().count()).unwrap_or(u64::MAX),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(members) => members.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Returns whether it is a URL, or so similar to base64 that it may be nothing else.
pub fn is_media(text: &str) -> bool {
    let is_other = |c: &char| !(c.is_ascii_alphanumeric() || "+/-_=\r\n".contains(*c));
    text.chars().take(16).collect::<String>().contains("://") || text.chars().filter(is_other).count() <= 32
}

/// Returns the minimum number of tokens to hold for a body of this many characters.
pub fn least(characters: u64) -> u64 {
    (characters / 2).saturating_sub(FREE) / 4
}
