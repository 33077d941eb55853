//! Classifies many bytes at once, with vector instructions both natively and in Wasm. Results are bit masks,
//! with the lowest bit for the first byte. This is the only file that uses the `wide` crate.

use super::script;
use wide::u8x16;

/// The number of bytes in a block.
pub(super) const BLOCK: usize = 64;

/// One block.
pub(super) struct Block([u8x16; 4]);

impl Block {
    #[inline(always)]
    pub(super) fn new(bytes: &[u8; BLOCK]) -> Self {
        let [a, b, c, d] = bytes.as_chunks::<16>().0 else { return Self([u8x16::splat(0); 4]) };
        Self([u8x16::new(*a), u8x16::new(*b), u8x16::new(*c), u8x16::new(*d)])
    }

    /// Returns a mask of the bytes that equal `byte`.
    #[inline(always)]
    pub(super) fn equal(&self, byte: u8) -> u64 {
        let byte = u8x16::splat(byte);
        self.bits(|lane| lane.simd_eq(byte))
    }

    /// Returns whether any byte equals `one` or `other`.
    #[inline(always)]
    pub(super) fn any(&self, one: u8, other: u8) -> bool {
        let (one, other) = (u8x16::splat(one), u8x16::splat(other));
        let is_either = |lane: u8x16| lane.simd_eq(one) | lane.simd_eq(other);
        let [a, b, c, d] = self.0;
        (is_either(a) | is_either(b) | is_either(c) | is_either(d)).to_bitmask() != 0
    }

    /// Returns a mask of the bytes that open a container.
    #[inline(always)]
    pub(super) fn opening(&self) -> u64 {
        self.folded(b'{')
    }

    /// Returns a mask of the bytes that close a container.
    #[inline(always)]
    pub(super) fn closing(&self) -> u64 {
        self.folded(b'}')
    }

    /// Returns whether each byte weighs 1.
    #[inline(always)]
    pub(super) fn is_even(&self) -> bool {
        let [a, b, c, d] = self.0;
        let most = a.max(b).max(c.max(d));
        from(most, script::ONE_MORE_FROM).to_bitmask() == 0
    }

    /// Returns the weight of the bytes in the mask `of`.
    #[inline(always)]
    pub(super) fn weight(&self, of: u64) -> u64 {
        if self.is_even() {
            return of.count_ones().into();
        }
        let count = |first| u64::from((self.bits(|lane| from(lane, first)) & of).count_ones());
        let more = count(script::FOUR_MORE_FROM).wrapping_mul(3);
        u64::from(of.count_ones()).wrapping_add(count(script::ONE_MORE_FROM)).wrapping_add(more)
    }

    /// Returns a mask of the bytes between numbers and literals: white space, control characters, commas and
    /// colons.
    #[inline(always)]
    pub(super) fn between(&self) -> u64 {
        let (space, comma, colon) = (u8x16::splat(b' '), u8x16::splat(b','), u8x16::splat(b':'));
        self.bits(|lane| lane.min(space).simd_eq(lane) | lane.simd_eq(comma) | lane.simd_eq(colon))
    }

    /// Returns a mask of the bytes that equal this brace or the corresponding bracket.
    #[inline(always)]
    fn folded(&self, brace: u8) -> u64 {
        let (bit, brace) = (u8x16::splat(0x20), u8x16::splat(brace));
        self.bits(|lane| (lane | bit).simd_eq(brace))
    }

    #[inline(always)]
    fn bits(&self, of: impl Fn(u8x16) -> u8x16) -> u64 {
        let bits = |lane| u64::from(of(lane).to_bitmask());
        let [a, b, c, d] = self.0;
        bits(a) | bits(b) << 16 | bits(c) << 32 | bits(d) << 48
    }
}

/// Marks the bytes that are at least `first`.
#[inline(always)]
fn from(lane: u8x16, first: u8) -> u8x16 {
    lane.max(u8x16::splat(first)).simd_eq(lane)
}

