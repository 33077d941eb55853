//! The two kinds of bit streams in a block: one that is read from its end, and one that is read from its beginning.

/// A stream that is read backwards, from the highest bit of its last byte. Beyond its beginning it holds zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackwardBits<'a> {
    /// What has not been loaded yet.
    rest: &'a [u8],
    /// The next bits, from the highest one on. Below the loaded ones there may be some of `rest` already.
    loaded: u64,
    /// How many have been loaded.
    count: u32,
    /// How many bits were read that are not there.
    missing: u32,
}

impl<'a> BackwardBits<'a> {
    /// The stream in these bytes. Its beginning is marked by the highest bit that is set in the last byte.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mark = bytes.last().filter(|last| **last != 0)?;
        let mut bits = Self { rest: bytes, loaded: 0, count: 0, missing: 0 };
        bits.load();
        bits.skip(mark.leading_zeros().saturating_add(1));
        Some(bits)
    }

    /// Makes the next 56 bits available to [`Self::take`], as far as they are there.
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

    /// The next bits without reading them: at most 56, after a load.
    #[inline(always)]
    pub(super) fn peek(&self, bits: u32) -> usize {
        // Twice, since a shift by 64 is none.
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

    /// Whether more was read than there is.
    pub(super) fn is_overrun(&self) -> bool {
        self.missing > 0
    }

    /// Whether exactly what there is has been read.
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_empty() && self.count == 0 && self.missing == 0
    }
}

/// A stream that is read from the lowest bit of its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForwardBits<'a> {
    bytes: &'a [u8],
    /// How many bits have been read.
    at: usize,
}

impl<'a> ForwardBits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, at most 16.
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

    /// What follows, from the next whole byte on.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at.div_ceil(8)..).unwrap_or_default()
    }
}
