//! The filter's modules, for proxies that fetch them from the adapter instead of a registry.

use crate::digest;
use axum::body::Bytes;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A module and its digest.
#[derive(Clone, Debug)]
pub struct Module {
    pub bytes: Bytes,
    /// The digest in hexadecimal.
    pub sha256: String,
}

impl Module {
    /// Reads a module from a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let sha256 = digest::sha256(&bytes);
        Ok(Self { bytes: bytes.into(), sha256 })
    }
}

/// The modules of this version and of other versions. A proxy's configuration names a module by its digest.
/// During an upgrade, the adapter and that configuration do not change at the same time.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    current: Option<Module>,
    previous: Arc<[Module]>,
}

impl Modules {
    /// Reads `current` and all modules of `previous`. A folder in `previous` stands for the `.wasm` files in
    /// it.
    pub fn read(current: Option<&Path>, previous: &[PathBuf]) -> Result<Self, String> {
        let current = current.map(Module::read).transpose()?;
        let mut modules = Vec::new();
        for path in previous {
            for file in files(path)? {
                modules.push(Module::read(&file)?);
            }
        }
        Ok(Self { current, previous: modules.into() })
    }

    /// Returns the module of this version.
    pub fn current(&self) -> Option<&Module> {
        self.current.as_ref()
    }

    /// Returns the module with the digest in `weir-DIGEST.wasm`.
    pub fn named(&self, file: &str) -> Option<&Module> {
        let digest = file.strip_prefix("weir-")?.strip_suffix(".wasm")?;
        self.current.iter().chain(self.previous.iter()).find(|module| module.sha256 == digest)
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error| format!("{}: {error}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension() == Some(OsStr::new("wasm")) {
            files.push(file);
        }
    }
    Ok(files)
}