/// Counts matching bytes in many blocks without examining single bytes.
#[derive(Default)]
pub(super) struct Sum {
    lanes: u8x16,
    blocks: u8,
    total: u64,
}

impl Sum {
    /// Counts the bytes that equal `byte`.
    #[inline(always)]
    pub(super) fn equal(&mut self, block: &Block, byte: u8) {
        let byte = u8x16::splat(byte);
        self.add(block, |lane| lane.simd_eq(byte));
    }

    #[inline(always)]
    fn add(&mut self, block: &Block, hits: impl Fn(u8x16) -> u8x16) {
        // A hit is 255, which is -1 in wrapping arithmetic.
        let [a, b, c, d] = block.0;
        self.lanes -= hits(a) + hits(b) + hits(c) + hits(d);
        self.blocks = self.blocks.wrapping_add(1);
        // Another block could add 4 to a lane, which would overflow.
        if self.blocks == 63 {
            self.total = self.total();
            (self.lanes, self.blocks) = (u8x16::default(), 0);
        }
    }

    pub(super) fn total(&self) -> u64 {
        let open = self.lanes.to_array().iter().map(|count| u64::from(*count)).sum::<u64>();
        self.total.saturating_add(open)
    }
}

/// Adds up the weights of the characters in many blocks ([`script`]).
#[derive(Default)]
pub(super) struct Weight {
    lanes: u8x16,
    blocks: u8,
    total: u64,
}

impl Weight {
    #[inline(always)]
    pub(super) fn add(&mut self, block: &Block) {
        if block.is_even() {
            self.total = self.total.wrapping_add(BLOCK as u64);
            return;
        }
        let splat = u8x16::splat;
        // A hit is 255, which is -1 in wrapping arithmetic.
        let weight = |lane| {
            let more = from(lane, script::FOUR_MORE_FROM) & splat(3);
            splat(1) - from(lane, script::ONE_MORE_FROM) + more
        };
        let [a, b, c, d] = block.0;
        self.lanes += weight(a) + weight(b) + weight(c) + weight(d);
        self.blocks = self.blocks.wrapping_add(1);
        // Another block could add 20 to a lane, which would overflow.
        if self.blocks == 12 {
            self.total = self.total();
            (self.lanes, self.blocks) = (u8x16::default(), 0);
        }
    }

    pub(super) fn total(&self) -> u64 {
        let open = self.lanes.to_array().iter().map(|weight| u64::from(*weight)).sum::<u64>();
        self.total.saturating_add(open)
    }
}

/// The bytes that a scanner stops at.
pub(super) trait Stop {
    fn is(byte: u8) -> bool;
    fn are(lane: u8x16) -> u8x16;
}

/// The bytes that may follow a number or literal: `,` `:` `"`, brackets and braces. Brackets and braces
/// differ in one bit.
pub(super) struct Structure;

impl Stop for Structure {
    #[inline(always)]
    fn is(byte: u8) -> bool {
        matches!(byte, b',' | b':') || Nesting::is(byte)
    }

    #[inline(always)]
    fn are(lane: u8x16) -> u8x16 {
        let equal = |byte| lane.simd_eq(u8x16::splat(byte));
        equal(b',') | equal(b':') | Nesting::are(lane)
    }
}

/// Quotes, brackets and braces, and the characters that begin comments or other strings in lenient parsers
/// (valid JSON has these only in strings). Except for the slash, these characters differ from a quote in at
/// most two bits.
pub(super) struct Nesting;

impl Stop for Nesting {
    #[inline(always)]
    fn is(byte: u8) -> bool {
        matches!(byte, b'"' | b'#' | b'&' | b'\'' | b'/') || matches!(byte | 0x20, b'{' | b'}')
    }

    #[inline(always)]
    fn are(lane: u8x16) -> u8x16 {
        let (folded, quotes) = (lane | u8x16::splat(0x20), lane | u8x16::splat(0x05));
        let equal = |lane: u8x16, byte| lane.simd_eq(u8x16::splat(byte));
        equal(quotes, b'\'') | equal(lane, b'/') | equal(folded, b'{') | equal(folded, b'}')
    }
}

