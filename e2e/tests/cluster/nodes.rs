//! Controls the cluster with shell commands.

use crate::traffic::{self, MODES};
use e2e::adapter::Counter;
use e2e::client::Request;
use e2e::module::ModuleVersion;
use e2e::{artefacts, jwt, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const GATEWAY: &str = "llm-gateway";
const SYSTEM: &str = "weir-system";
/// The registry of the images.
const REGISTRY: &str = "registry.example.com";
/// Runs `ctr` on every node, as the pages say.
const ON_EVERY_NODE: &str =
    r#"ctr() { for node in "$WEIR_CLUSTER"/n*/; do command ctr -a "$node/containerd.sock" "$@"; done; }"#;
const ADMIN_TOKEN: &str = "cluster-test";
/// The number of lines of each log that a failing test prints.
const LAST_LINES: usize = 30;

/// A running cluster.
pub struct NodeCluster {
    /// A folder with the contents of a clone of the repository.
    checkout: TempDir,
}

impl NodeCluster {
    /// Connects to the cluster that `scripts/cluster.sh` has started.
    pub fn new() -> Self {
        let checkout = tempfile::tempdir().expect("a temporary folder can be made");
        for entry in ["Makefile", "scripts", "manifests"] {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(artefacts::root().join(entry)).arg(checkout.path());
            assert!(output(&mut copy).0, "{entry} can be copied");
        }
        let cluster = Self { checkout };
        let dist = cluster.checkout.path().join("dist");
        std::fs::create_dir(&dist).expect("a folder can be made");
        cluster.copy(&artefacts::wasm(), "dist/weir.wasm");
        cluster.copy(&artefacts::adapter(), "dist/limitador-adapter");
        cluster
    }

    /// Connects to that cluster, with nothing but the files of the release that `WEIR_RELEASE` names.
    pub fn of_release() -> Self {
        let release = PathBuf::from(std::env::var_os("WEIR_RELEASE").expect("make test-release names it"));
        let cluster = Self { checkout: tempfile::tempdir().expect("a temporary folder can be made") };
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(release.join(".")).arg(cluster.checkout.path());
        assert!(output(&mut copy).0, "{} can be copied", release.display());
        std::fs::create_dir(cluster.checkout.path().join("dist")).expect("a folder can be made");
        // The pages call the adapter by this name.
        cluster.copy(&artefacts::adapter(), "dist/limitador-adapter");
        cluster
    }

    fn copy(&self, from: &Path, to: &str) {
        std::fs::copy(from, self.checkout.path().join(to)).expect("a file can be copied");
    }

    /// Writes a file next to the commands.
    pub fn write(&self, name: &str, text: &str) {
        let text = text.replace("REGISTRY", REGISTRY);
        std::fs::write(self.checkout.path().join(name), text).expect("a file can be written");
    }

    /// Runs the commands of a document, with its placeholders filled in.
    pub fn shell(&self, commands: &str) -> String {
        let mut commands = commands.replace("REGISTRY", REGISTRY);
        if commands.contains("YOUR-GATEWAY") {
            commands = commands.replace("https://YOUR-GATEWAY", &format!("http://{}", self.gateway()));
        }
        println!("{}", commands.trim_end());
        let token = jwt::token(&json!({ "sub": "alice", "userid": "alice" }));
        let commands = format!("{ON_EVERY_NODE}\n{commands}");
        self.run_with(&[("TOKEN", &token)], "timeout", &["600", "bash", "-euo", "pipefail", "-c", &commands])
    }

    /// Runs a program, which must succeed, and returns its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.run_with(&[], program, arguments)
    }

    fn run_with(&self, variables: &[(&str, &str)], program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.checkout.path()).envs(variables.iter().copied());
        let stand_ins = artefacts::root().join("scripts/cluster").display().to_string();
        command.env("PATH", format!("{stand_ins}:{}", std::env::var("PATH").unwrap_or_default()));
        let (success, text) = output(&mut command);
        assert!(success, "{program} {}:\n{text}", arguments.join(" "));
        text
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.run("kubectl", arguments)
    }

    fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn apply(&self, manifest: &str) {
        let file = self.checkout.path().join("applied.yaml");
        std::fs::write(&file, manifest).expect("a file can be written");
        self.kubectl(&["apply", "-f", &file.display().to_string()]);
    }

    fn rollout(&self, namespace: &str, what: &str) {
        self.kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=180s"]);
    }

    /// Installs the prerequisites of the document: Envoy Gateway, and a Gateway that validates tokens, with a
    /// route to an LLM.
    pub fn install_gateway(&self) {
        let chart = std::env::var("WEIR_ENVOY_GATEWAY_CHART").expect("make cluster-test names it");
        let namespace = "envoy-gateway-system";
        self.run(
            "helm",
            &["install", "eg", &chart, "-n", namespace, "--create-namespace", "--wait", "--timeout=3m"],
        );
        let mut gateway = String::new();
        for file in ["manifests/kind/llm.yaml", "manifests/kind/envoy-gateway/gateway.yaml"] {
            let text = std::fs::read_to_string(artefacts::root().join(file)).expect("a file can be read");
            // This line refers to the EnvoyProxy of another installation.
            let lines = text.lines().filter(|line| !line.contains("kind: EnvoyProxy"));
            gateway +=
                &lines.map(|line| format!("{}\n", line.replace("api-gateway", GATEWAY))).collect::<String>();
            gateway += "---\n";
        }
        self.apply(&gateway);
        self.rollout("default", "deployment/llm");
        wait::until("the Gateway's Service", || (!self.proxies("service").is_empty()).then_some(()));
    }

    fn proxies(&self, kind: &str) -> Vec<Value> {
        let label = format!("gateway.envoyproxy.io/owning-gateway-name={GATEWAY}");
        self.get(&["-n", "envoy-gateway-system", kind, "-l", &label])["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    fn address(service: &Value) -> SocketAddr {
        let address = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
        let port = service["spec"]["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        SocketAddr::new(address.expect("an address"), port.expect("a port"))
    }

    /// Returns the address of the Gateway's Service.
    pub fn gateway(&self) -> SocketAddr {
        Self::address(&self.proxies("service")[0])
    }

    /// Checks that Alice is refused after she has used up her limit in the document's policy.
    pub fn is_limited(&self) {
        let ask = |who: &str| {
            let token = jwt::token(&json!({ "sub": who, "userid": who }));
            Request::chat(4_000).token(&token).send(self.gateway())
        };
        let statuses: Vec<u16> = (0..8).map(|_| ask("alice").status).collect();
        assert!(
            statuses.starts_with(&[200]) && statuses.ends_with(&[429]),
            "alice was answered {statuses:?}"
        );
        let others = ask("bob");
        assert_eq!(others.status, 200, "bob: {}", others.text());
        self.kubectl(&["delete", "-f", "llm-policy.yaml"]);
    }

    /// Checks that `status` reports no problem.
    pub fn is_in_order(&self) {
        let mut last = String::new();
        let good = wait::within(wait::DEADLINE, || {
            let mut command = Command::new(artefacts::adapter());
            let (success, text) = output(command.arg("status"));
            last = text;
            success.then_some(())
        });
        println!("{last}");
        assert!(good.is_some(), "status finds problems");
    }

    /// Prepares two proxies, one on each node, the policies of the clients, and a token that can read the
    /// counters.
    pub fn prepare_for_load(&self) {
        let literal = format!("--from-literal=token={ADMIN_TOKEN}");
        self.kubectl(&["-n", SYSTEM, "create", "secret", "generic", "limitador-adapter-admin", &literal]);
        self.apply(include_str!("two-proxies.yaml"));
        let parameters = r#"{"spec": {"infrastructure": {"parametersRef": {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "two-proxies"}}}}"#;
        self.kubectl(&["patch", "gateway", GATEWAY, "--type=merge", "-p", parameters]);
        wait::within(2 * wait::DEADLINE, || {
            let deployment = self.proxies("deployment");
            let status = &deployment.first()?["status"];
            let is_new = status["observedGeneration"] == deployment.first()?["metadata"]["generation"];
            (is_new && status["readyReplicas"] == 2 && status["replicas"] == 2).then_some(())
        })
        .expect("two proxies");
        for (mode, policy) in MODES.into_iter().zip(traffic::policies(GATEWAY)) {
            self.apply(&policy);
            let policy = format!("tokenratelimitpolicies.weir.dev/{}", mode.to_ascii_lowercase());
            self.kubectl(&["wait", "--for=condition=Enforced", "--timeout=60s", &policy]);
        }
        // The kubelet adds a Secret that was missing to running pods within a minute or two.
        self.counted();
    }

    /// Removes the objects that the load needed in addition to the documentation.
    pub fn forget_load(&self) {
        self.kubectl(&["delete", "envoyproxy", "two-proxies"]);
    }

    fn counters(&self) -> Result<Vec<Counter>, String> {
        let service = self.get(&["-n", SYSTEM, "service", "limitador-adapter"]);
        let address = SocketAddr::new(Self::address(&service).ip(), 8080);
        let ask = Request::get("/api/counters").header("authorization", format!("Bearer {ADMIN_TOKEN}"));
        let answer = ask.try_send(address).map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| format!("{error}: {} {}", answer.status, answer.text()))
    }

    /// Returns the tokens that were charged to the policy of each failure mode.
    pub fn counted(&self) -> [u64; 2] {
        let mut last = String::new();
        let counters =
            wait::within(3 * wait::DEADLINE, || self.counters().map_err(|error| last = error).ok());
        let counters = counters.unwrap_or_else(|| panic!("the adapter does not say what is counted: {last}"));
        MODES.map(|mode| {
            let policy = format!("default/{}", mode.to_ascii_lowercase());
            counters.iter().filter(|counter| counter.policy == policy).map(|counter| counter.used).sum()
        })
    }

    /// Replaces all adapters, one after the other.
    pub fn roll_adapter(&self) {
        self.kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment/limitador-adapter"]);
        self.rollout(SYSTEM, "deployment/limitador-adapter");
    }

    fn pods(&self, app: &str) -> Vec<Value> {
        let label = format!("app.kubernetes.io/name={app}");
        self.get(&["-n", SYSTEM, "pods", "-l", &label])["items"].as_array().cloned().unwrap_or_default()
    }

    /// Kills each adapter. Kills the second one only when two are running again.
    pub fn kill_adapter(&self) {
        let running = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
        for pod in self.pods("limitador-adapter").into_iter().filter(running) {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            self.kubectl(&["-n", SYSTEM, "delete", "pod", name, "--force", "--grace-period=0"]);
            self.rollout(SYSTEM, "deployment/limitador-adapter");
        }
    }

    /// Drains the node without Redis, and then makes it available again.
    pub fn drain_node(&self) {
        let redis = self.pods("redis")[0]["spec"]["nodeName"].clone();
        let node = if redis == "n1" { "n2" } else { "n1" };
        self.kubectl(&["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"]);
        self.rollout(SYSTEM, "deployment/limitador-adapter");
        self.kubectl(&["uncordon", node]);
    }

    /// Restarts Redis, which keeps its data.
    pub fn restart_redis(&self) {
        self.kubectl(&["-n", SYSTEM, "rollout", "restart", "statefulset/redis"]);
        self.rollout(SYSTEM, "statefulset/redis");
    }

    /// Upgrades the module and the adapter in one upgrade of the chart.
    pub fn upgrade(&self) {
        let new = ModuleVersion::new(self.checkout.path(), "v2");
        let (image, module) = (format!("{REGISTRY}/weir/limitador-adapter:v2"), artefacts::wasm());
        let module = module.display().to_string();
        let versions = [("WEIR_WASM", new.file.as_str()), ("WEIR_WASM_PREVIOUS", module.as_str())];
        self.run_with(&versions, "docker", &["build", "--target", "adapter", "-t", &image, "."]);
        self.run("docker", &["push", &image]);
        let digest = format!("module.digest={}", new.digest);
        let chart = ["upgrade", "weir", "dist/manifests/chart", "-n", SYSTEM, "--values", "values.yaml"];
        self.run("helm", &[chart.as_slice(), &["--set", "image.tag=v2", "--set", &digest]].concat());
        self.rollout(SYSTEM, "deployment/limitador-adapter");
    }

    fn show_logs(&self) {
        let work = PathBuf::from(std::env::var_os("WEIR_CLUSTER").unwrap_or_default());
        for log in ["kubelet-n1", "kubelet-n2", "node-n1", "node-n2"] {
            let text =
                std::fs::read_to_string(work.join("log").join(format!("{log}.log"))).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- {log}:\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
        let tail = format!("--tail={LAST_LINES}");
        let (name, proxy) = ("app.kubernetes.io/name", "app.kubernetes.io/component=proxy");
        for arguments in [
            ["get", "pods", "-A", "-o", "wide"].as_slice(),
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["-n", SYSTEM, "logs", "-l", &format!("{name}=limitador-adapter"), "--prefix", &tail],
            &["-n", SYSTEM, "describe", "pods"],
            &["-n", "envoy-gateway-system", "logs", "-l", proxy, "--prefix", "-c", "envoy", &tail],
            &["-n", "envoy-gateway-system", "logs", "deployment/envoy-gateway", &tail],
            &["get", "gateways,envoypatchpolicies,wtrlp", "-A", "-o", "yaml"],
        ] {
            let (_, text) = output(Command::new("kubectl").args(arguments));
            eprintln!("--- kubectl {}:\n{text}", arguments.join(" "));
        }
        let (_, text) = output(Command::new("bash").args(["-c", WEIR_METRICS]));
        eprintln!("--- what the filters counted:\n{text}");
    }
}

impl Drop for NodeCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// Prints the filters' metrics of each proxy.
const WEIR_METRICS: &str = "\
    for ip in $(kubectl -n envoy-gateway-system get pods -l app.kubernetes.io/component=proxy -o jsonpath='{.items[*].status.podIP}')
    do echo \"$ip\"; curl -sS --max-time 5 \"$ip:19001/stats/prometheus\" | grep '^[a-z_]*weir_' | grep -v ' 0$'
    done";

/// Returns whether the command succeeded, and its output.
fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let success = output.status.success();
    // Warnings are not part of a program's output.
    (success, if success { text(&output.stdout) } else { text(&output.stdout) + &text(&output.stderr) })
}
