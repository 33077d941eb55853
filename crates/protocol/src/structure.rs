//! `google.protobuf.Struct` as JSON: how Envoy hands over metadata, and a plugin configuration written as YAML.

use prost::Message as _;
use prost_types::Struct;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// The fields. `None`: the bytes are no such message, or hold what is no JSON.
pub fn decode(message: &[u8]) -> Option<Map<String, Value>> {
    object(Struct::decode(message).ok()?.fields)
}

/// As deep as the message, which `prost` bounds.
fn json(value: prost_types::Value) -> Option<Value> {
    Some(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => Value::Number(number(value)?),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(json).collect::<Option<_>>()?)
        }
        Some(Kind::StructValue(value)) => Value::Object(object(value.fields)?),
    })
}

fn object(fields: BTreeMap<String, prost_types::Value>) -> Option<Map<String, Value>> {
    let mut read = Map::new();
    for (name, value) in fields {
        read.insert(name, json(value)?);
    }
    Some(read)
}

/// A Struct knows only doubles, yet its author means the integer that was written. NaN and the infinities are no
/// JSON, so nobody wrote them.
fn number(value: f64) -> Option<Number> {
    /// 2^63: every whole double below it is an i64.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-END..END).contains(&value) {
        // Whole and in range, so the cast is exact.
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}
