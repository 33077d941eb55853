//! The filter's plugin configuration: valid configurations, and the message for each error.

use engine::config::{IdentitySource, PluginConfig};
use expression::identity::IdentityEncoding;
use policy::model::FailureMode;
use policy::plan::BodyAccess;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

fn read(config: &Value) -> Result<PluginConfig, String> {
    read_text(config.to_string().as_bytes())
}

fn read_text(text: &[u8]) -> Result<PluginConfig, String> {
    PluginConfig::read(text)
        .map_err(|mistakes| mistakes.iter().map(|mistake| format!("{mistake}\n")).collect())
}

fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TokenRateLimitPolicy",
        "metadata": {"name": name},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "llm-gateway"},
            "limits": {"free": {"rates": [{"limit": 20000, "window": "24h"}]}},
        },
    })
}

/// The configuration in the form of Envoy's YAML, with the type `google.protobuf.Struct`.
#[test]
fn a_struct_is_read_as_json_is() {
    use prost::Message as _;
    use prost_types::{Struct, Value, value::Kind};
    let value = |kind| Value { kind: Some(kind) };
    let of = |fields: Vec<(&str, Value)>| Struct {
        fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let text = |text: &str| value(Kind::StringValue(text.to_owned()));
    let adapter = of(vec![("cluster", text("limitador-adapter"))]);
    let body = of(vec![("maxBytes", value(Kind::NumberValue(1_048_576.0)))]);
    let config = |adapter| {
        of(vec![
            ("adapter", value(Kind::StructValue(adapter))),
            ("requestBody", value(Kind::StructValue(body.clone()))),
        ])
    };
    let read = |config: Struct| PluginConfig::read(&config.encode_to_vec());
    assert_eq!(read(config(adapter)).expect("a configuration").cluster, "limitador-adapter");
    let mistakes = read(config(of(vec![("clutser", text("x"))]))).expect_err("a mistake");
    assert_eq!(mistakes[0].path, "adapter.clutser");
}

#[test]
fn only_the_cluster_is_required() {
    let config = read(&json!({"adapter": {"cluster": "limitador-adapter"}})).expect("a configuration");
    assert_eq!(config.cluster, "limitador-adapter");
    assert_eq!(config.timeout, Duration::from_millis(200));
    assert_eq!(config.gateway, None);
    assert_eq!(config.failure_mode, FailureMode::Allow);
    assert_eq!(config.identity, None);
    assert!(config.policies.is_none());
    assert_eq!(config.memory, 128 << 20);
}

#[test]
fn the_memory_is_enough_to_read_a_body() {
    let with = |memory: Value, most: u64| {
        read(&json!({
            "adapter": {"cluster": "weir"}, "memory": memory,
            "requestBody": {"access": "Buffer", "maxBytes": most},
        }))
        .map(|config| config.memory)
    };
    assert_eq!(with(json!({}), 16 << 20), Ok(128 << 20));
    assert_eq!(with(json!({}), 64 << 20), Ok(512 << 20), "eight times the body");
    assert_eq!(with(json!({"maxBytes": 16 << 20}), 2 << 20), Ok(16 << 20));
    for (memory, most) in [((16 << 20) - 1, 1000), (64 << 20, 9 << 20), (1 << 30, 1000)] {
        let told = with(json!({"maxBytes": memory}), most).expect_err("a mistake");
        assert!(told.starts_with("memory.maxBytes: must be from "), "{told}");
    }
}

#[test]
fn everything_that_is_said_is_taken() {
    let config = read(&json!({
        "adapter": {"cluster": "weir", "timeout": "1s500ms"},
        "gateway": "default/llm-gateway.eu",
        "failureMode": "Deny",
        "identity": {"header": "X-JWT-Payload", "encoding": "base64url-json"},
        "requestBody": {"access": "Buffer", "maxBytes": 1000},
        "policies": [policy("one"), policy("two")],
    }))
    .expect("a configuration");
    assert_eq!((config.cluster.as_str(), config.timeout), ("weir", Duration::from_millis(1500)));
    assert_eq!(config.request_body, BodyAccess::Buffer(1000));
    assert_eq!(config.gateway.as_deref(), Some("default/llm-gateway.eu"));
    assert_eq!(config.failure_mode, FailureMode::Deny);
    let header =
        IdentitySource::Header { name: "x-jwt-payload".into(), encoding: IdentityEncoding::Base64UrlJson };
    assert_eq!(config.identity, Some(header));
    let names: Vec<_> = config.policies.into_iter().flatten().map(|policy| policy.name).collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn an_identity_comes_from_a_header_or_from_metadata() {
    let namespace = "envoy.filters.http.jwt_authn";
    let cases = [
        (
            json!({"header": "x-id"}),
            IdentitySource::Header { name: "x-id".into(), encoding: IdentityEncoding::Json },
        ),
        (json!({"metadata": namespace}), IdentitySource::Metadata { namespace: namespace.into(), key: None }),
        (
            json!({"metadata": namespace, "key": "payload"}),
            IdentitySource::Metadata { namespace: namespace.into(), key: Some("payload".into()) },
        ),
    ];
    for (identity, expected) in cases {
        let config =
            read(&json!({"adapter": {"cluster": "weir"}, "identity": identity})).expect("a configuration");
        assert_eq!(config.identity, Some(expected), "{identity}");
    }
}

#[test]
fn an_empty_list_of_policies_leaves_the_plan_to_the_adapter() {
    let config = read(&json!({"adapter": {"cluster": "weir"}, "policies": []})).expect("a configuration");
    assert!(config.policies.is_none());
}

#[test]
fn each_mistake_is_told_with_its_path() {
    let mut twice = policy("llm");
    twice["metadata"]["namespace"] = json!("default");
    let mut broken = policy("broken");
    broken["spec"]["limits"]["free"]["rates"][0]["window"] = json!("24");
    let mut of_body = policy("other");
    of_body["spec"]["when"] = json!([{"predicate": "llm.model == 'a'"}]);
    of_body["spec"]["limits"]["free"]["counters"] = json!([{"expression": "requestBodyJSON('/team')"}]);
    of_body["spec"]["prices"] = json!([
        {"model": "gpt-4o*", "input": "2.50", "output": "10"}, {"model": "*", "input": 1, "output": 1},
    ]);
    let with = |field: &str, value: Value| json!({"adapter": {"cluster": "weir"}, field: value});
    let cases = [
        json!({}),
        json!([]),
        json!({"adapter": {}}),
        json!({"adapter": "weir"}),
        json!({"adapter": {"cluster": ""}}),
        json!({"adapter": {"cluster": "weir", "timout": "1s"}}),
        json!({"adapter": {"cluster": "weir", "timeout": 200}}),
        json!({"adapter": {"cluster": "weir", "timeout": "0.2s"}}),
        json!({"adapter": {"cluster": "weir", "timeout": "0ms"}}),
        json!({"adapter": {"cluster": "weir", "timeout": "61s"}}),
        with("polices", json!([])),
        with("gateway", json!("llm-gateway")),
        with("gateway", json!("*/llm-gateway")),
        with("gateway", json!("default/llm/gateway")),
        with("failureMode", json!("Open")),
        with("identity", json!("x-jwt-payload")),
        with("identity", json!({})),
        with("identity", json!({"header": "x-id", "metadata": "envoy.filters.http.ext_authz"})),
        with("identity", json!({"header": "x-id", "key": "payload"})),
        with("identity", json!({"metadata": "envoy.filters.http.ext_authz", "encoding": "json"})),
        with("identity", json!({"header": ":path"})),
        with("identity", json!({"header": "x id"})),
        with("identity", json!({"header": "x-id", "encoding": "base64"})),
        with("requestBody", json!({"access": "Stream"})),
        with("requestBody", json!({"access": "Buffer", "maxBytes": 0})),
        with("requestBody", json!({"access": "Buffer", "maxBytes": 1_000_000_000})),
        with("requestBody", json!({"access": "None", "maxBytes": "1Mi"})),
        with("policies", json!(policy("llm"))),
        with("policies", json!([policy("llm"), of_body])),
        with("policies", json!([policy("llm"), 5])),
        with("policies", json!([policy("llm"), broken])),
        with("policies", json!([policy("llm"), twice])),
        with("policies", json!([{"spec": {"limits": {}}}])),
    ];
    let mut all = String::new();
    for case in cases {
        let told = read(&case).expect_err("a mistake").replace('\n', "\n  ");
        let case = case.to_string().replace(&policy("llm").to_string(), "POLICY");
        writeln!(all, "{case}\n  {}", told.trim_end()).expect("text");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_is_not_json_is_told_with_line_and_column() {
    let nested = "[".repeat(1000);
    let cases: [&[u8]; 8] = [
        b"",
        b" \n",
        b"adapter: {cluster: weir}",
        b"{\"adapter\":\n  {\"cluster\": \"weir\",}}",
        b"{\"adapter\": {\"cluster\": \"weir\"}} {}",
        b"{\"adapter\": {\"cluster\": \"\xff\"}}",
        b"{\"adapter\": {\"cluster\": \"weir\"},\n \"adapter\": {\"cluster\": \"other\"}}",
        nested.as_bytes(),
    ];
    let mut all = String::new();
    for case in cases {
        let told = read_text(case).expect_err("a mistake");
        let start: String = String::from_utf8_lossy(case).escape_debug().take(60).collect();
        write!(all, "{start}\n  {told}").expect("text");
    }
    insta::assert_snapshot!(all);
}
