//! What `status` concludes from a cluster's objects.

use limitador_adapter::cluster_status::ClusterStatus;
use limitador_adapter::cluster_status::fetch::{ClusterObjects, FetchedObjects, ServedModules};
use limitador_adapter::kubernetes::objects::ObjectName;
use serde_json::{Value, json};

const MODULE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn found(items: Vec<Value>) -> FetchedObjects {
    FetchedObjects { items, is_defined: true, error: None }
}

fn named(namespace: &str, name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["metadata"] = json!({ "namespace": namespace, "name": name });
    object
}

fn deployment(ready: u64) -> Value {
    let containers = json!([{ "image": "registry.example.com/limitador-adapter:0.1.0" }]);
    let spec = json!({ "replicas": 2, "template": { "spec": { "containers": containers } } });
    named("weir-system", "limitador-adapter", json!({ "spec": spec, "status": { "readyReplicas": ready } }))
}

fn gateway(name: &str) -> Value {
    named("default", name, json!({ "spec": { "gatewayClassName": "eg" } }))
}

fn patch(gateway: &str, digest: &str, conditions: Value) -> Value {
    let uri = format!("http://limitador-adapter.weir-system.svc.cluster.local:8080/weir-{digest}.wasm");
    let spec = json!({
        "targetRef": { "kind": "Gateway", "name": gateway },
        "jsonPatches": [{ "operation": { "value": { "uri": uri } } }],
    });
    let status = json!({ "ancestors": [{ "conditions": conditions }] });
    named("default", &format!("weir-{gateway}"), json!({ "spec": spec, "status": status }))
}

fn envoy_filter(gateway: &str, digest: &str) -> Value {
    let uri = format!("http://limitador-adapter.weir-system.svc.cluster.local:8080/weir-{digest}.wasm");
    let spec = json!({ "targetRefs": [{ "kind": "Gateway", "name": gateway }], "configPatches": [uri] });
    named("default", "weir", json!({ "spec": spec }))
}

fn policy(name: &str, gateway: &str, conditions: Value) -> Value {
    let spec = json!({ "targetRef": { "kind": "Gateway", "name": gateway } });
    named("default", name, json!({ "spec": spec, "status": { "conditions": conditions } }))
}

fn conditions(enforced: &str, reason: &str, message: &str) -> Value {
    json!([
        { "type": "Accepted", "status": "True", "reason": "Accepted", "message": "the policy is accepted" },
        { "type": "Enforced", "status": enforced, "reason": reason, "message": message },
    ])
}

fn installed(served: &str) -> ClusterObjects {
    let adapter = ObjectName { namespace: "weir-system".into(), name: "limitador-adapter".into() };
    let modules = ServedModules { digest: Some(served.into()), ..ServedModules::default() };
    ClusterObjects {
        deployments: found(vec![deployment(2)]),
        gateways: found(vec![gateway("llm"), gateway("web")]),
        weir_policies: found(vec![policy("budget", "llm", conditions("True", "Enforced", ""))]),
        patch_policies: found(vec![patch(
            "llm",
            MODULE,
            json!([{ "type": "Programmed", "status": "True" }]),
        )]),
        modules: [(adapter, modules)].into(),
        ..ClusterObjects::default()
    }
}

fn both(objects: &ClusterObjects) -> String {
    let status = ClusterStatus::new(objects);
    format!("{status}\n{}\n", serde_json::to_string_pretty(&status).unwrap())
}

#[test]
fn a_cluster_in_order() {
    let objects = installed(MODULE);
    assert!(ClusterStatus::new(&objects).is_good());
    insta::assert_snapshot!(both(&objects));
}

#[test]
fn a_cluster_without_weir() {
    insta::assert_snapshot!(ClusterStatus::new(&ClusterObjects::default()).to_string());
}

#[test]
fn everything_that_is_wrong_is_shown_with_the_next_command() {
    let mut objects = installed(OTHER);
    objects.deployments = found(vec![deployment(1)]);
    let disabled = json!([{ "type": "Programmed", "status": "False", "reason": "Disabled", "message": "it is disabled" }]);
    objects.patch_policies.items.extend([patch("batch", NONE, json!([])), patch("ops", MODULE, disabled)]);
    objects.envoy_filters = found(vec![envoy_filter("mesh", OTHER)]);
    objects.gateways.items.push(gateway("mesh"));
    objects.weir_policies.items.extend([
        policy("lost", "web", conditions("False", "NoFilter", "no filter has\nasked \u{1b}[31m")),
        policy("unread", "llm", json!([])),
    ]);
    objects.kuadrant_policies.error = Some("forbidden".into());
    insta::assert_snapshot!(both(&objects));
}

#[test]
fn an_upgrade_that_is_not_finished_is_shown() {
    let mut objects = installed(OTHER);
    objects.modules.values_mut().for_each(|served| served.others = [MODULE.to_owned()].into());
    insta::assert_snapshot!(ClusterStatus::new(&objects).to_string());
}

/// Envoy Gateway 1.9 refuses the filter's placeholder unless Lua is enabled.
#[test]
fn a_placeholder_that_is_refused_is_shown_with_its_effect() {
    let mut objects = installed(MODULE);
    let placeholder = |name: &str, status: &str, reason: &str, message: &str| {
        let accepted = json!({ "type": "Accepted", "status": status, "reason": reason, "message": message });
        named("default", name, json!({ "status": { "ancestors": [{ "conditions": [accepted] }] } }))
    };
    let disabled = "Lua: Skipping Lua EnvoyExtensionPolicy as feature is disabled in the Gateway.";
    let unparsable = "Lua: validation failed for lua body in policy with name invalid.";
    let conflict = "Unable to target Gateway ops, another EnvoyExtensionPolicy has already attached to it.";
    objects.extension_policies = found(vec![
        placeholder("llm", "True", "Accepted", "Policy has been accepted."),
        placeholder("web", "False", "Invalid", disabled),
        placeholder("invalid", "False", "Invalid", unparsable),
        placeholder("ops", "False", "Conflicted", conflict),
    ]);
    insta::assert_snapshot!(ClusterStatus::new(&objects).to_string());
}
