//! Checks that every shipped configuration reads bodies, lets Envoy buffer as much of a body as the filter
//! reads, does not trust `x-forwarded-for`, and normalises paths and hosts.

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

/// Returns all values of a key at any depth.
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

/// Returns the only value of a key.
fn only(path: &str, value: &Value, key: &str) -> Value {
    let found = all(value, key);
    assert_eq!(found.len(), 1, "{path}: {key}: {found:?}");
    found[0].clone()
}

/// Checks the settings of a plain Envoy. In Istio, the manifest adds these settings to those of the control
/// plane.
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
    let patch = of("EnvoyPatchPolicy", "weir")["spec"]["jsonPatches"][0].clone();
    let body = only(path, &patch, "requestBody");
    assert_eq!((&body["access"], &body["maxBytes"]), (&json!("Buffer"), &json!(16 << 20)));
    assert_eq!(of("ClientTrafficPolicy", "weir")["spec"]["connection"]["bufferLimit"], "16Mi");
    assert_eq!(only(path, &patch, "allow_on_headers_stop_iteration"), json!(true));
    // The patch replaces the placeholder with a filter that is enabled on every route. Envoy AI Gateway must
    // not mistake it for a Lua filter, because it would then place its processor before it.
    let operation = &patch["operation"];
    let replaced = (&operation["op"], &operation["path"], &operation["value"]["name"]);
    assert_eq!(replaced, (&json!("replace"), &Value::Null, &json!("weir")));
    assert_eq!(operation["value"]["disabled"], Value::Null);
    // If the patch is not applied, the Gateway must not appear to be limited.
    let placeholder = only(path, &of("EnvoyExtensionPolicy", "weir"), "inline");
    assert!(
        placeholder.as_str().unwrap().contains("handle:respond({[\":status\"] = \"503\"}"),
        "{placeholder}"
    );
    // All objects must target the same Gateway.
    let targets = documents.iter().flat_map(|one| [all(one, "targetRef"), all(one, "targetRefs")].concat());
    let named = targets.flat_map(|target| all(&target, "name")).collect::<Vec<_>>();
    assert_eq!(named, vec![json!("llm-gateway"); 3]);
    assert_eq!(patch["name"], "default/llm-gateway/http");
}

/// Returns the cluster `limitador-adapter` from any of the files.
fn adapter_cluster(path: &str) -> Value {
    let named = |value: &Value| value["name"] == "limitador-adapter" && value["load_assignment"].is_object();
    let clusters =
        [all(&Value::Array(documents(path)), "value"), all(&Value::Array(documents(path)), "clusters")];
    let clusters = clusters.concat().into_iter().flat_map(|value| match value {
        Value::Array(items) => items,
        other => vec![other],
    });
    clusters.into_iter().find(named).unwrap_or_else(|| panic!("{path} has no cluster limitador-adapter"))
}

/// With any gateway, a node that goes silent causes few refusals.
#[test]
fn every_gateway_calls_the_adapter_in_the_same_way() {
    let plain = adapter_cluster("manifests/envoy/envoy.yaml");
    assert_eq!(
        only("envoy.yaml", &plain, "connection_keepalive"),
        json!({ "interval": "1s", "timeout": "1s" })
    );
    for path in ["manifests/istio/envoyfilter.yaml", "manifests/envoy-gateway/envoyextensionpolicy.yaml"] {
        let cluster = adapter_cluster(path);
        for key in
            ["connect_timeout", "typed_extension_protocol_options", "circuit_breakers", "outlier_detection"]
        {
            assert_eq!(cluster[key], plain[key], "{path}: {key}");
        }
        // Envoy reads a file that a cluster names only once. With SDS, it reads renewed files again.
        let tls = only(path, &cluster, "common_tls_context");
        assert!(tls["tls_certificate_sds_secret_configs"].is_array(), "{path}: {tls}");
    }
}

#[test]
fn every_proxy_fetches_its_module_by_its_digest_until_it_has_it() {
    let digest = "0".repeat(64);
    let istio = Value::Array(documents("manifests/istio/envoyfilter.yaml"));
    let gateway = Value::Array(documents("manifests/envoy-gateway/envoyextensionpolicy.yaml"));
    let name = format!("/weir-{digest}.wasm");
    for (path, value) in [("istio", &istio), ("envoy-gateway", &gateway)] {
        let address = only(path, value, "uri");
        assert!(address.as_str().unwrap().ends_with(&name), "{address}");
        assert_eq!(only(path, value, "sha256"), json!(digest));
        assert!(only(path, value, "num_retries").as_u64().unwrap() >= 1_000_000);
        // Without the digest, Envoy keeps the previous module; see upgrade.rs.
        let told = value.to_string();
        let of_vm = json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": digest });
        assert!(told.contains(&of_vm.to_string()), "{path}: the VM's configuration has no digest");
    }
}

#[test]
fn istio_s_filter_is_for_one_gateway_and_trusts_no_header() {
    let filter = &documents("manifests/istio/envoyfilter.yaml")[0];
    assert_eq!(filter["spec"]["targetRefs"].as_array().map(Vec::len), Some(1));
    assert_eq!(filter["metadata"]["namespace"], Value::Null, "it belongs to the Gateway's namespace");
    let identity = only("istio", filter, "identity");
    assert_eq!(identity, json!({ "metadata": "envoy.filters.http.jwt_authn", "key": "payload" }));
}

/// `kubectl set image` fails if it names a container that the Deployment does not have.
#[test]
fn the_guide_names_the_container_of_the_adapter() {
    let guide = std::fs::read_to_string(artefacts::root().join("manifests/README.md")).unwrap();
    let (_, rest) = guide.split_once("set image deployment/limitador-adapter ").expect("it sets the image");
    let named = rest.split('=').next().unwrap();
    let path = "manifests/adapter/adapter.yaml";
    let deployment = documents(path).into_iter().find(|one| one["kind"] == "Deployment").unwrap();
    assert_eq!(named, deployment["spec"]["template"]["spec"]["containers"][0]["name"], "{path}");
}
