//! Recalls of leases. A bucket without room for a call may have leases that their workers do not use. When the adapter
//! recalls them, the workers return them. A recall names a bucket by a number that all adapters compute in the same way.

use crate::ledger::{Key, key_text};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::broadcast;

/// The number of recalls that are kept for a slow stream. If more are waiting, all leases of its worker are recalled.
const MAX_WAITING: usize = 1024;

/// What is recalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// The leases of the bucket with this number.
    Bucket(u64),
    /// All leases, because recalls may have been lost.
    All,
}

/// Passes recalls on to the streams of this adapter.
#[derive(Debug)]
pub struct Recalls {
    streams: broadcast::Sender<Recall>,
    reach_all: AtomicBool,
}

impl Default for Recalls {
    fn default() -> Self {
        Self { streams: broadcast::channel(MAX_WAITING).0, reach_all: AtomicBool::new(true) }
    }
}

impl Recalls {
    /// Recalls the leases of these buckets.
    pub fn pass_on(&self, buckets: &[u64]) {
        for bucket in buckets {
            // Without a stream there is no worker to tell.
            drop(self.streams.send(Recall::Bucket(*bucket)));
        }
    }

    /// Recalls all leases.
    pub fn pass_on_all(&self) {
        drop(self.streams.send(Recall::All));
    }

    /// Sets whether recalls reach the workers of all adapters.
    pub fn set_reach(&self, reach_all: bool) {
        self.reach_all.store(reach_all, Ordering::Relaxed);
    }

    /// Whether recalls reach the workers of all adapters.
    pub fn reach_all(&self) -> bool {
        self.reach_all.load(Ordering::Relaxed)
    }

    /// Returns the recalls that follow.
    pub fn subscribe(&self) -> broadcast::Receiver<Recall> {
        self.streams.subscribe()
    }
}

/// Returns the number of a bucket.
pub fn number_of(key: &Key) -> u64 {
    let digest: [u8; 32] = Sha256::digest(key_text::of(key)).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
