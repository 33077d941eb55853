//! Looks up a fact by its full name. The evaluated tree has one variable per fact, so that
//! `auth.identity.userid` takes one step instead of three. Looking up facts is most of the work of a
//! predicate.

use super::values::{self, Attributes, HeaderFields, JsonObject, Mapping};
use super::{EvaluationError, FactPath};
use crate::facts::{self, Attribute, Fact, Facts, Origin, Spelling};
use cel_interpreter::common::types::CelString;
use cel_interpreter::common::value::CowVal;
use serde_json::Value;

pub(super) const UNREADABLE_BODY: &str = "the request's body could not be read completely";
const OTHER_METHOD: &str = "`x-http-method-override` names another method";
const UNKNOWN_LENGTH: &str = "the length of the request's body is unknown";

/// A fact's path, and where to find its value.
#[derive(Debug)]
pub(super) struct Lookup {
    path: FactPath,
    place: FactPlace,
    /// The part of a root that `has` or `?.` asks for.
    part: Option<Box<Lookup>>,
}

#[derive(Debug)]
enum FactPlace {
    Attribute(&'static Attribute),
    /// A root such as `llm` or `llm.estimate`, which has no value itself. Used by `has`.
    Root(&'static str),
    Headers,
    /// A request header by its name in lower case.
    Header(String),
    /// A response header by its name in lower case.
    AnswerHeader(String),
    /// The whole `auth`.
    Auth,
    /// A part of `auth`: the path from this index on.
    OfAuth(usize),
    /// A part of the dynamic metadata: the path from this index on.
    OfMetadata(usize),
    /// A key of Envoy's filter state: the rest of the path.
    FilterState,
    /// A part of `llm.metadata`: the path from this index on.
    OfLlmMetadata(usize),
    /// A value in the request's body. The pointer is the rest of the path.
    Pointed,
    /// A value in the response's body. The pointer is the rest of the path.
    Answered,
    /// A named count of the response: the rest of the path.
    Count,
}

/// Why a path ends early.
enum LookupStop {
    /// This part does not exist.
    Missing(usize),
    /// The value before this part is of this type, which has no parts.
    NoObject(usize, &'static str),
}

impl Lookup {
    /// Returns `None` if it is not a fact. A checked expression contains only facts.
    pub(super) fn new(path: FactPath) -> Option<Self> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let place = match names.as_slice() {
            ["auth"] => FactPlace::Auth,
            ["auth", ..] => FactPlace::OfAuth(1),
            ["request", "auth", ..] => FactPlace::OfAuth(2),
            ["request", "headers"] => FactPlace::Headers,
            ["request", "headers", name] => FactPlace::Header(facts::lower_case(name).into_owned()),
            ["response", "headers", name] => FactPlace::AnswerHeader(facts::lower_case(name).into_owned()),
            ["metadata", "filter_metadata", ..] => FactPlace::OfMetadata(2),
            ["filter_state"] | ["filter_state", _] => FactPlace::FilterState,
            ["llm", "metadata", ..] => FactPlace::OfLlmMetadata(2),
            [facts::POINTED, _] => FactPlace::Pointed,
            [facts::ANSWERED, _] => FactPlace::Answered,
            [facts::TOKENS] | [facts::TOKENS, _] => FactPlace::Count,
            ["llm", "estimate"] => FactPlace::Root("llm.estimate"),
            ["llm", "estimate", name] => FactPlace::Attribute(facts::find("llm.estimate", name)?),
            [root] => FactPlace::Root(facts::root(root)?),
            [root, name] => FactPlace::Attribute(facts::find(root, name)?),
            _ => return None,
        };
        Some(Self { path, place, part: None })
    }

    /// Records that only this part of a root is asked for. If the part is unknown, so is the root: otherwise,
    /// the part would count as absent.
    pub(super) fn asks_for(&mut self, part: &str) {
        if matches!(self.place, FactPlace::Root(_)) {
            let path = self.path.iter().map(String::as_str).chain([part]);
            self.part = Self::new(path.map(str::to_owned).collect()).map(Box::new);
        }
    }

    /// Returns the fact's path.
    pub(super) fn path(&self) -> &FactPath {
        &self.path
    }

    /// Returns the normalisation of the fact's values, if there is one.
    pub(super) fn spelling(&self) -> Option<Spelling> {
        match self.place {
            FactPlace::Attribute(attribute) => attribute.spelling(),
            _ => None,
        }
    }

    /// Whether the fact is a value in the request's body.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.place, FactPlace::Pointed)
    }

    /// If the fact is the path, removes the query before comparisons.
    pub(super) fn leave_query_out(&mut self) {
        if matches!(self.place, FactPlace::Attribute(attribute) if attribute.origin == Origin::Path)
            && let Some(lookup) = Self::new(vec!["request".to_owned(), "url_path".to_owned()])
        {
            *self = lookup;
        }
    }

    /// Returns the value, if the request has it.
    pub(super) fn find<'f>(&self, facts: &'f Facts) -> Option<CowVal<'f, 'f>> {
        let hidden = self.is_whole_of_body() && facts.is_body_in_doubt();
        if hidden || self.unknown_part(facts).is_some() || facts.is_too_large(&self.path) {
            return None;
        }
        Some(match &self.place {
            FactPlace::Attribute(attribute) => CowVal::Owned(values::attribute(facts.attribute(attribute)?)),
            FactPlace::Root(root) => CowVal::owned(Mapping::new(Attributes { facts, root })),
            FactPlace::Headers => CowVal::owned(Mapping::new(HeaderFields(Some(facts.headers())))),
            FactPlace::Header(name) => CowVal::owned(CelString::from(facts.headers().get(name)?)),
            FactPlace::AnswerHeader(name) => {
                CowVal::owned(CelString::from(facts.answer_headers()?.get(name)?))
            }
            FactPlace::Auth => CowVal::Owned(values::auth(facts)),
            FactPlace::OfAuth(from) => CowVal::Owned(values::json(self.auth(*from, facts).ok()?)),
            FactPlace::OfMetadata(from) => match self.path.get(*from) {
                None => CowVal::owned(Mapping::new(JsonObject(facts.filter_metadata()))),
                Some(_) => CowVal::Owned(values::json(self.metadata(*from, facts).ok()?)),
            },
            FactPlace::FilterState => match self.path.get(1) {
                None => CowVal::owned(Mapping::new(JsonObject(Some(facts.filter_state())))),
                Some(name) => CowVal::Owned(values::json(facts.filter_state().get(name)?)),
            },
            // A missing root is an empty map, so that `has` can test its parts.
            FactPlace::OfLlmMetadata(from) => match self.path.get(*from) {
                None => CowVal::owned(Mapping::new(JsonObject(facts.llm_metadata()))),
                Some(_) => CowVal::Owned(values::json(self.llm_metadata(*from, facts).ok()?)),
            },
            FactPlace::Pointed => CowVal::Owned(values::json(facts.pointed(self.path.get(1)?)?)),
            FactPlace::Answered => CowVal::Owned(values::json(facts.answered(self.path.get(1)?)?)),
            FactPlace::Count => match self.path.get(1) {
                None => CowVal::owned(Mapping::new(JsonObject(facts.counts()))),
                Some(name) => CowVal::Owned(values::json(facts.counts()?.get(name)?)),
            },
        })
    }

