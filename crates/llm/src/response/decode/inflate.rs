//! Decodes `gzip` (any number of members) and `deflate` (with zlib's header, or raw, as some servers send
//! it).

use super::leased;
use super::{Budget, Sink};
use crate::memory::{Lease, MemoryBudget};
use crate::response::cause::Cause;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// The maximum distance of a match. The output wraps around in a buffer of this size.
const WINDOW: usize = 32 << 10;

pub(crate) struct Inflate {
    part: MemberSection,
    core: DecompressorOxide,
    window: [u8; WINDOW],
    at: usize,
    wrapper: Wrapper,
    /// Whether a complete member has been read.
    later: bool,
    // The lease comes last, so that it is dropped after the memory that it covers.
    _lease: Lease,
}

/// The format around the compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapper {
    /// Any number of members, each with a header, a checksum and a length.
    Gzip,
    /// A header and a checksum.
    Zlib,
    None,
}

/// The part that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberSection {
    /// The ten fixed bytes of a gzip header, and its flags once they have arrived.
    Fixed {
        read: u8,
        flags: u8,
    },
    /// The length of the extra field, low byte first.
    ExtraLength {
        read: u8,
        length: u32,
        flags: u8,
    },
    Extra {
        left: u32,
        flags: u8,
    },
    /// A file name or comment, which ends with a zero.
    Text {
        flags: u8,
    },
    HeaderChecksum {
        left: u8,
    },
    /// The first byte of zlib's header or of raw data.
    Zlib,
    /// The second byte, which distinguishes the two.
    ZlibCheck {
        first: u8,
    },
    Body,
    Trailer {
        left: u8,
    },
    /// After the last member.
    End,
}

const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const CHECKSUM: u8 = 2;

impl Inflate {
    pub(crate) fn gzip(memory: &MemoryBudget) -> Option<Box<Self>> {
        Self::new(MemberSection::Fixed { read: 0, flags: 0 }, Wrapper::Gzip, memory)
    }

    pub(crate) fn deflate(memory: &MemoryBudget) -> Option<Box<Self>> {
        Self::new(MemberSection::Zlib, Wrapper::Zlib, memory)
    }

