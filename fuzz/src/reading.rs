//! How a generous server reads a body, independently of what Weir does: all of its text goes to the model, whatever the
//! names of its fields.

use serde_json::Value;

/// What Weir may leave out of the text, in characters: names, tags and known keys up to 4096, metadata up to 16 Ki; and
/// beyond that as much as there is other text. So half of what is here is held, but for these.
pub const FREE: u64 = 4096 + (16 << 10);

/// The characters of all strings, but for those that may be images or files (`is_media`), which cost constants.
pub fn characters(value: &Value) -> u64 {
    match value {
        Value::String(text) if is_media(text) => 0,
        Value::String(text) => u64::try_from(text.chars().count()).unwrap_or(u64::MAX),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(members) => members.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// A URL, or so much like base64 that it may be nothing else.
pub fn is_media(text: &str) -> bool {
    let is_other = |c: &char| !(c.is_ascii_alphanumeric() || "+/-_=\r\n".contains(*c));
    text.chars().take(16).collect::<String>().contains("://") || text.chars().filter(is_other).count() <= 32
}

/// The tokens that must be held at least for a body of so many characters.
pub fn least(characters: u64) -> u64 {
    (characters / 2).saturating_sub(FREE) / 4
}
