//! Publishes Reserves for `explain --watch` as they are answered. If no reader is waiting, nothing is built
//! or kept.

use crate::grpc::descriptors::FoundDescriptors;
use crate::ledger::LedgerOutcome;
use crate::observed::{ObservedRate, ObservedReserve};
use std::sync::Arc;
use tokio::sync::broadcast;

/// The number of unread Reserves that are kept for a slow reader. Older ones are skipped.
const MAX_UNREAD: usize = 64;

/// The readers.
#[derive(Clone, Debug)]
pub struct Observers(broadcast::Sender<Arc<ObservedReserve>>);

impl Default for Observers {
    fn default() -> Self {
        Self(broadcast::channel(MAX_UNREAD).0)
    }
}

impl Observers {
    /// Subscribes to the Reserves that follow.
    pub fn observe(&self) -> broadcast::Receiver<Arc<ObservedReserve>> {
        self.0.subscribe()
    }

    /// Returns whether any reader is waiting.
    pub fn is_any(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Publishes a Reserve.
    pub fn show(&self, observed: &ObservedReserve) {
        // The last reader may have left in the meantime.
        drop(self.0.send(Arc::new(observed.clone())));
    }
}

impl ObservedReserve {
    /// `amounts` are the amounts to hold, parallel to the rates of the call.
    pub fn new(call: &FoundDescriptors<'_>, amounts: &[u64], outcome: &LedgerOutcome) -> Self {
        let rates =
            call.rates().zip(amounts).zip(&outcome.statuses).map(|(((named, _, key), amount), status)| {
                ObservedRate {
                    policy: named.limit.policy.to_string(),
                    limit: named.limit.name.clone(),
                    unit: key.unit.name().to_owned(),
                    window: key.window.to_string(),
                    counters: key.counters.iter().cloned().collect(),
                    hold: *amount,
                    max: status.max,
                    used: status.used,
                    remaining: status.remaining,
                    resets_in_seconds: key.window.ends().then_some(status.reset.as_secs()),
                    has_room: !status.limited && !status.excused,
                    enforced: named.refuses(),
                }
            });
        Self { admitted: outcome.admitted, rates: rates.collect() }
    }
}
