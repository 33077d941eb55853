//! Finds single values of a response by JSON pointers (RFC 6901), for usage in custom formats and for
//! `responseBodyJSON`. The values are numbers, booleans and short strings. The last value at each pointer
//! counts. In a stream, this is the value in the last event that has one. Zero never replaces another value.
//! A document that is an array counts as a series of documents, as in streams, so no pointer begins with its
//! index.

use super::place::Node;
use super::tally::{Field, Tally, count};
use super::{Usage, names};
use serde_json::Value;

/// The maximum length of a name in a pointer, in bytes. The scanner does not keep longer names.
const MAX_NAME: usize = 48;

/// The targets of several pointers, as one tree.
#[derive(Debug, Default)]
pub struct Pointers {
    pointers: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    /// The previous step, by its number starting at 1.
    parent: u16,
    name: String,
    node: Node,
}

/// The values that were found, in the order of the pointers.
pub type Found = Vec<(String, Value)>;

impl Pointers {
    /// Creates the tree of pointers, which must all be [`valid`] and distinct.
    pub fn new(pointers: Vec<String>) -> Self {
        let mut tree = Self { pointers, steps: Vec::new() };
        for index in 0..tree.pointers.len() {
            let parts: Vec<String> =
                tree.pointers.get(index).map(|pointer| parts(pointer).collect()).unwrap_or_default();
            tree.add(parts, index);
        }
        tree
    }

    /// Returns whether there are no pointers.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }

    fn add(&mut self, parts: Vec<String>, index: usize) {
        let (mut parent, count) = (0, parts.len());
        for (at, name) in parts.into_iter().enumerate() {
            let is_last = at.saturating_add(1) == count;
            let known = self.steps.iter().position(|step| step.parent == parent && step.name == name);
            let place = known.unwrap_or(self.steps.len());
            // A plan cannot have this many steps.
            let (Ok(number), Ok(index)) = (u16::try_from(place.saturating_add(1)), u16::try_from(index))
            else {
                return;
            };
            match self.steps.get_mut(place) {
                // An object or array is not a single value.
                Some(step) if !is_last => step.node = Node::Way(number),
                Some(_) => {}
                None => {
                    let node = if is_last { Node::Pointed(index) } else { Node::Way(number) };
                    self.steps.push(Step { parent, name, node });
                }
            }
            parent = number;
        }
    }

    /// Returns the place of `key` in an object.
    pub(super) fn child(&self, parent: Node, key: &[u8]) -> Node {
        let parent = match parent {
            Node::Root => 0,
            Node::Way(number) => number,
            _ => return Node::Other,
        };
        let step = self.steps.iter().find(|step| step.parent == parent && step.name.as_bytes() == key);
        step.map_or(Node::Other, |step| step.node)
    }

    /// Returns the place of an array's element.
    pub(super) fn element(&self, array: Node, index: u32) -> Node {
        match array {
            Node::Way(_) => self.child(array, index.to_string().as_bytes()),
            _ => array,
        }
    }

    /// Returns what was found.
    pub(super) fn found(&self, values: &[Option<Value>]) -> Found {
        let found = self.pointers.iter().zip(values);
        found.filter_map(|(pointer, value)| Some((pointer.clone(), value.clone()?))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.pointers.len()
    }
}

/// Returns why a pointer cannot name a single value of a response.
pub fn mistake(pointer: &str) -> Option<&'static str> {
    let named = |part: &str| !part.is_empty() && part.len() <= MAX_NAME;
    let escaped = |part: &str| part.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    let mut raw = pointer.split('/').skip(1);
    match () {
        () if !pointer.starts_with('/') => {
            Some("a JSON pointer to a value must begin with `/`, such as `/usage/total`")
        }
        () if !raw.all(escaped) => Some("in a JSON pointer, write `~0` for `~`, and `~1` for `/` in a name"),
        () if !parts(pointer).all(|part| named(&part)) => {
            Some("each name in the pointer must have 1 to 48 bytes")
        }
        () => None,
    }
}

