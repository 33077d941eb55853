//! The manifests can be applied, and grant the adapter only the permissions that it needs.

use e2e::artefacts;
use e2e::cluster::Cluster;

#[test]
fn every_manifest_is_taken_by_the_api_server_as_it_is() {
    let cluster = Cluster::start();
    cluster.install();
    for whose in ["envoy-gateway", "istio", "prometheus-operator", "cert-manager"] {
        let folder = artefacts::definitions(whose).display().to_string();
        cluster.run(&["apply", "--server-side", "-f", &folder]);
    }
    cluster.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    let strict = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server"];
    for what in [
        ["-k", "manifests/adapter"],
        ["-k", "manifests/overlays/redis"],
        ["-k", "manifests/overlays/monitoring"],
        ["-f", "manifests/cert-manager"],
        ["-f", "manifests/istio"],
        ["-f", "manifests/envoy-gateway"],
        ["-f", "manifests/kind"],
        ["-f", "manifests/kind/envoy-gateway"],
        ["-f", "manifests/kind/istio"],
    ] {
        let told = cluster.run(&[strict.as_slice(), &what].concat());
        println!("{what:?}:\n{told}");
    }
    // The scraped port must be a port of the adapter's Service.
    let monitor = cluster.run(&["kustomize", "manifests/overlays/monitoring"]);
    let adapter = cluster.run(&["kustomize", "manifests/adapter"]);
    assert!(
        monitor.contains("app.kubernetes.io/part-of: weir") && monitor.contains("port: http"),
        "{monitor}"
    );
    assert!(
        adapter.contains("app.kubernetes.io/part-of: weir") && adapter.contains("name: http"),
        "{adapter}"
    );
    let replicas = cluster.run(&["kustomize", "manifests/overlays/redis"]);
    assert!(replicas.contains("replicas: 2") && replicas.contains("redis://redis:6379"), "{replicas}");
}

#[test]
fn the_adapter_may_do_what_it_must_and_nothing_else() {
    let cluster = Cluster::start();
    cluster.install();
    let may = |verb: &str, what: &str, namespace: &str| {
        let who = "system:serviceaccount:weir-system:limitador-adapter";
        let (what, part) = what.split_once('/').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        let asked = cluster.kubectl(&["auth", "can-i", verb, what, &part, "--as", who, "-n", namespace]);
        String::from_utf8_lossy(&asked.stdout).trim() == "yes"
    };
    for (verb, what, namespace) in [
        ("list", "tokenratelimitpolicies.weir.dev", "default"),
        ("watch", "tokenratelimitpolicies.kuadrant.io", "default"),
        ("patch", "tokenratelimitpolicies.weir.dev/status", "default"),
        ("watch", "httproutes.gateway.networking.k8s.io", "default"),
        ("watch", "grpcroutes.gateway.networking.k8s.io", "default"),
        ("update", "leases.coordination.k8s.io", "weir-system"),
    ] {
        assert!(may(verb, what, namespace), "must {verb} {what}");
    }
    for (verb, what, namespace) in [
        ("get", "secrets", "weir-system"),
        ("list", "secrets", "default"),
        ("list", "pods", "weir-system"),
        ("update", "tokenratelimitpolicies.weir.dev", "default"),
        ("patch", "tokenratelimitpolicies.weir.dev", "default"),
        ("delete", "tokenratelimitpolicies.weir.dev", "default"),
        ("patch", "httproutes.gateway.networking.k8s.io", "default"),
        ("update", "gateways.gateway.networking.k8s.io", "default"),
        ("update", "leases.coordination.k8s.io", "kube-system"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "default"),
    ] {
        assert!(!may(verb, what, namespace), "must not {verb} {what}");
    }
}
