//! Several installations of the adapter in one cluster, and kubectl's output for them.

use super::routes::requests;
use super::{gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::wait;
use e2e::world::World;
use serde_json::{Value, json};
use std::time::Duration;

const POLICY: [&str; 2] = ["wtrlp", "llm"];

fn started() -> Cluster {
    let cluster = Cluster::start();
    cluster.install();
    cluster.run(&["create", "namespace", "weir-two"]);
    cluster.apply(&gateway("llm"));
    cluster.apply(&route("chat", "llm", json!([{}])));
    cluster.apply(&policy("llm", "Gateway", "llm", requests("all", 100)));
    cluster
}

/// Returns how often the policy is written although its spec does not change.
fn writes(cluster: &Cluster) -> i64 {
    let version = || cluster.get(&POLICY)["metadata"]["resourceVersion"].clone();
    let mut last = version();
    let mut changes = 0;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        let now = version();
        changes += i64::from(now != last);
        last = now;
    }
    changes
}

fn ancestors(cluster: &Cluster) -> Vec<Value> {
    cluster.get(&POLICY)["status"]["ancestors"].as_array().cloned().unwrap_or_default()
}

#[test]
fn of_two_installs_with_one_controller_name_one_gives_way_and_both_say_so() {
    let cluster = started();
    let first = Adapter::start_in_cluster(&cluster.kubeconfig_at(cluster.port(), "weir-system"), &[]);
    // Only the first adapter has filters, so the two report different statuses.
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(first);
    cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    let second = Adapter::start_in_cluster(&cluster.kubeconfig_at(cluster.port(), "weir-two"), &[]);
    for adapter in [&world.adapter, &second] {
        wait::until("the other one", || {
            (adapter.metric("weir_kubernetes_rival_installs", &[]) == 1.0).then_some(())
        });
        assert!(adapter.log().contains("--controller-name"), "{}", adapter.log());
    }
    cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    let told = cluster.wait_for_reason(&POLICY, "Accepted", "Accepted");
    assert!(told["message"].to_string().contains("the install weir-two writes"), "{told:#}");
    assert_eq!(writes(&cluster), 0);
}

#[test]
fn installs_with_names_of_their_own_leave_each_other_alone() {
    let cluster = started();
    let first = Adapter::start_in_cluster(&cluster.kubeconfig_at(cluster.port(), "weir-system"), &[]);
    let world = World::build().plugin(|plugin| plugin["gateway"] = json!("default/llm")).start_with(first);
    cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    // Even in the same namespace, the adapters use different Leases.
    let named = ["--controller-name", "zoo.example.com/weir"];
    let second = Adapter::start_in_cluster(&cluster.kubeconfig_at(cluster.port(), "weir-system"), &named);
    wait::until("both in `ancestors`", || {
        let names = ancestors(&cluster);
        let has = |name: &str| names.iter().any(|ancestor| ancestor["controllerName"] == name);
        (has("weir.dev/limitador-adapter") && has("zoo.example.com/weir")).then_some(())
    });
    cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    assert_eq!(writes(&cluster), 0);
    assert_eq!(second.metric("weir_kubernetes_rival_installs", &[]), 0.0);
    drop(second);
    drop(world);
}

#[test]
fn kubectl_shows_why_a_policy_is_not_enforced_and_each_kind_has_a_short_name_of_its_own() {
    let cluster = started();
    let adapter = Adapter::start_in_cluster(&cluster.kubeconfig_at(cluster.port(), "weir-system"), &[]);
    cluster.wait_for_reason(&POLICY, "Enforced", "NoFilter");
    let wide = cluster.run(&["get", "wtrlp", "-o", "wide"]);
    assert!(wide.contains("no filter of the Gateway default/llm has asked for its plan"), "{wide}");
    let short_names = |group: &str| {
        let name = format!("tokenratelimitpolicies.{group}");
        cluster.get(&["crd", &name])["status"]["acceptedNames"]["shortNames"].clone()
    };
    assert_ne!(short_names("weir.dev"), short_names("kuadrant.io"));

    // If a Gateway has no filter, the status lists filters with a mistyped Gateway name.
    let mistyped = World::build().plugin(|plugin| plugin["gateway"] = json!("default/lmm"));
    let world = mistyped.start_with(adapter);
    wait::until("the stray", || {
        let told = cluster.wait_for_reason(&POLICY, "Enforced", "NoFilter");
        told["message"].to_string().contains("do not exist: default/lmm").then_some(())
    });
    assert_eq!(world.adapter.metric("weir_unknown_gateways", &[]), 1.0);
    assert!(world.adapter.log().contains("default/lmm"), "{}", world.adapter.log());

    // A deleted policy stays in force while a finalizer keeps it.
    let finalizers = json!({ "metadata": { "finalizers": ["example.com/keep"] } }).to_string();
    cluster.run(&["patch", POLICY[0], POLICY[1], "--type=merge", "-p", &finalizers]);
    cluster.run(&["delete", POLICY[0], POLICY[1], "--wait=false"]);
    wait::until("the deletion's generation", || {
        let policy = cluster.get(&POLICY);
        let told = policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
        (told && policy["metadata"]["generation"] == 2).then_some(())
    });
    let told = cluster.get(&POLICY)["status"]["conditions"][1].clone();
    assert_eq!(told["reason"], "NoFilter", "not Stale: {told:#}");
}
