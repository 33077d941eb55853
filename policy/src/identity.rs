//! Who is asking: what the auth filter left for us, as the `auth` root of CEL.

use crate::config::Encoding;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::Message as _;
use prost_types::Struct;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// Why there is no identity although something was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not base64url.
    #[error("the identity header is not base64url")]
    Encoding,
    /// Not JSON.
    #[error("the identity is not JSON")]
    Json,
    /// JSON, but no object.
    #[error("the identity is not a JSON object")]
    NotAnObject,
    /// Not Envoy's Metadata message.
    #[error("the metadata cannot be decoded")]
    Metadata,
}

impl IdentityError {
    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Json => "json",
            Self::NotAnObject => "not_an_object",
            Self::Metadata => "metadata",
        }
    }
}

/// The `auth` root from an identity header's value.
pub fn from_header(value: &[u8], encoding: Encoding) -> Result<Value, IdentityError> {
    let identity: Value = match encoding {
        Encoding::Json => serde_json::from_slice(value),
        Encoding::Base64UrlJson => {
            let json = BASE64URL.decode(value).map_err(|_| IdentityError::Encoding)?;
            serde_json::from_slice(&json)
        }
    }
    .map_err(|_| IdentityError::Json)?;
    if identity.is_object() { Ok(auth(identity)) } else { Err(IdentityError::NotAnObject) }
}

/// The `auth` root from Envoy's `metadata` attribute (a serialised `envoy.config.core.v3.Metadata`). `None`: the
/// auth filter left nothing there.
pub fn from_metadata(
    message: &[u8],
    namespace: &str,
    key: Option<&str>,
) -> Result<Option<Value>, IdentityError> {
    let mut metadata = Metadata::decode(message).map_err(|_| IdentityError::Metadata)?;
    let Some(fields) = metadata.filter_metadata.remove(namespace) else { return Ok(None) };
    let mut fields = Struct::decode(fields.as_slice()).map_err(|_| IdentityError::Metadata)?.fields;
    let Some(key) = key else { return object(fields).map(Some) };
    match fields.remove(key).map(json).transpose()? {
        None | Some(Value::Null) => Ok(None),
        Some(identity) => Ok(Some(auth(identity))),
    }
}

/// Envoy's `metadata` attribute as the JSON of every namespace, for the fact of that name.
pub(crate) fn every_namespace(message: &[u8]) -> Result<Map<String, Value>, IdentityError> {
    let metadata = Metadata::decode(message).map_err(|_| IdentityError::Metadata)?;
    let decode = |(namespace, fields): (String, Vec<u8>)| {
        let fields = Struct::decode(fields.as_slice()).map_err(|_| IdentityError::Metadata)?;
        Ok((namespace, object(fields.fields)?))
    };
    metadata.filter_metadata.into_iter().map(decode).collect()
}

/// Auth filters write it with and without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `envoy.config.core.v3.Metadata`, as far as it is read. On the wire a message is bytes with their length: so the
/// structs of all the other filters need not be decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(btree_map = "string, bytes", tag = "1")]
    filter_metadata: BTreeMap<String, Vec<u8>>,
}

fn auth(identity: Value) -> Value {
    Value::Object(Map::from_iter([("identity".to_owned(), identity)]))
}

/// As deep as the message, which `prost` bounds.
fn json(value: prost_types::Value) -> Result<Value, IdentityError> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => Value::Number(number(value)?),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(json).collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(value)) => object(value.fields)?,
    })
}

fn object(fields: BTreeMap<String, prost_types::Value>) -> Result<Value, IdentityError> {
    let entries = fields.into_iter().map(|(name, value)| Ok((name, json(value)?)));
    entries.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

/// A Struct knows only doubles, yet a policy's author means the integer that the token had. NaN and the infinities
/// are no JSON, so no auth filter wrote them.
fn number(value: f64) -> Result<Number, IdentityError> {
    /// 2^63: every whole double below it is an i64.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-END..END).contains(&value) {
        // Whole and in range, so the cast is exact.
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or(IdentityError::Metadata)
}
