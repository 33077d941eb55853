//! Classifies, by their names, members that no table lists.

use super::{MEMBERS, Node, is_label, names};
use crate::response::Field;
use crate::table::{MAX_NAME, Member, NameTable, joined};

/// Returns the place of an unlisted member next to generated text: a count by its name, an object of counts,
/// generated text, or another unknown place.
#[inline(never)]
pub(super) fn aside(key: &[u8], place: Node) -> Node {
    let is_listed = matches!(place, Node::Listed | Node::ListedCounts);
    let is_named = matches!(place, Node::Counts | Node::ListedCounts);
    let details = Node::FoundDetails { in_list: is_listed };
    // The keys of objects of counts never name lists of token ids.
    let found = |field| match place {
        _ if is_listed => Node::FoundInList(field),
        Node::Counts => Node::Series(field),
        _ if key.ends_with(b"ounts") => Node::Series(field),
        _ => Node::Found(field),
    };
    if let Some(field) = names::frequent(key) {
        return field.map_or(if key.ends_with(b"details") { details } else { place }, found);
    }
    if let Some(node) = MEMBERS.find(place, key) {
        return node;
    }
    if let Some(field) = names::rare_field(key, is_named) {
        return found(field);
    }
    if names::is_details(key) {
        return details;
    }
    if !is_named && names::is_usage(key) {
        return if is_listed { Node::ListedCounts } else { Node::Counts };
    }
    match meaning(key) {
        Some(Meaning::CountedElsewhere) => Node::Amount,
        Some(Meaning::Details) if is_named => Node::Other,
        Some(Meaning::Error) if !is_named => Node::Error,
        _ if is_label(key) => Node::Label,
        _ if is_named && names::is_of_last(key) => Node::Other,
        // Some servers report the counts of each model or step in a nested object or list.
        _ if is_named => Node::ListedCounts,
        // Each member has the name of a model, and the counts of its calls.
        _ if key == b"models" => Node::Listed,
        _ if key == b"messages" => Node::AgentMessage,
        Some(Meaning::Generated) => Node::Unknown,
        _ if names::is_media(key) => Node::Media,
        _ => place,
    }
}

/// What an unlisted member means, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Generated text or a part of the request, or a limit instead of usage. Counts in it may come from the
    /// client or the model.
    Generated,
    /// Money, or a part of another count.
    CountedElsewhere,
    /// In an object of counts, parts of them.
    Details,
    Error,
}

/// The names of members with a meaning, in lower case.
const MEANINGS: &[Member<(), Meaning>] = &[
    ((), "answer", Meaning::Generated),
    ((), "args", Meaning::Generated),
    ((), "arguments", Meaning::Generated),
    ((), "artifacts", Meaning::Generated),
    ((), "completion", Meaning::Generated),
    ((), "content", Meaning::Generated),
    ((), "contents", Meaning::Generated),
    ((), "delta", Meaning::Generated),
    ((), "function", Meaning::Generated),
    ((), "function_call", Meaning::Generated),
    ((), "functioncall", Meaning::Generated),
    ((), "generated_text", Meaning::Generated),
    ((), "input", Meaning::Generated),
    ((), "inputs", Meaning::Generated),
    ((), "json", Meaning::Generated),
    ((), "message", Meaning::Generated),
    ((), "messages", Meaning::Generated),
    ((), "object", Meaning::Generated),
    ((), "options", Meaning::Generated),
    ((), "outputs", Meaning::Generated),
    ((), "parameters", Meaning::Generated),
    ((), "params", Meaning::Generated),
    ((), "parsed", Meaning::Generated),
    ((), "part", Meaning::Generated),
    ((), "parts", Meaning::Generated),
    ((), "reply", Meaning::Generated),
    ((), "request", Meaning::Generated),
    ((), "schema", Meaning::Generated),
    ((), "structured_content", Meaning::Generated),
    ((), "structured_output", Meaning::Generated),
    ((), "structuredcontent", Meaning::Generated),
    ((), "structuredoutput", Meaning::Generated),
    ((), "text", Meaning::Generated),
    ((), "tool_calls", Meaning::Generated),
    ((), "toolcalls", Meaning::Generated),
    ((), "tool_use", Meaning::Generated),
    ((), "tooluse", Meaning::Generated),
    ((), "tools", Meaning::Generated),
    ((), "value", Meaning::Generated),
    ((), "values", Meaning::Generated),
    // Limits.
    ((), "limit", Meaning::Generated),
    ((), "limits", Meaning::Generated),
    ((), "rate_limit", Meaning::Generated),
    ((), "rate_limits", Meaning::Generated),
    ((), "ratelimit", Meaning::Generated),
    ((), "quota", Meaning::Generated),
    ((), "budget", Meaning::Generated),
    ((), "config", Meaning::Generated),
    ((), "pricing", Meaning::Generated),
    ((), "cost", Meaning::CountedElsewhere),
    ((), "costs", Meaning::CountedElsewhere),
    ((), "cost_details", Meaning::CountedElsewhere),
    ((), "price", Meaning::CountedElsewhere),
    ((), "server_tool_use", Meaning::CountedElsewhere),
    ((), "details", Meaning::Details),
    ((), "error", Meaning::Error),
];

static GROUPED: [Member<(), Meaning>; MEANINGS.len()] = joined(&[MEANINGS], ((), "", Meaning::Error));
static BY_NAME: NameTable<(), Meaning> = NameTable::new(&GROUPED);

/// Returns what a member with this name means, in any case.
fn meaning(key: &[u8]) -> Option<Meaning> {
    let mut folded = [0; MAX_NAME];
    let folded = folded.get_mut(..key.len())?;
    folded.copy_from_slice(key);
    folded.make_ascii_lowercase();
    BY_NAME.find((), folded)
}

/// Returns the place of an unlisted member in an object of counts.
#[cold]
pub(super) fn by_name(key: &[u8]) -> Node {
    let is_detail = key.ends_with(b"etails");
    match names::field(key, true) {
        Some(field) => Node::Count(field),
        None if is_detail && key.to_ascii_lowercase().starts_with(b"prompt") => Node::InputDetails,
        None if is_detail && key.to_ascii_lowercase().starts_with(b"input") => Node::InputDetails,
        None if is_detail => Node::OutputDetails,
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
        (None, Field::Cached) if key == b"read" => Some(Field::CacheRead),
        (None, Field::Cached) if key == b"write" => Some(Field::CacheWrite),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frequent_name_of_a_count_is_listed() {
        for (parent, name, _) in MEMBERS.members() {
            let is_aside = matches!(parent, Node::Aside | Node::Listed | Node::Counts | Node::ListedCounts);
            assert!(!is_aside || names::frequent(name.as_bytes()).is_none(), "{parent:?}: {name}");
        }
    }

    #[test]
    fn every_name_has_its_meaning() {
        for (_, name, expected) in MEANINGS {
            for key in [(*name).to_owned(), name.to_ascii_uppercase()] {
                assert_eq!(meaning(key.as_bytes()), Some(*expected), "{key}");
            }
        }
        assert_eq!(meaning(&[b'x'; 1000]), None);
    }
}