    /// Allocates all memory that the decoder will ever need.
    fn new(part: MemberSection, wrapper: Wrapper, memory: &MemoryBudget) -> Option<Box<Self>> {
        let lease = leased::lease(size_of::<Self>(), memory)?;
        let core = DecompressorOxide::new();
        let window = [0; WINDOW];
        Some(Box::new(Self { part, core, window, at: 0, wrapper, later: false, _lease: lease }))
    }

    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        budget: &mut Budget,
        to: &mut impl Sink,
    ) -> Result<(), Cause> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.part {
                MemberSection::Body => bytes = self.body(bytes, budget, to)?,
                // Some servers pad gzip. In the other formats, bytes after the end mean that the label is
                // wrong.
                MemberSection::End if self.wrapper == Wrapper::Gzip => return Ok(()),
                MemberSection::End => return Err(Cause::Corrupt),
                _ => {
                    self.around(*first, budget, to)?;
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        matches!(
            self.part,
            MemberSection::End
                | MemberSection::Fixed { read: 0, .. }
                | MemberSection::Trailer { .. }
                | MemberSection::Zlib
        )
    }

    fn body<'a>(
        &mut self,
        mut bytes: &'a [u8],
        budget: &mut Budget,
        to: &mut impl Sink,
    ) -> Result<&'a [u8], Cause> {
        loop {
            let (status, read, written) =
                decompress(&mut self.core, bytes, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            bytes = bytes.get(read..).unwrap_or_default();
            let end = self.at.saturating_add(written);
            budget.decoded(written)?;
            to.take(self.window.get(self.at..end).unwrap_or_default());
            self.at = if end >= WINDOW { 0 } else { end };
            match status {
                TINFLStatus::Done => {
                    self.later = true;
                    self.part = match self.wrapper {
                        Wrapper::Gzip => MemberSection::Trailer { left: 8 },
                        Wrapper::Zlib => MemberSection::Trailer { left: 4 },
                        Wrapper::None => MemberSection::End,
                    };
                    return Ok(bytes);
                }
                TINFLStatus::NeedsMoreInput => return Ok(bytes),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(Cause::Corrupt),
            }
        }
    }

    /// Reads a byte of a header or trailer.
    fn around(&mut self, byte: u8, budget: &mut Budget, to: &mut impl Sink) -> Result<(), Cause> {
        self.part = match self.part {
            MemberSection::Fixed { read, flags } => self.fixed(byte, read, flags)?,
            MemberSection::ExtraLength { read: 0, flags, .. } => {
                MemberSection::ExtraLength { read: 1, length: u32::from(byte), flags }
            }
            MemberSection::ExtraLength { length, flags, .. } => match length | u32::from(byte) << 8 {
                0 => header(flags),
                left => MemberSection::Extra { left, flags },
            },
            MemberSection::Extra { left: 0 | 1, flags } => header(flags),
            MemberSection::Extra { left, flags } => {
                MemberSection::Extra { left: left.saturating_sub(1), flags }
            }
            MemberSection::Text { flags } if byte == 0 => header(flags),
            MemberSection::HeaderChecksum { left: 0 | 1 } => MemberSection::Body,
            MemberSection::HeaderChecksum { left } => {
                MemberSection::HeaderChecksum { left: left.saturating_sub(1) }
            }
            MemberSection::Zlib if byte & 0x0f == 8 && byte >> 4 <= 7 => {
                MemberSection::ZlibCheck { first: byte }
            }
            MemberSection::Zlib => return self.bare(&[byte], budget, to),
            MemberSection::ZlibCheck { first } => {
                let header = u16::from_be_bytes([first, byte]);
                if header.checked_rem(31) != Some(0) {
                    return self.bare(&[first, byte], budget, to);
                }
                MemberSection::Body
            }
            MemberSection::Trailer { left: 0 | 1 } if self.wrapper == Wrapper::Gzip => {
                MemberSection::Fixed { read: 0, flags: 0 }
            }
            MemberSection::Trailer { left: 0 | 1 } => MemberSection::End,
            MemberSection::Trailer { left } => MemberSection::Trailer { left: left.saturating_sub(1) },
            part => part,
        };
        Ok(())
    }

    /// Reads a byte of the fixed part of a gzip header.
    fn fixed(&mut self, byte: u8, read: u8, flags: u8) -> Result<MemberSection, Cause> {
        let expected = match read {
            // Bytes after a member are padding if they do not begin another member.
            0 if byte != 0x1f && self.later => return Ok(MemberSection::End),
            0 => byte == 0x1f,
            1 => byte == 0x8b,
            2 => byte == 8,
            3 => return Ok(MemberSection::Fixed { read: 4, flags: byte }),
            9 => {
                self.core = DecompressorOxide::new();
                return Ok(header(flags));
            }
            _ => true,
        };
        let next = MemberSection::Fixed { read: read.saturating_add(1), flags };
        if expected { Ok(next) } else { Err(Cause::Corrupt) }
    }

    /// Handles a missing header: these bytes are data.
    fn bare(&mut self, bytes: &[u8], budget: &mut Budget, to: &mut impl Sink) -> Result<(), Cause> {
        self.part = MemberSection::Body;
        self.wrapper = Wrapper::None;
        self.feed(bytes, budget, to)
    }
}

/// Returns the next part of the header according to its flags. Each flag is cleared when its part is reached.
fn header(flags: u8) -> MemberSection {
    if flags & EXTRA != 0 {
        MemberSection::ExtraLength { read: 0, length: 0, flags: flags & !EXTRA }
    } else if flags & NAME != 0 {
        MemberSection::Text { flags: flags & !NAME }
    } else if flags & COMMENT != 0 {
        MemberSection::Text { flags: flags & !COMMENT }
    } else if flags & CHECKSUM != 0 {
        MemberSection::HeaderChecksum { left: 2 }
    } else {
        MemberSection::Body
    }
}
