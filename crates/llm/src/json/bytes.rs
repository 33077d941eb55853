//! The inner loops: they find the ends of values and count characters.

use super::lanes::{BLOCK, Block, Quotes, Sum, Weight, find_within};
use super::script;
use memchr::memchr;

/// Returns the bytes after any leading white space.
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

/// Returns the position of a string's closing quote. `bytes` must begin inside the string and outside an
/// escape sequence.
pub(crate) fn closing_quote(bytes: &[u8]) -> Option<usize> {
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

/// Returns the position of the closing quote if the string is shorter than 32 bytes and has no escape
/// sequences. Nearly all strings are of this kind.
pub(super) fn short_string(bytes: &[u8]) -> Option<usize> {
    let at = find_within::<Quotes>(bytes, 2).ok()?;
    (bytes.get(at) == Some(&b'"')).then_some(at)
}

/// Returns the weight ([`script`]) of UTF-8 text. The weights of all chunks add up to the weight of the text,
/// even if a character is split between chunks.
pub(crate) fn characters(bytes: &[u8]) -> u64 {
    if bytes.len() < BLOCK && bytes.iter().copied().fold(0, u8::max) < script::ONE_MORE_FROM {
        return bytes.len() as u64;
    }
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut weight = Weight::default();
    blocks.iter().for_each(|block| weight.add(&Block::new(block)));
    let rest = rest.iter().map(|byte| script::of_byte(*byte)).fold(0, u64::wrapping_add);
    weight.total().saturating_add(rest)
}

/// Counts the decoded characters of a JSON string block by block. It stops before the first block in which
/// the string ends, or which has an escape sequence that is incomplete or longer than two bytes. Returns the
/// number of characters and the number of bytes read. The first byte must be outside an escape sequence.
pub(super) fn plain_characters(bytes: &[u8]) -> (u64, usize) {
    // The backslash of an escape sequence does not count.
    let (mut weight, mut escapes) = (Weight::default(), Sum::default());
    let mut reach = 0usize;
    for bytes in bytes.as_chunks::<BLOCK>().0 {
        let block = Block::new(bytes);
        if block.any(b'"', b'\\') {
            if !is_plain(&block) {
                break;
            }
            escapes.equal(&block, b'\\');
        }
        weight.add(&block);
        reach = reach.saturating_add(bytes.len());
    }
    (weight.total().saturating_sub(escapes.total()), reach)
}

/// Returns whether each backslash begins a two-byte escape sequence within the block, and each quote ends
/// one.
fn is_plain(block: &Block) -> bool {
    let (quotes, escapes) = (block.equal(b'"'), block.equal(b'\\'));
    let escaped = escapes << 1;
    escapes >> 63 == 0 && escaped & (escapes | block.equal(b'u')) == 0 && quotes & !escaped == 0
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
    fn a_string_of_less_than_32_bytes_is_short_wherever_the_bytes_end() {
        for length in 0..40 {
            let text = "x".repeat(length);
            for after in 0..40 {
                let rest = ",".repeat(after);
                assert_eq!(
                    short_string(format!("{text}\"{rest}").as_bytes()),
                    (length < 32).then_some(length)
                );
                assert_eq!(short_string(format!("{text}\\\"{rest}").as_bytes()), None);
            }
            assert_eq!(short_string(text.as_bytes()), None);
        }
    }

    #[test]
    fn characters_are_counted_where_they_begin() {
        let text = "na\u{ef}ve \u{6c34} \u{1f600}".repeat(50);
        for end in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(end);
            assert_eq!(characters(one) + characters(other), 50 * (6 + 2 + 4 + 8));
        }
    }
}
