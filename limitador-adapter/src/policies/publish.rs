//! Publishes snapshots of collected policies, and reports changes in the log and in metrics.

use super::collection::{CollectedPolicies, PolicyReport};
use super::snapshot::{GatewaySelector, PlanReader, PolicySnapshot, WantedReports};
use crate::ledger::Ledger;
use crate::metrics::AdapterMetrics;
use engine::watch::number;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Publishes collected policies.
pub struct Publish {
    /// Receives the policies in force.
    pub to: watch::Sender<Arc<PolicySnapshot>>,
    /// Whether the policies are known.
    pub known: watch::Sender<bool>,
    /// The adapter's metrics.
    pub metrics: Arc<AdapterMetrics>,
    /// Stores the counters. Each limit has a share of its memory.
    pub ledger: Arc<dyn Ledger>,
    /// What filters send in addition.
    pub wanted: WantedReports,
}

impl Publish {
    /// Puts collected policies into force.
    pub fn publish(&self, collected: CollectedPolicies) {
        let current = Arc::clone(&self.to.borrow());
        let next = comes_into_force(collected, &current, self.wanted, &self.metrics);
        self.ledger.share_among(next.counting_limits());
        self.to.send_replace(next);
        self.known.send_replace(true);
    }
}

/// Logs and counts the changes.
fn comes_into_force(
    collected: CollectedPolicies,
    before: &PolicySnapshot,
    wanted: WantedReports,
    metrics: &AdapterMetrics,
) -> Arc<PolicySnapshot> {
    let now = PolicySnapshot::new(collected, metrics).wanting(wanted);
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
    // If no policy names a gateway any more, its plan still changes, so its metric is updated too.
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
