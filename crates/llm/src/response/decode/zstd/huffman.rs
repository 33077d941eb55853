//! Decodes literals in Huffman codes (RFC 8878, section 4.2).

use super::bits::BackwardBits;
use super::fse::Table;

/// The longest code.
const MAX_BITS: u32 = 11;
const MAX_SYMBOLS: usize = 256;

/// A table with an entry for every bit sequence that is as long as the longest code. Each entry has the
/// symbol at the beginning of the sequence and the length of its code.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    entries: [(u8, u8); 1 << MAX_BITS],
    bits: u32,
    /// Whether a later block may use it again.
    pub(super) is_set: bool,
}

impl Default for Codes {
    fn default() -> Self {
        Self { entries: [(0, 0); 1 << MAX_BITS], bits: 0, is_set: false }
    }
}

impl Codes {
    /// Reads the description of the codes. Returns the rest.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.is_set = false;
        let mut weights = [0u8; MAX_SYMBOLS];
        let (header, bytes) = bytes.split_first()?;
        let (count, rest) = match header.checked_sub(127) {
            Some(0) | None => {
                let (packed, rest) = bytes.split_at_checked(usize::from(*header))?;
                (unpack(packed, &mut weights)?, rest)
            }
            Some(count) => {
                let count = usize::from(count);
                let (packed, rest) = bytes.split_at_checked(count.div_ceil(2))?;
                let both = packed.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                weights.iter_mut().zip(both.take(count)).for_each(|(weight, new)| *weight = new);
                (count, rest)
            }
        };
        self.build(&mut weights, count)?;
        self.is_set = true;
        Some(rest)
    }

    /// Builds the table from the weights. The weight of the last symbol follows from the others.
    fn build(&mut self, weights: &mut [u8; MAX_SYMBOLS], count: usize) -> Option<()> {
        let weight =
            |weight: u8| if weight == 0 { 0 } else { 1u32.checked_shl(u32::from(weight) - 1).unwrap_or(0) };
        let given = weights.get(..count)?;
        if given.iter().any(|weight| u32::from(*weight) > MAX_BITS) {
            return None;
        }
        let sum = given.iter().map(|given| weight(*given)).sum::<u32>();
        let bits = sum.checked_ilog2()?.saturating_add(1);
        let left = (1u32 << bits).checked_sub(sum)?;
        if bits > MAX_BITS || !left.is_power_of_two() {
            return None;
        }
        *weights.get_mut(count)? = u8::try_from(left.ilog2().saturating_add(1)).ok()?;
        // The position where the codes of each weight begin. The longest codes, which have the lowest weight,
        // come first.
        let mut begin = [0usize; MAX_BITS as usize + 2];
        for weight in weights.iter().filter(|weight| **weight > 0) {
            let later = begin.get_mut(usize::from(*weight).saturating_add(1)..).unwrap_or_default();
            later.iter_mut().for_each(|begin| *begin = begin.saturating_add(1 << (weight - 1)));
        }
        for (symbol, weight) in (0u8..=255).zip(weights.iter()).filter(|(_, weight)| **weight > 0) {
            let begin = begin.get_mut(usize::from(*weight))?;
            let end = begin.saturating_add(1 << (weight - 1));
            let length = u8::try_from(bits.saturating_add(1).checked_sub(u32::from(*weight))?).ok()?;
            self.entries.get_mut(*begin..end)?.fill((symbol, length));
            *begin = end;
        }
        self.bits = bits;
        Some(())
    }

    /// Fills `to` from one stream, which must contain exactly these literals.
    pub(super) fn decode(&self, stream: &[u8], to: &mut [u8]) -> Option<()> {
        let mut bits = BackwardBits::new(stream)?;
        let mask = (1usize << self.bits).saturating_sub(1);
        let entries = self.entries.get(..=mask)?;
        // Five codes have at most 55 bits.
        for piece in to.chunks_mut(5) {
            bits.load();
            for byte in piece {
                let (symbol, length) = entries.get(bits.peek(self.bits) & mask).copied().unwrap_or_default();
                *byte = symbol;
                bits.skip(u32::from(length));
            }
        }
        bits.is_complete().then_some(())
    }
}

/// Reads compressed weights with two alternating states. Returns how many there are.
fn unpack(packed: &[u8], weights: &mut [u8; MAX_SYMBOLS]) -> Option<usize> {
    let mut table = Table::default();
    let rest = table.read(packed, 6, MAX_BITS as usize + 2)?;
    let mut bits = BackwardBits::new(rest)?;
    let (mut one, mut other) = (bits.take(table.log), bits.take(table.log));
    let mut count = 0usize;
    // The last symbol's weight is omitted.
    let mut room = weights.iter_mut().take(MAX_SYMBOLS - 1);
    loop {
        *room.next()? = table.symbol(one);
        count = count.saturating_add(1);
        bits.load();
        one = table.next(one, &mut bits);
        if bits.is_overrun() {
            *room.next()? = table.symbol(other);
            return count.checked_add(1);
        }
        std::mem::swap(&mut one, &mut other);
    }
}
