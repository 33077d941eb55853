//! Envoy Gateway's own control plane against a real API server: what it makes of our manifests is what a real Envoy runs.

use e2e::client::{Request, Response};
use e2e::cluster::Cluster;
use e2e::installed::Installed;
use e2e::pod::Pod;
use e2e::probe::{self, LIMITED, certificates};
use e2e::process::Process;
use e2e::redis::Redis;
use e2e::upstream::Upstream;
use e2e::{artefacts, jwt, pod, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

/// Envoy Gateway's namespace.
const ITS: &str = "envoy-gateway-system";
const POLICY: [&str; 2] = ["trlp.kuadrant.io", "llm-token-limits"];
/// Where Envoy Gateway lets the listener on port 80 listen.
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 10_080);
/// Its proxies' administration.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 19_000);

#[test]
fn envoy_gateway_takes_the_extension_and_its_proxy_enforces_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start();
    let kubeconfig = cluster.install();
    let _control_plane = control_plane(&cluster, folder.path());
    let mut redis = Redis::start();
    let storage = ["--storage", &redis.url(0)];
    let mut installed = Installed::start(&cluster, &kubeconfig, folder.path(), ITS, &storage);
    let upstream = Upstream::listen(&format!("{}:0", pod::ADDRESS)).unwrap();

    install(&cluster, &installed, upstream.address());
    for (kind, name, condition) in [
        ("gatewayclass", "envoy-gateway", "Accepted"),
        ("gateway", "api-gateway", "Accepted"),
        ("securitypolicy", "people", "Accepted"),
        ("envoyextensionpolicy", "weir", "Accepted"),
        ("envoypatchpolicy", "weir", "Accepted"),
        ("envoypatchpolicy", "weir", "Programmed"),
        ("clienttrafficpolicy", "weir", "Accepted"),
        ("envoypatchpolicy", "weir-bodies", "Programmed"),
    ] {
        holds(&cluster, kind, name, condition);
    }
    let mut proxy = Proxy::find(&cluster);
    proxy.start(&cluster, folder.path());
    let address = SocketAddr::from(LISTENER);
    let alice = Request::chat(15_000).token(&jwt::token(&jwt::kuadrant_user("alice", "free")));
    let answer = wait::until("an answer of the proxy", || {
        alice.try_send(address).ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), None, "no policy yet");

    others(&cluster);
    let applied = Instant::now();
    cluster.run(&["apply", "-f", "examples/kuadrant/policy.yaml"]);
    let admitted = wait::until("the policy", || {
        Some(alice.send(address)).filter(|answer| answer.header("x-ratelimit-limit-tokens").is_some())
    });
    println!("in force {:?} after kubectl", applied.elapsed());
    assert_eq!((admitted.status, admitted.header("x-ratelimit-limit-tokens")), (200, Some("20000")));
    let refused =
        wait::until("the refusal", || Some(alice.send(address)).filter(|answer| answer.status == 429));
    assert!(refused.text().contains("default/llm-token-limits"), "{}", refused.text());
    assert!(is_admitted(
        &Request::chat(25_000).token(&jwt::token(&jwt::kuadrant_user("bob", "gold"))).send(address)
    ));
    cluster.wait_for_reason(&POLICY, "Accepted", "Accepted");
    cluster.wait_for_reason(&POLICY, "Enforced", "Enforced");
    cluster.wait_for_reason(&["wtrlp", "other"], "Enforced", "NoFilter");
    reads_bodies(&cluster, address);
    renews(&cluster, &installed, &proxy, folder.path());
    for policy in ["wtrlp/other", "wtrlp/model", "trlp.kuadrant.io/llm-token-limits"] {
        cluster.run(&["delete", policy]);
    }
    for (mode, status) in [("Allow", 200), ("Deny", 503)] {
        cluster.apply(&probe::policy("api-gateway", mode));
        probe::becomes(address, LIMITED);

        redis.kill();
        probe::becomes(address, (status, None));
        probe::stays(address, (status, None), 10);
        // A proxy that starts meanwhile gets the module and the plan, so the policy decides there as well.
        proxy.restart(&cluster, folder.path());
        probe::becomes(address, (status, None));
        redis.restart();
        probe::heals(&format!("Redis, {mode}"), address);

        installed.adapter.kill();
        probe::becomes(address, (status, None));
        probe::stays(address, (status, None), 10);
        // One that starts meanwhile has the module from Envoy Gateway and no plan: the filter's own failureMode decides.
        proxy.restart(&cluster, folder.path());
        probe::becomes(address, (200, None));
        installed.adapter.restart();
        probe::heals(&format!("the adapter, {mode}"), address);
    }

    cluster.kill_api_server();
    probe::stays(address, LIMITED, 10);
    proxy.restart(&cluster, folder.path());
    probe::becomes(address, LIMITED);
    cluster.restart_api_server();
    probe::stays(address, LIMITED, 10);
}

