//! Recognises members that count tokens by their names, for any provider: `prompt_tokens`,
//! `inputTextTokenCount`, `tokens_generated`, `TotalTokens`. A key is recognised only if every word in it is
//! known.

use super::tally::Field;
use crate::table::{Member, NameTable, joined};

/// The maximum length of a key that is examined, in bytes.
const MAX_NAME: usize = 48;

// The combined meaning of a key's words.
const TOKEN: u16 = 1;
const TOTAL: u16 = 1 << 1;
const INPUT: u16 = 1 << 2;
const OUTPUT: u16 = 1 << 3;
const CACHE: u16 = 1 << 4;
const CACHED: u16 = 1 << 5;
const READ: u16 = 1 << 6;
const WRITE: u16 = 1 << 7;
const REASONING: u16 = 1 << 8;
const THOUGHTS: u16 = 1 << 9;
const TOOL: u16 = 1 << 10;
const CONNECTOR: u16 = 1 << 11;
/// A kind of content that accounts for a part of the input or output.
const KIND: u16 = 1 << 12;
/// The word has this meaning only if the key mentions tokens.
const WEAK: u16 = 1 << 13;
/// A number of tokens, if the key also says which.
const LENGTH: u16 = 1 << 14;
/// Input that always includes cached tokens. `input` often excludes them.
const PROMPT: u16 = 1 << 15;

/// Returns the known words that begin with this letter. Longer words come before their prefixes.
fn words(first: u8) -> &'static [(&'static [u8], u16)] {
    match first {
        b'a' => &[(b"audio", KIND), (b"answer", OUTPUT | WEAK), (b"ai", 0)],
        b'c' => &[
            (b"completions", OUTPUT),
            (b"completion", OUTPUT),
            (b"candidates", OUTPUT),
            (b"candidate", OUTPUT),
            (b"cached", CACHED),
            (b"cache", CACHE),
            (b"creation", WRITE),
            (b"created", WRITE),
            (b"connectors", CONNECTOR),
            (b"connector", CONNECTOR),
            (b"counts", 0),
            (b"count", 0),
            (b"content", 0),
            (b"context", INPUT | WEAK),
        ],
        b'f' => &[(b"files", KIND), (b"file", KIND)],
        b'g' => &[(b"generated", OUTPUT), (b"generations", OUTPUT), (b"generation", OUTPUT), (b"gen", 0)],
        b'h' => &[(b"hit", READ)],
        b'd' => &[(b"documents", KIND), (b"document", KIND)],
        b'i' => &[(b"images", KIND), (b"image", KIND), (b"inputs", INPUT), (b"input", INPUT), (b"in", INPUT)],
        b'k' => &[(b"knowledge", CONNECTOR)],
        b'l' => &[(b"length", LENGTH), (b"llm", 0)],
        b'n' => &[(b"number", 0), (b"num", 0), (b"nb", 0), (b"n", 0)],
        b'o' => &[(b"outputs", OUTPUT), (b"output", OUTPUT), (b"out", OUTPUT), (b"of", 0)],
        b'p' => &[
            (b"prompts", INPUT | PROMPT),
            (b"prompt", INPUT | PROMPT),
            (b"predicted", OUTPUT),
            (b"precached", CACHED),
        ],
        b'q' => &[(b"query", INPUT | WEAK)],
        b'r' => &[
            (b"responses", OUTPUT),
            (b"response", OUTPUT),
            (b"reasoning", REASONING),
            (b"read", READ),
            (b"request", INPUT | WEAK),
            (b"received", OUTPUT | WEAK),
        ],
        b's' => &[(b"sent", INPUT | WEAK), (b"speech", KIND)],
        b't' => &[
            (b"tokens", TOKEN),
            (b"token", TOKEN),
            (b"toks", TOKEN),
            (b"tok", TOKEN),
            (b"total", TOTAL),
            (b"thinking", REASONING),
            (b"thoughts", THOUGHTS),
            (b"thought", THOUGHTS),
            (b"tooluse", TOOL),
            (b"text", KIND),
        ],
        b'u' => &[(b"usage", 0), (b"used", 0)],
        b'v' => &[(b"video", KIND), (b"vision", KIND)],
        b'w' => &[(b"written", WRITE), (b"write", WRITE)],
        _ => &[],
    }
}

