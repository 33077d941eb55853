//! Limits how many bytes the exchanges of one VM may keep. If a Wasm module cannot allocate, it traps, and
//! all streams of its worker end. So memory is reserved before it is allocated: code that keeps data holds a
//! [`Lease`] for it, and has to make do with less if the budget refuses one.
//!
//! A lease is released when its owner is dropped, so nothing leaks, however an exchange ends. Taking a lease
//! does not allocate.

use std::sync::{Arc, Mutex, PoisonError};

/// The default budget of a VM's exchanges, in bytes. Envoy runs one VM per worker and terminates it at 1 GiB.
/// A gateway with eight workers has to fit into a container. An exchange usually keeps 10 kB.
pub const DEFAULT: usize = 128 << 20;

/// A budget of bytes, shared by its clones. The default is unlimited.
#[derive(Clone, Debug, Default)]
pub struct MemoryBudget(Option<Arc<BudgetState>>);

/// What leased bytes are for. The purpose determines how much of the budget they may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Records of the holds of an exchange, so that the holds can be released. They may use the whole budget.
    Record,
    /// Copies that are freed when the callback returns. They may use seven eighths of the budget.
    Work,
    /// Data that is kept between callbacks to judge an exchange better: facts, windows, unread bytes.
    /// Together, these leases may use half of the budget. Each may use an eighth of what is left of that
    /// half, so a few large leases cannot starve many small ones.
    Keep,
}

/// The right to keep some bytes until the lease is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: MemoryBudget,
    purpose: Purpose,
    bytes: usize,
}

#[derive(Debug)]
struct BudgetState {
    max: usize,
    used: Mutex<Used>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    all: usize,
    /// The part of `all` that is for [`Purpose::Keep`].
    kept: usize,
    peak: usize,
}

impl MemoryBudget {
    /// Creates a budget of this many bytes.
    pub fn new(max: usize) -> Self {
        Self(Some(Arc::new(BudgetState { max, used: Mutex::default() })))
    }

    /// Returns the number of leased bytes.
    pub fn used(&self) -> usize {
        self.now().all
    }

    /// Returns the largest number of bytes that were leased at any time.
    pub fn peak(&self) -> usize {
        self.now().peak
    }

    /// Leases this many bytes, if there is room.
    pub fn lease(&self, purpose: Purpose, bytes: usize) -> Option<Lease> {
        let mut lease = self.empty(purpose);
        lease.resize(bytes).then_some(lease)
    }

    /// Creates an empty lease, to be resized later.
    pub fn empty(&self, purpose: Purpose) -> Lease {
        Lease { budget: self.clone(), purpose, bytes: 0 }
    }

    fn now(&self) -> Used {
        self.0.as_ref().map(|shared| *lock(shared)).unwrap_or_default()
    }
}

impl Lease {
    /// Returns the size of the lease in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Resizes the lease. If there is no room, keeps the old size and returns `false`. Shrinking always
    /// succeeds.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if let Some(shared) = &self.budget.0 {
            let mut used = lock(shared);
            if bytes > self.bytes && !shared.has_room(*used, self, bytes) {
                return false;
            }
            used.all = used.all.saturating_sub(self.bytes).saturating_add(bytes);
            if self.purpose == Purpose::Keep {
                used.kept = used.kept.saturating_sub(self.bytes).saturating_add(bytes);
            }
            used.peak = used.peak.max(used.all);
        }
        self.bytes = bytes;
        true
    }

    /// Shrinks the lease to at most this many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let smaller = self.bytes.min(bytes);
        // Shrinking always succeeds.
        let _shrunk = self.resize(smaller);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

