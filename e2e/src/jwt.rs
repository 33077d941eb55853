//! Tokens for the users in the tests. Every test configuration trusts the key that signs them.
//!
//! The key is public, because it protects only example data.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};

/// The key that `e2e/envoy.yaml` and the examples trust.
pub const KEY: &[u8] = b"the key of Weir's examples: public, protects nothing";

/// The issuer of the tokens.
pub const ISSUER: &str = "https://weir.example";

/// Formats the key as the JSON Web Key Set of an Envoy configuration.
pub fn keys() -> Value {
    json!({ "keys": [{ "kty": "oct", "alg": "HS256", "kid": "weir-example", "k": BASE64.encode(KEY) }] })
}

/// Creates a token with these claims and the issuer. It never expires.
pub fn token(claims: &Value) -> String {
    sign(claims, KEY)
}

/// Creates a token with these claims, signed with a key that no configuration trusts.
pub fn forged(claims: &Value) -> String {
    sign(claims, b"another key")
}

fn sign(claims: &Value, key: &[u8]) -> String {
    let mut claims = claims.clone();
    claims["iss"] = ISSUER.into();
    let header = json!({ "alg": "HS256", "typ": "JWT", "kid": "weir-example" });
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    format!("{signed}.{}", signature_of(&signed, key))
}

fn signature_of(signed: &str, key: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    BASE64.encode(mac.finalize().into_bytes())
}

/// Returns the claims of a token if it is signed with [`KEY`].
pub fn claims(token: &str) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (_, claims) = signed.split_once('.')?;
    let genuine = signature == signature_of(signed, KEY);
    genuine.then(|| serde_json::from_slice(&BASE64.decode(claims).ok()?).ok())?
}

/// Returns the claims of one of Kuadrant's users: an id, and the groups in an annotation.
pub fn kuadrant_user(id: &str, groups: &str) -> Value {
    json!({ "sub": id, "userid": id, "metadata": { "annotations": { "kuadrant.io/groups": groups } } })
}
