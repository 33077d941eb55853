//! Buffers in memory that was asked for: how much a decoder needs is announced by the sender, so it allocates nothing
//! until the budget agrees. A decoder that is refused is given up, and its body goes unread.

use crate::memory::{Lease, MemoryBudget, Purpose};

/// A lease for what a decoder keeps.
pub(super) fn lease(bytes: usize, memory: &MemoryBudget) -> Option<Lease> {
    memory.lease(Purpose::Keep, bytes)
}

/// A buffer and the lease for it.
#[derive(Debug)]
pub(crate) struct Leased<T> {
    items: Vec<T>,
    // After the items: a lease outlives what it allows.
    _lease: Option<Lease>,
}

impl<T> Default for Leased<T> {
    fn default() -> Self {
        Self { items: Vec::new(), _lease: None }
    }
}

impl<T: Clone + Default> Leased<T> {
    /// A buffer of so many default items, unless the budget or the allocator refuses.
    pub(crate) fn new(length: usize, memory: &MemoryBudget) -> Option<Self> {
        let lease = lease(length.checked_mul(size_of::<T>())?, memory)?;
        let mut items = Vec::new();
        items.try_reserve_exact(length).ok()?;
        items.resize(length, T::default());
        Some(Self { items, _lease: Some(lease) })
    }

    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }

    pub(crate) fn items_mut(&mut self) -> &mut [T] {
        &mut self.items
    }
}

/// Bytes that are collected, in memory that grows as they come.
#[derive(Debug, Default)]
pub(crate) struct LeasedBytes {
    room: Leased<u8>,
    length: usize,
}

impl LeasedBytes {
    /// The smallest allocation.
    const LEAST: usize = 1 << 10;

    pub(crate) fn bytes(&self) -> &[u8] {
        self.room.items().get(..self.length).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends bytes. False: there is no memory for them.
    #[must_use]
    pub(crate) fn extend(&mut self, bytes: &[u8], memory: &MemoryBudget) -> bool {
        let added = self.add(bytes.len(), memory);
        added.map(|room| room.copy_from_slice(bytes)).is_some()
    }

    /// Makes room for so many bytes more, which are to be overwritten.
    pub(crate) fn add(&mut self, count: usize, memory: &MemoryBudget) -> Option<&mut [u8]> {
        let begin = self.length;
        let end = begin.checked_add(count)?;
        if end > self.room.items().len() {
            let room = end.checked_next_power_of_two()?.max(Self::LEAST);
            let mut larger = Leased::new(room, memory)?;
            larger.items_mut().get_mut(..begin)?.copy_from_slice(self.bytes());
            self.room = larger;
        }
        self.length = end;
        self.room.items_mut().get_mut(begin..end)
    }
}
