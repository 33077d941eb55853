//! What `explain --watch` shows: reserves as they are answered, for whoever waits for the next one. Nothing is made or kept while
//! nobody waits.

use crate::grpc::descriptors::FoundDescriptors;
use crate::ledger::LedgerOutcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Reserves that somebody who waits has not read yet; older ones are skipped.
const MAX_UNREAD: usize = 64;

/// Those who wait.
#[derive(Clone, Debug)]
pub struct Observers(broadcast::Sender<Arc<ObservedReserve>>);

/// A reserve and its answer.
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
    /// For people: `24h`, `month (UTC)`; empty for requests in flight.
    pub window: String,
    pub counters: BTreeMap<String, String>,
    /// What the request asked to hold.
    pub hold: u64,
    pub max: u64,
    pub used: u64,
    pub remaining: u64,
    pub resets_in_seconds: Option<u64>,
    /// Whether this rate had room.
    pub has_room: bool,
    pub enforced: bool,
}

impl Default for Observers {
    fn default() -> Self {
        Self(broadcast::channel(MAX_UNREAD).0)
    }
}

impl Observers {
    /// From now on.
    pub fn observe(&self) -> broadcast::Receiver<Arc<ObservedReserve>> {
        self.0.subscribe()
    }

    /// Whether anybody waits.
    pub fn is_any(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Shows a reserve to those who wait.
    pub fn show(&self, call: &FoundDescriptors<'_>, amounts: &[u64], outcome: &LedgerOutcome) {
        let rates =
            call.rates().zip(amounts).zip(&outcome.statuses).map(|(((named, _, key), amount), status)| {
                let (policy, limit) = key.limit.rsplit_once('/').unwrap_or(("", &key.limit));
                ObservedRate {
                    policy: policy.to_owned(),
                    limit: limit.to_owned(),
                    unit: key.unit.name().to_owned(),
                    window: key.window.to_string(),
                    counters: key.counters.iter().cloned().collect(),
                    hold: *amount,
                    max: status.max,
                    used: status.used,
                    remaining: status.remaining,
                    resets_in_seconds: key.window.ends().then_some(status.reset.as_secs()),
                    has_room: !status.limited && !status.excused,
                    enforced: !named.unenforced,
                }
            });
        let observed = ObservedReserve { admitted: outcome.admitted, rates: rates.collect() };
        // Whoever waited may have gone meanwhile.
        drop(self.0.send(Arc::new(observed)));
    }
}
