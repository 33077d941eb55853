//! Istio's control plane, the adapter with Redis, an LLM, and the proxy of a Gateway, which tests can stop
//! and start.

use crate::control_plane;
use e2e::adapter::Adapter;
use e2e::client::{Request, Response};
use e2e::cluster::Cluster;
use e2e::installed::Installed;
use e2e::module::ModuleVersion;
use e2e::network::PodNetwork;
use e2e::outage::{self, Proxies};
use e2e::pod::Pod;
use e2e::process::Process;
use e2e::redis::Redis;
use e2e::shared_world::SharedWorld;
use e2e::upstream::Upstream;
use e2e::{artefacts, pod, probe, wait};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The Gateway of `manifests/kind/istio`.
pub const GATEWAY: &str = "api-gateway";
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 80);
const HEALTH: ([u8; 4], u16) = ([127, 0, 0, 1], 15021);
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 15000);
/// The volume with the proxies' certificate.
const CERTIFICATE: &str = "weir-tls";

/// The world that all tests share.
pub struct World {
    pub cluster: Cluster,
    pub installed: Installed,
    /// The adapter's storage.
    pub redis: Redis,
    /// Another version of the module, which the adapter also serves.
    pub other: ModuleVersion,
    proxy: Option<Process>,
    /// A second proxy in a separate network.
    another: Option<Process>,
    another_template: Value,
    network: PodNetwork,
    _upstream: Upstream,
    _istiod: Process,
    folder: TempDir,
}

impl SharedWorld for World {
    /// Starts everything except policies.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bootstrap = Path::new("/var/lib/istio/envoy");
        std::fs::create_dir_all(bootstrap).unwrap();
        let template = artefacts::istio("envoy_bootstrap.json");
        std::fs::copy(template, bootstrap.join("envoy_bootstrap_tmpl.json")).unwrap();
        let cluster = Cluster::start();
        let kubeconfig = cluster.install();
        let istiod = control_plane::start(&cluster, folder.path());
        let redis = Redis::start();
        let other = ModuleVersion::new(folder.path(), "other");
        let further = ["--storage", &redis.url(0), "--wasm-previous", &other.file];
        let installed = Installed::start(&cluster, &kubeconfig, folder.path(), "default", &further);
        let upstream = Upstream::listen(&format!("{}:0", pod::ADDRESS)).unwrap();
        cluster.run(&["apply", "-f", "manifests/kind", "-f", "manifests/kind/istio"]);
        cluster.endpoint(&cluster.get(&["service", "llm"]), pod::ADDRESS, upstream.address().port());
        let world = Self {
            cluster,
            installed,
            redis,
            other,
            proxy: None,
            another: None,
            another_template: Value::Null,
            network: PodNetwork::new(1),
            _upstream: upstream,
            _istiod: istiod,
            folder,
        };
        world.apply_filter();
        world
    }

    fn show_logs(&self) {
        self.installed.adapters.iter().for_each(Adapter::show_log);
        self.proxy.iter().chain(&self.another).for_each(Process::show_log);
    }
}

/// The name of the second proxy's pod.
const OTHER: &str = "another-istio";

impl Proxies for World {
    const NAME: &'static str = "Istio";

    fn running(&self) -> SocketAddr {
        address()
    }

    fn start_another(&mut self) -> SocketAddr {
        let agent = artefacts::istio("pilot-agent");
        let template = self.another_template.clone();
        let process = self.other_pod(&template).start_again(&self.cluster, &agent, self.folder.path());
        self.another = Some(process);
        self.at_other(LISTENER.1)
    }

    fn other_is_ready(&self) -> bool {
        is_healthy(self.at_other(HEALTH.1))
    }

    fn end_other(&mut self) {
        end(&mut self.another);
    }
}

impl World {
    /// Applies the filter's manifest.
    pub fn apply_filter(&self) {
        self.cluster.apply(&self.installed.manifest("istio/envoyfilter.yaml", GATEWAY));
    }

    /// Restores what a test may have changed: the filter's manifest, RequestAuthentication, the adapter, a
    /// policy of 20,000 tokens for each user, and a proxy that enforces it.
    pub fn settle(&mut self, failure_mode: &str) {
        self.end_other();
        self.cluster.revive();
        self.redis.revive();
        self.installed.revive();
        self.cluster.run(&["apply", "-f", "manifests/kind/istio"]);
        self.apply_filter();
        self.cluster.run(&["delete", "--ignore-not-found", "wtrlp", "allow", "deny"]);
        self.cluster.apply(&probe::policy(GATEWAY, failure_mode));
        if self.proxy.is_none() {
            self.start_proxy(GATEWAY);
        }
        self.is_ready_within(wait::DEADLINE);
        probe::becomes(address(), probe::LIMITED);
    }

