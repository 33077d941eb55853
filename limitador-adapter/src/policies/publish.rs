//! Makes a snapshot of what was collected, and says in the log and in metrics what has changed.

use super::collection::{Collected, Entry};
use super::snapshot::{Gateway, InForce};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use engine::watch::number;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Brings what was collected into force.
pub struct Publish {
    /// For those who ask what is in force.
    pub to: watch::Sender<Arc<InForce>>,
    /// Whether the policies are known.
    pub known: watch::Sender<bool>,
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// What counts: each limit has its share of it.
    pub ledger: Arc<dyn Ledger>,
}

impl Publish {
    /// It comes into force.
    pub fn publish(&self, collected: Collected) {
        let current = Arc::clone(&self.to.borrow());
        let next = comes_into_force(collected, &current, &self.metrics);
        self.ledger.share_among(next.counting_limits());
        self.to.send_replace(next);
        self.known.send_replace(true);
    }
}

/// Tells people what has changed, in the log and in numbers.
fn comes_into_force(collected: Collected, before: &InForce, metrics: &Metrics) -> Arc<InForce> {
    let now = InForce::new(collected, metrics);
    let told: HashSet<_> =
        before.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()).collect();
    for message in now.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()) {
        if !told.contains(&message) {
            tracing::error!("{message}");
        }
    }
    let warned: HashSet<_> = before.entries.iter().flat_map(Entry::warnings).collect();
    let warnings = now.entries.iter().flat_map(Entry::warnings);
    warnings.filter(|warning| !warned.contains(warning)).for_each(|warning| tracing::warn!("{warning}"));
    let version = now.version(&Gateway::Any, false);
    if before.version(&Gateway::Any, false) != version {
        metrics.plan_changes.increment(1);
        tracing::info!(policies = now.len(), invalid = now.invalid(), version, "policies in force");
    }
    // A gateway that no policy names any more has a plan still.
    for gateway in now.gateways().union(&before.gateways()) {
        if let Some(named) = Gateway::parse(gateway) {
            metrics.plan_version(gateway).set(number(&now.version(&named, false)) as f64);
        }
    }
    metrics.plan_version("*").set(number(&version) as f64);
    metrics.loaded.set(now.len() as f64);
    metrics.invalid.set(now.invalid() as f64);
    Arc::new(now)
}
