//! Decodes `zstd` (RFC 8878). A body is a sequence of frames, and a frame is a sequence of blocks of at most
//! 128 KiB. The window is at most 8 MiB, as RFC 9659 requires for this content encoding and as browsers
//! enforce. Weir has its own decoder because libraries allocate as much as a header announces and hold back
//! the window until the end. This decoder reserves memory before it allocates, and outputs each block as soon
//! as it has arrived.

mod bits;
mod block;
mod fse;
mod huffman;
mod window;

use super::leased::{self, LeasedBytes};
use super::{Budget, Sink};
use crate::memory::{Lease, MemoryBudget};
use crate::response::cause::Cause;
use block::Blocks;
use window::{DecodedWindow, Out};

const MAX_WINDOW: u64 = 8 << 20;
const MAX_BLOCK: usize = 128 << 10;
const MAGIC: u32 = 0xfd2f_b528;
/// The magic number of skippable frames. Its lowest four bits may have any value.
const SKIPPABLE: u32 = 0x184d_2a50;

pub(crate) struct Zstd {
    part: FrameSection,
    /// The bytes of the current part, unless all of it arrived at once.
    kept: LeasedBytes,
    window: DecodedWindow,
    blocks: Blocks,
    /// The maximum size of a block in the frame.
    most_block: usize,
    /// Whether the frame ends with a checksum.
    checksum: bool,
    memory: MemoryBudget,
    // The lease comes last, so that it is dropped after the memory that it covers.
    _lease: Lease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameSection {
    Header,
    Block,
    /// In a skippable frame.
    Skip(u32),
}

impl Zstd {
    pub(crate) fn new(memory: &MemoryBudget) -> Option<Box<Self>> {
        let lease = leased::lease(size_of::<Self>(), memory)?;
        Some(Box::new(Self {
            part: FrameSection::Header,
            kept: LeasedBytes::default(),
            window: DecodedWindow::default(),
            blocks: Blocks::default(),
            most_block: 0,
            checksum: false,
            memory: memory.clone(),
            _lease: lease,
        }))
    }

    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        budget: &mut Budget,
        to: &mut impl Sink,
    ) -> Result<(), Cause> {
        while !bytes.is_empty() {
            if let FrameSection::Skip(left) = self.part {
                let skipped = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = bytes.get(skipped..).unwrap_or_default();
                let left = left.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
                self.part = if left == 0 { FrameSection::Header } else { FrameSection::Skip(left) };
                continue;
            }
            if self.kept.bytes().is_empty()
                && let needed = self.needs(bytes)?
                && let Some((part, rest)) = bytes.split_at_checked(needed)
            {
                self.advance(part, budget, to)?;
                bytes = rest;
                continue;
            }
            let missing = self.needs(self.kept.bytes())?.saturating_sub(self.kept.bytes().len());
            let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
            if !self.kept.extend(piece, &self.memory) {
                return Err(Cause::Memory);
            }
            bytes = rest;
            if self.kept.bytes().len() == self.needs(self.kept.bytes())? {
                let kept = std::mem::take(&mut self.kept);
                self.advance(kept.bytes(), budget, to)?;
                self.kept = kept;
                self.kept.clear();
            }
        }
        Ok(())
    }