fn parts(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"))
}

/// Returns the number in a value, or in decimal text, if it is 0 or more.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|number| number.is_finite() && *number >= 0.0)
}

/// Returns the first value at these pointers that is not zero. If there is none, returns zero if any of the
/// values is zero.
fn first<'f, T: PartialEq + Default>(
    pointers: impl Iterator<Item = &'f String>,
    found: &Found,
    read: impl Fn(&Value) -> Option<T>,
) -> Option<T> {
    let mut zero = None;
    for pointer in pointers {
        let value = found.iter().find(|(known, _)| known == pointer).and_then(|(_, value)| read(value));
        match value {
            Some(value) if value != T::default() => return Some(value),
            value => zero = zero.or(value),
        }
    }
    zero
}

/// The pointers to usage in a custom format. For each count, the first pointer to a value other than zero
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsagePointers(Vec<(Field, String)>);

/// The counts that may have pointers.
pub const COUNTS: [&str; 5] = ["input", "output", "total", "cached", "reasoning"];

/// The fields of [`COUNTS`], in the same order.
const FIELDS: [Field; 5] = [Field::Input, Field::Output, Field::Total, Field::Cached, Field::Reasoning];

impl UsagePointers {
    /// Adds a pointer for one of [`COUNTS`].
    pub fn add(&mut self, name: &str, pointer: &str) {
        let field = COUNTS.iter().zip(FIELDS).find(|(known, _)| **known == name);
        self.0.extend(field.map(|(_, field)| (field, pointer.to_owned())));
    }

    /// Returns all pointers.
    pub fn pointers(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(_, pointer)| pointer)
    }

    /// Returns the usage at these places, or `None` if no pointer has a value. `known` is the usage that was
    /// found without pointers. The provider reported it if `is_reported` is set. Otherwise it is an estimate.
    /// If `known` was reported and the pointers lead only to a total, all other counts come from `known`.
    /// Zeros are ignored if `known` shows that tokens were used.
    pub fn usage(&self, found: &Found, known: Usage, is_reported: bool) -> Option<Usage> {
        let (mut tally, mut is_zero) = (Tally::default(), false);
        for field in FIELDS {
            let pointers = self.0.iter().filter(|(own, _)| *own == field).map(|(_, pointer)| pointer);
            match first(pointers, found, |value| count(text(value).as_bytes())) {
                Some(0) => is_zero = true,
                Some(value) => tally.set(field, value),
                None => {}
            }
        }
        if tally.is_empty() {
            let is_used = known.output > 0 || is_reported && known.total > 0;
            return (is_zero && !is_used).then(Usage::default);
        }
        let usage = tally.usage();
        match is_reported && !tally.tells_parts() {
            true => Some(Usage { total: usage.total, ..known }),
            false => Some(usage),
        }
    }
}

/// Returns the text of a count.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned())
}

/// A custom count with its own name. Its value is at the first of these pointers that leads to a value other
/// than zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointedCount {
    pub name: String,
    pub pointers: Vec<String>,
}

impl PointedCount {
    /// Returns the count in a response. `known` is the usage that was found without pointers, reported or
    /// estimated. If the value is zero or missing, it comes from the same count in `known`, which is
    /// identified by the names in the pointers or by the name of the count. If the response `is_cut`, the
    /// value may be incomplete, so the larger of the two counts.
    pub fn value(&self, found: &Found, known: &Usage, is_cut: bool) -> Option<f64> {
        let value = first(self.pointers.iter(), found, number);
        match (value, self.field().and_then(|field| known.count(field))) {
            (Some(value), Some(known)) if is_cut || value == 0.0 => Some(value.max(known as f64)),
            (None, Some(known)) => Some(known as f64),
            (value, _) => value,
        }
    }

    fn field(&self) -> Option<Field> {
        let last = self.pointers.iter().filter_map(|pointer| pointer.rsplit('/').next());
        last.chain([self.name.as_str()]).find_map(|name| names::field(name.as_bytes(), true))
    }
}
