//! What was decoded last, as far back as a match may reach. Its memory grows with the data up to the size of the
//! window, and each step is asked for.

use super::super::leased::Leased;
use super::super::{Budget, Sink};
use crate::memory::MemoryBudget;
use crate::response::report::Cause;

/// The first allocation.
const LEAST: usize = 16 << 10;

#[derive(Default)]
pub(super) struct DecodedWindow {
    /// A ring once it is as large as the window.
    ring: Leased<u8>,
    /// How far back a match may reach.
    size: usize,
    /// Where the next byte goes.
    at: usize,
    /// How much of the frame is in the ring.
    filled: usize,
    /// From here up to `at` it has not been handed on.
    handed: usize,
}

impl DecodedWindow {
    /// A frame begins.
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

    /// Repeats what came `offset` bytes before.
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
            // What is copied may be what this very match has written: a whole number of repetitions at once.
            let mut ready = offset.min(size.saturating_sub(from));
            let mut left = length.min(room);
            if from < self.at {
                length = length.saturating_sub(left);
            } else {
                // From the end of the ring: up to there, then on from its beginning.
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

    /// Hands on what has not been yet.
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

    /// How many bytes fit before the end of the ring: at least one. More memory is asked for as long as all that was
    /// decoded fits into the window.
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

/// Where decoded bytes go, and what bounds them.
pub(super) struct Out<'a, S> {
    pub(super) memory: &'a MemoryBudget,
    pub(super) budget: &'a mut Budget,
    pub(super) to: &'a mut S,
}