/// Limits may name what the body says, and a body of more than Envoy's own bound of 1 MiB is read.
fn reads_bodies(cluster: &Cluster, address: SocketAddr) {
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "api-gateway" });
    let when = json!([{ "predicate": "llm.model == 'gpt-4o'" }]);
    let rates = json!([{ "limit": 0, "window": "1h", "unit": "requests" }]);
    let spec = json!({ "targetRef": target, "limits": { "none": { "when": when, "rates": rates } } });
    cluster.apply(&named("weir.dev/v1alpha1", "TokenRateLimitPolicy", "model", spec));
    let carol = jwt::token(&jwt::kuadrant_user("carol", "gold"));
    let chat = Request::chat(5).token(&carol);
    wait::until("the model's refusal", || (chat.send(address).status == 413).then_some(()));
    let other = chat.clone().body(json!({ "model": "another", "messages": [], "max_tokens": 5 }).to_string());
    assert!(is_admitted(&other.send(address)));
    let padding = " ".repeat(2 << 20);
    let long = json!({ "padding": padding, "model": "gpt-4o", "messages": [], "max_tokens": 5 }).to_string();
    assert_eq!(chat.body(long).send(address).status, 413);
}

fn is_admitted(answer: &Response) -> bool {
    answer.status == 200 && answer.header("x-ratelimit-limit-tokens") == Some("200000")
}

/// Another Gateway with all requests refused, which is none of this proxy's business.
fn others(cluster: &Cluster) {
    let (gateway_api, listeners) =
        ("gateway.networking.k8s.io/v1", json!([{ "name": "http", "protocol": "HTTP", "port": 80 }]));
    cluster.apply(&named(
        gateway_api,
        "Gateway",
        "other",
        json!({ "gatewayClassName": "another", "listeners": listeners }),
    ));
    let rules = json!([{ "backendRefs": [{ "name": "llm", "port": 8000 }] }]);
    cluster.apply(&named(
        gateway_api,
        "HTTPRoute",
        "other",
        json!({ "parentRefs": [{ "name": "other" }], "rules": rules }),
    ));
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "other" });
    let limits = json!({ "none": { "rates": [{ "limit": 0, "window": "1h", "unit": "requests" }] } });
    cluster.apply(&named(
        "weir.dev/v1alpha1",
        "TokenRateLimitPolicy",
        "other",
        json!({ "targetRef": target, "limits": limits }),
    ));
}

/// Its definitions, its certificates by its own `certgen`, and itself.
fn control_plane(cluster: &Cluster, folder: &Path) -> Process {
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
    let config = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "provider": { "type": "Kubernetes" },
        "gateway": { "controllerName": "gateway.envoyproxy.io/gatewayclass-controller" },
        "extensionApis": { "enableEnvoyPatchPolicy": true },
        // It and its proxy are on one machine here, and both would take these ports.
        "admin": { "address": { "host": "127.0.0.1", "port": 19_900 } },
        "telemetry": { "metrics": { "prometheus": { "disable": true } } },
    });
    cluster.apply(
        &json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "envoy-gateway-config", "namespace": ITS },
            "data": { "envoy-gateway.yaml": config.to_string() },
        })
        .to_string(),
    );
    let spec = json!({
        "containers": [{
            "args": ["server", "--config-path=/config/envoy-gateway.yaml"],
            "env": [{ "name": "ENVOY_GATEWAY_NAMESPACE", "value": ITS }],
            "volumeMounts": [
                { "name": "config", "mountPath": "/config" },
                { "name": "certs", "mountPath": "/certs" },
            ],
        }],
        "volumes": [
            { "name": "config", "configMap": { "name": "envoy-gateway-config" } },
            { "name": "certs", "secret": { "secretName": "envoy-gateway" } },
        ],
    });
    let template = json!({ "spec": spec });
    Pod { name: "envoy-gateway", namespace: ITS, template: &template }.start(cluster, &program, folder)
}

