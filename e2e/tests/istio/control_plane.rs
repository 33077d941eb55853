//! Runs Istio's control plane: the objects that `istioctl install` would apply, and istiod as its Deployment
//! would start it.

use e2e::cluster::Cluster;
use e2e::process::Process;
use e2e::{artefacts, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const NAMESPACE: &str = "istio-system";
/// istiod's address. It is a separate address because the proxy on this machine uses some of the same ports.
const ADDRESS: &str = "192.0.2.2";
/// The address of istiod's Service, where the API server finds its webhooks.
const SERVICE: &str = "10.0.0.10";

/// Installs and starts the control plane, and waits until it is ready.
pub fn start(cluster: &Cluster, folder: &Path) -> Process {
    let definitions = artefacts::istio("gateway-api").display().to_string();
    cluster.run(&["apply", "--server-side", "--force-conflicts", "-f", &definitions]);
    cluster.run(&["create", "namespace", NAMESPACE]);
    let objects = generate(folder);
    let (definitions, others): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object["kind"] == "CustomResourceDefinition");
    apply(cluster, definitions);
    cluster.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    // A webhook without a running server would reject the objects that follow.
    let (webhooks, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|object| text(&object["kind"]).ends_with("WebhookConfiguration"));
    apply(cluster, others);
    apply(cluster, webhooks);
    let mut istiod = Process::start("istiod", command(cluster, folder), &folder.join("istiod.log"));
    let address: SocketAddr = format!("{ADDRESS}:8080").parse().unwrap();
    wait::until("istiod", || {
        assert!(istiod.ended().is_none(), "istiod ended:\n{}", istiod.log());
        let ready = e2e::client::Request::get("/ready").try_send(address).ok()?;
        (ready.status == 200).then_some(())
    });
    istiod
}

/// Renders Istio's charts. Three filters are disabled, because only Istio's own build of Envoy has them.
fn generate(folder: &Path) -> Vec<Value> {
    let mut command = Command::new(artefacts::istio("istioctl"));
    command.args(["manifest", "generate"]).env("HOME", folder);
    for set in [
        "profile=minimal",
        "hub=none",
        "tag=none",
        &format!("meshConfig.defaultConfig.binaryPath={}", artefacts::envoy().display()),
        "meshConfig.defaultConfig.terminationDrainDuration=1s",
        "values.global.proxy.resources.limits.cpu=1000m",
        "values.pilot.env.PILOT_ENABLE_METADATA_EXCHANGE=false",
        "values.pilot.env.PILOT_ENABLE_ALPN_FILTER=false",
        "values.telemetry.enabled=false",
    ] {
        command.args(["--set", set]);
    }
    let made = command.output().unwrap();
    assert!(made.status.success(), "istioctl: {}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).unwrap();
    let documents = text.split("\n---\n").map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    documents.filter(Value::is_object).map(with_address).collect()
}

/// Points istiod's Service at istiod's address.
fn with_address(mut object: Value) -> Value {
    if object["kind"] == "Service" && object["metadata"]["name"] == "istiod" {
        object["spec"]["clusterIP"] = SERVICE.into();
    }
    object
}

fn apply(cluster: &Cluster, objects: Vec<Value>) {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    cluster.run_with(&["apply", "--server-side", "-f", "-"], &list.to_string());
}

fn command(cluster: &Cluster, folder: &Path) -> Command {
    let deployment = cluster.get(&["-n", NAMESPACE, "deployment", "istiod"]);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut command = Command::new(artefacts::istio("pilot-discovery"));
    let arguments = list(&container["args"]);
    command.args(arguments.iter().map(text).filter(|argument| !argument.starts_with("--monitoringAddr")));
    let kubeconfig = cluster.kubeconfig_of(NAMESPACE, "istiod");
    command.arg("--kubeconfig").arg(kubeconfig);
    for (flag, address, port) in [
        ("monitoringAddr", ADDRESS, 15014),
        ("httpAddr", ADDRESS, 8080),
        ("grpcAddr", ADDRESS, 15010),
        ("secureGRPCAddr", ADDRESS, 15012),
        ("httpsAddr", SERVICE, 443),
    ] {
        command.arg(format!("--{flag}={address}:{port}"));
    }
    for variable in list(&container["env"]) {
        command.env(text(&variable["name"]), text(&variable["value"]));
    }
    command.env_remove("KUBECONFIG").current_dir(folder);
    for (name, value) in [
        ("POD_NAME", "istiod-0"),
        ("POD_NAMESPACE", NAMESPACE),
        ("SERVICE_ACCOUNT", "istiod"),
        ("GOMAXPROCS", "2"),
    ] {
        command.env(name, value);
    }
    command
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
