//! Envoy Gateway's control plane, which tests can stop and start.

use crate::world::ITS;
use e2e::artefacts;
use e2e::cluster::Cluster;
use e2e::pod::Pod;
use e2e::process::Process;
use serde_json::{Value, json};
use std::path::Path;

/// A running control plane.
pub struct ControlPlane {
    template: Value,
    process: Process,
}

impl ControlPlane {
    /// Installs its definitions, creates its certificates with its own `certgen`, and starts it.
    pub fn start(cluster: &Cluster, folder: &Path) -> Self {
        let program = artefacts::envoy_gateway();
        let definitions = program.with_file_name("crds").display().to_string();
        cluster.run(&["apply", "--server-side", "--force-conflicts", "-R", "-f", &definitions]);
        cluster.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
        cluster.run(&["create", "namespace", ITS]);
        let made = std::process::Command::new(&program)
            .args(["certgen", "--disable-topology-injector"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .output()
            .unwrap();
        assert!(made.status.success(), "certgen: {}", String::from_utf8_lossy(&made.stderr));
        cluster.apply(&configuration().to_string());
        let template = template();
        let process = pod(&template).start(cluster, &program, folder);
        Self { template, process }
    }

    /// Replaces the control plane with another one that has no state.
    pub fn restart(&mut self, cluster: &Cluster, folder: &Path) {
        self.process.kill();
        let kept = folder.join("envoy-gateway-kept");
        std::fs::remove_dir_all(&kept).unwrap();
        std::fs::create_dir(&kept).unwrap();
        self.process = pod(&self.template).start_again(cluster, &artefacts::envoy_gateway(), folder);
    }

    /// Prints the log for failing tests.
    pub fn show_log(&self) {
        self.process.show_log();
    }
}

fn pod(template: &Value) -> Pod<'_> {
    Pod { name: "envoy-gateway", namespace: ITS, template, network: None }
}

fn configuration() -> Value {
    let config = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "provider": { "type": "Kubernetes" },
        "gateway": { "controllerName": "gateway.envoyproxy.io/gatewayclass-controller" },
        "extensionApis": { "enableEnvoyPatchPolicy": true, "enableLua": true },
        // In this test, the control plane and its proxy run on one machine, and both would use these ports.
        "admin": { "address": { "host": "127.0.0.1", "port": 19_900 } },
        "telemetry": { "metrics": { "prometheus": { "disable": true } } },
    });
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "envoy-gateway-config", "namespace": ITS },
        "data": { "envoy-gateway.yaml": config.to_string() },
    })
}

fn template() -> Value {
    let spec = json!({
        "containers": [{
            "args": ["server", "--config-path=/config/envoy-gateway.yaml"],
            "env": [{ "name": "ENVOY_GATEWAY_NAMESPACE", "value": ITS }],
            "volumeMounts": [
                { "name": "config", "mountPath": "/config" },
                { "name": "certs", "mountPath": "/certs" },
                // The folder in which modules are stored.
                { "name": "kept", "mountPath": "/var/lib/eg" },
            ],
        }],
        "volumes": [
            { "name": "config", "configMap": { "name": "envoy-gateway-config" } },
            { "name": "certs", "secret": { "secretName": "envoy-gateway" } },
            { "name": "kept", "emptyDir": {} },
        ],
    });
    json!({ "spec": spec })
}
