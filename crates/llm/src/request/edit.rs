//! What Weir adds to a request, put into the client's own bytes: everything else stays as it came, byte for byte. A
//! body that needs no change, and one that is no valid JSON, is not touched.

use super::maximum::{self, FieldPath, Target};
use super::members::{Members, members};
use super::{Condition, Dialect, Operation, RequestBody};
use crate::meter::count;
use std::ops::Range;

const INCLUDE_USAGE: FieldPath = &[&["stream_options"], &["include_usage"]];

/// What asking for usage came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRequest {
    /// The body that asks; `None` if the client's needs no change.
    pub body: Option<Vec<u8>>,
    /// The client did not ask itself: the chunk that answers is not for it ([`super::UsageChunkFilter`]).
    pub unasked: bool,
}

/// Sets `stream_options.include_usage` in a streaming request for OpenAI-style chats and completions, whatever the
/// client made of it. Only where the path says that it is one: another server may refuse what it does not know.
pub fn ask_for_usage(request: &RequestBody, body: &[u8]) -> UsageRequest {
    let asks = request.stream
        && request.route.dialect == Dialect::OpenAi
        && matches!(request.route.operation, Some(Operation::Chat | Operation::Completion));
    if !asks {
        return UsageRequest::default();
    }
    edited_to_ask(request, body).unwrap_or_default()
}

fn edited_to_ask(request: &RequestBody, body: &[u8]) -> Option<UsageRequest> {
    let text = text(request, body)?;
    let root = members(text, INCLUDE_USAGE.first()?)?;
    let unasked = !asked(&root);
    let edits = set(text, root, INCLUDE_USAGE, "true", |value| value == "true")?;
    if edits.is_empty() {
        return None;
    }
    Some(UsageRequest { body: Some(apply(body, text, edits)?), unasked })
}

/// Caps the output of a request without a maximum of its own at `cap` tokens in all; `None` if it has one, or
/// nobody knows its server's field.
pub fn cap_output(request: &RequestBody, body: &[u8], cap: u64) -> Option<Vec<u8>> {
    if request.max_output.is_some() {
        return None;
    }
    let path = maximum::field(Target {
        dialect: request.dialect,
        operation: request.operation,
        route: &request.route,
        model: request.model.as_deref().unwrap_or_default(),
        shape: request.shape,
    })?;
    let each = request.share(cap);
    let text = text(request, body)?;
    let is_maximum = |value: &str| count(value.as_bytes()).is_some_and(|value| value > 0);
    let root = members(text, path.first()?)?;
    let edits = set(text, root, path, &each.to_string(), is_maximum)?;
    if edits.is_empty() { None } else { apply(body, text, edits) }
}

/// The body as text, without a byte order mark. Half a body cannot be edited.
fn text<'a>(request: &RequestBody, body: &'a [u8]) -> Option<&'a str> {
    if request.condition == Condition::Cut {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Whether the last `include_usage` of the last `stream_options` is true, as lenient servers see it.
fn asked(root: &Members<'_>) -> bool {
    let last =
        |members: &Members<'_>| members.found.last().map(|(_, value)| value.trim_matches('"').to_owned());
    let usage = last(root).and_then(|options| last(&members(&options, &["include_usage"])?));
    usage.is_some_and(|value| super::gather::is_true(value.as_bytes()))
}

/// Replaces a range of a text.
struct Edit {
    at: Range<usize>,
    with: String,
}

/// What it takes to have `value` at `path` in a JSON object, in every place where the path leads if keys are
/// repeated, since which of them the server takes is not for us to know. Values that `keep` accepts stay. `root`:
/// the members of the text that the path begins with. `None` if something inside is no valid JSON.
fn set<'a>(
    text: &'a str,
    root: Members<'a>,
    path: FieldPath,
    value: &str,
    keep: impl Fn(&str) -> bool,
) -> Option<Vec<Edit>> {
    let mut edits = Vec::new();
    let mut objects = vec![(text, root)];
    let mut path = path;
    while let Some((_, below)) = path.split_first() {
        let mut inner = Vec::new();
        for (object, members_of_it) in objects {
            let mut there = false;
            for (name, raw) in members_of_it.found {
                // Null under a name that we would not choose is as good as absent.
                if name != 0 && raw == "null" {
                    continue;
                }
                there = true;
                match below.first() {
                    None if keep(raw) => {}
                    Some(names) if raw.starts_with('{') => inner.push((raw, members(raw, names)?)),
                    _ => edits.push(Edit { at: range(text, raw)?, with: nested(below, value) }),
                }
            }
            if !there {
                edits.push(insertion(text, object, members_of_it.empty, &nested(path, value))?);
            }
        }
        objects = inner;
        path = below;
    }
    edits.sort_by_key(|edit| edit.at.start);
    Some(edits)
}

/// Puts the member of `wrapped`, an object, at the beginning of `object`.
fn insertion(text: &str, object: &str, empty: bool, wrapped: &str) -> Option<Edit> {
    let start = range(text, object)?.start;
    let after_brace = start.checked_add(object.find('{')?)?.checked_add(1)?;
    let member = wrapped.strip_prefix('{')?.strip_suffix('}')?;
    let comma = if empty { "" } else { "," };
    Some(Edit { at: after_brace..after_brace, with: format!("{member}{comma}") })
}

/// An object with the value at the path.
fn nested(path: FieldPath, value: &str) -> String {
    let names = path.iter().rev().filter_map(|names| names.first());
    names.fold(value.to_owned(), |inner, name| format!("{{\"{name}\":{inner}}}"))
}

/// Where `part` stands in `text`, of which it is a part.
fn range(text: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let range = start..start.checked_add(part.len())?;
    text.get(range.clone()).map(|_| range)
}

/// `text` is the end of `body`.
fn apply(body: &[u8], text: &str, edits: Vec<Edit>) -> Option<Vec<u8>> {
    let mark = body.len().checked_sub(text.len())?;
    let added: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut edited = Vec::with_capacity(body.len().checked_add(added)?);
    edited.extend_from_slice(body.get(..mark)?);
    let mut from = 0;
    for edit in edits {
        edited.extend_from_slice(text.get(from..edit.at.start)?.as_bytes());
        edited.extend_from_slice(edit.with.as_bytes());
        from = edit.at.end;
    }
    edited.extend_from_slice(text.get(from..)?.as_bytes());
    Some(edited)
}
