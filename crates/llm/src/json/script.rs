//! How much of a token a character is, by its script: what tokenizers make of text that nobody counted.
//!
//! The unit is a character of English, of which four make a token. UTF-8 tells the script by the first byte of each
//! character, so many bytes can be weighed at once.
//!
//! | first byte | characters | weight |
//! |---|---|---|
//! | up to 0x7f | ASCII | 1 |
//! | 0xc2 to 0xdf | Latin with accents, Greek, Cyrillic, Hebrew, Arabic | 2 |
//! | 0xe0 to 0xe2 | the scripts of India and South-East Asia, typographic marks | 3 |
//! | 0xe3 to 0xef | Chinese, Japanese, Korean | 4 |
//! | 0xf0 and above | emoji, rare characters | 8 |
//!
//! `tests/request/scripts.json` has texts in twelve languages with the counts of real tokenizers: older ones make twice as
//! many tokens of Greek, Hebrew, Hindi and Thai as newer ones, and the weights are between the two.

/// First bytes from here on weigh one more than other bytes, and four more. Any other byte weighs 1, so most text weighs
/// what it has bytes.
pub(super) const ONE_MORE_FROM: u8 = 0xe3;
pub(super) const FOUR_MORE_FROM: u8 = 0xf0;

/// What a byte of UTF-8 adds.
pub(super) const fn of_byte(byte: u8) -> u64 {
    match byte {
        0..ONE_MORE_FROM => 1,
        ONE_MORE_FROM..FOUR_MORE_FROM => 2,
        FOUR_MORE_FROM.. => 5,
    }
}

/// What a unit of UTF-16 adds: a surrogate pair counts with its first half.
pub(super) const fn of_unit(unit: u32) -> u64 {
    match unit {
        0xdc00..0xe000 => 0,
        0xd800..0xdc00 => 8,
        0..0x80 => 1,
        0x80..0x800 => 2,
        0x800..0x3000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_weighs_the_same_in_utf_8_and_in_utf_16() {
        for character in ('\u{1}'..='\u{10ffff}').step_by(7) {
            let bytes: u64 = character.encode_utf8(&mut [0; 4]).bytes().map(of_byte).sum();
            let units: u64 =
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| of_unit(u32::from(*unit))).sum();
            assert_eq!(bytes, units, "{character:?}");
        }
    }
}
