//! Parses JSON and rejects duplicate keys. In `serde_json`, the second one would silently replace the first,
//! and a limit with it.

use crate::document::shortened;
use crate::validation_error::ValidationError;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};
use std::fmt;

/// Parses JSON. Errors include the line and the column.
pub fn parse(text: &[u8]) -> Result<Value, ValidationError> {
    let told = |message| ValidationError { path: String::new(), message };
    if text.trim_ascii().is_empty() {
        return Err(told("is empty".to_owned()));
    }
    let parsed: Result<Strict, _> = serde_json::from_slice(text);
    parsed.map(|Strict(value)| value).map_err(|error| match error.classify() {
        Category::Data => told(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => told(format!("is not JSON: {error}")),
    })
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, _>()? {
            if map.contains_key(&name) {
                return Err(Error::custom(format!("the key `{}` is given twice", shortened(&name))));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
