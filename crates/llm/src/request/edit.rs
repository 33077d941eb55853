//! Adds Weir's fields to a request in the client's own bytes. All other bytes stay the same. A body stays
//! unchanged if it needs no edit or if no server would accept it. If a server might accept a body that cannot
//! be edited here, the result is [`Unchangeable`].

use super::maximum::{CapTarget, FieldPath};
use super::members::{Members, members};
use super::{Condition, Dialect, Operation, RequestBody};
use crate::response::count;
use std::ops::Range;

const INCLUDE_USAGE: FieldPath = &[&["stream_options"], &["include_usage"]];

/// The result of asking for usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRequest {
    /// The edited body. `None` if no edit is needed.
    pub body: Option<Vec<u8>>,
    /// Whether the client did not ask for usage. The usage chunk must then not reach the client
    /// ([`super::UsageChunkFilter`]).
    pub unasked: bool,
}

/// Why a body cannot be edited although it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchangeable {
    /// It is UTF-16 or UTF-32.
    NotUtf8,
    /// Only its beginning was read.
    Incomplete,
    /// Two servers would read two different requests.
    Ambiguous,
    /// Its encoding is unknown.
    Encoded,
}

impl Unchangeable {
    /// Returns the name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::Incomplete => "incomplete",
            Self::Ambiguous => "ambiguous",
            Self::Encoded => "encoding",
        }
    }

    /// Returns the message for the client.
    pub fn message(self) -> &'static str {
        match self {
            Self::NotUtf8 => "The request body must be UTF-8.",
            Self::Incomplete => {
                "The request body is too long: the gateway has to set its maximum output and cannot."
            }
            Self::Ambiguous => "The request body does not match its content-type and content-encoding.",
            Self::Encoded => "The content-encoding of the request body is not supported.",
        }
    }
}

/// Sets `stream_options.include_usage` in a streaming request for OpenAI-style chats and completions,
/// whatever the client set. It edits a request only if the path identifies such a call, because other servers
/// may reject unknown fields. If only the beginning of the body is available, the body is not edited. Without
/// usage, the response is charged for its whole length.
pub fn ask_for_usage(request: &RequestBody, body: &[u8]) -> Result<UsageRequest, Unchangeable> {
    if !request.stream || !may_ask_for_usage(request) {
        return Ok(UsageRequest::default());
    }
    match changeable(request) {
        Ok(()) => Ok(edited_to_ask(body).unwrap_or_default()),
        Err(Unchangeable::Incomplete) => Ok(UsageRequest::default()),
        Err(why) => Err(why),
    }
}

/// Returns whether a stream for this request reports its usage only if the request asks for it.
pub fn may_ask_for_usage(request: &RequestBody) -> bool {
    request.route.dialect == Dialect::OpenAi
        && matches!(request.route.operation, Some(Operation::Chat | Operation::Completion))
}

fn edited_to_ask(body: &[u8]) -> Option<UsageRequest> {
    let root = members(body, beginning(body), INCLUDE_USAGE.first()?)?;
    let unasked = !asked(body, &root);
    let edits = set(body, root, INCLUDE_USAGE, "true", |value| value == b"true")?;
    if edits.is_empty() {
        return None;
    }
    Some(UsageRequest { body: Some(apply(body, edits)?), unasked })
}

/// Caps the total output of a request without a maximum at `cap` tokens. Returns `None` if the request has a
/// maximum, the server's field is unknown, or no server would accept the body.
pub fn cap_output(request: &RequestBody, body: &[u8], cap: u64) -> Result<Option<Vec<u8>>, Unchangeable> {
    if request.max_output.is_some() {
        return Ok(None);
    }
    let field = (request.dialect.rules().cap)(CapTarget {
        operation: request.operation,
        route: &request.route,
        model: request.model.as_deref().unwrap_or_default(),
        shape: request.shape,
    });
    let Some(path) = field else { return Ok(None) };
    changeable(request)?;
    Ok(edited_to_cap(body, path, request.share(cap)))
}

