//! Several versions of the module, for tests of upgrades.

use crate::artefacts;
use sha2::{Digest, Sha256};
use std::path::Path;

/// One version of the module: the same code with a custom section that changes its digest.
pub struct ModuleVersion {
    /// The path of the file.
    pub file: String,
    /// The digest in manifests.
    pub digest: String,
}

impl ModuleVersion {
    /// Writes the version to this folder.
    pub fn new(folder: &Path, version: &str) -> Self {
        let mut bytes = std::fs::read(artefacts::wasm()).expect("the module can be read");
        let name = u8::try_from(version.len()).expect("a short name");
        bytes.extend([0, name + 1, name]);
        bytes.extend(version.as_bytes());
        let file = folder.join(format!("{version}.wasm"));
        std::fs::write(&file, &bytes).expect("a file can be written");
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { file: file.display().to_string(), digest }
    }
}
