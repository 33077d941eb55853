//! Results that a provider creates in the background. The creator's holds stay until the usage is seen. Then
//! the creator is charged, even if someone else reads the result.
//!
//! Each result has one record under the provider's id. Several reads may show different usage, such as the
//! part that was delivered before a stream was cut, and later the whole. Each rate is charged the largest
//! usage, once.

use super::{Charge, Key};
use crate::digest::half_sha256;
use llm::response::Usage;
use policy::model::UsageCost;
use std::sync::Arc;
use std::time::Duration;

/// How long an unread result is remembered. Its holds expire earlier.
pub const UNSEEN: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a result is remembered after it was read. Another read may show more usage.
pub const SEEN: Duration = Duration::from_secs(30 * 60);

/// How long a read of an unknown result is remembered. The creation may still arrive from another gateway.
pub const EARLY: Duration = Duration::from_secs(60);

/// The maximum number of remembered results. Further results are charged at once for what they held.
pub const MAX_STORED: usize = 1 << 17;

/// The id of a result. Providers may choose any text, so it is a hash of the provider's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredId(String);

impl StoredId {
    /// Hashes the id as the provider spells it.
    pub fn of(id: &str) -> Self {
        Self(half_sha256(id))
    }

    /// Returns the id with these digits.
    #[cfg(feature = "sqlite")]
    pub(super) fn recorded(digits: String) -> Self {
        Self(digits)
    }

    /// Returns 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A result that is being created.
#[derive(Clone, Debug)]
pub struct StoredResult {
    pub id: StoredId,
    /// The estimated input in tokens.
    pub input: u64,
}

/// The charges of one rate when a creation ends.
#[derive(Clone, Debug)]
pub struct CreationCharge {
    /// The charge if nothing is deferred, or if the result cannot be remembered.
    pub charge: Charge,
    /// The charge that waits for the usage.
    pub deferred: Option<DeferredCharge>,
}

/// A charge that waits for the usage of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredCharge {
    /// The part that is charged at once.
    pub now: u64,
    /// The total cost of the usage.
    pub cost: UsageCost,
}

/// The usage of a result as one read showed it.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub id: StoredId,
    pub usage: Usage,
    /// Only a part was read: the output is estimated, and the input is unknown.
    pub is_partial: bool,
    /// The result is complete.
    pub ends: bool,
}

impl Sighting {
    /// Returns the least usage that this read proves. `input` is the estimated input.
    pub fn usage_with(&self, input: u64) -> Usage {
        if !self.is_partial {
            return self.usage;
        }
        let input = self.usage.input.max(input);
        let total = input.saturating_add(self.usage.output).max(self.usage.total);
        Usage { input, total, ..self.usage }
    }

    /// Returns whether this read shows more than another read of the same result.
    pub fn supersedes(&self, other: &Self) -> bool {
        let worth = |it: &Self| (it.ends, !it.is_partial, it.usage.total);
        worth(self) >= worth(other)
    }
}

/// The charges of a read per bucket. If a bucket's key is no longer known, the bucket is charged but not
/// listed here.
pub type SeenCharges = Vec<(Arc<Key>, u64)>;

/// The outcome of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What this read has charged.
    pub charged: SeenCharges,
    /// The result so far. `None` if its creation is unknown, or was forgotten.
    pub result: Option<ResultCharges>,
}

/// A result that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultCharges {
    /// The usage that this read proves.
    pub usage: Usage,
    /// What each deferred charge has charged so far, at the creation and by all reads.
    pub charges: SeenCharges,
}

/// The outcome of ending a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parking {
    /// The deferred charges wait. Lists the charges of reads that arrived earlier.
    Parked(SeenCharges),
    /// Nothing is deferred, and everything is charged, because another unread result has this id or there are
    /// too many results.
    Charged,
    /// The reservation was settled before. Nothing changes.
    AlreadySettled,
}
