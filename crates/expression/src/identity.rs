//! The identity that the authentication filter provides, as the `auth` root of CEL.

use crate::protobuf_struct;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use llm::tree::{self, Allowance, TreeError};
use prost::Message as _;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The encoding of the JSON in an identity header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityEncoding {
    /// Plain JSON.
    #[default]
    Json,
    /// base64url (padded or not) of JSON.
    Base64UrlJson,
}

/// Why an identity is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not base64url.
    #[error("the identity header is not base64url")]
    Encoding,
    /// Not JSON.
    #[error("the identity is not JSON")]
    Json,
    /// JSON, but not an object.
    #[error("the identity is not a JSON object")]
    NotAnObject,
    /// The bytes are not Envoy's Metadata message.
    #[error("the metadata cannot be decoded")]
    Metadata,
    /// It has more parts than fit into a megabyte. Expressions that use it fail.
    #[error("the identity has too many parts")]
    TooLarge,
}

impl IdentityError {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Json => "json",
            Self::NotAnObject => "not_an_object",
            Self::Metadata => "metadata",
            Self::TooLarge => "too_large",
        }
    }
}

/// Reads the `auth` root from the value of an identity header.
pub fn from_header(value: &[u8], encoding: IdentityEncoding) -> Result<Value, IdentityError> {
    let identity: Value = match encoding {
        IdentityEncoding::Json => tree::parse(value, tree::MAX_SIZE),
        IdentityEncoding::Base64UrlJson => {
            let json = BASE64URL.decode(value).map_err(|_| IdentityError::Encoding)?;
            tree::parse(&json, tree::MAX_SIZE)
        }
    }
    .map_err(|error| unreadable(error, IdentityError::Json))?;
    if identity.is_object() { Ok(auth(identity)) } else { Err(IdentityError::NotAnObject) }
}

/// Reads the `auth` root from Envoy's `metadata` attribute (a serialised `envoy.config.core.v3.Metadata`).
/// Returns `None` if the authentication filter left nothing there.
pub fn from_metadata(
    message: &[u8],
    namespace: &str,
    key: Option<&str>,
) -> Result<Option<Value>, IdentityError> {
    let mut metadata = Metadata::decode(message).map_err(|_| IdentityError::Metadata)?;
    let Some(fields) = metadata.filter_metadata.remove(namespace) else { return Ok(None) };
    let allowance = Allowance::new(tree::MAX_SIZE);
    let fields = protobuf_struct::decode(&fields, &allowance);
    let mut fields = fields.map_err(|error| unreadable(error, IdentityError::Metadata))?;
    let Some(key) = key else { return Ok(Some(Value::Object(fields))) };
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(identity) => Ok(Some(auth(identity))),
    }
}

/// Reads all namespaces of Envoy's `metadata` attribute as JSON, for the fact with the same name.
pub fn every_namespace(message: &[u8]) -> Result<Map<String, Value>, IdentityError> {
    let metadata = Metadata::decode(message).map_err(|_| IdentityError::Metadata)?;
    let (mut namespaces, allowance) = (Map::new(), Allowance::new(tree::MAX_SIZE));
    for (namespace, fields) in metadata.filter_metadata {
        let fields = protobuf_struct::decode(&fields, &allowance);
        let fields = fields.map_err(|error| unreadable(error, IdentityError::Metadata))?;
        namespaces.insert(namespace, Value::Object(fields));
    }
    Ok(namespaces)
}

/// Authentication filters write base64url with and without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The part of `envoy.config.core.v3.Metadata` that is read. On the wire, a message is a length followed by
/// bytes, so the structs of other filters do not have to be decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(btree_map = "string, bytes", tag = "1")]
    filter_metadata: BTreeMap<String, Vec<u8>>,
}

fn unreadable(error: TreeError, invalid: IdentityError) -> IdentityError {
    match error {
        TreeError::Invalid => invalid,
        TreeError::TooLarge => IdentityError::TooLarge,
    }
}

fn auth(identity: Value) -> Value {
    let mut auth = Map::new();
    auth.insert("identity".to_owned(), identity);
    Value::Object(auth)
}