/// The bytes that end a piece of a string: a quote or a backslash.
pub(super) struct Quotes;

impl Stop for Quotes {
    #[inline(always)]
    fn is(byte: u8) -> bool {
        matches!(byte, b'"' | b'\\')
    }

    #[inline(always)]
    fn are(lane: u8x16) -> u8x16 {
        lane.simd_eq(u8x16::splat(b'"')) | lane.simd_eq(u8x16::splat(b'\\'))
    }
}

/// Returns the position of the first byte that `S` stops at, if it is in the first `lanes` lanes of 16 bytes.
/// Otherwise, returns how many bytes were examined.
#[inline(always)]
pub(super) fn find_within<S: Stop>(bytes: &[u8], lanes: usize) -> Result<usize, usize> {
    let (all, rest) = bytes.as_chunks::<16>();
    for (index, lane) in all.iter().take(lanes).enumerate() {
        let hits = S::are(u8x16::new(*lane)).to_bitmask();
        if hits != 0 {
            return Ok(index.saturating_mul(16).saturating_add(hits.trailing_zeros() as usize));
        }
    }
    if all.len() >= lanes {
        return Err(lanes.saturating_mul(16));
    }
    match rest.iter().position(|byte| S::is(*byte)) {
        Some(at) => Ok(all.len().saturating_mul(16).saturating_add(at)),
        None => Err(bytes.len()),
    }
}

/// Returns the position of the first byte that `S` stops at.
#[inline]
pub(super) fn find<S: Stop>(bytes: &[u8]) -> Option<usize> {
    if bytes.first().is_some_and(|byte| S::is(*byte)) {
        return Some(0);
    }
    find_within::<S>(bytes, usize::MAX).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_what_it_is_alone_wherever_it_stands() {
        for byte in 0..=255u8 {
            assert_eq!(Structure::is(byte), b",:\"#&'/{}[]".contains(&byte), "{byte}");
            assert_eq!(Nesting::is(byte), b"\"#&'/{}[]".contains(&byte), "{byte}");
            assert_eq!(Quotes::is(byte), b"\"\\".contains(&byte), "{byte}");
            for at in 0..BLOCK {
                let mut bytes = [b'.'; BLOCK];
                bytes[at] = byte;
                assert_eq!(find::<Structure>(&bytes), Structure::is(byte).then_some(at));
                assert_eq!(find::<Nesting>(&bytes), Nesting::is(byte).then_some(at));
                assert_eq!(find::<Quotes>(&bytes), Quotes::is(byte).then_some(at));
                let block = Block::new(&bytes);
                assert_eq!(block.equal(byte) >> at & 1, 1);
                assert!(block.any(byte, b'x') && block.any(b'x', byte));
                assert_eq!(block.any(b'x', b'y'), byte == b'x' || byte == b'y');
                assert_eq!(block.is_even(), script::of_byte(byte) == 1);
                let mut weight = Weight::default();
                (0..200).for_each(|_| weight.add(&block));
                assert_eq!(weight.total(), 200 * (63 + script::of_byte(byte)));
                let weights = (block.weight(1 << at), block.weight(!(1 << at)));
                assert_eq!(weights, (script::of_byte(byte), 63));
            }
        }
    }

    #[test]
    fn sums_of_many_blocks_do_not_overflow() {
        let mut sum = Sum::default();
        for blocks in 1..300 {
            sum.equal(&Block::new(&[b'x'; BLOCK]), b'x');
            assert_eq!(sum.total(), blocks * BLOCK as u64);
        }
    }

    #[test]
    fn the_first_one_is_found_at_any_length() {
        for length in 1..200 {
            for at in 0..length {
                let mut bytes = vec![b'.'; length];
                bytes[at] = b'}';
                bytes[length - 1] = b'}';
                assert_eq!(find::<Nesting>(&bytes), Some(at));
            }
            assert_eq!(find::<Nesting>(&vec![b'.'; length]), None);
        }
    }
}
