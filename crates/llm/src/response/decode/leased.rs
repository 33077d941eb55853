//! Buffers in reserved memory. The sender announces how much memory a decoder needs, so nothing is allocated
//! before the budget agrees. If the budget refuses, the decoder is dropped and the rest of the body is not
//! decoded.

use crate::memory::{Lease, MemoryBudget, Purpose};

/// Creates the lease for a decoder's memory.
pub(super) fn lease(bytes: usize, memory: &MemoryBudget) -> Option<Lease> {
    memory.lease(Purpose::Keep, bytes)
}

/// A buffer and its lease.
#[derive(Debug)]
pub(crate) struct Leased<T> {
    items: Vec<T>,
    // The lease comes after the items, so that it is dropped after them.
    _lease: Option<Lease>,
}

impl<T> Default for Leased<T> {
    fn default() -> Self {
        Self { items: Vec::new(), _lease: None }
    }
}

impl<T: Clone + Default> Leased<T> {
    /// Creates a buffer with this many default items, unless the budget or the allocator refuses.
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

/// A growing buffer of collected bytes.
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

    /// Appends bytes. Returns `false` if there is no memory for them.
    #[must_use]
    pub(crate) fn extend(&mut self, bytes: &[u8], memory: &MemoryBudget) -> bool {
        let added = self.add(bytes.len(), memory);
        added.map(|room| room.copy_from_slice(bytes)).is_some()
    }

    /// Extends the buffer by this many bytes, which the caller overwrites.
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