impl BudgetState {
    /// Returns whether a lease may grow to `bytes`.
    fn has_room(&self, used: Used, lease: &Lease, bytes: usize) -> bool {
        let of_others = used.all.saturating_sub(lease.bytes);
        let fits = |share: usize| of_others.checked_add(bytes).is_some_and(|sum| sum <= share);
        let without = |part: usize| self.max.saturating_sub(part);
        match lease.purpose {
            Purpose::Record => fits(self.max),
            Purpose::Work => fits(without(self.max / 8)),
            Purpose::Keep => {
                let kept_by_others = used.kept.saturating_sub(lease.bytes);
                let left = (self.max / 2).saturating_sub(kept_by_others);
                bytes <= left / 8 && fits(without(self.max / 8))
            }
        }
    }
}

fn lock(shared: &BudgetState) -> std::sync::MutexGuard<'_, Used> {
    shared.used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lease_that_ends_gives_its_bytes_back() {
        let budget = MemoryBudget::new(1000);
        let lease = budget.lease(Purpose::Record, 600).unwrap();
        assert_eq!((budget.used(), lease.bytes()), (600, 600));
        assert!(budget.lease(Purpose::Record, 401).is_none(), "beyond the budget");
        drop(lease);
        assert_eq!((budget.used(), budget.peak()), (0, 600));
    }

    #[test]
    fn a_lease_that_cannot_grow_stays_as_it_is() {
        let budget = MemoryBudget::new(1000);
        let mut lease = budget.lease(Purpose::Record, 600).unwrap();
        assert!(lease.resize(1000) && !lease.resize(1001));
        assert_eq!(budget.used(), 1000);
        lease.shrink(2000);
        assert_eq!(lease.bytes(), 1000);
        assert!(lease.resize(1));
        assert_eq!(budget.used(), 1);
    }

    #[test]
    fn what_is_needed_has_room_when_what_is_useful_has_none() {
        let budget = MemoryBudget::new(800);
        let _work = budget.lease(Purpose::Work, 700).unwrap();
        assert!(budget.lease(Purpose::Work, 1).is_none() && budget.lease(Purpose::Keep, 1).is_none());
        assert!(budget.lease(Purpose::Record, 100).is_some());
    }

    #[test]
    fn those_who_want_much_leave_room_for_those_who_want_little() {
        let budget = MemoryBudget::new(128 << 20);
        let mut large = Vec::new();
        while let Some(lease) = budget.lease(Purpose::Keep, 1 << 20) {
            large.push(lease);
        }
        assert_eq!(large.len(), 57, "an eighth of the last eight is less than one");
        let small: Vec<_> = (0..150).map_while(|_| budget.lease(Purpose::Keep, 43 << 10)).collect();
        assert_eq!(small.len(), 150);
    }

    #[test]
    fn without_a_bound_there_is_always_room() {
        let budget = MemoryBudget::default();
        let mut lease = budget.lease(Purpose::Keep, usize::MAX).unwrap();
        assert!(lease.resize(1) && budget.lease(Purpose::Record, usize::MAX).is_some());
        assert_eq!(budget.used(), 0);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded_and_all_of_it_comes_back(
            max in 0..10_000_usize,
            story in proptest::collection::vec((0..8_usize, 0..3_u8, 0..3000_usize), 0..100),
        ) {
            let budget = MemoryBudget::new(max);
            let mut leases: Vec<Lease> = Vec::new();
            for (at, purpose, bytes) in story {
                let purpose = [Purpose::Record, Purpose::Work, Purpose::Keep][usize::from(purpose)];
                match leases.get_mut(at) {
                    Some(_) if bytes % 3 == 0 => drop(leases.remove(at)),
                    Some(lease) => {
                        let (before, grown) = (lease.bytes(), lease.resize(bytes));
                        prop_assert!(grown || bytes > before);
                        prop_assert_eq!(lease.bytes(), if grown { bytes } else { before });
                    }
                    None => leases.extend(budget.lease(purpose, bytes)),
                }
                prop_assert!(budget.used() <= max);
                prop_assert_eq!(budget.used(), leases.iter().map(Lease::bytes).sum::<usize>());
            }
            drop(leases);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
