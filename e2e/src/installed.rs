//! Runs the adapter as its Deployment does: two replicas behind a Service, in a cluster, with the module and
//! mutual TLS.

use crate::adapter::Adapter;
use crate::artefacts;
use crate::certificates::Authority;
use crate::client::Request;
use crate::cluster::Cluster;
use crate::network::Service;
use crate::outage;
use crate::probe::USAGE_PATH;
use std::net::SocketAddr;
use std::path::Path;

/// The Service's address. `scripts/alone.sh` resolves the Service's name to it.
const ADDRESS: &str = "10.0.0.20";

/// The Secret with the proxies' certificate.
const SECRET: &str = "weir-proxy-tls";

/// The installed adapter.
pub struct Installed {
    pub adapters: Vec<Adapter>,
    service: Service,
    arguments: Vec<String>,
    authority: Authority,
    namespace: String,
}

impl Installed {
    /// Starts the replicas with this module and these additional arguments, and keeps their files in this
    /// folder. The proxies' certificate is in this namespace.
    pub fn start(
        cluster: &Cluster,
        kubeconfig: &Path,
        folder: &Path,
        namespace: &str,
        further: &[&str],
    ) -> Self {
        let served = folder.join("served");
        let authority = Authority::new("weir");
        std::fs::create_dir(&served).expect("a folder can be made");
        authority.write(&served, &["limitador-adapter.weir-system.svc"]);
        let file = |name: &str| served.join(name).display().to_string();
        let (certificate, key, trusted) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
        let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &trusted];
        let arguments: Vec<String> = tls.iter().chain(further).map(|&word| word.to_owned()).collect();
        let module = artefacts::wasm().display().to_string();
        let all = with(&arguments, &["--wasm", &module]);
        let adapters: Vec<_> = (0..2).map(|_| Adapter::start_in_cluster(kubeconfig, &words(&all))).collect();
        let ports = |port: fn(&Adapter) -> u16| adapters.iter().map(port).collect();
        let service = Service::new(
            ADDRESS,
            &[(8081, ports(|adapter| adapter.grpc().port())), (8080, ports(|adapter| adapter.http().port()))],
        );
        let namespace = namespace.to_owned();
        let installed = Self { adapters, service, arguments, authority, namespace };
        installed.renew(cluster);
        installed
    }

    /// Returns one of the replicas.
    pub fn adapter(&self) -> &Adapter {
        &self.adapters[0]
    }

    /// Kills all replicas.
    pub fn kill(&mut self) {
        self.adapters.iter_mut().for_each(Adapter::kill);
    }

    /// Restarts all replicas.
    pub fn restart(&mut self) {
        self.adapters.iter_mut().for_each(Adapter::restart);
    }

    /// Restarts replicas that a test has left stopped.
    pub fn revive(&mut self) {
        self.unsilence();
        let is_away = |adapter: &&mut Adapter| Request::get("/healthz").try_send(adapter.http()).is_err();
        self.adapters.iter_mut().filter(is_away).for_each(Adapter::restart);
    }

    /// Silences the node of the replica that this proxy uses.
    pub fn silence_one(&self, proxy: SocketAddr) {
        let silent = &self.adapters[outage::busiest(&self.adapters, proxy)];
        self.service.silence(&[silent.grpc().port(), silent.http().port()]);
    }

    /// Ends the node's silence.
    pub fn unsilence(&self) {
        self.service.unsilence();
    }

    /// Rolls out this module, one replica at a time. Each replica also serves the previous module.
    pub fn roll_out(&mut self, module: &str, previous: &str, between: impl Fn()) {
        let all = with(&self.arguments, &["--wasm", module, "--wasm-previous", previous]);
        for adapter in &mut self.adapters {
            adapter.replace(&words(&all));
            between();
        }
    }

    /// Replaces the proxies' certificate.
    pub fn renew(&self, cluster: &Cluster) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        self.authority.write(folder.path(), &["weir-proxy.weir-system.svc"]);
        let file = |name: &str| format!("--from-file={}", folder.path().join(name).display());
        let [certificate, key, trusted] = ["tls.crt", "tls.key", "ca.crt"].map(file);
        let create = ["-n", &self.namespace, "create", "secret", "generic", SECRET];
        let files = [&certificate, &key, &trusted, "--dry-run=client", "-o", "yaml"];
        let secret = cluster.run(&[create.as_slice(), &files].concat());
        cluster.apply(&secret);
    }

    /// Returns a manifest from `manifests/` for the Gateway with this name and the module that the replicas
    /// serve. Callers may read their own usage.
    pub fn manifest(&self, path: &str, gateway: &str) -> String {
        let digest = self.adapter().get("/weir.wasm.sha256").text();
        self.manifest_for(path, gateway, digest.trim())
    }

    /// Returns the same manifest for the module with this digest.
    pub fn manifest_for(&self, path: &str, gateway: &str, digest: &str) -> String {
        let text = std::fs::read_to_string(artefacts::root().join("manifests").join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let usage_path = format!("usagePath: {USAGE_PATH}");
        let text = text.replace(&format!("# {usage_path}"), &usage_path);
        text.replace(&"0".repeat(64), digest).replace("llm-gateway", gateway)
    }
}

fn with(arguments: &[String], further: &[&str]) -> Vec<String> {
    arguments.iter().cloned().chain(further.iter().map(|&word| word.to_owned())).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
