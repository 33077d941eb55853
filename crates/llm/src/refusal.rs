//! Formats refusals for the client libraries of each API. The input does not depend on the dialect. The
//! output is a body and its headers.

use crate::request::Dialect;
use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// A limit is exhausted.
    Exceeded,
    /// The request can never pass.
    TooLarge,
    /// The request is invalid.
    Invalid,
    /// The limits could not be checked.
    Unavailable,
}

/// The content of a refusal.
#[derive(Clone, Debug)]
pub struct RefusalFacts<'a> {
    pub reason: RefusalReason,
    pub status: u16,
    pub message: &'a str,
    /// OpenAI's `type`.
    pub kind: &'a str,
    /// OpenAI's `code`.
    pub code: &'a str,
    /// The time until there is room again. `None` if a retry does not help or the time is unknown.
    pub retry_ms: Option<u64>,
    /// An object that describes the rate that refused the request.
    pub details: Option<Value>,
}

/// The formatted refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusalReply {
    /// Headers that clients of this API read, in addition to the usual ones.
    pub headers: Vec<(&'static str, String)>,
    pub body: Value,
}

impl RefusalReply {
    pub(crate) fn of(body: Value) -> Self {
        Self { headers: Vec::new(), body }
    }
}

impl RefusalFacts<'_> {
    /// Adds the details to an error object.
    pub(crate) fn with_details(&self, mut error: Value) -> Value {
        if let (Some(details), Some(members)) = (&self.details, error.as_object_mut()) {
            members.insert("rate_limit".into(), details.clone());
        }
        error
    }
}

impl Dialect {
    /// Returns the status for a request that can never pass.
    pub fn too_large_status(self) -> u16 {
        self.rules().too_large
    }

    /// Formats a refusal for this API.
    pub fn refusal(self, refusal: &RefusalFacts<'_>) -> RefusalReply {
        (self.rules().refusal)(refusal)
    }
}

/// Formats a refusal in OpenAI's form, which most clients understand.
pub(crate) fn openai_form(refusal: &RefusalFacts<'_>) -> RefusalReply {
    let RefusalFacts { message, kind, code, .. } = refusal;
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    RefusalReply::of(json!({ "error": refusal.with_details(error) }))
}

/// Converts milliseconds to whole seconds, rounded up, at least 1.
pub(crate) fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}
