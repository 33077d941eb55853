//! Removes the chunk that answers `include_usage` from an uncompressed stream of server-sent events, for a
//! client that did not ask for it. `"choices":[]` with a `usage` breaks clients that expect a choice in every
//! chunk. LiteLLM sends a choice with an empty delta instead. All other bytes pass unchanged. A `usage` with
//! a `cost` stays, because it comes from OpenRouter, which always sends it.
//!
//! An event is held back only while it may be that chunk. It passes as soon as its first delta has content,
//! or when it ends.

use super::members::{element, members};
use crate::memory::{Lease, MemoryBudget, Purpose};
use memchr::{memchr2, memmem};
use std::borrow::Cow;

/// The longest event that is held back, in bytes. The usage chunk is about a tenth of that size.
const KEPT_BACK: usize = 16 << 10;

/// What to do with a chunk of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEdit {
    /// Send these bytes instead.
    Replace(Vec<u8>),
    /// Hold back these bytes, because some of them may have to be removed.
    Keep(Vec<u8>),
}

/// The filter for one response.
#[derive(Debug)]
pub struct UsageChunkFilter {
    /// The lease for the bytes that are held back.
    lease: Lease,
    mode: Mode,
    /// The start of an event that is held back.
    held: Vec<u8>,
    /// Whether the current line is still empty.
    blank: bool,
    /// Whether the last line ended in CR, so that a following LF belongs to it.
    after_cr: bool,
    /// Whether the last line belonged to an event that was removed.
    taken_out: bool,
    /// Whether the proxy buffers the bytes that are held back.
    kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Between two events.
    Between,
    /// In a comment between two events. It keeps the connection alive, so it passes at once.
    Comment,
    /// In an event that may be the usage chunk.
    Holding,
    /// In an event that passes unchanged.
    Passing,
}

impl Default for UsageChunkFilter {
    fn default() -> Self {
        Self::within(&MemoryBudget::default())
    }
}

impl UsageChunkFilter {
    /// Creates a filter that takes the memory for held-back bytes from a budget. If there is no memory for an
    /// event, the event passes.
    pub fn within(memory: &MemoryBudget) -> Self {
        let (blank, after_cr, taken_out, kept) = (true, false, false, false);
        let lease = memory.empty(Purpose::Keep);
        Self { lease, mode: Mode::Between, held: Vec::new(), blank, after_cr, taken_out, kept }
    }

    /// Returns what to do with `chunk`, or `None` if it passes unchanged. `end` is true for the last chunk.
    pub fn edit(&mut self, chunk: &[u8], end: bool) -> Option<ChunkEdit> {
        let kept = std::mem::take(&mut self.kept);
        let out = self.feed(chunk, end);
        if !self.held.is_empty() && out.as_ref().is_some_and(Vec::is_empty) {
            self.kept = true;
            return Some(ChunkEdit::Keep(self.held.clone()));
        }
        // Otherwise, the bytes that the proxy buffers would pass together with the chunk.
        out.or_else(|| kept.then(|| chunk.to_vec())).map(ChunkEdit::Replace)
    }

    /// Returns what to send instead of `chunk`, or `None` if it passes unchanged. `end` is true for the last
    /// chunk.
    pub fn feed(&mut self, chunk: &[u8], end: bool) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.held.len().saturating_add(chunk.len()));
        let mut rest = self.after_cr(chunk, &mut out);
        while !rest.is_empty() {
            let at = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (text, tail) = rest.split_at(at);
            if !text.is_empty() {
                self.text(text, &mut out);
            }
            let length = if tail.starts_with(b"\r\n") { 2 } else { tail.len().min(1) };
            let (line_end, next) = tail.split_at_checked(length).unwrap_or((tail, &[]));
            if !line_end.is_empty() {
                self.end_of_line(line_end, &mut out);
                self.after_cr = next.is_empty() && line_end == b"\r";
            }
            rest = next;
        }
        if self.mode == Mode::Holding && end {
            self.end_event(&mut out);
        } else if self.mode == Mode::Holding && !may_be_usage_chunk(&data(&self.held)) {
            self.mode = Mode::Passing;
            out.append(&mut self.held);
        }
        (out != chunk).then_some(out)
    }

    /// Handles the second half of a line end that was split between chunks.
    fn after_cr<'a>(&mut self, chunk: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let split = self.after_cr;
        self.after_cr &= chunk.is_empty();
        match chunk.split_first() {
            Some((b'\n', rest)) if split => {
                if !self.taken_out {
                    self.target(out).push(b'\n');
                }
                rest
            }
            _ => chunk,
        }
    }

    fn target<'o>(&'o mut self, out: &'o mut Vec<u8>) -> &'o mut Vec<u8> {
        if self.mode == Mode::Holding { &mut self.held } else { out }
    }

    /// Handles a piece of a line.
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.mode == Mode::Between {
            self.mode = if text.starts_with(b":") { Mode::Comment } else { Mode::Holding };
        }
        self.blank = false;
        if self.mode == Mode::Holding && !self.has_room(text.len()) {
            self.mode = Mode::Passing;
            out.append(&mut self.held);
        }
        self.target(out).extend_from_slice(text);
    }

    /// Returns whether `more` bytes may be held back in addition. A growing buffer may double its capacity.
    fn has_room(&mut self, more: usize) -> bool {
        let length = self.held.len().saturating_add(more);
        let room = length.saturating_mul(2).max(self.lease.bytes());
        length <= KEPT_BACK && self.lease.resize(room)
    }

    fn end_of_line(&mut self, line_end: &[u8], out: &mut Vec<u8>) {
        self.taken_out = false;
        let ends_event = std::mem::replace(&mut self.blank, true);
        match self.mode {
            Mode::Holding if ends_event => self.taken_out = self.end_event(out),
            Mode::Comment => self.mode = Mode::Between,
            Mode::Passing if ends_event => self.mode = Mode::Between,
            _ => {}
        }
        if !self.taken_out {
            self.target(out).extend_from_slice(line_end);
        }
    }

    /// Ends the event that is held back. Returns `true` if it was removed.
    fn end_event(&mut self, out: &mut Vec<u8>) -> bool {
        self.mode = Mode::Between;
        if is_usage_chunk(&data(&self.held)) {
            self.held.clear();
            return true;
        }
        out.append(&mut self.held);
        false
    }
}

