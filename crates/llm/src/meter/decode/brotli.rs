//! `br`. The window is at most 16 MB (the format's own bound; longer ones are refused) and grows with the data.

use super::{Budget, Sink};
use crate::meter::report::Cause;
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

/// How much is decoded at once.
const PIECE: usize = 16 << 10;

pub(crate) struct Brotli {
    core: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    piece: [u8; PIECE],
    complete: bool,
}

impl Default for Brotli {
    fn default() -> Self {
        let core = BrotliState::new_strict(
            StandardAlloc::default(),
            StandardAlloc::default(),
            StandardAlloc::default(),
        );
        Self { core, piece: [0; PIECE], complete: false }
    }
}

impl Brotli {
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
                BrotliResult::ResultFailure => return Err(Cause::Corrupt),
            }
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }
}