fn edited_to_cap(body: &[u8], path: FieldPath, each: u64) -> Option<Vec<u8>> {
    let is_maximum = |value: &[u8]| count(value).is_some_and(|value| value > 0);
    let root = members(body, beginning(body), path.first()?)?;
    let edits = set(body, root, path, &each.to_string(), is_maximum)?;
    if edits.is_empty() { None } else { apply(body, edits) }
}

fn changeable(request: &RequestBody) -> Result<(), Unchangeable> {
    match request.condition {
        Condition::Cut => Err(Unchangeable::Incomplete),
        Condition::Ambiguous => Err(Unchangeable::Ambiguous),
        Condition::Undecoded => Err(Unchangeable::Encoded),
        _ if request.wide => Err(Unchangeable::NotUtf8),
        _ => Ok(()),
    }
}

/// Returns the start of the text, after any byte order mark.
fn beginning(body: &[u8]) -> usize {
    if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

/// Returns whether the last `include_usage` of the last `stream_options` is true, as lenient servers read it.
fn asked(text: &[u8], root: &Members) -> bool {
    let last = |members: &Members| {
        members.found.iter().rfind(|member| member.exact).map(|member| member.value.clone())
    };
    let usage = last(root).and_then(|options| last(&members(text, options.start, &["include_usage"])?));
    let value = usage.and_then(|value| text.get(value)).unwrap_or_default();
    super::gather::is_true(
        value.trim_ascii_start().strip_prefix(b"\"").unwrap_or(value).strip_suffix(b"\"").unwrap_or(value),
    )
}

/// Replaces a range of a text.
struct Edit {
    at: Range<usize>,
    with: String,
}

/// Returns the edits that set `path` to `value` in a JSON object. `root` has the members that the path begins
/// with. Keys may be repeated or written in another case. It is unknown which of them the server uses, so all
/// of them are set. Values that `keep` accepts stay unchanged. Returns `None` if no parser would accept the
/// contents.
fn set(
    text: &[u8],
    root: Members,
    path: FieldPath,
    value: &str,
    keep: impl Fn(&[u8]) -> bool,
) -> Option<Vec<Edit>> {
    let mut edits = Vec::new();
    let mut objects = vec![root];
    let mut path = path;
    while let Some((_, below)) = path.split_first() {
        let mut inner = Vec::new();
        for Members { found, inside, empty } in objects {
            let mut there = false;
            for member in found {
                let raw = text.get(member.value.clone())?;
                // Null under an alternative name counts as absent.
                if member.key != 0 && raw == b"null" {
                    continue;
                }
                there |= member.exact;
                match below.first() {
                    None if keep(raw) => {}
                    Some(names) if raw.starts_with(b"{") => {
                        inner.push(members(text, member.value.start, names)?)
                    }
                    _ => edits.push(Edit { at: member.value, with: nested(below, value) }),
                }
            }
            if !there {
                edits.push(insertion(inside, empty, &nested(path, value))?);
            }
        }
        objects = inner;
        path = below;
    }
    edits.sort_by_key(|edit| edit.at.start);
    Some(edits)
}

/// Inserts the member of `wrapped`, an object, at the beginning of another object.
fn insertion(inside: usize, empty: bool, wrapped: &str) -> Option<Edit> {
    let member = wrapped.strip_prefix('{')?.strip_suffix('}')?;
    let comma = if empty { "" } else { "," };
    Some(Edit { at: inside..inside, with: format!("{member}{comma}") })
}

/// Returns an object with the value at this path.
fn nested(path: FieldPath, value: &str) -> String {
    let names = path.iter().rev().filter_map(|names| names.first());
    names.fold(value.to_owned(), |inner, name| format!("{{\"{name}\":{inner}}}"))
}

fn apply(body: &[u8], edits: Vec<Edit>) -> Option<Vec<u8>> {
    let added: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut edited = Vec::with_capacity(body.len().checked_add(added)?);
    let mut from = 0;
    for edit in edits {
        edited.extend_from_slice(body.get(from..edit.at.start)?);
        edited.extend_from_slice(edit.with.as_bytes());
        from = edit.at.end;
    }
    edited.extend_from_slice(body.get(from..)?);
    Some(edited)
}
