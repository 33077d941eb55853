//! The facts of a request's body: `llm.*` and `requestBodyJSON`.

use super::{Fact, number};
use crate::cel::FactPath;
use llm::request::{self, Pointed, RequestBody};
use serde_json::{Map, Value};

/// The name of Kuadrant's function, used as the root of a fact's path. The rest of the path is the pointer.
pub const POINTED: &str = "requestBodyJSON";

/// Like [`POINTED`], for the response's body.
pub const ANSWERED: &str = "responseBodyJSON";

/// The place of `llm.metadata` in a body.
const METADATA: &str = "/metadata";

/// The facts of a body.
#[derive(Clone, Debug)]
pub(super) struct BodyFacts {
    body: RequestBody,
    /// The values at pointers for [`POINTED`]. `None` if a value is too large.
    pub(super) pointed: Vec<(String, Option<Value>)>,
    /// The length on the wire, if the body was read to its end.
    pub(super) length: Option<u64>,
}

impl BodyFacts {
    /// Takes the needed values from a decoded body.
    pub(super) fn new(body: RequestBody, text: &[u8], pointers: &[String]) -> Self {
        let found = |pointer: &String| match request::pointed(text, pointer) {
            Pointed::Absent => None,
            Pointed::Value(value) => Some((pointer.clone(), Some(value))),
            Pointed::TooLarge => Some((pointer.clone(), None)),
        };
        Self { body, pointed: pointers.iter().filter_map(found).collect(), length: None }
    }

    /// Returns whether the body may contain unknown facts.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.body.condition.hides_facts()
    }

    /// If the body is in doubt, only the facts from the request's path are known: the unread part of the body
    /// could override the part that was read.
    pub(super) fn attribute(&self, name: &str) -> Option<Fact<'_>> {
        let route = &self.body.route;
        let by_path = match name {
            "model" => route.model.is_some(),
            "stream" => route.stream.is_some(),
            "operation" => route.operation.is_some(),
            _ => false,
        };
        if self.is_in_doubt() && !by_path {
            return None;
        }
        match name {
            "model" => self.model().ok().flatten().map(Fact::Text),
            "stream" => Some(Fact::Bool(self.body.stream)),
            "maxOutput" => self.body.max_output.map(|most| Fact::Number(number(most))),
            "user" => self.body.user.as_deref().map(Fact::Text),
            "session" => self.body.session.as_deref().map(Fact::Text),
            "operation" => Some(Fact::Text(self.body.operation.name())),
            _ => None,
        }
    }

    /// Returns the model, if there is one. Fails if the model is in doubt.
    pub(super) fn model(&self) -> Result<Option<&str>, &'static str> {
        match (&self.body.route.model, &self.body.model) {
            (Some(model), _) => Ok(Some(model)),
            _ if self.is_in_doubt() => Err("the body that names the model could not be read completely"),
            _ if self.body.model_is_unreadable => {
                Err("the model is not a string, there are several, or the provider has stored it")
            }
            (None, model) => Ok(model.as_deref()),
        }
    }

    pub(super) fn metadata(&self) -> Option<&Map<String, Value>> {
        self.pointed(METADATA).and_then(Value::as_object)
    }

    pub(super) fn pointed(&self, pointer: &str) -> Option<&Value> {
        let mut certain = self.pointed.iter().filter(|_| !self.is_in_doubt());
        certain.find(|(known, _)| known == pointer).and_then(|(_, value)| value.as_ref())
    }

    /// Returns whether the value exists but is too large to be read.
    pub(super) fn is_too_large(&self, pointer: &str) -> bool {
        self.pointed.iter().any(|(known, value)| known == pointer && value.is_none())
    }

    /// Records that the forwarded body asks for this much output per completion.
    pub(super) fn capped(&mut self, each: u64) {
        self.body.max_output = Some(each);
    }

    pub(super) fn body(&self) -> &RequestBody {
        &self.body
    }
}

/// Returns whether only the body can provide this fact.
pub fn is_of_body(path: &FactPath) -> bool {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["llm", "estimate" | "finished", ..] => false,
        ["llm", ..] | [POINTED, _] => true,
        _ => false,
    }
}

/// Returns whether the request's body provides this fact, or determines its value.
pub fn depends_on_body(path: &FactPath) -> bool {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // Failures are counted by model.
        ["llm", "estimate", ..] | ["upstream", ..] => true,
        _ => is_of_body(path),
    }
}

/// Returns the pointer into this body ([`POINTED`] or [`ANSWERED`]), if the fact is read by pointer.
pub fn pointer<'p>(body: &str, path: &'p FactPath) -> Option<&'p str> {
    match path.as_slice() {
        [root, pointer] if root == body => Some(pointer),
        [root, name, ..] if body == POINTED && root == "llm" && name == "metadata" => Some(METADATA),
        _ => None,
    }
}

/// Formats the fact as the policy's author wrote it.
pub fn written(path: &FactPath) -> String {
    match path.as_slice() {
        [root, pointer] if root == POINTED || root == ANSWERED => format!("{root}('{pointer}')"),
        path => path.join("."),
    }
}
