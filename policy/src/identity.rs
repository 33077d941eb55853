//! Who is asking: what the auth filter left for us, as the `auth` root of CEL.

use crate::config::Encoding;
use serde_json::Value;

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

/// The `auth` root from an identity header's value.
pub fn from_header(_value: &[u8], _encoding: Encoding) -> Result<Value, IdentityError> {
    Err(IdentityError::Json)
}

/// The `auth` root from Envoy's `metadata` attribute (a serialised `envoy.config.core.v3.Metadata`). `None`: the
/// auth filter left nothing there.
pub fn from_metadata(
    _message: &[u8],
    _namespace: &str,
    _key: Option<&str>,
) -> Result<Option<Value>, IdentityError> {
    Ok(None)
}