    /// Returns the value, if the request has it and it is a string.
    pub(super) fn text<'f>(&self, facts: &'f Facts) -> Option<&'f str> {
        let text = |value: Option<&'f Value>| value?.as_str();
        match &self.place {
            FactPlace::Attribute(attribute) => match facts.attribute(attribute)? {
                Fact::Text(text) => Some(text),
                _ => None,
            },
            FactPlace::Header(name) => facts.headers().get(name),
            FactPlace::AnswerHeader(name) => facts.answer_headers()?.get(name),
            FactPlace::OfAuth(from) => text(self.auth(*from, facts).ok()),
            FactPlace::OfMetadata(from) => text(self.metadata(*from, facts).ok()),
            FactPlace::OfLlmMetadata(from) => text(self.llm_metadata(*from, facts).ok()),
            FactPlace::Pointed => text(facts.pointed(self.path.get(1)?)),
            _ => None,
        }
    }

    /// Returns whether the value is a map that contains facts of the body. If the body is in doubt, they are
    /// unknown.
    fn is_whole_of_body(&self) -> bool {
        match &self.place {
            FactPlace::Root(root) => *root == "llm",
            FactPlace::OfLlmMetadata(from) => self.path.len() == *from,
            _ => false,
        }
    }

    fn is_in_doubt(&self, facts: &Facts) -> bool {
        let of_body = facts::is_of_body(&self.path) || self.is_whole_of_body();
        of_body && (facts.is_body_in_doubt() || self.path == ["llm", "model"] && facts.asked_model().is_err())
    }

    /// Returns why the part of a root that is asked for is unknown.
    fn unknown_part(&self, facts: &Facts) -> Option<&'static str> {
        let part = self.part.as_ref()?;
        if part.find(facts).is_some() { None } else { part.failure(facts) }
    }

    /// Returns why a value that may exist is unknown.
    pub(super) fn failure(&self, facts: &Facts) -> Option<&'static str> {
        if let Some(failure) = self.unknown_part(facts) {
            return Some(failure);
        }
        if self.is_in_doubt(facts) {
            return Some(UNREADABLE_BODY);
        }
        if facts.is_too_large(&self.path) {
            return Some("it is part of a value that is too large to be read");
        }
        match &self.place {
            FactPlace::Attribute(attribute) if attribute.origin == Origin::Host && facts.host().is_some() => {
                Some("the request names several hosts")
            }
            FactPlace::Attribute(attribute) => match attribute.origin {
                Origin::Method if facts.is_method_in_doubt() => Some(OTHER_METHOD),
                Origin::Size if facts.is_length_in_doubt() => Some(UNKNOWN_LENGTH),
                Origin::Estimate if facts.is_estimate_in_doubt() => Some(UNKNOWN_LENGTH),
                Origin::Failures => facts.asked_model().err(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns why the path ends early.
    fn stop(&self, facts: &Facts) -> LookupStop {
        let stop = match &self.place {
            FactPlace::OfAuth(from) => self.auth(*from, facts).err(),
            FactPlace::OfMetadata(from) => self.metadata(*from, facts).err(),
            FactPlace::OfLlmMetadata(from) => self.llm_metadata(*from, facts).err(),
            _ => None,
        };
        stop.unwrap_or(LookupStop::Missing(self.path.len()))
    }

    /// Returns whether there is no value because the request has none.
    pub(super) fn is_absent(&self, facts: &Facts) -> bool {
        self.failure(facts).is_none() && matches!(self.stop(facts), LookupStop::Missing(_))
    }

    /// Returns the error if there is no value.
    pub(super) fn missing(&self, facts: &Facts) -> EvaluationError {
        if facts.is_too_large(&self.path) {
            let name = self.named(self.path.len());
            return EvaluationError::Failed(format!(
                "`{name}` is part of a value that is too large to be read"
            ));
        }
        if let Some(failure) = self.failure(facts) {
            return EvaluationError::Failed(failure.to_owned());
        }
        match self.stop(facts) {
            LookupStop::Missing(end) => EvaluationError::Absent(self.named(end)),
            LookupStop::NoObject(end, found) => {
                EvaluationError::Failed(format!("`{}` is {found} and has no parts", self.named(end)))
            }
        }
    }

    fn auth<'f>(&self, from: usize, facts: &'f Facts) -> Result<&'f Value, LookupStop> {
        // Without an identity, `auth` is an empty map, and `request.auth` is absent.
        let root = facts.auth_root().ok_or(LookupStop::Missing(2))?;
        self.descend(root, from)
    }

    fn metadata<'f>(&self, from: usize, facts: &'f Facts) -> Result<&'f Value, LookupStop> {
        let namespace = self.path.get(from).zip(facts.filter_metadata());
        let below = from.saturating_add(1);
        let root = namespace.and_then(|(name, fields)| fields.get(name)).ok_or(LookupStop::Missing(below))?;
        self.descend(root, below)
    }

    fn llm_metadata<'f>(&self, from: usize, facts: &'f Facts) -> Result<&'f Value, LookupStop> {
        let below = from.saturating_add(1);
        let first = self.path.get(from).zip(facts.llm_metadata());
        let root = first.and_then(|(name, fields)| fields.get(name)).ok_or(LookupStop::Missing(below))?;
        self.descend(root, below)
    }

    fn descend<'f>(&self, root: &'f Value, from: usize) -> Result<&'f Value, LookupStop> {
        self.path.iter().enumerate().skip(from).try_fold(root, |value, (index, name)| match value {
            Value::Object(fields) => fields.get(name).ok_or(LookupStop::Missing(index.saturating_add(1))),
            // The parts of null are absent.
            Value::Null => Err(LookupStop::Missing(index)),
            other => Err(LookupStop::NoObject(index, type_name(other))),
        })
    }

    fn named(&self, parts: usize) -> String {
        match &self.place {
            FactPlace::Pointed | FactPlace::Answered => facts::written(&self.path),
            _ => self.path.get(..parts).unwrap_or(&self.path).join("."),
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
