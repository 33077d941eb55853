//! Classifies, by their names, members that no table lists.

use super::{MEMBERS, Node, is_label, names};
use crate::response::Field;

/// Returns the place of an unlisted member next to generated text: a count by its name, an object of counts,
/// generated text, or another unknown place.
#[cold]
pub(super) fn aside(key: &[u8], place: Node) -> Node {
    if let Some(node) = MEMBERS.find(place, key) {
        return node;
    }
    let is_listed = matches!(place, Node::Listed | Node::ListedCounts);
    let is_named = matches!(place, Node::Counts | Node::ListedCounts);
    if let Some(field) = names::field(key, is_named) {
        return if is_listed { Node::FoundInList(field) } else { Node::Found(field) };
    }
    if !is_named && names::is_usage(key) {
        return if is_listed { Node::ListedCounts } else { Node::Counts };
    }
    let is = |names: &[&[u8]]| names.iter().any(|name| key.eq_ignore_ascii_case(name));
    match () {
        () if is(COUNTED_ELSEWHERE) || is_named && is(&[b"details"]) => Node::Other,
        () if key.eq_ignore_ascii_case(b"error") && !is_named => Node::Error,
        () if is_label(key) => Node::Label,
        () if is_named => place,
        () if key == b"messages" => Node::AgentMessage,
        () if is(GENERATED) => Node::Unknown,
        () if names::is_media(key) => Node::Media,
        () => place,
    }
}

/// Members with generated text or with parts of the request. Counts in them may come from the client or the
/// model.
const GENERATED: &[&[u8]] = &[
    b"answer",
    b"args",
    b"arguments",
    b"artifacts",
    b"completion",
    b"content",
    b"contents",
    b"delta",
    b"function",
    b"function_call",
    b"functioncall",
    b"generated_text",
    b"input",
    b"inputs",
    b"json",
    b"message",
    b"messages",
    b"object",
    b"options",
    b"outputs",
    b"parameters",
    b"params",
    b"parsed",
    b"part",
    b"parts",
    b"reply",
    b"request",
    b"schema",
    b"structured_content",
    b"structured_output",
    b"structuredcontent",
    b"structuredoutput",
    b"text",
    b"tool_calls",
    b"toolcalls",
    b"tool_use",
    b"tooluse",
    b"tools",
    b"value",
    b"values",
    // Members for limits instead of usage.
    b"limit",
    b"limits",
    b"rate_limit",
    b"rate_limits",
    b"ratelimit",
    b"quota",
    b"budget",
    b"config",
    b"pricing",
];

/// Members of an object of counts that count money, or a part of another count.
const COUNTED_ELSEWHERE: &[&[u8]] = &[b"cost", b"costs", b"cost_details", b"price", b"server_tool_use"];

/// Returns the place of an unlisted member in an object of counts.
#[cold]
pub(super) fn by_name(key: &[u8]) -> Node {
    let is_detail = key.ends_with(b"etails");
    match names::field(key, true) {
        Some(field) => Node::Count(field),
        None if is_detail && key.to_ascii_lowercase().starts_with(b"prompt") => Node::InputDetails,
        None if is_detail && key.to_ascii_lowercase().starts_with(b"input") => Node::InputDetails,
        None if is_detail => Node::OutputDetails,
        // Some servers report the counts of each model or step in a nested object or list.
        None => aside(key, Node::ListedCounts),
    }
}

/// Classifies a member of an object that stands for a count: the count itself as a total, a part of it with a
/// separate price, or another part.
#[cold]
pub(super) fn part(whole: Field, key: &[u8]) -> Option<Field> {
    match (names::field(key, true), whole) {
        // A total may be an object with all counts.
        (Some(field), Field::Total) => Some(field),
        // A total includes cached tokens.
        (Some(Field::Total), Field::FreshInput) => Some(Field::Input),
        (Some(Field::Total), _) => Some(whole),
        (Some(Field::Cached | Field::CacheRead), Field::Input | Field::FreshInput) => Some(Field::Cached),
        (Some(Field::CacheWrite), Field::Input | Field::FreshInput) => Some(Field::Written),
        (Some(Field::Reasoning | Field::Thoughts), Field::Output) => Some(Field::Reasoning),
        (None, _) if names::is_whole(key) => Some(whole),
        (_, Field::Input | Field::FreshInput) if names::is_part(key) => Some(Field::InputPart),
        (_, Field::Output) if names::is_part(key) => Some(Field::OutputPart),
        _ => None,
    }
}

/// Returns the place of a member of a count's details. Only parts with a separate price matter, since the
/// count includes the others.
#[cold]
pub(super) fn detail(key: &[u8]) -> Node {
    match names::field(key, true) {
        Some(Field::Cached | Field::CacheRead) => Node::Count(Field::Cached),
        Some(Field::CacheWrite) => Node::Count(Field::Written),
        Some(Field::Reasoning | Field::Thoughts) => Node::Count(Field::Reasoning),
        _ => Node::Other,
    }
}