    /// Returns whether the last frame is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.part == FrameSection::Header && self.kept.bytes().is_empty()
    }

    /// Returns the length of the current part, as far as its beginning determines it.
    fn needs(&self, part: &[u8]) -> Result<usize, Cause> {
        match self.part {
            FrameSection::Header => header_length(part),
            _ => self.block_length(part),
        }
    }

    fn block_length(&self, block: &[u8]) -> Result<usize, Cause> {
        let Some(header) = BlockHeader::read(block) else { return Ok(3) };
        let checksum = if header.is_last && self.checksum { 4 } else { 0 };
        let content = match header.kind {
            1 => 1,
            3 => return Err(Cause::Corrupt),
            _ => header.size,
        };
        if header.size > self.most_block {
            return Err(Cause::Corrupt);
        }
        Ok(content.saturating_add(3).saturating_add(checksum))
    }

    /// Handles the complete current part.
    fn advance(&mut self, part: &[u8], budget: &mut Budget, to: &mut impl Sink) -> Result<(), Cause> {
        if self.part == FrameSection::Header {
            return self.begin_frame(part);
        }
        let header = BlockHeader::read(part).ok_or(Cause::Corrupt)?;
        let content = part.get(3..).unwrap_or_default();
        let mut out = Out { memory: &self.memory, budget, to };
        match header.kind {
            0 => self.window.literals(content.get(..header.size).unwrap_or_default(), &mut out)?,
            1 => {
                let byte = content.first().copied().unwrap_or_default();
                self.window.run(byte, header.size, &mut out)?;
            }
            _ => {
                let block = content.get(..header.size).unwrap_or_default();
                self.blocks.decode(block, self.most_block, &mut self.window, &mut out)?;
            }
        }
        self.window.hand_on(&mut out)?;
        if header.is_last {
            self.part = FrameSection::Header;
        }
        Ok(())
    }

    fn begin_frame(&mut self, header: &[u8]) -> Result<(), Cause> {
        let magic = header.first_chunk().map_or(0, |magic| u32::from_le_bytes(*magic));
        if magic & !15 == SKIPPABLE {
            let length = header.last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
            self.part = if length == 0 { FrameSection::Header } else { FrameSection::Skip(length) };
            return Ok(());
        }
        let frame = FrameHeader::read(header).ok_or(Cause::Corrupt)?;
        if frame.has_dictionary {
            return Err(Cause::Encoding);
        }
        let window = usize::try_from(frame.window).ok().filter(|_| frame.window <= MAX_WINDOW);
        let window = window.ok_or(Cause::Window)?;
        self.checksum = frame.has_checksum;
        self.most_block = window.min(MAX_BLOCK);
        self.window.begin(window);
        self.blocks.begin();
        self.part = FrameSection::Block;
        Ok(())
    }
}

struct BlockHeader {
    is_last: bool,
    /// 0: raw. 1: one repeated byte. 2: compressed.
    kind: u32,
    size: usize,
}

impl BlockHeader {
    fn read(block: &[u8]) -> Option<Self> {
        let [low, middle, high] = block.first_chunk::<3>()?;
        let header = u32::from_le_bytes([*low, *middle, *high, 0]);
        Some(Self { is_last: header & 1 == 1, kind: header >> 1 & 3, size: (header >> 3) as usize })
    }
}

struct FrameHeader {
    window: u64,
    has_dictionary: bool,
    has_checksum: bool,
}

impl FrameHeader {
    /// Parses a complete header.
    fn read(header: &[u8]) -> Option<Self> {
        let (descriptor, fields) = header.get(4..)?.split_first()?;
        let (sizes, has_checksum) = (sizes(*descriptor), descriptor & 4 != 0);
        let (window, fields) = fields.split_at_checked(sizes.window)?;
        let (dictionary, content) = fields.split_at_checked(sizes.dictionary)?;
        let mut bytes = [0; 8];
        bytes.get_mut(..sizes.content)?.copy_from_slice(content.get(..sizes.content)?);
        // The values of the two-byte field begin after those of the one-byte field.
        let extra = if sizes.content == 2 { 256 } else { 0 };
        let content = u64::from_le_bytes(bytes).saturating_add(extra);
        let window = match window.first() {
            Some(window) => {
                let base = 1u64 << (window >> 3).saturating_add(10);
                base.saturating_add((base >> 3).saturating_mul(u64::from(window & 7)))
            }
            None => content,
        };
        let has_dictionary = dictionary.iter().any(|byte| *byte != 0);
        Some(Self { window, has_dictionary, has_checksum })
    }
}

/// The sizes of the fields in a frame's header, in bytes.
struct Sizes {
    window: usize,
    dictionary: usize,
    content: usize,
}

fn sizes(descriptor: u8) -> Sizes {
    let single_segment = descriptor & 0x20 != 0;
    let dictionary = match descriptor & 3 {
        3 => 4,
        other => usize::from(other),
    };
    let content = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    Sizes { window: usize::from(!single_segment), dictionary, content }
}

/// Returns the length of a frame's header, as far as its first bytes determine it.
fn header_length(header: &[u8]) -> Result<usize, Cause> {
    let Some(magic) = header.first_chunk::<4>() else { return Ok(4) };
    let magic = u32::from_le_bytes(*magic);
    if magic & !15 == SKIPPABLE {
        return Ok(8);
    }
    if magic != MAGIC {
        return Err(Cause::Corrupt);
    }
    let Some(descriptor) = header.get(4) else { return Ok(5) };
    let Sizes { window, dictionary, content } = sizes(*descriptor);
    Ok([5, window, dictionary, content].into_iter().fold(0, usize::saturating_add))
}
