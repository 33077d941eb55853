//! Where the built artefacts and the repository's files are.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// The Wasm module: `$WEIR_WASM`, or `dist/weir.wasm`.
pub fn wasm() -> PathBuf {
    find("WEIR_WASM", "dist/weir.wasm")
}

/// The adapter: `$WEIR_ADAPTER`, or `dist/limitador-adapter`.
pub fn adapter() -> PathBuf {
    find("WEIR_ADAPTER", "dist/limitador-adapter")
}

/// Envoy: `$WEIR_ENVOY`, or the one in the project's own virtual environment.
pub fn envoy() -> PathBuf {
    find("WEIR_ENVOY", ".tools/venv/bin/envoy")
}

fn find(variable: &str, place: &str) -> PathBuf {
    let path = root().join(std::env::var_os(variable).map_or_else(|| PathBuf::from(place), PathBuf::from));
    assert!(path.exists(), "{} is missing: run `make build`, or name another in {variable}", path.display());
    path
}