/// What the most frequent keys of usage count, whatever their object is. This table only saves the time for
/// looking at their words. The keys without a count have no other meaning either.
const FREQUENT: &[Member<(), Option<Field>>] = &[
    ((), "prompt_tokens", Some(Field::Input)),
    ((), "promptTokens", Some(Field::Input)),
    ((), "completion_tokens", Some(Field::Output)),
    ((), "completionTokens", Some(Field::Output)),
    ((), "input_tokens", Some(Field::FreshInput)),
    ((), "inputTokens", Some(Field::FreshInput)),
    ((), "output_tokens", Some(Field::Output)),
    ((), "outputTokens", Some(Field::Output)),
    ((), "total_tokens", Some(Field::Total)),
    ((), "totalTokens", Some(Field::Total)),
    ((), "cached_tokens", Some(Field::Cached)),
    ((), "reasoning_tokens", Some(Field::Reasoning)),
    ((), "audio_tokens", None),
    ((), "accepted_prediction_tokens", None),
    ((), "rejected_prediction_tokens", None),
    ((), "prompt_tokens_details", None),
    ((), "completion_tokens_details", None),
];

static GROUPED: [Member<(), Option<Field>>; FREQUENT.len()] = joined(&[FREQUENT], ((), "", None));
static FREQUENT_KEYS: NameTable<(), Option<Field>> = NameTable::new(&GROUPED);

/// Returns what a key counts. If `named` is set, its object is known to count tokens, so the key need not
/// mention them.
pub(super) fn field(key: &[u8], named: bool) -> Option<Field> {
    if !named && !may_mention_tokens(key) {
        return None;
    }
    frequent(key).unwrap_or_else(|| by_words(key, named))
}

/// Like [`field`], for a frequent key.
pub(super) fn frequent(key: &[u8]) -> Option<Option<Field>> {
    FREQUENT_KEYS.find((), key)
}

/// Like [`field`], for a key that is not frequent.
pub(super) fn rare_field(key: &[u8], named: bool) -> Option<Field> {
    if named || may_mention_tokens(key) { by_words(key, named) } else { None }
}

/// Returns what the words of a key say that it counts.
fn by_words(key: &[u8], named: bool) -> Option<Field> {
    let meaning = match meaning(key)? {
        // `context_length` is a maximum.
        length if length & LENGTH != 0 && (length & WEAK != 0 || length & (INPUT | OUTPUT) == 0) => None,
        length if length & LENGTH != 0 => Some(length | TOKEN),
        meaning => Some(meaning),
    }?;
    if meaning & TOKEN == 0 && (!named || meaning & (TOOL | CONNECTOR | WEAK) != 0) {
        return None;
    }
    let has = |bits: u16| meaning & bits != 0;
    match () {
        () if has(CACHE | CACHED) && has(WRITE) => Some(Field::CacheWrite),
        () if has(CACHE) && has(READ) => Some(Field::CacheRead),
        () if has(CACHED | CACHE) => Some(Field::Cached),
        () if has(TOOL) => Some(Field::ToolUse),
        () if has(CONNECTOR) => Some(Field::Connector),
        () if has(THOUGHTS) => Some(Field::Thoughts),
        () if has(REASONING) => Some(Field::Reasoning),
        () if has(READ | WRITE) || has(INPUT) && has(OUTPUT) => None,
        () if has(INPUT) && has(KIND) => Some(Field::InputPart),
        () if has(OUTPUT) && has(KIND) => Some(Field::OutputPart),
        () if has(KIND) => None,
        () if has(PROMPT) => Some(Field::Input),
        () if has(INPUT) => Some(Field::FreshInput),
        () if has(OUTPUT) => Some(Field::Output),
        () if has(TOTAL) || has(TOKEN) && (named || is_used(key)) => Some(Field::Total),
        () => None,
    }
}

/// Returns whether a key with a word for tokens is about the used ones: `tokens_used`, `usedTokens`.
fn is_used(key: &[u8]) -> bool {
    let is_unused = key.ends_with(b"unused") || key.ends_with(b"Unused");
    !is_unused && (key.ends_with(b"used") || key.ends_with(b"Used") || key.starts_with(b"used"))
}

