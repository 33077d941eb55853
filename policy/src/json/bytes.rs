//! The inner loops: finding the end of things, counting characters. Written over blocks, so that the compiler makes
//! vector instructions of them, here and in wasm.

use memchr::memchr;

/// Bytes that are looked at together.
const BLOCK: usize = 32;

/// Where the first byte is that `hit` wants. Looks byte by byte at first, since it is mostly near.
pub(super) fn find(bytes: &[u8], hit: impl Fn(u8) -> bool + Copy) -> Option<usize> {
    let (near, far) = bytes.split_at(bytes.len().min(BLOCK));
    if let Some(at) = near.iter().position(|b| hit(*b)) {
        return Some(at);
    }
    let (blocks, _) = far.as_chunks::<BLOCK>();
    let block = blocks.iter().take_while(|block| count(*block, hit) == 0).count();
    let begin = block.saturating_mul(BLOCK);
    let at = far.get(begin..)?.iter().position(|b| hit(*b))?;
    Some(near.len().saturating_add(begin).saturating_add(at))
}

/// How many bytes of at most 255 are hits.
fn count(bytes: &[u8], hit: impl Fn(u8) -> bool) -> u8 {
    bytes.iter().fold(0, |sum: u8, b| sum.wrapping_add(u8::from(hit(*b))))
}

/// What follows the first white space.
pub(super) fn after_space(bytes: &[u8]) -> &[u8] {
    match bytes {
        [first, ..] if *first > b' ' => bytes,
        _ => {
            let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
            let at = bytes.iter().position(|b| !space(b)).unwrap_or(bytes.len());
            bytes.get(at..).unwrap_or_default()
        }
    }
}

/// Where the closing quote of a string is, whose beginning is at the beginning of `bytes` or before it, outside an
/// escape sequence.
pub(super) fn closing_quote(bytes: &[u8]) -> Option<usize> {
    if let Some(at) = short_string(bytes) {
        return Some(at);
    }
    let mut from = 0usize;
    loop {
        let at = from.saturating_add(memchr(b'"', bytes.get(from..)?)?);
        let before = bytes.get(..at)?;
        let escapes = before.iter().rev().take_while(|b| **b == b'\\').count();
        if escapes & 1 == 0 {
            return Some(at);
        }
        from = at.saturating_add(1);
    }
}

/// The same for strings of less than 32 bytes without escape sequences, which are nearly all.
pub(super) fn short_string(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    for (index, word) in bytes.as_chunks::<8>().0.iter().take(4).enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zeros(word ^ (ONES * b'"' as u64));
        let escapes = zeros(word ^ (ONES * b'\\' as u64));
        // The lowest mark is exact; those above it may not be.
        if quotes | escapes != 0 {
            let is_quote = quotes.trailing_zeros() < escapes.trailing_zeros();
            let at = (quotes.trailing_zeros() >> 3) as usize;
            return is_quote.then(|| index.saturating_mul(8).saturating_add(at));
        }
    }
    None
}

/// Characters of UTF-8, counted where they begin, so that a split inside one changes nothing.
pub(crate) fn characters(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let whole: u64 = blocks.iter().map(|block| u64::from(count(block, begins_character))).sum();
    whole.saturating_add(u64::from(count(rest, begins_character)))
}

fn begins_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Decoded characters of a JSON string up to the first block that needs a closer look: the string ends in it, or it
/// holds an escape sequence that is not two bytes for one character, or that may not be complete. Returns the
/// characters and how far they reach. The first byte is outside an escape sequence.
pub(super) fn plain_characters(bytes: &[u8]) -> (u64, usize) {
    let mut sum = 0u64;
    let mut reach = 0usize;
    for block in bytes.as_chunks::<64>().0 {
        let special = block.iter().fold(0u8, |any, b| any | u8::from(*b == b'\\') | u8::from(*b == b'"'));
        if special != 0 && !is_plain(block) {
            break;
        }
        let escapes = if special == 0 { 0 } else { count(block, |b| b == b'\\') };
        let begun = count(block, begins_character);
        sum = sum.saturating_add(u64::from(begun.wrapping_sub(escapes)));
        reach = reach.saturating_add(block.len());
    }
    (sum, reach)
}

/// Whether each backslash begins a sequence of two bytes, all of which are in the block, and each quote ends one.
fn is_plain(block: &[u8; 64]) -> bool {
    // Two windows that overlap, since 63 pairs do not fill vectors.
    let pairs = [(block.get(..32), block.get(1..33)), (block.get(31..63), block.get(32..))];
    let mut odd = 0u8;
    for (one, other) in pairs {
        for (one, other) in one.unwrap_or_default().iter().zip(other.unwrap_or_default()) {
            let long = u8::from(*other == b'\\') | u8::from(*other == b'u');
            let begins = u8::from(*one == b'\\');
            odd |= begins & long | (begins ^ 1) & u8::from(*other == b'"');
        }
    }
    odd == 0 && block.first() != Some(&b'"') && block.last() != Some(&b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_quote_is_the_first_that_no_odd_number_of_backslashes_precedes() {
        for length in 0..80 {
            let padding = "x".repeat(length);
            for (text, quote) in
                [("", true), ("\\\"", true), ("\\\\", true), ("\\\\\\\"", true), ("\\", false)]
            {
                let string = format!("{padding}{text}\",\"next\"");
                let expected = if quote { padding.len() + text.len() } else { string.len() - 6 };
                assert_eq!(closing_quote(string.as_bytes()), Some(expected), "{string}");
            }
            assert_eq!(closing_quote(padding.as_bytes()), None);
            assert_eq!(closing_quote(format!("{padding}\\\"").as_bytes()), None);
        }
    }

    #[test]
    fn what_is_looked_for_is_found_wherever_it_is() {
        for at in 0..200 {
            let mut bytes = vec![b'.'; 200];
            assert_eq!(find(&bytes, |b| b == b'x'), None);
            bytes[at] = b'x';
            bytes[199] = b'x';
            assert_eq!(find(&bytes, |b| b == b'x'), Some(at));
        }
    }

    #[test]
    fn characters_are_counted_where_they_begin() {
        let text = "na\u{ef}ve \u{6c34} \u{1f600}".repeat(50);
        for end in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(end);
            assert_eq!(characters(one) + characters(other), 450);
        }
    }
}
