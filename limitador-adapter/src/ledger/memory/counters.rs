//! The charged usage of windows, stored in the `limitador` crate. No other file uses that crate.
//!
//! Each window of a bucket is one limitador limit in a separate namespace. The limit has no variables, so
//! limitador evaluates no expressions and does not use its bounded cache, which may evict counters. Its
//! maximum is `u64::MAX`, so the value can be read exactly even in debt, and a policy's new maximum does not
//! reset the counter. The ledger decides when a window ends, because limitador reads the system clock, which
//! can jump.

use crate::ledger::Unavailable;
use limitador::counter::Counter;
use limitador::limit::{Context, Expression, Limit};
use limitador::storage::in_memory::InMemoryStorage;
use limitador::storage::{CounterStorage, StorageErr};
use std::collections::HashSet;
use std::sync::Arc;

/// A century: longer than any process runs, and within the range of every clock.
const NEVER: u64 = 100 * 365 * 24 * 60 * 60;

/// The usage of all windows.
pub struct Counters {
    storage: InMemoryStorage,
    made: u64,
}

/// The usage of one window. It stays in memory until [`Counters::end`] is called.
pub struct WindowUsage {
    /// Always has one element. It is a `Vec` because limitador requires one.
    counter: Vec<Counter>,
    /// The last value that limitador returned. Nothing else writes this counter, so it is read only after a
    /// charge.
    used: u64,
}

impl WindowUsage {
    /// Returns the charged amount.
    pub fn used(&self) -> u64 {
        self.used
    }
}

impl Default for Counters {
    fn default() -> Self {
        // The size of the cache for limits with variables. It is 0 because there are no such limits.
        Self { storage: InMemoryStorage::new(0), made: 0 }
    }
}

impl Counters {
    /// Starts a window without usage.
    pub fn start(&mut self) -> Result<WindowUsage, Unavailable> {
        self.made = self.made.wrapping_add(1);
        let namespace = format!("{:x}", self.made);
        let limit = Limit::new(namespace, u64::MAX, NEVER, [], Vec::<Expression>::new());
        let counter = Counter::new(limit, &Context::default())
            .map_err(|error| Unavailable::failed(error.to_string()))?
            .ok_or_else(|| Unavailable::failed("no counter for a limit without variables"))?;
        Ok(WindowUsage { counter: vec![counter], used: 0 })
    }

    /// Adds a charge. The value saturates, whereas limitador would wrap around.
    pub fn charge(&self, usage: &mut WindowUsage, amount: u64) -> Result<(), Unavailable> {
        let amount = amount.min(u64::MAX - usage.used);
        // This takes one lookup in limitador's tree instead of two, because it returns the previous value.
        self.storage.check_and_update(&mut usage.counter, amount).map_err(failed)?;
        let remaining = usage.counter.first().and_then(Counter::remaining);
        usage.used = remaining.map_or(0, |remaining| u64::MAX - remaining).saturating_add(amount);
        Ok(())
    }

    /// Removes a window.
    pub fn end(&self, usage: WindowUsage) -> Result<(), Unavailable> {
        let limits = usage.counter.iter().map(|counter| Arc::new(counter.limit().clone()));
        self.storage.delete_counters(&limits.collect::<HashSet<_>>()).map_err(failed)
    }
}

fn failed(error: StorageErr) -> Unavailable {
    Unavailable::failed(error.msg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_separate_and_saturate() {
        let mut counters = Counters::default();
        let (mut a, mut b) = (counters.start().unwrap(), counters.start().unwrap());
        counters.charge(&mut a, 7).unwrap();
        counters.charge(&mut a, u64::MAX).unwrap();
        counters.charge(&mut a, 1).unwrap();
        counters.charge(&mut b, 3).unwrap();
        assert_eq!((a.used(), b.used()), (u64::MAX, 3));
        counters.end(a).unwrap();
        assert_eq!(b.used(), 3);
    }
}
