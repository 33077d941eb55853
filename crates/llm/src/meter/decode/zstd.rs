//! `zstd`. Frames follow each other; each consists of blocks of at most 128 KiB, which are kept until they are
//! complete. The window is at most 8 MiB, as RFC 9659 demands of this content encoding.

use super::{Budget, Sink};
use crate::meter::report::Cause;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read as _;

const MOST_WINDOW: u64 = 8 << 20;
const MOST_BLOCK: usize = 128 << 10;
const PIECE: usize = 16 << 10;
const MAGIC: u32 = 0xfd2f_b528;
/// Frames to be passed over have a magic number that ends in any nibble.
const SKIPPABLE: u32 = 0x184d_2a50;

pub(crate) struct Zstd {
    core: FrameDecoder,
    part: Part,
    /// What has come of the current part.
    kept: Vec<u8>,
    piece: [u8; PIECE],
    /// The frame ends in a checksum.
    checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Block,
    /// Bytes of a frame to be passed over.
    Skip(u32),
}

impl Default for Zstd {
    fn default() -> Self {
        let mut core = FrameDecoder::new();
        core.set_max_window_size(MOST_WINDOW);
        Self { core, part: Part::Header, kept: Vec::new(), piece: [0; PIECE], checksum: false }
    }
}

impl Zstd {
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        budget: &mut Budget,
        to: &mut impl Sink,
    ) -> Result<(), Cause> {
        while !bytes.is_empty() {
            if let Part::Skip(left) = self.part {
                let skipped = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = bytes.get(skipped..).unwrap_or_default();
                let left = left.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
                self.part = if left == 0 { Part::Header } else { Part::Skip(left) };
                continue;
            }
            let missing = self.needs()?.saturating_sub(self.kept.len());
            let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
            self.kept.extend_from_slice(piece);
            bytes = rest;
            if self.kept.len() == self.needs()? {
                self.advance(budget, to)?;
            }
        }
        Ok(())
    }

    /// Hands over what is kept back for later matches; whether the body is complete. A frame that was cut is ended
    /// by an empty last block, since the decoder lets go of its window only then.
    pub(crate) fn finish(&mut self, budget: &mut Budget, to: &mut impl Sink) -> Result<bool, Cause> {
        let complete = self.part == Part::Header && self.kept.is_empty();
        if self.part == Part::Block {
            self.kept.clear();
            self.kept.extend_from_slice(&[1, 0, 0]);
            if self.checksum {
                self.kept.extend_from_slice(&[0; 4]);
            }
            self.advance(budget, to)?;
        }
        Ok(complete)
    }

    /// How long the current part is, as far as that can be told from what has come of it.
    fn needs(&self) -> Result<usize, Cause> {
        match self.part {
            Part::Header => header_length(&self.kept),
            _ => self.block_length(),
        }
    }

    fn block_length(&self) -> Result<usize, Cause> {
        let Some(header) = self.block_header() else { return Ok(3) };
        let size = usize::try_from(header >> 3).unwrap_or(usize::MAX);
        let content = match header >> 1 & 3 {
            1 => 1,
            3 => return Err(Cause::Corrupt),
            _ => size,
        };
        if size > MOST_BLOCK {
            return Err(Cause::Corrupt);
        }
        let checksum = if header & 1 == 1 && self.checksum { 4 } else { 0 };
        Ok(content.saturating_add(3).saturating_add(checksum))
    }

    fn block_header(&self) -> Option<u32> {
        let [low, middle, high] = self.kept.first_chunk::<3>()?;
        Some(u32::from_le_bytes([*low, *middle, *high, 0]))
    }

    /// The current part is complete.
    fn advance(&mut self, budget: &mut Budget, to: &mut impl Sink) -> Result<(), Cause> {
        match self.part {
            Part::Header => self.begin_frame()?,
            _ => {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                let last = self.core.decode_blocks(self.kept.as_slice(), blocks);
                if last.map_err(|_| Cause::Corrupt)? {
                    self.part = Part::Header;
                }
                self.drain(budget, to)?;
            }
        }
        self.kept.clear();
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<(), Cause> {
        let magic = self.kept.first_chunk().map_or(0, |magic| u32::from_le_bytes(*magic));
        if magic & !15 == SKIPPABLE {
            let length = self.kept.last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
            self.part = if length == 0 { Part::Header } else { Part::Skip(length) };
            return Ok(());
        }
        self.checksum = self.kept.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
        self.core.reset(self.kept.as_slice()).map_err(|_| Cause::Encoding)?;
        self.part = Part::Block;
        Ok(())
    }

    fn drain(&mut self, budget: &mut Budget, to: &mut impl Sink) -> Result<(), Cause> {
        loop {
            let written = self.core.read(&mut self.piece).map_err(|_| Cause::Corrupt)?;
            if written == 0 {
                return Ok(());
            }
            budget.decoded(written)?;
            to.take(self.piece.get(..written).unwrap_or_default());
        }
    }
}

/// Magic number, descriptor, and what the descriptor announces: window, dictionary, content size.
fn header_length(kept: &[u8]) -> Result<usize, Cause> {
    let Some(magic) = kept.first_chunk::<4>() else { return Ok(4) };
    let magic = u32::from_le_bytes(*magic);
    if magic & !15 == SKIPPABLE {
        return Ok(8);
    }
    if magic != MAGIC {
        return Err(Cause::Corrupt);
    }
    let Some(descriptor) = kept.get(4) else { return Ok(5) };
    let single_segment = descriptor & 0x20 != 0;
    let window = if single_segment { 0 } else { 1 };
    let dictionary = match descriptor & 3 {
        3 => 4,
        other => usize::from(other),
    };
    let content = match descriptor >> 6 {
        0 if single_segment => 1,
        0 => 0,
        1 => 2,
        2 => 4,
        _ => 8,
    };
    Ok([5, window, dictionary, content].into_iter().fold(0, usize::saturating_add))
}
