//! Warnings: what happens when a counter reaches a threshold of its limit (`warnAt`). Each warning becomes a
//! metric, a log line, a line on the page and, if there is a webhook, a call. No request waits for the webhook.

pub mod event;
pub mod url;
pub mod webhook;

use crate::ledger::crossing::Crossing;
use crate::ledger::moment::Moment;
use crate::metrics::AdapterMetrics;
use crate::policies::snapshot::PolicySnapshot;
use event::WarningEvent;
use std::sync::Arc;
use webhook::WebhookQueue;

/// Raises warnings.
pub struct Warnings {
    metrics: Arc<AdapterMetrics>,
    webhook: Option<WebhookQueue>,
}

impl Warnings {
    pub fn new(metrics: Arc<AdapterMetrics>, webhook: Option<WebhookQueue>) -> Self {
        Self { metrics, webhook }
    }

    /// Raises a warning for each crossing. The log line contains no counter values, because logs are often
    /// readable by more people than `/api/counters`.
    pub fn raise(&self, crossings: Vec<Crossing>, in_force: &PolicySnapshot, now: Moment) {
        for crossing in crossings {
            let key = Arc::clone(&crossing.key);
            let (policy, limit) = in_force.names_of(&key);
            let Crossing { threshold, max, used, .. } = &crossing;
            let unit = key.unit;
            self.metrics.warned(policy, limit, unit, *threshold).increment(1);
            tracing::warn!(
                policy,
                limit,
                unit = unit.name(),
                %threshold,
                used,
                max,
                "a counter reached a threshold of its limit"
            );
            self.metrics.warnings.record(crossing.clone(), now);
            if let Some(webhook) = &self.webhook {
                webhook.push(WarningEvent::new(policy, limit, crossing, now));
            }
        }
    }
}
