//! Runs a real kube-apiserver and etcd on this machine, without containers. This is a cluster without nodes
//! and controllers. Clients and RBAC work as in any other cluster.

use crate::certificates::Authority;
use crate::process::{Process, free_port};
use crate::{artefacts, wait};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A running cluster.
pub struct Cluster {
    apiserver: Process,
    _etcd: Process,
    folder: TempDir,
    etcd: u16,
    port: u16,
}

const ADMIN: &str = "test-admin-token";

impl Cluster {
    /// Starts a cluster with only Kubernetes' own namespaces, and waits until it serves requests.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (etcd, peers, port) = (free_port(), free_port(), free_port());
        keys(folder.path());
        let process = start_etcd(folder.path(), etcd, peers);
        let apiserver = start_api_server(folder.path(), etcd, port);
        let mut cluster = Self { apiserver, _etcd: process, folder, etcd, port };
        cluster.write_kubeconfig("kubeconfig", ADMIN, "default");
        cluster.becomes_ready();
        cluster
    }

    fn becomes_ready(&mut self) {
        wait::until("the API server", || {
            assert!(self.apiserver.ended().is_none(), "the API server ended:\n{}", self.apiserver.log());
            let ready = self.kubectl(&["get", "--raw", "/readyz"]);
            // The namespace `default` is created a moment later.
            (ready.status.success() && self.kubectl(&["get", "namespace", "default"]).status.success())
                .then_some(())
        });
    }

    /// Returns a kubeconfig with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Returns a kubeconfig with all rights, this namespace, and this port of the API server.
    pub fn kubeconfig_at(&self, port: u16, namespace: &str) -> PathBuf {
        let name = format!("kubeconfig-{namespace}-{port}");
        self.write_kubeconfig_at(&name, ADMIN, namespace, port)
    }

    /// Returns the port of the API server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns a kubeconfig with the rights of this service account.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.run(&["-n", namespace, "create", "token", account]);
        self.write_kubeconfig(&format!("kubeconfig-{namespace}-{account}"), token.trim(), namespace)
    }

    fn write_kubeconfig(&self, name: &str, token: &str, namespace: &str) -> PathBuf {
        self.write_kubeconfig_at(name, token, namespace, self.port)
    }

    fn write_kubeconfig_at(&self, name: &str, token: &str, namespace: &str, port: u16) -> PathBuf {
        let path = self.folder.path().join(name);
        let server = format!("https://127.0.0.1:{port}");
        let authority = self.folder.path().join("ca.crt").display().to_string();
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority": authority } }],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": namespace } }],
            "current-context": "test",
        });
        std::fs::write(&path, config.to_string()).expect("a file can be written");
        path
    }

    /// Runs kubectl, which may fail.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with(arguments, "")
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(artefacts::kubernetes("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments).current_dir(artefacts::root());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Tests must not share kubectl's cache of API resources.
        command.env("HOME", self.folder.path());
        let mut child = command.spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("its input is ours");
        stdin.write_all(input.as_bytes()).expect("kubectl reads");
        drop(stdin);
        child.wait_with_output().expect("kubectl ends")
    }

    /// Runs kubectl, which must succeed, and returns its output.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeeded(arguments, self.kubectl(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like `run`, but with this input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> String {
        succeeded(arguments, self.kubectl_with(arguments, input)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `kubectl apply`, which the API server may reject.
    pub fn try_apply(&self, manifest: &str) -> Result<String, String> {
        succeeded(&["apply"], self.kubectl_with(&["apply", "-f", "-"], manifest))
    }

    /// Runs `kubectl apply`, which must succeed.
    pub fn apply(&self, manifest: &str) {
        self.try_apply(manifest).unwrap_or_else(|error| panic!("{error}\n{manifest}"));
    }

    /// Returns an object, or `null`.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let output = self.kubectl(&[&["get", "-o", "json", "--ignore-not-found"], arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Creates the endpoints of a Service with one pod at this address, as the controller would.
    pub fn endpoint(&self, service: &Value, address: &str, port: u16) {
        let mut metadata = json!({ "labels": service["metadata"]["labels"] });
        for field in ["name", "namespace"] {
            metadata[field] = service["metadata"][field].clone();
        }
        metadata["labels"]["kubernetes.io/service-name"] = metadata["name"].clone();
        let name = service["spec"]["ports"][0]["name"].as_str().unwrap_or_default();
        self.apply(
            &json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata,
                "addressType": "IPv4",
                "ports": [{ "name": name, "port": port, "protocol": "TCP" }],
                "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
            })
            .to_string(),
        );
    }

    /// Applies Weir's and Gateway API's CustomResourceDefinitions, and waits until they are served.
    pub fn define(&self) {
        let gateway_api = artefacts::definitions("gateway-api").display().to_string();
        let folders = ["manifests/crds/tokenratelimitpolicies.yaml", "manifests/crds/kuadrant", &gateway_api]
            .map(|folder| ["-f", folder]);
        self.run(&[["apply", "--server-side"].as_slice(), &folders.concat()].concat());
        self.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    }

    /// Installs Weir, and returns a kubeconfig with the adapter's rights.
    pub fn install(&self) -> PathBuf {
        self.define();
        self.run(&["apply", "--server-side", "-k", "manifests/adapter"]);
        self.kubeconfig_of("weir-system", "limitador-adapter")
    }

    /// Waits until a policy's condition of this type has this reason, and returns the condition.
    pub fn wait_for_reason(&self, policy: &[&str], kind: &str, reason: &str) -> Value {
        let mut last = Value::Null;
        let found = wait::within(wait::DEADLINE, || {
            last = self.get(policy);
            let conditions = last["status"]["conditions"].as_array()?;
            conditions
                .iter()
                .find(|condition| condition["type"] == kind && condition["reason"] == reason)
                .cloned()
        });
        found.unwrap_or_else(|| panic!("wanted {kind} with the reason {reason}: {last:#}"))
    }

    /// Kills the API server. etcd keeps its data.
    pub fn kill_api_server(&mut self) {
        self.apiserver.kill();
    }

    /// Restarts the API server if a test has left it stopped.
    pub fn revive(&mut self) {
        if !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            self.restart_api_server();
        }
    }

    /// Restarts the API server on the same port.
    pub fn restart_api_server(&mut self) {
        self.apiserver.kill();
        self.apiserver = start_api_server(self.folder.path(), self.etcd, self.port);
        self.becomes_ready();
    }
}

