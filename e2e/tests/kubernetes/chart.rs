//! A real API server accepts the installation, upgrade and removal of the chart. Values that cannot work are
//! rejected.

use crate::{gateway, policy};
use e2e::artefacts;
use e2e::cluster::Cluster;
use serde_json::json;
use std::process::{Command, Output};

const IMAGE: &str = "image.repository=registry.example.com/limitador-adapter";
const EVERYTHING: &str = "e2e/chart/production.values.yaml";

fn helm(home: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(artefacts::helm());
    command.args(arguments).current_dir(artefacts::root()).env("HOME", home);
    command.output().expect("helm starts")
}

/// Runs Helm against this cluster.
fn release(cluster: &Cluster, arguments: &[&str]) -> Output {
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("its path is text");
    let home = kubeconfig.rsplit_once('/').map_or("/tmp", |(folder, _)| folder);
    helm(home.as_ref(), &[&["--kubeconfig", kubeconfig, "--namespace", "weir-system"], arguments].concat())
}

fn succeeds(output: Output) -> String {
    let (told, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{told}{errors}");
    told.into_owned()
}

#[test]
fn a_release_is_installed_upgraded_and_uninstalled_and_leaves_the_policies() {
    let cluster = Cluster::start();
    for whose in ["gateway-api", "envoy-gateway", "istio", "prometheus-operator", "cert-manager"] {
        let folder = artefacts::definitions(whose).display().to_string();
        cluster.run(&["apply", "--server-side", "-f", &folder]);
    }
    cluster.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    for namespace in ["team-a", "team-b"] {
        cluster.run(&["create", "namespace", namespace]);
    }
    let ours = || {
        let kinds = "deployments,services,serviceaccounts,configmaps,secrets,networkpolicies,poddisruptionbudgets,roles,\
            rolebindings,clusterroles,clusterrolebindings,statefulsets,servicemonitors,prometheusrules,issuers,certificates,envoyfilters,\
            envoyextensionpolicies,envoypatchpolicies,clienttrafficpolicies";
        let labelled = ["get", kinds, "-A", "-l", "app.kubernetes.io/part-of=weir", "-o", "name"];
        cluster.run(&labelled).lines().count()
    };

    let chart = "manifests/chart";
    succeeds(release(&cluster, &["install", "weir", chart, "--create-namespace", "--set", IMAGE]));
    cluster.run(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/tokenratelimitpolicies.weir.dev",
    ]);
    let deployment = ["deployment", "limitador-adapter", "-n", "weir-system"];
    assert_eq!(cluster.get(&deployment)["spec"]["replicas"], 1);

    cluster.apply(&gateway("llm"));
    let rates = json!([{ "limit": 10, "window": "1h" }]);
    cluster.apply(&policy("budget", "Gateway", "llm", json!({ "limits": { "all": { "rates": rates } } })));

    let dashboard = ["--set", "monitoring.dashboard.enabled=true"];
    let upgrade = ["upgrade", "weir", chart, "--values", EVERYTHING];
    succeeds(release(&cluster, &[&upgrade[..], &dashboard].concat()));
    assert_eq!(cluster.get(&deployment)["spec"]["replicas"], 3);
    for what in [
        ["envoyextensionpolicy", "weir-llm", "-n", "team-a"],
        ["envoyfilter", "weir-llm", "-n", "team-b"],
        ["certificate", "limitador-adapter", "-n", "weir-system"],
        ["servicemonitor", "limitador-adapter", "-n", "weir-system"],
        ["prometheusrule", "limitador-adapter", "-n", "weir-system"],
        ["configmap", "limitador-adapter-dashboard", "-n", "weir-system"],
    ] {
        assert!(cluster.get(&what).is_object(), "{what:?}");
    }
    assert!(ours() > 15, "{} objects have the label", ours());

    succeeds(release(&cluster, &["uninstall", "weir"]));
    assert_eq!(ours(), 0);
    let proxy = ["envoyproxy", "weir-llm", "-n", "team-a"];
    assert!(cluster.get(&proxy).is_object(), "a Gateway that names it keeps its proxies");
    assert!(cluster.get(&["tokenratelimitpolicy.weir.dev", "budget"]).is_object(), "policies stay");

    succeeds(release(&cluster, &["install", "weir", chart, "--set", IMAGE]));
}

#[test]
fn namespace_admins_may_write_policies_and_viewers_may_read_them() {
    let cluster = Cluster::start();
    succeeds(release(
        &cluster,
        &["install", "weir", "manifests/chart", "--create-namespace", "--set", IMAGE],
    ));
    for (role, may_write) in [("edit", true), ("view", false)] {
        let role = cluster.get(&["clusterrole", &format!("limitador-adapter-policies-{role}")]);
        let labels = role["metadata"]["labels"].to_string();
        assert_eq!(labels.contains("aggregate-to-admin"), may_write, "{role:#}");
        assert_eq!(role["rules"].to_string().contains("create"), may_write, "{role:#}");
    }
}

#[test]
fn values_that_cannot_work_are_refused_with_their_path() {
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    for (values, told) in [
        (vec![], "image.repository is required"),
        (vec![IMAGE, "replicas=2"], "replicas is more than 1 with storage.type sqlite"),
        (
            vec![IMAGE, "replicas=2", "storage.type=memory"],
            "replicas is more than 1 with storage.type memory",
        ),
        (vec![IMAGE, "storage.type=redis"], "storage.redis.url, urlSecret or deploy is required"),
        (vec![IMAGE, "storage.type=etcd"], "storage/type"),
        (
            vec![IMAGE, "storage.type=redis", "storage.redis.deploy=true", "storage.redis.url=redis://r"],
            "both url and deploy",
        ),
        (vec![IMAGE, "storage.type=redis", "storage.redis.urlSecret.name=x"], "urlSecret.key is required"),
        (vec![IMAGE, "gateways[0].controller=Kong"], "gateways/0"),
        (vec![IMAGE, "gateways[0].controller=Istio"], "gateways/0"),
        (
            vec![
                IMAGE,
                "gateways[0].controller=EnvoyGateway",
                "gateways[0].name=g",
                "gateways[0].namespace=n",
                "module.digest=latest",
            ],
            "module.digest is \"latest\"",
        ),
        (vec![IMAGE, "replica=2"], "replica"),
        (vec![IMAGE, "image.digest=sha256:12"], "image/digest"),
    ] {
        let set: Vec<&str> = values.iter().flat_map(|value| ["--set", *value]).collect();
        let output = helm(home.path(), &[&["template", "weir", "manifests/chart"], set.as_slice()].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(told), "{values:?} says {errors}");
    }
}
