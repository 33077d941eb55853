//! Envoy Gateway's control plane, the adapter with Redis, an LLM, and the proxy of a Gateway, which tests can
//! restart.

use crate::control_plane::ControlPlane;
use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::cluster::Cluster;
use e2e::installed::Installed;
use e2e::network::PodNetwork;
use e2e::outage::{self, Proxies};
use e2e::pod::Pod;
use e2e::process::Process;
use e2e::redis::Redis;
use e2e::shared_world::SharedWorld;
use e2e::upstream::Upstream;
use e2e::{artefacts, pod, probe, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;

/// Envoy Gateway's namespace.
pub const ITS: &str = "envoy-gateway-system";
/// The Gateway of `manifests/kind/envoy-gateway`.
pub const GATEWAY: &str = "api-gateway";
const MANIFEST: &str = "envoy-gateway/envoyextensionpolicy.yaml";
/// The port that Envoy Gateway uses for the listener on port 80.
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 10_080);
/// The admin port of its proxies.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 19_000);
/// The port on which a kubelet checks whether its proxies are ready.
const READY: u16 = 19_003;

/// The world that all tests share.
pub struct World {
    pub cluster: Cluster,
    pub installed: Installed,
    /// The adapter's storage.
    pub redis: Redis,
    pub upstream: Arc<Upstream>,
    /// The proxy's pod template from Envoy Gateway's Deployment.
    template: Value,
    proxy: Process,
    /// A second proxy in a separate network.
    another: Option<Process>,
    network: PodNetwork,
    control_plane: ControlPlane,
    /// The folder for files.
    pub folder: TempDir,
}

impl SharedWorld for World {
    /// Starts everything except policies.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::start();
        let kubeconfig = cluster.install();
        let control_plane = ControlPlane::start(&cluster, folder.path());
        let redis = Redis::start();
        let storage = ["--storage", &redis.url(0)];
        let installed = Installed::start(&cluster, &kubeconfig, folder.path(), ITS, &storage);
        let upstream = Arc::new(Upstream::listen(&format!("{}:0", pod::ADDRESS)).unwrap());
        // Applies what `make kind-up` applies. There is no controller that creates the LLM's endpoints.
        cluster.run(&["apply", "-f", "manifests/kind", "-f", "manifests/kind/envoy-gateway"]);
        cluster.endpoint(&cluster.get(&["service", "llm"]), pod::ADDRESS, upstream.address().port());
        cluster.apply(&installed.manifest(MANIFEST, GATEWAY));
        let template = proxy_template(&cluster);
        let proxy = first_pod(&template).start(&cluster, &artefacts::envoy(), folder.path());
        let network = PodNetwork::new(1);
        Self {
            cluster,
            installed,
            redis,
            upstream,
            template,
            proxy,
            another: None,
            network,
            control_plane,
            folder,
        }
    }

    fn show_logs(&self) {
        self.control_plane.show_log();
        self.installed.adapters.iter().for_each(Adapter::show_log);
        self.another.iter().chain([&self.proxy]).for_each(Process::show_log);
    }
}

impl Proxies for World {
    const NAME: &'static str = "Envoy Gateway";

    fn running(&self) -> SocketAddr {
        address()
    }

    fn start_another(&mut self) -> SocketAddr {
        let process = self.other_pod().start_again(&self.cluster, &artefacts::envoy(), self.folder.path());
        self.another = Some(process);
        self.at_other(LISTENER.1)
    }

    fn other_is_ready(&self) -> bool {
        let answer = Request::get("/ready").try_send(self.at_other(READY));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    fn end_other(&mut self) {
        drop(self.another.take());
    }
}

impl World {
    /// Applies the filter's manifest with the module of this digest.
    pub fn apply_filter(&self, digest: &str) {
        self.cluster.apply(&self.installed.manifest_for(MANIFEST, GATEWAY, digest));
    }

