//! Every configuration that we ship reads bodies, lets Envoy keep as much of them, trusts no `x-forwarded-for`, and gives
//! paths and hosts one spelling.

use e2e::artefacts;
use serde_json::{Value, json};

fn documents(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(artefacts::root().join(path)).unwrap();
    let parts = format!("\n{text}").split("\n---\n").map(str::to_owned).collect::<Vec<_>>();
    parts
        .iter()
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}

/// Whatever is at a key, wherever it is.
fn all(value: &Value, key: &str) -> Vec<Value> {
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).cloned());
            found.extend(fields.values().flat_map(|value| all(value, key)));
        }
        Value::Array(items) => found.extend(items.iter().flat_map(|value| all(value, key))),
        _ => {}
    }
    found
}

/// The only value at a key.
fn only(path: &str, value: &Value, key: &str) -> Value {
    let found = all(value, key);
    assert_eq!(found.len(), 1, "{path}: {key}: {found:?}");
    found[0].clone()
}

/// Of a plain Envoy, and of what Istio's control plane adds to its own.
fn is_sound(path: &str) {
    let document = Value::Array(documents(path));
    let body = only(path, &document, "requestBody");
    assert_eq!(body["access"], "Buffer", "{path}");
    let kept = only(path, &document, "per_connection_buffer_limit_bytes").as_u64().unwrap();
    assert!(kept >= body["maxBytes"].as_u64().unwrap(), "{path}: {kept}");
    for (key, wanted) in [
        ("allow_on_headers_stop_iteration", json!(true)),
        ("use_remote_address", json!(true)),
        ("normalize_path", json!(true)),
        ("merge_slashes", json!(true)),
        ("path_with_escaped_slashes_action", json!("UNESCAPE_AND_REDIRECT")),
        ("strip_any_host_port", json!(true)),
        ("strip_trailing_host_dot", json!(true)),
    ] {
        assert_eq!(only(path, &document, key), wanted, "{path}: {key}");
    }
}

#[test]
fn every_plain_envoy_and_istio_s_filter_are_sound() {
    let mut configurations =
        vec!["manifests/envoy/envoy.yaml".to_owned(), "manifests/istio/envoyfilter.yaml".to_owned()];
    for folder in std::fs::read_dir(artefacts::root().join("examples")).unwrap() {
        let file = folder.unwrap().path().join("envoy.yaml");
        if file.exists() {
            configurations.push(file.strip_prefix(artefacts::root()).unwrap().display().to_string());
        }
    }
    assert!(configurations.len() > 5, "{configurations:?}");
    configurations.iter().for_each(|path| is_sound(path));
}

#[test]
fn envoy_gateway_s_objects_are_sound() {
    let path = "manifests/envoy-gateway/envoyextensionpolicy.yaml";
    let documents = documents(path);
    let of = |kind: &str, name: &str| {
        let found = documents.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("{path} has no {kind} {name}")).clone()
    };
    let filter = of("EnvoyExtensionPolicy", "weir");
    let body = only(path, &filter, "requestBody");
    assert_eq!((&body["access"], &body["maxBytes"]), (&json!("Buffer"), &json!(16 << 20)));
    assert_eq!(of("ClientTrafficPolicy", "weir")["spec"]["connection"]["bufferLimit"], "16Mi");
    let patch = of("EnvoyPatchPolicy", "weir-bodies")["spec"]["jsonPatches"][0].clone();
    assert_eq!(patch["operation"]["path"], "allow_on_headers_stop_iteration");
    assert_eq!(patch["operation"]["value"], true);
    // All are for the same Gateway.
    let targets = documents.iter().flat_map(|one| [all(one, "targetRef"), all(one, "targetRefs")].concat());
    let named = targets.flat_map(|target| all(&target, "name")).collect::<Vec<_>>();
    assert_eq!(named, vec![json!("llm-gateway"); 4]);
    assert_eq!(patch["name"], "default/llm-gateway/http");
}
