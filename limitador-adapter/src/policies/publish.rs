//! Makes a snapshot of what was collected, and says in the log and in metrics what has changed.

use super::collection::{CollectedPolicies, PolicyReport};
use super::snapshot::{GatewaySelector, PlanReader, PolicySnapshot};
use crate::ledger::Ledger;
use crate::metrics::AdapterMetrics;
use engine::watch::number;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Brings what was collected into force.
pub struct Publish {
    /// For those who ask what is in force.
    pub to: watch::Sender<Arc<PolicySnapshot>>,
    /// Whether the policies are known.
    pub known: watch::Sender<bool>,
    /// The counts.
    pub metrics: Arc<AdapterMetrics>,
    /// What counts: each limit has its share of it.
    pub ledger: Arc<dyn Ledger>,
}

impl Publish {
    /// It comes into force.
    pub fn publish(&self, collected: CollectedPolicies) {
        let current = Arc::clone(&self.to.borrow());
        let next = comes_into_force(collected, &current, &self.metrics);
        self.ledger.share_among(next.counting_limits());
        self.to.send_replace(next);
        self.known.send_replace(true);
    }
}

/// Tells people what has changed, in the log and in numbers.
fn comes_into_force(
    collected: CollectedPolicies,
    before: &PolicySnapshot,
    metrics: &AdapterMetrics,
) -> Arc<PolicySnapshot> {
    let now = PolicySnapshot::new(collected, metrics);
    let told: HashSet<_> =
        before.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()).collect();
    for message in now.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()) {
        if !told.contains(&message) {
            tracing::error!("{message}");
        }
    }
    let warned: HashSet<_> = before.entries.iter().flat_map(PolicyReport::warnings).collect();
    let warnings = now.entries.iter().flat_map(PolicyReport::warnings);
    warnings.filter(|warning| !warned.contains(warning)).for_each(|warning| tracing::warn!("{warning}"));
    let version = now.version(&GatewaySelector::Any, PlanReader::current(false));
    if before.version(&GatewaySelector::Any, PlanReader::current(false)) != version {
        metrics.plan_changes.increment(1);
        tracing::info!(policies = now.len(), invalid = now.invalid(), version, "policies in force");
    }
    // A gateway that no policy names any more has a plan still.
    for gateway in now.gateways().union(&before.gateways()) {
        if let Some(named) = GatewaySelector::parse(gateway) {
            metrics
                .plan_version(gateway)
                .set(number(&now.version(&named, PlanReader::current(false))) as f64);
        }
    }
    metrics.plan_version("*").set(number(&version) as f64);
    metrics.loaded.set(now.len() as f64);
    metrics.invalid.set(now.invalid() as f64);
    Arc::new(now)
}