/// Returns whether an object with this name counts tokens: `usage`, `token_usage`, `tokens`.
pub(super) fn is_usage(key: &[u8]) -> bool {
    let first = key.iter().find(|byte| byte.is_ascii_alphabetic());
    is_named_usage(key) || matches!(first, Some(b't' | b'T')) && is_about_tokens(Normal::of(key).text())
}

/// Returns whether a document of this type has only counts of tokens: `token_stat`, `token_count`.
pub(super) fn is_statistics(kind: &[u8]) -> bool {
    let mut kind = Normal::of(kind);
    kind.text()
        .strip_prefix(b"token")
        .is_some_and(|rest| rest.starts_with(b"stat") || rest.starts_with(b"count"))
}

/// Returns whether a member has the parts of a count: `inputTokenDetails`, `output_token_details`.
pub(super) fn is_details(key: &[u8]) -> bool {
    let count = key.strip_suffix(b"etails").and_then(|key| key.split_last());
    count.is_some_and(|(_, count)| rare_field(count, false).is_some())
}

/// Returns whether a member has the name of an image or a recording: `audio_base64`, `images`, `b64_video`.
pub(super) fn is_media(key: &[u8]) -> bool {
    // Each of these words has one of these characters, and most keys have none.
    if !key.iter().any(|byte| matches!(byte.to_ascii_lowercase(), b'd' | b'g' | b'6')) {
        return false;
    }
    let mut key = Normal::of(key);
    let key = key.text();
    [&b"audio"[..], b"image", b"video", b"base64", b"b64"].iter().any(|kind| contains(key, kind))
}

fn is_about_tokens(key: &[u8]) -> bool {
    let rest = key.strip_prefix(b"token").unwrap_or_default();
    matches!(rest, b"s" | b"count" | b"counts" | b"metadata" | b"info" | b"stats" | b"statistics")
}

/// Returns `false` if a key has neither a word for tokens nor `length`. Nearly all keys are of this kind, and
/// this is cheaper than to look for their words.
fn may_mention_tokens(key: &[u8]) -> bool {
    key.iter().any(|byte| matches!(byte, b'k' | b'K' | b'g' | b'G'))
}

/// Returns whether this is a name for usage that is never a name for text: `usage`, `usageMetadata`.
pub(super) fn is_named_usage(key: &[u8]) -> bool {
    // This is also called for the name and type of each event. Nearly none of them has the word.
    let is_word = |at: usize| key.get(at..).and_then(|rest| rest.get(..5));
    let mut words = memchr::memchr2_iter(b'u', b'U', key).filter_map(is_word);
    if !words.any(|word| word.eq_ignore_ascii_case(b"usage")) {
        return false;
    }
    // `last_token_usage` is a part of a larger count next to it.
    let mut key = Normal::of(key);
    let key = key.text();
    !contains(key, b"tool") && !is_of_last(key)
}

/// Returns whether a member counts only the last of several calls: `last`, `last_token_usage`.
pub(super) fn is_of_last(key: &[u8]) -> bool {
    key.get(..4).is_some_and(|first| first.eq_ignore_ascii_case(b"last"))
}

/// Returns whether a member divides one usage into parts: `per_turn_usage`, `usageByModel`, `model_usage`.
pub(super) fn is_breakdown(key: &[u8]) -> bool {
    const GROUPS: [&[u8]; 8] =
        [b"agent", b"call", b"model", b"node", b"provider", b"request", b"step", b"turn"];
    let is_preposition = |word: &[u8]| word.eq_ignore_ascii_case(b"per") || word.eq_ignore_ascii_case(b"by");
    let is_word = key.split(|byte| !byte.is_ascii_alphanumeric()).any(is_preposition);
    let starts =
        |word: &[u8]| key.strip_prefix(word).and_then(<[u8]>::first).is_some_and(u8::is_ascii_uppercase);
    let is_camel = starts(b"per") || starts(b"by") || contains(key, b"Per") || contains(key, b"By");
    let mut key = Normal::of(key);
    is_word || is_camel || GROUPS.iter().any(|group| contains(key.text(), group))
}

/// Returns whether a member of a count is the count itself: `tokens`, `tokenCount`, `value`.
pub(super) fn is_whole(key: &[u8]) -> bool {
    let mut key = Normal::of(key);
    matches!(key.text(), b"tokens" | b"token" | b"count" | b"tokencount" | b"value" | b"amount" | b"number")
}

