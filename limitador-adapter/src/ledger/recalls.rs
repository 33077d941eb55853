//! Recalls of leases. A bucket without room for a call may have leases that their workers do not use. When the adapter
//! recalls them, the workers return them. A recall names a bucket by a number that all adapters compute in the same way.

use crate::ledger::{Key, key_text};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

/// The number of recalls that are kept for a slow stream. Older ones are lost, and are made again when another call
/// finds no room.
const MAX_WAITING: usize = 1024;

/// Passes recalls on to the streams of this adapter.
#[derive(Debug)]
pub struct Recalls(broadcast::Sender<u64>);

impl Default for Recalls {
    fn default() -> Self {
        Self(broadcast::channel(MAX_WAITING).0)
    }
}

impl Recalls {
    /// Recalls the leases of these buckets.
    pub fn pass_on(&self, buckets: &[u64]) {
        for bucket in buckets {
            // Without a stream there is no worker to tell.
            drop(self.0.send(*bucket));
        }
    }

    /// Returns the recalls that follow.
    pub fn subscribe(&self) -> broadcast::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Returns the number of a bucket.
pub fn number_of(key: &Key) -> u64 {
    let digest: [u8; 32] = Sha256::digest(key_text::of(key)).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
