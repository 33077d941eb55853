//! The charged usage of windows, kept by the `limitador` crate. The only file that names it.
//!
//! One limitador limit, in a namespace of its own, per window of a bucket; without variables, so that nothing is
//! evaluated, nothing is shared and limitador's bounded cache (which forgets) stays out of it. The limit's maximum is
//! `u64::MAX`: the value can then be read exactly, debt included, and a policy's new maximum keeps the counter.
//! When a window ends is the ledger's business: limitador reads the system's clock, which can jump.

use crate::ledger::Unavailable;
use limitador::counter::Counter;
use limitador::limit::{Context, Expression, Limit};
use limitador::storage::in_memory::InMemoryStorage;
use limitador::storage::{CounterStorage, StorageErr};
use std::collections::HashSet;
use std::sync::Arc;

/// A century: longer than any process, short enough for every clock.
const NEVER: u64 = 100 * 365 * 24 * 60 * 60;

/// All windows' usage.
pub struct Counters {
    storage: InMemoryStorage,
    made: u64,
}

/// One window's usage. End it with [`Counters::end`], or it stays in memory.
pub struct WindowUsage {
    /// Always one: limitador reads a whole `Vec` at a time.
    counter: Vec<Counter>,
    /// As limitador told it last. Nobody else writes there, so it is read after each charge and not for each question.
    used: u64,
}

impl WindowUsage {
    /// What has been charged.
    pub fn used(&self) -> u64 {
        self.used
    }
}

impl Default for Counters {
    fn default() -> Self {
        // The size is that of the cache for limits with variables, of which there are none.
        Self { storage: InMemoryStorage::new(0), made: 0 }
    }
}

impl Counters {
    /// A new window, nothing used.
    pub fn start(&mut self) -> Result<WindowUsage, Unavailable> {
        self.made = self.made.wrapping_add(1);
        let namespace = format!("{:x}", self.made);
        let limit = Limit::new(namespace, u64::MAX, NEVER, [], Vec::<Expression>::new());
        let counter = Counter::new(limit, &Context::default())
            .map_err(|error| Unavailable::Storage(error.to_string()))?
            .ok_or_else(|| Unavailable::Storage("no counter for a limit without variables".to_owned()))?;
        Ok(WindowUsage { counter: vec![counter], used: 0 })
    }

    /// Charges; saturates, where limitador would wrap around.
    pub fn charge(&self, usage: &mut WindowUsage, amount: u64) -> Result<(), Unavailable> {
        let amount = amount.min(u64::MAX - usage.used);
        // One look-up in limitador's tree, where an update and a question after it are two. It tells what there was before.
        self.storage.check_and_update(&mut usage.counter, amount).map_err(failed)?;
        let remaining = usage.counter.first().and_then(Counter::remaining);
        usage.used = remaining.map_or(0, |remaining| u64::MAX - remaining).saturating_add(amount);
        Ok(())
    }

    /// Forgets a window.
    pub fn end(&self, usage: WindowUsage) -> Result<(), Unavailable> {
        let limits = usage.counter.iter().map(|counter| Arc::new(counter.limit().clone()));
        self.storage.delete_counters(&limits.collect::<HashSet<_>>()).map_err(failed)
    }
}

fn failed(error: StorageErr) -> Unavailable {
    Unavailable::Storage(error.msg().to_owned())
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