    /// Restores the same state with the outage policies, and prepares the files that a second proxy needs to
    /// start without the API server.
    pub fn settle_for_outage(&mut self) {
        self.settle("Allow");
        self.cluster.run(&["delete", "wtrlp", "per-user"]);
        outage::policies(GATEWAY).iter().for_each(|policy| self.cluster.apply(policy));
        outage::is_enforced(address());
        self.another_template = self.template(GATEWAY);
        self.other_pod(&self.another_template).prepare(&self.cluster, self.folder.path());
    }

    fn other_pod<'a>(&'a self, template: &'a Value) -> Pod<'a> {
        Pod { name: OTHER, namespace: "default", template, network: Some(&self.network) }
    }

    fn at_other(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.network.address.parse().unwrap(), port)
    }

    /// Starts the proxy that istiod specifies for a Gateway, without waiting until it is ready.
    pub fn start_proxy(&mut self, gateway: &str) {
        let template = self.template(gateway);
        self.start_pod(gateway, &template);
    }

    /// Starts the proxy without the volume that contains the certificate.
    pub fn start_proxy_without_certificate(&mut self) {
        let mut template = self.template(GATEWAY);
        let mounts = template["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
        let before = mounts.len();
        mounts.retain(|mount| mount["name"] != CERTIFICATE);
        assert_eq!(mounts.len() + 1, before, "the certificate was mounted");
        self.start_pod(GATEWAY, &template);
    }

    fn start_pod(&mut self, gateway: &str, template: &Value) {
        self.stop_proxy();
        let name = format!("{gateway}-istio");
        let pod = Pod { name: &name, namespace: "default", template, network: None };
        let agent = artefacts::istio("pilot-agent");
        self.proxy = Some(pod.start(&self.cluster, &agent, self.folder.path()));
    }

    fn template(&self, gateway: &str) -> Value {
        wait::until("the proxy's Deployment", || {
            let found = self.cluster.get(&["deployment", &format!("{gateway}-istio")]);
            let template = found["spec"]["template"].clone();
            (!template.is_null()).then_some(template)
        })
    }

    /// Stops the proxy. The agent also stops its Envoy.
    pub fn stop_proxy(&mut self) {
        end(&mut self.proxy);
    }

    /// Updates the volume as a kubelet does when the Secret has changed.
    pub fn renew_certificate(&self) {
        self.installed.renew(&self.cluster);
        let template = self.template(GATEWAY);
        let name = format!("{GATEWAY}-istio");
        let pod = Pod { name: &name, namespace: "default", template: &template, network: None };
        pod.renew(&self.cluster, CERTIFICATE, self.folder.path());
    }

    /// Returns whether the proxy is ready, as a kubelet would check.
    pub fn is_ready(&self) -> bool {
        is_healthy(HEALTH.into())
    }

    /// Waits until the proxy is ready, and returns how long that took.
    pub fn is_ready_within(&self, time: Duration) -> Duration {
        let start = Instant::now();
        let ready = wait::within(time, || self.is_ready().then_some(()));
        assert!(ready.is_some(), "the proxy is not ready within {time:?}: {:?}", self.filters());
        start.elapsed()
    }

    /// Returns a page of Envoy's admin interface.
    pub fn admin(&self, path: &str) -> Response {
        Request::get(path).send(ADMIN.into())
    }

    /// Returns the names of the listeners' HTTP filters.
    pub fn filters(&self) -> Vec<String> {
        let Ok(dump) = Request::get("/config_dump?resource=dynamic_listeners").try_send(ADMIN.into()) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        collect(&dump.json(), &mut names);
        names
    }

    /// Returns the parts of the configuration that Envoy has rejected.
    pub fn rejections(&self) -> Vec<String> {
        let stats = self.admin("/stats?filter=update_rejected").text();
        stats.lines().filter(|line| !line.ends_with(": 0")).map(str::to_owned).collect()
    }
}

fn collect(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let filters = fields.get("http_filters").and_then(Value::as_array).into_iter().flatten();
            names.extend(filters.filter_map(|filter| filter["name"].as_str().map(str::to_owned)));
            fields.values().for_each(|value| collect(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

fn is_healthy(at: SocketAddr) -> bool {
    Request::get("/healthz/ready").try_send(at).is_ok_and(|answer| answer.status == 200)
}

fn end(proxy: &mut Option<Process>) {
    if let Some(mut proxy) = proxy.take() {
        proxy.terminate();
    }
}

/// Returns the address of the Gateway.
pub fn address() -> SocketAddr {
    LISTENER.into()
}
