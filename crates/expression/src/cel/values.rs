//! Facts as CEL values: views that borrow from [`Facts`] and convert values only when an expression needs
//! them.

use super::time::Timestamp;
use crate::facts::{self, Attribute, Fact, Facts, HeaderMap};
use cel_interpreter::ExecutionError;
use cel_interpreter::common::traits::{Container, Indexer, Iterable, Iterator, Sizer};
use cel_interpreter::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, MAP_TYPE, Type,
};
use cel_interpreter::common::value::{CowVal, Val};
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::sync::OnceLock;

/// A value with named fields.
pub(super) trait NamedFields: Clone + Debug + Send + Sync {
    fn field<'v>(&self, name: &str) -> Option<Box<dyn Val + 'v>>
    where
        Self: 'v;

    /// The number of fields.
    fn count(&self) -> usize;

    /// The names, for macros over the keys.
    fn names<'v>(&self) -> Vec<CelString<'v>>
    where
        Self: 'v;
}

/// A CEL map over [`NamedFields`].
#[derive(Debug)]
pub(super) struct Mapping<F: NamedFields> {
    fields: F,
    /// The names to which iterators of [`Iterable`] refer.
    names: OnceLock<Vec<CelString<'static>>>,
}

impl<F: NamedFields> Mapping<F> {
    pub(super) fn new(fields: F) -> Self {
        Self { fields, names: OnceLock::new() }
    }

    fn names(&self) -> &[CelString<'static>] {
        let own = || self.fields.names().into_iter().map(CelString::into_static).collect();
        self.names.get_or_init(own)
    }
}

impl<F: NamedFields> Val for Mapping<F> {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = MAP_TYPE;
        &TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let (Some(sizer), Some(indexer)) = (other.as_sizer(), other.as_indexer()) else { return false };
        sizer.size() == self.size()
            && self.names().iter().all(|name| match (self.fields.field(name.inner()), indexer.get(name)) {
                (Some(here), Ok(there)) => here.equals(there.as_ref()),
                _ => false,
            })
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self::new(self.fields.clone()))
    }
}

impl<F: NamedFields> Indexer for Mapping<F> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(name) = key.downcast_ref::<CelString<'_>>() else {
            return Err(unusable_key(key));
        };
        self.fields
            .field(name.inner())
            .map(CowVal::Owned)
            .ok_or_else(|| ExecutionError::no_such_key(name.inner()))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl<F: NamedFields> Container for Mapping<F> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let name = key.downcast_ref::<CelString<'_>>().ok_or_else(|| unusable_key(key))?;
        Ok(self.fields.field(name.inner()).is_some())
    }
}

impl<F: NamedFields> Iterable for Mapping<F> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(NameIterator(self.names().iter()))
    }
}

impl<F: NamedFields> Sizer for Mapping<F> {
    fn size(&self) -> CelInt {
        CelInt::from(self.fields.count() as i64)
    }
}

struct NameIterator<'b>(std::slice::Iter<'b, CelString<'static>>);

impl<'b, 'v> Iterator<'b, 'v> for NameIterator<'b> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|name| name as &dyn Val)
    }
}

fn unusable_key(key: &dyn Val) -> ExecutionError {
    ExecutionError::UnexpectedType { got: key.get_type().name().to_owned(), want: "string".to_owned() }
}

/// A JSON object, if there is one.
#[derive(Clone, Debug)]
pub(super) struct JsonObject<'a>(pub(super) Option<&'a Map<String, Value>>);

impl NamedFields for JsonObject<'_> {
    fn field<'v>(&self, name: &str) -> Option<Box<dyn Val + 'v>>
    where
        Self: 'v,
    {
        self.0?.get(name).map(json)
    }

    fn count(&self) -> usize {
        self.0.map_or(0, Map::len)
    }

    fn names<'v>(&self) -> Vec<CelString<'v>>
    where
        Self: 'v,
    {
        self.0.into_iter().flatten().map(|(name, _)| CelString::from(name.as_str())).collect()
    }
}