fn succeeded(arguments: &[&str], output: Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("kubectl {}: {}", arguments.join(" "), text(&output.stderr)))
    }
}

fn keys(folder: &Path) {
    let authority = Authority::new("test cluster");
    authority.write(folder, &["127.0.0.1", "localhost", "kubernetes.default.svc"]);
    let (certificate, key) = authority.sign(&["accounts"]);
    std::fs::write(folder.join("accounts.crt"), certificate).expect("a file can be written");
    std::fs::write(folder.join("accounts.key"), key).expect("a file can be written");
    std::fs::write(folder.join("tokens"), format!("{ADMIN},admin,admin,system:masters\n"))
        .expect("a file can be written");
}

fn start_etcd(folder: &Path, port: u16, peers: u16) -> Process {
    let (url, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
    let mut command = Command::new(artefacts::kubernetes("etcd"));
    command.arg("--data-dir").arg(folder.join("etcd")).args(["--unsafe-no-fsync", "--log-level", "error"]);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    Process::start("etcd", command, &folder.join("etcd.log"))
}

fn start_api_server(folder: &Path, etcd: u16, port: u16) -> Process {
    let mut command = Command::new(artefacts::kubernetes("kube-apiserver"));
    let file = |name: &str| folder.join(name).display().to_string();
    for (flag, value) in [
        ("etcd-servers", format!("http://127.0.0.1:{etcd}")),
        ("bind-address", "127.0.0.1".to_owned()),
        // Nothing connects to this address, but the API server rejects a loopback address.
        ("advertise-address", "192.0.2.1".to_owned()),
        ("secure-port", port.to_string()),
        ("tls-cert-file", file("tls.crt")),
        ("tls-private-key-file", file("tls.key")),
        ("token-auth-file", file("tokens")),
        ("authorization-mode", "RBAC".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", file("accounts.crt")),
        ("service-account-signing-key-file", file("accounts.key")),
        ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
        // No controller would create the default service accounts that this plugin requires.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        // Tests must not wait for servers to shut down.
        ("shutdown-delay-duration", "0s".to_owned()),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    Process::start("the API server", command, &folder.join("apiserver.log"))
}