/// Returns whether a member of a count is a part of it: `text`, `audioTokens`, `noCache`.
pub(super) fn is_part(key: &[u8]) -> bool {
    let mut key = Normal::of(key);
    let key = key.text();
    let key = key.strip_suffix(b"count").unwrap_or(key);
    let key = key.strip_suffix(b"tokens").or_else(|| key.strip_suffix(b"token")).unwrap_or(key);
    PARTS.contains(&key)
}

const PARTS: &[&[u8]] = &[
    b"audio",
    b"content",
    b"document",
    b"documents",
    b"file",
    b"files",
    b"fresh",
    b"image",
    b"images",
    b"message",
    b"messages",
    b"new",
    b"nocache",
    b"noncached",
    b"notcached",
    b"other",
    b"prediction",
    b"regular",
    b"speech",
    b"standard",
    b"system",
    b"text",
    b"tool",
    b"tools",
    b"uncached",
    b"user",
    b"video",
    b"visible",
];

/// Returns the meaning of all words, or `None` if one is unknown.
fn meaning(key: &[u8]) -> Option<u16> {
    let mut normal = Normal::of(key);
    let (mut rest, mut meaning) = (normal.text(), 0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (word, bits) = words(*rest.first()?).iter().find(|(word, _)| rest.starts_with(word))?;
        meaning |= bits;
        rest = rest.get(word.len()..)?;
    }
    Some(meaning)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Converts a key to lower case without separators between words.
struct Normal {
    text: [u8; MAX_NAME],
    length: usize,
}

impl Normal {
    /// Normalises a key. A key that is too long has no known words.
    fn of(key: &[u8]) -> Self {
        let (mut text, mut length) = ([0; MAX_NAME], 0usize);
        let letters = key.iter().filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' '));
        for byte in letters {
            let Some(place) = text.get_mut(length) else { return Self { text, length: 0 } };
            *place = byte.to_ascii_lowercase();
            length = length.saturating_add(1);
        }
        Self { text, length }
    }

    fn text(&mut self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_what_its_words_say() {
        let table: &[(&str, Option<Field>)] = &[
            ("prompt_tokens", Some(Field::Input)),
            ("promptTokens", Some(Field::Input)),
            ("PromptTokens", Some(Field::Input)),
            ("prompttokens", Some(Field::Input)),
            ("num_prompt_tokens", Some(Field::Input)),
            ("n_prompt_tokens", Some(Field::Input)),
            ("num_tokens_prompt_total", Some(Field::Input)),
            ("input_tokens", Some(Field::FreshInput)),
            ("input_token_count", Some(Field::FreshInput)),
            ("inputTextTokens", Some(Field::InputPart)),
            ("input_image_tokens", Some(Field::InputPart)),
            ("audio_output_tokens", Some(Field::OutputPart)),
            ("image_tokens", None),
            ("tokens_sent", Some(Field::FreshInput)),
            ("response_tok", Some(Field::Output)),
            ("gen_ai.usage.input_tokens", Some(Field::FreshInput)),
            ("gen_ai.usage.completion_tokens", Some(Field::Output)),
            ("llm.token_count.prompt", Some(Field::Input)),
            ("total_input_tokens", Some(Field::FreshInput)),
            ("tokens_input", Some(Field::FreshInput)),
            ("nb_input_tokens", Some(Field::FreshInput)),
            ("tokensIn", Some(Field::FreshInput)),
            ("tokens_out", Some(Field::Output)),
            ("completion_tokens", Some(Field::Output)),
            ("generated_token_count", Some(Field::Output)),
            ("prompt_length", Some(Field::Input)),
            ("generated_length", Some(Field::Output)),
            ("context_tokens", Some(Field::FreshInput)),
            ("tokens_generated", Some(Field::Output)),
            ("num_tokens_generated", Some(Field::Output)),
            ("total_output_tokens", Some(Field::Output)),
            ("candidates-token-count", Some(Field::Output)),
            ("totalTokens", Some(Field::Total)),
            ("tokens_used", Some(Field::Total)),
            ("tokensUsed", Some(Field::Total)),
            ("used_tokens", Some(Field::Total)),
            ("tokens_unused", None),
            ("prompt_tokens_used", Some(Field::Input)),
            ("inputTextTokenCounts", Some(Field::InputPart)),
            ("num_total_tokens", Some(Field::Total)),
            ("reasoning_output_tokens", Some(Field::Reasoning)),
            ("total_thought_tokens", Some(Field::Thoughts)),
            ("thinking_tokens", Some(Field::Reasoning)),
            ("total_tool_use_tokens", Some(Field::ToolUse)),
            ("connector_tokens", Some(Field::Connector)),
            ("knowledge_tokens", Some(Field::Connector)),
            ("cached_tokens", Some(Field::Cached)),
            ("total_cached_tokens", Some(Field::Cached)),
            ("cachedContentTokenCount", Some(Field::Cached)),
            ("cacheReadInputTokenCount", Some(Field::CacheRead)),
            ("cache_creation_input_tokens", Some(Field::CacheWrite)),
            ("cacheWriteInputTokens", Some(Field::CacheWrite)),
            ("cached_creation_tokens", Some(Field::CacheWrite)),
            ("cached_read_tokens", Some(Field::Cached)),
            // Names for something other than usage, or without a kind of token.
            ("max_tokens", None),
            ("max_length", None),
            ("total_length", None),
            ("content_length", None),
            ("context_length", None),
            ("max_context_tokens", None),
            ("tokens", None),
            ("num_tokens", None),
            ("remaining_tokens", None),
            ("tokens_per_second", None),
            ("prompt_cache_miss_tokens", None),
            ("audio_tokens", None),
            ("ephemeral_5m_input_tokens", None),
            ("total_price", None),
            ("input_characters", None),
            ("prompt_tokens_details", None),
            ("prompt", None),
            ("total", None),
            ("output", None),
            ("in", None),
            ("out", None),
            ("", None),
        ];
        for (key, expected) in table {
            assert_eq!(field(key.as_bytes(), false), *expected, "{key}");
        }
        for (key, expected) in [
            ("input", Some(Field::FreshInput)),
            ("output", Some(Field::Output)),
            ("total", Some(Field::Total)),
            ("cache_read", Some(Field::CacheRead)),
            ("total_cost", None),
            ("count", None),
            // Names for particular tokens, for a frequency, or for calls.
            ("request", None),
            ("answer", None),
            ("connectors", None),
            ("tool_use", None),
        ] {
            assert_eq!(field(key.as_bytes(), true), expected, "{key}");
        }
    }

    #[test]
    fn frequent_keys_count_what_their_words_say() {
        for (_, key, expected) in FREQUENT {
            for named in [false, true] {
                assert_eq!(by_words(key.as_bytes(), named), *expected, "{key}");
            }
        }
    }

    #[test]
    fn a_part_of_a_count_is_known_by_its_name() {
        for key in ["text", "Text", "text_tokens", "audioTokenCount", "noCache", "no_cache"] {
            assert!(is_part(key.as_bytes()), "{key}");
        }
        for key in ["a", "per_second", "max", "limit", "tokens", ""] {
            assert!(!is_part(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_document_of_statistics_is_known_by_its_type() {
        for kind in ["token_stat", "token_stats", "tokenStatistics", "token_count"] {
            assert!(is_statistics(kind.as_bytes()), "{kind}");
        }
        for kind in ["token", "tokens", "message", "stat", ""] {
            assert!(!is_statistics(kind.as_bytes()), "{kind}");
        }
    }

    #[test]
    fn a_breakdown_is_known_by_its_name() {
        for key in [
            "per_turn_usage",
            "usage_by_agent",
            "usageByModel",
            "perModelUsage",
            "model_usage",
            "USAGE_PER_DAY",
        ] {
            assert!(is_breakdown(key.as_bytes()), "{key}");
        }
        for key in ["usage", "draft_usage", "bytes_usage", "permitted_usage", "token_usage", ""] {
            assert!(!is_breakdown(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn an_object_of_counts_is_known_by_its_name() {
        for key in ["usage", "Usage", "token_usage", "usageMetadata", "usage_info", "llmUsage", "tokens"] {
            assert!(is_usage(key.as_bytes()), "{key}");
        }
        for key in ["tool_usage", "user", "data", "stats", ""] {
            assert!(!is_usage(key.as_bytes()), "{key}");
        }
    }
}
