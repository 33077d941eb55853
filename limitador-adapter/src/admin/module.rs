//! The filter's module, for proxies that fetch it here instead of from a registry.

use axum::body::Bytes;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The module's bytes, and what they are known by.
#[derive(Clone, Debug)]
pub struct Module {
    /// As it was built.
    pub bytes: Bytes,
    /// Hexadecimal.
    pub sha256: String,
}

impl Module {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes: bytes.into(), sha256 })
    }
}
