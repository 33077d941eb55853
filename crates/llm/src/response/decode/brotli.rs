//! Decodes `br`. The window is at most 16 MB, the format's own maximum. The extension for larger windows is
//! rejected. The window grows with the data. The memory for the window and for tables comes from the budget.
//! If the budget refuses, decoding ends.

use super::leased::{self, Leased};
use super::{Budget, Sink};
use crate::memory::{Lease, MemoryBudget};
use crate::response::cause::Cause;
use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, SliceWrapperMut,
};
use std::cell::Cell;
use std::rc::Rc;

/// The size of one decoding step.
const PIECE: usize = 16 << 10;

pub(crate) struct Brotli {
    core: BrotliState<LeasedAlloc, LeasedAlloc, LeasedAlloc>,
    refused: Rc<Cell<bool>>,
    piece: [u8; PIECE],
    complete: bool,
    // The lease comes last, so that it is dropped after the memory that it covers.
    _lease: Lease,
}

impl Brotli {
    pub(crate) fn new(memory: &MemoryBudget) -> Option<Box<Self>> {
        let lease = leased::lease(size_of::<Self>(), memory)?;
        let refused = Rc::new(Cell::new(false));
        let alloc = LeasedAlloc { memory: memory.clone(), refused: Rc::clone(&refused) };
        let core = BrotliState::new_strict(alloc.clone(), alloc.clone(), alloc);
        // The decoder cannot work without the first table that it allocates.
        let usable = !refused.get();
        usable.then(|| Box::new(Self { core, refused, piece: [0; PIECE], complete: false, _lease: lease }))
    }

    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        budget: &mut Budget,
        to: &mut impl Sink,
    ) -> Result<(), Cause> {
        let (mut left, mut read, mut total) = (bytes.len(), 0, 0);
        while !self.complete {
            let (mut room, mut written) = (PIECE, 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut read,
                bytes,
                &mut room,
                &mut written,
                &mut self.piece,
                &mut total,
                &mut self.core,
            );
            budget.decoded(written)?;
            to.take(self.piece.get(..written).unwrap_or_default());
            match result {
                BrotliResult::ResultSuccess => self.complete = true,
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure if self.refused.get() => return Err(Cause::Memory),
                BrotliResult::ResultFailure => return Err(Cause::Corrupt),
            }
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }
}

/// An allocator that takes memory from the budget. If the budget refuses, it returns an empty buffer, which
/// the library treats as a failed allocation.
#[derive(Clone)]
struct LeasedAlloc {
    memory: MemoryBudget,
    refused: Rc<Cell<bool>>,
}

impl<T: Clone + Default> Allocator<T> for LeasedAlloc {
    type AllocatedMemory = Leased<T>;

    fn alloc_cell(&mut self, length: usize) -> Leased<T> {
        let granted = Leased::new(length, &self.memory);
        if granted.is_none() {
            self.refused.set(true);
        }
        granted.unwrap_or_default()
    }

    fn free_cell(&mut self, _: Leased<T>) {}
}

impl<T: Clone + Default> SliceWrapper<T> for Leased<T> {
    fn slice(&self) -> &[T] {
        self.items()
    }
}

impl<T: Clone + Default> SliceWrapperMut<T> for Leased<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        self.items_mut()
    }
}