    /// Restores everything that a test may have changed, puts the outage policies into force, and prepares
    /// the files that a second proxy needs to start without the API server.
    pub fn settle_for_outage(&mut self) {
        self.end_other();
        self.cluster.revive();
        self.redis.revive();
        self.installed.revive();
        self.cluster.run(&["delete", "--ignore-not-found", "wtrlp", "per-user"]);
        outage::policies(GATEWAY).iter().for_each(|policy| self.cluster.apply(policy));
        outage::is_enforced(address());
        self.other_pod().prepare(&self.cluster, self.folder.path());
    }

    /// Restores the same state, but with one policy of 20,000 tokens for each user.
    pub fn settle(&mut self, failure_mode: &str) {
        self.cluster.run(&["delete", "--ignore-not-found", "wtrlp", "allow", "deny"]);
        self.cluster.apply(&probe::policy(GATEWAY, failure_mode));
        probe::becomes(address(), probe::LIMITED);
    }

    fn other_pod(&self) -> Pod<'_> {
        let (template, network) = (&self.template, Some(&self.network));
        Pod { name: "another-envoy", namespace: ITS, template, network }
    }

    fn at_other(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.network.address.parse().unwrap(), port)
    }

    /// Updates the volume as a kubelet does when the Secret has changed.
    pub fn renew_certificate(&self) {
        self.installed.renew(&self.cluster);
        first_pod(&self.template).renew(&self.cluster, "weir-tls", self.folder.path());
    }

    /// Returns whether all workers of the proxy have the module of this digest, and no other module is
    /// pending.
    pub fn has_module(&self, digest: &str) -> bool {
        let dump = self.admin("/config_dump?resource=dynamic_listeners").text();
        dump.contains(digest) && !dump.contains("warming_state")
    }

    /// Replaces the running control plane with another one.
    pub fn restart_control_plane(&mut self) {
        self.control_plane.restart(&self.cluster, self.folder.path());
    }

    /// Returns a page of Envoy's admin interface.
    pub fn admin(&self, path: &str) -> e2e::client::Response {
        Request::get(path).send(ADMIN.into())
    }

    /// Waits until an object's condition is true, wherever its kind stores conditions.
    pub fn holds(&self, kind: &str, name: &str, condition: &str) {
        let mut last = Value::Null;
        let held = wait::within(wait::DEADLINE, || {
            last = self.cluster.get(&[kind, name])["status"].clone();
            let of_parents = last["ancestors"].as_array().into_iter().flatten();
            let lists =
                [&last].into_iter().chain(of_parents).filter_map(|part| part["conditions"].as_array());
            lists.flatten().any(|told| told["type"] == condition && told["status"] == "True").then_some(())
        });
        assert!(held.is_some(), "the {kind} {name} is not {condition}: {last:#}");
        println!("{kind} {name}: {condition}");
    }
}

/// Returns the proxy's pod template from Envoy Gateway's Deployment.
fn proxy_template(cluster: &Cluster) -> Value {
    let label = "gateway.envoyproxy.io/owning-gateway-name=api-gateway";
    let mut template = wait::until("the proxy's Deployment", || {
        let found = &cluster.get(&["-n", ITS, "deployment", "-l", label])["items"][0];
        // The Deployment changes when Envoy Gateway processes the EnvoyProxy with the certificate.
        let template = found["spec"]["template"].clone();
        template.to_string().contains("/etc/weir").then_some(template)
    });
    // The proxy requests its own endpoints and waits for them.
    let service = cluster.get(&["-n", ITS, "service", "-l", label])["items"][0].clone();
    cluster.endpoint(&service, pod::ADDRESS, LISTENER.1);
    let arguments = template["spec"]["containers"][0]["args"].as_array_mut().unwrap();
    arguments.push("--disable-hot-restart".into());
    template
}

fn first_pod(template: &Value) -> Pod<'_> {
    Pod { name: "envoy", namespace: ITS, template, network: None }
}

/// Returns the address of the Gateway.
pub fn address() -> SocketAddr {
    LISTENER.into()
}

/// Returns an object in the namespace `default`.
pub fn object(version: &str, kind: &str, name: &str, spec: Value) -> String {
    let metadata = json!({ "name": name, "namespace": "default" });
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec }).to_string()
}
