//! Results that a provider makes in the background: who created one holds until its usage is seen, and is then charged,
//! whoever sees it.
//!
//! A result has one record, by the provider's id of it. Several sightings may show several usages, such as what was
//! delivered before a stream was cut and then the whole: each rate is charged the largest, once.

use super::{Charge, Key};
use llm::response::Usage;
use policy::model::UsageCost;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// A result that nobody has seen is remembered for so long. Its holds end before, by their own time.
pub const UNSEEN: Duration = Duration::from_secs(24 * 60 * 60);

/// A result that has been seen is remembered for so long: another sighting may show more.
pub const SEEN: Duration = Duration::from_secs(30 * 60);

/// A sighting whose result is not known is remembered for so long: the creation may be on its way from another gateway.
pub const EARLY: Duration = Duration::from_secs(60);

/// So many results are remembered, at most. Those beyond it are charged at once for what they held.
pub const MAX_STORED: usize = 1 << 17;

/// The provider's id of a result. A provider may choose any text, so it is a hash of that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredId(String);

impl StoredId {
    /// As the provider spells it.
    pub fn of(id: &str) -> Self {
        let digest = Sha256::digest(id.as_bytes());
        Self(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A result in the making.
#[derive(Clone, Debug)]
pub struct StoredResult {
    /// Its id.
    pub id: StoredId,
    /// The estimate of its input, in tokens.
    pub input: u64,
}

/// What the end of a creation charges of one rate.
#[derive(Clone, Debug)]
pub struct CreationCharge {
    /// What is charged if nothing is deferred, or if the result cannot be remembered.
    pub charge: Charge,
    /// What waits for the usage.
    pub deferred: Option<DeferredCharge>,
}

/// A charge that waits for the usage of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredCharge {
    /// Charged at once.
    pub now: u64,
    /// What the usage will cost in all.
    pub cost: UsageCost,
}

/// What somebody has seen of a result.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Whose.
    pub id: StoredId,
    /// What it shows.
    pub usage: Usage,
    /// Only a part has been seen: its output is estimated, its input is not known.
    pub is_partial: bool,
    /// There will be no more of it.
    pub ends: bool,
}

impl Sighting {
    /// What was used at least. `input`: the estimate of the input.
    pub fn usage_with(&self, input: u64) -> Usage {
        if !self.is_partial {
            return self.usage;
        }
        let input = self.usage.input.max(input);
        let total = input.saturating_add(self.usage.output).max(self.usage.total);
        Usage { input, total, ..self.usage }
    }

    /// Whether it tells more than another of the same result.
    pub fn supersedes(&self, other: &Self) -> bool {
        let worth = |it: &Self| (it.ends, !it.is_partial, it.usage.total);
        worth(self) >= worth(other)
    }
}

/// What a sighting charged, by bucket. A bucket whose key is no longer known is charged, and left out here.
pub type SeenCharges = Vec<(Arc<Key>, u64)>;

/// What became of the end of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parking {
    /// The deferred charges wait. What was charged for an early sighting.
    Parked(SeenCharges),
    /// Nothing waits, and everything is charged: another result in the making has this id, or there are too many.
    Charged,
    /// Nothing: the reservation was settled before.
    AlreadySettled,
}