/// Returns an event's data: the values of its `data` fields.
fn data(event: &[u8]) -> Cow<'_, [u8]> {
    let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    let values =
        event.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| line.strip_prefix(b"data:"));
    let mut values = values.map(|value| value.strip_prefix(b" ").unwrap_or(value));
    let first = values.next().unwrap_or_default();
    values.fold(Cow::Borrowed(first), |mut data, value| {
        data.to_mut().push(b'\n');
        data.to_mut().extend_from_slice(value);
        data
    })
}

/// Returns whether the beginning of the data may belong to the usage chunk. Quotes in strings are escaped, so
/// a match is always a key.
fn may_be_usage_chunk(data: &[u8]) -> bool {
    let data = data.trim_ascii_start();
    let Some(inside) = data.strip_prefix(b"{") else { return data.is_empty() };
    if inside.trim_ascii_start().starts_with(b"\"error\"") {
        return false;
    }
    let key = b"\"choices\"";
    let Some(value) = memmem::find(data, key).and_then(|at| data.get(at.checked_add(key.len())?..)) else {
        return true;
    };
    let mut rest = value;
    for expected in [b':', b'['] {
        match rest.trim_ascii_start() {
            [] => return true,
            [first, after @ ..] if *first == expected => rest = after,
            _ => return false,
        }
    }
    match rest.trim_ascii_start() {
        [] | [b']', ..] => true,
        [b'{', choice @ ..] => may_be_empty_choice(choice),
        _ => false,
    }
}

/// Returns whether the beginning of a choice may have an empty delta.
fn may_be_empty_choice(choice: &[u8]) -> bool {
    let member = |key: &[u8]| {
        let at = memmem::find(choice, key)?;
        choice.get(at.checked_add(key.len())?..).map(<[u8]>::trim_ascii_start)
    };
    if member(b"\"text\"").is_some() {
        return false;
    }
    let is_null = match member(b"\"finish_reason\"") {
        None | Some([] | [b':']) => true,
        Some([b':', value @ ..]) => matches!(value.trim_ascii_start(), [] | [b'n', ..]),
        Some(_) => false,
    };
    let mut rest = match member(b"\"delta\"") {
        None | Some([] | [b':']) => return is_null,
        Some([b':', delta @ ..]) => match delta.trim_ascii_start() {
            [] => return is_null,
            [b'{', members @ ..] => members,
            _ => return false,
        },
        Some(_) => return false,
    };
    // Members without a value do not count.
    loop {
        rest = rest.trim_ascii_start();
        let Some(key) = rest.strip_prefix(b"\"") else { return is_null && matches!(rest, [] | [b'}', ..]) };
        let Some(end) = key.iter().position(|byte| *byte == b'"') else { return is_null };
        let value = key.get(end.saturating_add(1)..).unwrap_or_default().trim_ascii_start();
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii_start();
        let after = value.strip_prefix(b"null").or_else(|| value.strip_prefix(b"\"\""));
        match after {
            Some(after) => rest = after.trim_ascii_start().strip_prefix(b",").unwrap_or(after),
            None => return is_null && (b"null".starts_with(value) || value == b"\""),
        }
    }
}

/// Returns whether this is the usage chunk: `"choices":[]` or one choice with an empty delta, and a `usage`
/// with a value.
fn is_usage_chunk(data: &[u8]) -> bool {
    if memmem::find(data, b"\"usage\"").is_none() || !may_be_usage_chunk(data) {
        return false;
    }
    let Some(found) = members(data, 0, &["choices", "usage"]) else { return false };
    let value = |key| {
        let member = found.found.iter().rfind(|member| member.exact && member.key == key)?;
        data.get(member.value.clone())
    };
    let (Some(choices), Some(usage)) = (value(0), value(1)) else { return false };
    let says_nothing = matches!(choices.trim_ascii(), [b'[', inside @ .., b']'] if inside.trim_ascii().is_empty())
        || is_one_empty_choice(choices) == Some(true);
    let usage = members(usage, 0, &["cost"]);
    says_nothing && usage.is_some_and(|usage| !usage.empty && usage.found.is_empty())
}

/// Returns whether this is a list of one choice with a delta without values.
fn is_one_empty_choice(choices: &[u8]) -> Option<bool> {
    let first = element(choices, 0, 0)?;
    let choice = choices.get(first)?;
    let found = members(choice, 0, &["delta", "finish_reason"])?;
    let value =
        |key| found.found.iter().find(|member| member.key == key).and_then(|it| choice.get(it.value.clone()));
    let is_null = value(1).is_none_or(|reason| reason == b"null");
    let delta = value(0)?;
    let values = delta.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let is_empty = |member: &[u8]| {
        let member = member.trim_ascii();
        member.is_empty() || member.ends_with(b"null") || member.ends_with(b"\"\"")
    };
    let is_empty = values.split(|byte| *byte == b',').all(is_empty);
    Some(is_null && is_empty && element(choices, 0, 1).is_none())
}
