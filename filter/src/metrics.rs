//! Envoy's metrics: each defined once, by its name.

use crate::host;
use engine::metric::Metric;
use proxy_wasm::types::MetricType;
use std::cell::RefCell;
use std::collections::HashMap;

/// Commits that could not be delivered and are sent again.
pub const COMMITS_RETRIED: &str = "weir_commits_retried";
/// Commits that were given up: the queue was full, or the adapter refused them for good.
pub const COMMITS_DROPPED: &str = "weir_commits_dropped";
/// Raises of holds that were given up: too many waited.
pub const RAISES_DROPPED: &str = "weir_raises_dropped";
/// Bytes of responses that trailers have overtaken.
pub const BYTES_LOST: &str = "weir_response_bytes_lost";
/// Workers that have found out that request bodies do not come to the filter.
pub const BODIES_MISSING: &str = "weir_request_bodies_missing";
/// How often a worker, or Envoy's main thread, has brought a plan into force.
pub const PLANS: &str = "weir_plans";
/// Plans that could not be compiled.
pub const PLANS_REFUSED: &str = "weir_plans_refused";
/// The version in force, as a number: in all Envoys the same.
pub const PLAN_VERSION: &str = "weir_plan_version";

/// The bytes that the exchanges of all workers keep.
pub const MEMORY: &str = "weir_memory_bytes";

/// Their numbers in Envoy.
pub struct Metrics(RefCell<HashMap<String, u32>>);

impl Metrics {
    /// With these, so that they can be seen before anything has happened.
    pub fn new() -> Self {
        let metrics = Self(RefCell::default());
        for name in [
            COMMITS_RETRIED,
            COMMITS_DROPPED,
            RAISES_DROPPED,
            PLANS,
            PLANS_REFUSED,
            BYTES_LOST,
            BODIES_MISSING,
        ] {
            metrics.find(name, MetricType::Counter);
        }
        metrics
    }

    /// Counts what the core says.
    pub fn count(&self, count: &Metric) {
        self.add(&count.name(), count.amount());
    }

    /// Adds to a counter.
    pub fn add(&self, name: &str, amount: u64) {
        if amount > 0
            && let Some(metric) = self.find(name, MetricType::Counter)
        {
            host::increment(metric, amount);
        }
    }

    /// Sets a gauge.
    pub fn set(&self, name: &str, value: u64) {
        if let Some(metric) = self.find(name, MetricType::Gauge) {
            host::set(metric, value);
        }
    }

    /// Adds the difference to a gauge that several workers have a part in.
    pub fn change(&self, name: &str, now: u64, before: u64) {
        let part = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let difference = part(now).saturating_sub(part(before));
        if difference != 0
            && let Some(metric) = self.find(name, MetricType::Gauge)
        {
            host::change(metric, difference);
        }
    }

    fn find(&self, name: &str, kind: MetricType) -> Option<u32> {
        if let Some(metric) = self.0.borrow().get(name) {
            return Some(*metric);
        }
        let metric = host::metric(name, kind)?;
        self.0.borrow_mut().insert(name.to_owned(), metric);
        Some(metric)
    }
}
