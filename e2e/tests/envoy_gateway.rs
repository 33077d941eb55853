//! Envoy Gateway's own control plane against a real API server: what it makes of our manifests is what a real Envoy runs.

use e2e::adapter::Adapter;
use e2e::certificates::Authority;
use e2e::client::{Request, Response};
use e2e::cluster::Cluster;
use e2e::process::Process;
use e2e::upstream::Upstream;
use e2e::{artefacts, jwt, pod, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

/// Envoy Gateway's namespace.
const ITS: &str = "envoy-gateway-system";
const POLICY: [&str; 2] = ["trlp.kuadrant.io", "llm-token-limits"];
/// An address of this network that is no loopback address, which no endpoint may have.
const OUTSIDE: &str = "192.0.2.1";
/// Where Envoy Gateway lets the listener on port 80 listen.
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 10_080);

#[test]
fn envoy_gateway_takes_the_extension_and_its_proxy_enforces_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let kubeconfig = cluster.install();
    let _control_plane = control_plane(&cluster, folder.path());
    let adapter = adapter(&cluster, &kubeconfig, folder.path());
    let upstream = Upstream::listen(&format!("{OUTSIDE}:0")).unwrap();

    install(&cluster, &adapter, upstream.address());
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
    let _proxy = proxy(&cluster, folder.path());
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
    pod::start(cluster, ("envoy-gateway", ITS, &spec), &program, folder)
}

/// The adapter with the module and mutual TLS, as its Deployment starts it.
fn adapter(cluster: &Cluster, kubeconfig: &Path, folder: &Path) -> Adapter {
    let (served, proxies) = (folder.join("served"), folder.join("proxies"));
    let authority = Authority::new("weir");
    for (place, name) in
        [(&served, "limitador-adapter.weir-system.svc"), (&proxies, "weir-proxy.weir-system.svc")]
    {
        std::fs::create_dir(place).unwrap();
        authority.write(place, &[name]);
    }
    let file = |name: &str| format!("--from-file={}", proxies.join(name).display());
    let [certificate, key, trusted] = ["tls.crt", "tls.key", "ca.crt"].map(file);
    cluster.run(&["-n", ITS, "create", "secret", "generic", "weir-proxy-tls", &certificate, &key, &trusted]);
    let file = |name: &str| served.join(name).display().to_string();
    let module = artefacts::wasm().display().to_string();
    Adapter::start_in_cluster(
        kubeconfig,
        &[
            "--tls-cert",
            &file("tls.crt"),
            "--tls-key",
            &file("tls.key"),
            "--tls-client-ca",
            &file("ca.crt"),
            "--wasm",
            &module,
        ],
    )
}

/// What `make kind-up` applies, with the ports of this machine's adapter; no controller makes the LLM's endpoints.
fn install(cluster: &Cluster, adapter: &Adapter, llm: SocketAddr) {
    cluster.run(&["apply", "-f", "manifests/kind", "-f", "manifests/kind/envoy-gateway"]);
    endpoint(cluster, &cluster.get(&["service", "llm"]), llm.port());
    let digest = adapter.get("/weir.wasm.sha256").text();
    let ours = manifest("envoyextensionpolicy.yaml");
    let ours = [
        ("0".repeat(64), digest.trim().to_owned()),
        ("llm-gateway".to_owned(), "api-gateway".to_owned()),
        (":8080/".to_owned(), format!(":{}/", adapter.http().port())),
        ("port_value: 8081".to_owned(), format!("port_value: {}", adapter.grpc().port())),
    ]
    .iter()
    .fold(ours, |text, (from, to)| {
        assert!(text.contains(from), "the manifest has no {from}");
        text.replace(from, to)
    });
    cluster.apply(&ours);
}

/// What the controller of endpoints would have made of a Service's pods.
fn endpoint(cluster: &Cluster, service: &Value, port: u16) {
    let mut metadata = json!({ "labels": service["metadata"]["labels"] });
    for field in ["name", "namespace"] {
        metadata[field] = service["metadata"][field].clone();
    }
    metadata["labels"]["kubernetes.io/service-name"] = metadata["name"].clone();
    let name = service["spec"]["ports"][0]["name"].as_str().unwrap_or_default();
    cluster.apply(
        &json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "ports": [{ "name": name, "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [OUTSIDE], "conditions": { "ready": true } }],
        })
        .to_string(),
    );
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
fn proxy(cluster: &Cluster, folder: &Path) -> Process {
    let label = "gateway.envoyproxy.io/owning-gateway-name=api-gateway";
    let mut spec = wait::until("the proxy's Deployment", || {
        let found =
            cluster.get(&["-n", ITS, "deployment", "-l", label])["items"][0]["spec"]["template"]["spec"]
                .clone();
        (!found.is_null()).then_some(found)
    });
    // The proxy asks for its own endpoints, and waits for an answer.
    endpoint(cluster, &cluster.get(&["-n", ITS, "service", "-l", label])["items"][0], LISTENER.1);
    let arguments = spec["containers"][0]["args"].as_array_mut().unwrap();
    arguments.push("--disable-hot-restart".into());
    pod::start(cluster, ("envoy", ITS, &spec), &artefacts::envoy(), folder)
}

fn manifest(path: &str) -> String {
    std::fs::read_to_string(artefacts::root().join("manifests/envoy-gateway").join(path)).unwrap()
}

fn named(version: &str, kind: &str, name: &str, spec: Value) -> String {
    let metadata = json!({ "name": name, "namespace": "default" });
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec }).to_string()
}
