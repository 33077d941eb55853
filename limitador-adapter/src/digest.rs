//! Hashes as text.

use sha2::{Digest, Sha256};

/// Returns the SHA-256 of these bytes in hexadecimal.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the first 128 bits of it.
pub fn half_sha256(bytes: impl AsRef<[u8]>) -> String {
    let mut digits = sha256(bytes);
    digits.truncate(32);
    digits
}
