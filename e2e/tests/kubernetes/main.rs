//! Tests that use a real API server and a real Envoy.

mod chart;
mod enforcement;
mod installs;
mod manifests;
mod merging;
mod replicas;
mod routes;
mod scale;
mod schema;
mod silence;
mod status;

use e2e::client::Request;
use e2e::jwt;
use serde_json::{Value, json};

/// Builds a Gateway with one listener for all hosts.
fn gateway(name: &str) -> String {
    let listeners = json!([{ "name": "http", "protocol": "HTTP", "port": 80 }]);
    object(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        name,
        json!({ "gatewayClassName": "test", "listeners": listeners }),
    )
}

/// Builds a route of that Gateway with these rules.
fn route(name: &str, gateway: &str, rules: Value) -> String {
    let spec = json!({ "parentRefs": [{ "name": gateway }], "rules": rules });
    object("gateway.networking.k8s.io/v1", "HTTPRoute", name, spec)
}

/// Builds a policy for that target.
fn policy(name: &str, kind: &str, target: &str, mut spec: Value) -> String {
    spec["targetRef"]["group"] = "gateway.networking.k8s.io".into();
    spec["targetRef"]["kind"] = kind.into();
    spec["targetRef"]["name"] = target.into();
    object("weir.dev/v1alpha1", "TokenRateLimitPolicy", name, spec)
}

fn object(version: &str, kind: &str, name: &str, spec: Value) -> String {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "default" }, "spec": spec }).to_string()
}

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&jwt::kuadrant_user("alice", "free")))
}
