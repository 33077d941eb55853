//! Parses JSON into a tree with bounded memory. `{"":0}` takes six bytes as text and a hundred times as many
//! as a tree, so a bound on the text is not enough. The parser charges an allowance and stops when it is
//! exhausted.

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// The largest tree, in bytes. The longest header that Envoy accepts (60 kB) can contain a token with about
/// ten thousand groups. Its tree is smaller than this.
pub const MAX_SIZE: usize = 1 << 20;

/// Why no tree was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The text is not JSON.
    Invalid,
    /// The tree would exceed the allowance.
    TooLarge,
}

/// The allocator's overhead per allocation, with rounding.
const ALLOCATION: usize = 24;
/// The size of a map's node, including a share of its parent nodes. A node holds at most eleven entries, and
/// at least five unless it is the only one.
const NODE: usize = 12 * size_of::<(String, Value)>() + 16 * size_of::<usize>();
const ENTRIES_PER_NODE: usize = 5;
/// The cost of a list's element. A growing list doubles its capacity, and the old allocation still exists
/// while the elements move.
const ELEMENT: usize = 3 * size_of::<Value>();
const FIRST_ELEMENTS: usize = 4 * size_of::<Value>() + ALLOCATION;

/// The remaining allowance.
pub struct Allowance {
    left: Cell<usize>,
    exceeded: Cell<bool>,
}

impl Allowance {
    /// Creates an allowance of this many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left: Cell::new(bytes), exceeded: Cell::default() }
    }

    /// Charges this many bytes. Must be called before they are allocated.
    pub fn take(&self, bytes: usize) -> Result<(), TreeError> {
        let left = self.left.get().checked_sub(bytes);
        if left.is_none() {
            self.exceeded.set(true);
        }
        self.left.set(left.ok_or(TreeError::TooLarge)?);
        Ok(())
    }

    /// Charges a text of this length.
    pub fn text(&self, length: usize) -> Result<(), TreeError> {
        self.take(text(length))
    }

    /// Charges one more element of a list with `before` elements.
    pub fn element(&self, before: usize) -> Result<(), TreeError> {
        self.take(element(before))
    }

    /// Charges one more entry of a map with `before` entries, without the text of its key.
    pub fn entry(&self, before: usize) -> Result<(), TreeError> {
        self.take(entry(before))
    }
}

fn text(length: usize) -> usize {
    if length == 0 { 0 } else { length.saturating_add(ALLOCATION) }
}

fn element(before: usize) -> usize {
    ELEMENT.saturating_add(if before == 0 { FIRST_ELEMENTS } else { 0 })
}

fn entry(before: usize) -> usize {
    if before.is_multiple_of(ENTRIES_PER_NODE) { NODE.saturating_add(ALLOCATION) } else { 0 }
}

/// Parses a whole text into a tree of at most `most` bytes.
pub fn parse(text: &[u8], most: usize) -> Result<Value, TreeError> {
    let allowance = Allowance::new(most);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Tree(&allowance).deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) if allowance.exceeded.get() => Err(TreeError::TooLarge),
        Err(_) => Err(TreeError::Invalid),
    }
}

/// Returns the maximum size of a value in bytes, without the `Value` itself.
pub fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(string) => text(string.len()),
        Value::Array(items) => {
            let sizes = items.iter().enumerate().map(|(at, item)| element(at).saturating_add(size(item)));
            sizes.fold(0, usize::saturating_add)
        }
        Value::Object(fields) => map_size(fields),
    }
}

/// Returns the size of an object's fields.
pub fn map_size(fields: &Map<String, Value>) -> usize {
    let sizes = fields
        .iter()
        .enumerate()
        .map(|(at, (name, value))| entry(at).saturating_add(text(name.len())).saturating_add(size(value)));
    sizes.fold(0, usize::saturating_add)
}

#[derive(Clone, Copy)]
struct Tree<'a>(&'a Allowance);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn refused<E: serde::de::Error>(_: TreeError) -> E {
    E::custom("too large")
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.text(value.len()).map_err(refused)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            self.0.element(items.len()).map_err(refused)?;
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key_seed(Name(self.0))? {
            self.0.entry(fields.len()).map_err(refused)?;
            fields.insert(name, map.next_value_seed(self)?);
        }
        Ok(Value::Object(fields))
    }
}

struct Name<'a>(&'a Allowance);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        self.0.text(value.len()).map_err(refused)?;
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| Number::from_f64(number).map_or(Value::Null, Value::Number)),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_tree_is_what_serde_json_makes_of_the_text(value in json()) {
            let text = value.to_string();
            let expected: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parse(text.as_bytes(), usize::MAX), Ok(expected.clone()));
            prop_assert_eq!(parse(text.as_bytes(), size(&expected)), Ok(expected.clone()), "its size suffices");
            if size(&expected) > 0 {
                prop_assert_eq!(parse(text.as_bytes(), size(&expected) - 1), Err(TreeError::TooLarge));
            }
        }
    }

    #[test]
    fn what_is_no_json_is_told_apart_from_what_is_too_much() {
        for text in ["", "{", "[1,", "{\"a\":1}x", "nul", "{1:2}", "[\"\u{1}\"]"] {
            assert_eq!(parse(text.as_bytes(), MAX_SIZE), Err(TreeError::Invalid), "{text}");
        }
        assert_eq!(parse("[".repeat(1000).as_bytes(), MAX_SIZE), Err(TreeError::Invalid), "too deep");
        let nodes = format!("[{}0]", "{\"\":0},".repeat(9000));
        assert_eq!(parse(nodes.as_bytes(), MAX_SIZE), Err(TreeError::TooLarge));
        let groups = format!("[{}0]", "\"group\",".repeat(7500));
        assert!(parse(groups.as_bytes(), MAX_SIZE).is_ok(), "{} bytes", groups.len());
    }
}
