//! What a Reserve held and how its limits stood, for spans and for `explain --watch`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A Reserve and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedReserve {
    pub admitted: bool,
    pub rates: Vec<ObservedRate>,
}

/// One rate of a limit that applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedRate {
    pub policy: String,
    pub limit: String,
    pub unit: String,
    /// The window in readable form: `24h`, `month (UTC)`. It is empty for `concurrency`.
    pub window: String,
    pub counters: BTreeMap<String, String>,
    /// The amount to hold.
    pub hold: u64,
    pub max: u64,
    pub used: u64,
    pub remaining: u64,
    pub resets_in_seconds: Option<u64>,
    /// Whether this rate had room.
    pub has_room: bool,
    pub enforced: bool,
}
