//! Envoy's metrics, each defined once.

use crate::host;
use engine::metric::{Metric, table};
use proxy_wasm::types::MetricType;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

pub const COMMITS_RETRIED: &str = table::COMMITS_RETRIED.name;
pub const COMMITS_PACKED: &str = table::COMMITS_PACKED.name;
pub const COMMITS_DROPPED: &str = table::COMMITS_DROPPED.name;
pub const ADMITTED_FROM_LEASES: &str = table::ADMITTED_FROM_LEASES.name;
pub const LEASES_UNUSED: &str = table::LEASES_UNUSED.name;
pub const RAISES_DROPPED: &str = table::RAISES_DROPPED.name;
pub const RECORDS_RETRIED: &str = table::RECORDS_RETRIED.name;
pub const RECORDS_DROPPED: &str = table::RECORDS_DROPPED.name;
pub const BYTES_LOST: &str = table::RESPONSE_BYTES_LOST.name;
pub const BODIES_MISSING: &str = table::REQUEST_BODIES_MISSING.name;
pub const PLANS: &str = table::PLANS.name;
pub const PLANS_REFUSED: &str = table::PLANS_REFUSED.name;
pub const PLAN_VERSION: &str = table::PLAN_VERSION.name;
pub const MEMORY: &str = table::MEMORY.name;

/// The ids that Envoy has assigned to the metrics.
#[derive(Default)]
pub struct Metrics {
    /// The ids of static names by their addresses, because comparing a name takes longer than counting.
    fixed: RefCell<Vec<(&'static str, u32)>>,
    /// The ids of names with labels.
    labelled: RefCell<HashMap<String, u32>>,
}

impl Metrics {
    /// Defines these metrics at once, so that they are exported from the start.
    pub fn new() -> Self {
        let metrics = Self::default();
        for name in [
            COMMITS_RETRIED,
            COMMITS_PACKED,
            COMMITS_DROPPED,
            RAISES_DROPPED,
            PLANS,
            PLANS_REFUSED,
            BYTES_LOST,
            BODIES_MISSING,
        ] {
            metrics.find(name.into(), MetricType::Counter);
        }
        metrics
    }

    /// Counts a metric of the engine.
    pub fn count(&self, count: &Metric) {
        self.increment(count.name(), count.amount());
    }

    /// Adds to a counter.
    pub fn add(&self, name: &'static str, amount: u64) {
        self.increment(name.into(), amount);
    }

    fn increment(&self, name: Cow<'static, str>, amount: u64) {
        if amount > 0
            && let Some(metric) = self.find(name, MetricType::Counter)
        {
            host::increment(metric, amount);
        }
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, value: u64) {
        if let Some(metric) = self.find(name.into(), MetricType::Gauge) {
            host::set(metric, value);
        }
    }

    /// Adds the difference to a gauge that several workers share.
    pub fn change(&self, name: &'static str, now: u64, before: u64) {
        let part = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let difference = part(now).saturating_sub(part(before));
        if difference != 0
            && let Some(metric) = self.find(name.into(), MetricType::Gauge)
        {
            host::change(metric, difference);
        }
    }

    fn find(&self, name: Cow<'static, str>, kind: MetricType) -> Option<u32> {
        match name {
            Cow::Borrowed(name) => {
                let is_it = |known: &str| std::ptr::eq(known, name);
                let known =
                    self.fixed.borrow().iter().find(|(known, _)| is_it(known)).map(|(_, metric)| *metric);
                known.or_else(|| {
                    let metric = host::metric(name, kind)?;
                    self.fixed.borrow_mut().push((name, metric));
                    Some(metric)
                })
            }
            Cow::Owned(name) => {
                let known = self.labelled.borrow().get(&name).copied();
                known.or_else(|| {
                    let metric = host::metric(&name, kind)?;
                    self.labelled.borrow_mut().insert(name, metric);
                    Some(metric)
                })
            }
        }
    }
}
