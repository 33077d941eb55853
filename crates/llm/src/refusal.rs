//! How an API says that a request does not go on, as its client libraries read it. In: what is to be said, in nobody's
//! dialect. Out: a body and the headers that belong to it.

use crate::request::Dialect;
use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// A limit has no room.
    Exceeded,
    /// It can never pass.
    TooLarge,
    /// It cannot be served as it is.
    Invalid,
    /// The limits could not be checked.
    Unavailable,
}

/// What is to be said.
#[derive(Clone, Debug)]
pub struct RefusalFacts<'a> {
    pub reason: RefusalReason,
    pub status: u16,
    pub message: &'a str,
    /// OpenAI's `type`: what has run out.
    pub kind: &'a str,
    /// OpenAI's `code`.
    pub code: &'a str,
    /// When there is room again; `None`: a retry does not help, or nobody knows.
    pub retry_ms: Option<u64>,
    /// The names and numbers of what refused, as an object.
    pub details: Option<Value>,
}

/// How it is said.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusalReply {
    /// Headers that clients of this API look for, beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
    pub body: Value,
}

impl RefusalReply {
    pub(crate) fn of(body: Value) -> Self {
        Self { headers: Vec::new(), body }
    }
}

impl RefusalFacts<'_> {
    /// An error object, and in it what refused.
    pub(crate) fn with_details(&self, mut error: Value) -> Value {
        if let (Some(details), Some(members)) = (&self.details, error.as_object_mut()) {
            members.insert("rate_limit".into(), details.clone());
        }
        error
    }
}

impl Dialect {
    /// The status for a request that can never pass.
    pub fn too_large_status(self) -> u16 {
        self.rules().too_large
    }

    /// A refusal in the words of this API.
    pub fn refusal(self, refusal: &RefusalFacts<'_>) -> RefusalReply {
        (self.rules().refusal)(refusal)
    }
}

/// OpenAI's form, which most clients know.
pub(crate) fn openai_form(refusal: &RefusalFacts<'_>) -> RefusalReply {
    let RefusalFacts { message, kind, code, .. } = refusal;
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    RefusalReply::of(json!({ "error": refusal.with_details(error) }))
}

/// Whole seconds, rounded up, at least 1.
pub(crate) fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}
