//! For any input, the core returns a value or an error, and never panics.

use engine::config::PluginConfig;
use expression::identity::IdentityEncoding;
use expression::identity::{from_header, from_metadata};
use policy::model::Policy;
use policy::validation_error::ValidationError;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names that the reader knows, so that arbitrary documents get past the first level.
const NAMES: &[&str] = &[
    "adapter",
    "amount",
    "apiVersion",
    "cluster",
    "counters",
    "encoding",
    "expression",
    "failureMode",
    "gateway",
    "group",
    "header",
    "identity",
    "key",
    "kind",
    "limit",
    "limitFrom",
    "limits",
    "maxBytes",
    "metadata",
    "name",
    "namespace",
    "period",
    "policies",
    "predicate",
    "rates",
    "requestBody",
    "reservation",
    "sectionName",
    "spec",
    "targetRef",
    "timeout",
    "ttl",
    "unit",
    "when",
    "window",
];
const WORDS: &[&str] = &[
    "",
    " ",
    "*",
    "24h",
    "1d",
    "0s",
    "99999w99999w99999w99999w",
    "1ms",
    "Allow",
    "Gateway",
    "HTTPRoute",
    "TokenRateLimitPolicy",
    "default/llm",
    "gateway.networking.k8s.io",
    "json",
    "requests",
    "tokens",
    "true",
    "usd",
    "weir.dev/v1alpha1",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(NAMES).prop_map(str::to_owned), 1 => ".*"]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(name(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn good_policy() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TokenRateLimitPolicy",
        "metadata": {"name": "llm", "namespace": "default"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"},
            "when": [{"predicate": "true"}],
            "limits": {
                "free": {
                    "when": [{"predicate": "request.method == \"POST\""}],
                    "counters": [{"expression": "auth.identity.userid"}, {"expression": "request.path"}],
                    "rates": [{"limit": 1, "window": "1s", "unit": "tokens"}, {"limit": 1, "window": "1m"}],
                    "reservation": {"amount": "1", "ttl": "1m"},
                },
            },
            "failureMode": "Deny",
        },
    })
}

fn good_config() -> Value {
    json!({
        "adapter": {"cluster": "weir", "timeout": "200ms"},
        "gateway": "default/gateway",
        "failureMode": "Allow",
        "identity": {"header": "x-jwt-payload", "encoding": "json"},
        "requestBody": {"access": "None", "maxBytes": 1},
        "policies": [good_policy()],
    })
}

/// Replaces the value at the end of `steps` with `part`.
fn replace(document: &mut Value, steps: &[prop::sample::Index], part: Value) {
    let place = match (document, steps) {
        (Value::Object(map), [step, rest @ ..]) if !map.is_empty() => {
            let at = step.index(map.len());
            map.values_mut().nth(at).map(|next| (next, rest))
        }
        (Value::Array(list), [step, rest @ ..]) if !list.is_empty() => {
            let at = step.index(list.len());
            list.get_mut(at).map(|next| (next, rest))
        }
        (document, _) => {
            *document = part;
            return;
        }
    };
    if let Some((next, rest)) = place {
        replace(next, rest, part);
    }
}

/// Returns whether there are errors, each with a message that fits on one log line.
fn is_told(mistakes: &[ValidationError]) -> bool {
    !mistakes.is_empty()
        && mistakes.iter().all(|m| !m.message.is_empty() && !m.to_string().contains(char::is_control))
}

proptest! {
    #[test]
    fn any_json_is_a_policy_or_told(document in json()) {
        prop_assert!(Policy::read(&document).err().is_none_or(|mistakes| is_told(&mistakes)));
    }

    #[test]
    fn a_policy_with_any_part_replaced_is_a_policy_or_told(
        steps in prop::collection::vec(any::<prop::sample::Index>(), 0..7),
        part in json(),
    ) {
        let mut document = good_policy();
        replace(&mut document, &steps, part);
        prop_assert!(Policy::read(&document).err().is_none_or(|mistakes| is_told(&mistakes)));
    }

    #[test]
    fn a_configuration_with_any_part_replaced_is_a_configuration_or_told(
        steps in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        part in json(),
    ) {
        let mut document = good_config();
        replace(&mut document, &steps, part);
        prop_assert!(PluginConfig::read(document.to_string().as_bytes()).err().is_none_or(|mistakes| is_told(&mistakes)));
    }

    #[test]
    fn any_bytes_are_a_configuration_or_told(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(PluginConfig::read(&bytes).err().is_none_or(|mistakes| is_told(&mistakes)));
    }

    #[test]
    fn any_header_is_an_identity_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for encoding in [IdentityEncoding::Json, IdentityEncoding::Base64UrlJson] {
            prop_assert!(from_header(&bytes, encoding).map_or(true, |auth| auth["identity"].is_object()));
        }
    }

    #[test]
    fn any_metadata_is_an_identity_or_nothing_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        structure in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        // As the whole message, and inside the struct of the requested namespace.
        let mut message = vec![0x0a, u8::try_from(structure.len()).expect("short") + 5, 0x0a, 1, b'n', 0x12];
        message.push(u8::try_from(structure.len()).expect("short"));
        message.extend(structure);
        for bytes in [bytes, message] {
            for key in [None, Some("")] {
                if let Ok(Some(auth)) = from_metadata(&bytes, "n", key) {
                    prop_assert!(auth.is_object());
                }
            }
        }
    }
}

#[test]
fn the_documents_that_are_taken_apart_are_good() {
    assert_eq!(Policy::read(&good_policy()).map(|policy| policy.limits.len()), Ok(1));
    assert_eq!(
        PluginConfig::read(good_config().to_string().as_bytes()).map(|config| config.cluster),
        Ok("weir".into())
    );
}
