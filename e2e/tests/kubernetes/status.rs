//! Tests `limitador-adapter status` with a real API server.

use super::{gateway, policy, route};
use e2e::artefacts;
use e2e::cluster::Cluster;
use serde_json::{Value, json};
use std::process::{Command, Output};

fn status(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(artefacts::adapter());
    command.env_clear().arg("status").arg("--kubeconfig").arg(cluster.kubeconfig()).args(arguments);
    command.output().expect("the adapter starts")
}

fn problems(cluster: &Cluster) -> Vec<String> {
    let output = status(cluster, &["--output", "json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let problems: Vec<_> = status["problems"].as_array().expect("a list").clone();
    assert_eq!(output.status.success(), problems.is_empty(), "{status:#}");
    problems.iter().map(|problem| format!("{}: {}", problem["object"], problem["message"])).collect()
}

#[test]
fn what_is_missing_is_shown_until_it_is_there() {
    let cluster = Cluster::start();
    let all = problems(&cluster).join("\n");
    for missing in
        ["Gateway API is not installed", "the adapter is not installed", "CustomResourceDefinition"]
    {
        assert!(all.contains(missing), "{missing}: {all}");
    }

    cluster.install();
    let envoy_gateway = artefacts::definitions("envoy-gateway").display().to_string();
    cluster.run(&["apply", "--server-side", "-f", &envoy_gateway]);
    cluster.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    cluster.apply(&gateway("llm-gateway"));
    cluster.apply(&route("chat", "llm-gateway", json!([{}])));
    let rates = json!([{ "limit": 10, "window": "1h" }]);
    cluster.apply(&policy(
        "llm",
        "Gateway",
        "llm-gateway",
        json!({ "limits": { "all": { "rates": rates } } }),
    ));
    let all = problems(&cluster).join("\n");
    // There is no kubelet, so no pods run.
    assert!(all.contains("0 of 1 replicas are ready"), "{all}");
    assert!(all.contains("has no filter"), "{all}");
    assert!(all.contains("has no status"), "{all}");

    cluster.run(&["apply", "-f", "manifests/envoy-gateway/envoyextensionpolicy.yaml"]);
    let all = problems(&cluster).join("\n");
    assert!(all.contains("has no digest") && !all.contains("has no filter"), "{all}");
    let text = String::from_utf8(status(&cluster, &[]).stdout).expect("text");
    assert!(text.contains("envoypatchpolicy default/weir"), "{text}");
    assert!(text.contains("next: make manifests"), "{text}");

    // Envoy Gateway 1.9 reports this unless Lua is enabled.
    let refused = json!({ "status": { "ancestors": [{
        "ancestorRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "llm-gateway" },
        "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
        "conditions": [{
            "type": "Accepted", "status": "False", "reason": "Invalid", "lastTransitionTime": "2026-11-29T00:00:00Z",
            "message": "Lua: Skipping Lua EnvoyExtensionPolicy as feature is disabled in the Gateway.",
        }],
    }] } });
    let (status_of, refused) = ("--subresource=status", refused.to_string());
    cluster.run(&["patch", "envoyextensionpolicy", "weir", status_of, "--type=merge", "-p", &refused]);
    let text = String::from_utf8(status(&cluster, &[]).stdout).expect("text");
    assert!(
        text.contains("envoyextensionpolicy default/weir: ") && text.contains("extensionApis.enableLua"),
        "{text}"
    );
}

#[test]
fn who_may_not_read_is_told_what() {
    let cluster = Cluster::start();
    let adapter = cluster.install();
    let mut command = Command::new(artefacts::adapter());
    let output = command.env_clear().env("KUBECONFIG", adapter).arg("status").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("deployments.apps: ") && text.contains("forbidden"), "{text}");
    assert!(text.contains("kubectl auth can-i list deployments.apps"), "{text}");
}

#[test]
fn a_cluster_that_cannot_be_reached_is_an_error() {
    let mut cluster = Cluster::start();
    cluster.kill_api_server();
    let output = status(&cluster, &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("the API server does not answer"), "{errors}");
}