pub(super) fn json<'v>(value: &'v Value) -> Box<dyn Val + 'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Box::new(CelInt::from(value)),
            (None, Some(value)) => Box::new(CelUInt::from(value)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(value) => Box::new(CelString::from(value.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(json).collect::<Vec<_>>())),
        Value::Object(fields) => Box::new(Mapping::new(JsonObject(Some(fields)))),
    }
}

/// Returns the whole `auth` root. It is empty without an identity, so that `has(auth.identity)` is false.
pub(super) fn auth(facts: &Facts) -> Box<dyn Val + '_> {
    match facts.auth_root() {
        Some(value) => json(value),
        None => Box::new(Mapping::new(JsonObject(None))),
    }
}

/// `request.headers`.
#[derive(Clone, Debug)]
pub(super) struct HeaderFields<'a>(pub(super) Option<&'a HeaderMap>);

impl NamedFields for HeaderFields<'_> {
    fn field<'v>(&self, name: &str) -> Option<Box<dyn Val + 'v>>
    where
        Self: 'v,
    {
        let value = self.0?.get(facts::lower_case(name).as_ref())?;
        Some(Box::new(CelString::from(value)))
    }

    fn count(&self) -> usize {
        self.0.map_or(0, HeaderMap::len)
    }

    fn names<'v>(&self) -> Vec<CelString<'v>>
    where
        Self: 'v,
    {
        self.0.iter().flat_map(|headers| headers.iter()).map(|(name, _)| CelString::from(name)).collect()
    }
}

/// A root, or `llm.estimate`, that consists of attributes.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    pub(super) facts: &'a Facts,
    pub(super) root: &'static str,
}

impl<'a> Attributes<'a> {
    fn find(&self, name: &str) -> Option<&'static Attribute> {
        facts::find(self.root, name)
    }

    fn special<'v>(&self, name: &str) -> Option<Box<dyn Val + 'v>>
    where
        'a: 'v,
    {
        match (self.root, name) {
            ("request", "headers") => Some(Box::new(Mapping::new(HeaderFields(Some(self.facts.headers()))))),
            ("response", "headers") => {
                Some(Box::new(Mapping::new(HeaderFields(self.facts.answer_headers()))))
            }
            ("request", "auth") => self.facts.auth_root().map(|_| auth(self.facts)),
            ("llm", "estimate") => {
                Some(Box::new(Mapping::new(Attributes { facts: self.facts, root: "llm.estimate" })))
            }
            ("llm", "metadata") => {
                let fields = self.facts.llm_metadata()?;
                Some(Box::new(Mapping::new(JsonObject(Some(fields)))))
            }
            ("metadata", "filter_metadata") => {
                Some(Box::new(Mapping::new(JsonObject(self.facts.filter_metadata()))))
            }
            _ => None,
        }
    }
}

impl NamedFields for Attributes<'_> {
    fn field<'v>(&self, name: &str) -> Option<Box<dyn Val + 'v>>
    where
        Self: 'v,
    {
        let Some(found) = self.find(name) else { return self.special(name) };
        self.facts.attribute(found).map(attribute)
    }

    // Never used: an expression that uses such a root without an attribute does not compile.
    fn count(&self) -> usize {
        0
    }

    fn names<'v>(&self) -> Vec<CelString<'v>>
    where
        Self: 'v,
    {
        Vec::new()
    }
}

/// Converts an attribute's value.
pub(super) fn attribute<'v>(fact: Fact<'v>) -> Box<dyn Val + 'v> {
    match fact {
        Fact::Text(value) => Box::new(CelString::from(value)),
        Fact::Number(value) => Box::new(CelInt::from(value)),
        Fact::Bool(value) => Box::new(CelBool::from(value)),
        Fact::Time(nanoseconds) => Box::new(Timestamp::from_nanoseconds(nanoseconds)),
    }
}
