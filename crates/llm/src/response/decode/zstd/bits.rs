//! The two kinds of bit streams in a block: one is read from its end, the other from its beginning.

/// A stream that is read backwards, from the highest bit of its last byte. All bits beyond its beginning are
/// zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackwardBits<'a> {
    /// The bytes that have not been loaded.
    rest: &'a [u8],
    /// The next bits, from the highest one down. Bits below the loaded ones may already belong to `rest`.
    loaded: u64,
    /// The number of loaded bits.
    count: u32,
    /// The number of bits that were read beyond the beginning.
    missing: u32,
}

impl<'a> BackwardBits<'a> {
    /// Creates a stream. The highest set bit in the last byte marks its beginning.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mark = bytes.last().filter(|last| **last != 0)?;
        let mut bits = Self { rest: bytes, loaded: 0, count: 0, missing: 0 };
        bits.load();
        bits.skip(mark.leading_zeros().saturating_add(1));
        Some(bits)
    }

    /// Makes the next 56 bits available to [`Self::take`], if there are that many.
    #[inline(always)]
    pub(super) fn load(&mut self) {
        if let Some((_, last)) = self.rest.split_last_chunk::<8>() {
            self.loaded |= u64::from_le_bytes(*last).checked_shr(self.count).unwrap_or(0);
            let bytes = 63u32.saturating_sub(self.count) >> 3;
            let left = self.rest.len().saturating_sub(bytes as usize);
            self.rest = self.rest.get(..left).unwrap_or_default();
            self.count = self.count.saturating_add(bytes << 3);
        } else {
            while self.count <= 56
                && let Some((last, rest)) = self.rest.split_last()
            {
                self.loaded |= u64::from(*last) << 56u32.saturating_sub(self.count);
                self.count = self.count.saturating_add(8);
                self.rest = rest;
            }
        }
    }

    /// Returns the next bits without consuming them. At most 56 bits are available after a load.
    #[inline(always)]
    pub(super) fn peek(&self, bits: u32) -> usize {
        // Shifts twice, because a shift by 64 would overflow.
        ((self.loaded >> 1) >> 63u32.saturating_sub(bits)) as usize
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        self.loaded = self.loaded.checked_shl(bits).unwrap_or(0);
        self.missing = self.missing.saturating_add(bits.saturating_sub(self.count));
        self.count = self.count.saturating_sub(bits);
    }

    #[inline(always)]
    pub(super) fn take(&mut self, bits: u32) -> usize {
        let value = self.peek(bits);
        self.skip(bits);
        value
    }

    /// Returns whether more bits were read than the stream contains.
    pub(super) fn is_overrun(&self) -> bool {
        self.missing > 0
    }

    /// Returns whether all bits have been read and no more.
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_empty() && self.count == 0 && self.missing == 0
    }
}

/// A stream that is read from the lowest bit of its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForwardBits<'a> {
    bytes: &'a [u8],
    /// The number of bits that have been read.
    at: usize,
}

impl<'a> ForwardBits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the next bits, at most 16.
    pub(super) fn take(&mut self, bits: u32) -> Option<u32> {
        let byte = self.at >> 3;
        let mut value = 0u32;
        for (index, byte) in self.bytes.get(byte..)?.iter().take(3).enumerate() {
            value |= u32::from(*byte) << (index << 3);
        }
        self.at = self.at.saturating_add(bits as usize);
        if self.at > self.bytes.len().saturating_mul(8) {
            return None;
        }
        let shift = self.at.saturating_sub(bits as usize) & 7;
        Some((value >> shift) & 1u32.checked_shl(bits)?.saturating_sub(1))
    }

    /// Goes back one bit.
    pub(super) fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    /// Returns the remaining bytes, beginning with the next whole byte.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at.div_ceil(8)..).unwrap_or_default()
    }
}
