//! The adapter as its Deployment starts it: in a cluster, with the module and mutual TLS.

use crate::adapter::Adapter;
use crate::artefacts;
use crate::certificates::Authority;
use crate::cluster::Cluster;
use std::path::Path;

/// The Secret with the proxies' certificate.
const SECRET: &str = "weir-proxy-tls";

/// See the module.
pub struct Installed {
    /// The adapter.
    pub adapter: Adapter,
    authority: Authority,
    namespace: String,
}

impl Installed {
    /// Starts it, its files in this folder, with further arguments; the proxies' certificate is in this namespace.
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
        let module = artefacts::wasm().display().to_string();
        let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &trusted];
        let arguments = [tls.as_slice(), &["--wasm", &module], further].concat();
        let adapter = Adapter::start_in_cluster(kubeconfig, &arguments);
        let installed = Self { adapter, authority, namespace: namespace.to_owned() };
        installed.renew(cluster);
        installed
    }

    /// Gives the proxies another certificate.
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

    /// A manifest of `manifests/` for this adapter's ports and module, and for the Gateway of that name.
    pub fn manifest(&self, path: &str, gateway: &str) -> String {
        let text = std::fs::read_to_string(artefacts::root().join("manifests").join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let digest = self.adapter.get("/weir.wasm.sha256").text();
        [
            ("0".repeat(64), digest.trim().to_owned()),
            ("llm-gateway".to_owned(), gateway.to_owned()),
            (":8080/".to_owned(), format!(":{}/", self.adapter.http().port())),
            ("port_value: 8081".to_owned(), format!("port_value: {}", self.adapter.grpc().port())),
            ("port_value: 8080".to_owned(), format!("port_value: {}", self.adapter.http().port())),
        ]
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
    }
}