/// What `make kind-up` applies, with the ports of this machine's adapter; no controller makes the LLM's endpoints.
fn install(cluster: &Cluster, installed: &Installed, llm: SocketAddr) {
    cluster.run(&["apply", "-f", "manifests/kind", "-f", "manifests/kind/envoy-gateway"]);
    cluster.endpoint(&cluster.get(&["service", "llm"]), pod::ADDRESS, llm.port());
    cluster.apply(&installed.manifest("envoy-gateway/envoyextensionpolicy.yaml", "api-gateway"));
}

/// Waits until an object's condition holds, wherever its kind keeps it.
fn holds(cluster: &Cluster, kind: &str, name: &str, condition: &str) {
    let mut last = Value::Null;
    let held = wait::within(wait::DEADLINE, || {
        last = cluster.get(&[kind, name])["status"].clone();
        let of_parents = last["ancestors"].as_array().into_iter().flatten();
        let lists = [&last].into_iter().chain(of_parents).filter_map(|part| part["conditions"].as_array());
        lists.flatten().any(|told| told["type"] == condition && told["status"] == "True").then_some(())
    });
    assert!(held.is_some(), "the {kind} {name} is not {condition}: {last:#}");
    println!("{kind} {name}: {condition}");
}

/// The proxy that Envoy Gateway wants, as its own Deployment says.
struct Proxy {
    template: Value,
    process: Option<Process>,
}

impl Proxy {
    fn find(cluster: &Cluster) -> Self {
        let label = "gateway.envoyproxy.io/owning-gateway-name=api-gateway";
        let mut template = wait::until("the proxy's Deployment", || {
            let found = &cluster.get(&["-n", ITS, "deployment", "-l", label])["items"][0];
            let template = found["spec"]["template"].clone();
            (!template.is_null()).then_some(template)
        });
        // The proxy asks for its own endpoints, and waits for an answer.
        let service = cluster.get(&["-n", ITS, "service", "-l", label])["items"][0].clone();
        cluster.endpoint(&service, pod::ADDRESS, LISTENER.1);
        let arguments = template["spec"]["containers"][0]["args"].as_array_mut().unwrap();
        arguments.push("--disable-hot-restart".into());
        Self { template, process: None }
    }

    fn pod(&self) -> Pod<'_> {
        Pod { name: "envoy", namespace: ITS, template: &self.template }
    }

    fn start(&mut self, cluster: &Cluster, folder: &Path) {
        self.process = Some(self.pod().start(cluster, &artefacts::envoy(), folder));
    }

    fn restart(&mut self, cluster: &Cluster, folder: &Path) {
        drop(self.process.take());
        self.process = Some(self.pod().start_again(cluster, &artefacts::envoy(), folder));
    }
}

/// A renewed certificate is used without a restart.
fn renews(cluster: &Cluster, installed: &Installed, proxy: &Proxy, folder: &Path) {
    let used = || certificates(&Request::get("/certs").send(ADMIN.into()).json(), "weir-proxy");
    let before = used();
    assert_eq!(before.len(), 1, "{before:?}");
    installed.renew(cluster);
    proxy.pod().renew(cluster, "weir-tls", folder);
    wait::until("the renewed certificate", || {
        let now = used();
        (now.len() == 1 && now != before).then_some(())
    });
}

fn named(version: &str, kind: &str, name: &str, spec: Value) -> String {
    let metadata = json!({ "name": name, "namespace": "default" });
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec }).to_string()
}
