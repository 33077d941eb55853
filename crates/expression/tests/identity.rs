//! Identities as authentication filters provide them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use expression::identity::IdentityEncoding;
use expression::identity::{IdentityError, from_header, from_metadata};
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const JWT: &str = "envoy.filters.http.jwt_authn";
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";

/// Converts a JSON value as Envoy does: all numbers are doubles.
fn protobuf(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(protobuf).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

fn structure(value: &Value) -> Struct {
    match protobuf(value).kind {
        Some(Kind::StructValue(structure)) => structure,
        _ => Struct::default(),
    }
}

/// Encodes `envoy.config.core.v3.Metadata` as Envoy does, with structs. The second field is ignored by the
/// reader.
#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
    #[prost(btree_map = "string, message", tag = "2")]
    typed_filter_metadata: BTreeMap<String, prost_types::Any>,
}

fn metadata(namespaces: &[(&str, Value)]) -> Vec<u8> {
    let any = prost_types::Any { type_url: "type.googleapis.com/x".into(), value: vec![0xff; 9] };
    Metadata {
        filter_metadata: namespaces
            .iter()
            .map(|(name, value)| ((*name).to_owned(), structure(value)))
            .collect(),
        typed_filter_metadata: BTreeMap::from([("typed".to_owned(), any)]),
    }
    .encode_to_vec()
}

#[test]
fn a_header_is_json_or_base64url_of_it_padded_or_not() {
    // These bytes need padding and a character that base64url replaces.
    let json = r#"{"userid":"alice?>~","plan":{"name":"free","seats":12}}"#;
    let expected = json!({"identity": {"userid": "alice?>~", "plan": {"name": "free", "seats": 12}}});
    let (padded, bare) = (URL_SAFE.encode(json), URL_SAFE_NO_PAD.encode(json));
    assert!(padded.ends_with('=') && padded.contains(['-', '_']), "{padded}");
    for (value, encoding) in [
        (json, IdentityEncoding::Json),
        (padded.as_str(), IdentityEncoding::Base64UrlJson),
        (bare.as_str(), IdentityEncoding::Base64UrlJson),
    ] {
        assert_eq!(from_header(value.as_bytes(), encoding), Ok(expected.clone()), "{value}");
    }
}

#[test]
fn a_header_that_cannot_be_read_is_no_identity() {
    let standard = STANDARD.encode(r#"{"userid":"alice?>~"}"#);
    assert!(standard.contains(['+', '/']), "{standard}");
    let text = URL_SAFE.encode("alice");
    let deep = "[".repeat(100_000);
    let cases: &[(&[u8], IdentityEncoding, IdentityError)] = &[
        (b"", IdentityEncoding::Json, IdentityError::Json),
        (b"", IdentityEncoding::Base64UrlJson, IdentityError::Json),
        (b"alice", IdentityEncoding::Json, IdentityError::Json),
        (b"\"alice\"", IdentityEncoding::Json, IdentityError::NotAnObject),
        (b"[{}]", IdentityEncoding::Json, IdentityError::NotAnObject),
        (b"null", IdentityEncoding::Json, IdentityError::NotAnObject),
        (b"{} {}", IdentityEncoding::Json, IdentityError::Json),
        // A proxy joins two headers with the same name. Neither can be trusted.
        (b"{\"userid\":\"a\"},{\"userid\":\"b\"}", IdentityEncoding::Json, IdentityError::Json),
        (b"{\"userid\":\"\xff\"}", IdentityEncoding::Json, IdentityError::Json),
        (b"{\"userid\":\"alice\"}", IdentityEncoding::Base64UrlJson, IdentityError::Encoding),
        (standard.as_bytes(), IdentityEncoding::Base64UrlJson, IdentityError::Encoding),
        (text.as_bytes(), IdentityEncoding::Base64UrlJson, IdentityError::Json),
        (b"\xff\xff", IdentityEncoding::Base64UrlJson, IdentityError::Encoding),
        (deep.as_bytes(), IdentityEncoding::Json, IdentityError::Json),
    ];
    for (value, encoding, error) in cases {
        assert_eq!(from_header(value, *encoding), Err(*error), "{}", String::from_utf8_lossy(value));
    }
}

#[test]
fn metadata_is_the_auth_root_or_a_key_of_it_is_the_identity() {
    let message = metadata(&[
        (EXT_AUTHZ, json!({"identity": {"userid": "alice"}, "metadata": {"tier": "gold"}})),
        (JWT, json!({"payload": {"sub": "bob"}, "nothing": null})),
    ]);
    let cases = [
        (EXT_AUTHZ, None, Some(json!({"identity": {"userid": "alice"}, "metadata": {"tier": "gold"}}))),
        (JWT, Some("payload"), Some(json!({"identity": {"sub": "bob"}}))),
        (JWT, None, Some(json!({"payload": {"sub": "bob"}, "nothing": null}))),
        (JWT, Some("header"), None),
        (JWT, Some("nothing"), None),
        ("envoy.filters.http.rbac", None, None),
        ("envoy.filters.http.rbac", Some("payload"), None),
    ];
    for (namespace, key, expected) in cases {
        assert_eq!(from_metadata(&message, namespace, key), Ok(expected), "{namespace} {key:?}");
    }
    assert_eq!(from_metadata(b"", JWT, None), Ok(None));
}

#[test]
fn every_kind_of_value_survives_and_whole_numbers_are_integers_again() {
    let value = json!({
        "text": "é", "yes": true, "no": false, "null": null, "list": [1, [2.5], {"a": "b"}], "empty": {},
        "zero": 0, "expires": 1_900_000_000, "negative": -7, "half": 0.5, "tiny": 1e-9, "large": 1e300,
        "edge": i64::MIN,
    });
    let message = metadata(&[(JWT, value.clone())]);
    assert_eq!(from_metadata(&message, JWT, None), Ok(Some(value)));

    for (number, text) in
        [(-0.0, "0"), (3.0, "3"), (9_007_199_254_740_992.0, "9007199254740992"), (1e19, "1e+19")]
    {
        let message = metadata(&[(JWT, json!({"n": number}))]);
        let auth = from_metadata(&message, JWT, None).expect("metadata").expect("the struct");
        assert_eq!(auth["n"].to_string(), text);
    }
}

#[test]
fn metadata_that_cannot_be_decoded_is_an_error() {
    let good = metadata(&[(JWT, json!({"payload": {"sub": "bob"}}))]);
    let mut deep = json!({"userid": "alice"});
    for _ in 0..200 {
        deep = json!({"a": deep});
    }
    let nan = Struct {
        fields: BTreeMap::from([(
            "n".to_owned(),
            prost_types::Value { kind: Some(Kind::NumberValue(f64::NAN)) },
        )]),
    };
    let nan =
        Metadata { filter_metadata: [(JWT.to_owned(), nan)].into(), ..Default::default() }.encode_to_vec();
    let cases = [
        ("cut", good[..good.len() - 20].to_vec()),
        ("noise", vec![0xff; 40]),
        ("deep", metadata(&[(JWT, deep)])),
        ("not a number", nan),
    ];
    for (name, message) in cases {
        assert_eq!(from_metadata(&message, JWT, None), Err(IdentityError::Metadata), "{name}");
    }
}

#[test]
fn each_error_says_what_could_not_be_read() {
    let errors =
        [IdentityError::Encoding, IdentityError::Json, IdentityError::NotAnObject, IdentityError::Metadata];
    insta::assert_snapshot!(errors.map(|error| error.to_string()).join("\n"));
}
