//! The request's body, if a limit depends on it. It is read for its facts, and edited to ask for usage. The
//! input is the bytes that the shell has buffered. The output is facts, and a body to send instead.

use super::Effect;
use crate::metric::Metric;
use expression::facts::Facts;
use llm::request::edit::{self, Unchangeable, UsageRequest};
use llm::request::{Condition, Extent, ParsedBody, Wire};
use llm::response::Cause;
use std::borrow::Cow;

/// A replacement for the request's body, and the headers to change with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEdit {
    /// The whole body.
    pub body: Vec<u8>,
    /// Headers to set, or to remove.
    pub headers: Vec<(&'static str, Option<String>)>,
}

/// If a body is known to be too long, only this much of it is awaited. Most clients put the model first, and
/// the rest need not fit into the proxy's buffer.
const BEGINNING: usize = 64 << 10;

/// Returns how many bytes of its body a request waits for.
pub(super) fn wanted(facts: &Facts, most: usize) -> usize {
    let length = facts.content_length().and_then(|length| usize::try_from(length).ok());
    if length.is_some_and(|length| length > most) { most.min(BEGINNING) } else { most }
}

/// The memory needed to read a body of this size: its copy, its text in UTF-8, the edited body, and a growing
/// buffer if it has to be decoded.
pub(super) fn memory(facts: &Facts, size: usize, most: usize) -> usize {
    let decoded =
        if facts.fetched_header("content-encoding").is_empty() { 0 } else { most.saturating_mul(3) };
    size.saturating_mul(3).saturating_add(decoded)
}

/// A body that has been read.
pub(super) struct ReadBody<'a> {
    /// The text that was read, and that an edit changes.
    text: Cow<'a, [u8]>,
    /// Why it could not be decoded.
    cause: Option<Cause>,
    /// Whether it has a `content-encoding`, or was decoded without one.
    encoded: bool,
}

impl<'a> ReadBody<'a> {
    /// Reads a body, or its beginning, and adds its facts.
    pub(super) fn new(
        facts: &mut Facts,
        pointers: &[String],
        body: &'a [u8],
        end: bool,
        most: usize,
    ) -> Self {
        let kept = body.get(..most).unwrap_or(body);
        let extent =
            if end && kept.len() == body.len() { Extent::Whole } else { Extent::Cut(facts.content_length()) };
        let encoded = !facts.fetched_header("content-encoding").is_empty();
        let wire = Wire {
            method: facts.body_method(),
            path: facts.path().unwrap_or_default(),
            content_type: facts.fetched_header("content-type"),
            content_encoding: facts.fetched_header("content-encoding"),
            body: kept,
            extent,
            most,
        };
        let ParsedBody { body, text, cause } = wire.read();
        // If a body can be read in two ways, only facts with the same value in both are known.
        let pointers = if body.condition == Condition::Ambiguous { &[] } else { pointers };
        facts.body(body, &text, pointers);
        if extent == Extent::Whole {
            facts.set_body_length(u64::try_from(kept.len()).unwrap_or(u64::MAX));
        }
        Self { text, cause, encoded }
    }

    /// Counts parts that could not be read.
    pub(super) fn trouble(&self, facts: &Facts) -> Option<Effect> {
        let condition = facts.read_body().map(|body| body.condition).unwrap_or_default();
        let cause = match (self.cause, condition) {
            // The body is longer than the maximum, before or after decoding.
            (Some(Cause::Bomb), _) => Condition::Cut.name(),
            (Some(cause), _) => cause.name(),
            (None, Condition::Read) => return None,
            (None, condition) => condition.name(),
        };
        Some(Effect::Count(Metric::UnreadRequest(cause)))
    }

    /// Edits the body so that it asks for usage (`asks`) and for no more output than `cap`, unless the
    /// client's own values do so. Also returns whether the client had not asked for usage. It fails if a
    /// limit depends on an edit that cannot be made: otherwise such a body would bypass the limit.
    pub(super) fn change(
        &self,
        facts: &mut Facts,
        asks: bool,
        cap: Option<u64>,
    ) -> Result<(Vec<Effect>, bool), Unchangeable> {
        let mut effects = Vec::new();
        let Some(read) = facts.read_body() else { return Ok((effects, false)) };
        let asked = if asks { edit::ask_for_usage(read, &self.text)? } else { UsageRequest::default() };
        let so_far = asked.body.as_deref().unwrap_or(&self.text);
        let capped = match cap {
            Some(cap) => edit::cap_output(read, so_far, cap)?.map(|body| (cap, body)),
            None => None,
        };
        effects.extend(asked.body.is_some().then_some(Effect::Count(Metric::UsageAsked)));
        let body = match capped {
            Some((cap, body)) => {
                facts.cap_output(cap);
                effects.push(Effect::Count(Metric::OutputCapped));
                Some(body)
            }
            None => asked.body,
        };
        effects.extend(body.map(|body| Effect::Edit(self.edit(body, facts))));
        Ok((effects, asked.unasked))
    }

    /// The body to send, and its headers.
    fn edit(&self, body: Vec<u8>, facts: &Facts) -> RequestEdit {
        let mut headers = Vec::new();
        if facts.content_length().is_some() {
            headers.push(("content-length", Some(body.len().to_string())));
        }
        if self.encoded {
            headers.push(("content-encoding", None));
        }
        RequestEdit { body, headers }
    }
}

/// Whether the upstream must not compress its response, because a chunk may have to be removed (`unasked`:
/// the one with the usage) or the stream may have to be cut. A client that refuses uncompressed responses
/// receives the chunk instead, but no client can prevent a cut.
pub(super) fn needs_plain_response(unasked: bool, may_be_cut: bool, facts: &Facts) -> bool {
    may_be_cut || unasked && takes_identity(facts.fetched_header("accept-encoding"))
}

/// Whether a client with this `accept-encoding` accepts an uncompressed response.
fn takes_identity(accept_encoding: &str) -> bool {
    let refused = |name: &str| {
        accept_encoding.split(',').any(|item| {
            let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
            let quality = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f64>().ok());
            coding.trim().eq_ignore_ascii_case(name) && quality == Some(0.0)
        })
    };
    let named = accept_encoding.to_ascii_lowercase().contains("identity");
    !accept_encoding.is_empty() && !refused("identity") && (named || !refused("*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_plain_bytes_who_refuses_them() {
        for (accept, takes) in [
            ("", false),
            ("gzip, deflate, br, zstd", true),
            ("gzip;q=1.0, *;q=0", false),
            ("gzip, identity;q=0", false),
            ("identity;q=0.5, *;q=0", true),
            ("*", true),
        ] {
            assert_eq!(takes_identity(accept), takes, "{accept}");
        }
    }

    #[test]
    fn of_a_body_that_is_too_long_the_beginning_is_enough() {
        let facts = |length: &str| {
            let mut facts = Facts::default();
            facts.header("content-length", length.as_bytes());
            facts
        };
        let table = [("1000", 1 << 20), ("1048576", 1 << 20), ("1048577", BEGINNING), ("none", 1 << 20)];
        for (length, waited_for) in table {
            assert_eq!(wanted(&facts(length), 1 << 20), waited_for, "{length}");
        }
        assert_eq!(wanted(&facts("1000"), 10), 10);
    }
}
