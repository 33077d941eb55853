//! Keeps the most recent output, as far back as a match may refer. Its memory grows with the data up to the
//! size of the window, and each step is reserved first.

use super::super::leased::Leased;
use super::super::{Budget, Sink};
use crate::memory::MemoryBudget;
use crate::response::cause::Cause;

/// The first allocation.
const LEAST: usize = 16 << 10;

#[derive(Default)]
pub(super) struct DecodedWindow {
    /// A ring buffer, once it is as large as the window.
    ring: Leased<u8>,
    /// The maximum distance of a match.
    size: usize,
    /// The position of the next byte.
    at: usize,
    /// The number of bytes of the frame that are in the ring.
    filled: usize,
    /// The start of the bytes before `at` that have not been passed on.
    handed: usize,
}

impl DecodedWindow {
    /// Begins a frame.
    pub(super) fn begin(&mut self, size: usize) {
        (self.size, self.at, self.filled, self.handed) = (size, 0, 0, 0);
    }

    pub(super) fn literals(&mut self, mut bytes: &[u8], out: &mut Out<'_, impl Sink>) -> Result<(), Cause> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len(), out)?;
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            let end = self.at.saturating_add(piece.len());
            if let Some(place) = self.ring.items_mut().get_mut(self.at..end) {
                place.copy_from_slice(piece);
            }
            self.advance(piece.len());
            bytes = rest;
        }
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        byte: u8,
        mut length: usize,
        out: &mut Out<'_, impl Sink>,
    ) -> Result<(), Cause> {
        while length > 0 {
            let count = self.room(length, out)?.min(length);
            let end = self.at.saturating_add(count);
            if let Some(place) = self.ring.items_mut().get_mut(self.at..end) {
                place.fill(byte);
            }
            self.advance(count);
            length = length.saturating_sub(count);
        }
        Ok(())
    }

    /// Appends `length` bytes from `offset` bytes back.
    #[inline]
    pub(super) fn repeat(
        &mut self,
        offset: usize,
        mut length: usize,
        out: &mut Out<'_, impl Sink>,
    ) -> Result<(), Cause> {
        if offset == 0 || offset > self.filled {
            return Err(Cause::Corrupt);
        }
        while length > 0 {
            let room = self.room(length, out)?;
            let size = self.ring.items().len();
            let from = match self.at.checked_sub(offset) {
                Some(from) => from,
                None => self.at.saturating_add(size).saturating_sub(offset),
            };
            // A match may overlap its own output. In that case, each step copies a whole number of
            // repetitions.
            let mut ready = offset.min(size.saturating_sub(from));
            let mut left = length.min(room);
            if from < self.at {
                length = length.saturating_sub(left);
            } else {
                // The match begins near the end of the ring and continues at its beginning.
                left = left.min(ready);
                length = length.saturating_sub(left);
            }
            while left > 0 {
                let count = ready.min(left);
                let end = from.saturating_add(count);
                let to_end = self.at.saturating_add(count);
                if end <= size && to_end <= size {
                    self.ring.items_mut().copy_within(from..end, self.at);
                }
                self.advance(count);
                left = left.saturating_sub(count);
                ready = ready.saturating_mul(2);
            }
        }
        Ok(())
    }

    /// Passes on the remaining bytes.
    pub(super) fn hand_on(&mut self, out: &mut Out<'_, impl Sink>) -> Result<(), Cause> {
        let ready = self.ring.items().get(self.handed..self.at).unwrap_or_default();
        self.handed = self.at;
        if ready.is_empty() {
            return Ok(());
        }
        out.budget.decoded(ready.len())?;
        out.to.take(ready);
        Ok(())
    }

    fn advance(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
        self.filled = self.filled.saturating_add(count).min(self.size);
    }

    /// Returns how many bytes can be written before the ring ends, which is at least one. If there is too
    /// little room, enlarges the ring up to the size of the window, or starts again at its beginning.
    #[inline(always)]
    fn room(&mut self, wanted: usize, out: &mut Out<'_, impl Sink>) -> Result<usize, Cause> {
        let room = self.ring.items().len().saturating_sub(self.at);
        if room >= wanted { Ok(room) } else { self.more_room(wanted, out) }
    }

    #[cold]
    fn more_room(&mut self, wanted: usize, out: &mut Out<'_, impl Sink>) -> Result<usize, Cause> {
        let length = self.ring.items().len();
        if length < self.size {
            let needed = self.at.saturating_add(wanted);
            let grown = length.saturating_mul(2).max(needed).max(LEAST).min(self.size);
            let mut ring = Leased::new(grown, out.memory).ok_or(Cause::Memory)?;
            if let Some(place) = ring.items_mut().get_mut(..length) {
                place.copy_from_slice(self.ring.items());
            }
            self.ring = ring;
        } else if self.at >= length {
            self.hand_on(out)?;
            (self.at, self.handed) = (0, 0);
        }
        Ok(self.ring.items().len().saturating_sub(self.at))
    }
}

/// The receiver of the decoded bytes, with the budgets for memory and for output.
pub(super) struct Out<'a, S> {
    pub(super) memory: &'a MemoryBudget,
    pub(super) budget: &'a mut Budget,
    pub(super) to: &'a mut S,
}
