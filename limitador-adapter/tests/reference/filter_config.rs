use crate::{code, head, page, table};
use engine::config::{DEFAULT_TIMEOUT, PluginConfig};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The path, type, default, example and meaning of each setting.
const KEYS: &[(&str, &str, &str, &str, &str)] = &[
    ("adapter", "object", "required", "", "The adapter."),
    (
        "adapter.cluster",
        "string",
        "required",
        "\"limitador-adapter\"",
        "The name of the adapter's cluster in Envoy.",
    ),
    (
        "adapter.timeout",
        "duration",
        "200ms",
        "\"200ms\"",
        "How long a reserve may take, from 1ms to 60s. After that, `failureMode` applies.",
    ),
    (
        "gateway",
        "string",
        "found from Envoy's node",
        "\"default/llm-gateway\"",
        "The Gateway that this Envoy serves, as `NAMESPACE/NAME`, or `*` for the policies of every Gateway. By default, the \
         labels that Istio and Envoy Gateway give their proxies decide.",
    ),
    (
        "failureMode",
        "`Allow`, `Deny`",
        "Allow",
        "\"Deny\"",
        "What happens to requests before the first plan has arrived. Afterwards, each policy's own `failureMode` applies.",
    ),
    (
        "identity",
        "object",
        "no identity",
        "",
        "Where the identity of a request comes from. Takes `header` or `metadata`. It becomes `auth`.",
    ),
    (
        "identity.header",
        "string",
        "",
        "\"x-jwt-payload\"",
        "A header that the authentication filter sets. It becomes `auth.identity` and does not go upstream.",
    ),
    (
        "identity.encoding",
        "`json`, `base64url-json`",
        "json",
        "\"base64url-json\"",
        "How the header is encoded.",
    ),
    (
        "identity.metadata",
        "string",
        "",
        "\"envoy.filters.http.jwt_authn\"",
        "A namespace of dynamic metadata that the authentication filter sets. Without `key`, it becomes `auth`.",
    ),
    ("identity.key", "string", "", "\"payload\"", "The key of the metadata that becomes `auth.identity`."),
    ("requestBody", "object", "", "", "How request bodies are read."),
    (
        "requestBody.access",
        "`None`, `Buffer`",
        "None",
        "\"Buffer\"",
        "`Buffer` reads bodies, so that policies can use their facts and holds are exact. It requires \
         `allow_on_headers_stop_iteration: true` next to the filter's `root_id`. `None` estimates requests by their length.",
    ),
    (
        "requestBody.maxBytes",
        "integer",
        "1048576",
        "16777216",
        "How much of a body is read, up to 64 MiB. The listener's `per_connection_buffer_limit_bytes` must be at least as large.",
    ),
    ("memory", "object", "", "", "The memory of each worker."),
    (
        "memory.maxBytes",
        "integer",
        "134217728",
        "268435456",
        "How much memory requests in flight may use, from 16 MiB or eight times `requestBody.maxBytes`, whichever is larger, to \
         768 MiB.",
    ),
    (
        "usagePath",
        "string",
        "callers cannot",
        "\"/weir/usage\"",
        "A path on which the filter answers `GET` with the caller's own limits and what is used of them. Such requests never go \
         upstream. See [usage.md](../usage.md).",
    ),
    (
        "accessLog",
        "bool",
        "false",
        "true",
        "Whether the usage of every exchange to which a limit applies is written to Envoy's filter state, for access logs. A \
         policy's `usageReporting` turns it on for the requests to which the policy applies. See [access-log.md](../access-log.md).",
    ),
    (
        "policies",
        "list",
        "the adapter's",
        "",
        "Policies to use instead of the adapter's plan. An empty list means the adapter's. The adapter must have the same \
         policies to count for them.",
    ),
];

fn with(path: &str, value: Value) -> Value {
    let mut config = json!({"adapter": {"cluster": "c"}});
    let mut at = &mut config;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
    config
}

fn errors(config: &Value) -> Vec<String> {
    let errors = PluginConfig::read(config.to_string().as_bytes()).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

/// Returns the fields that the reader accepts in an object. The reader lists them when it rejects an unknown
/// field.
fn known(path: &str) -> BTreeSet<String> {
    let mut config =
        if path.is_empty() { with("", json!({"adapter": {"cluster": "c"}})) } else { with(path, json!({})) };
    let mut at = &mut config;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        at = &mut at[part];
    }
    at["zzzzzzzzzzzz"] = json!(1);
    let told = errors(&config);
    let told = told.iter().find(|error| error.contains("zzzzzzzzzzzz")).expect("an unknown name is refused");
    told.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_page_of_the_filter_s_configuration() {
    let mut text = head(
        "Filter configuration",
        "The configuration of the Wasm plugin, as JSON, or as YAML of the type `google.protobuf.Struct`. Unknown fields and wrong \
         types are errors: Envoy then refuses the configuration, and its log lists every error with its path.\n",
    );
    let row = |(path, kind, default, example, about): &(&str, &str, &str, &str, &str)| {
        let default = if *default == "required" || default.contains(' ') || default.contains('\'') {
            (*default).to_owned()
        } else {
            code(default)
        };
        [code(path), (*kind).to_owned(), default, code(example), (*about).to_owned()]
    };
    text += &table(["Key", "Type", "Default", "Example", "Meaning"], KEYS.iter().map(row));
    page("reference/filter-configuration.md", &text);
}

#[test]
fn every_key_of_the_filter_is_described() {
    let objects = KEYS.iter().filter(|(_, kind, ..)| *kind == "object").map(|(path, ..)| *path);
    for object in objects.chain([""]) {
        let prefix = if object.is_empty() { String::new() } else { format!("{object}.") };
        let inside = |path: &&str| {
            path.starts_with(&prefix) && !path[prefix.len()..].contains('.') && !path.is_empty()
        };
        let described: BTreeSet<String> = KEYS
            .iter()
            .map(|(path, ..)| *path)
            .filter(inside)
            .map(|path| path[prefix.len()..].to_owned())
            .collect();
        assert_eq!(known(object), described, "{object}");
    }
}

#[test]
fn the_examples_of_the_filter_s_keys_are_taken() {
    for (path, _, _, example, _) in KEYS.iter().filter(|(_, _, _, example, _)| !example.is_empty()) {
        let mut config = with(path, serde_json::from_str(example).unwrap());
        match *path {
            "identity.encoding" => config["identity"]["header"] = json!("x"),
            "identity.key" => config["identity"]["metadata"] = json!("x"),
            _ => {}
        }
        assert_eq!(errors(&config), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn the_defaults_of_the_filter_s_keys_are_the_code_s() {
    let config = PluginConfig::read(br#"{"adapter": {"cluster": "c"}}"#).unwrap();
    let default = |wanted: &str| KEYS.iter().find(|(path, ..)| *path == wanted).unwrap().2;
    assert_eq!(default("adapter.timeout"), format!("{}ms", DEFAULT_TIMEOUT.as_millis()));
    assert_eq!(default("failureMode"), format!("{:?}", config.failure_mode));
    assert_eq!(default("requestBody.access"), format!("{:?}", config.request_body));
    assert_eq!(default("memory.maxBytes"), config.memory.to_string());
    let buffer =
        PluginConfig::read(br#"{"adapter": {"cluster": "c"}, "requestBody": {"access": "Buffer"}}"#).unwrap();
    assert_eq!(format!("Buffer({})", default("requestBody.maxBytes")), format!("{:?}", buffer.request_body));
}
