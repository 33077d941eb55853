//! The usage of all calls inside a WebSocket, for Envoy's access log, in which a WebSocket has one entry.

use crate::exchange::{ExchangeEnd, UsageRecord};
use llm::memory::{Lease, MemoryBudget, Purpose};

/// The sums over the calls that have ended.
#[derive(Debug)]
pub struct SocketRecord {
    /// `None` if there was no memory for it.
    total: Option<Box<UsageRecord>>,
    lease: Lease,
}

impl SocketRecord {
    pub fn new(memory: &MemoryBudget) -> Self {
        Self { total: Some(Box::new(UsageRecord::of_socket())), lease: memory.empty(Purpose::Record) }
    }

    /// Adds a call. If there is no memory left, nothing is recorded, because a part would look like the whole.
    pub fn add(&mut self, call: UsageRecord) {
        if let Some(total) = &mut self.total {
            total.add(call);
            if !self.lease.resize(total.size()) {
                self.total = None;
                self.lease.shrink(0);
            }
        }
    }

    /// Returns the names and values. There are none if no call was recorded.
    pub fn fields(&self, end: ExchangeEnd) -> Vec<(&'static str, String)> {
        self.total
            .as_ref()
            .filter(|total| total.has_calls())
            .map(|total| total.fields(end))
            .unwrap_or_default()
    }
}
