//! What each provider has of its own, one file per provider and one row per file in the tables here. Most servers speak
//! OpenAI's API, and their usage is found by the names of its counts: they need no file.

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod mistral;
mod ollama;
mod openai;
mod others;

use crate::request::tokenless::Row;

/// The calls of each provider that use no tokens.
static TOKENLESS: [&[Row]; 8] = [
    openai::TOKENLESS,
    anthropic::TOKENLESS,
    bedrock::TOKENLESS,
    cohere::TOKENLESS,
    gemini::TOKENLESS,
    mistral::TOKENLESS,
    ollama::TOKENLESS,
    others::TOKENLESS,
];

/// All calls that are known to use no tokens.
pub(crate) fn tokenless() -> impl Iterator<Item = &'static Row> {
    TOKENLESS.iter().flat_map(|rows| rows.iter())
}
