//! Converts `google.protobuf.Struct` to JSON. Envoy uses it for metadata, and for plugin configurations
//! written as YAML. It is decoded by hand, because an empty value in a list takes two bytes on the wire and a
//! hundred bytes in memory. The memory of each value is deducted from an allowance before the value is built.

use llm::tree::{Allowance, TreeError};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Number, Value};

/// The maximum nesting, as in `prost`.
const DEEPEST: usize = 100;

/// Decodes the fields. Fails if the bytes are not a valid message, contain a value that JSON cannot
/// represent, or exceed the allowance.
pub fn decode(message: &[u8], allowance: &Allowance) -> Result<Map<String, Value>, TreeError> {
    object(message, allowance, DEEPEST)
}

fn object(message: &[u8], allowance: &Allowance, depth: usize) -> Result<Map<String, Value>, TreeError> {
    let mut read = Map::new();
    each(message, |number, field| {
        if let (1, ProtoField::Bytes(entry)) = (number, field) {
            let (name, value) = pair(entry)?;
            allowance.entry(read.len())?;
            allowance.text(name.len())?;
            read.insert(name.to_owned(), json(value, allowance, depth)?);
        }
        Ok(())
    })?;
    Ok(read)
}

/// Splits a map entry into its key and the message of its value.
fn pair(entry: &[u8]) -> Result<(&str, &[u8]), TreeError> {
    let (mut name, mut value) = ("", &[][..]);
    each(entry, |number, field| {
        match (number, field) {
            (1, ProtoField::Bytes(bytes)) => name = text(bytes)?,
            (2, ProtoField::Bytes(bytes)) => value = bytes,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, value))
}

fn json(message: &[u8], allowance: &Allowance, depth: usize) -> Result<Value, TreeError> {
    let depth = depth.checked_sub(1).ok_or(TreeError::Invalid)?;
    let mut value = Value::Null;
    each(message, |number, field| {
        value = match (number, field) {
            (1, ProtoField::Number(_)) => Value::Null,
            (2, ProtoField::Double(double)) => Value::Number(whole(double).ok_or(TreeError::Invalid)?),
            (3, ProtoField::Bytes(bytes)) => {
                allowance.text(bytes.len())?;
                Value::String(text(bytes)?.to_owned())
            }
            (4, ProtoField::Number(number)) => Value::Bool(number != 0),
            (5, ProtoField::Bytes(fields)) => Value::Object(object(fields, allowance, depth)?),
            (6, ProtoField::Bytes(list)) => Value::Array(items(list, allowance, depth)?),
            _ => return Ok(()),
        };
        Ok(())
    })?;
    Ok(value)
}

fn items(message: &[u8], allowance: &Allowance, depth: usize) -> Result<Vec<Value>, TreeError> {
    let mut items = Vec::new();
    each(message, |number, field| {
        if let (1, ProtoField::Bytes(item)) = (number, field) {
            allowance.element(items.len())?;
            items.push(json(item, allowance, depth)?);
        }
        Ok(())
    })?;
    Ok(items)
}

/// The fields of these messages.
#[derive(Clone, Copy)]
enum ProtoField<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// Iterates over the fields of a message, each with its number.
fn each<'a>(
    mut message: &'a [u8],
    mut take: impl FnMut(u32, ProtoField<'a>) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let invalid = |_| TreeError::Invalid;
    while !message.is_empty() {
        let (number, wire_type) = decode_key(&mut message).map_err(invalid)?;
        let field = match wire_type {
            WireType::Varint => ProtoField::Number(decode_varint(&mut message).map_err(invalid)?),
            WireType::SixtyFourBit => {
                let (bytes, rest) = message.split_first_chunk::<8>().ok_or(TreeError::Invalid)?;
                message = rest;
                ProtoField::Double(f64::from_le_bytes(*bytes))
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut message).map_err(invalid)?;
                let length = usize::try_from(length).map_err(|_| TreeError::Invalid)?;
                let (bytes, rest) = message.split_at_checked(length).ok_or(TreeError::Invalid)?;
                message = rest;
                ProtoField::Bytes(bytes)
            }
            other => {
                skip_field(other, number, &mut message, DecodeContext::default()).map_err(invalid)?;
                continue;
            }
        };
        take(number, field)?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, TreeError> {
    std::str::from_utf8(bytes).map_err(|_| TreeError::Invalid)
}

/// Converts a number. A Struct contains only doubles, so whole numbers are converted back to integers. `None`
/// for NaN and infinities, which JSON cannot represent.
fn whole(value: f64) -> Option<Number> {
    /// 2^63. Every whole double from -2^63 up to, but not including, 2^63 fits into an i64.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-END..END).contains(&value) {
        // Integral and in range, so the cast is exact.
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llm::tree;
    use prost::Message as _;
    use prost_types::value::Kind;
    use prost_types::{ListValue, Struct, Value as Proto};
    use serde_json::json;

    fn proto(value: &Value) -> Proto {
        Proto {
            kind: Some(match value {
                Value::Null => Kind::NullValue(0),
                Value::Bool(value) => Kind::BoolValue(*value),
                Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
                Value::String(text) => Kind::StringValue(text.clone()),
                Value::Array(items) => {
                    Kind::ListValue(ListValue { values: items.iter().map(proto).collect() })
                }
                Value::Object(fields) => Kind::StructValue(structure(fields)),
            }),
        }
    }

    fn structure(fields: &Map<String, Value>) -> Struct {
        Struct { fields: fields.iter().map(|(name, value)| (name.clone(), proto(value))).collect() }
    }

    #[test]
    fn a_struct_is_the_json_that_it_was_made_of() {
        let value = json!({
            "null": null, "bool": true, "whole": 7, "negative": -3, "half": 0.5, "text": "é", "empty": "",
            "list": [1, [], {}, "x"], "map": {"a": {"b": {"": false}}},
        });
        let message = structure(value.as_object().unwrap()).encode_to_vec();
        let most = Allowance::new(tree::MAX_SIZE);
        assert_eq!(decode(&message, &most).map(Value::Object), Ok(value.clone()));
        let exact = Allowance::new(tree::size(&value));
        assert_eq!(decode(&message, &exact).map(Value::Object), Ok(value.clone()));
        let less = Allowance::new(tree::size(&value) - 1);
        assert_eq!(decode(&message, &less), Err(TreeError::TooLarge));
        assert_eq!(decode(&message[..message.len() - 1], &most), Err(TreeError::Invalid));
    }

    #[test]
    fn what_cannot_be_json_or_is_too_deep_is_refused() {
        let message = |kind| {
            let fields = [("x".to_owned(), Proto { kind: Some(kind) })].into_iter().collect();
            Struct { fields }.encode_to_vec()
        };
        let most = || Allowance::new(tree::MAX_SIZE);
        assert_eq!(decode(&message(Kind::NumberValue(f64::NAN)), &most()), Err(TreeError::Invalid));
        let nothing = vec![Proto { kind: None }; 60_000];
        let many = message(Kind::ListValue(ListValue { values: nothing }));
        assert_eq!(decode(&many, &most()), Err(TreeError::TooLarge));
        let mut deep = Kind::NullValue(0);
        for _ in 0..60 {
            deep = Kind::ListValue(ListValue { values: vec![Proto { kind: Some(deep) }] });
        }
        assert!(decode(&message(deep.clone()), &most()).is_ok());
        for _ in 0..60 {
            deep = Kind::ListValue(ListValue { values: vec![Proto { kind: Some(deep) }] });
        }
        assert_eq!(decode(&message(deep), &most()), Err(TreeError::Invalid));
    }
}
